"""Whose turn a case is: the one act that is due, by which role, since when and until when.

Nothing is decided here that a verb does not decide again; this is what pages and lists say beforehand.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from evidence.enums import CaseState, Role
from evidence.models import Case
from recovery.domain import approvals, dispositions
from recovery.domain.policies import ACKNOWLEDGED
from recovery.enums import (
    OPEN_ENTRY_STATES,
    Act,
    DecisionState,
    DispositionState,
    EntryState,
    ExecutionState,
    RunState,
)
from recovery.models import ApprovalEntry, Disposition, Execution, RetryDecision, WorkerRun

ROLES: dict[Act, Role] = {
    Act.PLAN: Role.ANALYST,
    Act.ACKNOWLEDGE: Role.ANALYST,
    Act.REQUEST: Role.ANALYST,
    Act.DECIDE: Role.APPROVER,
    Act.EXECUTE: Role.OPERATOR,
    Act.ATTEST: Role.ANALYST,
}

# How far each act is along the seven steps: failed, planned, acknowledged, approved, executed, settled, recovered.
PLACES: dict[Act, int] = {
    Act.PLAN: 1,
    Act.ACKNOWLEDGE: 2,
    Act.REQUEST: 3,
    Act.DECIDE: 3,
    Act.EXECUTE: 4,
    Act.ATTEST: 5,
}


# What a claim and its outcome change of a case.
MOVED = ("state", "attempt_count", "counted_attempts", "last_outcome_at", "settled_at", "lease_until")


@dataclass(frozen=True)
class Standing:
    """One case with what hangs on its next attempt.

    ``decision`` is the open one. ``entry`` is the open approval entry, else the newest one about the same
    attempt, which says why asking again is due. ``run`` is the unfinished live run that names the entry,
    unless what it tried did not leave.
    """

    case: Case
    decision: RetryDecision | None
    entry: ApprovalEntry | None
    run: WorkerRun | None

    @property
    def open_entry(self) -> ApprovalEntry | None:
        """The entry while it can still be voted on, withdrawn or used."""
        return self.entry if self.entry and self.entry.state in OPEN_ENTRY_STATES else None

    @property
    def ended_entry(self) -> ApprovalEntry | None:
        """A request about this very attempt that came to nothing."""
        return self.entry if self.entry and self.entry.state not in OPEN_ENTRY_STATES else None

    @cached_property
    def disposition(self) -> Disposition | None:
        """The case's newest disposition. Asked for when it is wanted: a list has no use for it."""
        return dispositions.newest_of(self.case)

    @property
    def open_disposition(self) -> Disposition | None:
        """A proposal to settle the case without a delivery that nobody decided on yet."""
        newest = self.disposition
        return newest if newest and newest.state == DispositionState.PROPOSED else None

    @property
    def is_sending(self) -> bool:
        """Whether the approval was claimed: a try is under way and nothing stops it."""
        return self.case.state == CaseState.SENDING

    @property
    def is_queued(self) -> bool:
        """Whether a run is about to claim the approval; until then it can be denied and withdrawn (P7)."""
        return (
            self.case.state == CaseState.FAILED
            and self.run is not None
            and self.open_entry is not None
            and self.open_entry.state == EntryState.APPROVED
        )

    @property
    def lapsed_entry(self) -> ApprovalEntry | None:
        """The request about this very attempt whose clock ran out, if it is the newest."""
        return self.entry if self.entry and self.entry.state == EntryState.EXPIRED else None

    @property
    def act(self) -> Act | None:
        """What is due; None when nobody's act is: a run has it, it is settled, or its tries are used up."""
        case, decision, entry = self.case, self.decision, self.open_entry
        if case.state == CaseState.UNKNOWN:
            return Act.ATTEST
        if case.state != CaseState.FAILED or self.is_queued:
            return None
        if entry:
            return Act.DECIDE if entry.state == EntryState.PENDING else Act.EXECUTE
        if decision is None or decision.attempt_no != case.attempt_count + 1:
            return Act.PLAN
        if decision.suppressed:
            return None
        return Act.REQUEST if decision.ack_state in ACKNOWLEDGED else Act.ACKNOWLEDGE

    @property
    def role(self) -> Role | None:
        """Whose turn it is."""
        return ROLES[self.act] if self.act else None

    @property
    def since(self) -> datetime:
        """Since when the act is due."""
        case, decision, entry = self.case, self.decision, self.open_entry
        if entry:
            return entry.approved_at or entry.requested_at
        if decision and self.act is Act.REQUEST and decision.acknowledged_at:
            return decision.acknowledged_at
        if decision and self.act is Act.ACKNOWLEDGE:
            return decision.created_at
        return case.last_outcome_at or case.created_at

    @property
    def until(self) -> datetime | None:
        """When the act is too late, if it has an end."""
        entry = self.open_entry
        if entry is None:
            return None
        return entry.execute_by if entry.state == EntryState.APPROVED else entry.approve_by

    @property
    def opens(self) -> datetime | None:
        """When the retry window opens, as far as it was decided."""
        if self.open_entry:
            return self.open_entry.not_before
        return self.decision.not_before if self.decision else None

    @property
    def place(self) -> int:
        """How many of the seven steps are behind it."""
        if self.case.settled_at:
            return 6
        if self.case.state == CaseState.PARKED:
            return 0
        return PLACES[self.act] if self.act else 4 if self.is_sending or self.is_queued else 2


