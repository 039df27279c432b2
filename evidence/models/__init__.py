"""Tables of the evidence app."""

from evidence.models.access import AccessLogEntry
from evidence.models.breakers import Breaker, ConnectorWindow
from evidence.models.canaries import Canary, CanaryTurn
from evidence.models.capsules import Capsule
from evidence.models.checkpoints import Anchor, Checkpoint, LedgerKey, SigningRefusal
from evidence.models.connectors import Connector, ConnectorEdit, Heartbeat, PauseSwitch
from evidence.models.deliveries import (
    Attempt,
    AttemptAnswer,
    AuditPackage,
    Case,
    DeliveryPlan,
    Parking,
    SendDiagnostic,
    StreamHead,
)
from evidence.models.drills import MaintenanceWindow, NotificationPlan, Route, Schedule, ScheduleOwner
from evidence.models.epochs import EpochProposal
from evidence.models.erasures import (
    Erasure,
    ErasureItem,
    LegalHold,
    RetentionRule,
)
from evidence.models.ledger import (
    CaseLink,
    LedgerHead,
    MerkleNode,
    Record,
    RecordCounter,
    RecordKey,
    SealEntry,
)
from evidence.models.people import Person, RoleGrant
from evidence.models.troubles import Trouble
from evidence.models.verifications import Verification

__all__ = [
    "AccessLogEntry",
    "Anchor",
    "Attempt",
    "AttemptAnswer",
    "AuditPackage",
    "Breaker",
    "Canary",
    "CanaryTurn",
    "Capsule",
    "Case",
    "CaseLink",
    "Checkpoint",
    "Connector",
    "ConnectorEdit",
    "ConnectorWindow",
    "DeliveryPlan",
    "EpochProposal",
    "Erasure",
    "ErasureItem",
    "Heartbeat",
    "LedgerHead",
    "LedgerKey",
    "LegalHold",
    "MaintenanceWindow",
    "MerkleNode",
    "NotificationPlan",
    "Parking",
    "PauseSwitch",
    "Person",
    "Record",
    "RecordCounter",
    "RecordKey",
    "RetentionRule",
    "RoleGrant",
    "Route",
    "Schedule",
    "ScheduleOwner",
    "SealEntry",
    "SendDiagnostic",
    "SigningRefusal",
    "StreamHead",
    "Trouble",
    "Verification",
]
