"""Which role may do what in the recovery app (P22)."""

from enum import StrEnum

from evidence.enums import Role
from evidence.permissions import RolePermissions


class Permission(StrEnum):
    """Acts of the recovery app, as Django permission names."""

    PLAN_RETRY = "recovery.plan_retry"
    ACKNOWLEDGE_RETRY = "recovery.acknowledge_retry"
    REQUEST_APPROVAL = "recovery.request_approval"
    DECIDE = "recovery.decide"
    RUN_DRY = "recovery.run_dry"
    RUN_LIVE = "recovery.run_live"
    ATTEST = "recovery.attest"
    PROPOSE_DISPOSITION = "recovery.propose_disposition"
    CONFIRM_DISPOSITION = "recovery.confirm_disposition"
    PLAN_RECOVERY = "recovery.plan_recovery"
    CLOSE_RECOVERY = "recovery.close_recovery"

    @property
    def label(self) -> str:
        """How a refusal and the admin name it."""
        return f"may {self.partition('.')[2].replace('_', ' ')}"


_VIEWED = (
    "retryplan",
    "retrydecision",
    "approvalplan",
    "approvalentry",
    "vote",
    "workerrun",
    "execution",
    "attestation",
    "disposition",
    "retryset",
    "recovery",
    "playbook",
    "closure",
    "steptick",
    "notice",
    "possibleattempt",
)

ROLE_PERMISSIONS: RolePermissions = {
    Role.ANALYST: (
        Permission.PLAN_RETRY,
        Permission.ACKNOWLEDGE_RETRY,
        Permission.REQUEST_APPROVAL,
        Permission.RUN_DRY,
        Permission.ATTEST,
        Permission.PROPOSE_DISPOSITION,
        Permission.PLAN_RECOVERY,
        Permission.CLOSE_RECOVERY,
    ),
    Role.APPROVER: (
        Permission.DECIDE,
        Permission.ATTEST,
        Permission.PROPOSE_DISPOSITION,
        Permission.CONFIRM_DISPOSITION,
    ),
    Role.OPERATOR: (Permission.RUN_DRY, Permission.RUN_LIVE),
    Role.ADMINISTRATOR: (
        "recovery.view_retrypolicy",
        "recovery.change_retrypolicy",
        *(f"recovery.view_{model}" for model in _VIEWED),
    ),
}
