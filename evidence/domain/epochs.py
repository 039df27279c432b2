"""New epochs: after a restored backup the log goes on under another name, decided by two people (P25).

Tables and indexes stay. What was signed under the old name stays true of the old log: the entries that are
lost here were part of it, and no head under the new name says otherwise. Another app registers what has to
end with the old epoch in the same transaction.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from django.db import transaction
from django.db.models import Min, QuerySet

from evidence.documents import EPOCH, EPOCH_PROPOSAL, EPOCH_WITHDRAWAL
from evidence.domain import checkpoints, ledger, log_keys, notes, policies, records, text
from evidence.domain import clock as clocks
from evidence.domain import people as persons
from evidence.domain.clock import Clock
from evidence.domain.notes import Head
from evidence.domain.transitions import EPOCHS, move
from evidence.enums import EpochState, Role
from evidence.errors import Conflict, InvalidInput, NotAllowed, NotFound
from evidence.models import EpochProposal, LedgerHead, Person, Record
from evidence.permissions import ROLE_PERMISSIONS, Permission

# Drafts appended at once: what ends with an epoch may be many thousand records.
APPENDED_AT_ONCE = 500


@dataclass(frozen=True)
class KnownHead:
    """A head of the old log that is held outside this database; ``root`` in hex, ``signers`` known here.

    ``written_at`` is when its file was written, if that can be said.
    """

    origin: str = ""
    size: int = 0
    root: str = ""
    signers: tuple[str, ...] = ()
    written_at: datetime | None = None


@dataclass(frozen=True)
class Beginning:
    """The epoch that begins: what was done between ``since`` and ``at`` may be unknown here."""

    epoch: int
    origin: str
    since: datetime
    at: datetime
    by: Person
    proposal: records.Reference


# Ends what stood in the old epoch and returns the records of that; called with the proposal's row held.
Consequence = Callable[[Beginning], list[records.Draft]]
_CONSEQUENCES: list[Consequence] = []


def register(consequence: Consequence) -> None:
    """Add what another app has to end when an epoch begins."""
    if consequence not in _CONSEQUENCES:
        _CONSEQUENCES.append(consequence)


# --- verbs --------------------------------------------------------------------------------------------------------


def propose(
    *,
    reason: str,
    by: Person,
    clock: Clock,
    origin: str = "",
    known: KnownHead | None = None,
    although_not_behind: bool = False,
) -> EpochProposal:
    """Propose that the log goes on as a new one; nothing changes before another person confirms.

    ``origin`` is the new log's name (default: the old one's with the number of the epoch), ``known`` the newest
    head of the old log (default: the one in the file beside the database). Raises ``InvalidInput`` for a name
    that cannot be one, ``Conflict`` ``not_behind`` unless the database is behind or ``although_not_behind``
    says that it was set back all the same, and ``proposal_open`` while another proposal waits.
    """
    policies.require_role(by, Permission.START_EPOCH)
    reason = _words(reason, "Not proposed: say why.")
    with transaction.atomic():
        head = LedgerHead.objects.select_for_update(no_key=True).get()
        at = clocks.read(clock)
        if waiting := open_proposal():
            raise Conflict(
                f"Not proposed: {waiting.proposed_through} proposed a new epoch already; confirm or withdraw "
                f"{waiting.proposal_id} first.",
                code="proposal_open",
                proposal_id=waiting.proposal_id,
            )
        behind = [sentence for _, sentence in checkpoints.ledger_behind()]
        if not behind and not although_not_behind:
            raise Conflict(
                "Not proposed: this database is not behind the head that is kept outside. If it was set back all the "
                "same, say so (--not-behind).",
                code="not_behind",
            )
        epoch = head.epoch + 1
        origin = _new_origin(origin, head, epoch)
        known = known or outside()
        lost = _first_lost(known, head.size) if behind else head.size
        payload = {
            "old_origin": head.origin,
            "origin": origin,
            "epoch": epoch,
            "known_origin": known.origin,
            "known_size": known.size,
            "known_root": known.root,
            "known_signers": list(known.signers),
            "first_lost_index": lost,
            "kept_until": records.timestamp(_time_of(lost - 1)),
            "reason": reason,
        }
        draft = records.draft(
            EPOCH_PROPOSAL,
            records.mint_id(EPOCH_PROPOSAL),
            {**payload, "behind": behind, "proposed_by": by.username, "proposed_at": records.timestamp(at)},
            at=at,
            by=by,
        )
        proposal = EpochProposal.objects.create(
            proposal_id=draft.record_id,
            old_origin=head.origin,
            origin=origin,
            epoch=epoch,
            reason=reason,
            known_origin=known.origin,
            known_size=known.size,
            known_root=known.root,
            first_lost_index=lost,
            proposed_by=by.principal,
            proposed_through=by,
            proposed_at=at,
            record_hash=draft.digest,
        )
        ledger.append([draft])
    return proposal


def confirm(proposal: EpochProposal, *, by: Person, clock: Clock) -> Record:
    """Begin the proposed epoch and end what stood in the old one, all in one transaction; its first record.

    Raises ``NotAllowed`` ``second_person_required`` for who proposed it or held neither role by then, ``Conflict``
    ``proposal_ended`` or, when a head is known by now that it does not speak of, ``proposal_stale``.
    """
    policies.require_role(by, Permission.START_EPOCH)
    with transaction.atomic():
        proposal = _held(proposal)
        at = clocks.read(clock)
        if reasons := reasons_against_confirming(by, proposal):
            raise NotAllowed(reasons[0], code="second_person_required", reasons=reasons)
        for code, sentence in reasons_against_epoch(proposal):
            raise Conflict(f"Not confirmed: {sentence}", code=code, proposal_state=proposal.state)
        said = _said(proposal)
        reference = records.Reference(EPOCH_PROPOSAL.name, proposal.proposal_id, proposal.record_hash)
        begun = Beginning(
            epoch=proposal.epoch,
            origin=proposal.origin,
            since=_time_of(proposal.first_lost_index - 1),
            at=at,
            by=by,
            proposal=reference,
        )
        drafts = [draft for consequence in _CONSEQUENCES for draft in consequence(begun)]
        move(EPOCHS, proposal.pk, EpochState.CONFIRMED, decided_by=by.principal, decided_at=at)
        head = LedgerHead.objects.select_for_update(no_key=True).get()
        keys = log_keys.carry_over(proposal.origin, at=at, by=by)
        ledger.begin_epoch(proposal.origin, epoch=proposal.epoch)
        genesis = records.draft(
            EPOCH,
            records.mint_id(EPOCH),
            {
                **{name: said[name] for name in ("origin", "epoch", "old_origin", *_KNOWN)},
                "first_index": head.size,
                "started_at": records.timestamp(at),
                "proposal_id": proposal.proposal_id,
                "proposal_hash": proposal.record_hash,
                "proposed_by": proposal.proposed_through.username,
                "confirmed_by": by.username,
            },
            at=at,
            by=by,
            references=[reference],
        )
        (record,) = ledger.append([genesis])
        following = [*keys, *drafts]
        for first in range(0, len(following), APPENDED_AT_ONCE):
            ledger.append(following[first : first + APPENDED_AT_ONCE])
    return record


_KNOWN = (
    "known_origin",
    "known_size",
    "known_root",
    "known_signers",
    "first_lost_index",
    "kept_until",
    "reason",
)


def withdraw(proposal: EpochProposal, *, reason: str, by: Person, clock: Clock) -> records.Draft:
    """End a proposal that nobody confirmed; whoever may propose one may. Raises ``Conflict`` ``proposal_ended``."""
    policies.require_role(by, Permission.START_EPOCH)
    reason = _words(reason, "Not withdrawn: say why.")
    with transaction.atomic():
        proposal = _held(proposal)
        at = clocks.read(clock)
        for code, sentence in _ended(proposal):
            raise Conflict(f"Not withdrawn: {sentence}", code=code, proposal_state=proposal.state)
        move(EPOCHS, proposal.pk, EpochState.WITHDRAWN, decided_by=by.principal, decided_at=at)
        draft = records.draft(
            EPOCH_WITHDRAWAL,
            records.mint_id(EPOCH_WITHDRAWAL),
            {
                "proposal_id": proposal.proposal_id,
                "proposal_hash": proposal.record_hash,
                "reason": reason,
                "decided_by": by.username,
                "decided_at": records.timestamp(at),
            },
            at=at,
            by=by,
            references=[records.Reference(EPOCH_PROPOSAL.name, proposal.proposal_id, proposal.record_hash)],
        )
        ledger.append([draft])
    return draft


# --- rules --------------------------------------------------------------------------------------------------------


def reasons_against_confirming(person: Person, proposal: EpochProposal) -> list[str]:
    """Why this person may not confirm a proposal: it is theirs, or they hold too young a role (P4)."""
    reasons = []
    if persons.answering(person) & persons.answering(proposal.proposed_through):
        reasons.append("Not confirmed: you proposed this epoch; another person confirms it.")
    since = [persons.holds_role_since(person, role) for role in _roles()]
    if not any(moment and moment < proposal.proposed_at for moment in since):
        reasons.append(
            "Not confirmed: you did not hold a role that may start an epoch when this was proposed."
        )
    return reasons


def reasons_against_epoch(proposal: EpochProposal) -> list[tuple[str, str]]:
    """Why the proposed epoch cannot begin now, as ``(code, sentence)``."""
    if reasons := _ended(proposal):
        return reasons
    head = LedgerHead.objects.get()
    if (head.origin, head.epoch + 1) != (proposal.old_origin, proposal.epoch):
        return [("proposal_stale", "the log is in another epoch by now. Propose again.")]
    now = outside()
    if now.size and not covers(proposal, now) and not _is_here(now):
        sentence = f"a head of {now.origin} at {now.size:,} entries is known by now. Withdraw this and propose again."
        return [("proposal_stale", sentence)]
    return []


def _is_here(head: KnownHead) -> bool:
    """Whether a head was signed over nothing but what is still here: the worker goes on signing while one waits."""
    return checkpoints.is_here(Head(head.origin, head.size, bytes.fromhex(head.root)))


def covers(proposal: EpochProposal, head: KnownHead) -> bool:
    """Whether a proposal speaks of everything that ``head`` of its old log was signed over."""
    if head.origin != proposal.known_origin:
        # A head of the old log that says no more than what is still here.
        return head.origin == proposal.old_origin and head.size <= proposal.first_lost_index
    return head.size < proposal.known_size or (head.size, head.root) == (
        proposal.known_size,
        proposal.known_root,
    )


def _ended(proposal: EpochProposal) -> list[tuple[str, str]]:
    if proposal.state == EpochState.PROPOSED:
        return []
    return [("proposal_ended", f"this proposal is {proposal.state}; it takes no more decisions.")]


def _roles() -> list[Role]:
    return [role for role, acts in ROLE_PERMISSIONS["evidence"].items() if Permission.START_EPOCH in acts]


# --- what is known --------------------------------------------------------------------------------------------------


def open_proposal() -> EpochProposal | None:
    """The proposal that waits for a second person, if there is one."""
    return _proposals().filter(state=EpochState.PROPOSED).first()


def waiting() -> EpochProposal:
    """The proposal that waits for a second person; ``NotFound`` when none does."""
    found = open_proposal()
    if found is None:
        raise NotFound("Nobody has proposed a new epoch.", code="proposal_not_found")
    return found


def proposal_by_id(proposal_id: str) -> EpochProposal:
    """The proposal with this id; ``NotFound`` otherwise."""
    found = _proposals().filter(proposal_id=proposal_id).first()
    if found is None:
        raise NotFound("There is no proposal of an epoch with this id.", code="proposal_not_found")
    return found


def outside() -> KnownHead:
    """The head in the file beside the database; size 0 when there is none or it cannot be read."""
    try:
        return head_in(checkpoints.outside_path())
    except InvalidInput:
        return KnownHead()


def head_in(path: Path) -> KnownHead:
    """The signed head in a file, whoever signed it. ``InvalidInput`` when there is none."""
    try:
        note = path.read_text(encoding="utf-8")
        written_at = datetime.fromtimestamp(path.stat().st_mtime, tz=UTC)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read.", code="note") from error
    said, _ = notes.parse(note)
    head = notes.parse_checkpoint(said)
    try:
        signers = tuple(key.vkey for key in notes.opened(note, log_keys.verifiers()).signed_by)
    except InvalidInput:
        signers = ()  # The keys that signed it came after this backup; two people answer for it.
    return KnownHead(head.origin, head.size, head.root.hex(), signers, written_at)


def _first_lost(known: KnownHead, size: int) -> int:
    """Index of the first entry that the old log had otherwise: what was written here after its head is not its."""
    index = size
    if known.written_at:
        later = Record.objects.filter(created_at__gt=known.written_at).aggregate(first=Min("index"))
        index = size if later["first"] is None else min(size, later["first"])
    # The genesis entry is common to both, or this is no backup of that log.
    return max(1, min(index, known.size or index))


def _time_of(index: int) -> datetime:
    return Record.objects.values_list("created_at", flat=True).get(index=index)


def _new_origin(asked: str, head: LedgerHead, epoch: int) -> str:
    """The new log's name; ``InvalidInput`` for one that no key could sign as, or that this log has or had."""
    base = re.sub(r"/epoch-[0-9]+\Z", "", head.origin)
    origin = text.clean(asked, field="origin", limit=200) or f"{base}/epoch-{epoch}"
    if "+" in origin or any(character.isspace() for character in origin) or len(origin) > 200:
        raise InvalidInput(
            "Not proposed: the name of a log has no spaces and no plus sign.",
            errors={"origin": ["no spaces, no +, at most 200 characters"]},
        )
    used = {
        head.origin,
        *EpochProposal.objects.filter(state=EpochState.CONFIRMED).values_list("old_origin", flat=True),
    }
    if origin in used:
        raise InvalidInput(
            "Not proposed: a log of this name was signed before; a new one has a name of its own.",
            errors={"origin": ["taken"]},
        )
    return origin


def _words(reason: str, refusal: str) -> str:
    cleaned = text.clean(reason, field="reason", limit=text.MAX_NOTES, lines=True)
    if not cleaned:
        raise InvalidInput(refusal, errors={"reason": ["Say why."]})
    return cleaned


def _said(proposal: EpochProposal) -> dict[str, object]:
    """What the proposal's record says."""
    record = records.by_ids([proposal.proposal_id])[proposal.proposal_id]
    said = records.payload_of(record)
    if said is None:
        raise Conflict(
            "Not confirmed: the proposal's record was erased. Propose again.", code="proposal_stale"
        )
    return said


def _proposals() -> QuerySet[EpochProposal]:
    return EpochProposal.objects.select_related("proposed_by", "proposed_through__owner", "decided_by")


def _held(proposal: EpochProposal) -> EpochProposal:
    """The proposal's row, held until the verb ends."""
    EpochProposal.objects.select_for_update(no_key=True).get(pk=proposal.pk)
    return _proposals().get(pk=proposal.pk)
