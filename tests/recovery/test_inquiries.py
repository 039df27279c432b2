"""Connectors that can answer are asked whether a lost try arrived, and no case ever has two tickets (P3, W29)."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.management import call_command
from django.db import OperationalError

from evidence.connectors import sender
from evidence.connectors.products import PRODUCTS
from evidence.domain import (
    attempts,
    configuration,
    deliveries,
    drills,
    packages,
    records,
    sending,
    troubles,
)
from evidence.domain.attempts import Source
from evidence.domain.deliveries import DeliveryRequest
from evidence.domain.packages import PackageFilters
from evidence.enums import Assurance, CaseState, FailureClass, Outcome, Product
from evidence.errors import Conflict, InvalidInput, NotAllowed, StaleState
from evidence.models import Attempt, Case, Connector, Record, RecordKey
from recovery.domain import inquiries, notices
from recovery.enums import Act, ClosureState, DecisionState, EntryState, ExecutionState, Seen, Told
from recovery.execution import asking, outcomes
from recovery.execution.asking import Asker
from recovery.models import ApprovalEntry, Execution, Inquiry, Notice, Recovery
from tests.builders import IMMEDIATE, Clock, World, connector
from tests.endpoints import client
from tests.evidence import breaking
from tests.evidence.connectors.fakes.jira import Jira
from tests.evidence.connectors.fakes.service import Reply, Service
from tests.evidence.connectors.fakes.servicenow import ServiceNow
from tests.processes import together
from tests.recovery.checks import CHAIN, appended, payload
from tests.recovery.desk import Desk, heading

RECONCILED = "retry-execution-reconciliation"
CANCELLED = "retry-execution-cancellation"


def started(fake: Service, world: World, patch: pytest.MonkeyPatch) -> Service:
    """A fake that a connector ``tickets`` of the world goes to."""
    patch.setenv("TICKET_TOKEN", fake.token)
    fake.posts = world.receiver.log
    product = "jira" if isinstance(fake, Jira) else "servicenow"
    connector(
        "tickets",
        fake.url,
        product=product,
        token_ref="env:TICKET_TOKEN",
        options={"project": "PAY"} if product == "jira" else {},
    )
    return fake


@pytest.fixture(params=(Jira, ServiceNow))
def service(
    timed: World, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Service]:
    """Each ticket system in its turn, in a world whose time stands."""
    fake: Service = request.param()
    yield started(fake, timed, monkeypatch)
    fake.stop()


@pytest.fixture
def jira(timed: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jira]:
    fake = Jira()
    yield started(fake, timed, monkeypatch)  # type: ignore[misc]
    fake.stop()


@pytest.fixture
def committed_jira(committed: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jira]:
    fake = Jira()
    # Nothing to wait for: these worlds live in real time.
    monkeypatch.setitem(PRODUCTS, Product.JIRA, replace(PRODUCTS[Product.JIRA], visible_after_s=0))
    yield started(fake, committed, monkeypatch)  # type: ignore[misc]
    fake.stop()


def delivered(world: World) -> Case:
    """A case of its own at the ticket system, after its first attempt."""
    (case,) = world.delivered("tickets")
    return case


def lost(world: World, fake: Service) -> Case:
    """A case whose ticket was made and whose answer was lost."""
    fake.hang_up = True
    case = delivered(world)
    fake.hang_up = False
    assert (case.state, len(fake.tickets)) == (CaseState.FAILED, len(fake.asked("POST")))
    return case


def unheard(world: World) -> tuple[Case, list[Any]]:
    """A first attempt that was sent and whose answer was not written in time, and that answer."""
    world.announced()
    world.acknowledged()
    package = packages.freeze(PackageFilters(), by=world.analyst, clock=world.clock).package
    request = DeliveryRequest(filters=PackageFilters(), timeout_s=5.0)
    opened = deliveries.open_plan(
        package, [Connector.objects.get(key="tickets")], request, by=world.analyst, clock=world.clock
    )
    receipts = sending.send_cases(opened.cases, retries=0, timeout_s=5)
    (case,) = opened.cases
    # Its lease ran out a moment ago, so that the log's time goes no further ahead.
    Case.objects.filter(pk=case.pk).update(lease_until=world.clock() - timedelta(seconds=1))
    assert deliveries.expire_leases(clock=world.clock) == 1
    state(case)
    return case, receipts


def asked(world: World, asker: Asker | None = None) -> int:
    """The worker's step, until everything was answered; how many questions were asked or answered."""
    return (asker or Asker()).step(clock=world.clock, wait=True)


