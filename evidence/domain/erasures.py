"""Erasures: the bytes of a record go, its entry, its place and every proof stay (P24).

Two people: who may propose (administrator, auditor) names the records, a legal basis and a reason, and an auditor
who is somebody else confirms or refuses. The other way is a retention rule, see ``retention``. What goes is one
table, ``evidence.erasable``; the database's guards let exactly that go. The record of kind ``erasure`` says which
places in the log were emptied, with the digests that are still sealed there, and repeats nothing of what went.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q, QuerySet

from evidence import erasable
from evidence.documents import ERASURE, ERASURE_PROPOSAL, ERASURE_REFUSAL, KINDS
from evidence.domain import clock as clocks
from evidence.domain import holds, ledger, people, policies, records, retention_terms, text
from evidence.domain.clock import Clock
from evidence.domain.transitions import ERASURES, move
from evidence.enums import ErasureState, Role
from evidence.errors import Conflict, InvalidInput, NotAllowed, NotFound
from evidence.models import Case, Erasure, ErasureItem, LegalHold, Person, Record, RecordKey, RetentionRule
from evidence.permissions import Permission

# Records that one erasure takes; its own record stays readable, and the cases they name fit into one entry.
MOST = 100

# How an erasure came about, as its record says.
UNDER_TWO_PEOPLE, UNDER_RETENTION = "two_people", "retention"

Reason = tuple[str, str]
# Why records may not be erased, by their place in the log.
Against = Mapping[int, Sequence[Reason]]
# Empties what holds bytes of these records beside the table of places; returns how many rows, by what they are. It
# is called with the ledger held and before the records go, so it takes no lock that somebody else may wait with.
CopyEraser = Callable[[Sequence[Record], datetime], Counter[str]]
Keeper = Callable[[Sequence[Record]], Against]

COPY_ERASERS: list[CopyEraser] = []
KEEPERS: list[Keeper] = []

# An id of this service tells nothing of what was erased, and what quotes it has to find it. A person's id does.
_OWN_ID = re.compile(r"(?!person-)[a-z]+-[0-9a-f]{16}(?:\.[a-z0-9_]{1,40})?")
_KEPT_NAMES = frozenset({"metadata_kind", "history", "case"})


def register(*, eraser: CopyEraser | None = None, keeper: Keeper | None = None) -> None:
    """Add what another module has to empty with a record, or its own reasons why a record has to stay."""
    if eraser is not None and eraser not in COPY_ERASERS:
        COPY_ERASERS.append(eraser)
    if keeper is not None and keeper not in KEEPERS:
        KEEPERS.append(keeper)


# --- acts ---------------------------------------------------------------------------------------------------------


def propose(
    record_ids: Sequence[str],
    legal_basis: str,
    reason: str,
    *,
    by: Person,
    clock: Clock,
    claimed_actor: str = "",
) -> Erasure:
    """Propose that the bytes of up to 100 records go. Nothing goes before another person confirms.

    Raises ``InvalidInput`` for what is missing or too much, ``NotFound`` ``record_not_found`` for an id that names
    nothing, ``Conflict`` with every reason why a record has to stay.
    """
    policies.require_role(by, Permission.PROPOSE_ERASURE)
    legal_basis = text.clean(legal_basis, field="legal_basis", limit=text.MAX_REFERENCE)
    reason = text.clean(reason, field="reason", limit=text.MAX_NOTES, lines=True)
    wanted = list(dict.fromkeys(record_ids))
    _require_input(wanted, legal_basis, reason)
    with transaction.atomic():
        ledger.hold()
        at = clocks.read(clock)
        found = _found(wanted)
        _refuse_for(reasons_against_proposing(found), "Not proposed")
        erasure_id = records.mint_id(ERASURE)
        draft = records.draft(
            ERASURE_PROPOSAL,
            records.mint_id(ERASURE_PROPOSAL),
            {
                "erasure_id": erasure_id,
                "legal_basis": legal_basis,
                "reason": reason,
                "proposed_by": by.username,
                "proposed_at": records.timestamp(at),
                "record_count": len(found),
                "items": [_named(record) for record in found],
            },
            at=at,
            by=by,
            cases=_cases(found),
            claimed_actor=claimed_actor,
        )
        erasure = Erasure.objects.create(
            erasure_id=erasure_id,
            legal_basis=legal_basis,
            reason=reason,
            proposed_by=by.principal,
            proposed_through=by,
            proposed_at=at,
            proposal_id=draft.record_id,
            proposal_hash=draft.digest,
        )
        _list(erasure, found)
        ledger.append([draft])
    return erasure


def confirm(erasure: Erasure, *, by: Person, clock: Clock, claimed_actor: str = "") -> records.Draft:
    """Erase what was proposed, now and for good. Returns the record of it.

    Raises ``NotAllowed`` ``second_person_required`` for who proposed it or was no auditor by then, ``Conflict``
    when it was decided already or a record has to stay: nothing of it is erased then.
    """
    policies.require_role(by, Permission.CONFIRM_ERASURE)
    with transaction.atomic():
        erasure = _locked(erasure)
        at = clocks.read(clock)
        _require_second_person(erasure, by)
        _require_open(erasure, "Not erased")
        move(ERASURES, erasure.pk, ErasureState.CONFIRMED, decided_by=by.principal, decided_at=at)
        draft = _carry_out(erasure, at=at, by=by, claimed_actor=claimed_actor)
        ledger.append([draft])
    return draft


def refuse(
    erasure: Erasure, *, by: Person, clock: Clock, notes: str, claimed_actor: str = ""
) -> records.Draft:
    """End a proposal; every record stays as it is. Raises like ``confirm``, and ``InvalidInput`` without a word why."""
    policies.require_role(by, Permission.CONFIRM_ERASURE)
    if not notes.strip():
        raise InvalidInput(
            "Not refused: say why; who proposed it has to know.", errors={"notes": ["Say why."]}
        )
    return _end(erasure, ErasureState.REFUSED, by=by, clock=clock, notes=notes, claimed_actor=claimed_actor)


def withdraw(
    erasure: Erasure, *, by: Person, clock: Clock, notes: str = "", claimed_actor: str = ""
) -> records.Draft:
    """The proposer takes a proposal back. Raises ``NotAllowed`` ``proposer_required`` for anybody else."""
    policies.require_role(by, Permission.PROPOSE_ERASURE)
    return _end(erasure, ErasureState.WITHDRAWN, by=by, clock=clock, notes=notes, claimed_actor=claimed_actor)


def retire(rule: RetentionRule, found: Sequence[Record], *, clock: Clock) -> records.Draft | None:
    """Erase what a rule in force lets go, as one erasure; None when every record of it has to stay after all.

    ``found`` are at most 100 records of the rule's kind that are due. The rule is read again and held: raises
    ``Conflict`` ``retention_not_in_force`` when it was switched off or its terms were edited meanwhile.
    """
    with transaction.atomic():
        rule = _rule_locked(rule)
        rows = _cases_locked(found)
        at = clocks.read(clock)
        if not retention_terms.in_force(rule):
            raise Conflict(
                f"Not erased: the rule about {rule.kind} is not in force; an auditor confirms its terms.",
                code="retention_not_in_force",
            )
        before = at - timedelta(days=rule.keep_days)
        free = _without_kept([row for row in rows if row.kind == rule.kind and row.created_at < before])
        if not free:
            return None
        erasure = Erasure.objects.create(
            erasure_id=records.mint_id(ERASURE), legal_basis=rule.legal_basis, rule=rule, proposed_at=at
        )
        _list(erasure, free)
        move(ERASURES, erasure.pk, ErasureState.CONFIRMED, decided_at=at)
        draft = _carry_out(erasure, at=at, by=None, claimed_actor="")
        ledger.append([draft])
    return draft


def _require_input(wanted: Sequence[str], legal_basis: str, reason: str) -> None:
    errors = {}
    if not wanted:
        errors["records"] = ["Name at least one record."]
    elif len(wanted) > MOST:
        errors["records"] = [f"Names {len(wanted)} records; {MOST} are allowed."]
    if not legal_basis:
        errors["legal_basis"] = ["Name the legal basis."]
    if not reason:
        errors["reason"] = ["Say why."]
    if errors:
        first = next(iter(errors.values()))[0]
        raise InvalidInput(f"Not proposed. {first}", errors=errors)


def _found(wanted: Sequence[str]) -> list[Record]:
    """The named records in the order of the log; ``NotFound`` naming how many there are not."""
    found = sorted(records.by_ids(wanted).values(), key=lambda record: record.index)
    if len(found) != len(wanted):
        raise NotFound(
            "Not proposed: there is no record with one of these ids.",
            code="record_not_found",
            errors={"records": [f"{len(wanted) - len(found)} of {len(wanted)} ids name no record."]},
        )
    return found


def _list(erasure: Erasure, found: Sequence[Record]) -> None:
    ErasureItem.objects.bulk_create(
        ErasureItem(
            erasure=erasure,
            index=record.index,
            record_id=record.record_id,
            kind=record.kind,
            digest=record.digest,
        )
        for record in found
    )


def _locked(erasure: Erasure) -> Erasure:
    """The erasure, held until the verb ends; its cases too, so that nothing is decided about them meanwhile."""
    row = erasures().select_for_update(no_key=True, of=("self",)).get(pk=erasure.pk)
    _cases_locked(Record.objects.defer("body").filter(index__in=row.items.values("index")))
    return row


def _rule_locked(rule: RetentionRule) -> RetentionRule:
    """The rule as it stands, held until the verb ends, with the people behind it."""
    rules = RetentionRule.objects.select_related("edited_by", "confirmed_by")
    return rules.select_for_update(no_key=True, of=("self",)).get(pk=rule.pk)


def _cases_locked(found: Iterable[Record]) -> list[Record]:
    """Hold the cases that these records matter to, in the order in which everybody locks several."""
    rows = list(found)
    about = {case for cases in cases_about(rows).values() for case in cases}
    locked = Case.objects.select_for_update(no_key=True).filter(case_id__in=about).order_by("pk")
    list(locked.values_list("pk", flat=True))
    return rows


def _require_second_person(erasure: Erasure, by: Person) -> None:
    if reasons := reasons_against_deciding(by, erasure):
        raise NotAllowed(reasons[0], code="second_person_required", reasons=reasons)


def _require_open(erasure: Erasure, what: str) -> None:
    if erasure.state != ErasureState.PROPOSED:
        raise Conflict(
            f"{what}: this proposal is {erasure.state}; it takes no more decisions.",
            code="erasure_ended",
            erasure_state=erasure.state,
        )


def _refuse_for(against: Sequence[Reason], what: str) -> None:
    """Raise ``Conflict`` with every reason, in the words of the first one."""
    if against:
        code, sentence = against[0]
        raise Conflict(f"{what}: {sentence}", code=code, reasons=[said for _, said in against])


def _end(
    erasure: Erasure,
    state: ErasureState,
    *,
    by: Person,
    clock: Clock,
    notes: str,
    claimed_actor: str,
) -> records.Draft:
    notes = text.clean(notes, field="notes", limit=text.MAX_NOTES, lines=True)
    with transaction.atomic():
        erasure = _locked(erasure)
        at = clocks.read(clock)
        if state is ErasureState.REFUSED:
            _require_second_person(erasure, by)
        elif reasons := reasons_against_withdrawing(by, erasure):
            raise NotAllowed(reasons[0], code="proposer_required", reasons=reasons)
        _require_open(erasure, f"Not {state.value}")
        move(ERASURES, erasure.pk, state, decided_by=by.principal, decided_at=at)
        draft = records.draft(
            ERASURE_REFUSAL,
            records.mint_id(ERASURE_REFUSAL),
            {
                "erasure_id": erasure.erasure_id,
                "erasure_state": state.value,
                "decided_by": by.username,
                "decided_at": records.timestamp(at),
                "notes": notes,
            },
            at=at,
            by=by,
            cases=_cases(_records_of(erasure)),
            references=[_proposal_reference(erasure)],
            claimed_actor=claimed_actor,
        )
        ledger.append([draft])
    return draft


# --- what goes ----------------------------------------------------------------------------------------------------


def _carry_out(erasure: Erasure, *, at: datetime, by: Person | None, claimed_actor: str) -> records.Draft:
    """Empty every place that holds what the records say, then the records; the draft of the record about it.

    The ledger is held before the last look at what keeps them: a hold that was placed first is seen, and one
    that is placed now comes afterwards.
    """
    cleared = _clear_copies([item.record_id for item in erasure.items.all()])
    ledger.hold()
    found = _records_of(erasure)
    _refuse_for(_flat(reasons_against_erasing(found)), "Not erased")
    for eraser in COPY_ERASERS:
        cleared += eraser(found, at)
    items = [_named(record) | _remains(record) for record in found]
    indexes = [record.index for record in found]
    Record.objects.filter(index__in=indexes).update(body=None)
    RecordKey.objects.filter(record__in=indexes).delete()
    RecordKey.objects.bulk_create(
        RecordKey(name=name, value=value, created_at=record.created_at, record=record.index)
        for record, item in zip(found, items, strict=True)
        for name, value in item["kept_keys"]
    )
    rule = erasure.rule
    return records.draft(
        ERASURE,
        erasure.erasure_id,
        {
            "legal_basis": erasure.legal_basis,
            "erased_under": UNDER_RETENTION if rule else UNDER_TWO_PEOPLE,
            "retention_kind": rule.kind if rule else "",
            "keep_days": rule.keep_days if rule else None,
            "proposed_by": _name(erasure.proposed_through or (rule.edited_by if rule else None)),
            "confirmed_by": _name(by or (rule.confirmed_by if rule else None)),
            "erased_at": records.timestamp(at),
            "record_count": len(items),
            "items": items,
            "cleared": [{"place": place, "rows": rows} for place, rows in sorted(cleared.items()) if rows],
        },
        at=at,
        by=by,
        cases=_cases(found),
        references=[] if rule else [_proposal_reference(erasure)],
        claimed_actor=claimed_actor,
    )


def _clear_copies(ids: Sequence[str]) -> Counter[str]:
    """Empty what is listed in ``evidence.erasable``; how many rows, by table and columns."""
    cleared: Counter[str] = Counter()
    for place, rows, empty in _copies(ids):
        cleared[f"{place.model}: {', '.join(place.columns)}"] += rows.update(**empty)
    return cleared


def _copies(ids: Sequence[str]) -> Iterator[tuple[erasable.Place, QuerySet[Any], dict[str, Any]]]:
    """Each listed place with its rows that still hold something of these records, and what an emptied one holds."""
    for place in erasable.PLACES:
        if not place.columns or place.holds or place.cls is Record:
            continue
        empty = {column: place.empty(column) for column in place.columns}
        yield (
            place,
            place.cls._default_manager.filter(**{f"{place.named_by}__in": ids}).exclude(**empty),
            empty,
        )


def copies(ids: Sequence[str]) -> dict[str, list[str]]:
    """What goes with each of these records beside its body and search keys: columns by their tables, in words.

    Capsules are not among it. A query for each place, however many records.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for place, rows, empty in _copies(ids):
        words = f"{place.cls._meta.verbose_name}: {', '.join(empty).replace('_', ' ')}"
        for record_id in rows.order_by().values_list(place.named_by, flat=True).distinct():
            found[record_id].append(words)
    return dict(found)


