"""Which state may follow which in the recovery app, as data; ``evidence.domain.transitions.move`` applies it."""

from evidence.domain.transitions import Transitions
from recovery.enums import (
    DecisionState,
    DispositionState,
    EntryState,
    ExecutionState,
    RecoveryState,
    RunState,
)
from recovery.models import ApprovalEntry, Disposition, Execution, Recovery, RetryDecision, WorkerRun

DECISIONS = Transitions(
    RetryDecision,
    "state",
    {
        # Open to open: an acknowledgement is recorded on it.
        DecisionState.OPEN: frozenset(
            {DecisionState.OPEN, DecisionState.USED, DecisionState.SUPERSEDED, DecisionState.CLOSED}
        ),
        # Back to open: what was claimed did not leave the building (P9).
        DecisionState.USED: frozenset({DecisionState.OPEN}),
        DecisionState.SUPERSEDED: frozenset(),
        DecisionState.CLOSED: frozenset(),
    },
)

_ENDS = frozenset(
    {EntryState.DENIED, EntryState.WITHDRAWN, EntryState.EXPIRED, EntryState.VOID, EntryState.CANCELLED}
)

ENTRIES = Transitions(
    ApprovalEntry,
    "state",
    {
        EntryState.PENDING: _ENDS | {EntryState.PENDING, EntryState.APPROVED},
        # Back to pending: a person whose approval counted deferred and the quorum is gone.
        EntryState.APPROVED: _ENDS | {EntryState.PENDING, EntryState.APPROVED, EntryState.CLAIMED},
        # Back to approved: what was claimed did not leave the building (P9).
        EntryState.CLAIMED: frozenset({EntryState.APPROVED}),
        EntryState.DENIED: frozenset(),
        EntryState.WITHDRAWN: frozenset(),
        # To void: whoever renews it finds that what was asked for is not what would be sent now (P5).
        EntryState.EXPIRED: frozenset({EntryState.VOID}),
        EntryState.VOID: frozenset(),
        EntryState.CANCELLED: frozenset(),
    },
)

EXECUTIONS = Transitions(
    Execution,
    "state",
    {
        ExecutionState.CLAIMED: frozenset(
            {ExecutionState.DELIVERED, ExecutionState.FAILED, ExecutionState.UNKNOWN, ExecutionState.NOT_SENT}
        ),
        # A late answer or a reconciliation.
        ExecutionState.UNKNOWN: frozenset({ExecutionState.DELIVERED, ExecutionState.FAILED}),
        ExecutionState.DELIVERED: frozenset(),
        # An answer that came after two people had said that it did not arrive.
        ExecutionState.FAILED: frozenset({ExecutionState.DELIVERED}),
        ExecutionState.NOT_SENT: frozenset(),
    },
)

RUNS = Transitions(
    WorkerRun,
    "state",
    {
        # To finished: it was left to the worker in an epoch of the log that ended.
        RunState.QUEUED: frozenset({RunState.RUNNING, RunState.FINISHED}),
        # Back to queued: its worker died and another one goes on with what was not claimed.
        RunState.RUNNING: frozenset({RunState.RUNNING, RunState.QUEUED, RunState.FINISHED}),
        RunState.FINISHED: frozenset(),
    },
)

_OUTCOMES = frozenset(
    {RecoveryState.MITIGATED, RecoveryState.DEFERRED, RecoveryState.ESCALATED, RecoveryState.RESOLVED}
)

RECOVERIES = Transitions(
    Recovery,
    "state",
    {
        # What is not resolved comes back to open: by a new failure with the playbook that lists it, or on its date.
        RecoveryState.OPEN: _OUTCOMES,
        RecoveryState.MITIGATED: _OUTCOMES | {RecoveryState.OPEN, RecoveryState.REOPENED},
        RecoveryState.DEFERRED: _OUTCOMES | {RecoveryState.OPEN, RecoveryState.REOPENED},
        RecoveryState.ESCALATED: _OUTCOMES | {RecoveryState.OPEN, RecoveryState.REOPENED},
        RecoveryState.RESOLVED: frozenset({RecoveryState.REOPENED}),
        RecoveryState.REOPENED: frozenset(),
    },
)

DISPOSITIONS = Transitions(
    Disposition,
    "state",
    {
        DispositionState.PROPOSED: frozenset(
            {DispositionState.CONFIRMED, DispositionState.REFUSED, DispositionState.WITHDRAWN}
        ),
        DispositionState.CONFIRMED: frozenset(),
        DispositionState.REFUSED: frozenset(),
        DispositionState.WITHDRAWN: frozenset(),
    },
)
