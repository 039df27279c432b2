"""An implementation of RFC 9162 that is not ours makes the same roots and proofs."""

from functools import cache

import pytest
from pymerkle import InmemoryTree, InvalidProof, verify_consistency

from evidence.domain import merkle

MOST = 80
ENTRIES = [str(number).encode() for number in range(MOST)]
LEAVES = [merkle.leaf_hash(entry) for entry in ENTRIES]


@cache
def node(level: int, index: int) -> bytes:
    """A complete subtree, as the log stores it."""
    return (
        LEAVES[index]
        if not level
        else merkle.node_hash(node(level - 1, 2 * index), node(level - 1, 2 * index + 1))
    )


@pytest.fixture(scope="module")
def theirs() -> InmemoryTree:
    tree = InmemoryTree(algorithm="sha256")
    for entry in ENTRIES:
        tree.append_entry(entry)
    return tree


def test_roots_are_the_same(theirs: InmemoryTree) -> None:
    for size in range(1, MOST + 1):
        assert theirs.get_root(size) == merkle.root_at(size, node)


def test_inclusion_paths_are_the_same(theirs: InmemoryTree) -> None:
    """Theirs begin with the leaf itself and count from 1."""
    for size in range(1, MOST + 1):
        for index in range(size):
            leaf, *path = theirs.prove_inclusion(index + 1, size).path
            assert leaf == LEAVES[index]
            assert path == merkle.inclusion_proof(index, size, node)


def test_they_find_our_roots_consistent(theirs: InmemoryTree) -> None:
    """Their proofs have another form; what counts is that they lead from root to root of ours."""
    for second in range(1, MOST + 1):
        for first in range(1, second + 1):
            old, new = (merkle.root_at(size, node) for size in (first, second))
            verify_consistency(old, new, theirs.prove_consistency(first, second))
    with pytest.raises(InvalidProof):
        verify_consistency(merkle.root_at(4, node), merkle.root_at(9, node), theirs.prove_consistency(5, 9))
