"""Ways around the promises that somebody tried: each test states the promise and fails where it is broken."""

import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from django.db import OperationalError

from evidence.domain import configuration, deliveries, drills, ledger, packages, people
from evidence.domain.clock import system_clock
from evidence.domain.deliveries import DeliveryRequest
from evidence.domain.packages import PackageFilters
from evidence.enums import CaseState, Role
from evidence.errors import Conflict, DomainError, NotAllowed
from evidence.models import Case, Connector, Person, Record, Schedule
from recovery.domain import approval_plans, approvals, closures, retry_plans
from recovery.domain.approvals import Ballot
from recovery.domain.closures import ClosureRequest
from recovery.enums import ApprovalState, ClosureState
from recovery.execution import claims, outcomes, runs
from recovery.execution.selection import RunRequest
from recovery.models import RetryPlan
from tests.builders import IMMEDIATE, person


# P23/500: an old recovery reopened while the next one is unfinished
def test_reopening_an_old_recovery_beside_an_open_one_is_refused_not_a_fault(world):
    world.failed()
    world.approved()
    done = world.ran().outcome.recorded[0]
    first = world.playbook()
    world.closed(first, "webhook", (done.record.record_id,))
    world.failed()
    world.playbook()  # epoch 2 is open now
    with pytest.raises(DomainError):
        closures.close(
            first,
            ClosureRequest(provider="webhook", state=ClosureState.REOPENED, reason="again"),
            by=world.second_analyst,
            clock=world.clock,
        )


# P10/lost outcome: locked database while the first attempt's outcome is written
@pytest.mark.django_db(transaction=True)
def test_a_locked_database_does_not_lose_a_first_answer(committed, monkeypatch):
    world = committed
    world.announced()
    world.acknowledged()
    real = ledger.append
    calls = []

    def flaky(drafts):
        if any(d.kind.name == "release-connector-delivery" for d in drafts) and not calls:
            calls.append(1)
            raise OperationalError("database is locked")
        return real(drafts)

    monkeypatch.setattr(ledger, "append", flaky)
    with contextlib.suppress(OperationalError):
        deliveries.deliver_audit(
            DeliveryRequest(filters=PackageFilters(), retries=0), by=world.analyst, clock=world.clock
        )
    assert Case.objects.get().state == CaseState.DELIVERED


@pytest.mark.django_db(transaction=True)
def test_a_locked_database_does_not_lose_what_came_of_a_notice(committed, monkeypatch):
    world = committed
    real = ledger.append
    calls = []

    def flaky(drafts):
        if any(d.kind.name == "release-connector-delivery" for d in drafts) and not calls:
            calls.append(1)
            raise OperationalError("database is locked")
        return real(drafts)

    monkeypatch.setattr(ledger, "append", flaky)
    with contextlib.suppress(OperationalError):
        world.announced()
    assert len(world.receiver.log) == 1
    assert Record.objects.filter(kind="release-connector-delivery").count() == 1


# P4: owner handover
def test_p4_handing_a_service_account_over_does_not_free_its_former_owner(world):
    alice = world.approver
    bot = person(Role.ANALYST, owner=alice)
    world.failed()
    draft = retry_plans.plan(IMMEDIATE, by=bot, clock=world.clock)  # alice planned, by her account
    plan = RetryPlan.objects.get(retry_plan_id=draft.record_id)
    world.reviewed(plan)
    people.update(bot, by=world.administrator, clock=world.clock, owner=world.auditor)
    asked = approval_plans.request(by=world.analyst, clock=world.clock)
    (entry,) = approvals.entries().filter(listed_in__plan__approval_plan_id=asked.record_id)
    with pytest.raises(NotAllowed):
        approvals.decide(entry, Ballot(state=ApprovalState.APPROVED), by=alice, clock=world.clock)


def test_p23_handing_over_does_not_let_the_former_owner_confirm(world):
    carol = world.second_analyst
    bot = person(Role.OPERATOR, owner=carol)
    world.failed()
    world.approved()
    done = runs.start_and_execute(RunRequest(dry_run=False), by=bot, clock=world.clock).outcome.recorded[0]
    book = world.playbook()
    people.update(bot, by=world.administrator, clock=world.clock, owner=world.auditor)
    with pytest.raises(NotAllowed):
        world.closed(book, "webhook", (done.record.record_id,), by=carol)


