"""A clock behind the log is not to be trusted with anything live (P6)."""

from datetime import timedelta

import pytest

from evidence.domain import clock as clocks
from evidence.domain import health, surroundings
from evidence.errors import Conflict
from evidence.models import Case, Connector
from recovery.checks import approvers_suffice
from recovery.models import Execution
from tests.builders import Clock, World


def test_p6_a_clock_far_behind_the_log_claims_nothing(timed: World, clock: Clock) -> None:
    timed.failed()
    timed.approved()
    clock.forward(seconds=-61)
    before = len(timed.receiver.log)
    (skip,) = timed.ran().outcome.skipped
    assert (skip.code, skip.record is not None) == ("clock_behind", True)
    assert "61 s behind" in skip.reason
    assert not Execution.objects.exists()
    assert len(timed.receiver.log) == before
    clock.forward(seconds=61)
    assert timed.ran().outcome.recorded[0].receipt.delivered


def test_p6_a_clock_a_little_behind_is_an_ordinary_clock(timed: World, clock: Clock) -> None:
    timed.failed()
    timed.approved()
    clock.forward(seconds=-59)
    assert timed.ran().outcome.recorded[0].receipt.delivered


def test_p6_no_first_delivery_either(timed: World, clock: Clock) -> None:
    timed.announced()
    clock.forward(minutes=-5)
    before = len(timed.receiver.log)
    with pytest.raises(Conflict) as refused:
        timed.delivered()
    assert refused.value.code == "clock_behind"
    assert not Case.objects.exists()
    assert len(timed.receiver.log) == before


def test_p6_everybody_is_told(timed: World, clock: Clock) -> None:
    timed.announced()
    assert health.checks(clock=clock)["clock"]
    clock.forward(minutes=-5)
    assert not health.checks(clock=clock)["clock"]
    (said, *_) = surroundings.look(clock()).banners
    assert said.fact.startswith("This machine's clock is 300 s behind")
    assert clocks.how_far_behind(clock(), clock() + timedelta(seconds=60)) == timedelta()


def test_p4_too_few_approvers_are_a_system_check(world: World) -> None:
    assert approvers_suffice(databases=["default"]) == []
    Connector.objects.update(required_approvals=3)
    (warning,) = approvers_suffice(databases=["default"])
    assert "needs 3 approvals; 2 people hold the approver role" in warning.msg
    assert approvers_suffice(databases=None) == []
