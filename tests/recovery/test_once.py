"""One approval, one claim, at most one request; and what nobody heard of again is never sent again (P1 to P3)."""

import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from django.db import connection, transaction

from evidence.connectors import sender
from evidence.domain import configuration, deliveries, packages, records, sending
from evidence.domain.deliveries import DeliveryRequest
from evidence.domain.packages import PackageFilters
from evidence.enums import CaseState, Outcome
from evidence.errors import Conflict, StaleState
from evidence.models import Attempt, Case, Connector, Record
from recovery.domain import retry_plans
from recovery.enums import EntryState, ExecutionState
from recovery.execution import claims, outcomes, runs
from recovery.execution.claims import Claimed
from recovery.execution.selection import RunRequest
from recovery.models import ApprovalEntry, Execution, RetryDecision, WorkerRun
from tests.builders import IMMEDIATE, Clock, World
from tests.processes import environment, together, wait_until
from tests.recovery.checks import CHAIN, appended

ROOT = Path(__file__).resolve().parent.parent.parent


def claimed(world: World, entry: ApprovalEntry) -> Claimed:
    """The entry's claim, committed, by a process that does nothing more."""
    run = runs.start(RunRequest(dry_run=False), by=world.operator, clock=world.clock).run
    taken = claims.claim(entry.pk, run, clock=world.clock)
    assert isinstance(taken, Claimed)
    return taken


# --- at once ------------------------------------------------------------------------------------------------------


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_w12_twenty_runs_at_once_send_one_request(committed: World) -> None:
    world = committed
    world.failed()
    (entry,) = world.approved()
    world.receiver.behave("/webhook", delay_s=0.2)
    before = len(world.receiver.log)
    results = together(*[world.ran] * 20)
    assert [one for one in results if isinstance(one, Exception)] == []
    assert len(world.receiver.log) == before + 1
    recorded = [done for one in results for done in one.outcome.recorded]  # type: ignore[attr-defined]
    assert len(recorded) == 1
    assert [one for run in results for one in run.outcome.left] == []  # type: ignore[attr-defined]
    assert Execution.objects.get().entry == entry
    assert Attempt.objects.filter(number=2).count() == 1
    assert WorkerRun.objects.filter(state="finished").count() == 20
    assert Record.objects.filter(kind=CHAIN + "retry-execution-claim").count() == 1
    assert Record.objects.filter(kind=CHAIN + "retry-execution-record").count() == 1


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_runs_at_once_share_many_cases_and_send_each_once(committed_two: World) -> None:
    world = committed_two
    for _ in range(4):
        world.failed()
    assert len(world.approved()) == 8
    before = len(world.receiver.log)
    results = together(*[world.ran] * 5)
    assert [one for one in results if isinstance(one, Exception)] == []
    sent = world.receiver.log[before:]
    assert len(sent) == 8
    assert len({one.headers["idempotency-key"] for one in sent}) == 8
    assert Execution.objects.filter(state=ExecutionState.DELIVERED).count() == 8
    assert Case.objects.filter(state=CaseState.DELIVERED).count() == 8
    # Everybody accounts for what is theirs: each outcome is in exactly one run's answer.
    recorded = [done.execution.pk for run in results for done in run.outcome.recorded]  # type: ignore[attr-defined]
    assert sorted(recorded) == sorted(Execution.objects.values_list("pk", flat=True))
    assert {one.outcome.left == [] for one in results} == {True}  # type: ignore[attr-defined]


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_w12_the_same_content_posted_at_once_is_one_case(committed: World) -> None:
    world = committed
    world.announced()
    world.acknowledged()
    packages.freeze(PackageFilters(), by=world.analyst, clock=world.clock)
    world.receiver.behave("/webhook", status=503, delay_s=0.2)
    before = len(world.receiver.log)
    request = DeliveryRequest(filters=PackageFilters(), retries=0)
    results = together(*[lambda: deliveries.deliver_audit(request, by=world.analyst, clock=world.clock)] * 8)
    refused = [one for one in results if isinstance(one, Conflict)]
    assert ([one.code for one in refused], len(results)) == (["delivery_unsettled"] * 7, 8)
    assert len(world.receiver.log) == before + 1
    assert Case.objects.get().state == CaseState.FAILED


