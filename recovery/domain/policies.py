"""Person rules and object rules of the recovery app: lists of reasons, empty means yes (DESIGN §5)."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from evidence.domain import people
from evidence.enums import CaseState, Role
from evidence.models import Case, Person
from recovery.enums import OPEN_ENTRY_STATES, ApprovalState, EntryState, Part, RetryAckState
from recovery.models import ApprovalEntry, EntryParty, Execution, Vote

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
    """Why this person may not decide, for each entry by its key; two queries, however many entries."""
    parts: dict[int, set[str]] = {entry.pk: set() for entry in entries}
    rows = EntryParty.objects.filter(entry__in=parts, person=person.principal)
    for entry_pk, part in rows.values_list("entry_id", "part"):
        parts[entry_pk].add(part)
    since = people.holds_role_since(person, Role.APPROVER)
    barred = {}
    for entry in entries:
        reasons = [f"Not decided: {PART_SENTENCES[Part(part)]}." for part in sorted(parts[entry.pk])]
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
        case _:
            return [("settled", "This case is settled.")]


def reasons_against_attesting(person: Person, case: Case) -> list[str]:
    """Why this person may not say what came of the case's newest attempt: it was they who sent it (P3)."""
    number = case.attempt_count
    execution = (
        Execution.objects.filter(case=case, attempt_no=number).select_related("executed_by__owner").first()
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
