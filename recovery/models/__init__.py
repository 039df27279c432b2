"""Tables of the recovery app."""

from recovery.models.approvals import ApprovalEntry, ApprovalPlan, ApprovalPlanItem, EntryParty, Vote
from recovery.models.executions import Execution, WorkerRun
from recovery.models.recoveries import Closure, Playbook, PlaybookItem, Recovery, RecoveryCase
from recovery.models.retries import RetryDecision, RetryPlan, RetryPlanItem, RetryPolicy

__all__ = [
    "ApprovalEntry",
    "ApprovalPlan",
    "ApprovalPlanItem",
    "Closure",
    "EntryParty",
    "Execution",
    "Playbook",
    "PlaybookItem",
    "Recovery",
    "RecoveryCase",
    "RetryDecision",
    "RetryPlan",
    "RetryPlanItem",
    "RetryPolicy",
    "Vote",
    "WorkerRun",
]
