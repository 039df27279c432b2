"""What was let through past public safety, and what a second person says about it (P18).

There are no rows beside the records: an override is the record that ``ledger.append`` wrote with the text, a review
is a record that names it. Whether one was reviewed is asked of the search keys.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet, Subquery

from evidence.documents import PUBLIC_SAFETY_OVERRIDE, PUBLIC_SAFETY_REVIEW
from evidence.domain import clock as clocks
from evidence.domain import ledger, policies, records, text
from evidence.domain.clock import Clock
from evidence.enums import SafetyVerdict
from evidence.errors import Conflict, InvalidInput, NotAllowed, NotFound
from evidence.models import Person, Record, RecordKey
from evidence.permissions import Permission

# Search key of a review: the override that it is about.
REVIEWS = "reviewed_override_id"


@dataclass(frozen=True)
class Review:
    """What a second person said about an override."""

    review_id: str
    verdict: str
    notes: str
    reviewed_by: str
    reviewed_at: str


@dataclass(frozen=True)
class Override:
    """An override as it is listed, with its review once there is one."""

    record: Record
    said: Mapping[str, Any]
    person_id: str
    review: Review | None

    @property
    def hits(self) -> list[str]:
        """Field and rule of each hit."""
        return [f"{hit['field']}: {hit['rule']}" for hit in self.said["hits"]]


def review(
    override: Record,
    *,
    verdict: SafetyVerdict,
    notes: str = "",
    by: Person,
    clock: Clock,
    claimed_actor: str = "",
) -> records.Draft:
    """Say, as a second person, whether what was let through was a false hit or a leak; once.

    What is called a leak is not let through any more; the record that holds it is erased by a proposal of its own.
    Raises ``NotAllowed`` ``second_person_required``, ``InvalidInput`` for a leak without a word what follows,
    ``Conflict`` ``override_reviewed``.
    """
    policies.require_role(by, Permission.REVIEW_OVERRIDES)
    notes = text.clean(notes, field="notes", limit=text.MAX_NOTES, lines=True)
    if verdict is SafetyVerdict.LEAK and not notes:
        sentence = "Say what was done about it: which secret was changed, what is to be erased."
        raise InvalidInput(f"Not reviewed. {sentence}", errors={"notes": [sentence]})
    with transaction.atomic():
        # Two reviews of one override come one after the other.
        ledger.hold()
        at = clocks.read(clock)
        found = described([override])[0]
        if reasons := reasons_against_reviewing(by, found):
            raise NotAllowed(reasons[0], code="second_person_required", reasons=reasons)
        if found.review:
            raise Conflict(
                f"Not reviewed: {found.review.reviewed_by} has reviewed this override.",
                code="override_reviewed",
            )
        leaked = verdict is SafetyVerdict.LEAK
        draft = records.draft(
            PUBLIC_SAFETY_REVIEW,
            records.mint_id(PUBLIC_SAFETY_REVIEW),
            {
                "override_id": override.record_id,
                "override_hash": override.digest,
                "verdict": verdict.value,
                "notes": notes,
                "leaked": sorted({hit["match"] for hit in found.said["hits"]}) if leaked else [],
                "reviewed_by": by.username,
                "reviewed_at": records.timestamp(at),
            },
            at=at,
            by=by,
            cases=records.load(override.body or b"{}")["cases"],
            references=[records.Reference(override.kind, override.record_id, override.digest)],
            claimed_actor=claimed_actor,
        )
        ledger.append([draft])
    return draft


def reasons_against_reviewing(person: Person, override: Override) -> list[str]:
    """Why this person may not review it, roles aside: whoever let it through does not (P4)."""
    author = Person.objects.select_related("owner").filter(person_id=override.person_id).first()
    if author is not None and author.principal == person.principal:
        return ["Somebody else reviews this: you let it through."]
    return []


# --- queries ------------------------------------------------------------------------------------------------------


def overrides(*, reviewed: bool | None = None) -> QuerySet[Record]:
    """The records of what was let through, newest first: all, or those that somebody reviewed or nobody did."""
    rows = Record.objects.filter(kind=PUBLIC_SAFETY_OVERRIDE.name).order_by("-created_at", "-index")
    return rows if reviewed is None else rows.filter(having_review(reviewed))


def reviewed_lately() -> QuerySet[Record]:
    """Those that somebody reviewed, in the order of their reviews, the newest first."""
    review = RecordKey.objects.filter(name=REVIEWS, value=OuterRef("record_id")).values("record")
    return overrides(reviewed=True).order_by(Subquery(review[:1]).desc())


def having_review(there: bool) -> Q:
    """The condition on records of overrides that there is a review, or none."""
    about = Exists(RecordKey.objects.filter(name=REVIEWS, value=OuterRef("record_id")))
    return Q(about) if there else ~Q(about)


def by_id(override_id: str) -> Record:
    """The override with this id; ``NotFound`` otherwise."""
    row = overrides().filter(record_id=override_id).first()
    if row is None:
        raise NotFound("There is no override with this id.", code="override_not_found")
    return row


def described(rows: "list[Record] | QuerySet[Record]") -> list[Override]:
    """Overrides with what was said about them, in their order; three queries, however many there are."""
    rows = list(rows)
    about = RecordKey.objects.filter(name=REVIEWS, value__in=[row.record_id for row in rows])
    reviews = {
        said["override_id"]: Review(
            record.record_id, said["verdict"], said["notes"], said["reviewed_by"], said["reviewed_at"]
        )
        for record in Record.objects.filter(index__in=list(about.values_list("record", flat=True)))
        if (said := records.payload_of(record))
    }
    found = []
    for row in rows:
        document = records.load(row.body or b"{}")
        found.append(
            Override(row, document["payload"], document["actor"]["person_id"], reviews.get(row.record_id))
        )
    return found
