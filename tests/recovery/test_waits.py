"""Approved retries and connectors that are held back: planned downtime means wait, not fail (P9, P16, P17)."""

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from evidence.domain import deliveries, parking, records, text
from evidence.domain.deliveries import DeliveryRequest
from evidence.domain.packages import PackageFilters
from evidence.enums import CaseState, FailureClass, Hold
from evidence.errors import Conflict, InvalidInput
from evidence.models import Attempt, Breaker, Case, Record
from recovery.documents import EXECUTION_RECORD
from recovery.domain import approval_plans, dashboard, dispositions, retry_plans, waits
from recovery.enums import EntryState, RetryAction, Seen, SkipCode
from recovery.execution import runs
from recovery.models import ApprovalEntry, Execution, Vote
from tests.builders import IMMEDIATE, Clock, World
from tests.evidence.breaking import closed, heard, opened, window


def decisions(world: World, policy: dict[str, Any]) -> list[dict[str, Any]]:
    draft = retry_plans.plan(policy, by=world.analyst, clock=world.clock)
    found: list[dict[str, Any]] = draft.view[draft.kind.payload_key]["retry_decisions"]
    return found


def parked(world: World, clock: Clock) -> Case:
    world.announced()
    world.acknowledged()
    opened("webhook", clock)
    request = DeliveryRequest(filters=PackageFilters(), retries=0, timeout_s=5.0)
    (case,) = deliveries.deliver_audit(request, by=world.analyst, clock=clock).cases
    assert case.state == CaseState.PARKED
    return case


# --- claims -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", (SkipCode.BREAKER_OPEN, SkipCode.MAINTENANCE_WINDOW))
def test_p9_a_connector_that_is_held_back_costs_no_approval(
    timed: World, clock: Clock, code: SkipCode
) -> None:
    timed.failed()
    (entry,) = timed.approved()
    if code is SkipCode.BREAKER_OPEN:
        opened("webhook", clock)
    else:
        window("webhook", clock(), clock() + timedelta(minutes=30), clock)
    before = len(timed.receiver.log)
    (skip,) = timed.ran().outcome.skipped
    assert (skip.code, skip.record is not None) == (code, True)
    # Once for each code, however often it is tried.
    (again,) = timed.ran().outcome.skipped
    assert (again.code, again.record) == (code, None)
    entry.refresh_from_db()
    assert (entry.state, Vote.objects.count()) == (EntryState.APPROVED, 1)
    assert not Execution.objects.exists()
    assert Record.objects.filter(kind=EXECUTION_RECORD.name).count() == 1
    assert len(timed.receiver.log) == before
    if code is SkipCode.BREAKER_OPEN:
        closed("webhook", clock)
    else:
        clock.forward(minutes=30)
    (done,) = timed.ran().outcome.recorded
    assert done.receipt.delivered


def test_what_the_receiver_asked_for_holds_other_retries_back_but_those_that_lift_the_delay(
    timed: World, clock: Clock
) -> None:
    timed.failed()
    (entry,) = timed.approved({})
    clock.forward(minutes=16)
    heard("webhook", FailureClass.THROTTLED, clock=clock, retry_after_s=600)
    (skip,) = timed.ran().outcome.skipped
    assert skip.code is SkipCode.THROTTLED
    entry.refresh_from_db()
    assert entry.state == EntryState.APPROVED
    (done,) = timed.ran(policy=IMMEDIATE).outcome.recorded
    assert done.receipt.delivered


def test_p17_what_is_held_back_takes_no_other_connectors_place(two: World) -> None:
    two.failed()
    two.approved()
    clock = Clock(two.clock())
    opened("webhook", clock)
    (done,) = two.ran(max_retry_deliveries=1).outcome.recorded
    assert done.execution.case.connector.key == "backup"


def test_approved_retries_that_fail_open_the_breaker_and_the_rest_keeps_its_approval(
    timed: World, clock: Clock
) -> None:
    heard("webhook", *[FailureClass.UNAVAILABLE] * 2, clock=clock)
    for _ in range(4):
        timed.failed()
    timed.approved()
    heard("webhook", *[FailureClass.UNAVAILABLE] * 2, clock=clock)
    timed.receiver.behave("/webhook", status=503)
    timed.ran(policy=IMMEDIATE)
    assert Breaker.objects.get().opened_at is not None
    states = Counter(ApprovalEntry.objects.values_list("state", flat=True))
    assert states[EntryState.CLAIMED] >= 3
    assert set(states) <= {EntryState.CLAIMED, EntryState.APPROVED}
    assert Record.objects.filter(kind="connector-breaker").count() == 1


# --- plans --------------------------------------------------------------------------------------------------------


def test_a_plan_waits_for_the_window_and_its_approval_outlasts_it(timed: World, clock: Clock) -> None:
    timed.failed()
    ends = clock() + timedelta(hours=30)
    window("webhook", clock(), ends, clock)
    (decision,) = decisions(timed, IMMEDIATE)
    assert (decision["action"], decision["next_retry_at"]) == ("wait", records.timestamp(ends))
    assert decision["reason"].startswith("webhook is under maintenance until")
    (entry,) = timed.approved()
    assert entry.not_before == ends
    assert entry.execute_by is not None
    assert entry.execute_by > ends
    clock.at = ends
    (done,) = timed.ran().outcome.recorded
    assert done.receipt.delivered


