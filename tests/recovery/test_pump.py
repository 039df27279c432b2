"""Sending claimed executions: islands, time limits, and that every answer is written down (P3, P17)."""

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from django.db import OperationalError

from evidence.connectors.specs import SendSpec
from evidence.domain import attempts, configuration, sending
from evidence.enums import CaseState
from evidence.models import Attempt, Case, Connector
from recovery.enums import EntryState, ExecutionState, RunState
from recovery.execution import claims, outcomes, pump, runs
from recovery.execution.selection import RunRequest
from recovery.models import ApprovalEntry, Execution, WorkerRun
from tests.builders import World
from tests.recovery.checks import once_recorded


@pytest.mark.slow
def test_p17_a_connector_that_answers_after_five_seconds_does_not_slow_the_other(
    two: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = Connector.objects.get(key="webhook")
    row.max_concurrency = 1
    configuration.save(row, by=None, clock=two.clock)
    two.failed("backup")
    for _ in range(5):
        two.failed("webhook")
    entries = two.approved()
    assert len(entries) == 6
    # However long the others take on a busy machine, it answers later; whoever waits for it waits in vain.
    two.receiver.behave("/backup", delay_s=5.0, until=once_recorded(monkeypatch, "webhook", 5))
    started = two.ran(timeout_s=30.0)
    assert [done.receipt.delivered for done in started.outcome.recorded] == [True] * 6
    slow = Attempt.objects.get(number=2, case__connector__key="backup")
    assert (slow.completed_at - slow.started_at).total_seconds() >= 5
    # The fast ones, one after the other, were sent and written down while the slow one was still under way.
    recorded = Execution.objects.filter(case__connector__key="webhook").values_list("recorded_at", flat=True)
    assert len(recorded) == 5
    assert max(recorded) < slow.completed_at


def test_no_more_at_once_than_a_connector_takes(two: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for row in Connector.objects.all():
        row.max_concurrency = 2
        configuration.save(row, by=None, clock=two.clock)
    for _ in range(4):
        two.failed()
    assert len(two.approved()) == 8
    under_way: dict[str, int] = {}
    most: dict[str, int] = {}
    claim, record = claims.claim, outcomes.record

    def counting_claim(*args: object, **kwargs: object) -> object:
        taken = claim(*args, **kwargs)  # type: ignore[arg-type]
        key = taken.spec.connector  # type: ignore[union-attr]
        under_way[key] = under_way.get(key, 0) + 1
        most[key] = max(most.get(key, 0), under_way[key])
        return taken

    def counting_record(done: list, **kwargs: object) -> object:
        for _, receipt in done:
            under_way[receipt.connector] -= 1
        return record(done, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(pump.claims, "claim", counting_claim)
    monkeypatch.setattr(pump.outcomes, "record", counting_record)
    for key in ("webhook", "backup"):
        two.receiver.behave(f"/{key}", delay_s=0.1)
    assert len(two.ran().outcome.recorded) == 8
    assert most == {"webhook": 2, "backup": 2}


def test_what_has_no_time_left_is_not_claimed(world: World) -> None:
    world.failed()
    (entry,) = world.approved()
    before = len(world.receiver.log)
    run = runs.start(RunRequest(dry_run=False), by=world.operator, clock=world.clock).run
    # A live retry may take ten seconds; there are nine.
    outcome = pump.run([entry], run, clock=world.clock, deadline=time.monotonic() + 9)
    assert ([one.pk for one in outcome.left], outcome.recorded) == ([entry.pk], [])
    assert len(world.receiver.log) == before
    entry.refresh_from_db()
    assert entry.state == EntryState.APPROVED
    assert not Execution.objects.exists()
    assert len(pump.run([entry], run, clock=world.clock, deadline=time.monotonic() + 60).recorded) == 1


@pytest.mark.django_db(transaction=True)
def test_a_locked_database_does_not_lose_an_answer(committed: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world = committed
    world.failed()
    world.approved()
    record = outcomes.record
    failures = [OperationalError("database is locked")] * 2

    def locked_at_first(*args: object, **kwargs: object) -> object:
        if failures:
            raise failures.pop()
        return record(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(attempts, "WRITE_PAUSES_S", (0.01, 0.01, 0.01))
    monkeypatch.setattr(pump.outcomes, "record", locked_at_first)
    assert len(world.ran().outcome.recorded) == 1
    assert failures == []
    assert Execution.objects.get().state == ExecutionState.DELIVERED


def test_an_answer_is_written_down_although_the_next_claim_breaks(
    two: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    two.failed()
    assert len(two.approved()) == 2
    two.receiver.behave("/webhook", delay_s=0.3)
    two.receiver.behave("/backup", delay_s=0.3)
    claim, calls = claims.claim, []

    def second_breaks(entry_pk: int, *args: object, **kwargs: object) -> object:
        calls.append(entry_pk)
        if len(calls) == 2:
            raise RuntimeError("broken")
        return claim(entry_pk, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(pump.claims, "claim", second_breaks)
    with pytest.raises(RuntimeError):
        two.ran()
    execution = Execution.objects.get()
    assert (execution.state, execution.case.state) == (ExecutionState.DELIVERED, CaseState.DELIVERED)
    assert ApprovalEntry.objects.filter(state=EntryState.APPROVED).count() == 1


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    (
        ({"status": 200}, ("delivered", "answered", "", True)),
        ({"status": 401}, ("failed", "answered", "auth", False)),
        ({"status": 404}, ("failed", "answered", "gone", False)),
        ({"status": 429}, ("failed", "answered", "throttled", False)),
        ({"status": 400}, ("failed", "answered", "rejected", False)),
        ({"status": 503}, ("failed", "answered", "unavailable", True)),
        ({"hang_up": True}, ("failed", "no_answer", "connection_lost", True)),
        ({"delay_s": 60.0}, ("failed", "no_answer", "response_timeout", True)),
    ),
    ids=lambda value: (
        next(iter(value)) + str(next(iter(value.values()))) if isinstance(value, dict) else None
    ),
)
def test_what_came_of_a_try_is_told_apart(world: World, behaviour: dict, expected: tuple) -> None:
    row = Connector.objects.get()
    row.min_timeout_ms = 300
    configuration.save(row, by=None, clock=world.clock)
    world.failed()
    world.approved()
    world.receiver.behave("/webhook", **behaviour)
    # Time enough to connect and send everything on a busy machine; only who never answers takes all of it.
    (done,) = world.ran(timeout_s=2.0 if "delay_s" in behaviour else 30.0).outcome.recorded
    attempt = Attempt.objects.get(number=2)
    assert (attempt.outcome, attempt.answer, attempt.failure_class, attempt.may_have_arrived) == expected
    said = done.record.view["retry_execution_record"]
    assert (
        said["execution_status"],
        said["answer"],
        said["failure_class"],
        said["may_have_arrived"],
    ) == expected
    assert attempt.bytes_sent > 0
    assert Case.objects.get().counted_attempts == 2


def test_p9_what_never_left_costs_no_approval(world: World) -> None:
    world.failed()
    unreachable(world)
    (entry,) = world.approved()
    before = len(world.receiver.log)
    (done,) = world.ran().outcome.recorded
    said = done.record.view["retry_execution_record"]
    assert (said["execution_status"], said["answer"], said["failure_class"], said["attempt_id"]) == (
        "failed",
        "not_sent",
        "connect",
        "",
    )
    assert done.delivery.view[done.delivery.kind.payload_key]["attempt_ids"] == []
    case = Case.objects.get()
    assert (case.state, case.attempt_count, case.counted_attempts) == (CaseState.FAILED, 1, 1)
    assert case.lease_until is None
    assert Attempt.objects.count() == 1
    entry.refresh_from_db()
    assert (entry.state, entry.ended_at, entry.decision.state) == (EntryState.APPROVED, None, "open")
    # The same approval is used again, as often as nothing leaves, and by nothing but a person's run.
    (again,) = world.ran().outcome.recorded
    assert Execution.objects.filter(entry=entry, state=ExecutionState.NOT_SENT).count() == 2
    assert again.execution.pk != done.execution.pk
    assert len(world.receiver.log) == before


def test_p2_once_it_left_the_released_approval_is_used_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.failed()
    (entry,) = world.approved()
    with monkeypatch.context() as broken:
        broken.setattr(sending, "spec_for", nobody_there(sending.spec_for))
        assert world.ran().outcome.recorded[0].receipt.answer == "not_sent"
    (sent,) = world.ran().outcome.recorded
    assert sent.receipt.delivered
    assert world.ran().entries == []
    assert Case.objects.get().state == CaseState.DELIVERED
    assert (
        Attempt.objects.get(number=2).attempt_id == sent.record.view["retry_execution_record"]["attempt_id"]
    )
    entry.refresh_from_db()
    assert entry.state == EntryState.CLAIMED
    assert [e.state for e in Execution.objects.order_by("pk")] == ["not_sent", "delivered"]


def test_p9_a_run_that_goes_on_does_not_try_again_what_did_not_leave(world: World) -> None:
    world.failed()
    unreachable(world)
    world.approved()
    request = RunRequest(dry_run=False, background=True)
    run = runs.start(request, by=world.operator, clock=world.clock).run
    runs.take(run, clock=world.clock)
    assert len(runs.execute(run, clock=world.clock, seconds=30).recorded) == 1
    # As if its worker had died before it could say that the run was finished.
    WorkerRun.objects.filter(pk=run.pk).update(
        state=RunState.RUNNING, finished_at=None, lease_until=world.clock()
    )
    run.refresh_from_db()
    assert runs.execute(run, clock=world.clock, seconds=30).recorded == []
    assert Execution.objects.count() == 1


def unreachable(world: World) -> None:
    """Nothing listens where the connector points to."""
    row = Connector.objects.get()
    row.url = "http://127.0.0.1:1/nobody"
    configuration.save(row, by=None, clock=world.clock)


def nobody_there(spec_for: Callable[..., SendSpec]) -> Callable[..., SendSpec]:
    """The same orders to a port where nothing listens: the receiver is down for a moment."""
    return lambda *args, **kwargs: replace(spec_for(*args, **kwargs), url="http://127.0.0.1:1/nobody")
