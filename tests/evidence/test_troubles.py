"""A connector that keeps failing is announced once through another one, and so is that it delivers again (P16, P17)."""

import json
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from evidence.domain import canaries, configuration, deliveries, records, troubles, verification
from evidence.domain.clock import system_clock
from evidence.domain.configuration import Entry
from evidence.domain.deliveries import DeliveryRequest
from evidence.domain.packages import PackageFilters
from evidence.enums import FailureClass
from evidence.errors import InvalidInput
from evidence.models import Attempt, Breaker, Case, Connector, Person, Record, Trouble
from tests.builders import LOOPBACK, Clock, World, connector
from tests.evidence import breaking
from tests.receiver import Receiver


@pytest.fixture
def world(db: None, receiver: Receiver, clock: Clock) -> World:
    """``webhook`` is announced through ``chat``."""
    made = World(receiver, clock=clock)
    connector("chat", receiver.url("/chat"))
    announce_through("chat")
    return made


def row(key: str = "webhook") -> Connector:
    return Connector.objects.get(key=key)


def announce_through(key: str, of: str = "webhook") -> None:
    changed = row(of)
    changed.announce_through = key
    configuration.save(changed, by=None, clock=system_clock)


def told(world: World) -> list[dict[str, Any]]:
    """What reached the other connector."""
    return [json.loads(one.body) for one in world.receiver.arrived("/chat")]


def kinds(count: int) -> list[str]:
    return list(Record.objects.order_by("-index").values_list("kind", flat=True)[:count])[::-1]


# --- once ---------------------------------------------------------------------------------------------------------


def test_an_hour_of_failures_is_told_once_and_that_it_is_over_too(world: World, clock: Clock) -> None:
    (case,) = world.failed("webhook")
    first = case.attempts.get().completed_at
    assert troubles.announce(clock=clock) == 0
    clock.at = first + troubles.AFTER
    assert troubles.announce(clock=clock) == 1
    assert troubles.announce(clock=clock) == 0
    (event,) = told(world)
    assert event == {
        "schema_version": "cavra.connector.trouble.v1",
        "event_type": "cavra.connector.trouble",
        "session_id": Trouble.objects.get().trouble_id,
        "title": "CAVRA: webhook keeps failing",
        "text": f"webhook has been failing since {records.timestamp(first)}: receiver is unavailable. 1 case waits.",
        "alert_level": "critical",
        "max_severity": "high",
        "change": "began",
        "connector": "webhook",
        "failure_class": "unavailable",
        "since": records.timestamp(first),
        "waiting_cases": 1,
    }
    assert kinds(2) == ["connector-trouble", "connector-trouble-notice"]
    canaries.send(row(), by=world.operator, clock=clock)
    assert troubles.announce(clock=clock) == 1
    assert troubles.announce(clock=clock) == 0
    assert [one["change"] for one in told(world)] == ["began", "ended"]
    assert told(world)[1]["title"] == "CAVRA: webhook delivers again"
    trouble = Trouble.objects.get()
    assert (trouble.told, trouble.told_end, bool(trouble.ended_at)) == ("delivered", "delivered", True)
    assert [str(one) for one in verification.verify()] == []
    # It was nobody's delivery.
    assert Attempt.objects.count() == Case.objects.count() == 1


def test_p18_nothing_of_the_evidence_and_no_address_is_told(world: World, clock: Clock) -> None:
    (case,) = world.failed("webhook")
    clock.forward(hours=2)
    troubles.announce(clock=clock)
    (arrived,) = world.receiver.arrived("/chat")
    for word in (
        case.case_id,
        case.plan.delivery_id,
        case.package.audit_id,
        world.schedule.schedule_id,
        "127.0.0.1",
        "http",
        *Person.objects.values_list("username", flat=True),
    ):
        assert word.encode() not in arrived.body, word
    for record in Record.objects.filter(kind__startswith="connector-trouble"):
        assert b"127.0.0.1" not in bytes(record.body or b"")