def _named(record: Record) -> dict[str, Any]:
    """How a document names a record that goes or went: by its place and what is sealed there."""
    return {
        "index": record.index,
        "record_id": record.record_id,
        "kind": record.kind,
        "digest": record.digest,
        "size": record.size,
    }


def _remains(record: Record) -> dict[str, Any]:
    """What is still known about a record afterwards, for whoever verifies: its counter and its search keys."""
    document = records.load(record.body or b"")
    kind = KINDS[record.kind]
    return {
        "counted_as": records.state_of(kind, document),
        "kept_keys": [
            [name, value] for name, value in records.search_keys(kind, document) if stays(name, value)
        ],
    }


def stays(name: str, value: str) -> bool:
    """Whether a search key stays: what kind it is, which cases it is about, and the ids that it names and has."""
    return name in _KEPT_NAMES or bool(
        (name == records.ANY or name.endswith("_id")) and _OWN_ID.fullmatch(value)
    )


def _name(person: Person | None) -> str:
    return person.username if person else "system"


def _proposal_reference(erasure: Erasure) -> records.Reference:
    return records.Reference(ERASURE_PROPOSAL.name, erasure.proposal_id, erasure.proposal_hash)


# --- what keeps a record --------------------------------------------------------------------------------------------


def reasons_against_erasing(found: Sequence[Record]) -> dict[int, list[Reason]]:
    """Why each of these records has to stay, as ``(code, sentence)`` by its place; nothing for one that may go.

    One list feeds the refusal, the page and the answer. A few queries, however many records.
    """
    about = cases_about(found)
    cases = {case for named in about.values() for case in named}
    unsettled = set(
        Case.objects.filter(case_id__in=cases, settled_at__isnull=True).values_list("case_id", flat=True)
    )
    held = holds.standing_on([*cases, *(record.record_id for record in found)])
    against: dict[int, list[Reason]] = defaultdict(list)
    for record in found:
        against[record.index] += [
            (code, f"{record.record_id} {sentence}")
            for applies, code, sentence in (
                (record.body is None, "record_erased", "is erased already."),
                (
                    record.kind not in KINDS or not KINDS[record.kind].erasable,
                    "kind_kept",
                    f"stays for good: without a record of kind {record.kind} the others could not be judged.",
                ),
                *(
                    (case in unsettled, "case_unsettled", f"belongs to {case}, which is not settled yet.")
                    for case in sorted(about[record.index])
                ),
                *(
                    (scope in held, "legal_hold", f"is under the legal hold {_hold(held, scope)}.")
                    for scope in (LegalHold.ALL, *sorted(about[record.index]), record.record_id)
                ),
            )
            if applies
        ]
    for keeper in KEEPERS:
        for index, reasons in keeper(found).items():
            against[index] += reasons
    return {index: reasons for index, reasons in against.items() if reasons}