def state(case: Case) -> str:
    """The case's state by now; its lease token stays, as whoever sends keeps it."""
    case.refresh_from_db(fields=["state", "attempt_count", "settled_at", "last_outcome_at"])
    return case.state


def only_reconciliation(case: Case) -> dict[str, Any]:
    """What the one reconciliation of a case says."""
    kinds = (CHAIN + RECONCILED, CHAIN + "reconciliation")
    found = [
        one
        for one in Record.objects.filter(kind__in=kinds)
        if case.case_id in records.load(one.body)["cases"]
    ]
    (one,) = found
    return payload(one.record_id)


# --- one ticket ---------------------------------------------------------------------------------------------------


def test_w29_a_delivery_opens_one_ticket(timed: World, service: Service) -> None:
    case = delivered(timed)
    assert state(case) == CaseState.DELIVERED
    assert Attempt.objects.get(case=case).assurance == Assurance.CONFIRMED
    timed.clock.forward(days=1)  # type: ignore[attr-defined]
    assert asked(timed) == 0
    assert (len(service.tickets), len(service.log)) == (1, 1)


def test_w29_a_retry_after_a_lost_answer_finds_the_ticket_and_sends_nothing(
    timed: World, service: Service
) -> None:
    case = lost(timed, service)
    (entry,) = timed.approved()
    with appended() as kinds:
        run = timed.ran()
    assert kinds[-3:] == ["reconciliation", CANCELLED, "retry-execution-record"]
    assert (len(service.tickets), len(service.asked("POST")), len(service.asked("GET"))) == (1, 1, 1)
    assert (state(case), case.attempt_count) == (CaseState.DELIVERED, 1)
    entry.refresh_from_db()
    assert (entry.state, entry.decision.state) == (EntryState.CANCELLED, DecisionState.CLOSED)
    # Nothing was claimed: no approval was used for what was there already.
    assert not Execution.objects.exists()
    (skip,) = run.outcome.skipped
    assert skip.code == "approval_revoked"


def test_w29_nothing_but_a_delivery_opens_a_ticket(
    timed: World, service: Service, clock: Clock, settings: LazySettings
) -> None:
    """Not a drill's announcement, not the trouble of another connector, not a notice that something waits."""
    timed.schedule.notification_providers = ["tickets", "webhook"]
    configuration.save(timed.schedule, by=None, clock=clock)
    done = drills.announce(timed.schedule, by=timed.analyst, clock=clock)
    assert [(one["provider"], one["code"]) for one in done.held] == [("tickets", "opens_tickets")]
    assert done.plan.view["plan"]["selected_providers"] == ["webhook"]
    failing = Connector.objects.get(key="webhook")
    failing.announce_through = "tickets"
    with pytest.raises(InvalidInput, match="not valid") as refused:
        configuration.save(failing, by=None, clock=clock)
    assert "tickets opens a ticket for whatever it gets" in str(refused.value.errors["announce_through"])
    # Named when it was a connector of another product.
    Connector.objects.filter(key="webhook").update(announce_through="tickets")
    timed.failed("webhook")
    clock.forward(hours=2)
    (one,) = troubles.failing(clock())
    assert one.held.startswith("tickets opens a ticket")
    assert troubles.announce(clock=clock) == 0
    settings.CAVRA_NOTICE_CONNECTOR, settings.CAVRA_BASE_URL = "tickets", "https://cavra.example"
    timed.requested()
    assert notices.notice(clock=clock) == notices.tell(clock=clock) == 1
    assert "opens a ticket" in Notice.objects.get().told
    assert service.asked("POST") == []


