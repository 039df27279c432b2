"""Proofs from what is stored: one query for the size's own peaks, one for the nodes beside the path.

At the size of a signed head, or of the whole log, the peaks stand in one row; a proof then reads at most
one row for each level of the tree besides. At any other size the peaks are read one by one.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from operator import or_
from typing import TypeVar

from django.db.models import Q

from evidence.domain import merkle
from evidence.domain.merkle import Node, Position
from evidence.errors import InvalidInput, Unavailable
from evidence.models import Checkpoint, LedgerHead, MerkleNode

Shown = TypeVar("Shown")
# Entries whose proofs are read together: their nodes are named in one query.
_AT_ONCE = 200


def root_at(size: int) -> bytes:
    """Root of the first ``size`` entries; ``InvalidInput`` (``tree_size``) when the log is shorter."""
    return _read(size, lambda node: merkle.root_at(size, node))


def root_of_nodes(size: int) -> bytes:
    """Root of the first ``size`` entries from tree nodes alone, whatever a head's row claims; see ``root_at``."""
    return _proven(lambda node: merkle.root_at(size, node), {})


def peaks_of_nodes(size: int) -> list[bytes]:
    """Roots of the complete subtrees of the first ``size`` entries, largest first, read like ``root_of_nodes``."""
    return _proven(lambda node: [node(*place) for place in merkle.peak_positions(size)], {})


def inclusion(index: int, size: int) -> list[bytes]:
    """Hashes from entry ``index`` to the root of ``size`` entries (RFC 9162 section 2.1.3.1).

    ``InvalidInput`` (``tree_size``) when there is no such entry or the log is shorter.
    """
    if not 0 <= index < size:
        raise _no_tree(f"A log of {size} entries has no entry {index}.")
    return _read(size, lambda node: merkle.inclusion_proof(index, size, node))


def inclusions(indexes: Sequence[int], size: int) -> list[list[bytes]]:
    """The same for several entries at once, in a few queries for all of them."""
    if not all(0 <= index < size for index in indexes):
        raise _no_tree(f"A log of {size} entries has not all of these.")
    found: list[list[bytes]] = []
    for start in range(0, len(indexes), _AT_ONCE):
        found += _read(size, _inclusions(indexes[start : start + _AT_ONCE], size))
    return found


def _inclusions(indexes: Sequence[int], size: int) -> Callable[[Node], list[list[bytes]]]:
    return lambda node: [merkle.inclusion_proof(index, size, node) for index in indexes]


def consistency(first: int, second: int) -> list[bytes]:
    """Hashes that show ``second`` entries to extend ``first`` (RFC 9162 section 2.1.4.1).

    ``InvalidInput`` (``tree_size``) unless ``0 < first <= second`` and the log is that long.
    """
    if not 0 < first <= second:
        raise _no_tree("A consistency proof leads from a size of at least 1 to one that is not smaller.")
    return _read(second, lambda node: merkle.consistency_proof(first, second, node))


def shown_consistency(first: int, second: int) -> tuple[bytes, bytes, list[bytes]]:
    """Both roots and the hashes between them, as they are handed out: what would not verify is not.

    Raises what ``consistency`` raises, and ``Unavailable`` (``ledger_damaged``).
    """
    path = consistency(first, second)
    old, new = root_at(first), root_at(second)
    if not merkle.verify_consistency(first, second, path, old, new):
        raise Unavailable("The stored tree does not fit itself; verify the ledger.", code="ledger_damaged")
    return old, new, path


def _read(size: int, proof: Callable[[Node], Shown]) -> Shown:
    """What ``proof`` makes of the stored nodes of a tree of ``size`` leaves."""
    return _proven(proof, _peaks_in_one_row(size))


def _proven(proof: Callable[[Node], Shown], known: dict[Position, bytes]) -> Shown:
    """What ``proof`` makes of the nodes that are known already and those that it needs besides."""
    missing = [position for position in merkle.positions(proof) if position not in known]
    known = known | _nodes(missing)
    gone = [position for position in missing if position not in known]
    if gone:
        raise Unavailable(
            f"The tree has no node {gone[0][0]}/{gone[0][1]}; verify the ledger.", code="ledger_damaged"
        )
    return proof(lambda level, index: known[level, index])


def _peaks_in_one_row(size: int) -> dict[Position, bytes]:
    """Peaks of this size when the head or a signed head holds them, else nothing."""
    head = LedgerHead.objects.get()
    if size > head.size:
        raise _no_tree(f"The log has {head.size} entries, not {size}.")
    stored = head.peaks
    if size != head.size:
        stored = Checkpoint.objects.filter(size=size).values_list("peaks", flat=True).first() or b""
    return dict(zip(merkle.peak_positions(size), merkle.split(stored), strict=False))


def _nodes(positions: list[Position]) -> dict[Position, bytes]:
    """Stored nodes by position; those that are not there are left out."""
    if not positions:
        return {}
    # One condition for each level, so that each row is found in the primary key.
    levels: dict[int, list[int]] = {}
    for level, index in positions:
        levels.setdefault(level, []).append(index)
    there = reduce(or_, (Q(level=level, index__in=indexes) for level, indexes in levels.items()))
    rows = MerkleNode.objects.filter(there).values_list("level", "index", "hash")
    return {(level, index): bytes(digest) for level, index, digest in rows}


def _no_tree(sentence: str) -> InvalidInput:
    return InvalidInput(sentence, code="tree_size")
