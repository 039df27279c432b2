"""Capsules: one case with its proofs, frozen at a signed head, the same bytes for whoever asks again.

The record about a capsule is newer than the head inside it, so a capsule says how many records the case had
among the first so many entries, and never how many there are.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from django.db import transaction
from django.db.models import BooleanField, ExpressionWrapper, Q, QuerySet

from evidence.documents import CASE_CAPSULE
from evidence.domain import capsule_files, checkpoints, erasures, ledger, log_keys, policies, records, text
from evidence.domain import clock as clocks
from evidence.domain import notes as signed_notes
from evidence.domain.clock import Clock
from evidence.domain.notes import Signer
from evidence.errors import Conflict, DomainError, Gone, NotFound, StaleState, Unavailable
from evidence.models import Capsule, Case, CaseLink, Checkpoint, Person, Record
from evidence.permissions import Permission

NO_KEY = "no_signing_key"
# Others append and sign meanwhile; a head that is too old for the case is a matter of moments.
_TRIES = 5


def freeze(case: Case, *, by: Person, clock: Clock, notes: str = "", claimed_actor: str = "") -> Capsule:
    """Sign a head over the case's newest entry unless there is one, and keep the case's capsule at that head.

    ``notes`` say what it is for; they stand in the record about the capsule, not in the capsule.

    Raises ``NotAllowed`` for who may not export, ``Unavailable`` (``no_signing_key``) and ``Conflict``
    (``ledger_behind``, ``capsule_too_large``, what ``checkpoints.make`` raises), and ``StaleState`` when a body
    was erased at this very moment.
    """
    policies.require_role(by, Permission.EXPORT)
    notes = text.clean(notes, field="notes", limit=text.MAX_NOTES, lines=True)
    for code, sentence in reasons_against_freezing():
        refusal = Unavailable if code == NO_KEY else Conflict
        raise refusal(f"No capsule was made. {sentence}", code=code)
    head, signers = _head_over(case.case_id, clock)
    capsule_id = records.mint_id(CASE_CAPSULE)
    chain = capsule_files.links(case.case_id, head.size)
    content = capsule_files.content(capsule_id, case.case_id, head, chain, signers)
    with transaction.atomic():
        # An erasure holds the case and the log too: it is done and seen here, or it waits, finds the capsule, and
        # was decided after the capsule was made.
        Case.objects.select_for_update(no_key=True).get(pk=case.pk)
        ledger.hold()
        _require_same_bodies(case.case_id, head.size, chain)
        at = clocks.read(clock)
        draft = records.draft(
            CASE_CAPSULE,
            capsule_id,
            {
                "case": case.case_id,
                "record_count": len(chain),
                "sha256": records.digest(content),
                "size": len(content),
                "log_size": head.size,
                "log_root": bytes(head.root).hex(),
                "notes": notes,
                "at": records.timestamp(at),
            },
            at=at,
            by=by,
            cases=[case.case_id],
            claimed_actor=claimed_actor,
        )
        Capsule.objects.create(
            capsule_id=capsule_id,
            case_id=case.case_id,
            records=len(chain),
            log_size=head.size,
            size=len(content),
            sha256=records.digest(content),
            content=content,
            created_at=at,
            created_by=by,
            record_hash=draft.digest,
        )
        ledger.append([draft])
    return by_id(capsule_id)


def reasons_against_freezing() -> list[tuple[str, str]]:
    """Why no capsule can be made of any case now, as ``(code, sentence)``."""
    try:
        signs = bool(log_keys.signers())
    except DomainError as error:
        return [(NO_KEY, error.detail)]
    if not signs:
        return [
            (
                NO_KEY,
                "No key signs this log, so nothing taken from it could be checked elsewhere. "
                "Make one with manage.py ledger_key and name it in CAVRA_LEDGER_KEYS.",
            )
        ]
    return checkpoints.ledger_behind()


def _head_over(case_id: str, clock: Clock) -> tuple[Checkpoint, list[Signer]]:
    """A signed head over the case's newest entry, and the keys that sign it and the capsule."""
    newest = CaseLink.objects.filter(case_id=case_id).order_by("-n").values_list("index", flat=True).first()
    if newest is None:
        raise Conflict("No capsule was made: the log has no record of this case.", code="no_records")
    for _ in range(_TRIES):
        checkpoints.make(clock=clock)
        head = checkpoints.covering(newest)
        signers = _signers_of(head) if head else []
        if head and signers:
            return head, signers
    raise Unavailable(
        "No capsule was made: the log is being signed by somebody else. Ask again.", code="head_not_signed"
    )


