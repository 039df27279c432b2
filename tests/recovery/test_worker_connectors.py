"""What the worker does about connectors by itself: canaries that are due, and announcements (P9, P16)."""

from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command

from evidence.domain import breakers, canaries, configuration, troubles
from evidence.domain.clock import system_clock
from evidence.models import Breaker, Canary, Connector, Trouble
from tests.builders import Clock, World
from tests.evidence import breaking


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has to be waited for. The test's transaction is the worker's: its connection stays."""
    monkeypatch.setattr("recovery.management.commands.worker.close_old_connections", lambda: None)
    monkeypatch.setattr(breakers, "COOL_DOWN", timedelta(0))
    monkeypatch.setattr(breakers, "CANARY_TAKES", timedelta(seconds=1))
    monkeypatch.setattr(troubles, "AFTER", timedelta(0))


def test_it_tests_a_connector_whose_breaker_is_open(two: World, at_once: None) -> None:
    breaking.opened("webhook", Clock())
    call_command("worker", "--once")
    assert Breaker.objects.get().state == "closed"
    assert [(one.connector.key, one.by, one.outcome) for one in Canary.objects.all()] == [
        ("webhook", None, "delivered")
    ]
    assert [one.path for one in two.receiver.log] == ["/webhook"]


@pytest.mark.parametrize("scope", ("*", "webhook"))
def test_p9_not_one_that_somebody_paused(two: World, at_once: None, scope: str) -> None:
    breaking.opened("webhook", Clock())
    configuration.pause(scope, reason="Freeze.", by=two.administrator, clock=system_clock)
    call_command("worker", "--once")
    assert not Canary.objects.exists()
    assert two.receiver.log == []


def test_it_gives_up_what_nobody_heard_of(two: World, at_once: None, monkeypatch: Any) -> None:
    canaries._begin(Connector.objects.get(key="webhook"), by=two.operator, clock=lambda: system_clock())
    later = system_clock() + timedelta(seconds=2)
    monkeypatch.setattr("recovery.management.commands.worker.system_clock", lambda: later)
    call_command("worker", "--once")
    (canary,) = Canary.objects.all()
    assert (canary.outcome, canary.by) == ("outcome_unknown", two.operator)
    assert two.receiver.log == []


def test_it_announces_trouble_and_its_end_and_sends_no_evidence_again(two: World, at_once: None) -> None:
    row = Connector.objects.get(key="webhook")
    row.announce_through = "backup"
    configuration.save(row, by=None, clock=system_clock)
    two.failed("webhook")
    sent = len(two.receiver.arrived("/webhook"))
    call_command("worker", "--once")
    call_command("worker", "--once")
    (trouble,) = Trouble.objects.all()
    assert (trouble.told, trouble.ended_at) == ("delivered", None)
    assert len(two.receiver.arrived("/webhook")) == sent
    two.delivered("webhook")
    call_command("worker", "--once")
    trouble.refresh_from_db()
    assert (trouble.told_end, bool(trouble.ended_at)) == ("delivered", True)
    told = [one for one in two.receiver.arrived("/backup") if troubles.EVENT_TYPE.encode() in one.body]
    assert len(told) == 2
