"""An event in brief, for products that show people something: title, counts, owners who have not answered, ids.

The whole event is never in a chat or an alert. What is left out is counted, and the digest of the whole (SHA-256 of
its RFC 8785 bytes, as a connector's stream quotes it) says which event was meant.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import rfc8785

from evidence.enums import AlertLevel

UNTITLED = "Evidence event"
# What has no glyph of its own, or turns the direction of what follows (Unicode TR 36 §3.3).
_INVISIBLE = re.compile(
    "[\x00-\x20\x7f-\xa0\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]+"
)
_COUNTS = (
    ("route_count", "Routes"),
    ("outstanding_count", "Outstanding"),
    ("escalated_count", "Escalated"),
    ("acknowledged_count", "Acknowledged"),
    ("resolved_count", "Resolved"),
    ("dismissed_count", "Dismissed"),
)
_DONE = frozenset({"acknowledged", "resolved", "dismissed"})


@dataclass(frozen=True, slots=True)
class Brief:
    """An event in brief; every text is one line without invisible characters, of any length, never empty.

    ``facts`` and ``ids`` are labels with values, ``waiting`` one line for each owner whose answer is not in yet.
    """

    title: str
    level: str
    facts: tuple[tuple[str, str], ...]
    waiting: tuple[str, ...]
    ids: tuple[tuple[str, str], ...]
    digest: str


def of(event: Mapping[str, Any], message_id: str) -> Brief:
    """The event in brief; what it lacks is left out.

    Raises ``rfc8785.CanonicalizationError`` for an event without canonical form.
    """
    summary = _object(event.get("audit_package_summary"))
    stream = _object(event.get("stream"))
    head = _object(stream.get("head"))
    level = line(event.get("alert_level"))
    facts = [("Alert level", level), *((label, line(summary.get(name))) for name, label in _COUNTS)]
    facts += [("Schedule", line(event.get("schedule_id"))), ("Due", line(event.get("next_due_at")))]
    ids = [
        ("Event", line(event.get("session_id"))),
        ("Message", line(message_id)),
        ("Audit package", line(summary.get("audit_id"))),
        ("Package digest", line(summary.get("audit_hash"))),
        ("Place in stream", line(stream.get("seq"))),
        ("Log entry", line(stream.get("leaf_index"))),
        ("Log", line(head.get("origin"))),
    ]
    return Brief(
        title=line(event.get("title")) or line(event.get("event_type")) or UNTITLED,
        level=level,
        facts=tuple((label, value) for label, value in facts if value),
        waiting=tuple(_waiting(event.get("routes"))),
        ids=tuple((label, value) for label, value in ids if value),
        digest=digest(event),
    )


def digest(event: Mapping[str, Any]) -> str:
    """The SHA-256 of an event's RFC 8785 bytes, as its stream quotes it."""
    return hashlib.sha256(rfc8785.dumps(dict(event))).hexdigest()


def how_to_check(brief: Brief) -> str:
    """What a reader does who wants more than this message."""
    return (
        "This message is a summary and no evidence. The whole event has the SHA-256 "
        f"{brief.digest}; export its case from the console and check it with verify.py."
    )


def line(value: Any) -> str:
    """A text or number as one line; empty for anything else."""
    if isinstance(value, str):
        return _INVISIBLE.sub(" ", value).strip()
    return str(value) if type(value) in (int, float) else ""


def clip(text: str, limit: int) -> str:
    """``text`` in at most ``limit`` UTF-16 units, which is the longest way to count characters; ends in … if cut."""
    if width(text) <= limit:
        return text
    kept, room = [], limit - 1
    for character in text:
        room -= width(character)
        if room < 0:
            break
        kept.append(character)
    return "".join(kept) + "…"


def width(text: str) -> int:
    """UTF-16 units of a text."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def listed(lines: Iterable[str], *, most: int, each: int) -> list[str]:
    """The first ``most`` lines, clipped to ``each``; the last one says how many more there are."""
    found = list(lines)
    shown = found if len(found) <= most else found[: most - 1]
    rest = len(found) - len(shown)
    return [*(clip(one, each) for one in shown), *([f"and {rest} more"] if rest else [])]


SEVERITIES = {AlertLevel.CRITICAL: "critical", AlertLevel.WARNING: "warning", AlertLevel.HEALTHY: "info"}


def severity(brief: Brief) -> str:
    """The alert level in the words that log and alert products share; a warning when the event does not say."""
    return next((word for level, word in SEVERITIES.items() if level == brief.level), "warning")


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _waiting(routes: Any) -> Iterable[str]:
    for route in routes if isinstance(routes, list) else ():
        said = _object(route)
        state = line(said.get("acknowledgement_state"))
        if state not in _DONE and (owner := line(said.get("owner"))):
            yield " · ".join(part for part in (owner, state, line(said.get("schedule_id"))) if part)