@pytest.mark.race
@pytest.mark.only("postgresql")
@pytest.mark.django_db(transaction=True)
def test_a_case_that_is_locked_for_a_moment_is_claimed_all_the_same(committed: World) -> None:
    """A vote or an acknowledgement at the same moment must not make a run leave an approval out."""
    world = committed
    (case,) = world.failed()
    world.approved()
    locked = threading.Event()

    def hold() -> None:
        with transaction.atomic():
            Case.objects.select_for_update(no_key=True).get(pk=case.pk)
            locked.set()
            time.sleep(0.5)
        connection.close()

    holder = threading.Thread(target=hold)
    holder.start()
    locked.wait()
    (done,) = world.ran().outcome.recorded
    holder.join()
    assert done.execution.state == ExecutionState.DELIVERED or Case.objects.get().state == CaseState.DELIVERED


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_p3_an_answer_at_the_very_end_of_its_lease_is_never_lost(committed: World) -> None:
    """Giving up and recording at once: either way the case ends as delivered, with one attempt 2."""
    world = committed
    for _ in range(4):
        world.failed()
        (entry,) = world.approved()
        taken = claimed(world, entry)
        (receipt,) = sender.shared().send_all([taken.spec], deadline_s=5)
        later = taken.execution.lease_until + timedelta(seconds=1)
        results = together(
            partial(outcomes.expire_leases, clock=Clock(later)),
            partial(outcomes.record, [(taken.execution.pk, receipt)], clock=Clock(later)),
        )
        assert [one for one in results if isinstance(one, Exception)] == []
        execution = Execution.objects.get(pk=taken.execution.pk)
        assert (execution.state, execution.case.state) == (ExecutionState.DELIVERED, CaseState.DELIVERED)
        attempt = Attempt.objects.get(case=execution.case, number=2)
        late = Record.objects.filter(kind=CHAIN + "retry-execution-reconciliation")
        named = [records.payload_of(record)["execution_id"] for record in late]
        assert (attempt.outcome == Outcome.UNKNOWN) == (execution.execution_id in named)


# --- given up -----------------------------------------------------------------------------------------------------


def test_p3_a_claim_without_an_answer_ends_as_unknown_and_is_never_sent_again(
    timed: World, clock: Clock
) -> None:
    (case,) = timed.failed()
    (entry,) = timed.approved()
    taken = claimed(timed, entry)
    before = len(timed.receiver.log)
    # The lease still runs: nobody gives it up, nobody takes it over.
    clock.at = taken.execution.lease_until
    assert outcomes.expire_leases(clock=clock) == 0
    assert timed.ran().entries == []
    clock.forward(microseconds=1)
    with appended() as kinds:
        assert outcomes.expire_leases(clock=clock) == 1
    assert kinds == ["release-connector-delivery", "retry-execution-record"]
    assert outcomes.expire_leases(clock=clock) == 0
    case.refresh_from_db()
    execution = Execution.objects.get()
    assert (case.state, execution.state) == (CaseState.UNKNOWN, ExecutionState.UNKNOWN)
    attempt = Attempt.objects.get(number=2)
    assert (attempt.outcome, attempt.may_have_arrived, attempt.answer) == (Outcome.UNKNOWN, True, "no_answer")
    assert attempt.body_sha256 == records.digest(bytes(entry.body))
    said = records.payload_of(Record.objects.get(record_id=execution.execution_id))
    assert said is not None
    assert (said["execution_status"], said["may_have_arrived"]) == ("outcome_unknown", True)
    assert case.counted_attempts == 2
    # No plan, no request, no run, no new delivery sends it again.
    timed.policy(max_retry_attempts=9)
    plan = retry_plans.plan(IMMEDIATE, by=timed.analyst, clock=clock).view
    assert [
        one["action"] for one in plan["acknowledgement_audit_delivery_retry_plan"]["retry_decisions"]
    ] == ["suppress"]
    assert timed.requested() == []
    assert timed.ran(policy=IMMEDIATE).entries == []
    with pytest.raises(Conflict) as refused:
        deliveries.deliver_audit(DeliveryRequest(filters=PackageFilters()), by=timed.analyst, clock=clock)
    assert refused.value.code == "delivery_unsettled"
    clock.forward(days=30)
    assert (outcomes.expire_leases(clock=clock), deliveries.expire_leases(clock=clock)) == (0, 0)
    assert len(timed.receiver.log) == before


