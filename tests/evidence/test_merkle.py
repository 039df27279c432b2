"""The tree of RFC 6962 / RFC 9162, against known roots and a literal reading of the definition."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence.domain import merkle

# The eight leaves and their roots by which Certificate Transparency implementations are compared.
LEAVES = [bytes.fromhex(leaf) for leaf in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
)]  # fmt: skip
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def defined_root(entries: list[bytes]) -> bytes:
    """MTH of RFC 9162 section 2.1.1, word by word."""
    if not entries:
        return hashlib.sha256().digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    split = 1
    while split * 2 < len(entries):
        split *= 2
    return hashlib.sha256(b"\x01" + defined_root(entries[:split]) + defined_root(entries[split:])).digest()


def grow(entries: list[bytes]) -> tuple[list[bytes], dict[tuple[int, int], bytes]]:
    """Peaks and completed nodes after appending one by one; no node may be completed twice."""
    peaks: list[bytes] = []
    nodes: dict[tuple[int, int], bytes] = {}
    for size, entry in enumerate(entries):
        peaks, completed = merkle.append(peaks, size, merkle.leaf_hash(entry))
        for level, index, digest in completed:
            assert (level, index) not in nodes
            nodes[level, index] = digest
    return peaks, nodes


def test_empty_tree() -> None:
    assert merkle.root([]) == merkle.EMPTY_ROOT == defined_root([])
    assert merkle.EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert merkle.peak_positions(0) == []


@pytest.mark.parametrize("size", range(1, 9))
def test_known_roots(size: int) -> None:
    peaks, _ = grow(LEAVES[:size])
    assert merkle.root(peaks).hex() == ROOTS[size - 1]


def test_every_size_up_to_130() -> None:
    entries = [str(number).encode() for number in range(130)]
    for size in range(131):
        peaks, nodes = grow(entries[:size])
        assert merkle.root(peaks) == defined_root(entries[:size])
        # Stored nodes give the peaks back, and there is one for every complete subtree, no more.
        assert [nodes[position] for position in merkle.peak_positions(size)] == peaks
        complete = {(level, index) for level in range(8) for index in range(size >> level)}
        assert nodes.keys() == complete
        for (level, index), digest in nodes.items():
            assert digest == defined_root(entries[index << level : (index + 1) << level])


@given(st.lists(st.binary(max_size=40), max_size=70))
def test_any_entries(entries: list[bytes]) -> None:
    peaks, _ = grow(entries)
    assert merkle.root(peaks) == defined_root(entries)
    assert len(peaks) == len(entries).bit_count()


@given(st.integers(min_value=0, max_value=2**60))
def test_peak_positions_cover_every_leaf_once(size: int) -> None:
    covered = 0
    for level, index in merkle.peak_positions(size):
        assert index << level == covered
        covered += 1 << level
    assert covered == size


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=40), st.data())
def test_any_other_entry_gives_another_root(entries: list[bytes], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(entries) - 1))
    other = data.draw(st.binary(max_size=8).filter(lambda entry: entry != entries[place]))
    changed = [*entries[:place], other, *entries[place + 1 :]]
    assert merkle.root(grow(entries)[0]) != merkle.root(grow(changed)[0])


def test_a_leaf_is_no_node() -> None:
    """The prefixes keep an entry that looks like two hashes from passing for an inner node."""
    left, right = merkle.leaf_hash(b"a"), merkle.leaf_hash(b"b")
    assert merkle.leaf_hash(left + right) != merkle.node_hash(left, right)


def test_peaks_that_do_not_fit_the_size_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="3 leaves has 2 peaks, not 1"):
        merkle.append([b"0" * 32], 3, b"1" * 32)
