"""What products that open tickets have in common: the id a ticket is found again by, and an event as plain text."""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

from evidence.connectors.products import brief
from evidence.connectors.products.adapter import bearer
from evidence.connectors.specs import ConnectorSettings

PREFIX = "cavra-"
# How many hex digits of a SHA-256 name a ticket: 96 bits, so that no two messages ever share them.
_DIGITS = 24
# Lines of a list in a ticket; who wants the rest has the audit package.
MAX_LINES = 200

_COUNTS = ("route_count", "outstanding_count", "escalated_count", "acknowledged_count", "resolved_count")
_IDS = ("audit_id", "delivery_id", "audit_hash", "schedule_ref", "cadence")


def stable_id(message_id: str) -> str:
    """What a message's ticket is found by: the same for every try of a case, and nothing of the case in it."""
    return f"{PREFIX}{hashlib.sha256(message_id.encode()).hexdigest()[:_DIGITS]}"


def authorization(settings: ConnectorSettings, token: str) -> str:
    """Basic (RFC 7617) with the option ``username``; without it the token alone, behind the connector's scheme."""
    if not (name := settings.option("username")):
        return bearer(settings, token)
    return f"Basic {base64.b64encode(f'{name}:{token}'.encode()).decode()}"


def one_line(text: str, limit: int) -> str:
    """``text`` without line breaks and controls, in at most ``limit`` UTF-16 units."""
    return brief.clip(" ".join("".join(c if c.isprintable() else " " for c in text).split()), limit)


def summary(event: Mapping[str, Any], limit: int) -> str:
    """The event's title on one line."""
    return one_line(str(event.get("title") or event.get("event_type") or "CAVRA event"), limit)


def description(event: Mapping[str, Any], limit: int) -> str:
    """The event for a reader, in at most ``limit`` UTF-16 units; what does not fit is counted.

    Holds the digest of the whole event (SHA-256 of its RFC 8785 bytes), which the service shows beside its case.
    """
    told = event.get("audit_package_summary")
    said = told if isinstance(told, Mapping) else {}
    head = [
        summary(event, 250),
        "",
        *_pairs(event, ("event_type", "session_id", "alert_level", "max_severity", "blocked_count")),
        *_pairs(said, (*_COUNTS, *_IDS)),
        f"event_sha256: {brief.digest(event)}",
    ]
    found = event.get("routes")
    routes = [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []
    lines = [one_line(line, 1000) for line in head]
    shown = [_route(one) for one in routes[:MAX_LINES]]
    while brief.width(text := "\n".join([*lines, *_listed(shown, len(routes))])) > limit and shown:
        # A tenth at a time: the text is measured a few dozen times at most.
        shown = shown[: len(shown) - max(1, len(shown) // 10)]
    return brief.clip(text, limit)


def _pairs(source: Mapping[str, Any], names: tuple[str, ...]) -> list[str]:
    return [f"{name}: {source[name]}" for name in names if source.get(name) not in (None, "")]


def _route(route: Mapping[str, Any]) -> str:
    words = (str(route.get(name) or "") for name in ("route_id", "owner", "acknowledgement_state"))
    by, ref = (str(route.get(name) or "") for name in ("acknowledged_by", "external_ref"))
    return one_line(
        "- " + ", ".join([*filter(None, words), *([f"by {by}"] if by else []), *([ref] if ref else [])]), 400
    )


def _listed(shown: list[str], count: int) -> list[str]:
    if not count:
        return []
    rest = count - len(shown)
    return ["", "Routes:", *shown, *([f"{rest} more routes are not listed here."] if rest else [])]
