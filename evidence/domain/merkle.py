"""The Merkle tree of RFC 6962 / RFC 9162 section 2.1 as pure functions over hashes."""

import hashlib
from collections.abc import Sequence

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
