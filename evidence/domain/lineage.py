"""Which log and epoch an entry has to name: each epoch's log has a name of its own, given by its first entry (P25)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from evidence.documents import EPOCH


@dataclass
class Lineage:
    """The epoch that a walk along the log is in, and the name of its log; empty before entry 0."""

    epoch: int = 1
    origin: str = ""

    def follow(self, index: int, entry: dict[str, Any], document: Any) -> Iterator[tuple[str, Any, Any]]:
        """What is wrong with the epoch and the name in a parsed seal entry, as ``(what, expected, found)``.

        ``document`` is the parsed record, or None when there is none to be read.
        """
        if index == 0:
            self.origin = str(entry.get("log"))
        if entry.get("kind") == EPOCH.name:
            yield from self._next(index, entry, document)
            return
        for name, expected in (("epoch", self.epoch), ("log", self.origin)):
            found = entry.get(name)
            if type(found) is not type(expected) or found != expected:
                yield f"seal entry, {name}", expected, found

    def _next(self, index: int, entry: dict[str, Any], document: Any) -> Iterator[tuple[str, Any, Any]]:
        """An epoch begins here: its number follows, its name is new, and its record says both."""
        epoch, origin = self.epoch + 1, entry.get("log")
        if entry.get("epoch") != epoch:
            yield "seal entry, epoch", epoch, entry.get("epoch")
        if not isinstance(origin, str) or origin == self.origin:
            yield "seal entry, log", f"another name than {self.origin}", origin
        payload = document.get("payload") if isinstance(document, dict) else None
        wanted = {"epoch": epoch, "origin": origin, "old_origin": self.origin, "first_index": index}
        for name, value in wanted.items():
            found = payload.get(name) if isinstance(payload, dict) else None
            if found != value:
                yield f"epoch's first record, {name}", value, found
        self.epoch, self.origin = epoch, str(origin)