@pytest.mark.parametrize(
    ("status", "state"), ((200, CaseState.DELIVERED), (503, CaseState.FAILED)), ids=("delivered", "failed")
)
def test_p3_a_late_answer_is_kept_and_settles_the_case(
    timed: World, clock: Clock, status: int, state: CaseState
) -> None:
    (case,) = timed.failed()
    (entry,) = timed.approved()
    taken = claimed(timed, entry)
    clock.at = taken.execution.lease_until + timedelta(seconds=1)
    outcomes.expire_leases(clock=clock)
    unknown = Attempt.objects.get(number=2)
    # The process had not died after all: it was slow, and now the answer comes.
    timed.receiver.behave("/webhook", status=status)
    (receipt,) = sender.shared().send_all([taken.spec], deadline_s=5)
    with appended() as kinds:
        assert outcomes.record([(taken.execution.pk, receipt)], clock=clock) == []
    assert kinds == ["retry-execution-reconciliation"]
    case.refresh_from_db()
    assert (case.state, case.settled_at is not None) == (state, state is CaseState.DELIVERED)
    assert Execution.objects.get().state == state.value
    said = records.payload_of(Record.objects.get(kind=CHAIN + "retry-execution-reconciliation"))
    assert said is not None
    assert (said["outcome"], said["status_code"], said["source"]) == (state.value, status, "late_answer")
    assert said["execution_hash"] == Execution.objects.get().execution_hash
    # What was recorded stays as it was.
    unknown_now = Attempt.objects.get(number=2)
    assert (unknown_now.outcome, unknown_now.record_hash) == (Outcome.UNKNOWN, unknown.record_hash)
    assert case.counted_attempts == 2
    # A case that is known to have failed may be asked for again, as attempt 3.
    if state is CaseState.FAILED:
        timed.receiver.behave("/webhook", status=200)
        (again,) = timed.approved()
        assert again.attempt_no == 3
        assert len(timed.ran().outcome.recorded) == 1


def test_p3_a_receipt_with_another_lease_token_changes_nothing(timed: World, clock: Clock) -> None:
    timed.failed()
    (entry,) = timed.approved()
    taken = claimed(timed, entry)
    (receipt,) = sender.shared().send_all([taken.spec], deadline_s=5)
    with appended() as kinds, pytest.raises(StaleState):
        outcomes.record([(taken.execution.pk, replace(receipt, token="0" * 32))], clock=clock)
    assert kinds == []
    assert Execution.objects.get().state == ExecutionState.CLAIMED
    assert len(outcomes.record([(taken.execution.pk, receipt)], clock=clock)) == 1


def test_p3_a_first_attempt_without_an_answer_ends_as_unknown(timed: World, clock: Clock) -> None:
    timed.announced()
    timed.acknowledged()
    package = packages.freeze(PackageFilters(), by=timed.analyst, clock=clock).package
    request = DeliveryRequest(filters=PackageFilters(), timeout_s=5.0)
    opened = deliveries.open_plan(
        package, list(Connector.objects.all()), request, by=timed.analyst, clock=clock
    )
    (case,) = opened.cases
    before = len(timed.receiver.log)
    clock.at = case.lease_until
    assert deliveries.expire_leases(clock=clock) == 0
    clock.forward(microseconds=1)
    with appended() as kinds:
        assert deliveries.expire_leases(clock=clock) == 1
    assert kinds == ["release-connector-delivery"]
    attempt = Attempt.objects.get()
    assert (attempt.number, attempt.outcome, attempt.may_have_arrived) == (1, Outcome.UNKNOWN, True)
    assert Case.objects.get().state == CaseState.UNKNOWN
    with pytest.raises(Conflict) as refused:
        deliveries.deliver_audit(request, by=timed.analyst, clock=clock)
    assert (refused.value.code, refused.value.extra["case"]) == ("delivery_unsettled", case.case_id)
    assert timed.requested() == []
    assert not RetryDecision.objects.exists()
    assert len(timed.receiver.log) == before


