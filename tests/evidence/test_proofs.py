"""Inclusion and consistency, against a literal reading of RFC 9162, and from stored rows at any size."""

import hashlib
from collections.abc import Callable, Iterator
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence import guards
from evidence.domain import merkle, proofs
from evidence.errors import InvalidInput, Unavailable
from evidence.models import Checkpoint, LedgerHead, MerkleNode, SealEntry
from tests.evidence.rows import NOON, append, draft
from tests.evidence.rows_read import rows_read

MOST = 300
LEAVES = [merkle.leaf_hash(str(number).encode()) for number in range(MOST)]
Flip = Callable[[bytes], Iterator[bytes]]


# --- the definitions, word by word ------------------------------------------------------------------------------


def split(size: int) -> int:
    """The largest power of two smaller than ``size``."""
    power = 1
    while power * 2 < size:
        power *= 2
    return power


@cache
def mth(start: int, stop: int) -> bytes:
    """MTH(D[start:stop]) of RFC 9162 section 2.1.1."""
    if stop - start == 0:
        return hashlib.sha256().digest()
    if stop - start == 1:
        return LEAVES[start]
    middle = start + split(stop - start)
    return hashlib.sha256(b"\x01" + mth(start, middle) + mth(middle, stop)).digest()


@cache
def path(index: int, start: int, stop: int) -> tuple[bytes, ...]:
    """PATH(index, D[start:stop]) of RFC 9162 section 2.1.3.1; ``index`` counts from ``start``."""
    if stop - start == 1:
        return ()
    k = split(stop - start)
    if index < k:
        return (*path(index, start, start + k), mth(start + k, stop))
    return (*path(index - k, start + k, stop), mth(start, start + k))


@cache
def subproof(first: int, start: int, stop: int, whole: bool) -> tuple[bytes, ...]:
    """SUBPROOF(first, D[start:stop], whole) of RFC 9162 section 2.1.4.1."""
    if first == stop - start:
        return () if whole else (mth(start, stop),)
    k = split(stop - start)
    if first <= k:
        return (*subproof(first, start, start + k, whole), mth(start + k, stop))
    return (*subproof(first - k, start + k, stop, False), mth(start, start + k))


def node(level: int, index: int) -> bytes:
    """A complete subtree, as the log stores it."""
    return mth(index << level, (index + 1) << level)


# --- pure -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_size_and_every_pair() -> None:
    """All inclusion and consistency proofs of all trees up to 300 leaves, made and verified."""
    for size in range(MOST + 1):
        root = mth(0, size)
        assert merkle.root_at(size, node) == root
        for index in range(size):
            proof = merkle.inclusion_proof(index, size, node)
            assert tuple(proof) == path(index, 0, size)
            assert merkle.verify_inclusion(LEAVES[index], index, size, proof, root)
        for first in range(1, size + 1):
            proof = merkle.consistency_proof(first, size, node)
            assert tuple(proof) == subproof(first, 0, size, True)
            assert merkle.verify_consistency(first, size, proof, mth(0, first), root)


def flipped(data: bytes) -> Iterator[bytes]:
    """``data`` with each of its bits turned over."""
    number = int.from_bytes(data, "big")
    for bit in range(len(data) * 8):
        yield (number ^ 1 << bit).to_bytes(len(data), "big")


def changed(parts: list[bytes]) -> Iterator[list[bytes]]:
    """The same hashes with one bit of one of them turned over, one left out, one doubled, or two swapped."""
    for place, part in enumerate(parts):
        for other in flipped(part):
            yield [*parts[:place], other, *parts[place + 1 :]]


def reordered(parts: list[bytes]) -> Iterator[list[bytes]]:
    """The same hashes with one left out, doubled or swapped with its neighbour."""
    for place, part in enumerate(parts):
        yield [*parts[:place], *parts[place + 1 :]]
        yield [*parts[:place], part, *parts[place:]]
        if place:
            yield [*parts[: place - 1], part, parts[place - 1], *parts[place + 1 :]]