def test_two_workers_tell_it_once(world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both looked at the same moment; the row that is there first decides."""
    world.failed("webhook")
    clock.forward(hours=2)
    (seen,) = troubles.failing(clock())
    assert troubles.announce(clock=clock) == 1
    monkeypatch.setattr(troubles, "failing", lambda at: [seen])
    assert troubles.announce(clock=clock) == 0
    assert len(told(world)) == 1
    again = Trouble.objects.get()
    again.pk, again.trouble_id = None, "trouble-0000000000000000"
    with pytest.raises(IntegrityError), transaction.atomic():
        again.save()


def test_who_died_while_telling_leaves_it_unknown_and_nobody_tells_it_again(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.failed("webhook")
    clock.forward(hours=2)

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(troubles, "_sent", die)
        with pytest.raises(KeyboardInterrupt):
            troubles.announce(clock=clock)
    assert troubles.announce(clock=clock) == 0
    assert Trouble.objects.get().told == ""
    assert told(world) == []
    assert [str(one) for one in verification.verify()] == []


# --- through whom -------------------------------------------------------------------------------------------------


def test_p16_without_somebody_to_tell_it_is_known_that_nobody_is_told(world: World, clock: Clock) -> None:
    announce_through("")
    world.failed("webhook")
    clock.forward(hours=2)
    assert troubles.announce(clock=clock) == 0
    (one,) = troubles.failing(clock())
    assert (one.connector.key, one.through, one.label) == ("webhook", "", "receiver is unavailable")
    assert not Trouble.objects.exists()


def test_one_that_is_held_back_is_waited_for(world: World, clock: Clock) -> None:
    world.failed("webhook")
    clock.forward(hours=2)
    configuration.pause("chat", reason="Freeze.", by=world.administrator, clock=clock)
    assert troubles.announce(clock=clock) == 0
    (one,) = troubles.failing(clock())
    assert one.held == "Live sending to chat is paused."
    configuration.resume("chat", by=world.administrator, clock=clock)
    held = breaking.opened("chat", clock)
    assert troubles.announce(clock=clock) == 0
    assert told(world) == []
    canaries.send(row("chat"), by=world.operator, clock=clock)
    held.refresh_from_db()
    assert held.state == "closed"
    assert troubles.announce(clock=clock) == 1
    assert [one["event_type"] for one in told(world)] == [canaries.EVENT["event_type"], troubles.EVENT_TYPE]


def test_a_failed_announcement_is_recorded_and_is_nobodys_trouble(world: World, clock: Clock) -> None:
    """No loops: each is announced through the other, and the second one fails as well."""
    announce_through("webhook", of="chat")
    world.failed("webhook")
    clock.forward(hours=2)
    world.receiver.behave("/chat", status=500)
    assert troubles.announce(clock=clock) == 1
    assert Trouble.objects.get().told == "failed"
    said = records.payload_of(Record.objects.get(kind="connector-trouble-notice"))
    assert said is not None
    assert (said["outcome"], said["failure_class"], said["status_code"]) == ("failed", "unavailable", 500)
    assert Breaker.objects.get(connector__key="chat").failures == 1
    clock.forward(hours=2)
    assert troubles.announce(clock=clock) == 0
    assert troubles.failing(clock()) == []
    assert len(told(world)) == 1


@pytest.mark.parametrize(
    ("key", "sentence"),
    (
        ("webhook", "Name another connector: one that fails cannot say so itself."),
        ("nothing", "There is no connector nothing."),
    ),
)
def test_who_is_told_is_another_connector_that_is_there(world: World, key: str, sentence: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        announce_through(key)
    assert refusal.value.errors == {"announce_through": [sentence]}


def test_two_of_one_file_may_name_each_other(world: World) -> None:
    rows = [
        Connector(
            key=key,
            product="webhook",
            url=world.receiver.url(f"/{key}"),
            allow_networks=LOOPBACK,
            announce_through=other,
        )
        for key, other in (("east", "west"), ("west", "east"))
    ]
    configuration.save_all([Entry(one) for one in rows], by=None, clock=system_clock)
    assert row("east").announce_through == "west"


def test_p17_who_stops_taking_announcements_gets_no_more_of_them(world: World, clock: Clock) -> None:
    """With a whole site down, each of them would hold the worker up for as long as a send may take."""
    connector("other", world.receiver.url("/other"))
    announce_through("chat", of="other")
    world.failed("webhook", "other")
    breaking.heard("chat", *[FailureClass.UNAVAILABLE] * 4, clock=clock)
    world.receiver.behave("/chat", status=503)
    clock.forward(hours=2)
    assert len(troubles.failing(clock())) == 2
    assert troubles.announce(clock=clock) == 1
    assert len(told(world)) == 1
    (left,) = troubles.failing(clock())
    assert left.held.startswith("chat is held back after 5 failures")


def test_a_trouble_ends_although_nobody_can_be_told_any_more(world: World, clock: Clock) -> None:
    """Else the next one of the same connector would be nobody's news."""
    world.failed("webhook")
    clock.forward(hours=2)
    assert troubles.announce(clock=clock) == 1
    off = row("chat")
    off.enabled = False
    configuration.save(off, by=None, clock=clock)
    canaries.send(row(), by=world.operator, clock=clock)
    assert troubles.announce(clock=clock) == 1
    trouble = Trouble.objects.get()
    assert (bool(trouble.ended_at), trouble.told_end) == (True, "")
    assert [one["change"] for one in told(world)] == ["began"]
    assert [str(one) for one in verification.verify()] == []


# --- what is no trouble -------------------------------------------------------------------------------------------


def test_where_nothing_waits_nobody_is_told(world: World, clock: Clock) -> None:
    (case,) = world.failed("webhook")
    world.disposed(case)
    clock.forward(hours=2)
    assert troubles.announce(clock=clock) == 0
    assert troubles.failing(clock()) == []


def test_what_waits_behind_an_open_breaker_is_a_trouble_although_nothing_of_it_was_tried(
    world: World, clock: Clock
) -> None:
    """Notices or canaries opened it: the cases that are parked since then have no attempt that could fail."""
    world.announced()
    world.acknowledged()
    brake = breaking.opened("webhook", clock)
    request = DeliveryRequest(filters=PackageFilters(), providers=("webhook",))
    deliveries.deliver_audit(request, by=world.analyst, clock=clock)
    clock.forward(hours=1)
    assert troubles.announce(clock=clock) == 1
    (event,) = told(world)
    assert (event["since"], event["failure_class"], event["waiting_cases"]) == (
        records.timestamp(brake.opened_at or clock()),
        "unavailable",
        1,
    )
    canaries.send(row(), by=world.operator, clock=clock)
    assert troubles.announce(clock=clock) == 1
    assert [one["change"] for one in told(world)] == ["began", "ended"]


def test_what_is_down_by_plan_is_no_news(world: World, clock: Clock) -> None:
    world.failed("webhook")
    breaking.window("webhook", clock(), clock() + timedelta(hours=4), clock)
    clock.forward(hours=2)
    assert troubles.failing(clock()) == []
    clock.forward(hours=2)
    (one,) = troubles.failing(clock())
    assert one.connector.key == "webhook"


def test_a_success_in_between_begins_the_hour_anew(world: World, clock: Clock) -> None:
    world.failed("webhook")
    world.delivered("webhook")
    world.failed("webhook")
    first = Attempt.objects.filter(outcome="failed").latest("completed_at").completed_at
    clock.at = first + troubles.AFTER
    (one,) = troubles.failing(clock())
    assert one.since == first


def test_a_disabled_one_is_let_be(world: World, clock: Clock) -> None:
    world.failed("webhook")
    clock.forward(hours=2)
    off = row()
    off.enabled = False
    configuration.save(off, by=world.administrator, clock=clock)
    assert troubles.announce(clock=clock) == 0
