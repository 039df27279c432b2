"""Person rules and object rules of the recovery app: lists of reasons, empty means yes (DESIGN §5)."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from django.db.models import Q

from evidence.domain import people, records
from evidence.enums import CaseState, Role
from evidence.models import Case, Person
from recovery.enums import (
    OPEN_ENTRY_STATES,
    ApprovalState,
    DispositionState,
    EntryState,
    ExecutionState,
    Part,
    RetryAckState,
)
from recovery.models import ApprovalEntry, Disposition, EntryParty, Execution, Vote

ACKNOWLEDGED = (RetryAckState.ACCEPTED, RetryAckState.RESOLVED)

PART_SENTENCES = {
    Part.REQUESTER: "you asked for this",
    Part.ACKNOWLEDGER: "you acknowledged this retry",
    Part.PLANNER: "you planned this retry",
    Part.CONNECTOR_EDITOR: "you changed the connector after it failed",
    Part.POLICY_EDITOR: "you changed the retry policy after it failed",
}


def reasons_against_voting(person: Person, entry: ApprovalEntry) -> list[str]:
    """Why this person may not decide on this entry (P4): what they did for it, or too young a role."""
    return barred_from_voting(person, [entry])[entry.pk]


def barred_from_voting(person: Person, entries: Sequence[ApprovalEntry]) -> dict[int, list[str]]:
    """Why this person may not decide, for each entry by its key; a few queries, however many entries.

    An account stands for everybody who ever answered for it: a handover frees neither party nor voter.
    """
    parts: dict[int, set[str]] = {entry.pk: set() for entry in entries}
    humans = people.answering(person)
    rows = EntryParty.objects.filter(entry__in=parts, person__in=humans)
    for entry_pk, part in rows.values_list("entry_id", "part"):
        parts[entry_pk].add(part)
    voted = Vote.objects.filter(Q(account=person) | Q(person__in=humans), entry__in=parts)
    others = set(voted.exclude(person=person.principal).values_list("entry_id", flat=True))
    since = people.holds_role_since(person, Role.APPROVER)
    barred = {}
    for entry in entries:
        reasons = [f"Not decided: {PART_SENTENCES[Part(part)]}." for part in sorted(parts[entry.pk])]
        if entry.pk in others:
            reasons.append("Not decided: this account voted on it when somebody else answered for it.")
        if since is None or since >= entry.requested_at:
            reasons.append("Not decided: you did not hold the approver role when this was asked for.")
        barred[entry.pk] = reasons
    return barred


def reasons_against_acknowledging(person: Person, entries: Iterable[ApprovalEntry]) -> list[str]:
    """Why this person may not acknowledge a retry that ``entries`` ask for: they approved it (P4)."""
    approved = Vote.objects.filter(
        entry__in=list(entries), person=person.principal, state=ApprovalState.APPROVED
    )
    return ["Not acknowledged: you approved this retry."] if approved.exists() else []


def reasons_against_decision(
    entry: ApprovalEntry, state: ApprovalState, at: datetime
) -> list[tuple[str, str]]:
    """Why the entry takes no such vote now, as ``(code, sentence)``."""
    if entry.state in OPEN_ENTRY_STATES and entry.case.settled_at:
        return [("settled", "Not recorded: this case is settled; nothing is sent again.")]
    if entry.state not in OPEN_ENTRY_STATES:
        last = Vote.objects.filter(entry=entry).select_related("account").last()
        ended = (
            f"{last.account.username} {last.state} this at {last.decided_at:%H:%M:%S} UTC. " if last else ""
        )
        return [
            ("entry_ended", f"Not recorded: {ended}This request is {entry.state} and takes no more votes.")
        ]
    if entry.state == EntryState.PENDING and at > entry.approve_by:
        return [("approval_expired", "The request has ended; ask again.")]
    if entry.state == EntryState.APPROVED and entry.execute_by is not None and at > entry.execute_by:
        return [("approval_expired", "The approval has run out; ask again.")]
    if entry.state == EntryState.APPROVED and state is ApprovalState.APPROVED:
        return [("already_approved", "This request is approved already.")]
    return []


def reasons_against_retry(case: Case) -> list[tuple[str, str]]:
    """Why no retry of this case may be planned or asked for, as ``(code, sentence)``."""
    match case.state:
        case CaseState.FAILED:
            return []
        case CaseState.UNKNOWN:
            return [("outcome_unknown", "We do not know whether the last try arrived; settle that first.")]
        case CaseState.SENDING:
            return [("sending", "A try is under way.")]
        case CaseState.PARKED:
            return [("parked", "Its first try waits for the connector and goes by itself.")]
        case _:
            return [("settled", "This case is settled.")]


def reasons_against_attesting(person: Person, case: Case) -> list[str]:
    """Why this person may not say what came of the case's newest attempt: it was they who sent it (P3)."""
    number = case.attempt_count
    if not number:
        return []  # Nobody sent anything that is over; what the case is says no to everybody.
    execution = (
        Execution.objects.exclude(state=ExecutionState.NOT_SENT)
        .filter(case=case, attempt_no=number)
        .select_related("executed_by__owner")
        .first()
    )
    sent_by = execution.executed_by if execution else case.created_by
    if person.principal not in people.answering(sent_by):
        return []
    return [f"Not attested: you sent attempt {number}. Two others have to look at the receiver."]


