"""Canaries: a fixed message says whether a connector works, holds no evidence, and is recorded (P1, P16, P17)."""

import json
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from django.db import connection

from evidence.connectors.products import PRODUCTS
from evidence.connectors.specs import ConnectorSettings
from evidence.domain import (
    breakers,
    canaries,
    configuration,
    deliveries,
    records,
    verification,
)
from evidence.domain.clock import system_clock
from evidence.enums import BreakerState, Outcome, Product
from evidence.errors import Conflict, NotAllowed
from evidence.models import Attempt, Breaker, Canary, CanaryTurn, Connector, Person, Record
from recovery.execution import runs
from tests.builders import Clock, World, connector
from tests.evidence import breaking
from tests.receiver import Receiver


@pytest.fixture
def timed(db: None, receiver: Receiver, clock: Clock) -> World:
    return World(receiver, clock=clock)


def row(key: str = "webhook") -> Connector:
    return Connector.objects.get(key=key)


def payload(canary: Canary) -> dict[str, Any]:
    found = records.payload_of(Record.objects.get(record_id=canary.canary_id))
    assert found is not None
    return found


# --- what is sent -------------------------------------------------------------------------------------------------


def test_p1_a_canary_holds_nothing_of_the_evidence(timed: World, clock: Clock) -> None:
    """None of the words in which a delivery speaks of cases, packages, routes and people."""
    (case,) = timed.delivered()
    delivered = timed.receiver.arrived("/webhook")[-1]
    canaries.send(row(), by=timed.operator, clock=clock)
    arrived = timed.receiver.arrived("/webhook")[-1]
    sent, event = json.loads(arrived.body), json.loads(delivered.body)
    shared = {"schema_version", "event_type", "session_id", "title", "alert_level", "max_severity"}
    assert sent.keys() & event.keys() == shared
    assert sent["schema_version"] == "cavra.connector.canary.v1"
    assert "test" in sent["title"]
    assert "no evidence" in sent["text"]
    for word in (
        case.case_id,
        case.plan.delivery_id,
        case.package.audit_id,
        timed.schedule.schedule_id,
        *(owner.name for owner in timed.schedule.owners.all()),
        *Person.objects.values_list("username", flat=True),
    ):
        assert word.encode() not in arrived.body, word
        assert word not in str(arrived.headers), word


def test_p1_the_bytes_are_the_same_every_time(timed: World, clock: Clock) -> None:
    for person in (timed.operator, timed.administrator):
        canaries.send(row(), by=person, clock=clock)
        clock.forward(seconds=11)
        timed.delivered()
    first, second = (one for one in timed.receiver.log if b"connector.canary" in one.body)
    assert first.body == second.body
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]


@pytest.mark.parametrize("product", tuple(PRODUCTS))
def test_every_product_can_say_it(product: Product) -> None:
    """Where a message is sent at all, the product's own form of it says that it is a test."""
    adapter = PRODUCTS[product]
    options = {name: option.default or "x" for name, option in adapter.options.items()}
    settings = ConnectorSettings(key="one", product=product, options=tuple(sorted(options.items())))
    if not adapter.canary_sends:
        return
    body, _ = adapter.render(dict(canaries.EVENT), settings, canaries.ABOUT)
    assert canaries.EVENT["title"].encode() in body
    assert len(body) < adapter.max_body


# --- what comes of it ---------------------------------------------------------------------------------------------


def test_it_is_recorded_who_tested_what_when_and_what_came_of_it(timed: World, clock: Clock) -> None:
    canary = canaries.send(row(), by=timed.operator, clock=clock)
    assert (canary.outcome, canary.means, canary.status_code) == (Outcome.DELIVERED, "message", 200)
    assert not CanaryTurn.objects.exists()
    said = payload(canary)
    assert {name: said[name] for name in ("provider", "outcome", "failure_class", "tested_by")} == {
        "provider": "webhook",
        "outcome": "delivered",
        "failure_class": "",
        "tested_by": timed.operator.username,
    }
    assert said["started_at"] == records.timestamp(clock())
    body = bytes(Record.objects.get(record_id=canary.canary_id).body or b"")
    assert b"127.0.0.1" not in body
    assert b"http:" not in body
    assert not Attempt.objects.exists()
    assert [str(one) for one in verification.verify()] == []


