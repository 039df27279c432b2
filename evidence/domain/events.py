"""What connectors are told about a case: the event, the same bytes at every try, and its place in their stream.

The event is built from stored rows alone. A retry therefore carries the bytes of the first try, and whoever
compares what arrived with what is stored needs no copy of what was sent.
"""

from collections.abc import Mapping
from typing import Any

import rfc8785

from evidence.domain import proofs, records
from evidence.errors import Conflict
from evidence.models import Case

EVENT_TYPE = "cavra.go_backend.rollback_drill.acknowledgement_audit_delivery"
EVENT_SCHEMA = "cavra.go-backend-pilot.rollback-drill-acknowledgement-audit-delivery.v1"

_COUNTED = (
    "route_count",
    "acknowledged_count",
    "resolved_count",
    "escalated_count",
    "dismissed_count",
    "outstanding_count",
    "alert_level",
    "filters",
)
_LABELS = ("cadence", "schedule_ref", "next_delivery_at")
# Never a route's notes (CONTRACT §3).
_ROUTE = (
    "route_id",
    "schedule_id",
    "plan_id",
    "provider",
    "owner",
    "escalation_owner",
    "acknowledgement_state",
    "acknowledged",
    "acknowledged_by",
    "acknowledged_at",
    "external_ref",
    "acknowledgement_id",
)
_CONTROLS = (
    "delivery-event-redacts-connector-secrets",
    "route-notes-are-not-sent-to-connectors",
    "siem-itsm-routing-uses-public-safe-acknowledgement-state",
)


def event_for(case: Case) -> dict[str, Any]:
    """What ``case``'s connector is told: the routes' states and the event's place in the connector's stream.

    Raises ``Conflict`` ``audit_package_not_found`` when a body was erased.
    """
    plan, package = case.plan, case.package
    found = records.by_ids([plan.delivery_id, package.audit_id])
    planned, content = (
        records.payload_of(found[record_id]) if record_id in found else None
        for record_id in (plan.delivery_id, package.audit_id)
    )
    if planned is None or content is None:
        raise Conflict("The audit package is not there any more.", code="audit_package_not_found")
    root = proofs.root_of_nodes(case.head_size) if case.head_size else b""
    return build(planned, content, audit_hash=package.record_hash, stream=stream_block(case, root))


def stream_block(case: Case, root: bytes) -> dict[str, Any] | None:
    """The part of the event that places it; ``root`` is that of the log at ``case.head_size``.

    None for a case that was made before events carried a place: its later tries repeat what its first one sent.
    """
    if case.head_size is None:
        return None
    return {
        # As the connector was called when the case was made.
        "connector": case.case_id.removeprefix(f"{case.plan.delivery_id}."),
        "seq": case.stream_seq,
        "previous": case.stream_prev,
        "case": case.case_id,
        # The plan is the newest entry of that head.
        "leaf_index": case.head_size - 1,
        "head": {"origin": case.head_origin, "size": case.head_size, "root": root.hex()},
    }


def build(
    planned: Mapping[str, Any],
    content: Mapping[str, Any],
    *,
    audit_hash: str,
    stream: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The event about a delivery plan and an audit package, given as their records' payloads.

    Whoever changes what this gives changes what retries of stored cases send and what their digests cover:
    new fields belong to new cases alone.
    """
    event = {
        "schema_version": EVENT_SCHEMA,
        "event_type": EVENT_TYPE,
        "session_id": planned["delivery_id"],
        "title": "Rollback drill acknowledgements: "
        f"{content['outstanding_count']} of {content['route_count']} outstanding",
        "alert_level": content["alert_level"],
        "blocked_count": content["outstanding_count"] + content["escalated_count"],
        "max_severity": "high" if content["alert_level"] == "critical" else "low",
        "audit_package_summary": {
            "audit_id": content["audit_id"],
            "audit_hash": audit_hash,
            "delivery_id": planned["delivery_id"],
            **{key: content[key] for key in _COUNTED},
            **{key: planned[key] for key in _LABELS},
        },
        "delivery_plan": planned,
        "routes": [{key: route[key] for key in _ROUTE} for route in content["routes"]],
        "controls": list(_CONTROLS),
    }
    return event if stream is None else {**event, "stream": stream}


def digest(event: Mapping[str, Any]) -> str:
    """SHA-256 over the event's RFC 8785 bytes, hex: product wrapping is not part of it.

    Raises ``rfc8785.CanonicalizationError`` for what has no such bytes.
    """
    return records.digest(rfc8785.dumps(dict(event)))
