"""One ``Kind`` per record kind: the single description that builder, views, search keys, counters and
API schemas are made from. Names, fields and controls are those of CONTRACT §8; kinds of our own stand last.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from evidence.enums import DeliverySource

Payload = Mapping[str, Any]
Counts = Callable[[Payload], tuple[int, int, int]]

CONTRACT_KIND = "go-backend-rollback-drill-"
SCHEMA = "cavra.go-backend-pilot.rollback-drill-"


def no_counts(payload: Payload) -> tuple[int, int, int]:
    """Decisions, blocked and approval-required counts of a kind that has none."""
    return 0, 0, 0


def one_decision(payload: Payload) -> tuple[int, int, int]:
    """Counts of a kind that records exactly one decision and blocks nothing."""
    return 1, 0, 0


def blocked_unless(key: str, *good: Any) -> Counts:
    """One decision; blocked unless ``key`` holds one of ``good``."""
    return lambda payload: (1, 0 if payload[key] in good else 1, 0)


def totals(decisions: str, blocked: str, approvals: str) -> Counts:
    """The three counts read from three keys of the payload."""
    return lambda payload: (payload[decisions], payload[blocked], payload[approvals])


@dataclass(frozen=True)
class Kind:
    """What a record of one kind holds and how it is found.

    ``fields`` maps each key of the payload to its type (``str``, ``int``, ``list[str]``, ``dict`` …; a
    union with None may be null). ``promoted`` keys are repeated in the envelope. ``keys`` maps a filter's
    name to the dotted paths whose values it finds. ``state_fields`` is what the counters split by.
    ``written_by`` names the verbs that append this kind. ``contract`` kinds are in the default history.
    Bodies of a kind that is not ``erasable`` stay for good: what proves the rest could not be judged without.
    ``observed`` kinds say what happened, and have to, whoever did it: text in them that public safety objects to is
    replaced. In all others it is refused, unless the service writes them by itself (``evidence.domain.safety``).
    """

    name: str
    prefix: str
    id_field: str
    payload_key: str
    schema_version: str
    written_by: tuple[str, ...]
    fields: Mapping[str, Any]
    promoted: tuple[str, ...] = ()
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fixed_keys: tuple[tuple[str, str], ...] = ()
    counts: Counts = no_counts
    controls: tuple[str, ...] = ()
    state_fields: tuple[str, ...] = ()
    contract: bool = True
    erasable: bool = True
    observed: bool = False
    hash_field: str = ""

    def __post_init__(self) -> None:
        if not self.hash_field:
            object.__setattr__(self, "hash_field", self.id_field.removesuffix("_id") + "_hash")

    @cached_property
    def own_fields(self) -> dict[str, Any]:
        """Fields a verb supplies; the builder adds the rest."""
        added = {"schema_version", "product", self.id_field, "controls"}
        return {name: kind for name, kind in self.fields.items() if name not in added}


AUDIT_CHAIN = (("connector_delivery_source", DeliverySource.AUDIT.value),)

NOTIFICATION_PLAN = Kind(
    name=CONTRACT_KIND + "notification-plan",
    prefix="gordn",
    id_field="plan_id",
    payload_key="plan",
    schema_version=SCHEMA + "notification-plan.v1",
    written_by=("drills.announce",),
    fields={
        "schedule_id": str,
        "generated_at": str,
        "generated_by": str,
        "status": str,
        "alert_level": str,
        "eligible_providers": list[str],
        "selected_providers": list[str],
        "acknowledgement_required_providers": list[str],
        "suppressed_providers": list[str],
        "owners": list[str],
        "owner_routes": list[dict],
        "route_decisions": list[dict],
        "deliverable_route_count": int,
        "suppressed_route_count": int,
        "maintenance_suppressed_count": int,
        "calendar_suppressed_count": int,
        "next_due_at": str,
        "reason": str,
    },
    promoted=(
        "plan_id",
        "schedule_id",
        "alert_level",
        "selected_providers",
        "acknowledgement_required_providers",
        "deliverable_route_count",
        "suppressed_route_count",
        "maintenance_suppressed_count",
        "calendar_suppressed_count",
    ),
    keys={
        "schedule_id": ("schedule_id",),
        "provider": ("selected_providers", "suppressed_providers"),
        "alert_level": ("alert_level",),
        "plan_id": ("plan_id",),
    },
    counts=lambda p: (
        len(p["eligible_providers"]),
        int(p["alert_level"] == "critical"),
        int(p["alert_level"] == "warning"),
    ),
    controls=(
        "routing-policy-derived-from-public-safe-owner-metadata",
        "maintenance-windows-contain-no-provider-credentials",
        "owner-calendars-are-public-safe-availability-metadata",
        "notification-plan-does-not-mutate-runtime-mode",
    ),
    state_fields=("alert_level",),
)

NOTIFICATION_ACK = Kind(
    name=CONTRACT_KIND + "notification-ack",
    prefix="gordack",
    id_field="acknowledgement_id",
    payload_key="acknowledgement",
    schema_version=SCHEMA + "notification-ack.v1",
    written_by=("acknowledgements.acknowledge",),
    fields={
        "schedule_id": str,
        "plan_id": str,
        "provider": str,
        "acknowledged_by": str,
        "acknowledgement_state": str,
        "acknowledged_at": str,
        "external_ref": str,
        "notes": str,
        "route_ids": list[str],
    },
    promoted=("acknowledgement_id", "schedule_id", "plan_id", "provider", "acknowledgement_state"),
    keys={
        "schedule_id": ("schedule_id",),
        "provider": ("provider",),
        "acknowledgement_state": ("acknowledgement_state",),
        "plan_id": ("plan_id",),
        "external_ref": ("external_ref",),
    },
    counts=one_decision,
    state_fields=("acknowledgement_state",),
)

AUDIT_PACKAGE = Kind(
    name=CONTRACT_KIND + "acknowledgement-audit-package",
    prefix="gordackaudit",
    id_field="audit_id",
    payload_key="acknowledgement_audit_package",
    schema_version=SCHEMA + "acknowledgement-audit-package.v1",
    written_by=("packages.freeze",),
    fields={
        "generated_at": str,
        "generated_by": str,
        "filters": dict,
        "route_count": int,
        "acknowledgement_count": int,
        "acknowledged_count": int,
        "resolved_count": int,
        "escalated_count": int,
        "dismissed_count": int,
        "outstanding_count": int,
        "alert_level": str,
        "routes": list[dict],
    },
    promoted=("audit_id", "alert_level", "route_count", "acknowledgement_count", "outstanding_count"),
    keys={
        "schedule_id": ("routes.schedule_id",),
        "provider": ("routes.provider",),
        "alert_level": ("alert_level",),
        "audit_id": ("audit_id",),
    },
    fixed_keys=AUDIT_CHAIN,
    counts=lambda p: (
        p["route_count"],
        p["outstanding_count"] + p["escalated_count"],
        p["outstanding_count"],
    ),
    controls=(
        "public-safe-acknowledgement-audit-package",
        "connector-secrets-not-included",
        "latest-route-acknowledgement-state-only",
    ),
)

DELIVERY_PLAN = Kind(
    name=CONTRACT_KIND + "acknowledgement-audit-delivery-plan",
    prefix="gordackdelivery",
    id_field="delivery_id",
    payload_key="acknowledgement_audit_delivery_plan",
    schema_version=SCHEMA + "acknowledgement-audit-delivery-plan.v1",
    written_by=("deliveries.open_plan",),
    fields={
        "audit_id": str,
        "audit_hash": str,
        "generated_at": str,
        "generated_by": str,
        "cadence": str,
        "schedule_ref": str,
        "next_delivery_at": str,
        "requested_provider": str,
        "requested_providers": list[str],
        "selected_providers": list[str],
        "destination_count": int,
        "route_count": int,
        "outstanding_count": int,
        "escalated_count": int,
        "alert_level": str,
        "filters": dict,
        "ordinal": int,
        # Connectors that may have got the content before, by entries that a restore lost; sent all the same (P25).
        "possibly_sent_providers": list[str],
    },
    promoted=(
        "delivery_id",
        "audit_id",
        "alert_level",
        "selected_providers",
        "destination_count",
        "route_count",
        "outstanding_count",
    ),
    keys={
        "provider": ("selected_providers",),
        "alert_level": ("alert_level",),
        "audit_id": ("audit_id",),
        "delivery_id": ("delivery_id",),
        "cadence": ("cadence",),
        "schedule_id": ("filters.schedule_id",),
    },
    fixed_keys=AUDIT_CHAIN,
    counts=lambda p: (
        p["destination_count"],
        p["outstanding_count"] + p["escalated_count"],
        p["outstanding_count"],
    ),
    controls=(
        "acknowledgement-audit-delivery-uses-public-safe-package",
        "connector-secrets-not-included-in-delivery-plan",
        "scheduled-delivery-is-metadata-only-in-community-edition",
    ),
)

DELIVERY_STREAM = Kind(
    name=CONTRACT_KIND + "acknowledgement-audit-delivery-stream",
    prefix="gordackdeliverystream",
    id_field="stream_record_id",
    payload_key="delivery_stream",
    schema_version=SCHEMA + "acknowledgement-audit-delivery-stream.v1",
    written_by=("deliveries.open_plan",),
    fields={
        "delivery_id": str,
        "placed_at": str,
        "head_origin": str,
        "head_size": int,
        "places": list[dict],
    },
    promoted=("stream_record_id", "delivery_id"),
    keys={
        "provider": ("places.provider",),
        "delivery_id": ("delivery_id",),
        "event_digest": ("places.digest",),
    },
    fixed_keys=AUDIT_CHAIN,
    contract=False,
    erasable=False,
    observed=True,
)

# First attempts that wait: for which connectors, why, and how they are sent once nothing holds them back.
DELIVERY_PARKING = Kind(
    name=CONTRACT_KIND + "acknowledgement-audit-delivery-parking",
    prefix="gordackdeliverypark",
    id_field="parking_id",
    payload_key="delivery_parking",
    schema_version=SCHEMA + "acknowledgement-audit-delivery-parking.v1",
    written_by=("deliveries.open_plan",),
    fields={
        "delivery_id": str,
        "audit_id": str,
        "parked_at": str,
        "parked_by": str,
        "retries": int,
        "timeout_ms": int,
        "parked": list[dict],
    },
    promoted=("parking_id", "delivery_id"),
    keys={
        "provider": ("parked.provider",),
        "delivery_id": ("delivery_id",),
        "audit_id": ("audit_id",),
    },
    fixed_keys=AUDIT_CHAIN,
    counts=lambda p: (len(p["parked"]), 0, 0),
    contract=False,
    observed=True,
)

# A parked first attempt is claimed for the socket: what a delivery plan is for those that need not wait.
DELIVERY_RELEASE = Kind(
    name=CONTRACT_KIND + "acknowledgement-audit-delivery-release",
    prefix="gordackdeliveryrelease",
    id_field="release_id",
    payload_key="delivery_release",
    schema_version=SCHEMA + "acknowledgement-audit-delivery-release.v1",
    written_by=("parking.release",),
    fields={
        "delivery_id": str,
        "audit_id": str,
        "provider": str,
        "parking_id": str,
        "attempt_no": int,
        "released_at": str,
        "lease_until": str,
        "waited_s": int,
    },
    promoted=("release_id", "delivery_id", "provider"),
    keys={
        "provider": ("provider",),
        "delivery_id": ("delivery_id",),
        "audit_id": ("audit_id",),
    },
    fixed_keys=AUDIT_CHAIN,
    counts=one_decision,
    contract=False,
    observed=True,
)

# A parked first attempt got another owner, who asked for that with a reason.
DELIVERY_TAKEOVER = Kind(
    name=CONTRACT_KIND + "acknowledgement-audit-delivery-takeover",
    prefix="gordackdeliverytakeover",
    id_field="takeover_id",
    payload_key="delivery_takeover",
    schema_version=SCHEMA + "acknowledgement-audit-delivery-takeover.v1",
    written_by=("parking.take_over",),
    fields={
        "case": str,
        "delivery_id": str,
        "audit_id": str,
        "provider": str,
        "parking_id": str,
        "taken_from": str,
        "taken_from_id": str,
        "taken_by": str,
        "taken_by_id": str,
        "taken_at": str,
        "reason": str,
    },
    promoted=("takeover_id", "delivery_id", "provider"),
    keys={
        "provider": ("provider",),
        "delivery_id": ("delivery_id",),
        "audit_id": ("audit_id",),
        "person_id": ("taken_from_id", "taken_by_id"),
    },
    fixed_keys=AUDIT_CHAIN,
    counts=one_decision,
    contract=False,
)

CONNECTOR_BREAKER = Kind(
    name="connector-breaker",
    prefix="breakerrec",
    id_field="breaker_record_id",
    payload_key="breaker",
    schema_version="cavra.connector.breaker.v1",
    written_by=(
        "deliveries.record_first_attempts",
        "drills.record_notification",
        "outcomes.record",
        "canaries.send",
        "canaries.probe_due",
        "troubles.announce",
    ),
    fields={
        "provider": str,
        "change": str,
        "failure_class": str,
        "failures": int,
        "opened_at": str,
        "at": str,
    },
    promoted=("change",),
    keys={"provider": ("provider",), "failure_class": ("failure_class",)},
    counts=lambda p: (1, int(p["change"] == "opened"), 0),
    controls=("destination-named-by-connector-key-only",),
    state_fields=("change",),
    contract=False,
    erasable=False,
    observed=True,
)

# Who tested a connector when, and what came of it; never an address.
CONNECTOR_CANARY = Kind(
    name="connector-canary",
    prefix="canary",
    id_field="canary_id",
    payload_key="canary",
    schema_version="cavra.connector.canary-result.v1",
    written_by=("canaries.send", "canaries.probe_due", "canaries.give_up"),
    fields={
        "provider": str,
        "means": str,
        "outcome": str,
        "failure_class": str,
        "status_code": int | None,
        "duration_ms": int | None,
        # Empty for one that a worker sent by itself, to a connector whose breaker was open.
        "tested_by": str,
        "tested_by_id": str,
        "started_at": str,
        "ended_at": str,
    },
    promoted=("canary_id", "outcome"),
    keys={
        "provider": ("provider",),
        "failure_class": ("failure_class",),
        "person_id": ("tested_by_id",),
    },
    counts=blocked_unless("outcome", "delivered"),
    controls=("destination-named-by-connector-key-only", "canary-holds-no-evidence"),
    state_fields=("outcome",),
    contract=False,
    observed=True,
)

# A connector that keeps failing: announced through another one, once. Three documents about it, each once.
CONNECTOR_TROUBLE = Kind(
    name="connector-trouble",
    prefix="trouble",
    id_field="trouble_id",
    payload_key="trouble",
    schema_version="cavra.connector.trouble-record.v1",
    written_by=("troubles.announce",),
    fields={
        "provider": str,
        "failure_class": str,
        "since": str,
        "waiting": int,
        "through": str,
        "announced_at": str,
    },
    promoted=("trouble_id",),
    keys={"provider": ("provider",), "failure_class": ("failure_class",)},
    counts=lambda p: (1, 1, 0),
    controls=("destination-named-by-connector-key-only",),
    contract=False,
    erasable=False,
    observed=True,
)

CONNECTOR_TROUBLE_END = Kind(
    name="connector-trouble-end",
    prefix="troubleend",
    id_field="trouble_end_id",
    payload_key="trouble_end",
    schema_version="cavra.connector.trouble-end.v1",
    written_by=("troubles.announce",),
    fields={"trouble_id": str, "provider": str, "since": str, "ended_at": str, "through": str},
    promoted=("trouble_end_id", "trouble_id"),
    keys={"provider": ("provider",), "trouble_id": ("trouble_id",)},
    counts=one_decision,
    controls=("destination-named-by-connector-key-only",),
    contract=False,
    erasable=False,
    observed=True,
)

# What came of telling it through another connector.
CONNECTOR_TROUBLE_NOTICE = Kind(
    name="connector-trouble-notice",
    prefix="troublenotice",
    id_field="trouble_notice_id",
    payload_key="trouble_notice",
    schema_version="cavra.connector.trouble-notice.v1",
    written_by=("troubles.announce",),
    fields={
        "trouble_id": str,
        "provider": str,
        "change": str,
        "through": str,
        "outcome": str,
        "failure_class": str,
        "status_code": int | None,
        "at": str,
    },
    promoted=("trouble_notice_id", "trouble_id", "change", "outcome"),
    keys={
        "provider": ("provider", "through"),
        "trouble_id": ("trouble_id",),
        "failure_class": ("failure_class",),
    },
    counts=blocked_unless("outcome", "delivered"),
    controls=("destination-named-by-connector-key-only", "announcement-holds-no-evidence"),
    state_fields=("change", "outcome"),
    contract=False,
    erasable=False,
    observed=True,
)

CONNECTOR_DELIVERY = Kind(
    name="release-connector-delivery",
    prefix="rcd",
    id_field="session_id",
    payload_key="delivery",
    schema_version="cavra.connector.delivery.v1",
    written_by=(
        "drills.record_notification",
        "deliveries.record_first_attempts",
        "deliveries.expire_leases",
        "outcomes.record",
        "outcomes.expire_leases",
        "restored.end_old_epoch",
    ),
    fields={
        "connector_delivery_source": str,
        "event_id": str,
        "event_type": str,
        "generated_at": str,
        "success": bool,
        "delivery_success": bool,
        "providers": list[str],
        "failed_providers": list[str],
        "attempt_count": int,
        "max_attempt_count": int,
        "status_codes": list[int | None],
        "deliveries": list[dict],
        "attempt_ids": list[str],
        "audit_id": str,
        "delivery_id": str,
        "schedule_id": str,
        "retry_plan_id": str,
        "worker_run_id": str,
    },
    promoted=(
        "connector_delivery_source",
        "event_id",
        "event_type",
        "delivery_success",
        "providers",
        "failed_providers",
        "attempt_count",
        "max_attempt_count",
        "status_codes",
        "attempt_ids",
        "audit_id",
        "delivery_id",
        "retry_plan_id",
        "worker_run_id",
    ),
    keys={
        "connector_delivery_source": ("connector_delivery_source",),
        "delivery_success": ("delivery_success",),
        "provider": ("providers", "failed_providers"),
        "audit_id": ("audit_id",),
        "delivery_id": ("delivery_id", "event_id", "session_id"),
        "schedule_id": ("schedule_id", "event_id"),
        "retry_plan_id": ("retry_plan_id",),
        "run_id": ("worker_run_id",),
        "attempt_id": ("attempt_ids",),
        "failure_class": ("deliveries.failure_class",),
    },
    counts=lambda p: (0, len(p["failed_providers"]), 0),
    controls=("connector-secrets-not-included", "destination-named-by-connector-key-only"),
    state_fields=("connector_delivery_source", "delivery_success"),
    hash_field="delivery_record_hash",
    observed=True,
)

DELIVERY_RECONCILIATION = Kind(
    name=CONTRACT_KIND + "acknowledgement-audit-delivery-reconciliation",
    prefix="gordackdeliveryreconcile",
    id_field="reconciliation_id",
    payload_key="delivery_reconciliation",
    schema_version=SCHEMA + "acknowledgement-audit-delivery-reconciliation.v1",
    written_by=(
        "deliveries.record_first_attempts",
        "inquiries.hear",
        "reconciliations.attest",
        "reconciliations.attest_all",
    ),
    fields={
        "delivery_id": str,
        "provider": str,
        "attempt_id": str,
        "attempt_no": int,
        "reconciled_at": str,
        "source": str,
        "external_ref": str,
        "outcome": str,
        "answer": str,
        "assurance": str,
        "may_have_arrived": bool,
        "failure_class": str,
        "status_code": int | None,
    },
    promoted=("reconciliation_id", "delivery_id", "provider", "outcome", "external_ref"),
    keys={
        "provider": ("provider",),
        "delivery_id": ("delivery_id",),
        "attempt_id": ("attempt_id",),
        "external_ref": ("external_ref",),
        "reconciles": ("attempt_id",),
    },
    fixed_keys=AUDIT_CHAIN,
    counts=blocked_unless("outcome", "delivered"),
    state_fields=("outcome",),
    contract=False,
    observed=True,
)

GENESIS = Kind(
    name="ledger-genesis",
    prefix="genesis",
    id_field="genesis_id",
    payload_key="genesis",
    schema_version="cavra.ledger.genesis.v1",
    written_by=("ledger.start",),
    fields={
        "origin": str,
        "epoch": int,
        "started_at": str,
        "body_format": str,
        "body_digest": str,
        "leaf_hash": str,
        "seal_version": int,
        "document_version": int,
    },
    contract=False,
    erasable=False,
    observed=True,
)

PERSON = Kind(
    name="person",
    prefix="personrec",
    id_field="person_record_id",
    payload_key="person",
    schema_version="cavra.people.person.v1",
    written_by=(
        "people.create",
        "people.update",
        "people.set_password",
        "people.set_active",
        "people.issue_token",
    ),
    fields={
        "person_id": str,
        "person_name": str,
        "person_kind": str,
        "owner_id": str,
        "change": str,
        "at": str,
    },
    promoted=("person_id", "change"),
    keys={"person_id": ("person_id",)},
    counts=one_decision,
    state_fields=("change",),
    contract=False,
    erasable=False,
    observed=True,
)

ROLE = Kind(
    name="role-grant",
    prefix="rolerec",
    id_field="role_record_id",
    payload_key="role_grant",
    schema_version="cavra.people.role-grant.v1",
    written_by=("people.grant_role", "people.revoke_role", "people.set_roles"),
    fields={"person_id": str, "person_name": str, "role": str, "change": str, "at": str},
    promoted=("person_id", "role", "change"),
    keys={"person_id": ("person_id",)},
    counts=one_decision,
    state_fields=("change",),
    contract=False,
    erasable=False,
    observed=True,
)

CONFIGURATION = Kind(
    name="configuration-change",
    prefix="configrec",
    id_field="configuration_id",
    payload_key="configuration",
    schema_version="cavra.configuration.change.v1",
    written_by=(
        "configuration.save",
        "configuration.save_all",
        "configuration.pause",
        "configuration.resume",
        "retention.confirm",
    ),
    fields={
        "subject": str,
        "subject_id": str,
        "change": str,
        "changed_fields": list[str],
        "configuration_digest": str,
        "reason": str,
        "at": str,
    },
    promoted=("subject", "subject_id", "change"),
    keys={"subject": ("subject",), "subject_id": ("subject_id",)},
    counts=one_decision,
    controls=("values-that-may-be-secret-are-not-recorded",),
    state_fields=("change",),
    contract=False,
    erasable=False,
)

# What an erasure is about: ids and hashes, never a word of what was erased.
ERASURE_PROPOSAL = Kind(
    name="erasure-proposal",
    prefix="erasureproposal",
    id_field="erasure_proposal_id",
    payload_key="erasure_proposal",
    schema_version="cavra.evidence.erasure-proposal.v1",
    written_by=("erasures.propose",),
    fields={
        "erasure_id": str,
        "legal_basis": str,
        "reason": str,
        "proposed_by": str,
        "proposed_at": str,
        "record_count": int,
        "items": list[dict],
    },
    promoted=("erasure_id", "legal_basis", "record_count"),
    keys={"erasure_id": ("erasure_id",), "erased_record_id": ("items.record_id",)},
    counts=one_decision,
    contract=False,
    erasable=False,
)

ERASURE_REFUSAL = Kind(
    name="erasure-refusal",
    prefix="erasurerefusal",
    id_field="erasure_refusal_id",
    payload_key="erasure_refusal",
    schema_version="cavra.evidence.erasure-refusal.v1",
    written_by=("erasures.refuse", "erasures.withdraw"),
    fields={
        "erasure_id": str,
        "erasure_state": str,
        "decided_by": str,
        "decided_at": str,
        "notes": str,
    },
    promoted=("erasure_id", "erasure_state"),
    keys={"erasure_id": ("erasure_id",)},
    counts=one_decision,
    state_fields=("erasure_state",),
    contract=False,
    erasable=False,
)

ERASURE = Kind(
    name="erasure",
    prefix="erasure",
    id_field="erasure_id",
    payload_key="erasure",
    schema_version="cavra.evidence.erasure.v1",
    written_by=("erasures.confirm", "erasures.retire"),
    fields={
        "legal_basis": str,
        "erased_under": str,
        "retention_kind": str,
        "keep_days": int | None,
        "proposed_by": str,
        "confirmed_by": str,
        "erased_at": str,
        "record_count": int,
        "items": list[dict],
        "cleared": list[dict],
    },
    promoted=("erasure_id", "legal_basis", "erased_under", "record_count"),
    keys={"erasure_id": ("erasure_id",), "erased_record_id": ("items.record_id",)},
    counts=one_decision,
    controls=("names-places-and-digests-only", "erased-text-not-repeated"),
    state_fields=("erased_under",),
    contract=False,
    erasable=False,
    observed=True,
)

LEGAL_HOLD = Kind(
    name="legal-hold",
    prefix="legalhold",
    id_field="hold_id",
    payload_key="legal_hold",
    schema_version="cavra.evidence.legal-hold.v1",
    written_by=("holds.place",),
    fields={"scope": str, "reason": str, "placed_by": str, "placed_at": str},
    promoted=("hold_id", "scope"),
    keys={"hold_id": ("hold_id",), "hold_scope": ("scope",)},
    counts=one_decision,
    contract=False,
    erasable=False,
)

LEGAL_HOLD_LIFT = Kind(
    name="legal-hold-lift",
    prefix="legalholdlift",
    id_field="hold_lift_id",
    payload_key="legal_hold_lift",
    schema_version="cavra.evidence.legal-hold-lift.v1",
    written_by=("holds.lift",),
    fields={"hold_id": str, "scope": str, "reason": str, "lifted_by": str, "lifted_at": str},
    promoted=("hold_id", "scope"),
    keys={"hold_id": ("hold_id",), "hold_scope": ("scope",)},
    counts=one_decision,
    contract=False,
    erasable=False,
)

LEDGER_KEY = Kind(
    name="ledger-key",
    prefix="ledgerkey",
    id_field="ledger_key_id",
    payload_key="ledger_key",
    schema_version="cavra.ledger.key.v1",
    written_by=("log_keys.introduce", "log_keys.retire", "log_keys.revoke", "log_keys.carry_over"),
    fields={"name": str, "vkey": str, "key_id": str, "change": str, "reason": str, "at": str},
    promoted=("vkey", "change"),
    keys={"key_id": ("key_id",)},
    counts=one_decision,
    controls=("private-keys-are-references-outside-the-database",),
    state_fields=("change",),
    contract=False,
    erasable=False,
)

LEDGER_ANCHOR = Kind(
    name="ledger-anchor",
    prefix="ledgeranchor",
    id_field="anchor_id",
    payload_key="ledger_anchor",
    schema_version="cavra.ledger.anchor.v1",
    written_by=("anchors.hold",),
    fields={
        "origin": str,
        "size": int,
        "root_hash": str,
        "note_sha256": str,
        "means": str,
        "place": str,
        "administered_by": str,
        "attested_at": str,
        "proof_sha256": str,
        "at": str,
    },
    promoted=("size", "means", "administered_by"),
    keys={"means": ("means",)},
    counts=one_decision,
    state_fields=("means",),
    contract=False,
    erasable=False,
    observed=True,
)

CASE_CAPSULE = Kind(
    name="case-capsule",
    prefix="gordackcapsule",
    id_field="capsule_id",
    payload_key="capsule",
    schema_version="cavra.evidence.case-capsule.v1",
    written_by=("capsules.freeze",),
    fields={
        "case": str,
        "record_count": int,
        "sha256": str,
        "size": int,
        "log_size": int,
        "log_root": str,
        "notes": str,
        "at": str,
    },
    promoted=("capsule_id", "record_count", "log_size"),
    keys={"capsule_id": ("capsule_id",)},
    counts=one_decision,
    controls=("frozen-at-a-signed-head",),
    contract=False,
    erasable=False,
)

_KNOWN_HEAD = {
    # The newest head of the old log that is held outside; empty when none is. ``known_signers`` names the keys
    # known here that signed it.
    "known_origin": str,
    "known_size": int,
    "known_root": str,
    "known_signers": list[str],
    # The first entry of the old log that is not here as the old log had it, and the time of the one before it.
    "first_lost_index": int,
    "kept_until": str,
    "reason": str,
}

EPOCH_PROPOSAL = Kind(
    name="ledger-epoch-proposal",
    prefix="epochproposal",
    id_field="proposal_id",
    payload_key="epoch_proposal",
    schema_version="cavra.ledger.epoch-proposal.v1",
    written_by=("epochs.propose",),
    fields={
        "old_origin": str,
        "origin": str,
        "epoch": int,
        # Why this database is known to be behind; empty when it is not, and a new log is asked for all the same.
        "behind": list[str],
        **_KNOWN_HEAD,
        "proposed_by": str,
        "proposed_at": str,
    },
    promoted=("proposal_id", "epoch"),
    keys={"proposal_id": ("proposal_id",)},
    counts=one_decision,
    contract=False,
    erasable=False,
)

EPOCH_WITHDRAWAL = Kind(
    name="ledger-epoch-withdrawal",
    prefix="epochwithdrawal",
    id_field="withdrawal_id",
    payload_key="epoch_withdrawal",
    schema_version="cavra.ledger.epoch-withdrawal.v1",
    written_by=("epochs.withdraw",),
    fields={"proposal_id": str, "proposal_hash": str, "reason": str, "decided_by": str, "decided_at": str},
    promoted=("withdrawal_id", "proposal_id"),
    keys={"proposal_id": ("proposal_id",)},
    counts=one_decision,
    contract=False,
    erasable=False,
)

# First entry of every log after the first one.
EPOCH = Kind(
    name="ledger-epoch-genesis",
    prefix="epoch",
    id_field="epoch_id",
    payload_key="epoch_genesis",
    schema_version="cavra.ledger.epoch-genesis.v1",
    written_by=("epochs.confirm",),
    fields={
        "origin": str,
        "epoch": int,
        "first_index": int,
        "started_at": str,
        "old_origin": str,
        **_KNOWN_HEAD,
        "proposal_id": str,
        "proposal_hash": str,
        "proposed_by": str,
        "confirmed_by": str,
    },
    promoted=("epoch_id", "origin", "epoch"),
    keys={"proposal_id": ("proposal_id",)},
    counts=one_decision,
    contract=False,
    erasable=False,
    observed=True,
)

TRANSFER = Kind(
    name="ledger-transfer",
    prefix="transfer",
    id_field="transfer_id",
    payload_key="ledger_transfer",
    schema_version="cavra.ledger.transfer.v1",
    written_by=("transfers.transfer",),
    fields={
        "origin": str,
        "size": int,
        "root": str,
        "row_count": int,
        "from_database": str,
        "to_database": str,
        "reason": str,
        "at": str,
    },
    promoted=("transfer_id",),
    contract=False,
    erasable=False,
    observed=True,
)

# What public safety objected to and a person let through: fields, rules and keyed commitments, never the text.
PUBLIC_SAFETY_OVERRIDE = Kind(
    name="public-safety-override",
    prefix="safetyoverride",
    id_field="override_id",
    payload_key="public_safety_override",
    schema_version="cavra.evidence.public-safety-override.v1",
    written_by=("ledger.append",),
    fields={
        "ruleset": str,
        "overridden_kind": str,
        "overridden_record_id": str,
        "overridden_record_hash": str,
        "hits": list[dict],
        "reason": str,
        "overridden_by": str,
        "overridden_at": str,
    },
    promoted=("override_id", "overridden_kind", "overridden_record_id"),
    keys={
        "override_id": ("override_id",),
        "overridden_record_id": ("overridden_record_id",),
        "safety_rule": ("hits.rule",),
        "safety_match": ("hits.match",),
    },
    counts=one_decision,
    contract=False,
    erasable=False,
)

PUBLIC_SAFETY_REVIEW = Kind(
    name="public-safety-review",
    prefix="safetyreview",
    id_field="review_id",
    payload_key="public_safety_review",
    schema_version="cavra.evidence.public-safety-review.v1",
    written_by=("overrides.review",),
    fields={
        "override_id": str,
        "override_hash": str,
        "verdict": str,
        "notes": str,
        # What is not let through any more, by the same commitments.
        "leaked": list[str],
        "reviewed_by": str,
        "reviewed_at": str,
    },
    promoted=("review_id", "override_id", "verdict"),
    keys={"reviewed_override_id": ("override_id",), "safety_leak": ("leaked",)},
    counts=one_decision,
    state_fields=("verdict",),
    contract=False,
    erasable=False,
)

KINDS: dict[str, Kind] = {}


def register(*kinds: Kind) -> None:
    """Make kinds known by name; each app registers its own table once."""
    for kind in kinds:
        if kind.name in KINDS or any(kind.prefix == known.prefix for known in KINDS.values()):
            raise ValueError(f"kind {kind.name!r} or its prefix is taken")
        KINDS[kind.name] = kind


register(
    NOTIFICATION_PLAN,
    NOTIFICATION_ACK,
    AUDIT_PACKAGE,
    DELIVERY_PLAN,
    DELIVERY_STREAM,
    DELIVERY_PARKING,
    DELIVERY_RELEASE,
    DELIVERY_TAKEOVER,
    CONNECTOR_BREAKER,
    CONNECTOR_CANARY,
    CONNECTOR_TROUBLE,
    CONNECTOR_TROUBLE_END,
    CONNECTOR_TROUBLE_NOTICE,
    CONNECTOR_DELIVERY,
    DELIVERY_RECONCILIATION,
    GENESIS,
    PERSON,
    ROLE,
    CONFIGURATION,
    LEDGER_KEY,
    LEDGER_ANCHOR,
    CASE_CAPSULE,
    EPOCH_PROPOSAL,
    EPOCH_WITHDRAWAL,
    EPOCH,
    TRANSFER,
    ERASURE_PROPOSAL,
    ERASURE_REFUSAL,
    ERASURE,
    LEGAL_HOLD,
    LEGAL_HOLD_LIFT,
    PUBLIC_SAFETY_OVERRIDE,
    PUBLIC_SAFETY_REVIEW,
)