def test_a_failure_is_a_result_with_its_class(timed: World, clock: Clock) -> None:
    timed.receiver.behave("/webhook", status=401)
    canary = canaries.send(row(), by=timed.operator, clock=clock)
    assert (canary.outcome, canary.failure_class, canary.status_code) == ("failed", "auth", 401)
    assert Breaker.objects.get().failures == 1


def test_w27_what_cannot_be_used_is_a_result_too(timed: World, clock: Clock) -> None:
    connector("chat", timed.receiver.url("/chat"), token_ref="env:CAVRA_TEST_NOT_SET")
    canary = canaries.send(row("chat"), by=timed.operator, clock=clock)
    assert (canary.outcome, canary.failure_class, canary.status_code) == ("failed", "auth_setup", None)
    assert canaries.send(row(), by=timed.operator, clock=clock).outcome == Outcome.DELIVERED


def test_where_a_message_would_wake_somebody_only_the_connection_is_tried(
    timed: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = replace(PRODUCTS[Product.WEBHOOK], canary_sends=False, question=None)
    monkeypatch.setitem(PRODUCTS, Product.WEBHOOK, quiet)
    canary = canaries.send(row(), by=timed.operator, clock=clock)
    assert (canary.outcome, canary.means, canary.status_code) == ("delivered", "connection", None)
    assert timed.receiver.log == []
    closed = connector("closed", "http://127.0.0.1:1/nobody")
    failed = canaries.send(closed, by=timed.operator, clock=clock)
    assert (failed.outcome, failed.failure_class) == ("failed", "connect")
    forbidden = connector("forbidden", "http://localhost:1/nobody")
    forbidden.allow_networks = []
    configuration.save(forbidden, by=None, clock=system_clock)
    failed = canaries.send(forbidden, by=timed.operator, clock=clock)
    assert (failed.outcome, failed.failure_class) == ("failed", "blocked_address")


def test_where_a_message_would_leave_a_ticket_it_is_only_asked_for_one(timed: World, clock: Clock) -> None:
    """ServiceNow has no table that a test message could go into; it is asked for a ticket that never was."""
    options = {"table": "incident"} if "table" in PRODUCTS[Product.SERVICENOW].options else {}
    desk = connector(
        "desk", timed.receiver.url(""), product="servicenow", token_ref="env:PATH", options=options
    )
    canary = canaries.send(desk, by=timed.operator, clock=clock)
    # The receiver knows no GET; it was asked and its answer understood as none.
    assert (canary.means, canary.outcome, canary.status_code) == ("question", "failed", 501)
    assert timed.receiver.log == []


# --- who may, and when --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ("analyst", "approver", "auditor"))
def test_p22_only_operators_and_administrators_test(timed: World, clock: Clock, part: str) -> None:
    with pytest.raises(NotAllowed):
        canaries.send(row(), by=getattr(timed, part), clock=clock)
    assert timed.receiver.log == []
    assert not CanaryTurn.objects.exists()


def refused(world: World, about: Connector, clock: Clock) -> str:
    """The code with which a canary is refused; the list of reasons says the same first."""
    reasons = canaries.reasons_against([about], clock=clock)[about.pk]
    before = len(world.receiver.log)
    with pytest.raises(Conflict) as refusal:
        canaries.send(about, by=world.operator, clock=clock)
    assert len(world.receiver.log) == before
    assert refusal.value.detail == f"No canary was sent. {reasons[0][1]}"
    assert refusal.value.code == reasons[0][0]
    return refusal.value.code


def test_one_every_ten_seconds(timed: World, clock: Clock) -> None:
    canaries.send(row(), by=timed.operator, clock=clock)
    clock.forward(seconds=9)
    assert refused(timed, row(), clock) == "canary_too_soon"
    clock.forward(seconds=1)
    assert canaries.send(row(), by=timed.administrator, clock=clock).outcome == Outcome.DELIVERED


def test_a_disabled_one_is_left_alone_and_a_paused_one_may_be_tested(timed: World, clock: Clock) -> None:
    configuration.pause("*", reason="Freeze.", by=timed.administrator, clock=clock)
    configuration.pause("webhook", reason="Freeze.", by=timed.administrator, clock=clock)
    assert canaries.send(row(), by=timed.operator, clock=clock).outcome == Outcome.DELIVERED
    off = row()
    off.enabled = False
    configuration.save(off, by=timed.administrator, clock=clock)
    clock.forward(minutes=1)
    assert refused(timed, row(), clock) == "connector_disabled"


def test_who_asked_to_be_left_alone_is(timed: World, clock: Clock) -> None:
    timed.receiver.behave("/webhook", status=429, headers={"retry-after": "120"})
    assert canaries.send(row(), by=timed.operator, clock=clock).failure_class == "throttled"
    clock.forward(seconds=119)
    assert refused(timed, row(), clock) == "throttled"
    clock.forward(seconds=2)
    assert canaries.send(row(), by=timed.operator, clock=clock).failure_class == "throttled"


def test_p17_one_under_way_stands_in_nobody_elses_way(
    transactional_db: None, receiver: Receiver, settings: Any
) -> None:
    """Two people at the same moment: one canary leaves, the other person is told why not."""
    world = World(receiver, providers=("webhook", "backup"))
    refused = threading.Event()
    receiver.behave("/webhook", until=refused)
    said: list[str] = []
    start = threading.Barrier(2)

    def test_it(by: Person) -> None:
        start.wait()
        try:
            said.append(canaries.send(row(), by=by, clock=system_clock).outcome)
        except Conflict as refusal:
            said.append(refusal.code)
        finally:
            refused.set()  # Whoever is told anything first is the one whose canary does not leave.
            connection.close()

    people = (world.operator, world.administrator)
    threads = [threading.Thread(target=test_it, args=(one,)) for one in people]
    for thread in threads:
        thread.start()
    assert canaries.send(row("backup"), by=world.operator, clock=system_clock).outcome == Outcome.DELIVERED
    for thread in threads:
        thread.join()
    assert sorted(said) == ["canary_running", "delivered"]
    assert len(receiver.arrived("/webhook")) == 1


# --- a crash ------------------------------------------------------------------------------------------------------


def died(world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody's process ends while a canary is under way."""

    def die(turn: CanaryTurn) -> None:
        assert CanaryTurn.objects.filter(pk=turn.pk).exists(), "the turn is taken before anything is opened"
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(canaries, "_carry_out", die)
        with pytest.raises(KeyboardInterrupt):
            canaries.send(row(), by=world.operator, clock=clock)


def test_p3_nobody_heard_of_leaves_an_unknown_outcome(
    timed: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    died(timed, clock, monkeypatch)
    assert refused(timed, row(), clock) == "canary_running"
    assert canaries.give_up(clock=clock) == 0
    clock.at += breakers.CANARY_TAKES
    assert canaries.give_up(clock=clock) == 1
    assert canaries.give_up(clock=clock) == 0
    (canary,) = Canary.objects.all()
    assert (canary.outcome, canary.by, canary.duration_ms) == ("outcome_unknown", timed.operator, None)
    assert payload(canary)["tested_by"] == timed.operator.username
    assert timed.receiver.log == []
    # It tells of our crash and nothing of the receiver.
    assert not Breaker.objects.exists()
    assert [str(one) for one in verification.verify()] == []


def test_the_next_one_says_what_became_of_the_lost_one(
    timed: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    died(timed, clock, monkeypatch)
    clock.at += breakers.CANARY_TAKES
    canaries.send(row(), by=timed.administrator, clock=clock)
    assert list(Canary.objects.values_list("outcome", flat=True)) == ["delivered", "outcome_unknown"]


# --- the breaker --------------------------------------------------------------------------------------------------


def test_a_canary_that_gets_through_closes_the_breaker(timed: World, clock: Clock) -> None:
    breaking.opened("webhook", clock)
    canaries.send(row(), by=timed.operator, clock=clock)
    assert Breaker.objects.get().state == BreakerState.CLOSED
    kinds = list(Record.objects.order_by("-index").values_list("kind", flat=True)[:2])
    assert kinds == ["connector-breaker", "connector-canary"]


def test_the_worker_sends_it_when_its_time_came(timed: World, clock: Clock) -> None:
    breaking.opened("webhook", clock)
    sent = len(timed.receiver.log)
    assert canaries.probe_due(clock=clock) == 0
    clock.at += breakers.COOL_DOWN
    timed.receiver.behave("/webhook", status=503)
    assert canaries.probe_due(clock=clock) == 1
    assert len(timed.receiver.log) == sent + 1
    # It failed: the next one has to wait twice as long.
    clock.at += breakers.COOL_DOWN
    assert canaries.probe_due(clock=clock) == 0
    clock.at += breakers.COOL_DOWN
    timed.receiver.behave("/webhook", status=200)
    assert canaries.probe_due(clock=clock) == 1
    assert Breaker.objects.get().state == BreakerState.CLOSED
    canary = Canary.objects.latest("pk")
    assert (canary.by, payload(canary)["tested_by"]) == (None, "")
    assert [str(one) for one in verification.verify()] == []


def test_p17_the_worker_tests_all_that_are_due_side_by_side(
    timed: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow receiver holds up nobody else's canary: none of them ends before all have begun."""
    for number in range(4):
        connector(f"other{number}", timed.receiver.url(f"/other{number}"))
    together = threading.Barrier(5)
    carry_out = canaries._carry_out

    def with_the_others(turn: CanaryTurn) -> Any:
        together.wait(60)
        return carry_out(turn)

    monkeypatch.setattr(canaries, "_carry_out", with_the_others)
    breaking.opened("webhook", clock)
    at = clock()
    for other in Connector.objects.exclude(key="webhook"):
        Breaker.objects.create(
            connector=other, state="open", opened_at=at, changed_at=at, probe_at=at, failures=5,
            failure_class="unavailable", cool_down_s=60,
        )  # fmt: skip
    clock.at += breakers.COOL_DOWN
    assert canaries.probe_due(clock=clock) == 5
    assert set(Breaker.objects.values_list("state", flat=True)) == {"closed"}


def test_p17_one_that_breaks_loses_no_other_ones_answer(
    timed: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    connector("broken", timed.receiver.url("/broken"))
    for key in ("broken", "webhook"):
        breaking.opened(key, clock)
    clock.at += breakers.COOL_DOWN
    carry_out = canaries._carry_out

    def breaks(turn: CanaryTurn) -> Any:
        if turn.connector.key == "broken":
            raise RuntimeError("a bug of one product")
        time.sleep(0.1)  # Its answer comes after that.
        return carry_out(turn)

    monkeypatch.setattr(canaries, "_carry_out", breaks)
    assert canaries.probe_due(clock=clock) == 2
    assert dict(Breaker.objects.values_list("connector__key", "state")) == {
        "broken": "open",
        "webhook": "closed",
    }
    clock.at += breakers.CANARY_TAKES
    assert canaries.give_up(clock=clock) == 1
    assert Canary.objects.get(connector__key="broken").outcome == Outcome.UNKNOWN


def test_two_workers_send_one(timed: World, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    breaking.opened("webhook", clock)
    clock.at += breakers.COOL_DOWN
    found = []
    carry_out = canaries._carry_out

    def meanwhile(turn: CanaryTurn) -> Any:
        found.append(canaries.probe_due(clock=clock))
        return carry_out(turn)

    monkeypatch.setattr(canaries, "ThreadPoolExecutor", _Here)
    monkeypatch.setattr(canaries, "_carry_out", meanwhile)
    monkeypatch.setattr(canaries, "as_completed", lambda done: list(done))
    assert canaries.probe_due(clock=clock) == 1
    assert found == [0]


class _Here:
    """A pool that does everything at once, in the thread that asks: the transaction is that thread's own."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.found: Any = None

    def __enter__(self) -> "_Here":
        return self

    def __exit__(self, *_: Any) -> None:
        """Nothing waits."""

    def submit(self, act: Any, turn: Any) -> "_Here":
        done = _Here()
        done.found = act(turn)
        return done

    def result(self) -> Any:
        return self.found


def test_p1_a_breaker_that_closed_sends_nothing_again(timed: World, clock: Clock) -> None:
    """After a failure nothing sends the content again but an approved retry: no canary, no closed breaker."""
    (case,) = timed.failed()
    breaking.opened("webhook", clock)
    sent = len(timed.receiver.log)
    clock.at += breakers.COOL_DOWN
    canaries.probe_due(clock=clock)
    deliveries.expire_leases(clock=clock)
    runs.execute_due(clock=clock)
    case.refresh_from_db()
    assert (case.state, case.attempt_count) == ("failed", 1)
    (after,) = timed.receiver.log[sent:]
    assert json.loads(after.body) == dict(canaries.EVENT)
