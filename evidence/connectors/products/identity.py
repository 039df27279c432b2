"""What a message is known by at a receiver that has no place of its own for it: names and texts, for any product."""

import hashlib
import re
from typing import Any

# As records write times: in UTC, at most six digits behind the second (also what RFC 5424 §6.2.3 takes).
_TIMESTAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?Z")


def planned_at(event: dict[str, Any]) -> str:
    """When the delivery was planned: an event's own time, the same at every try; empty when it has none."""
    plan = event.get("delivery_plan")
    at = plan.get("generated_at") if isinstance(plan, dict) else None
    return at if isinstance(at, str) and _TIMESTAMP.fullmatch(at) else ""


def identity(event: dict[str, Any], message_id: str, text: bytes) -> dict[str, str]:
    """By what a receiver tells repetitions and gaps: ids, the place in the connector's stream, digest of ``text``.

    ``text`` are the event's RFC 8785 bytes. What the event does not say is left out.
    """
    stream = event.get("stream")
    stream = stream if isinstance(stream, dict) else {}
    values = {
        "message": message_id,
        "delivery": event.get("session_id"),
        "case": stream.get("case"),
        "seq": stream.get("seq"),
        "sha256": hashlib.sha256(text).hexdigest(),
    }
    return {name: str(value) for name, value in values.items() if value not in (None, "")}
