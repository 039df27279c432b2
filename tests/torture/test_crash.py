"""A worker that is killed with ``kill -9`` at every step of a send: nothing leaves twice, nothing gets lost or stuck.

Each round is a worker of its own that dies at the step, and a second one that comes after the leases ran out.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from signal import SIGKILL

import pytest

from evidence.enums import CaseState, Outcome
from evidence.models import Attempt, Case
from recovery.domain import turns
from recovery.enums import Act, ExecutionState, RunState
from recovery.execution import runs
from recovery.execution.selection import RunRequest
from recovery.models import ApprovalEntry, Execution, WorkerRun
from tests.builders import World
from tests.processes import wait_until
from tests.torture.acts import POINTS, WRITTEN_S
from tests.torture.checks import Counted, assert_nothing_is_stuck
from tests.torture.conftest import Size
from tests.torture.nursery import Ended, Nursery
from tests.torture.report import Tally

pytestmark = [pytest.mark.race, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

LEASE_S = 1.0


@dataclass(frozen=True)
class Left:
    """What a kill at one step leaves behind once the second worker has passed."""

    state: CaseState
    requests: int
    by_the_second: bool = False


# The claim is the line: before it the second worker sends, after it nobody does (P2, P3).
STEPS = {
    "before the claim": Left(CaseState.DELIVERED, 1, by_the_second=True),
    "after the claim": Left(CaseState.UNKNOWN, 0),
    "socket open": Left(CaseState.UNKNOWN, 0),
    "bytes sent": Left(CaseState.UNKNOWN, 1),
    "answer received": Left(CaseState.UNKNOWN, 1),
    "before the outcome commit": Left(CaseState.UNKNOWN, 1),
    "after the outcome commit": Left(CaseState.DELIVERED, 1),
}


def queued(world: World, *entries: ApprovalEntry) -> WorkerRun:
    """A run about these approvals, left to the worker."""
    request = RunRequest(dry_run=False, background=True, cases=tuple(entry.case.case_id for entry in entries))
    return runs.start_and_execute(request, by=world.operator, clock=world.clock).run


def killed(nursery: Nursery, step: str) -> Ended:
    """A worker that died at ``step``, and the second one that came after its leases."""
    first = nursery.alone("work", dies=step, lease_s=LEASE_S)
    assert first.signal == SIGKILL, f"the worker never came to {step}: {first}"
    second = nursery.alone("work", lease_s=LEASE_S, later_s=LEASE_S + 1)
    assert second.returned is None
    return first


def assert_read_is_recorded(ended: Ended, recorded: int) -> None:
    """Answers that were handed over long before the worker died are recorded."""
    (died,) = ended.moment("killed")
    due = [at for at in ended.moment("handed over") if died - at >= WRITTEN_S]
    assert recorded >= len(due), f"{len(due)} answers were read in time, {recorded} are recorded"


def test_every_point_of_the_matrix_is_a_step_here() -> None:
    assert {*STEPS, "between two answers"} == set(POINTS)


@pytest.mark.parametrize("step", STEPS)
def test_a_worker_killed_at_a_step_sends_nothing_twice_and_leaves_nothing_stuck(
    worlds: Callable[..., World], nursery: Nursery, size: Size, tally: Tally, step: str
) -> None:
    world, left = worlds("webhook"), STEPS[step]
    for _ in range(size.rounds):
        world.failed()
    entries = world.approved()
    world.receiver.behave("/webhook", delay_s=0.5 if step == "bytes sent" else 0.0)
    counted = Counted(world.receiver, entries)
    for entry in entries:
        run = queued(world, entry)
        ended = killed(nursery, step)
        run.refresh_from_db()
        assert run.state == RunState.FINISHED
        case = Case.objects.get(pk=entry.case_id)
        execution = Execution.objects.get(entry=entry)
        assert (case.state, execution.state) == (left.state, left.state)
        standing = turns.standing(case)
        assert standing.act == (Act.ATTEST if left.state is CaseState.UNKNOWN else None)
        assert bool(case.settled_at) == (left.state is CaseState.DELIVERED)
        assert_read_is_recorded(ended, int(execution.state == ExecutionState.DELIVERED))
        wait_until(lambda entry=entry: counted.requests()[entry.pk] >= left.requests)  # type: ignore[misc]
    # Whatever a later worker or another run of the operator finds, it sends none of these again.
    world.ran()
    nursery.alone("work", lease_s=LEASE_S, later_s=2 * LEASE_S)
    assert_nothing_is_stuck()
    requests, ended_as = counted.requests(), Counter(Case.objects.values_list("state", flat=True))
    tally.row(
        "Crash matrix",
        killed=step,
        rounds=len(entries),
        delivered=ended_as[CaseState.DELIVERED],
        unknown=ended_as[CaseState.UNKNOWN],
        stuck=len(entries) - ended_as[CaseState.DELIVERED] - ended_as[CaseState.UNKNOWN],
        no_request=sum(count == 0 for count in requests.values()),
        one_request=sum(count == 1 for count in requests.values()),
        more=sum(count > 1 for count in requests.values()),
    )
    assert requests == Counter({entry.pk: left.requests for entry in entries})
    assert ended_as == {left.state: len(entries)}


def test_an_answer_that_was_read_before_the_kill_is_recorded_while_the_others_are_unknown(
    worlds: Callable[..., World], nursery: Nursery, size: Size, tally: Tally
) -> None:
    world = worlds("webhook", "backup")
    for _ in range(size.answer_rounds):
        world.failed()
    entries = world.approved()
    world.receiver.behave("/backup", delay_s=10.0)
    counted = Counted(world.receiver, entries)
    waits, ended_as = [], Counter[str]()
    for quick, slow in zip(of(entries, "webhook"), of(entries, "backup"), strict=True):
        queued(world, quick, slow)
        ended = killed(nursery, "between two answers")
        ended_as[Execution.objects.get(entry=quick).state] += 1
        assert Execution.objects.get(entry=slow).state == ExecutionState.UNKNOWN
        assert Attempt.objects.get(case=slow.case, number=2).outcome == Outcome.UNKNOWN
        (read,) = ended.moment("handed over")
        waits += [written - read for written in ended.moment("written")]
    waits.sort()
    tally.row(
        "Crash matrix: answers read a batch before the kill",
        rounds=ended_as.total(),
        recorded=ended_as[ExecutionState.DELIVERED],
        lost=ended_as.total() - ended_as[ExecutionState.DELIVERED],
        median_ms_until_recorded=round(waits[len(waits) // 2] * 1000),
        longest_ms_until_recorded=round(waits[-1] * 1000),
    )
    assert ended_as == {ExecutionState.DELIVERED: size.answer_rounds}
    assert set(counted.requests().values()) == {1}


def of(entries: list[ApprovalEntry], key: str) -> list[ApprovalEntry]:
    """Entries of one connector, oldest first."""
    return [entry for entry in entries if entry.connector.key == key]
