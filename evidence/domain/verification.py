"""Everything the log says about itself, held against what is stored (P11, P12, P13).

One pass in index order, a stretch of rows at a time: memory does not grow with the log. No lock is
taken; appends go on meanwhile and are left to the next pass. Nothing is re-serialised to be hashed:
digests and leaf hashes are taken over the stored bytes.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import rfc8785
from django.db.models import Count, Max, Min, Q

from evidence import guards
from evidence.documents import GENESIS, KINDS
from evidence.domain import ledger, merkle, records
from evidence.domain.lineage import Lineage
from evidence.models import CaseLink, LedgerHead, MerkleNode, Record, RecordCounter, RecordKey, SealEntry

# Rows held at once. Bodies are a few KB, at worst some hundred.
STRETCH = 256
# SQLite's own limit of host parameters is far higher; short lists are planned better.
CASES_PER_QUERY = 500
NO_PLACE: tuple[int, bytes] = (-1, b"")

Link = tuple[str, int]
Node = tuple[int, int]
# Called after each stretch: entries checked so far, of how many. What it raises ends the pass.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Difference:
    """One thing that is not as the log says: at which entry, of which record, and both sides of it."""

    what: str
    expected: str
    found: str
    index: int | None = None
    record_id: str = ""

    def __str__(self) -> str:
        place = "" if self.index is None else f"entry {self.index}"
        place += f" ({self.record_id})" if self.record_id else ""
        return f"{place + ': ' if place else ''}{self.what}: expected {self.expected}, found {self.found}"


@dataclass(frozen=True)
class Report:
    """What one pass came to: ``records`` entries under ``root`` (hex), and how many differences."""

    origin: str
    records: int
    root: str
    first: Difference | None
    differences: int


def verify() -> Iterator[Difference]:
    """Every difference, in index order, then those of the log as a whole; none when all is well."""
    yield from _Pass().differences()


def report(progress: Progress | None = None) -> Report:
    """Verify, name the first difference and count them all; ``progress`` hears how far the pass is."""
    run = _Pass(progress)
    first, count = None, 0
    for difference in run.differences():
        first = first or difference
        count += 1
    head = run.head
    return Report(
        origin=head.origin if head else "",
        records=run.size,
        root=merkle.root(run.peaks).hex(),
        first=first,
        differences=count,
    )


@dataclass
class _Stretch:
    """Stored rows of the entries from ``start`` to before ``stop``."""

    start: int
    stop: int
    records: dict[int, Record]
    entries: dict[int, SealEntry]
    keys: dict[int, set[tuple[str, str, datetime]]]
    # Filled once the entries are parsed: place in a case's chain → (index, leaf hash).
    links: dict[Link, tuple[int, bytes]] = field(default_factory=dict)

    @classmethod
    def read(cls, start: int, stop: int) -> "_Stretch":
        there = Q(index__gte=start, index__lt=stop)
        keys: dict[int, set[tuple[str, str, datetime]]] = defaultdict(set)
        found = RecordKey.objects.filter(record__gte=start, record__lt=stop)
        for index, name, value, created_at in found.values_list("record", "name", "value", "created_at"):
            keys[index].add((name, value, created_at))
        return cls(
            start=start,
            stop=stop,
            records={record.index: record for record in Record.objects.filter(there)},
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


class _Pass:
    """One walk along the log, with what it has to remember of the entries behind it."""

    def __init__(self, progress: Progress | None = None) -> None:
        self.progress = progress
        self.head: LedgerHead | None = None
        self.counters: dict[tuple[str, str], int] = {}
        self._read_head()
        self.size = self.head.size if self.head else 0
        self.peaks: list[bytes] = []
        self.recount: Counter[tuple[str, str]] = Counter()
        self.links = 0
        self.lineage = Lineage()
        self.newest: datetime | None = None

    def _read_head(self) -> None:
        """Head and counters of one moment: read again when an append came between."""
        while True:
            self.head = LedgerHead.objects.first()
            rows = RecordCounter.objects.values_list("kind", "state", "count")
            self.counters = {(kind, state): count for kind, state, count in rows}
            now = LedgerHead.objects.first()
            if (now and now.size) == (self.head and self.head.size):
                return

    def differences(self) -> Iterator[Difference]:
        if self.head is None:
            yield Difference("ledger head", "one row", "none")
        else:
            for start in range(0, self.size, STRETCH):
                stop = min(start + STRETCH, self.size)
                yield from self._stretch(start, stop)
                if self.progress:
                    self.progress(stop, self.size)
            yield from self._whole(self.head)
        for problem in guards.differences():
            yield Difference("guards", "as listed", problem)

    # --- one stretch ------------------------------------------------------------------------------------------

    def _stretch(self, start: int, stop: int) -> Iterator[Difference]:
        stretch = _Stretch.read(start, stop)
        parsed = {index: _parsed(entry.entry) for index, entry in stretch.entries.items()}
        stretch.read_links([(case, n) for entry in parsed.values() for case, n, _ in _chain_places(entry)])
        nodes: dict[Node, bytes] = {}
        for index in range(start, stop):
            record, entry = stretch.records.get(index), stretch.entries.get(index)
            record_id = record.record_id if record else ""
            leaf = merkle.leaf_hash(bytes(entry.entry) if entry else b"")
            self.peaks, completed = merkle.append(self.peaks, index, leaf)
            nodes |= {(level, place): digest for level, place, digest in completed}
            if record is None:
                yield Difference("record", "a row", "none", index)
            if entry is None:
                yield Difference("seal entry", "a row", "none", index, record_id)
            elif bytes(entry.leaf_hash) != leaf:
                yield Difference("leaf hash", leaf.hex(), bytes(entry.leaf_hash).hex(), index, record_id)
            document = _parsed(record.body) if record and record.body is not None else None
            for what, expected, found in (
                *(self._entry(index, bytes(entry.entry), parsed[index], record, document) if entry else ()),
                *(_chains(index, leaf, parsed[index], stretch.links) if entry else ()),
                *(self._body(record, document, parsed.get(index), stretch.keys[index]) if record else ()),
            ):
                yield Difference(what, _short(expected), _short(found), index, record_id)
            self.links += len(_chain_places(parsed.get(index)))
        yield from _nodes(start, stop, nodes)

    def _entry(
        self, index: int, entry: bytes, parsed: Any, record: Record | None, document: Any
    ) -> Iterator[tuple[str, Any, Any]]:
        """The seal entry parses, is canonical and speaks of this record in this log."""
        if not isinstance(parsed, dict):
            yield "seal entry", "a JSON object", "something else"
            return
        if _canonical(parsed) != entry:
            yield "seal entry", "RFC 8785 bytes", "other bytes"
        yield from self.lineage.follow(index, parsed, document)
        wanted: dict[str, Any] = {"v": ledger.SEAL_VERSION, "index": index}
        if record:
            wanted |= {
                "kind": record.kind,
                "record": record.record_id,
                "at": records.timestamp(record.created_at),
                "body": {"sha256": record.digest, "size": record.size},
            }
        for name, value in wanted.items():
            if parsed.get(name) != value:
                yield f"seal entry, {name}", value, parsed.get(name)
        known = {"v", "log", "epoch", "index", "kind", "record", "at", "cases", "body"}
        if parsed.keys() != known:
            yield "seal entry, fields", sorted(known), sorted(parsed)

    def _body(
        self, record: Record, document: Any, entry: Any, keys: set[tuple[str, str, datetime]]
    ) -> Iterator[tuple[str, Any, Any]]:
        """The record's bytes are those that were sealed, and everything derived from them is there."""
        self.newest = max(self.newest or record.created_at, record.created_at)
        if record.body is None:
            yield "body", "bytes", "erased"
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
            self.recount[kind.name, records.state_of(kind, document)] += 1
            cases = document["cases"]
            genesis = document["payload"] if record.index == 0 else {}
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
            sealed = [case for case, _, _ in _chain_places(entry)]
            if cases != sealed:
                yield "cases", cases, sealed
            if record.index == 0:
                for name, value in (("origin", entry.get("log")), ("epoch", entry.get("epoch"))):
                    if genesis.get(name) != value:
                        yield f"genesis, {name}", value, genesis.get(name)
        for name, value, at in sorted(derived - keys):
            yield "search key", f"{name}={value} at {records.timestamp(at)}", "none"
        for name, value, at in sorted(keys - derived):
            yield "search key", "none", f"{name}={value} at {records.timestamp(at)}"

    # --- the log as a whole -----------------------------------------------------------------------------------

    def _whole(self, head: LedgerHead) -> Iterator[Difference]:
        if not self.size:
            yield Difference("genesis", "entry 0", "an empty log")
        # The peaks were folded from the entries, and every stored node was held against that folding.
        for what, expected, found in (
            ("head, peaks", b"".join(self.peaks).hex(), bytes(head.peaks).hex()),
            ("head, origin", self.lineage.origin if self.size else head.origin, head.origin),
            ("head, epoch", self.lineage.epoch, head.epoch),
            ("head, newest_at", self.newest, head.newest_at),
        ):
            if expected != found:
                yield Difference(what, _short(expected), _short(found))
        for key in sorted(self.recount.keys() | self.counters.keys()):
            if self.recount.get(key) != self.counters.get(key):
                counter = f"counter of {' '.join(key).strip()}"
                yield Difference(counter, _short(self.recount.get(key)), _short(self.counters.get(key)))
        yield from self._strays()

    def _strays(self) -> Iterator[Difference]:
        """Rows that belong to no entry. What was appended meanwhile lies before the head that is read last."""
        ends: list[tuple[str, int, int]] = []
        for model, column in (
            (Record, "index"),
            (SealEntry, "index"),
            (RecordKey, "record"),
            (CaseLink, "index"),
        ):
            end = model.objects.aggregate(low=Min(column), top=Max(column))
            if end["low"] is not None:
                ends.append((str(model._meta.verbose_name), end["low"], end["top"]))
        levels = list(
            MerkleNode.objects.values("level")
            .annotate(low=Min("index"), top=Max("index"), rows=Count("index"))
            .order_by("level")
            .values_list("level", "low", "top", "rows")
        )
        linked = CaseLink.objects.filter(index__gte=0, index__lt=self.size).count()
        head = LedgerHead.objects.first()
        size = head.size if head else 0
        for name, low, top in ends:
            if low < 0 or top >= size:
                yield Difference(
                    f"stray {name}", f"entries 0 to {size - 1} only", f"{low if low < 0 else top}"
                )
        for level, low, top, rows in levels:
            complete = size >> level if 0 <= level < 64 else 0
            if low < 0 or top >= complete or rows != top + 1:
                yield Difference(
                    f"tree nodes of level {level}",
                    f"0 to {complete - 1}, each once",
                    f"{rows} from {low} to {top}",
                )
        if linked != self.links:
            yield from self._stray_links()

    def _stray_links(self) -> Iterator[Difference]:
        """Case links that no entry names; the missing ones were found on the way."""
        before: Link = ("", -1)
        while True:
            after = Q(case_id__gt=before[0]) | Q(case_id=before[0], n__gt=before[1])
            rows = CaseLink.objects.filter(after, index__gte=0, index__lt=self.size).order_by("case_id", "n")[
                :STRETCH
            ]
            links = list(rows.values_list("case_id", "n", "index"))
            if not links:
                return
            entries = SealEntry.objects.filter(index__in={index for _, _, index in links})
            named = {
                (entry.index, case, n)
                for entry in entries
                for case, n, _ in _chain_places(_parsed(entry.entry))
            }
            for case, n, index in links:
                if (index, case, n) not in named:
                    yield Difference("case link", "none", f"{case} #{n}", index)
            before = links[-1][:2]


