"""Every kind of this app's records and the rows it speaks of, for ``evidence.domain.replay``."""

from evidence.domain import replay
from evidence.domain.replay import Rule
from evidence.domain.replay_facts import CASES
from recovery import documents as kinds
from recovery.domain import replay_approvals, replay_executions, replay_recoveries, replay_retries
from recovery.domain.replay_approvals import ENTRIES, PARTIES, VOTES
from recovery.domain.replay_executions import ATTESTATIONS, DISPOSITIONS, EXECUTIONS, POSSIBLE, RUNS
from recovery.domain.replay_recoveries import CLOSURES, LISTED, PLAYBOOK_ITEMS, PLAYBOOKS, RECOVERIES, TICKS
from recovery.domain.replay_retries import DECISIONS, PLAN_ITEMS, PLANS, SET_ITEMS, SETS
from recovery.enums import EntryState

RULES = {
    kinds.RETRY_PLAN.name: Rule((PLANS, PLAN_ITEMS, DECISIONS, PARTIES), replay_retries.planned),
    kinds.RETRY_ACK.name: Rule((DECISIONS, PARTIES), replay_retries.acknowledged),
    kinds.RETRY_SET.name: Rule((SETS, SET_ITEMS), replay_retries.chosen),
    kinds.APPROVAL_PLAN.name: Rule(
        (
            replay_approvals.PLANS,
            replay_approvals.PLAN_ITEMS,
            ENTRIES,
            PARTIES,
            SETS,
            SET_ITEMS,
        ),
        replay_approvals.asked,
    ),
    kinds.APPROVAL_DECISION.name: Rule((VOTES, ENTRIES, PARTIES), replay_approvals.voted),
    kinds.APPROVAL_WITHDRAWAL.name: Rule((ENTRIES,), replay_approvals.ended(EntryState.WITHDRAWN)),
    kinds.APPROVAL_VOID.name: Rule((ENTRIES,), replay_approvals.ended(EntryState.VOID)),
    kinds.APPROVAL_EXPIRY.name: Rule((ENTRIES,), replay_approvals.ended(EntryState.EXPIRED)),
    kinds.APPROVAL_CANCELLATION.name: Rule(
        (ENTRIES, DECISIONS), replay_approvals.ended(EntryState.CANCELLED)
    ),
    kinds.APPROVAL_RECOUNT.name: Rule((ENTRIES,), replay_approvals.recounted),
    kinds.WORKER_RUN.name: Rule((RUNS,), replay_executions.started),
    kinds.EXECUTION_CLAIM.name: Rule((EXECUTIONS, ENTRIES, DECISIONS, CASES), replay_executions.claimed),
    kinds.EXECUTION_RECORD.name: Rule((EXECUTIONS, ENTRIES, DECISIONS, CASES), replay_executions.executed),
    kinds.EXECUTION_RECONCILIATION.name: Rule((EXECUTIONS, DECISIONS, CASES), replay_executions.reconciled),
    kinds.ATTESTATION.name: Rule((ATTESTATIONS,), replay_executions.attested),
    kinds.DISPOSITION_PROPOSAL.name: Rule((DISPOSITIONS,), replay_executions.proposed),
    kinds.DISPOSITION.name: Rule((DISPOSITIONS, DECISIONS, CASES), replay_executions.disposed),
    kinds.EPOCH_EFFECTS.name: Rule((POSSIBLE,), replay_executions.epoch_began),
    kinds.PLAYBOOK.name: Rule((PLAYBOOKS, PLAYBOOK_ITEMS, RECOVERIES, LISTED), replay_recoveries.described),
    kinds.CLOSURE.name: Rule((CLOSURES, RECOVERIES, LISTED), replay_recoveries.closed),
    kinds.RECOVERY_RETURN.name: Rule((RECOVERIES,), replay_recoveries.returned),
    kinds.PLAYBOOK_STEP.name: Rule((TICKS,), replay_recoveries.ticked),
}

NOT_EVIDENCE = {
    EXECUTIONS: {"lease_token": "tells a late receipt from another one's; the claim's id is the evidence"},
    RUNS: {
        "state": "how far the worker is; what a run did stands in its claims and execution records",
        "finished_at": "when the worker had nothing left to do; what it did stands in its records",
        "lease_until": "how long a worker that fell silent is waited for",
    },
}


def register() -> None:
    """Make this app's rows part of every verification."""
    replay.register(
        tables=(
            *replay_retries.TABLES,
            *replay_approvals.TABLES,
            *replay_executions.TABLES,
            *replay_recoveries.TABLES,
        ),
        rules=RULES,
        not_evidence=NOT_EVIDENCE,
        silent={},
        # Its records hold no values; a decision's own policy is frozen with it and told.
        untold=("recovery.RetryPolicy",),
    )
