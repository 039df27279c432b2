"""Finding by whatever somebody has in hand: an id, the short form of one, a hash, a reference, a connector."""

from dataclasses import dataclass
from datetime import datetime

LIMIT = 20

CASE, RECORD, CONNECTOR = "case", "record", "connector"


@dataclass(frozen=True)
class Hit:
    """One thing that was found: ``what`` it is (case, record or connector), its full id, and since when.

    ``kind`` and ``record_id`` name the record that led to it, ``state`` is a case's.
    """

    what: str
    id: str
    at: datetime | None = None
    state: str = ""
    kind: str = ""
    record_id: str = ""


def find(given: str) -> list[Hit]:
    """At most ``LIMIT`` hits, the nearest first; empty when nothing bears that name."""
    raise NotImplementedError
