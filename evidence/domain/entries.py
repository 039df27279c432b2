"""Each entry of the log held against its record, its chains and its search keys (P11, P12).

A range of entries is checked by itself, so that several processes can share a log: what has to be known of
the entries before it is read from the last of them. A stretch of rows is held at a time: memory does not
grow with the log. Nothing is re-serialised to be hashed: digests and leaf hashes are taken over stored bytes.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import rfc8785
from django.db.models import Q

from evidence.documents import GENESIS, KINDS
from evidence.domain import erasures, ledger, merkle, records
from evidence.domain.differences import Difference, short
from evidence.domain.lineage import Lineage
from evidence.models import CaseLink, Record, RecordKey, SealEntry

# Rows held at once. Bodies are a few KB, at worst some hundred.
STRETCH = 256
# SQLite's own limit of host parameters is far higher; short lists are planned better.
CASES_PER_QUERY = 500
NO_PLACE: tuple[int, bytes] = (-1, b"")

Link = tuple[str, int]
# A search key: name, value, and the time of its record.
Key = tuple[str, str, datetime]


@dataclass
class Checked:
    """What the entries from ``start`` to before ``stop`` came to; plain data, so that it passes between processes.

    ``leaves`` are the leaf hashes of the stored entries, one after the other, 32 bytes each. ``counts`` are the
    records by kind and state, ``links`` how many places in cases' chains the entries name. ``origin`` and
    ``epoch`` are those of the last entry, ``newest`` the newest time.
    """

    start: int
    stop: int
    leaves: bytes = b""
    differences: list[Difference] = field(default_factory=list)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    links: int = 0
    origin: str = ""
    epoch: int = 1
    newest: datetime | None = None
    # First entry, origin and epoch of each epoch that has entries here.
    epochs: list[tuple[int, str, int]] = field(default_factory=list)


def check(
    start: int, stop: int, *, after: Checked | None = None, beat: Callable[[], None] = lambda: None
) -> Checked:
    """Check the entries from ``start`` to before ``stop``; ``beat`` is called after each stretch.

    ``after`` is what the entries right before came to; without it the last of them is read.
    """
    run = _Range(Checked(start, stop))
    if after:
        run.lineage = Lineage(after.epoch, after.origin)
    elif start:
        run.after(start - 1)
    for first in range(start, stop, STRETCH):
        run.stretch(first, min(first + STRETCH, stop))
        beat()
    run.checked.origin, run.checked.epoch = run.lineage.origin, run.lineage.epoch
    return run.checked


@dataclass
class _Stretch:
    """Stored rows of the entries from ``start`` to before ``stop``."""

    start: int
    stop: int
    records: dict[int, Record]
    entries: dict[int, SealEntry]
    keys: dict[int, set[Key]]
    # What the log says about those that were erased.
    gone: erasures.Stated
    # Filled once the entries are parsed: place in a case's chain → (index, leaf hash).
    links: dict[Link, tuple[int, bytes]] = field(default_factory=dict)

    @classmethod
    def read(cls, start: int, stop: int) -> "_Stretch":
        there = Q(index__gte=start, index__lt=stop)
        keys: dict[int, set[Key]] = defaultdict(set)
        found = RecordKey.objects.filter(record__gte=start, record__lt=stop)
        for index, name, value, created_at in found.values_list("record", "name", "value", "created_at"):
            keys[index].add((name, value, created_at))
        rows = {record.index: record for record in Record.objects.filter(there)}
        return cls(
            start=start,
            stop=stop,
            records=rows,
            gone=erasures.stated([record for record in rows.values() if record.body is None]),
            entries={entry.index: entry for entry in SealEntry.objects.filter(there)},
            keys=keys,
        )

    def read_links(self, wanted: Sequence[Link]) -> None:
        """Look up the links at ``wanted`` places and the ones before them."""
        ordered = sorted(wanted)
        for first in range(0, len(ordered), CASES_PER_QUERY):
            part = ordered[first : first + CASES_PER_QUERY]
            places = [n for _, n in part]
            rows = CaseLink.objects.filter(
                case_id__in={case for case, _ in part}, n__gte=min(places) - 1, n__lte=max(places)
            )
            for case, n, index, leaf in rows.values_list("case_id", "n", "index", "leaf_hash"):
                self.links[case, n] = (index, bytes(leaf))


class _Range:
    """A walk along a range of entries, with what it has to remember of those behind it."""

    def __init__(self, checked: Checked) -> None:
        self.checked = checked
        self.lineage = Lineage()

    def after(self, index: int) -> None:
        """Go on after an entry that somebody else checks."""
        entry = SealEntry.objects.filter(index=index).values_list("entry", flat=True).first()
        said = parsed(entry or b"")
        if isinstance(said, dict):
            epoch, origin = said.get("epoch"), said.get("log")
            self.lineage = Lineage(epoch if type(epoch) is int else 1, str(origin))
        self.checked.epochs.append((index + 1, self.lineage.origin, self.lineage.epoch))

    def stretch(self, start: int, stop: int) -> None:
        """Check some entries whose rows fit into memory."""
        stretch = _Stretch.read(start, stop)
        entries = {index: parsed(entry.entry) for index, entry in stretch.entries.items()}
        stretch.read_links([(case, n) for entry in entries.values() for case, n, _ in chain_places(entry)])
        documents = {
            index: parsed(record.body) for index, record in stretch.records.items() if record.body is not None
        }
        quoted = _quoted(documents.values())
        for index in range(start, stop):
            record, entry = stretch.records.get(index), stretch.entries.get(index)
            record_id = record.record_id if record else ""
            leaf = merkle.leaf_hash(bytes(entry.entry) if entry else b"")
            self.checked.leaves += leaf
            if record is None:
                self._differs("record", "a row", "none", index)
            if entry is None:
                self._differs("seal entry", "a row", "none", index, record_id)
            elif bytes(entry.leaf_hash) != leaf:
                self._differs("leaf hash", leaf.hex(), bytes(entry.leaf_hash).hex(), index, record_id)
            document = documents.get(index)
            for what, expected, found in (
                *(self._entry(index, bytes(entry.entry), entries[index], record, document) if entry else ()),
                *(_chains(index, leaf, entries[index], stretch.links) if entry else ()),
                *(self._body(record, document, entries.get(index), stretch) if record else ()),
                *_references(index, document, quoted),
            ):
                self._differs(what, short(expected), short(found), index, record_id)
            self.checked.links += len(chain_places(entries.get(index)))

    def _differs(self, what: str, expected: str, found: str, index: int, record_id: str = "") -> None:
        self.checked.differences.append(Difference(what, expected, found, index, record_id))

    def _entry(
        self, index: int, entry: bytes, said: Any, record: Record | None, document: Any
    ) -> Iterator[tuple[str, Any, Any]]:
        """The seal entry parses, is canonical and speaks of this record in this log."""
        if not isinstance(said, dict):
            yield "seal entry", "a JSON object", "something else"
            return
        if _canonical(said) != entry:
            yield "seal entry", "RFC 8785 bytes", "other bytes"
        yield from self._follow(index, said, document)
        wanted: dict[str, Any] = {"v": ledger.SEAL_VERSION, "index": index}
        if record:
            wanted |= {
                "kind": record.kind,
                "record": record.record_id,
                "at": records.timestamp(record.created_at),
                "body": {"sha256": record.digest, "size": record.size},
            }
        for name, value in wanted.items():
            if said.get(name) != value:
                yield f"seal entry, {name}", value, said.get(name)
        known = {"v", "log", "epoch", "index", "kind", "record", "at", "cases", "body"}
        if said.keys() != known:
            yield "seal entry, fields", sorted(known), sorted(said)

    def _follow(self, index: int, said: dict[str, Any], document: Any) -> Iterator[tuple[str, Any, Any]]:
        """The entry names the log and the epoch that it stands in (P25)."""
        before = self.lineage.epoch
        yield from self.lineage.follow(index, said, document)
        if index == 0 or self.lineage.epoch != before:
            self.checked.epochs.append((index, self.lineage.origin, self.lineage.epoch))

    def _body(
        self, record: Record, document: Any, entry: Any, stretch: _Stretch
    ) -> Iterator[tuple[str, Any, Any]]:
        """The record's bytes are those that were sealed, and everything derived from them is there."""
        checked = self.checked
        checked.newest = max(checked.newest or record.created_at, record.created_at)
        keys = stretch.keys[record.index]
        if record.body is None:
            yield from self._erased(record, stretch, keys)
            return
        body = bytes(record.body)
        if records.digest(body) != record.digest:
            yield "body digest", record.digest, records.digest(body)
        if len(body) != record.size:
            yield "body size", record.size, len(body)
        if (record.kind == GENESIS.name) != (record.index == 0):
            yield "kind", "the genesis at entry 0 and nowhere else", record.kind
        kind = KINDS.get(record.kind)
        if kind is None:
            yield "kind", "a known kind", record.kind
            return
        try:
            said = {name: document[name] for name in ("v", "id", "kind", "at")}
            derived = {(*key, record.created_at) for key in records.search_keys(kind, document)}
            checked.counts[kind.name, records.state_of(kind, document)] += 1
            cases = document["cases"]
        except (LookupError, TypeError, AttributeError):
            yield "body", f"a document of kind {kind.name}", "something else"
            return
        wanted = {
            "v": records.DOCUMENT_VERSION,
            "id": record.record_id,
            "kind": record.kind,
            "at": records.timestamp(record.created_at),
        }
        for name, value in wanted.items():
            if said[name] != value:
                yield f"body, {name}", value, said[name]
        if isinstance(entry, dict):
            if record.index == 0:
                for name, value in (("origin", entry.get("log")), ("epoch", entry.get("epoch"))):
                    if document["payload"].get(name) != value:
                        yield f"genesis, {name}", value, document["payload"].get(name)
            sealed = [case for case, _, _ in chain_places(entry)]
            if cases != sealed:
                yield "cases", cases, sealed
        yield from _search_keys(derived, keys)

    def _erased(self, record: Record, stretch: _Stretch, keys: set[Key]) -> Iterator[tuple[str, Any, Any]]:
        """A record of kind ``erasure`` says that these bytes went, and what of the record stays (P24)."""
        said = stretch.gone.get(record.index)
        if said is None:
            yield "body", "bytes", "erased, and no erasure says so"
            return
        _, item = said[0]
        self.checked.counts[record.kind, item["counted_as"]] += 1
        derived = {(name, value, record.created_at) for name, value in item["kept_keys"]}
        if keys != derived:
            # They may have been read before the erasure was committed, and the record after it.
            found = RecordKey.objects.filter(record=record.index)
            keys = set(found.values_list("name", "value", "created_at"))
        yield from _search_keys(derived, keys)


