"""Tables of the recovery app."""

from recovery.models.approvals import ApprovalEntry, ApprovalPlan, ApprovalPlanItem, EntryParty, Vote
from recovery.models.dispositions import Disposition
from recovery.models.executions import Attestation, Execution, WorkerRun
from recovery.models.inquiries import Inquiry
from recovery.models.notices import Notice
from recovery.models.recoveries import Closure, Playbook, PlaybookItem, Recovery, RecoveryCase, StepTick
from recovery.models.restored import PossibleAttempt
from recovery.models.retries import RetryDecision, RetryPlan, RetryPlanItem, RetryPolicy
from recovery.models.sets import RetrySet, RetrySetItem

__all__ = [
    "ApprovalEntry",
    "ApprovalPlan",
    "ApprovalPlanItem",
    "Attestation",
    "Closure",
    "Disposition",
    "EntryParty",
    "Execution",
    "Inquiry",
    "Notice",
    "Playbook",
    "PlaybookItem",
    "PossibleAttempt",
    "Recovery",
    "RecoveryCase",
    "RetryDecision",
    "RetryPlan",
    "RetryPlanItem",
    "RetryPolicy",
    "RetrySet",
    "RetrySetItem",
    "StepTick",
    "Vote",
    "WorkerRun",
]
