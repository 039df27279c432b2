"""Worker runs: dry or live, whose act they are, what they select and in which order (P8, P9, CONTRACT §6)."""

import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from evidence.domain import configuration, records
from evidence.enums import CaseState, Role
from evidence.errors import Conflict, NotAllowed, NotFound, StaleState
from evidence.models import Attempt, Case, Connector, Record
from recovery.domain import approvals, retry_policies
from recovery.enums import EntryState, ExecutionState, RunState, SkipCode
from recovery.execution import claims, outcomes, pump, runs
from recovery.execution.selection import RunRequest
from recovery.management.commands.worker import BEAT_S, Command
from recovery.models import ApprovalEntry, Execution, RetryDecision, RetryPlan, WorkerRun
from tests.builders import IMMEDIATE, Clock, World, person
from tests.recovery.checks import appended, payload

RUN = "acknowledgement_audit_delivery_worker_run"


def approve(world: World) -> None:
    """Ask for everything that failed, and approve what is not approved yet."""
    for entry in world.requested():
        if entry.state == EntryState.PENDING:
            world.vote(entry)


def dry(world: World, **request: object) -> runs.Started:
    return runs.start_and_execute(
        RunRequest(dry_run=True, **{"policy": IMMEDIATE, **request}), by=world.analyst, clock=world.clock
    )


def test_p9_a_dry_run_shows_what_is_due_and_changes_nothing(world: World) -> None:
    (case,) = world.failed()
    before = len(world.receiver.log)
    with appended() as kinds:
        started = dry(world)
    assert kinds == ["retry-plan", "worker-run"]
    said = started.record.view[RUN]
    assert (said["dry_run"], said["selected_retry_count"]) == (True, 1)
    assert [one["case"] for one in said["selected_retries"]] == [case.case_id]
    assert [one["approval_state"] for one in said["follow_up_actions"]] == ["dry_run_not_required"]
    assert said["retry_plan"]["observation"] is True
    assert said["retry_plan"]["dry_run"] is True
    assert len(world.receiver.log) == before
    assert not RetryDecision.objects.exists()
    assert not RetryPlan.objects.exists()
    assert not Execution.objects.exists()
    assert Case.objects.get().state == CaseState.FAILED
    assert WorkerRun.objects.get().state == RunState.FINISHED


def test_p9_a_dry_run_uses_no_approval(world: World) -> None:
    world.failed()
    (entry,) = world.approved()
    before = len(world.receiver.log)
    dry(world)
    entry.refresh_from_db()
    assert (entry.state, len(world.receiver.log)) == (EntryState.APPROVED, before)
    assert len(world.ran().outcome.recorded) == 1


def test_p9_a_request_is_dry_unless_it_says_otherwise() -> None:
    assert RunRequest().dry_run is True


@pytest.mark.parametrize("until", ("failed", "planned", "requested"))
def test_w01_a_live_run_without_approval_sends_nothing(world: World, until: str) -> None:
    world.failed()
    if until != "failed":
        getattr(world, until)()
    before = len(world.receiver.log)
    started = world.ran(policy=IMMEDIATE)
    assert started.entries == []
    assert len(world.receiver.log) == before
    assert not Execution.objects.exists()
    follow_ups = started.record.view[RUN]["follow_up_actions"]
    assert [one["approval_state"] for one in follow_ups] == ["approval_required"]
    assert started.record.view[RUN]["summary"]["approval_pending_count"] == 1


def test_w05_a_success_settles_and_no_later_run_sends_it_again(world: World) -> None:
    (case,) = world.failed()
    world.approved()
    assert len(world.ran().outcome.recorded) == 1
    before = len(world.receiver.log)
    for _ in range(2):
        started = world.ran(policy=IMMEDIATE)
        assert (started.entries, started.outcome.recorded) == ([], [])
        assert started.record.view[RUN]["retryable_count"] == 0
    assert len(world.receiver.log) == before
    case.refresh_from_db()
    assert (case.state, case.settled_at is not None) == (CaseState.DELIVERED, True)
    assert payload(world.planned().retry_plan_id)["decision_count"] == 0


def test_w01_a_failed_retry_has_used_its_approval(world: World) -> None:
    world.failed()
    world.approved()
    world.receiver.behave("/webhook", status=502)
    (done,) = world.ran().outcome.recorded
    assert done.execution.case.attempts.count() == 2
    before = len(world.receiver.log)
    assert world.ran().entries == []
    assert len(world.receiver.log) == before
    said = payload(Execution.objects.get().execution_id)
    assert (said["execution_status"], said["failure_class"], said["status_code"]) == (
        "failed",
        "unavailable",
        502,
    )
    assert said["may_have_arrived"] is True