@pytest.mark.parametrize("size", (1, 2, 3, 4, 5, 6, 7, 8, 13))
def test_every_bit_of_an_inclusion_proof_counts(size: int) -> None:
    root = mth(0, size)
    for index in range(size):
        proof, leaf = merkle.inclusion_proof(index, size, node), LEAVES[index]
        for leaf_, *proof_, root_ in changed([leaf, *proof, root]):
            assert not merkle.verify_inclusion(leaf_, index, size, proof_, root_)
        for other in reordered(proof):
            assert not merkle.verify_inclusion(leaf, index, size, other, root)
        assert not merkle.verify_inclusion(leaf, index, size, [*proof, root], root)
        for place in range(size):
            assert merkle.verify_inclusion(leaf, place, size, proof, root) == (place == index)


@pytest.mark.parametrize("second", (1, 2, 3, 4, 5, 6, 7, 8, 13))
def test_every_bit_of_a_consistency_proof_counts(second: int) -> None:
    for first in range(1, second + 1):
        proof = merkle.consistency_proof(first, second, node)
        old, new = mth(0, first), mth(0, second)
        for old_, *proof_, new_ in changed([old, *proof, new]):
            assert not merkle.verify_consistency(first, second, proof_, old_, new_)
        for other in reordered(proof):
            assert not merkle.verify_consistency(first, second, other, old, new)
        assert not merkle.verify_consistency(first, second, [*proof, new], old, new)


def test_nothing_is_shown_about_an_empty_tree() -> None:
    for first, second in ((0, 0), (0, 5), (-1, 5)):
        with pytest.raises(ValueError, match="no consistency proof"):
            merkle.consistency_proof(first, second, node)
        with pytest.raises(ValueError, match="at least one leaf"):
            merkle.verify_consistency(first, second, [], mth(0, 0), mth(0, 5))
    with pytest.raises(ValueError, match="at least one leaf"):
        merkle.verify_consistency(5, 0, [], mth(0, 5), mth(0, 0))


def test_a_tree_does_not_shrink() -> None:
    with pytest.raises(ValueError, match="from 6 to 5"):
        merkle.consistency_proof(6, 5, node)
    assert not merkle.verify_consistency(6, 5, [mth(0, 5)], mth(0, 6), mth(0, 5))


@pytest.mark.parametrize(("index", "size"), ((0, 0), (5, 5), (-1, 5)))
def test_a_leaf_outside_of_the_tree_has_no_proof(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="has no leaf"):
        merkle.inclusion_proof(index, size, node)
    assert not merkle.verify_inclusion(LEAVES[0], index, size, [], mth(0, size))


