"""From claims to recorded outcomes: claim for free slots, hand to the sender, write what has arrived.

A connector that can answer is asked first whether an earlier try arrived (W29).

The database is used in the calling thread alone; the sender has its own thread and loop. A slow connector
holds its own slots and nobody else's.
"""

import logging
import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from django.db import IntegrityError

from evidence.connectors import sender
from evidence.connectors.specs import Receipt
from evidence.domain import attempts
from evidence.domain.clock import Clock
from evidence.errors import DomainError, StaleState
from recovery.execution import claims, outcomes
from recovery.execution.asking import Gate
from recovery.execution.canary import Ladder
from recovery.execution.claims import Claimed, Passed, Skipped
from recovery.execution.outcomes import Recorded
from recovery.models import ApprovalEntry, WorkerRun

logger = logging.getLogger(__name__)

# Outcomes are written after this long or this many, whichever comes first.
FLUSH_S = 0.05
FLUSH_COUNT = 200


@dataclass
class Pumped:
    """What a run did: skips and outcomes, and the entries that stay approved; ``late`` if time ran out on any."""

    skipped: list[Skipped] = field(default_factory=list)
    recorded: list[Recorded] = field(default_factory=list)
    left: list[ApprovalEntry] = field(default_factory=list)
    late: bool = False


def run(
    entries: Iterable[ApprovalEntry],
    worker_run: WorkerRun,
    *,
    clock: Clock,
    deadline: float,
    beat: Callable[[], None] = lambda: None,
    stopping: Callable[[], bool] = lambda: False,
    ladder: Ladder | None = None,
) -> Pumped:
    """Claim and send ``entries`` in order until ``deadline`` (``time.monotonic()``), then wait for what left.

    Nothing is claimed that could not be answered by the deadline. ``beat`` is called now and then, for a
    worker's heartbeat. With a ``ladder`` each connector goes canary first, and what is left of one that failed
    stays approved. Whatever was claimed is recorded before this returns or raises.
    """
    waiting = deque(entries)
    claimed: dict[str, Claimed] = {}
    arrived: queue.SimpleQueue[Receipt] = queue.SimpleQueue()
    result = Pumped()
    gate = Gate(worker_run, sender.shared().submit)
    try:
        while waiting or claimed:
            if stopping():
                result.left += waiting
                waiting.clear()
            gate.hear(clock=clock)
            waiting = _claim_what_fits(
                waiting,
                worker_run,
                claimed,
                arrived,
                result,
                gate,
                clock=clock,
                deadline=deadline,
                ladder=ladder,
            )
            beat()
            if batch := _drain(arrived, in_flight=len(claimed)):
                if ladder:
                    # Before it is written: an answer that comes late or twice is one all the same.
                    for receipt in batch:
                        ladder.heard(receipt.connector, delivered=receipt.delivered)
                result.recorded += _write(batch, claimed, clock=clock)
            elif waiting and not claimed:
                time.sleep(FLUSH_S)  # Slots are taken by other runs of this process, or cases are locked.
    except Exception:
        # What has left is written down all the same; else a known answer would end as unknown.
        while claimed:
            _write(_drain(arrived, in_flight=len(claimed)), claimed, clock=clock)
        raise
    return result


def _claim_what_fits(
    waiting: deque[ApprovalEntry],
    worker_run: WorkerRun,
    claimed: dict[str, Claimed],
    arrived: "queue.SimpleQueue[Receipt]",
    result: Pumped,
    gate: Gate,
    *,
    clock: Clock,
    deadline: float,
    ladder: Ladder | None,
) -> deque[ApprovalEntry]:
    """Claim and submit what finds a free slot and has time; returns what has to wait for either."""
    lane = sender.shared()
    held_back: deque[ApprovalEntry] = deque()
    for entry in waiting:
        connector = entry.connector
        timeout_s = max(worker_run.request["timeout_ms"], connector.min_timeout_ms) / 1000
        halted = ladder is not None and ladder.is_halted(connector.key)
        if halted or time.monotonic() + timeout_s > deadline:
            result.left.append(entry)
            result.late |= not halted
            continue
        in_flight = sum(one.spec.connector == connector.key for one in claimed.values())
        free = lane.free_slots(connector.key, connector.max_concurrency)
        stage = ladder.room(connector.key, in_flight) if ladder else None
        if min(free, connector.max_concurrency - in_flight, free if stage is None else stage) <= 0:
            held_back.append(entry)
            continue
        if gate.holds(entry, clock=clock):
            held_back.append(entry)
            continue
        try:
            claimed_or_not = claims.claim(entry.pk, worker_run, clock=clock)
        except (IntegrityError, DomainError):
            # One row that collides does not stop the others: nothing of it was written, its approval stands.
            logger.exception("claiming %s failed; it is left", entry.entry_id)
            result.left.append(entry)
            continue
        match claimed_or_not:
            case Claimed() as taken:
                claimed[taken.spec.token] = taken
                lane.submit(taken.spec, arrived)
            case Skipped() as skip:
                result.skipped.append(skip)
            case Passed.BUSY:
                held_back.append(entry)  # A vote takes milliseconds; a claim ends this entry's turn.
            case Passed.USED:
                pass  # Whoever used it records what came of it.
            case Passed.ENDED:
                result.left.append(entry)
    return held_back


def _write(batch: Sequence[Receipt], claimed: dict[str, Claimed], *, clock: Clock) -> list[Recorded]:
    """Record what has arrived. A locked or restarted database is tried again: these answers come once."""
    done = [(claimed.pop(receipt.token).execution.pk, receipt) for receipt in batch]
    try:
        return attempts.written(lambda: outcomes.record(done, clock=clock))
    except StaleState:
        # A commit whose answer was lost was tried again: what it wrote is there, the rest is written one by one.
        return [one for pair in done for one in _write_one(pair, clock=clock)]


def _write_one(pair: tuple[int, Receipt], *, clock: Clock) -> list[Recorded]:
    try:
        return attempts.written(lambda: outcomes.record([pair], clock=clock))
    except StaleState:
        logger.info("what came of execution %s is recorded already", pair[0])
        return []


def _drain(arrived: "queue.SimpleQueue[Receipt]", *, in_flight: int) -> list[Receipt]:
    """What arrives within a flush interval; sooner when that is everything."""
    batch: list[Receipt] = []
    until = time.monotonic() + FLUSH_S
    while len(batch) < min(in_flight, FLUSH_COUNT):
        try:
            batch.append(arrived.get(timeout=max(until - time.monotonic(), 0)))
        except queue.Empty:
            break
    return batch