def reasons_against_reconciling(case: Case, attempt_no: int | None = None) -> list[tuple[str, str]]:
    """Why nobody's word is wanted about this attempt (None: the newest one), as ``(code, sentence)``."""
    if case.state != CaseState.UNKNOWN:
        now = case.state.replace("_", " ")
        return [
            ("not_unknown", f"Not attested: this case is {now} now; only an unknown outcome is attested.")
        ]
    if attempt_no not in (None, case.attempt_count):
        sentence = (
            f"Not attested: it is attempt {case.attempt_count} whose outcome is unknown, not {attempt_no}."
        )
        return [("not_unknown", sentence)]
    return []


def reasons_against_disposing(case: Case) -> list[tuple[str, str]]:
    """Why this case cannot be settled without a delivery now, as ``(code, sentence)`` (P8)."""
    match case.state:
        case CaseState.FAILED | CaseState.PARKED:
            return []
        case CaseState.UNKNOWN:
            sentence = "We do not know whether the last try arrived; two people have to attest that first."
            return [("outcome_unknown", sentence)]
        case CaseState.SENDING:
            return [("sending", "A try is under way; wait for what comes of it.")]
        case _:
            return [("settled", f"This case is settled: {case.state.replace('_', ' ')}.")]


def reasons_against_proposing(case: Case, newest: Disposition | None) -> list[tuple[str, str]]:
    """Why nobody may propose a disposition of this case, whose newest one is given, as ``(code, sentence)``."""
    if reasons := reasons_against_disposing(case):
        return reasons
    if newest is not None and newest.state == DispositionState.PROPOSED:
        who = newest.proposed_by.username
        return [("disposition_open", f"{who} proposed a disposition already; that one is decided first.")]
    return []


def reasons_against_successor(case: Case, successor: Case) -> list[tuple[str, str]]:
    """Why one case cannot stand in another's place, as ``(code, sentence)``."""
    if successor.connector_id != case.connector_id:
        there = successor.connector.key
        return [("successor_elsewhere", f"{successor.case_id} went to {there}, not to {case.connector.key}.")]
    if successor.state != CaseState.DELIVERED:
        now = successor.state.replace("_", " ")
        return [("successor_not_delivered", f"{successor.case_id} is {now}, not delivered.")]
    if successor.created_at < case.created_at:
        return [("successor_older", f"{successor.case_id} is older than the case it is to stand in for.")]
    return []


def reasons_against_disposition_decision(
    disposition: Disposition, state: DispositionState
) -> list[tuple[str, str]]:
    """Why the proposal takes no such decision now, as ``(code, sentence)``."""
    if disposition.state != DispositionState.PROPOSED:
        return [("disposition_ended", f"This proposal is {disposition.state}; it takes no more decisions.")]
    # Whatever became of the case, a proposal can be refused and withdrawn.
    if state is not DispositionState.CONFIRMED:
        return []
    if reasons := reasons_against_disposing(disposition.case):
        return reasons
    about = _attempt_proposed_after(disposition)
    if about is None:
        sentence = "After which attempt it was proposed cannot be read any more; propose it again."
        return [("disposition_stale", sentence)]
    if about != disposition.case.attempt_count:
        sentence = "Another attempt was made since it was proposed; propose it again."
        return [("disposition_stale", sentence)]
    return []


def _attempt_proposed_after(disposition: Disposition) -> int | None:
    """The number of the attempt that the proposal's record names; None once its body was erased."""
    record = records.by_ids([disposition.disposition_id]).get(disposition.disposition_id)
    said = records.payload_of(record) if record else None
    return None if said is None else int(said["attempt_no"])


def reasons_against_confirming(person: Person, disposition: Disposition) -> list[str]:
    """Why this person may not confirm or refuse a disposition: they proposed it, or hold too young a role (P4)."""
    return barred_from_confirming(person, [disposition])[disposition.pk]


def barred_from_confirming(person: Person, found: Sequence[Disposition]) -> dict[int, list[str]]:
    """Why this person may not confirm or refuse, for each disposition by its key."""
    own = people.answering(person)
    accounts = {disposition.proposed_through for disposition in found}
    theirs = {account for account in accounts if own & people.answering(account)}
    since = people.holds_role_since(person, Role.APPROVER)
    barred = {}
    for disposition in found:
        reasons = []
        if disposition.proposed_through in theirs:
            reasons.append("Not decided: you proposed this disposition; another approver decides.")
        if since is None or since >= disposition.proposed_at:
            reasons.append("Not decided: you did not hold the approver role when this was proposed.")
        barred[disposition.pk] = reasons
    return barred