# P4: role after the request while the clock is behind the log
def test_p4_a_role_granted_after_the_request_does_not_count_although_the_clock_was_set_back(timed, clock):
    world = timed
    world.failed()
    (entry,) = world.requested()
    clock.forward(hours=-1)  # NTP step back: every verb now acts at the newest entry's time
    late = person()
    people.grant_role(late, Role.APPROVER, by=None, clock=clock)
    late = Person.objects.get(pk=late.pk)
    with pytest.raises(NotAllowed):
        approvals.decide(entry, Ballot(state=ApprovalState.APPROVED), by=late, clock=clock)


# P4: plan again / ask again after the request, then vote
def test_p4_who_plans_again_after_the_request_does_not_vote(world):
    both = person(Role.ANALYST, Role.APPROVER)
    world.failed()
    (entry,) = world.requested()
    retry_plans.plan(IMMEDIATE, by=both, clock=world.clock)
    with pytest.raises(NotAllowed):
        approvals.decide(entry, Ballot(state=ApprovalState.APPROVED), by=both, clock=world.clock)


def test_p4_who_asks_again_does_not_vote(world):
    both = person(Role.ANALYST, Role.APPROVER)
    world.failed()
    (entry,) = world.requested()
    approval_plans.request(by=both, clock=world.clock)
    with pytest.raises(NotAllowed):
        approvals.decide(entry, Ballot(state=ApprovalState.APPROVED), by=both, clock=world.clock)


# P9/P22: background run of somebody who lost the role / was deactivated
@pytest.mark.parametrize("how", ("revoked", "deactivated"))
def test_a_run_left_to_the_worker_sends_nothing_when_its_person_may_not_any_more(world, how):
    world.failed()
    world.approved()
    before = len(world.receiver.log)
    runs.start_and_execute(RunRequest(dry_run=False, background=True), by=world.operator, clock=world.clock)
    if how == "revoked":
        people.revoke_role(world.operator, Role.OPERATOR, by=None, clock=world.clock)
    else:
        people.set_active(world.operator, False, by=None, clock=world.clock)
    runs.execute_due(clock=world.clock)
    assert len(world.receiver.log) == before


# P1: same routes, other spelling of the filter
@pytest.mark.parametrize(
    "filters",
    (
        PackageFilters(owner="e"),
        PackageFilters(schedule_id="payments-monthly"),
        PackageFilters(provider="webhook"),
    ),
)
def test_p1_the_same_routes_under_another_filter_are_not_sent_again_without_approval(world, filters):
    world.failed()
    before = len(world.receiver.log)
    with contextlib.suppress(Conflict):
        deliveries.deliver_audit(
            DeliveryRequest(filters=filters, retries=0), by=world.analyst, clock=world.clock
        )
    assert len(world.receiver.log) == before


# clock behind the log: a failure after a resolution is no failure
def test_a_failure_after_a_resolution_counts_although_the_clock_was_ahead(timed, clock):
    world = timed
    world.failed()
    world.approved()
    done = world.ran().outcome.recorded[0]
    clock.forward(hours=2)
    world.closed(world.playbook(), "webhook", (done.record.record_id,))
    clock.forward(minutes=5)
    world.failed()
    world.failed()
    book = world.playbook()
    assert book.items.count() == 1


# worker: one broken step ends the process, and everything after it stays undone
@pytest.mark.django_db(transaction=True)
def test_the_worker_survives_a_step_that_breaks(committed, monkeypatch):
    from django.core.management import call_command
    from django.db import InterfaceError

    def broken(**kw):
        raise InterfaceError("connection already closed")

    monkeypatch.setattr(runs, "execute_due", broken)
    seen = []
    monkeypatch.setattr(approvals, "expire", lambda **kw: seen.append(1) or 0)
    with contextlib.suppress(InterfaceError):
        call_command("worker", "--once")
    assert seen


# immediate switched off after approval
def test_p9_without_the_flag_the_delay_stands_for_a_run(timed, clock):
    world = timed
    world.failed()
    world.approved()  # planned immediate
    world.policy(allow_immediate_retry=False, retry_delay_minutes=60)
    before = len(world.receiver.log)
    world.ran()
    assert len(world.receiver.log) == before


