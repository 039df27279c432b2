"""Events as they are really built, of any size."""

from typing import Any

from evidence.domain import events

HASH = "5" * 64


def event(routes: int = 3, *, text: str = "payments-team", seq: int = 7) -> dict[str, Any]:
    """What a connector is told about ``routes`` routes; ``text`` stands wherever people write something."""
    states = ("outstanding", "acknowledged", "escalated", "resolved", "dismissed")
    listed = [
        {
            "route_id": f"gordroute-{number:016x}",
            "schedule_id": text,
            "plan_id": f"gordn-{number:016x}",
            "provider": "splunk",
            "owner": text,
            "escalation_owner": text,
            "acknowledgement_state": states[number % len(states)],
            "acknowledged": number % 5 == 1,
            "acknowledged_by": text,
            "acknowledged_at": "2026-11-28T10:00:00Z",
            "external_ref": text,
            "acknowledgement_id": f"gordack-{number:016x}",
            "notes": "never sent",
        }
        for number in range(routes)
    ]
    counts = {f"{state}_count": sum(r["acknowledgement_state"] == state for r in listed) for state in states}
    content = {
        "audit_id": "gordackaudit-0123456789abcdef",
        "route_count": routes,
        **counts,
        "alert_level": "critical" if routes else "healthy",
        "filters": {"owner": text},
        "routes": listed,
    }
    planned = {
        "delivery_id": "gordackdelivery-0123456789abcdef",
        "cadence": "on_demand",
        "schedule_ref": text,
        "next_delivery_at": "",
        "selected_providers": ["splunk"],
    }
    stream = {
        "connector": "splunk",
        "seq": seq,
        "previous": HASH,
        "case": "gordackdelivery-0123456789abcdef.splunk",
        "leaf_index": 41,
        "head": {"origin": "log.example/cavra", "size": 42, "root": HASH},
    }
    return events.build(planned, content, audit_hash=HASH, stream=stream)