def test_w29_a_second_lost_answer_makes_no_third_ticket(timed: World, jira: Jira) -> None:
    """The index lagged, so that the retry went out; what both left behind settles the case, and no more is sent."""
    case = lost(timed, jira)
    jira.hidden = jira.hang_up = True
    timed.approved()
    timed.ran()
    assert (state(case), case.attempt_count, len(jira.asked("GET"))) == (CaseState.FAILED, 2, 1)
    before = len(jira.tickets)
    jira.hidden = jira.hang_up = False
    timed.clock.forward(minutes=5)  # type: ignore[attr-defined]
    timed.approved()
    timed.ran()
    assert (state(case), len(jira.tickets)) == (CaseState.DELIVERED, before)
    assert Execution.objects.get().state == ExecutionState.DELIVERED
    assert only_reconciliation(case)["attempt_no"] == 2


def test_w29_what_certainly_did_not_arrive_is_retried_without_a_question(
    timed: World, service: Service
) -> None:
    service.override = Reply(400, {})
    case = delivered(timed)
    service.override = None
    timed.approved()
    timed.ran()
    assert (state(case), len(service.tickets), service.asked("GET")) == (CaseState.DELIVERED, 1, [])


def test_w29_a_question_that_fails_leaves_it_to_what_the_approver_knew(timed: World, jira: Jira) -> None:
    jira.override = Reply(503, {})
    case = delivered(timed)
    timed.approved()
    jira.override = None
    jira.deployment = "data_center"  # The search is not where the connector looks.
    timed.ran()
    assert (state(case), len(jira.tickets), len(jira.asked("GET"))) == (CaseState.DELIVERED, 1, 1)
    assert Inquiry.objects.get().told == Told.NOTHING