def test_the_execution_record_ties_everything_together(world: World) -> None:
    (case,) = world.failed()
    (entry,) = world.approved()
    started = world.ran()
    (done,) = started.outcome.recorded
    said = done.record.view["retry_execution_record"]
    execution = Execution.objects.get()
    attempt = Attempt.objects.get(case=case, number=2)
    assert said["execution_hash"] == execution.execution_hash == done.record.digest
    assert (said["retry_plan_id"], said["approval_plan_id"]) == (
        entry.retry_plan.retry_plan_id,
        entry.plan.approval_plan_id,
    )
    assert (said["run_id"], said["entry_id"], said["manifest_digest"]) == (
        started.run.run_id,
        entry.entry_id,
        entry.manifest_digest,
    )
    # W6: the retried delivery is the same delivery.
    assert said["delivery_plan_id"] == said["delivery_id"] == case.plan.delivery_id
    assert (said["attempt_no"], said["attempt_id"]) == (2, attempt.attempt_id)
    assert (said["answer"], said["assurance"], said["execution_status"]) == (
        "answered",
        attempt.assurance,
        "delivered",
    )
    assert attempt.record_id == said["delivery_metadata_id"]
    assert payload(attempt.record_id)["worker_run_id"] == started.run.run_id
    assert attempt.body_sha256 == records.digest(bytes(entry.body))
    assert done.record.view["case"] == case.case_id


def test_entries_run_by_their_deadline(timed: World, clock: Clock) -> None:
    late = timed.failed()[0]
    approve(timed)
    timed.policy(execute_within_minutes=10)
    clock.forward(minutes=1)
    soon = timed.failed()[0]
    approve(timed)
    started = timed.ran()
    assert [entry.case for entry in started.entries] == [soon, late]
    assert [one["case"] for one in started.record.view[RUN]["selected_retries"]] == [
        soon.case_id,
        late.case_id,
    ]


def test_a_run_takes_no_more_than_it_is_asked_to(world: World) -> None:
    for _ in range(3):
        world.failed()
    world.approved()
    started = world.ran(max_retry_deliveries=2)
    assert len(started.outcome.recorded) == 2
    assert ApprovalEntry.objects.filter(state=EntryState.APPROVED).count() == 1
    # W24: what was cut off is approved, not pending.
    assert started.record.view[RUN]["summary"]["approval_pending_count"] == 0
    assert len(world.ran(max_retry_deliveries=2).outcome.recorded) == 1


def test_p17_what_cannot_be_sent_takes_nobodys_place(two: World) -> None:
    two.failed("backup")
    approve(two)
    two.failed("webhook")
    approve(two)
    row = Connector.objects.get(key="backup")
    row.enabled = False
    configuration.save(row, by=None, clock=two.clock)
    # The disabled connector's entry has the earlier deadline.
    outcome = two.ran(max_retry_deliveries=1).outcome
    assert [one.execution.case.connector.key for one in outcome.recorded] == ["webhook"]
    assert outcome.skipped == []
    (skip,) = two.ran(max_retry_deliveries=1).outcome.skipped
    assert skip.code is SkipCode.CONNECTOR_DISABLED