def test_p17_no_window_is_called_something_that_no_plan_may_say(timed: World, clock: Clock) -> None:
    timed.failed()
    with pytest.raises(InvalidInput) as refused:
        window("webhook", clock(), clock() + timedelta(hours=1), clock, "http://splunk/manual")
    (path,) = refused.value.errors
    assert path == "windows.0.window_id"
    window("webhook", clock(), clock() + timedelta(hours=1), clock, "CHG-7")
    (decision,) = decisions(timed, IMMEDIATE)
    assert "CHG-7" in decision["reason"]


def test_a_plan_waits_for_an_open_breaker(timed: World, clock: Clock) -> None:
    timed.failed()
    opened("webhook", clock)
    (decision,) = decisions(timed, IMMEDIATE)
    assert decision["action"] == RetryAction.WAIT
    assert "held back after 5 failures in a row" in decision["reason"]


def test_who_approves_reads_that_the_approval_would_run_out_before_the_window_ends(
    timed: World, clock: Clock, client: Client
) -> None:
    (case,) = timed.failed()
    (entry,) = timed.requested()
    window("webhook", clock() - timedelta(hours=1), clock() + timedelta(hours=30), clock)
    ends = clock() + timedelta(minutes=entry.execute_within_minutes)
    sentence = f"An approval given now runs out at {text.moment(ends)}, before that."
    assert waits.cautions([entry], clock())[0][1] == sentence
    draft = approval_plans.request(by=timed.second_analyst, clock=clock)
    (listed,) = draft.view[draft.kind.payload_key]["approval_decisions"]
    assert listed["reason"].endswith(sentence)
    client.force_login(timed.approver)
    shown = client.get(f"/console/cases/{case.case_id}/").content.decode()
    assert "webhook is under maintenance until" in shown
    assert "before that." in shown
    # Nothing of it stands against the vote.
    timed.vote(entry)
    (entry,) = [one for one in ApprovalEntry.objects.all() if one.state == EntryState.APPROVED]
    assert waits.cautions([entry], clock())[0][1].startswith("This approval runs out at")


# --- parked cases are no failures ---------------------------------------------------------------------------------


def test_a_parked_case_is_left_alone_by_what_is_about_failures(timed: World, clock: Clock) -> None:
    case = parked(timed, clock)
    assert decisions(timed, IMMEDIATE) == []
    assert timed.requested() == []
    assert dashboard.overview(clock())["alert_level"] == "healthy"
    assert timed.ran().entries == []
    case.refresh_from_db()
    assert case.state == CaseState.PARKED


def test_who_attests_what_waits_is_told_that_it_waits(timed: World, clock: Clock) -> None:
    """Also who asked for it: they sent nothing yet."""
    case = parked(timed, clock)
    with pytest.raises(Conflict, match="this case is parked now") as refused:
        timed.attested(case, Seen.DELIVERED, timed.analyst)
    assert refused.value.code == "not_unknown"


def test_p8_two_people_may_settle_what_waits(timed: World, clock: Clock) -> None:
    case = parked(timed, clock)
    before = len(timed.receiver.log)
    timed.disposed(case)
    assert case.state == CaseState.ABANDONED
    closed("webhook", clock)
    assert deliveries.send_parked(clock=clock) == 0
    assert parking.release(case.pk, clock=clock) is None
    assert len(timed.receiver.log) == before


def test_a_proposal_about_what_waited_is_stale_once_it_was_sent(timed: World, clock: Clock) -> None:
    case = parked(timed, clock)
    proposal = timed.proposed(case)
    closed("webhook", clock)
    timed.receiver.behave("/webhook", status=503)
    assert deliveries.send_parked(clock=clock) == 1
    with pytest.raises(Exception, match="Another attempt was made") as refused:
        dispositions.confirm(proposal, by=timed.approver, clock=clock)
    assert refused.value.code == "disposition_stale"  # type: ignore[attr-defined]


def test_p1_after_its_first_attempt_it_is_a_case_like_any_other(timed: World, clock: Clock) -> None:
    """Sent by itself once; the second try takes a second person."""
    case = parked(timed, clock)
    closed("webhook", clock)
    timed.receiver.behave("/webhook", status=503)
    assert deliveries.send_parked(clock=clock) == 1
    timed.receiver.behave("/webhook", status=200)
    assert deliveries.send_parked(clock=clock) == 0
    clock.forward(days=1)
    assert deliveries.send_parked(clock=clock) == 0
    assert runs.execute_due(clock=clock) == 0
    (entry,) = timed.approved()
    assert (entry.case, entry.attempt_no) == (case, 2)
    timed.ran()
    assert list(Attempt.objects.order_by("number").values_list("number", "outcome")) == [
        (1, "failed"),
        (2, "delivered"),
    ]


def test_every_hold_is_a_reason_to_skip() -> None:
    assert {hold.value for hold in Hold} <= {code.value for code in SkipCode}