def test_w29_an_answer_that_cannot_be_written_is_asked_for_again_before_anything_is_sent(
    timed: World, jira: Jira, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = lost(timed, jira)
    timed.approved()
    monkeypatch.setattr(inquiries, "hear", failing_once(inquiries.hear))
    timed.ran()
    assert (state(case), len(jira.tickets), len(jira.asked("GET"))) == (CaseState.DELIVERED, 1, 2)


def test_w29_who_lifts_what_the_receiver_asked_for_asks_all_the_same(
    timed: World, jira: Jira, clock: Clock
) -> None:
    case = lost(timed, jira)
    timed.approved({})
    clock.forward(minutes=16)
    breaking.heard("tickets", FailureClass.THROTTLED, clock=clock, retry_after_s=600)
    timed.ran()
    assert (state(case), len(jira.asked("POST")), jira.asked("GET")) == (CaseState.FAILED, 1, [])
    timed.ran(policy=IMMEDIATE)
    assert (state(case), len(jira.tickets), len(jira.asked("GET"))) == (CaseState.DELIVERED, 1, 1)


def failing_once(act: Callable[..., Any]) -> Callable[..., Any]:
    """``act``, whose first call finds the database locked."""
    tried: list[int] = []

    def once(*args: Any, **kwargs: Any) -> Any:
        tried.append(1)
        if len(tried) == 1:
            raise OperationalError("database is locked")
        return act(*args, **kwargs)

    return once


def test_w29_no_closure_touches_a_ticket(timed: World, service: Service) -> None:
    """A recovery is closed by a reconciliation, in every way there is; the ticket system hears nothing of it."""
    case = lost(timed, service)
    playbook = timed.playbook()
    timed.clock.forward(minutes=2)  # type: ignore[attr-defined]
    assert asked(timed)
    known = only_reconciliation(case)
    before = len(service.log)
    timed.closed(playbook, "tickets", (known["reconciliation_id"],))
    assert Recovery.objects.get().state == ClosureState.RESOLVED
    assert len(service.log) == before


# --- by itself ----------------------------------------------------------------------------------------------------


def test_p3_a_lost_answer_is_settled_by_asking(timed: World, service: Service, clock: Clock) -> None:
    case = lost(timed, service)
    assert Attempt.objects.get().may_have_arrived
    clock.forward(seconds=50)
    assert asked(timed) == 0
    clock.forward(seconds=10)
    with appended() as kinds:
        assert asked(timed)
    assert kinds == ["reconciliation"]
    assert (state(case), case.settled_at, len(service.tickets)) == (CaseState.DELIVERED, clock(), 1)
    said = only_reconciliation(case)
    assert (said["source"], said["outcome"], said["assurance"]) == (
        "connector_answer",
        "delivered",
        "confirmed",
    )
    assert said["external_ref"] in ("JIRA:PAY-1", "SERVICENOW:INC0000001")
    known = attempts.what_is_known(Attempt.objects.all(), failed_too=True)[Attempt.objects.get().pk]
    assert (known.source, known.outcome) == (Source.CONNECTOR, Outcome.DELIVERED)
    # The attempt itself stays as it was recorded.
    assert Attempt.objects.get().outcome == Outcome.FAILED
    assert asked(timed) == 0


def test_p3_an_unknown_first_attempt_is_settled_by_asking(
    timed: World, service: Service, clock: Clock
) -> None:
    case, receipts = unheard(timed)
    assert state(case) == CaseState.UNKNOWN
    clock.forward(minutes=5)
    assert asked(timed)
    assert state(case) == CaseState.DELIVERED
    # The answer itself comes late: it is kept, once, and moves nothing.
    with appended() as kinds:
        deliveries.record_first_attempts([case], receipts, by=timed.analyst, clock=clock)
    assert kinds == ["release-connector-delivery", "reconciliation"]
    assert state(case) == CaseState.DELIVERED
    with pytest.raises(StaleState):
        deliveries.record_first_attempts([case], receipts, by=timed.analyst, clock=clock)


def test_p3_an_unknown_retry_is_settled_by_asking(timed: World, service: Service, clock: Clock) -> None:
    service.override = Reply(503, {})
    case = delivered(timed)
    service.override = None
    taken = timed.taken(*timed.approved())
    (receipt,) = sender.shared().send_all([taken.spec], deadline_s=5)
    timed.unheard(taken)
    clock.forward(minutes=30)
    with appended() as kinds:
        assert asked(timed)
    assert kinds == [RECONCILED]
    taken.execution.refresh_from_db()
    assert (state(case), taken.execution.state) == (CaseState.DELIVERED, ExecutionState.DELIVERED)
    with appended() as kinds:
        assert outcomes.record([(taken.execution.pk, receipt)], clock=clock) == []
    assert kinds == [RECONCILED]
    assert (state(case), len(service.tickets)) == (CaseState.DELIVERED, 1)


def test_p3_no_settles_nothing_and_is_shown(timed: World, service: Service, clock: Clock) -> None:
    case, _ = unheard(timed)
    service.hidden = True
    clock.forward(minutes=5)
    with appended() as kinds:
        assert asked(timed)
    assert (kinds, state(case)) == ([], CaseState.UNKNOWN)
    shown = inquiries.shown(case)
    assert shown is not None
    assert (shown.at, shown.by, shown.words) == (clock(), "", "no such ticket")
    assert shown.next_at == clock() + timedelta(minutes=1)
    # Indexed by now.
    service.hidden = False
    clock.forward(minutes=1)
    assert asked(timed)
    assert state(case) == CaseState.DELIVERED


def test_questions_become_rarer_and_end(timed: World, jira: Jira, clock: Clock) -> None:
    case = lost(timed, jira)
    jira.hidden = True
    began, times = case.last_outcome_at, []
    while clock() < began + timedelta(days=40):
        before = len(jira.asked("GET"))
        asked(timed)
        times += [clock() - began] * (len(jira.asked("GET")) - before)
        clock.forward(minutes=1 if clock() < began + timedelta(hours=3) else 360)
    gaps = [(late - early).total_seconds() / 60 for early, late in pairwise(times)]
    assert times[0] == timedelta(minutes=1)
    assert gaps[:4] == [1, 5, 15, 60]
    assert all(24 * 60 <= gap <= 30 * 60 for gap in gaps[4:])
    assert 25 <= len(times) <= 34
    assert times[-1] <= timedelta(days=30)
    assert Inquiry.objects.get().next_at is None


def test_a_request_for_approval_is_a_reason_to_ask_at_once(timed: World, jira: Jira, clock: Clock) -> None:
    lost(timed, jira)
    jira.hidden = True
    clock.forward(minutes=2)
    asked(timed)
    assert asked(timed) == 0
    clock.forward(seconds=1)
    timed.requested()
    assert asked(timed)
    assert asked(timed) == 0
    assert len(jira.asked("GET")) == 2


def test_p3_what_is_there_is_told_to_the_approver_before_the_vote(
    timed: World, jira: Jira, clock: Clock
) -> None:
    case = lost(timed, jira)
    clock.forward(minutes=2)
    (entry,) = timed.requested()
    with appended() as kinds:
        assert asked(timed)
    assert kinds == ["reconciliation", CANCELLED]
    assert state(case) == CaseState.DELIVERED
    with pytest.raises(Conflict) as refused:
        timed.vote(entry)
    assert refused.value.code == "entry_ended"


@pytest.mark.parametrize("seen", (Seen.NOT_DELIVERED, Seen.UNDETERMINED))
def test_p3_what_is_there_counts_more_than_what_people_saw(
    timed: World, jira: Jira, clock: Clock, seen: Seen
) -> None:
    case, _ = unheard(timed)
    timed.attested(case, seen, timed.approver, timed.second_analyst)
    assert state(case) == CaseState.FAILED
    clock.forward(minutes=5)
    assert asked(timed)
    assert state(case) == CaseState.DELIVERED


def test_p3_who_attests_after_the_answer_is_told_that_it_is_known(
    timed: World, jira: Jira, clock: Clock
) -> None:
    case, _ = unheard(timed)
    timed.attested(case, Seen.NOT_DELIVERED, timed.approver)
    clock.forward(minutes=5)
    assert asked(timed)
    with pytest.raises(Conflict) as refused:
        timed.attested(case, Seen.NOT_DELIVERED, timed.second_analyst)
    assert refused.value.code == "not_unknown"
    assert state(case) == CaseState.DELIVERED


def test_p3_a_receiver_that_answers_with_everything_settles_nothing(
    timed: World, service: Service, clock: Clock
) -> None:
    other = delivered(timed)
    case = lost(timed, service)
    service.tickets.pop()
    service.lies = True
    clock.forward(minutes=5)
    with appended() as kinds:
        assert asked(timed)
    assert (kinds, state(case), state(other)) == ([], CaseState.FAILED, CaseState.DELIVERED)


def test_p3_an_answer_that_was_not_written_is_asked_for_again(
    timed: World, jira: Jira, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker dies between answer and commit: the question goes out once more, and one record is written."""
    case = lost(timed, jira)
    clock.forward(minutes=2)
    monkeypatch.setattr(inquiries, "hear", failing_once(inquiries.hear))
    with appended() as kinds:
        assert asked(timed)
    assert (kinds, state(case), Inquiry.objects.get().told) == ([], CaseState.FAILED, "")
    assert inquiries.shown(case).words == "no answer yet"  # type: ignore[union-attr]
    clock.forward(minutes=1)
    assert asked(timed)
    assert (state(case), len(jira.asked("GET"))) == (CaseState.DELIVERED, 2)
    assert only_reconciliation(case)["source"] == "connector_answer"


@pytest.mark.parametrize("how", ("paused", "all_paused", "disabled"))
def test_p17_nothing_is_asked_where_nothing_is_sent(timed: World, jira: Jira, clock: Clock, how: str) -> None:
    case = lost(timed, jira)
    clock.forward(minutes=2)
    if how == "disabled":
        row = Connector.objects.get(key="tickets")
        row.enabled = False
        configuration.save(row, by=None, clock=clock)
    else:
        scope = "*" if how == "all_paused" else "tickets"
        configuration.pause(scope, reason="a look first", by=timed.administrator, clock=clock)
    timed.requested()
    assert asked(timed) == 0
    with pytest.raises(Conflict) as refused:
        asking.ask_now(case, by=timed.analyst, clock=clock)
    assert refused.value.code == ("connector_disabled" if how == "disabled" else "sending_paused")
    assert jira.asked("GET") == []


def test_p17_one_connector_has_a_few_questions_under_way_and_holds_nobody_up(
    timed: World, jira: Jira, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "PER_CONNECTOR", 2)
    monkeypatch.setattr(asking, "QUIET_S", 0.0)
    for _ in range(4):
        lost(timed, jira)
    clock.forward(minutes=2)
    jira.mute = True
    asker, began = Asker(), time.monotonic()
    assert asker.step(clock=clock) == asking.PER_CONNECTOR
    assert asker.step(clock=clock) == 0
    # Whoever waited for an answer would wait as long as one may take.
    assert time.monotonic() - began < asking.ANSWER_S
    jira.mute = False
    jira.released.set()
    sent = jira.asked("GET")
    assert len(sent) <= asking.PER_CONNECTOR
    while Case.objects.filter(state=CaseState.FAILED).exists():
        assert time.monotonic() - began < 90
        clock.forward(minutes=10)
        asker.step(clock=clock, wait=True)
    assert len(jira.tickets) == 4


def test_p17_a_connector_that_refuses_questions_is_left_alone_for_a_while(
    timed: World, jira: Jira, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "PER_CONNECTOR", 1)
    lost(timed, jira)
    lost(timed, jira)
    clock.forward(minutes=2)
    jira.token = "another"
    asker = Asker()
    assert asked(timed, asker)
    assert asked(timed, asker) == 0
    assert (len(jira.asked("GET")), Inquiry.objects.get().failure_class) == (1, FailureClass.AUTH)


def test_a_connector_that_cannot_be_asked_never_is(timed: World, clock: Clock) -> None:
    timed.receiver.behave("/webhook", status=200)
    (case,) = timed.failed()
    clock.forward(minutes=5)
    assert asked(timed) == 0
    with pytest.raises(Conflict) as refused:
        asking.ask_now(case, by=timed.analyst, clock=clock)
    assert refused.value.code == "cannot_be_asked"
    assert not Inquiry.objects.exists()


def test_a_connector_that_is_misconfigured_is_told_so(
    timed: World, jira: Jira, clock: Clock, monkeypatch
) -> None:
    case = lost(timed, jira)
    clock.forward(minutes=2)
    monkeypatch.delenv("TICKET_TOKEN")
    assert asked(timed)
    assert inquiries.shown(case).words == "it could not be told (credential is not set up)"
    assert Inquiry.objects.get().failure_class == FailureClass.AUTH_SETUP


# --- by somebody --------------------------------------------------------------------------------------------------


def test_somebody_asks_at_once(timed: World, service: Service, clock: Clock) -> None:
    case, _ = unheard(timed)
    service.hidden = True
    heard = asking.ask_now(case, by=timed.analyst, clock=clock)
    assert (heard.told, heard.settled, heard.moved_on) == (Told.NOT_THERE, (), False)
    assert inquiries.shown(case).by == timed.analyst.username  # type: ignore[union-attr]
    service.hidden = False
    # Somebody's question moves none of the worker's.
    clock.forward(minutes=5)
    assert asked(timed)
    assert state(case) == CaseState.DELIVERED


def test_somebody_who_asks_settles_it(timed: World, service: Service, clock: Clock) -> None:
    case = lost(timed, service)
    heard = asking.ask_now(case, by=timed.approver, clock=clock)
    assert (heard.told, state(case)) == (Told.THERE, CaseState.DELIVERED)
    record = Record.objects.get(record_id=heard.settled[0].record_id)
    assert records.load(record.body)["actor"]["name"] == timed.approver.username
    with pytest.raises(Conflict) as refused:
        asking.ask_now(case, by=timed.approver, clock=clock)
    assert refused.value.code == "settled"


def test_p22_who_may_not_attest_may_not_ask(timed: World, jira: Jira, clock: Clock) -> None:
    case = lost(timed, jira)
    with pytest.raises(NotAllowed):
        asking.ask_now(case, by=timed.operator, clock=clock)
    assert jira.asked("GET") == []


def test_nothing_is_asked_of_a_try_that_did_not_leave(timed: World, jira: Jira, clock: Clock) -> None:
    jira.override = Reply(401, {})
    case = delivered(timed)
    with pytest.raises(Conflict) as refused:
        asking.ask_now(case, by=timed.analyst, clock=clock)
    assert refused.value.code == "nothing_sent"


def test_an_answer_about_a_case_that_moved_on_is_dropped(timed: World, jira: Jira, clock: Clock) -> None:
    case = lost(timed, jira)
    question = inquiries.question_about(Case.objects.select_related("connector").get(pk=case.pk))
    order = asking._order(question, "token")
    (receipt,) = sender.shared().send_all([order], deadline_s=5)  # type: ignore[list-item]
    assert receipt.found
    taken = timed.taken(*timed.approved())
    with appended() as kinds:
        heard = inquiries.hear(question, receipt, by=None, clock=clock)
    assert (kinds, heard.moved_on, state(case)) == ([], True, CaseState.SENDING)
    timed.unheard(taken)
    with appended() as kinds:
        assert inquiries.hear(question, receipt, by=None, clock=clock).moved_on
    assert kinds == []
    clock.forward(minutes=30)
    assert asked(timed)
    assert (state(case), len(jira.tickets)) == (CaseState.DELIVERED, 1)


# --- at once ------------------------------------------------------------------------------------------------------


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_p3_asking_while_somebody_attests(committed: World, committed_jira: Jira) -> None:
    world = committed
    for _ in range(3):
        case, _receipts = unheard(world)
        world.attested(case, Seen.NOT_DELIVERED, world.approver)
        results = together(
            partial(world.attested, case, Seen.NOT_DELIVERED, world.second_analyst),
            partial(asking.ask_now, case, by=world.second_approver, clock=world.clock),
        )
        refusals = [one for one in results if isinstance(one, Exception)]
        assert all(isinstance(one, Conflict) and one.code == "not_unknown" for one in refusals)
        assert state(case) == CaseState.DELIVERED
        world.ran()
    assert len(committed_jira.tickets) == 3


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_w29_asking_while_a_retry_is_claimed(committed: World, committed_jira: Jira) -> None:
    world, fake = committed, committed_jira
    for count in range(1, 4):
        case = lost(world, fake)
        world.approved()
        results = together(
            world.ran, world.ran, partial(asking.ask_now, case, by=world.analyst, clock=world.clock)
        )
        refusals = [one for one in results if isinstance(one, Exception)]
        assert all(isinstance(one, Conflict) and one.code == "settled" for one in refusals), refusals
        assert (state(case), case.attempt_count, len(fake.tickets)) == (CaseState.DELIVERED, 1, count)
        assert only_reconciliation(case)["source"] == "connector_answer"
        assert not ApprovalEntry.objects.filter(case=case).exclude(state=EntryState.CANCELLED).exists()


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_two_workers_ask_once(committed: World, committed_jira: Jira) -> None:
    case = lost(committed, committed_jira)
    together(*[partial(Asker().step, clock=committed.clock, wait=True)] * 4)
    assert state(case) == CaseState.DELIVERED
    assert len(committed_jira.asked("GET")) == 1
    assert only_reconciliation(case)["source"] == "connector_answer"


@pytest.mark.django_db(transaction=True)
def test_the_worker_asks(committed: World, committed_jira: Jira) -> None:
    case = lost(committed, committed_jira)
    call_command("worker", "--once")
    assert (state(case), len(committed_jira.tickets)) == (CaseState.DELIVERED, 1)


# --- pages and answers --------------------------------------------------------------------------------------------


def path(case: Case) -> str:
    return f"/api/v1/cases/{case.case_id}/inquiries"


def test_the_page_of_an_unknown_case_says_what_the_connector_said(
    timed: World, jira: Jira, clock: Clock
) -> None:
    case, _ = unheard(timed)
    page = Desk(timed.second_analyst, case).page()
    assert "It was not asked yet whether it has what may have arrived." in page
    jira.hidden = True
    clock.forward(minutes=5)
    asked(timed)
    for who in (timed.second_analyst, timed.approver, timed.auditor):
        assert f"Asked at {clock():%H:%M}" in (page := Desk(who, case).page())
        assert ": no such ticket." in page
        assert ("Ask the connector now</button>" in page) is (who != timed.auditor)


def test_an_approver_sees_what_the_connector_said(timed: World, jira: Jira, clock: Clock) -> None:
    case = lost(timed, jira)
    jira.hidden = True
    timed.requested()
    clock.forward(minutes=2)
    asked(timed)
    page = Desk(timed.approver, case).page()
    assert heading(page).startswith("Next: decide")
    assert ": no such ticket." in page


def test_the_button_asks_and_settles(timed: World, service: Service) -> None:
    case = lost(timed, service)
    desk = Desk(timed.analyst, case)
    assert "Ask the connector now</button>" in desk.page()
    desk.send(Act.ASK)
    assert state(case) == CaseState.DELIVERED
    page = desk.page()
    assert "the ticket is there as " in page
    assert only_reconciliation(case)["external_ref"] in page


def test_the_page_of_a_connector_that_cannot_be_asked_says_so_once(timed: World) -> None:
    case = timed.unknown().execution.case
    page = Desk(timed.analyst, case).page()
    assert "webhook cannot be asked: its interface has no lookup by idempotency key." in page
    assert "Ask the connector now" not in page
    assert "cannot be asked" in Desk(timed.analyst, case).send(Act.ASK, expect=409)


def test_asking_over_http(timed: World, service: Service) -> None:
    case = lost(timed, service)
    service.hidden = True
    said = client(timed.analyst).post(path(case), {}, format="json").json()
    assert (said["told"], said["case_state"], said["reconciliation"]) == ("not_there", "failed", None)
    service.hidden = False
    answer = client(timed.approver).post(path(case), {"asked_by": "The Director"}, format="json")
    said = answer.json()
    assert (answer.status_code, said["told"], said["case_state"]) == (200, "there", "delivered")
    assert said["external_ref"] == said["reconciliation"]["external_ref"] != ""
    # A name in the body identifies nobody; it is kept beside who really asked (P21).
    assert said["reconciliation_metadata"]["signer"] == timed.approver.username
    assert said["reconciliation_metadata"]["claimed_actor"] == "The Director"
    again = client(timed.approver).post(path(case), {}, format="json")
    assert (again.status_code, again.json()["code"]) == (409, "settled")
    # What the receiver keeps it under is found like any other reference.
    assert said["external_ref"] in {
        key.value for key in RecordKey.objects.filter(name="external_ref", value=said["external_ref"])
    }


@pytest.mark.parametrize("body", ({"notes": "x"}, {"asked_by": 1}))
def test_a_question_takes_nothing_else(timed: World, jira: Jira, body: dict[str, Any]) -> None:
    case = lost(timed, jira)
    assert client(timed.analyst).post(path(case), body, format="json").status_code == 400
    assert client(timed.analyst).post(path(case) + "x", {}, format="json").status_code == 404
    assert jira.asked("GET") == []
