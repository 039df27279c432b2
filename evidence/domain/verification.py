"""Everything stored, held against what the log says (P11, P12, P13).

Three parts, each in its own module: the entries one by one (``entries``), shared by several processes when
there are many; the tree, head, counters and guards as a whole, here; and the rows that people work with,
told again from the records (``replay``). No lock is taken; appends go on meanwhile and are left to the next
pass.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import Count, Max, Min, Q

from evidence import guards
from evidence.domain import (
    capsules,
    checkpoints,
    entries,
    erasures,
    log_keys,
    merkle,
    notes,
    proofs,
    replay,
    sharing,
)
from evidence.domain.differences import Difference, short
from evidence.domain.entries import Checked, Link, chain_places, parsed
from evidence.errors import DomainError, InvalidInput
from evidence.models import (
    Anchor,
    CaseLink,
    Checkpoint,
    LedgerHead,
    MerkleNode,
    Record,
    RecordCounter,
    RecordKey,
    SealEntry,
    Verification,
)

__all__ = ["Difference", "Report", "report", "since_last", "verify"]

# Entries that one process checks before it asks for more.
SHARE = 2_048
# Below so many entries another process costs more than it saves.
WORTH_SHARING = 20_000

Node = tuple[int, int]
# Called now and then: entries checked so far, of how many. What it raises ends the pass.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Base:
    """Where an incremental pass begins: ``size`` entries under ``root`` that ``source`` found to be well."""

    size: int = 0
    root: bytes = b""
    source: str = ""


@dataclass(frozen=True)
class Report:
    """What one pass came to: ``records`` entries under ``root`` (hex), and how many differences.

    ``since`` is the first entry that was looked at; ``not_checked`` says in sentences what was left out.
    """

    origin: str
    records: int
    root: str
    first: Difference | None
    differences: int
    since: int = 0
    rows: int = 0
    not_checked: tuple[str, ...] = ()


def verify() -> Iterator[Difference]:
    """Every difference, in index order, then those of the log as a whole, then those of the rows."""
    yield from _Pass().differences()


def report(progress: Progress | None = None, *, base: Base | None = None, processes: int = 1) -> Report:
    """Verify, name the first difference and count them all; ``progress`` hears how far the pass is.

    With ``base`` only what came after it is derived again. ``processes`` share the entries of a large log; the
    caller must not be inside a transaction then.
    """
    run = _Pass(progress, base or Base(), processes)
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
        since=run.base.size,
        rows=run.replayed.rows,
        not_checked=tuple(run.not_checked()),
    )


def since_last() -> Base:
    """What an incremental pass builds upon: the larger of the newest signed head and the newest clean pass.

    Only a head counts that says what a key of this log signed, and one that was not revoked since.
    """
    bases = [Base()]
    if signed := checkpoints.latest_trusted():
        bases.append(
            Base(signed.size, bytes(signed.root), f"the signed head of {signed.created_at:%Y-%m-%d %H:%M}")
        )
    clean = Verification.objects.filter(differences=0, finished_at__isnull=False, size__gt=0).exclude(root="")
    if last := clean.order_by("-finished_at", "-pk").first():
        at = last.finished_at or last.requested_at
        bases.append(Base(last.size, bytes.fromhex(last.root), f"the verification of {at:%Y-%m-%d %H:%M}"))
    return max(bases, key=lambda base: base.size)


class _Pass:
    """One walk along the log, with what it has to remember of the entries behind it."""

    def __init__(
        self, progress: Progress | None = None, base: Base | None = None, processes: int = 1
    ) -> None:
        self.progress = progress
        self.processes = processes
        self.head: LedgerHead | None = None
        self.counters: dict[tuple[str, str], int] = {}
        self._read_head()
        self.size = self.head.size if self.head else 0
        self.base = base or Base()
        self.peaks: list[bytes] = []
        self.recount: Counter[tuple[str, str]] = Counter()
        self.links = 0
        self.last: Checked | None = None
        # Roots at the sizes of signed heads, as they are passed, and where each epoch begins.
        self.roots: dict[int, bytes] = {}
        self.epochs: list[tuple[int, str, int]] = []
        self.newest: datetime | None = None
        self.replayed = replay.Outcome()

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
            yield from self._begin()
            for model in (Checkpoint, Anchor):
                sizes = model._default_manager.filter(size__gt=self.base.size).values_list("size", flat=True)
                self.roots |= dict.fromkeys(sizes, b"")
            if self.processes > 1 and self.size - self.base.size >= WORTH_SHARING:
                yield from self._shared()
            else:
                yield from self._alone()
            yield from self._whole(self.head)
        for problem in guards.differences():
            yield Difference("guards", "as listed", problem)

    def not_checked(self) -> Iterator[str]:
        """What this pass did not look at, in sentences."""
        if self.base.size:
            yield (
                f"The first {self.base.size:,} entries and their tree were taken from {self.base.source}; "
                "a full pass derives them again."
            )
            yield (
                "Rows, signed heads and anchors of which nothing new speaks were not compared. "
                "Counters, stray rows and rows without any record are looked at by a full pass only."
            )
        if untold := replay.untold():
            yield f"Configuration was not compared, its records hold no values: {', '.join(untold)}."
        if self.replayed.skipped:
            yield f"Rows that only the whole log tells were left out: {', '.join(self.replayed.skipped)}."
        if self.replayed.unjudged:
            yield f"{self.replayed.unjudged} values stand in records that were erased and cannot be judged."

    # --- entries and rows ---------------------------------------------------------------------------------------

    def _begin(self) -> Iterator[Difference]:
        """Take over what an incremental pass builds upon; from the beginning when that does not hold."""
        base = self.base
        if not base.size:
            return
        found: str | None = None
        if base.size <= self.size:
            try:
                self.peaks = proofs.peaks_of_nodes(base.size)
            except DomainError as error:
                found = error.detail
        else:
            found = f"{self.size} entries"
        if found is None and merkle.root(self.peaks) != base.root:
            found = merkle.root(self.peaks).hex()
        if found is not None:
            yield Difference(f"root at {base.size}, from {base.source}", base.root.hex(), short(found))
            self.base, self.peaks = Base(), []

    def _alone(self) -> Iterator[Difference]:
        for start in range(self.base.size, self.size, entries.STRETCH):
            stop = min(start + entries.STRETCH, self.size)
            yield from self._take(entries.check(start, stop, after=self.last))
            self._tell(stop)
        yield from self._rows(lambda: self._tell(self.size))

    def _shared(self) -> Iterator[Difference]:
        """Others check the entries, a share at a time; rows are told again here meanwhile."""
        with sharing.pool(self.processes, str(connection.settings_dict["NAME"])) as pool:
            shares: list[Future[Checked]] = [
                pool.submit(entries.check, start, min(start + SHARE, self.size))
                for start in range(self.base.size, self.size, SHARE)
            ]
            told = list(self._rows(lambda: self._tell(self._done(shares))))
            for share in shares:
                yield from self._take(share.result())
                self._tell(self._done(shares))
        yield from told

    def _done(self, shares: Iterable[Future[Checked]]) -> int:
        done = sum(share.done() for share in shares)
        return min(self.base.size + done * SHARE, self.size)

    def _tell(self, checked: int) -> None:
        if self.progress:
            self.progress(checked, self.size)

    def _rows(self, beat: Callable[[], None]) -> Iterator[Difference]:
        yield from replay.differences(self.size, since=self.base.size, beat=beat, outcome=self.replayed)

    def _take(self, checked: Checked) -> Iterator[Difference]:
        """Fold a range of entries into the tree, and hold the nodes that it completes against the stored ones."""
        yield from checked.differences
        nodes: dict[Node, bytes] = {}
        for place, leaf in enumerate(merkle.split(checked.leaves)):
            self.peaks, completed = merkle.append(self.peaks, checked.start + place, leaf)
            nodes |= {(level, index): digest for level, index, digest in completed}
            if checked.start + place + 1 in self.roots:
                self.roots[checked.start + place + 1] = merkle.root(self.peaks)
        yield from _nodes(checked.start, checked.stop, nodes)
        self.recount += checked.counts
        self.links += checked.links
        self.last = checked
        self.epochs += checked.epochs
        if checked.newest:
            self.newest = max(self.newest or checked.newest, checked.newest)

    # --- the log as a whole -------------------------------------------------------------------------------------

    def _whole(self, head: LedgerHead) -> Iterator[Difference]:
        if not self.size:
            yield Difference("genesis", "entry 0", "an empty log")
        # The peaks were folded from the entries, and every stored node was held against that folding.
        yield from _differing(("head, peaks", b"".join(self.peaks).hex(), bytes(head.peaks).hex()))
        if self.last:
            yield from _differing(
                ("head, origin", self.last.origin, head.origin), ("head, epoch", self.last.epoch, head.epoch)
            )
        if self.base.size:
            newest = max(self.newest or head.newest_at, head.newest_at) if head.newest_at else self.newest
            yield from _differing(("head, newest_at", newest, head.newest_at))
        else:
            yield from _differing(("head, newest_at", self.newest, head.newest_at))
            for key in sorted(self.recount.keys() | self.counters.keys()):
                counter = f"counter of {' '.join(key).strip()}"
                yield from _differing((counter, self.recount.get(key), self.counters.get(key)))
            for index, record_id in erasures.still_there():
                yield Difference("body", "erased, as an erasure says", "bytes", index, record_id)
            yield from self._strays()
        for capsule_id, index in capsules.outlived(since=self.base.size):
            yield Difference(f"capsule {capsule_id}, content", "erased, as an erasure says", "bytes", index)
        yield from self._signed()
        yield from self._anchored()

    def _signed(self) -> Iterator[Difference]:
        """Every signed head was signed by a key of this log, says what its columns say, and is of this tree."""
        known = log_keys.verifiers()
        for row in Checkpoint.objects.filter(size__gt=self.base.size).order_by("pk").iterator(chunk_size=500):
            what = f"signed head {row.origin} at {row.size}"
            try:
                said = notes.parse_checkpoint(notes.opened(row.note, known).text)
            except InvalidInput as error:
                yield Difference(f"{what}, note", "signed by a key of this log", short(error.detail))
                continue
            root = bytes(row.root)
            yield from _differing(
                (
                    f"{what}, note",
                    (said.origin, said.size, said.root.hex()),
                    (row.origin, row.size, root.hex()),
                ),
                (f"{what}, peaks", root.hex(), merkle.root(merkle.split(row.peaks)).hex()),
            )
            if row.size > self.size:
                yield from self._beyond(what, row.size)
                continue
            origin, epoch = self._epoch_of(row.size - 1)
            yield from _differing(
                (f"{what}, root", self._root_at(row.size), root.hex()),
                (f"{what}, origin", origin, row.origin),
                (f"{what}, epoch", epoch, row.epoch),
            )

    def _anchored(self) -> Iterator[Difference]:
        """What others keep is a head of this tree."""
        anchors = Anchor.objects.filter(size__gt=self.base.size, size__lte=self.size).order_by("pk")
        for anchor_id, size, root in anchors.values_list("anchor_id", "size", "root"):
            yield from _differing(
                (f"anchor {anchor_id}, root at {size}", self._root_at(size), bytes(root).hex())
            )

    def _root_at(self, size: int) -> str:
        """Root of the first ``size`` entries, in hex, as it was passed.

        A head that was signed meanwhile was not known then: its root follows from the nodes, which were all compared.
        """
        try:
            return (self.roots.get(size) or proofs.root_of_nodes(size)).hex()
        except DomainError:  # A node is not there; that was named where it is missing.
            return ""

    def _beyond(self, what: str, size: int) -> Iterator[Difference]:
        """A head that is larger than what was looked at was signed meanwhile, or the log was cut off since."""
        stored = LedgerHead.objects.values_list("size", flat=True).first() or 0
        if size > stored:
            yield Difference(f"{what}, log", f"{size} entries at least", f"{stored}")

    def _epoch_of(self, index: int) -> tuple[str, int]:
        """Origin and epoch of the log at an entry that was looked at."""
        return next(
            ((origin, epoch) for first, origin, epoch in reversed(self.epochs) if first <= index), ("", 0)
        )

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
                : entries.STRETCH
            ]
            links = list(rows.values_list("case_id", "n", "index"))
            if not links:
                return
            sealed = SealEntry.objects.filter(index__in={index for _, _, index in links})
            named = {
                (entry.index, case, n) for entry in sealed for case, n, _ in chain_places(parsed(entry.entry))
            }
            for case, n, index in links:
                if (index, case, n) not in named:
                    yield Difference("case link", "none", f"{case} #{n}", index)
            before = links[-1][:2]


def _differing(*pairs: tuple[str, Any, Any]) -> Iterator[Difference]:
    """A difference for each ``(what, expected, found)`` that is one."""
    for what, expected, found in pairs:
        if expected != found:
            yield Difference(what, short(expected), short(found))


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
