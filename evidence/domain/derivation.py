"""Deriving the tree again from stored bytes: what is signed has to be what is there (P12)."""

import json
from collections.abc import Callable, Iterator, Sequence

from django.db.models import Q

from evidence.domain import merkle, records
from evidence.domain.merkle import Position
from evidence.errors import Conflict
from evidence.models import MerkleNode, Record, SealEntry

# Rows held at once. Bodies are a few KB, at worst some hundred.
STRETCH = 256


def peaks(
    start: int, stop: int, before: Sequence[bytes], *, beat: Callable[[], None] = lambda: None
) -> list[bytes]:
    """Peaks of the first ``stop`` entries, from ``before`` (those of the first ``start``) and stored bytes alone.

    Each body is held against its digest unless it was erased, the digest against the seal entry, the entry's
    leaf hash and the nodes it completes against the stored ones. Raises ``Conflict`` (``ledger_differs``) at
    the first difference. ``beat`` is called between stretches.
    """
    grown = list(before)
    for first in range(start, stop, STRETCH):
        beat()
        grown = _stretch(first, min(first + STRETCH, stop), grown)
    return grown


def _stretch(start: int, stop: int, grown: list[bytes]) -> list[bytes]:
    rows = {record.index: record for record in Record.objects.filter(index__gte=start, index__lt=stop)}
    seals = {seal.index: seal for seal in SealEntry.objects.filter(index__gte=start, index__lt=stop)}
    nodes: dict[Position, bytes] = {}
    for index in range(start, stop):
        record, seal = rows.get(index), seals.get(index)
        if record is None or seal is None:
            raise _differs(
                index, "the record is not there" if record is None else "the seal entry is not there"
            )
        entry = bytes(seal.entry)
        leaf = merkle.leaf_hash(entry)
        if leaf != bytes(seal.leaf_hash):
            raise _differs(index, "the leaf hash is not that of the seal entry")
        for what in _differences(record, entry):
            raise _differs(index, what)
        grown, completed = merkle.append(grown, index, leaf)
        nodes |= {(level, place): digest for level, place, digest in completed}
    stored = _stored_nodes(start, stop)
    for (level, place), digest in nodes.items():
        if stored.get((level, place)) != digest:
            last = ((place + 1) << level) - 1
            raise _differs(last, f"the tree node {level}/{place} is not what the entries give")
    return grown


def _differences(record: Record, entry: bytes) -> Iterator[str]:
    """What the seal entry says otherwise than the record's row and bytes."""
    if record.body is not None and records.digest(bytes(record.body)) != record.digest:
        yield "the body is not the one that was sealed"
    try:
        sealed = json.loads(entry)
        found = [sealed["index"], sealed["record"], sealed["kind"], sealed["body"]]
    except (ValueError, LookupError, TypeError, RecursionError):
        yield "the seal entry cannot be read"
        return
    if found != [
        record.index,
        record.record_id,
        record.kind,
        {"sha256": record.digest, "size": record.size},
    ]:
        yield "the seal entry speaks of another record"


def _stored_nodes(start: int, stop: int) -> dict[Position, bytes]:
    """Stored nodes that the leaves from ``start`` to before ``stop`` complete."""
    there = Q()
    for level in range(stop.bit_length()):
        there |= Q(level=level, index__gte=start >> level, index__lt=stop >> level)
    rows = MerkleNode.objects.filter(there).values_list("level", "index", "hash")
    return {(level, index): bytes(digest) for level, index, digest in rows}


def _differs(index: int, what: str) -> Conflict:
    return Conflict(f"Entry {index:,}: {what}.", code="ledger_differs", index=index)
