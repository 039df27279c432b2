"""The log as files that never change: tiles of hashes and bundles of entries (c2sp.org/tlog-tiles)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from evidence.domain import checkpoints
from evidence.errors import NotFound, Unavailable
from evidence.models import MerkleNode, SealEntry

WIDTH = 256
HEIGHT = 8
MAX_LEVEL = 63

_LEVEL = re.compile(r"0|[1-9][0-9]?")
# Elements of three digits, an x before all but the last; none more than needed.
_TILE = re.compile(r"((?:x(?!000)[0-9]{3}/(?:x[0-9]{3}/)*)?)([0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")


@dataclass(frozen=True)
class Tile:
    """Tile ``index`` of a level, its first ``width`` hashes or entries; ``width`` is 256 for a full one."""

    index: int
    width: int

    @property
    def start(self) -> int:
        """Place of the first hash or entry in its level."""
        return self.index * WIDTH

    @property
    def stop(self) -> int:
        """Place behind the last one."""
        return self.start + self.width

    @property
    def path(self) -> str:
        """``<N>[.p/<W>]``, e.g. ``x001/x234/067.p/8``."""
        digits = f"{self.index:03}"
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        parts = [digits[place : place + 3] for place in range(0, len(digits), 3)]
        full = "/".join([*(f"x{part}" for part in parts[:-1]), parts[-1]])
        return full if self.width == WIDTH else f"{full}.p/{self.width}"

    @classmethod
    def of(cls, path: str) -> "Tile":
        """Read what ``path`` writes, in its one form; ``NotFound`` for anything else."""
        match = _TILE.fullmatch(path)
        width = int(match[3] or WIDTH) if match else 0
        if not match or not width or (match[3] and width >= WIDTH) or len(path) > 80:
            raise _nothing()
        return cls(int(match[1].replace("x", "").replace("/", "") + match[2]), width)


def hashes(level: str, path: str) -> bytes:
    """Hashes of a tile of ``level``, 32 bytes each: those of its level's complete subtrees, left to right.

    ``NotFound`` when no signed head covers them.
    """
    if not _LEVEL.fullmatch(level) or int(level) > MAX_LEVEL:
        raise _nothing()
    tile, height = Tile.of(path), int(level) * HEIGHT
    _require_covered(tile, height)
    rows = MerkleNode.objects.filter(level=height, index__gte=tile.start, index__lt=tile.stop)
    return b"".join(_all(rows.order_by("index").values_list("hash", flat=True), tile))


def entries(path: str) -> bytes:
    """Seal entries of a bundle, each behind its length as two bytes, big-endian; ``NotFound`` like ``hashes``."""
    tile = Tile.of(path)
    _require_covered(tile, 0)
    rows = SealEntry.objects.filter(index__gte=tile.start, index__lt=tile.stop)
    found = _all(rows.order_by("index").values_list("entry", flat=True), tile)
    return b"".join(prefixed(entry) for entry in found)


def prefixed(entry: bytes) -> bytes:
    """An entry as bundles hold it: behind its length as two bytes, big-endian."""
    return len(entry).to_bytes(2, "big") + entry


def _require_covered(tile: Tile, height: int) -> None:
    newest = checkpoints.newest()
    if newest is None or tile.stop > newest.size >> height:
        raise _nothing()


def _all(rows: Iterable[bytes | memoryview], tile: Tile) -> list[bytes]:
    found = [bytes(row) for row in rows]
    if len(found) != tile.width:
        raise Unavailable("The log has gaps; verify the ledger.", code="ledger_damaged")
    return found


def _nothing() -> NotFound:
    return NotFound("The signed log has no such tile.", code="tile_not_found")