def _hold(held: Mapping[str, LegalHold], scope: str) -> str:
    return held[scope].hold_id if scope in held else ""


def reasons_against_proposing(found: Sequence[Record]) -> list[Reason]:
    """Why these records cannot be proposed together: one has to stay, waits already, or they name too many cases."""
    reasons = _flat(reasons_against_erasing(found))
    waiting = ErasureItem.objects.filter(
        erasure__state=ErasureState.PROPOSED, index__in=[record.index for record in found]
    ).select_related("erasure__proposed_by")
    reasons += [
        ("erasure_open", f"{item.record_id}: {_name(item.erasure.proposed_by)} proposed its erasure already.")
        for item in waiting
    ]
    if len(_cases(found)) > records.MAX_CASES_PER_RECORD:
        reasons.append(
            (
                "too_many_cases",
                f"These records name more than {records.MAX_CASES_PER_RECORD} cases; propose fewer at once.",
            )
        )
    return reasons


def reasons_against_deciding(person: Person, erasure: Erasure) -> list[str]:
    """Why this person may not confirm or refuse an erasure: they proposed it, or hold too young a role (P4)."""
    reasons = []
    proposer = erasure.proposed_through
    if proposer and people.answering(person) & people.answering(proposer):
        reasons.append("Not decided: you proposed this erasure; another auditor decides.")
    since = people.holds_role_since(person, Role.AUDITOR)
    if since is None or since >= erasure.proposed_at:
        reasons.append("Not decided: you did not hold the auditor role when this was proposed.")
    return reasons


