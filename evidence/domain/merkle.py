"""The Merkle tree of RFC 6962 / RFC 9162 section 2.1 as pure functions over hashes."""

import hashlib
from collections.abc import Callable, Sequence

EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    """Hash of one leaf: SHA-256(0x00 || entry) (RFC 9162 section 2.1.1)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node: SHA-256(0x01 || left || right) (RFC 9162 section 2.1.1)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def append(
    peaks: Sequence[bytes], size: int, leaf: bytes
) -> tuple[list[bytes], list[tuple[int, int, bytes]]]:
    """Add the leaf hash at index ``size``.

    ``peaks`` are the roots of the complete subtrees of a tree of ``size`` leaves, largest first: one for
    each set bit of ``size``. Returns the new peaks and every node this leaf completes as
    ``(level, index, hash)``, the leaf itself (level 0) first.
    """
    if len(peaks) != size.bit_count():
        raise ValueError(f"a tree of {size} leaves has {size.bit_count()} peaks, not {len(peaks)}")
    grown = list(peaks)
    completed = [(0, size, leaf)]
    level, digest = 0, leaf
    while size >> level & 1:
        digest = node_hash(grown.pop(), digest)
        level += 1
        completed.append((level, size >> level, digest))
    grown.append(digest)
    return grown, completed


def split(stored: bytes | memoryview) -> list[bytes]:
    """Peaks as a head stores them, one after the other, 32 bytes each."""
    return [bytes(stored[start : start + 32]) for start in range(0, len(stored), 32)]


def root(peaks: Sequence[bytes]) -> bytes:
    """Root of the tree whose complete subtrees have these roots, largest first."""
    if not peaks:
        return EMPTY_ROOT
    digest = peaks[-1]
    for peak in reversed(peaks[:-1]):
        digest = node_hash(peak, digest)
    return digest


def peak_positions(size: int) -> list[tuple[int, int]]:
    """``(level, index)`` of the complete subtrees of a tree of ``size`` leaves, largest first."""
    positions = []
    start = 0
    for level in range(size.bit_length() - 1, -1, -1):
        if size >> level & 1:
            positions.append((level, start >> level))
            start += 1 << level
    return positions


# --- proofs: RFC 9162 section 2.1.3 and 2.1.4 -----------------------------------------------------------------------

Node = Callable[[int, int], bytes]
Position = tuple[int, int]


def root_at(size: int, node: Node) -> bytes:
    """Root of the first ``size`` leaves; ``node(level, index)`` gives complete subtrees (here and below)."""
    if size < 0:
        raise ValueError(f"a tree has no {size} leaves")
    return root([node(*position) for position in peak_positions(size)])


def inclusion_proof(index: int, size: int, node: Node) -> list[bytes]:
    """Hashes that lead from leaf ``index`` to the root of ``size`` leaves, lowest first (RFC 9162 section 2.1.3.1).

    Raises ``ValueError`` when the tree has no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    path, start, stop = [], 0, size
    while stop - start > 1:
        middle = start + _largest_power_below(stop - start)
        if index < middle:
            path.append(_range(middle, stop, node))
            stop = middle
        else:
            path.append(_range(start, middle, node))
            start = middle
    return path[::-1]


def consistency_proof(first: int, second: int, node: Node) -> list[bytes]:
    """Hashes that show the first ``first`` leaves unchanged in ``second`` (RFC 9162 section 2.1.4.1).

    Raises ``ValueError`` unless ``0 < first <= second``: every tree extends the empty one, so nothing
    would be shown.
    """
    if not 0 < first <= second:
        raise ValueError(f"there is no consistency proof from {first} to {second} leaves")
    path, start, stop = [], 0, second
    # ``first - start`` leaves of this subtree are old; the whole old tree is known to who verifies.
    while first != stop:
        middle = start + _largest_power_below(stop - start)
        if first <= middle:
            path.append(_range(middle, stop, node))
            stop = middle
        else:
            path.append(_range(start, middle, node))
            start = middle
    if start:
        path.append(_range(start, stop, node))
    return path[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether ``path`` leads from the leaf hash ``leaf`` at ``index`` to ``root`` (RFC 9162 section 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    place, last, digest = index, size - 1, leaf
    for sibling in path:
        if not last:
            return False
        if place & 1 or place == last:
            digest = node_hash(sibling, digest)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            digest = node_hash(digest, sibling)
        place, last = place >> 1, last >> 1
    return not last and digest == root


def verify_consistency(
    first: int, second: int, path: Sequence[bytes], first_root: bytes, second_root: bytes
) -> bool:
    """Whether ``path`` shows that the second tree extends the first (RFC 9162 section 2.1.4.2).

    Raises ``ValueError`` when a size is 0: nothing can be shown about an empty tree.
    """
    if first < 1 or second < 1:
        raise ValueError("a consistency proof is between trees of at least one leaf")
    if first == second:
        return not path and first_root == second_root
    if first > second or not path:
        return False
    if first & (first - 1) == 0:
        path = [first_root, *path]
    place, last = first - 1, second - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if not last:
            return False
        if place & 1 or place == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        place, last = place >> 1, last >> 1
    return not last and old == first_root and new == second_root


def positions(proof: Callable[[Node], object]) -> list[Position]:
    """``(level, index)`` of every node that ``proof`` asks for, so that they can be read in one query."""
    asked: dict[Position, None] = {}

    def note(level: int, index: int) -> bytes:
        asked[level, index] = None
        return EMPTY_ROOT

    proof(note)
    return list(asked)


def _largest_power_below(size: int) -> int:
    """The largest power of two smaller than ``size``, where a tree of ``size`` leaves splits."""
    return 1 << (size - 1).bit_length() - 1


def _range(start: int, stop: int, node: Node) -> bytes:
    """Root of the leaves from ``start`` to before ``stop``, a subtree of some tree: ``start`` is aligned."""
    return root_at(stop - start, lambda level, index: node(level, (start >> level) + index))