def _search_keys(derived: set[Key], stored: set[Key]) -> Iterator[tuple[str, Any, Any]]:
    """The stored search keys of a record are those that follow from what it says."""
    for name, value, at in sorted(derived - stored):
        yield "search key", f"{name}={value} at {records.timestamp(at)}", "none"
    for name, value, at in sorted(stored - derived):
        yield "search key", "none", f"{name}={value} at {records.timestamp(at)}"


Reference = tuple[str, str, str]


def _quotes(document: Any) -> list[Reference]:
    """``(kind, id, hash)`` of every well-formed reference of a document."""
    found = document.get("references") if isinstance(document, dict) else None
    return [
        (one["kind"], one["id"], one["hash"])
        for one in (found if isinstance(found, list) else ())
        if isinstance(one, dict) and all(isinstance(one.get(name), str) for name in ("kind", "id", "hash"))
    ]


def _quoted(documents: Iterable[Any]) -> dict[str, tuple[int, str, str]]:
    """Place, kind and digest of every record that some documents quote, by its id."""
    wanted = sorted({record_id for document in documents for _, record_id, _ in _quotes(document)})
    found: dict[str, tuple[int, str, str]] = {}
    for first in range(0, len(wanted), CASES_PER_QUERY):
        rows = Record.objects.filter(record_id__in=wanted[first : first + CASES_PER_QUERY])
        for record_id, index, kind, digest in rows.values_list("record_id", "index", "kind", "digest"):
            found[record_id] = (index, kind, digest)
    return found