# one schedule's number breaks the list of all of them
def test_one_absurd_schedule_does_not_break_the_list(world):
    made = Schedule(
        schedule_id="absurd",
        interval_days=30,
        next_due_at=datetime.now(UTC) + timedelta(days=9),
        notification_providers=["webhook"],
        due_soon_days=2_000_000_000,
    )
    try:
        configuration.save(made, by=None, clock=system_clock)
    except DomainError:
        return
    for s in Schedule.objects.all():
        drills.report(s, datetime.now(UTC))


# P7: a vote of an account that was shut down since
def test_an_approval_of_a_deactivated_account_is_not_used(world):
    world.failed()
    world.approved()
    people.set_active(world.approver, False, by=None, clock=world.clock)
    before = len(world.receiver.log)
    world.ran()
    assert len(world.receiver.log) == before


# P15: cases that nothing can be decided about fill the plan
def test_p15_cases_that_wait_for_an_answer_do_not_keep_others_out_of_the_plan(timed, clock, monkeypatch):
    world = timed
    monkeypatch.setattr(retry_plans, "MAX_DECISIONS", 1)
    world.announced()
    world.acknowledged()
    frozen = packages.freeze(PackageFilters(), by=world.analyst, clock=clock)
    deliveries.open_plan(
        frozen.package,
        list(Connector.objects.all()),
        DeliveryRequest(filters=PackageFilters()),
        by=world.analyst,
        clock=clock,
    )
    clock.forward(minutes=5)
    assert deliveries.expire_leases(clock=clock) == 1  # outcome_unknown, oldest
    clock.forward(minutes=5)
    world.failed()  # retryable
    plan = world.planned()
    assert plan.items.count() == 1


# one step of the clock into the future stops every lease until the wall catches up
def test_p3_a_clock_that_was_ahead_for_a_moment_does_not_stop_leases(timed, clock):
    world = timed
    world.failed()
    world.approved()
    entry = approvals.entries().get()
    run = runs.start(RunRequest(dry_run=False), by=world.operator, clock=clock).run
    claims.claim(entry.pk, run, clock=clock)
    clock.forward(hours=2)
    people.grant_role(world.auditor, Role.VIEWER, by=None, clock=clock)  # any record
    clock.forward(hours=-2)
    clock.forward(minutes=10)
    assert outcomes.expire_leases(clock=clock) == 1


# over HTTP
def test_http_reopening_is_no_500(world, client):
    from evidence.domain.people import issue_token

    world.failed()
    world.approved()
    done = world.ran().outcome.recorded[0]
    first = world.playbook()
    world.closed(first, "webhook", (done.record.record_id,))
    world.failed()
    world.playbook()
    token = issue_token(world.second_analyst, by=None, clock=world.clock)
    client.raise_request_exception = False
    A = "/runtime/go-pilot/rollback-drill-notifications/acknowledgements/audit-delivery"
    r = client.post(
        f"{A}/connector-recovery-playbooks/{first.playbook_id}/closures",
        {"provider": "webhook", "closure_state": "reopened", "reason": "again"},
        content_type="application/json",
        headers={"authorization": f"Bearer {token}"},
    )
    assert r.status_code == 409, r.status_code


@pytest.mark.tampers
@pytest.mark.django_db(transaction=True)
def test_http_a_send_that_was_made_is_not_answered_with_nothing_was_written(committed, client, monkeypatch):
    world = committed
    from evidence.domain.people import issue_token

    world.announced()
    world.acknowledged()
    token = issue_token(world.analyst, by=None, clock=world.clock)
    real = ledger.append

    def flaky(drafts):
        if any(d.kind.name == "release-connector-delivery" for d in drafts):
            raise OperationalError("database is locked")
        return real(drafts)

    monkeypatch.setattr(ledger, "append", flaky)
    before = len(world.receiver.log)
    A = "/runtime/go-pilot/rollback-drill-notifications/acknowledgements/audit-delivery"
    r = client.post(
        A, {"retries": 0}, content_type="application/json", headers={"authorization": f"Bearer {token}"}
    )
    monkeypatch.setattr(ledger, "append", real)
    assert not (len(world.receiver.log) > before and "Nothing was written" in r.json()["detail"]), r.json()