def reasons_against_withdrawing(person: Person, erasure: Erasure) -> list[str]:
    """Why this person may not take a proposal back: it is not theirs."""
    if erasure.proposed_by_id == person.principal.pk:
        return []
    return [f"Only {_name(erasure.proposed_by)}, who proposed this, may withdraw it."]


def _flat(against: Mapping[int, Sequence[Reason]]) -> list[Reason]:
    return [reason for index in sorted(against) for reason in against[index]]


def _without_kept(found: Sequence[Record]) -> list[Record]:
    """Those that may go, of which together name no more cases than one record may."""
    against = reasons_against_erasing(found)
    free: list[Record] = []
    cases: set[str] = set()
    named = named_cases(found)
    for record in found:
        if record.index not in against and len(cases | named[record.index]) <= records.MAX_CASES_PER_RECORD:
            free.append(record)
            cases |= named[record.index]
    return free


def named_cases(found: Iterable[Record]) -> dict[int, set[str]]:
    """The cases that each record names, by its place; an erased one still does."""
    named: dict[int, set[str]] = {record.index: set() for record in found}
    keys = RecordKey.objects.filter(record__in=named, name="case")
    for index, case in keys.values_list("record", "value"):
        named[index].add(case)
    return named


def cases_about(found: Iterable[Record]) -> dict[int, set[str]]:
    """The same, with the cases that a record was sent for: a package and a plan name none of them."""
    rows = list(found)
    about = named_cases(rows)
    places = {record.record_id: record.index for record in rows}
    sent = Case.objects.filter(Q(package__audit_id__in=places) | Q(plan__delivery_id__in=places))
    for case, audit_id, delivery_id in sent.values_list("case_id", "package__audit_id", "plan__delivery_id"):
        for record_id in (audit_id, delivery_id):
            if record_id in places:
                about[places[record_id]].add(case)
    return about