def test_p3_a_late_first_answer_settles_the_case(timed: World, clock: Clock) -> None:
    timed.announced()
    timed.acknowledged()
    package = packages.freeze(PackageFilters(), by=timed.analyst, clock=clock).package
    opened = deliveries.open_plan(
        package,
        list(Connector.objects.all()),
        DeliveryRequest(filters=PackageFilters()),
        by=timed.analyst,
        clock=clock,
    )
    clock.at = opened.cases[0].lease_until + timedelta(seconds=1)
    deliveries.expire_leases(clock=clock)
    receipts = sending.send_cases(opened.cases, retries=0, timeout_s=5)
    with appended() as kinds:
        deliveries.record_first_attempts(opened.cases, receipts, by=timed.analyst, clock=clock)
    assert kinds[-1] == "reconciliation"
    case = Case.objects.get()
    assert (case.state, case.attempt_count, case.counted_attempts) == (CaseState.DELIVERED, 1, 1)
    assert Attempt.objects.get().outcome == Outcome.UNKNOWN
    said = records.payload_of(Record.objects.get(kind=CHAIN + "reconciliation"))
    assert said is not None
    assert (said["outcome"], said["attempt_id"]) == ("delivered", Attempt.objects.get().attempt_id)
    # No document names an attempt that does not exist.
    for record in Record.objects.filter(kind="release-connector-delivery"):
        payload = records.payload_of(record)
        assert payload is not None
        known = Attempt.objects.filter(attempt_id__in=payload["attempt_ids"])
        assert known.count() == len(payload["attempt_ids"])


# --- a real kill --------------------------------------------------------------------------------------------------


def worker() -> subprocess.Popen[bytes]:
    """``manage.py worker --once`` on this test's database."""
    return subprocess.Popen(
        [sys.executable, "manage.py", "worker", "--once"],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.mark.race
@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_p3_a_worker_killed_while_sending_leaves_one_unknown_outcome_and_no_second_request(
    committed_two: World,
) -> None:
    world = committed_two
    # One entry is under way when the worker dies; the other waits behind it for the same slot.
    row = Connector.objects.get(key="webhook")
    row.max_concurrency = 1
    configuration.save(row, by=None, clock=world.clock)
    first, second = world.failed("webhook")[0], world.failed("webhook")[0]
    world.approved()
    world.receiver.behave("/webhook", delay_s=30.0)
    before = len(world.receiver.log)
    run = world.ran(background=True).run
    process = worker()
    try:
        wait_until(lambda: len(world.receiver.log) > before)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    world.receiver.behave("/webhook", status=200)
    execution = Execution.objects.get()
    assert (execution.state, execution.case) == (ExecutionState.CLAIMED, first)
    run.refresh_from_db()
    assert run.state == "running"
    # Two minutes later, without a record of then: the next worker's clock would be behind it.
    ran_out = world.clock() - timedelta(seconds=1)
    Execution.objects.update(lease_until=ran_out)
    WorkerRun.objects.update(lease_until=ran_out)
    assert outcomes.expire_leases(clock=world.clock) == 1
    assert runs.expire_leases(clock=world.clock) == 1
    # Another worker goes on with what was not claimed, and sends nothing for what was.
    assert worker().wait(timeout=120) == 0
    sent = world.receiver.log[before:]
    assert len(sent) == 2
    states = dict(Case.objects.values_list("pk", "state"))
    assert states == {first.pk: CaseState.UNKNOWN, second.pk: CaseState.DELIVERED}
    attempt = Attempt.objects.get(case=first, number=2)
    assert (attempt.outcome, attempt.may_have_arrived) == (Outcome.UNKNOWN, True)
    assert records.digest(sent[0].body) == attempt.body_sha256
    assert ApprovalEntry.objects.get(case=first).state == EntryState.CLAIMED
    assert worker().wait(timeout=120) == 0
    assert len(world.receiver.log) == before + 2
    # The claim's record says until when it was waited for; so does its row again.
    Execution.objects.filter(pk=execution.pk).update(lease_until=execution.lease_until)