def _references(
    index: int, document: Any, quoted: dict[str, tuple[int, str, str]]
) -> Iterator[tuple[str, Any, Any]]:
    """Where a document quotes another one that is earlier in the log, and the other still has that hash."""
    for kind, record_id, digest in _quotes(document):
        at, *found = quoted.get(record_id, (-1, "", ""))
        if not 0 <= at < index:
            yield f"reference to {record_id}", "an earlier record", "none" if at < 0 else f"entry {at}"
        elif found != [kind, digest]:
            yield f"reference to {record_id}", f"{kind} {digest}", " ".join(found)


def _chains(
    index: int, leaf: bytes, entry: Any, links: dict[Link, tuple[int, bytes]]
) -> Iterator[tuple[str, Any, Any]]:
    """Each case's chain goes on here without a gap and quotes the leaf before; the link rows say the same."""
    places = chain_places(entry)
    if len({case for case, _, _ in places}) != len(entry["cases"] if isinstance(entry, dict) else ()):
        yield "cases", "each once, with place and previous leaf", "something else"
    for case, n, prev in places:
        at, linked = links.get((case, n), NO_PLACE)
        if (at, linked) != (index, leaf):
            found = "none" if at < 0 else f"entry {at}, leaf {linked.hex()}"
            yield f"case link {case} #{n}", f"entry {index}, leaf {leaf.hex()}", found
        if n == 1:
            if prev is not None:
                yield f"chain of {case}, previous leaf of #1", "none", prev
            continue
        before, quoted = links.get((case, n - 1), NO_PLACE)
        if not 0 <= before < index:
            yield f"chain of {case}, place before #{n}", "an earlier entry", "none" if before < 0 else before
        elif prev != quoted.hex():
            yield f"chain of {case}, previous leaf of #{n}", quoted.hex(), prev


def chain_places(entry: Any) -> list[tuple[str, int, str | None]]:
    """``(case, n, previous leaf)`` of every well-formed case of a parsed entry."""
    cases = entry.get("cases") if isinstance(entry, dict) else None
    return [
        (item["case"], item["n"], item["prev"])
        for item in (cases if isinstance(cases, list) else ())
        if isinstance(item, dict)
        and item.keys() == {"case", "n", "prev"}
        and isinstance(item["case"], str)
        and type(item["n"]) is int
        and item["n"] >= 1
        and isinstance(item["prev"], str | None)
    ]


def parsed(data: bytes | memoryview) -> Any:
    """The JSON value inside stored bytes; None when there is none."""
    try:
        return json.loads(bytes(data))
    except (ValueError, RecursionError):
        return None


def _canonical(value: Any) -> bytes:
    """RFC 8785 bytes of a parsed entry; empty when it has none."""
    try:
        return rfc8785.dumps(value)
    except (ValueError, RecursionError):
        return b""
