"""Tables of the evidence app."""

from evidence.models.connectors import Connector, ConnectorEdit, Heartbeat, PauseSwitch
from evidence.models.deliveries import Attempt, AttemptAnswer, AuditPackage, Case, DeliveryPlan
from evidence.models.drills import MaintenanceWindow, NotificationPlan, Route, Schedule, ScheduleOwner
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
from evidence.models.verifications import Verification

__all__ = [
    "Attempt",
    "AttemptAnswer",
    "AuditPackage",
    "Case",
    "CaseLink",
    "Connector",
    "ConnectorEdit",
    "DeliveryPlan",
    "Heartbeat",
    "LedgerHead",
    "MaintenanceWindow",
    "MerkleNode",
    "NotificationPlan",
    "PauseSwitch",
    "Person",
    "Record",
    "RecordCounter",
    "RecordKey",
    "RoleGrant",
    "Route",
    "Schedule",
    "ScheduleOwner",
    "SealEntry",
    "Verification",
]
