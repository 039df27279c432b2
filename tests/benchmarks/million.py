"""Proofs and signed heads of a long log: rows that are read, and how long it takes."""

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

from django.conf import settings
from django.db import connection, models, transaction

from evidence.domain import checkpoints, ledger, log_keys, merkle, proofs
from evidence.domain.clock import system_clock
from evidence.models import LedgerHead, MerkleNode, Record, SealEntry
from tests.benchmarks import workload
from tests.evidence.rows_read import rows_read

BATCH = 2_000
SAMPLE = 200
# Heads of one more entry each, so that entries that complete few and many subtrees are among them.
HEADS = 16
# Stands for a place in what is made once and repeated; no log of ours is that long.
NUMBER = 7_777_777_777_777

Rows = list[tuple[Any, ...]]


@dataclass(frozen=True)
class Cost:
    """What one thing took: rows and queries at most, milliseconds in the middle and at most."""

    rows: int
    queries: int
    median_ms: float
    worst_ms: float


@dataclass(frozen=True)
class Long:
    """A log of ``size`` entries, the last of them ``filled`` in some seconds, and what reading it costs."""

    size: int
    filled: int
    filled_s: float
    first_head_s: float
    head: Cost
    inclusion: Cost
    consistency: Cost


def measure(size: int, scratch: Path) -> Long:
    """Lengthen the log to ``size`` entries, sign it, prove from it, and sign what comes one by one."""
    key = scratch / "ledger-key"
    log_keys.make(key)
    with mock.patch.multiple(settings, CAVRA_LEDGER_KEYS=[f"file:{key}"], CAVRA_DATA=scratch):
        log_keys.introduce(by=None, clock=system_clock)
        filled, seconds = _fill(size)
        began = time.perf_counter()
        signed = checkpoints.make(clock=system_clock)
        first = time.perf_counter() - began
        assert signed is not None
        assert signed.size == size
        root = bytes(signed.root)
        inclusion, consistency = _inclusion(size, root), _consistency(size, root)
        heads = _cost([lambda: checkpoints.make(clock=system_clock)] * HEADS, before=_one_more)
    return Long(size, filled, seconds, first, heads, inclusion, consistency)


def _one_more() -> None:
    """One record through the ledger."""
    with transaction.atomic():
        ledger.append([workload.filler(0)])


def _fill(size: int) -> tuple[int, float]:
    """Lengthen the log to ``size`` entries; how many that were, and the seconds it took.

    Rows of records, seal entries and tree nodes are written as ``ledger.append`` would, past it, for speed;
    without search keys and counters, which neither proofs nor heads read. What is signed afterwards was derived
    from all of them, so none of them can be wrong.
    """
    head = LedgerHead.objects.get()
    begun, began = head.size, time.perf_counter()
    assert begun < size, f"the log has {begun} entries already"
    peaks = merkle.split(head.peaks)
    filler = workload.filler(NUMBER)
    # One body for all of them, and one entry in which only places and ids differ.
    shape = ledger.seal_entry(
        origin=head.origin,
        epoch=head.epoch,
        index=NUMBER,
        draft=replace(filler, record_id=f"filler-{NUMBER}"),
        cases=[],
    )
    tail = (filler.kind.name, filler.created_at, filler.body, filler.digest, len(filler.body))
    for first in range(begun, size, BATCH):
        stored: list[Rows] = [[], [], []]
        for index in range(first, min(first + BATCH, size)):
            entry = shape.replace(b"%d" % NUMBER, b"%d" % index)
            leaf = merkle.leaf_hash(entry)
            peaks, completed = merkle.append(peaks, index, leaf)
            stored[0].append((index, f"filler-{index}", *tail))
            stored[1].append((index, entry, leaf))
            stored[2] += completed
        with transaction.atomic():
            for model, rows in zip((Record, SealEntry, MerkleNode), stored, strict=True):
                _write(model, rows)
            LedgerHead.objects.update(size=first + len(stored[0]), peaks=b"".join(peaks))
    return size - begun, time.perf_counter() - began


def _write(model: type[models.Model], rows: Rows) -> None:
    """Insert rows whose values stand in the order of the model's columns."""
    columns = ", ".join(f'"{field.column}"' for field in model._meta.local_concrete_fields)
    table = model._meta.db_table
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            marks = ", ".join(["%s"] * len(rows[0]))
            cursor.executemany(f'INSERT INTO "{table}" ({columns}) VALUES ({marks})', rows)
            return
        with cursor.copy(f'COPY "{table}" ({columns}) FROM STDIN') as copy:
            for row in rows:
                copy.write_row(row)


def _inclusion(size: int, root: bytes) -> Cost:
    """Proofs of entries all over the log, each of them checked."""
    places = [0, 1, size // 2, size - 1, *random.Random(6962).choices(range(size), k=SAMPLE)]

    def proven(index: int) -> None:
        proof = proofs.inclusion(index, size)
        assert merkle.verify_inclusion(leaves[index], index, size, proof, root)

    stored = SealEntry.objects.filter(index__in=places).values_list("index", "leaf_hash")
    leaves = {index: bytes(leaf) for index, leaf in stored}
    return _cost([lambda index=index: proven(index) for index in places])  # type: ignore[misc]


def _consistency(size: int, root: bytes) -> Cost:
    """Proofs from smaller logs to this one, each of them checked."""
    sizes = [1, size // 2, size - 1, *random.Random(9162).choices(range(1, size), k=SAMPLE)]
    roots = {first: proofs.root_at(first) for first in sizes}

    def proven(first: int) -> None:
        proof = proofs.consistency(first, size)
        assert merkle.verify_consistency(first, size, proof, roots[first], root)

    return _cost([lambda first=first: proven(first) for first in sizes])  # type: ignore[misc]


def _cost(acts: list[Callable[[], object]], before: Callable[[], None] = lambda: None) -> Cost:
    """What the most expensive of ``acts`` took; ``before`` each of them, uncounted."""
    rows, queries, times = 0, 0, []
    for act in acts:
        before()
        with rows_read() as read:
            began = time.perf_counter()
            act()
            times.append((time.perf_counter() - began) * 1000)
        rows, queries = max(rows, read.rows), max(queries, read.queries)
    return Cost(rows, queries, statistics.median(times), max(times))