def _cases(found: Iterable[Record]) -> list[str]:
    """The cases whose chain goes on with a document about these records."""
    return sorted({case for named in named_cases(found).values() for case in named})


# --- queries ------------------------------------------------------------------------------------------------------


def erasures() -> QuerySet[Erasure]:
    """Erasures with everything that judging and showing one needs, newest first."""
    return Erasure.objects.select_related(
        "proposed_by", "proposed_through__owner", "decided_by", "rule__edited_by", "rule__confirmed_by"
    ).prefetch_related("items")


def erasure_by_id(erasure_id: str) -> Erasure:
    """The erasure with this id; ``NotFound`` otherwise."""
    row = erasures().filter(erasure_id=erasure_id).first()
    if row is None:
        raise NotFound("There is no erasure with this id.", code="erasure_not_found")
    return row


def _records_of(erasure: Erasure) -> list[Record]:
    return list(Record.objects.filter(index__in=erasure.items.values("index")).order_by("index"))


@dataclass(frozen=True)
class Erased:
    """That the bytes of a record went: when, by the erasure of which id, and how, as its record says."""

    at: datetime
    erasure_id: str
    under: str
    legal_basis: str
    cases: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, str]:
        """For an answer."""
        return {
            "erasure_id": self.erasure_id,
            "erased_at": records.timestamp(self.at),
            "erased_under": self.under,
            "legal_basis": self.legal_basis,
        }

    @property
    def sentence(self) -> str:
        """The same in words."""
        how = "by two people" if self.under == UNDER_TWO_PEOPLE else "under a retention rule"
        return f"Body erased {self.at.day} {self.at:%B %Y}, {how}"


