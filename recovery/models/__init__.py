"""Tables of the recovery app."""

from recovery.models.approvals import ApprovalEntry, ApprovalPlan, ApprovalPlanItem, EntryParty, Vote
from recovery.models.executions import Attestation, Execution, WorkerRun
from recovery.models.notices import Notice
from recovery.models.recoveries import Closure, Playbook, PlaybookItem, Recovery, RecoveryCase, StepTick
from recovery.models.retries import RetryDecision, RetryPlan, RetryPlanItem, RetryPolicy

__all__ = [
    "ApprovalEntry",
    "ApprovalPlan",
    "ApprovalPlanItem",
    "Attestation",
    "Closure",
    "EntryParty",
    "Execution",
    "Notice",
    "Playbook",
    "PlaybookItem",
    "Recovery",
    "RecoveryCase",
    "RetryDecision",
    "RetryPlan",
    "RetryPlanItem",
    "RetryPolicy",
    "StepTick",
    "Vote",
    "WorkerRun",
]