@given(st.integers(1, 2**62), st.data())
def test_a_proof_is_as_long_as_the_tree_is_high(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    first = data.draw(st.integers(1, size))

    def some(level: int, place: int) -> bytes:
        return hashlib.sha256(f"{level}/{place}".encode()).digest()

    assert len(merkle.inclusion_proof(index, size, some)) <= size.bit_length()
    assert len(merkle.consistency_proof(first, size, some)) <= size.bit_length() + 1


# --- from stored rows -------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_every_proof_of_a_stored_log() -> None:
    append(*(draft() for _ in range(20)))
    leaves = [bytes(leaf) for leaf in SealEntry.objects.order_by("index").values_list("leaf_hash", flat=True)]
    size = len(leaves)
    roots = {number: proofs.root_at(number) for number in range(size + 1)}
    assert roots[0] == merkle.EMPTY_ROOT
    assert roots == {number: proofs.root_of_nodes(number) for number in range(size + 1)}
    assert roots[size] == merkle.root(merkle.split(LedgerHead.objects.get().peaks))
    for stop in (size, size - 1, 16, 5, 1):
        for index in range(stop):
            proof = proofs.inclusion(index, stop)
            assert merkle.verify_inclusion(leaves[index], index, stop, proof, roots[stop])
        for first in range(1, stop + 1):
            proof = proofs.consistency(first, stop)
            assert merkle.verify_consistency(first, stop, proof, roots[first], roots[stop])


@pytest.mark.django_db
def test_what_is_not_there_is_refused() -> None:
    size = LedgerHead.objects.get().size
    for asked in (
        lambda: proofs.root_at(size + 1),
        lambda: proofs.inclusion(size, size),
        lambda: proofs.inclusion(0, size + 1),
        lambda: proofs.inclusion(-1, size),
        lambda: proofs.consistency(0, size),
        lambda: proofs.consistency(1, size + 1),
        lambda: proofs.consistency(size + 1, size),
    ):
        with pytest.raises(InvalidInput) as refused:
            asked()
        assert refused.value.code == "tree_size"


@pytest.mark.django_db
def test_a_missing_node_is_damage_not_a_wrong_proof() -> None:
    append(*(draft() for _ in range(4)))
    guards.drop()
    MerkleNode.objects.filter(level=0, index=1).delete()
    with pytest.raises(Unavailable, match="no node 0/1") as refused:
        proofs.inclusion(0, 4)
    assert refused.value.code == "ledger_damaged"


class SparseTree:
    """A tree of any size of which only what leads to a few leaves is real; the rest are hashes of their place."""

    def __init__(self, size: int, *leaves: int) -> None:
        self.size, self.leaves = size, leaves

    def node(self, level: int, index: int) -> bytes:
        if level and any(index << level <= leaf < (index + 1) << level for leaf in self.leaves):
            return merkle.node_hash(self.node(level - 1, 2 * index), self.node(level - 1, 2 * index + 1))
        return hashlib.sha256(f"{level}/{index}".encode()).digest()

    def peaks(self) -> bytes:
        return b"".join(self.node(*place) for place in merkle.peak_positions(self.size))

    def root(self) -> bytes:
        return merkle.root_at(self.size, self.node)

    def store(self, proof: Callable[[merkle.Node], object]) -> None:
        """Put the nodes a proof needs into the database, and the size into the head."""
        guards.drop()
        MerkleNode.objects.all().delete()
        MerkleNode.objects.bulk_create(
            MerkleNode(level=level, index=index, hash=self.node(level, index))
            for level, index in merkle.positions(proof)
        )
        LedgerHead.objects.update(size=self.size, peaks=self.peaks())


@pytest.mark.django_db
@pytest.mark.parametrize("size", (1_000_000, 999_999, 983_039, 1_048_575))
@pytest.mark.parametrize("place", ("first", "middle", "last"))
def test_a_proof_at_a_million_reads_no_more_than_25_rows(size: int, place: str) -> None:
    """Also where the tree has as many peaks as can be; the head's row or a signed head's has them."""
    leaf = {"first": 1, "middle": 524_287, "last": size - 1}[place]
    tree = SparseTree(size, leaf, leaf - 1)
    tree.store(
        lambda node: (merkle.inclusion_proof(leaf, size, node), merkle.consistency_proof(leaf, size, node))
    )
    with rows_read() as read:
        proof = proofs.inclusion(leaf, size)
    assert merkle.verify_inclusion(tree.node(0, leaf), leaf, size, proof, tree.root())
    assert read.rows <= 25
    assert read.queries <= 2
    with rows_read() as read:
        proof = proofs.consistency(leaf, size)
    old = merkle.root_at(leaf, tree.node)
    assert merkle.verify_consistency(leaf, size, proof, old, tree.root())
    assert read.rows <= 25
    assert read.queries <= 2
    # The log goes on; the size that was signed costs one row more.
    Checkpoint.objects.create(
        origin="log", epoch=1, size=size, root=tree.root(), peaks=tree.peaks(), note="", created_at=NOON
    )
    LedgerHead.objects.update(size=size + 1)
    with rows_read() as read:
        assert proofs.consistency(leaf, size) == proof
    assert read.rows <= 25
    assert read.queries <= 3