def test_p17_nor_does_what_ran_out_or_is_misconfigured(two: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAVRA_TEST_TOKEN", "value-of-the-test")
    row = Connector.objects.get(key="backup")
    row.token_ref = "env:CAVRA_TEST_TOKEN"
    configuration.save(row, by=None, clock=two.clock)
    two.failed("backup")
    approve(two)
    two.failed("webhook")
    approve(two)
    monkeypatch.delenv("CAVRA_TEST_TOKEN")
    (skip,) = two.ran(max_retry_deliveries=1).outcome.skipped
    assert skip.code is SkipCode.CONNECTOR_CONFIG_NOT_CONFIGURED
    assert len(two.ran(max_retry_deliveries=1).outcome.recorded) == 1


def test_what_is_named_is_run_and_nothing_else(two: World) -> None:
    cases = {case.connector.key: case for case in two.failed()}
    two.approved()
    with pytest.raises(Conflict) as refused:
        two.ran(providers=("splunk",))
    assert (refused.value.code, WorkerRun.objects.exists()) == ("connector_not_configured", False)
    (done,) = two.ran(cases=(cases["backup"].case_id,)).outcome.recorded
    assert done.execution.case == cases["backup"]
    (done,) = two.ran(providers=("webhook",)).outcome.recorded
    assert done.execution.case == cases["webhook"]


def test_an_unknown_case_id_is_refused_before_anything_is_written(world: World) -> None:
    with pytest.raises(NotFound):
        world.ran(cases=("gordackdelivery-0000000000000000.webhook",))
    assert not WorkerRun.objects.exists()


def test_w04_a_looser_policy_is_refused_before_anything_is_written(world: World) -> None:
    world.failed()
    world.approved()
    before = len(world.receiver.log)
    with pytest.raises(Conflict) as refused:
        world.ran(policy={"max_retry_attempts": 1000})
    assert refused.value.code == "policy_exceeds_limit"
    assert not WorkerRun.objects.exists()
    assert len(world.receiver.log) == before


@pytest.mark.parametrize("role", (Role.ANALYST, Role.APPROVER, Role.AUDITOR, Role.VIEWER, Role.ADMINISTRATOR))
def test_w08_a_live_run_is_an_operators_act(world: World, role: Role) -> None:
    world.failed()
    world.approved()
    before = len(world.receiver.log)
    with pytest.raises(NotAllowed) as refused:
        runs.start_and_execute(RunRequest(dry_run=False), by=person(role), clock=world.clock)
    assert refused.value.code == "role_required"
    assert not WorkerRun.objects.exists()
    assert len(world.receiver.log) == before


def test_a_live_retry_waits_at_least_as_long_as_the_connector_asks(world: World) -> None:
    world.failed()
    world.approved()
    world.receiver.behave("/webhook", delay_s=0.4)
    assert len(world.ran(timeout_s=0.1).outcome.recorded) == 1
    assert Case.objects.get().state == CaseState.DELIVERED


def test_a_run_takes_as_long_as_the_stricter_policy_says(world: World) -> None:
    limit = retry_policies.ceiling(retry_policies.configured())
    assert limit.retry_delay_minutes == 15
    world.failed()
    (entry,) = world.approved({})
    assert entry.not_before - Attempt.objects.get().completed_at == timedelta(minutes=15)


# --- left to the worker -------------------------------------------------------------------------------------------


def test_a_run_left_to_the_worker_waits_for_it(world: World) -> None:
    world.failed()
    world.approved()
    before = len(world.receiver.log)
    started = world.ran(background=True)
    assert (started.run.state, started.outcome.recorded) == (RunState.QUEUED, [])
    assert len(world.receiver.log) == before
    assert runs.execute_due(clock=world.clock) == 1
    assert len(world.receiver.log) == before + 1
    assert runs.execute_due(clock=world.clock) == 0
    run = WorkerRun.objects.get()
    assert (run.state, run.finished_at is not None) == (RunState.FINISHED, True)


def test_a_run_is_taken_once(world: World) -> None:
    world.failed()
    world.approved()
    run = world.ran(background=True).run
    runs.take(run, clock=world.clock)
    with pytest.raises(StaleState):
        runs.take(run, clock=world.clock)


def test_a_dead_workers_run_goes_on_with_what_was_not_claimed(timed: World, clock: Clock) -> None:
    first, second = timed.failed()[0], timed.failed()[0]
    timed.approved()
    run = timed.ran(background=True).run
    runs.take(run, clock=clock)
    entry = ApprovalEntry.objects.get(case=first)
    claims.claim(entry.pk, run, clock=clock)
    # It dies here. Its run is taken back, its claim is given up, the other case goes on.
    clock.forward(minutes=5)
    before = len(timed.receiver.log)
    assert runs.expire_leases(clock=clock) == 1
    assert outcomes.expire_leases(clock=clock) == 1
    assert runs.execute_due(clock=clock) == 1
    assert len(timed.receiver.log) == before + 1
    states = dict(Execution.objects.values_list("case__case_id", "state"))
    assert states == {
        first.case_id: ExecutionState.UNKNOWN,
        second.case_id: ExecutionState.DELIVERED,
    }
    assert WorkerRun.objects.get().state == RunState.FINISHED


def test_a_dead_requests_run_is_finished_and_sends_nothing_more(timed: World, clock: Clock) -> None:
    timed.failed()
    (entry,) = timed.approved()
    runs.start(RunRequest(dry_run=False), by=timed.operator, clock=clock)
    clock.forward(minutes=5)
    before = len(timed.receiver.log)
    assert runs.expire_leases(clock=clock) == 1
    assert runs.execute_due(clock=clock) == 0
    assert len(timed.receiver.log) == before
    entry.refresh_from_db()
    assert entry.state == EntryState.APPROVED
    assert len(timed.ran().outcome.recorded) == 1


class Stopwatch:
    """The time that a run's deadline is read from; ``took`` adds to it."""

    def __init__(self) -> None:
        self.added = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.added

    def sleep(self, seconds: float) -> None:
        self.added += seconds

    def took(self, seconds: float) -> None:
        self.added += seconds


@pytest.fixture
def slow_claims(monkeypatch: pytest.MonkeyPatch) -> Stopwatch:
    """Every claim takes 55 s: of a slice there is time for one."""
    watch, claim = Stopwatch(), claims.claim

    def slowly(*args: Any, **kwargs: Any) -> Any:
        watch.took(55)
        return claim(*args, **kwargs)

    monkeypatch.setattr(runs, "time", watch)
    monkeypatch.setattr(pump, "time", watch)
    monkeypatch.setattr(pump.claims, "claim", slowly)
    return watch


def worker() -> Command:
    """A worker that does its steps when it is told to."""
    command = Command()
    command.name, command.last_beat, command.stopping = "worker", -BEAT_S, threading.Event()
    return command


@pytest.mark.django_db(transaction=True)
def test_a_long_run_goes_on_in_slices_and_other_steps_come_in_between(
    committed: World, slow_claims: Stopwatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = committed
    long = [world.failed()[0] for _ in range(3)]
    (other,) = world.failed()
    world.approved()
    first = world.ran(background=True, cases=tuple(case.case_id for case in long)).run
    second = world.ran(background=True, cases=(other.case_id,)).run
    rounds: list[tuple[str, int]] = []
    monkeypatch.setattr(
        approvals, "expire", lambda **kwargs: rounds.append(("expire", Execution.objects.count())) or 0
    )
    command, came = worker(), []
    for _ in range(4):
        command.work()
        states = dict(WorkerRun.objects.values_list("run_id", "state"))
        came.append((Execution.objects.latest("pk").run_id, states[first.run_id], states[second.run_id]))
    # The other run does not wait for the end of the long one.
    assert came == [
        (first.pk, "queued", "queued"),
        (second.pk, "queued", "finished"),
        (first.pk, "queued", "finished"),
        (first.pk, "finished", "finished"),
    ]
    assert rounds == [("expire", number) for number in (1, 2, 3, 4)]
    assert set(Case.objects.values_list("state", flat=True)) == {CaseState.DELIVERED}
    assert runs.execute_due(clock=world.clock) == 0


def test_a_run_inside_a_request_has_no_second_slice(world: World, slow_claims: Stopwatch) -> None:
    world.failed()
    world.failed()
    world.approved()
    started = world.ran()
    assert (len(started.outcome.recorded), len(started.outcome.left)) == (1, 1)
    assert started.run.state == RunState.FINISHED


def test_p17_what_a_failed_canary_left_has_no_other_slice(world: World, slow_claims: Stopwatch) -> None:
    for _ in range(3):
        world.failed()
    world.approved()
    world.receiver.behave("/webhook", status=503)
    world.ran(background=True, canary=True)
    # Its answer came after the others had no time left in the slice; the next one finds them stopped.
    assert [runs.execute_due(clock=world.clock) for _ in range(3)] == [1, 1, 0]
    assert WorkerRun.objects.get().state == RunState.FINISHED
    assert Execution.objects.count() == 1
    assert ApprovalEntry.objects.filter(state=EntryState.APPROVED).count() == 2


def test_a_run_of_which_nothing_can_be_claimed_ends(
    world: World, slow_claims: Stopwatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.failed()
    world.failed()
    world.approved()
    before = len(world.receiver.log)

    def broken(*args: Any, **kwargs: Any) -> None:
        slow_claims.took(55)
        raise IntegrityError("one row collides")

    monkeypatch.setattr(pump.claims, "claim", broken)
    world.ran(background=True)
    assert runs.execute_due(clock=world.clock) == 1
    assert WorkerRun.objects.get().state == RunState.FINISHED
    assert runs.execute_due(clock=world.clock) == 0
    assert len(world.receiver.log) == before
    assert ApprovalEntry.objects.filter(state=EntryState.APPROVED).count() == 2


def test_runs_are_never_removed(world: World) -> None:
    dry(world)
    with pytest.raises(IntegrityError), transaction.atomic():
        WorkerRun.objects.all().delete()
    assert Record.objects.filter(record_id=WorkerRun.objects.get().run_id).exists()
