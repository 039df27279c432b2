"""Which role may do what (P22): one table per app, turned into Django groups by ``people.sync_roles``."""

from collections.abc import Mapping, Sequence
from enum import StrEnum

from evidence.enums import Role


class Permission(StrEnum):
    """Acts and reads of the evidence app, as Django permission names."""

    DELIVER = "evidence.deliver"
    ACKNOWLEDGE = "evidence.acknowledge"
    READ_DASHBOARD = "evidence.read_dashboard"
    READ_EVIDENCE = "evidence.read_evidence"
    EXPORT = "evidence.export"
    CONFIGURE = "evidence.configure"
    SIGN_HEADS = "evidence.sign_heads"
    START_EPOCH = "evidence.start_epoch"
    PROPOSE_ERASURE = "evidence.propose_erasure"
    CONFIRM_ERASURE = "evidence.confirm_erasure"
    HOLD = "evidence.hold"
    READ_ACCESS_LOG = "evidence.read_access_log"
    REVIEW_OVERRIDES = "evidence.review_overrides"
    SEND_CANARY = "evidence.send_canary"
    READ_DIAGNOSTICS = "evidence.read_diagnostics"

    @property
    def label(self) -> str:
        """How a refusal and the admin name it."""
        return f"may {self.partition('.')[2].replace('_', ' ')}"


READERS = (Permission.READ_DASHBOARD, Permission.READ_EVIDENCE)

# Models an administrator edits in the admin, and those that are only looked at there.
_EDITED = (
    "connector",
    "schedule",
    "scheduleowner",
    "connectorwindow",
    "maintenancewindow",
    "person",
    "pauseswitch",
    "retentionrule",
)
_VIEWED = (
    "record",
    "sealentry",
    "ledgerhead",
    "route",
    "notificationplan",
    "auditpackage",
    "deliveryplan",
    "case",
    "attempt",
    "rolegrant",
    "heartbeat",
    "verification",
    "ledgerkey",
    "checkpoint",
    "anchor",
    "epochproposal",
    "erasure",
    "legalhold",
    "capsule",
    "streamhead",
    "canary",
    "trouble",
    "senddiagnostic",
)

RolePermissions = Mapping[Role, Sequence[str]]

ROLE_PERMISSIONS: dict[str, RolePermissions] = {
    "evidence": {
        Role.ANALYST: (Permission.DELIVER, Permission.ACKNOWLEDGE, *READERS, Permission.EXPORT),
        Role.APPROVER: READERS,
        Role.OPERATOR: (*READERS, Permission.SEND_CANARY),
        Role.AUDITOR: (
            *READERS,
            Permission.EXPORT,
            Permission.SIGN_HEADS,
            Permission.START_EPOCH,
            Permission.PROPOSE_ERASURE,
            Permission.CONFIRM_ERASURE,
            Permission.HOLD,
            Permission.READ_ACCESS_LOG,
            Permission.REVIEW_OVERRIDES,
            Permission.READ_DIAGNOSTICS,
        ),
        Role.VIEWER: (Permission.READ_DASHBOARD,),
        Role.ADMINISTRATOR: (
            Permission.CONFIGURE,
            Permission.SIGN_HEADS,
            Permission.START_EPOCH,
            # Proposes; an auditor who is somebody else confirms (P24).
            Permission.PROPOSE_ERASURE,
            Permission.HOLD,
            Permission.REVIEW_OVERRIDES,
            Permission.SEND_CANARY,
            Permission.READ_DIAGNOSTICS,
            *READERS,
            *(f"evidence.{act}_{model}" for model in _EDITED for act in ("view", "add", "change")),
            "evidence.delete_scheduleowner",
            "evidence.delete_connectorwindow",
            "evidence.delete_maintenancewindow",
            "evidence.delete_pauseswitch",
            *(f"evidence.view_{model}" for model in _VIEWED),
        ),
    }
}


def register(app_label: str, table: RolePermissions) -> None:
    """Add what another app's acts allow to each role."""
    ROLE_PERMISSIONS[app_label] = table