def erased(found: Sequence[Record]) -> dict[int, Erased]:
    """What the ledger says about the erasure of those of these records that have no body, by their place.

    One that no record speaks of is not among them: its bytes are missing, whoever took them. Two or three queries,
    none when nothing is erased.
    """
    gone = [record for record in found if record.body is None]
    said = stated(gone)
    named = named_cases(record for record in gone if record.index in said)
    shown = {}
    for index, ((record, _), *_) in said.items():
        payload = records.payload_of(record) or {}
        shown[index] = Erased(
            at=record.created_at,
            erasure_id=record.record_id,
            under=payload["erased_under"],
            legal_basis=payload["legal_basis"],
            cases=tuple(sorted(named[index])),
        )
    return shown


# What the ledger says about erased records, by their place: the erasure's record, and what it says of this one.
Stated = dict[int, list[tuple[Record, dict[str, Any]]]]


def stated(found: Iterable[Record]) -> Stated:
    """What the ledger says about the erasure of these records.

    Only what names the very digest that is sealed counts, and only when it was recorded later.
    """
    wanted = {record.index: record for record in found}
    if not wanted:
        return {}
    ids = [record.record_id for record in wanted.values()]
    named = RecordKey.objects.filter(name="erased_record_id", value__in=ids).values("record")
    said: dict[int, list[tuple[Record, dict[str, Any]]]] = defaultdict(list)
    for record in Record.objects.filter(index__in=named, kind=ERASURE.name).order_by("index"):
        for item in (records.payload_of(record) or {"items": ()})["items"]:
            about = wanted.get(item["index"])
            if about and about.index < record.index and item["digest"] == about.digest:
                said[about.index].append((record, item))
    return dict(said)


def still_there() -> Iterator[tuple[int, str]]:
    """Records that an erasure speaks of and whose bytes are there all the same: ``(place, id)``."""
    for _, places in said_gone():
        there = Record.objects.filter(index__in=places, body__isnull=False).order_by("index")
        yield from there.values_list("index", "record_id")


def said_gone(since: int = 0) -> Iterator[tuple[int, list[int]]]:
    """Each erasure from entry ``since`` on: its own place in the log, and those of the records it took."""
    entries = Record.objects.filter(kind=ERASURE.name, index__gte=since).order_by("index")
    for record in entries.iterator(chunk_size=MOST):
        said = records.payload_of(record) or {"items": ()}
        yield record.index, [item["index"] for item in said["items"]]