def _signers_of(head: Checkpoint) -> list[Signer]:
    """Our keys whose signatures a head carries."""
    _, signatures = signed_notes.parse(head.note)
    there = {(signature.name, signature.key_id) for signature in signatures}
    return [
        signer
        for signer in log_keys.signers()
        if (signer.name, signed_notes.key_id(signer.name, signer.public_key)) in there
    ]


def _require_same_bodies(case_id: str, size: int, chain: list[capsule_files.Link]) -> None:
    there = capsule_files.rows_of(case_id, size).filter(body__isnull=False)
    now = list(there.values_list("index", flat=True))
    if now != [link.record.index for link in chain if link.record.body is not None]:
        raise StaleState("No capsule was made: a record of this case was erased just now. Ask again.")


# --- reading ----------------------------------------------------------------------------------------------------------


def by_id(capsule_id: str) -> Capsule:
    """The capsule with this id; ``NotFound`` (``capsule_not_found``) when there is none.

    Its bytes are read when they are asked for; ``erased`` says whether they are gone.
    """
    found = _rows().filter(capsule_id=capsule_id).first()
    if found is None:
        raise NotFound("There is no capsule with this id.", code="capsule_not_found")
    return found


def of_case(case_id: str) -> QuerySet[Capsule]:
    """Capsules of a case, the newest first, like ``by_id``."""
    return _rows().filter(case_id=case_id).order_by("-pk")


def _rows() -> QuerySet[Capsule]:
    erased = ExpressionWrapper(Q(content__isnull=True), BooleanField())
    return Capsule.objects.select_related("created_by").defer("content").annotate(erased=erased)


def content_of(capsule: Capsule, *, by: Person) -> bytes:
    """The zip, as it was made. Raises ``NotAllowed`` for who may not export and ``Gone`` (``erased``)."""
    policies.require_role(by, Permission.EXPORT)
    if capsule.content is None:
        raise Gone(
            "The bytes of this capsule are gone: a record in it was erased. Make a new one of the same case.",
            code="erased",
        )
    return bytes(capsule.content)


# --- forgetting -------------------------------------------------------------------------------------------------------


def forget(index: int, cases: Iterable[str]) -> list[str]:
    """Drop the bytes of every capsule that may hold the body of entry ``index``, which names ``cases``.

    Inside an erasure's transaction, which holds the log. Returns the ids of those that lost their bytes.
    """
    holding = Capsule.objects.filter(case_id__in=set(cases), log_size__gt=index, content__isnull=False)
    found = list(holding.order_by("pk").values_list("capsule_id", flat=True))
    Capsule.objects.filter(capsule_id__in=found).update(content=None)
    return found


def outlived(since: int = 0) -> Iterator[tuple[str, int]]:
    """Capsules that still have bytes though an erasure, recorded after them, took a record in them.

    ``(capsule's id, place of the erased record)``, for erasures from entry ``since`` on.
    """
    for entry, places in erasures.said_gone(since):
        named = erasures.named_cases(Record.objects.filter(index__in=places).defer("body"))
        about = Capsule.objects.filter(case_id__in=set().union(*named.values()), content__isnull=False)
        rows = list(about.order_by("pk").values_list("capsule_id", "case_id", "log_size"))
        earlier = Record.objects.filter(
            record_id__in=[capsule_id for capsule_id, *_ in rows], index__lt=entry
        )
        older = set(earlier.values_list("record_id", flat=True))
        for capsule_id, case, size in rows:
            inside = [index for index, cases in named.items() if case in cases and index < size]
            if inside and capsule_id in older:
                yield capsule_id, min(inside)


def holding(found: Sequence[Record]) -> dict[int, int]:
    """How many capsules would lose their bytes with each of these records, by its place in the log."""
    named = erasures.named_cases(found)
    about = Capsule.objects.filter(case_id__in=set().union(*named.values()), content__isnull=False)
    rows = list(about.values_list("case_id", "log_size"))
    return {
        index: sum(case in cases and size > index for case, size in rows) for index, cases in named.items()
    }


def forget_all(found: Sequence[Record], at: datetime) -> Counter[str]:
    """The same for several records, as ``erasures`` calls it: how many capsules lost their bytes."""
    named = erasures.named_cases(found)
    lost = [forget(record.index, named[record.index]) for record in found]
    return Counter({"evidence.Capsule: content": sum(len(ids) for ids in lost)})