def _nodes(start: int, stop: int, expected: dict[Node, bytes]) -> Iterator[Difference]:
    """The stored nodes that the leaves from ``start`` to before ``stop`` complete are the recomputed ones."""
    there = Q()
    for level in range(stop.bit_length()):
        there |= Q(level=level, index__gte=start >> level, index__lt=stop >> level)
    rows = MerkleNode.objects.filter(there).values_list("level", "index", "hash")
    stored = {(level, index): bytes(digest) for level, index, digest in rows}
    for (level, index), digest in expected.items():
        found = stored.get((level, index))
        if found != digest:
            last = ((index + 1) << level) - 1
            yield Difference(
                f"tree node {level}/{index}", digest.hex(), found.hex() if found else "none", last
            )


def _chains(
    index: int, leaf: bytes, entry: Any, links: dict[Link, tuple[int, bytes]]
) -> Iterator[tuple[str, Any, Any]]:
    """Each case's chain goes on here without a gap and quotes the leaf before; the link rows say the same."""
    places = _chain_places(entry)
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


def _chain_places(entry: Any) -> list[tuple[str, int, str | None]]:
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


def _parsed(data: bytes | memoryview) -> Any:
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


def _short(value: Any) -> str:
    """A value as a difference shows it."""
    if value is None:
        return "none"
    text = records.timestamp(value) if isinstance(value, datetime) else str(value)
    return text if len(text) <= 200 else text[:200] + "…"
