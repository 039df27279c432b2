"""What a verification finds: one thing that is not as the records say."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from evidence.domain import records

LONGEST_SHOWN = 200


@dataclass(frozen=True)
class Difference:
    """One thing that is not as the log says: at which entry, of which record, and both sides of it."""

    what: str
    expected: str
    found: str
    index: int | None = None
    record_id: str = ""

    def __str__(self) -> str:
        place = "" if self.index is None else f"entry {self.index}"
        place += f" ({self.record_id})" if self.record_id else ""
        return f"{place + ': ' if place else ''}{self.what}: expected {self.expected}, found {self.found}"


def short(value: Any) -> str:
    """A value as a difference shows it."""
    if value is None:
        return "none"
    text = records.timestamp(value) if isinstance(value, datetime) else str(value)
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "…"