def standing(case: Case) -> Standing:
    """Where ``case`` stands; the rows behind it in at most five queries."""
    return standings([case], bodies=True)[0]


def standings(cases: Sequence[Case], *, bodies: bool = False) -> list[Standing]:
    """Where each case stands, in the same order; at most five queries, however many cases.

    What would be sent is read with the entries only when ``bodies`` says so: a list has no use for it.
    The cases' own state is read again, and last: a worker that claims or settles a case meanwhile moves the case
    with the rows that hang on it, and an old case beside a used approval would look as if it waited for somebody.
    """
    unsettled = [case for case in cases if not case.settled_at]
    if not unsettled:
        return [Standing(case, None, None, None) for case in cases]
    entries: dict[int, ApprovalEntry] = {}
    found = approvals.entries().filter(case__in=unsettled).order_by("pk")
    for entry in found if bodies else found.defer("body"):
        entries[entry.case_id] = entry
    decisions = {
        entry.case_id: entry.decision
        for entry in entries.values()
        if entry.state in OPEN_ENTRY_STATES and entry.decision.state == DecisionState.OPEN
    }
    if rest := [case for case in unsettled if case.pk not in decisions]:
        still = RetryDecision.objects.filter(case__in=rest, state=DecisionState.OPEN)
        decisions |= {row.case_id: row for row in still.select_related("planned_by", "acknowledged_by")}
    running: dict[int, WorkerRun] = {}
    if any(entry.state == EntryState.APPROVED for entry in entries.values()):
        runs = list(WorkerRun.objects.filter(dry_run=False).exclude(state=RunState.FINISHED))
        # What a run tried and what did not leave is not tried by it again.
        unsent = Execution.objects.filter(run__in=runs, state=ExecutionState.NOT_SENT)
        tried = set(unsent.values_list("run_id", "entry_id")) if runs else ()
        for run in runs:
            running |= {entry: run for entry in run.request["entries"] if (run.pk, entry) not in tried}
    _read_again(unsettled)
    return [_standing(case, decisions.get(case.pk), entries.get(case.pk), running) for case in cases]


def _read_again(cases: Sequence[Case]) -> None:
    """Bring what a try changes of each case up to now."""
    now = {
        row["pk"]: row for row in Case.objects.filter(pk__in=[case.pk for case in cases]).values("pk", *MOVED)
    }
    for case in cases:
        for name in MOVED:
            setattr(case, name, now[case.pk][name])


def _standing(
    case: Case, decision: RetryDecision | None, entry: ApprovalEntry | None, running: dict[int, WorkerRun]
) -> Standing:
    if entry and entry.attempt_no != case.attempt_count + 1:
        entry = None  # About an attempt that was made.
    return Standing(case, decision, entry, running.get(entry.pk) if entry else None)
