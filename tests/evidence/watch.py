"""What a piece of a test appended to the log."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from evidence.documents import CONFIGURATION, PERSON, ROLE
from evidence.domain import records
from evidence.models import LedgerHead, Record

CONFIGURATION_CHANGE = CONFIGURATION.name
PERSON_CHANGE = PERSON.name
ROLE_CHANGE = ROLE.name


@dataclass
class Appended:
    """Kinds and documents in the order of the log, filled when the block ends."""

    kinds: list[str] = field(default_factory=list)
    documents: list[dict[str, Any]] = field(default_factory=list)

    @property
    def payloads(self) -> list[dict[str, Any]]:
        """What the documents say."""
        return [document["payload"] for document in self.documents]


@contextmanager
def appended() -> Iterator[Appended]:
    """``with appended() as log``: the records of the block."""
    start = LedgerHead.objects.get().size
    log = Appended()
    yield log
    for record in Record.objects.filter(index__gte=start).order_by("index"):
        log.kinds.append(record.kind)
        log.documents.append(records.load(record.body))
