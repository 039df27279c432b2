"""Eight connectors of which four are in trouble: the other four send on as if they were alone (P17)."""

from collections.abc import Callable, Sequence

import pytest

from evidence.domain import configuration
from evidence.domain.clock import system_clock
from evidence.enums import CaseState
from evidence.models import Case, Connector
from recovery.enums import EntryState
from recovery.models import ApprovalEntry, Execution, WorkerRun
from tests.builders import World, connector
from tests.processes import closed_port
from tests.torture.checks import Counted
from tests.torture.conftest import Size
from tests.torture.nursery import Nursery
from tests.torture.report import Tally

pytestmark = [pytest.mark.race, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

HEALTHY = ("one", "two", "three", "four")
SLOW, SILENT, REFUSING = "slow", "silent", ("gone", "closed")
TROUBLED = (SLOW, SILENT, *REFUSING)
# What a healthy receiver takes: throughput hangs on waiting for answers, not on this machine's processor.
HEALTHY_S = 0.75
# Longer than anybody waits.
FOREVER_S = 3_600.0
KEPT = 0.8
# A machine that is busy for minutes gets as many chances; the first good one is enough.
MOST_MEASURES = 8


def eight(world: World, refusing: str) -> None:
    """The world's four connectors, which send one by one, and four that are in trouble."""
    for row in Connector.objects.all():
        row.max_concurrency, row.min_timeout_ms = 1, 100
        configuration.save(row, by=None, clock=system_clock)
    for key in TROUBLED:
        url = refusing if key in REFUSING else world.receiver.url(f"/{key}")
        connector(key, url, min_timeout_ms=100)


def approved(world: World, keys: Sequence[str], each: int) -> list[ApprovalEntry]:
    """So many approved retries for each of these connectors."""
    cases = [case.pk for _ in range(each) for case in world.failed(*keys)]
    entries = [entry for entry in world.requested() if entry.case_id in cases]
    assert len(entries) == len(keys) * each
    for entry in entries:
        world.vote(entry)
    return entries


def throughput(world: World, nursery: Nursery, size: Size, entries: Sequence[ApprovalEntry]) -> float:
    """Retries a second that the healthy connectors had recorded, in one run over ``entries``."""
    world.receiver.behave(f"/{SLOW}", delay_s=size.slow_s)
    world.receiver.behave(f"/{SILENT}", delay_s=FOREVER_S)
    for key in HEALTHY:
        world.receiver.behave(f"/{key}", delay_s=HEALTHY_S)
    ended = nursery.alone(
        "run",
        by=world.operator.pk,
        limit=len(entries),
        timeout_s=size.timeout_s,
        cases=[entry.case.case_id for entry in entries],
    )
    assert ended.returned["skipped"] == ended.returned["left"] == []
    run = WorkerRun.objects.latest("pk")
    done = Execution.objects.filter(run=run, case__connector__key__in=HEALTHY, state="delivered")
    wanted = [entry for entry in entries if entry.connector.key in HEALTHY]
    assert done.count() == len(wanted)
    last = max(done.values_list("recorded_at", flat=True))
    assert last is not None
    return len(wanted) / (last - run.requested_at).total_seconds()


def test_four_connectors_in_trouble_take_a_fifth_of_the_others_throughput_at_most(
    worlds: Callable[..., World], nursery: Nursery, size: Size, tally: Tally
) -> None:
    world = worlds(*HEALTHY)
    alone, beside = [], []
    troubled: list[ApprovalEntry] = []
    with closed_port() as port:
        eight(world, f"http://127.0.0.1:{port}/")
        # The best of each, so that a moment in which this machine was busy otherwise does not count.
        while len(beside) < MOST_MEASURES:
            alone.append(throughput(world, nursery, size, approved(world, HEALTHY, size.healthy_sends)))
            # Those in trouble are first in the queue.
            troubled += (ahead := approved(world, TROUBLED, size.troubled_sends))
            entries = [*ahead, *approved(world, HEALTHY, size.healthy_sends)]
            counted = Counted(world.receiver, entries)
            beside.append(throughput(world, nursery, size, entries))
            requests = counted.requests()
            assert {requests[entry.pk] for entry in entries if entry.connector.key not in REFUSING} == {1}
            kept = max(beside) / max(alone)
            if kept >= KEPT and len(beside) >= size.measures:
                break
    tally.row(
        "Slow and dead connectors",
        healthy=len(HEALTHY),
        answering_after_s=size.slow_s,
        silent=1,
        refusing=len(REFUSING),
        measured=len(beside),
        alone_per_s=max(alone),
        beside_them_per_s=max(beside),
        kept=f"{kept:.0%}",
    )
    assert kept >= KEPT
    # What the others were sent came to what it had to come to.
    cases = {entry.case_id: entry.connector.key for entry in troubled}
    found = {pk: set() for pk in TROUBLED}
    for pk, state in Case.objects.filter(pk__in=cases).values_list("pk", "state"):
        found[cases[pk]].add(state)
    in_time = CaseState.DELIVERED if size.slow_s < size.timeout_s else CaseState.FAILED
    assert found == {SLOW: {in_time}, **{key: {CaseState.FAILED} for key in (SILENT, *REFUSING)}}
    # A refused connection used no approval up.
    refused = ApprovalEntry.objects.filter(pk__in=[e.pk for e in troubled if e.connector.key in REFUSING])
    assert set(refused.values_list("state", flat=True)) == {EntryState.APPROVED}
