"""Breakers and maintenance windows: what opens one, what closes it, and what waits meanwhile (P16, P17)."""

from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from evidence.connectors.failures import PROPERTIES
from evidence.domain import breakers, configuration, drills, ledger, policies, records, verification
from evidence.domain.breakers import CANARY_TAKES, COOL_DOWN, LONGEST_COOL_DOWN
from evidence.enums import BreakerState, FailureClass, Hold
from evidence.errors import InvalidInput
from evidence.models import Breaker, Connector, ConnectorWindow, Record
from tests.builders import Clock, World, connector
from tests.evidence.breaking import canary, closed, heard, opened, receipt, window
from tests.processes import together
from tests.receiver import Receiver

DOWN, FINE = FailureClass.UNAVAILABLE, None


def state(key: str, clock: Clock) -> BreakerState:
    row = Connector.objects.get(key=key)
    return breakers.standing([row], clock())[row.pk].state


def codes(key: str, clock: Clock) -> list[str]:
    return [code for code, _ in breakers.reasons_against_sending(Connector.objects.get(key=key), clock())]


@pytest.fixture
def committed(transactional_db: None, receiver: Receiver) -> World:
    return World(receiver)


@pytest.fixture
def splunk(db: None, clock: Clock) -> Connector:
    return connector("splunk", "http://127.0.0.1:9/")


@pytest.fixture
def few(splunk: Connector) -> list[Connector]:
    return [splunk, *(connector(f"c{number}", "http://127.0.0.1:9/") for number in range(4))]


# --- what opens it ------------------------------------------------------------------------------------------------


def test_five_failures_in_a_row_open_it_and_it_is_a_record(splunk: Connector, clock: Clock) -> None:
    assert heard("splunk", *[DOWN] * 4, clock=clock) == []
    assert (state("splunk", clock), codes("splunk", clock)) == (BreakerState.CLOSED, [])
    (draft,) = heard("splunk", FailureClass.CONNECT, clock=clock)
    assert (state("splunk", clock), codes("splunk", clock)) == (BreakerState.OPEN, ["breaker_open"])
    said = records.payload_of(Record.objects.get(record_id=draft.record_id))
    assert said is not None
    assert {name: said[name] for name in ("provider", "change", "failure_class", "failures")} == {
        "provider": "splunk",
        "change": "opened",
        "failure_class": "connect",
        "failures": 5,
    }
    assert "127.0.0.1" not in str(said)


def test_a_success_begins_the_row_anew(splunk: Connector, clock: Clock) -> None:
    heard("splunk", *[DOWN] * 4, FINE, *[DOWN] * 4, clock=clock)
    assert state("splunk", clock) is BreakerState.CLOSED
    heard("splunk", DOWN, clock=clock)
    assert state("splunk", clock) is BreakerState.OPEN


@pytest.mark.parametrize("failure", [one for one in FailureClass if not PROPERTIES[one].counts_for_breaker])
def test_what_says_nothing_about_the_receiver_does_not_open_it(
    splunk: Connector, clock: Clock, failure: FailureClass
) -> None:
    """Above all ``rejected``: a wrong payload is no broken receiver."""
    assert heard("splunk", *[failure] * 9, clock=clock) == []
    assert state("splunk", clock) is BreakerState.CLOSED


def test_which_failures_count(splunk: Connector) -> None:
    spared = {"blocked_address", "auth_setup", "rejected", "misconfigured", "disabled", "breaker_open"}
    assert {one.value for one in FailureClass if not PROPERTIES[one].counts_for_breaker} == spared


def test_a_batch_counts_in_the_order_of_its_answers(splunk: Connector, clock: Clock) -> None:
    bad = [receipt("splunk", DOWN, clock() + timedelta(seconds=place)) for place in range(5)]
    good = replace(receipt("splunk", FINE, clock() + timedelta(seconds=2.5)), token="1" * 32)
    with transaction.atomic():
        assert breakers.heard([*bad, good], at=clock()) == []
    assert Breaker.objects.get().failures == 2


def test_what_was_under_way_when_it_opened_moves_it_no_more(splunk: Connector, clock: Clock) -> None:
    row = opened("splunk", clock)
    assert heard("splunk", DOWN, FINE, DOWN, clock=clock) == []
    again = Breaker.objects.get()
    assert (again.state, again.failures, again.probe_at) == (row.state, row.failures, row.probe_at)


def test_a_success_costs_no_lock_while_nothing_is_counted(splunk: Connector, clock: Clock) -> None:
    with transaction.atomic(), CaptureQueriesContext(connection) as asked:
        breakers.heard([receipt("splunk", FINE, clock())], at=clock())
    assert len(asked) == 1
    assert not Breaker.objects.exists()


def test_no_connector_is_held_back_where_that_is_switched_off(
    splunk: Connector, clock: Clock, settings: pytest.FixtureRequest
) -> None:
    opened("splunk", clock)
    settings.CAVRA_BREAKER_FAILURES = 0  # type: ignore[attr-defined]
    assert (codes("splunk", clock), list(breakers.due_canaries(clock()))) == ([], [])
    assert not Connector.objects.filter(breakers.waiting(clock())).exists()
    assert heard("splunk", *[DOWN] * 9, clock=clock) == []


# --- half-open ----------------------------------------------------------------------------------------------------


def test_after_the_cool_down_a_canary_may_go_and_its_success_closes(splunk: Connector, clock: Clock) -> None:
    opened("splunk", clock)
    assert list(breakers.due_canaries(clock())) == []
    clock.forward(seconds=COOL_DOWN.total_seconds())
    assert state("splunk", clock) is BreakerState.HALF_OPEN
    # Evidence goes on waiting: only the canary may go.
    assert codes("splunk", clock) == ["breaker_open"]
    assert list(breakers.due_canaries(clock())) == [splunk]
    (draft,) = canary("splunk", FINE, clock)
    assert draft.view["breaker"]["change"] == "closed"
    assert (state("splunk", clock), codes("splunk", clock)) == (BreakerState.CLOSED, [])
    row = Breaker.objects.get()
    assert (row.failures, row.opened_at, row.probe_at) == (0, None, None)


def test_where_only_canaries_get_through_it_stays_open_for_longer_each_time(
    splunk: Connector, clock: Clock
) -> None:
    """A question is answered and a ticket refused: with each round five deliveries that waited would be spent."""
    waited = []
    for _ in range(7):
        row = opened("splunk", clock)
        waited.append((row.probe_at or clock.at) - clock.at)
        closed("splunk", clock)
    assert waited[:3] == [COOL_DOWN, 2 * COOL_DOWN, 4 * COOL_DOWN]
    assert waited[-2:] == [LONGEST_COOL_DOWN, LONGEST_COOL_DOWN]
    heard("splunk", FINE, clock=clock)
    row = opened("splunk", clock)
    assert row.probe_at == clock() + COOL_DOWN


def test_a_canary_that_fails_doubles_what_the_next_one_waits_for(splunk: Connector, clock: Clock) -> None:
    opened("splunk", clock)
    waited = []
    for _ in range(7):
        clock.at = Breaker.objects.get().probe_at or clock.at
        # Of any class: that it is refused shows that nothing gets through, too.
        assert canary("splunk", FailureClass.REJECTED, clock) == []
        waited.append((Breaker.objects.get().probe_at or clock.at) - clock.at)
    assert waited[0] == 2 * COOL_DOWN
    assert waited == sorted(waited)
    assert waited[-2:] == [LONGEST_COOL_DOWN, LONGEST_COOL_DOWN]
    assert Record.objects.filter(kind="connector-breaker").count() == 1


def test_of_two_workers_one_sends_the_canary(splunk: Connector, clock: Clock) -> None:
    opened("splunk", clock)
    clock.forward(minutes=2)
    assert breakers.begin_canary(splunk, at=clock())
    assert not breakers.begin_canary(splunk, at=clock())
    # Nobody is heard of again: the next one is due.
    clock.forward(seconds=CANARY_TAKES.total_seconds())
    assert breakers.begin_canary(splunk, at=clock())


def test_a_canary_of_a_closed_breaker_counts_like_any_send(splunk: Connector, clock: Clock) -> None:
    heard("splunk", *[DOWN] * 4, clock=clock)
    (draft,) = canary("splunk", DOWN, clock)
    assert draft.view["breaker"]["change"] == "opened"


def test_no_canary_goes_to_what_is_paused_disabled_or_down_by_plan(
    few: list[Connector], clock: Clock
) -> None:
    for row in few:
        opened(row.key, clock)
    clock.forward(minutes=5)
    assert len(breakers.due_canaries(clock())) == 5
    few[1].enabled = False
    configuration.save(few[1], by=None, clock=clock)
    window("c1", clock(), clock() + timedelta(hours=1), clock)
    assert {row.key for row in breakers.due_canaries(clock())} == {"splunk", "c2", "c3"}


# --- Retry-After --------------------------------------------------------------------------------------------------


def test_what_the_receiver_asks_for_holds_the_connector_back(splunk: Connector, clock: Clock) -> None:
    heard("splunk", FailureClass.THROTTLED, clock=clock, retry_after_s=300)
    assert codes("splunk", clock) == ["throttled"]
    # A shorter wish does not take the longer one back.
    heard("splunk", FailureClass.THROTTLED, clock=clock, retry_after_s=10)
    clock.forward(seconds=299)
    assert codes("splunk", clock) == ["throttled"]
    clock.forward(seconds=1)
    assert codes("splunk", clock) == []


def test_no_canary_goes_before_the_receiver_wants_one(splunk: Connector, clock: Clock) -> None:
    for _ in range(5):
        heard("splunk", FailureClass.THROTTLED, clock=clock, retry_after_s=600)
    row = Breaker.objects.get()
    assert row.probe_at == clock() + timedelta(seconds=600)
    clock.forward(minutes=10)
    canary("splunk", FailureClass.THROTTLED, clock, retry_after_s=3_600)
    assert Breaker.objects.get().probe_at == clock() + timedelta(hours=1)


# --- windows ------------------------------------------------------------------------------------------------------


def test_a_window_makes_sends_wait_exactly_as_long_as_it_lasts(splunk: Connector, clock: Clock) -> None:
    start = clock() + timedelta(hours=1)
    window("splunk", start, start + timedelta(hours=2), clock)
    assert codes("splunk", clock) == []
    clock.at = start
    assert codes("splunk", clock) == ["maintenance_window"]
    (wait,) = breakers.waits([splunk], clock())[splunk.pk]
    assert (wait.code, wait.until) == (Hold.MAINTENANCE_WINDOW, start + timedelta(hours=2))
    clock.at = start + timedelta(hours=2)
    assert codes("splunk", clock) == []


@pytest.mark.parametrize(
    ("length", "said"),
    (
        (timedelta(), "Must be later than the start."),
        (timedelta(hours=-1), "Must be later than the start."),
        (timedelta(days=31), "A window is at most 30 days long; disable the connector instead."),
    ),
)
def test_a_window_has_an_end_within_reach(
    splunk: Connector, clock: Clock, length: timedelta, said: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        window("splunk", clock(), clock() + length, clock)
    assert refused.value.errors == {"windows.0.end_at": [said]}
    assert not ConnectorWindow.objects.exists()


def test_a_window_is_recorded_and_bars_nobody_from_approving(world: World, clock: Clock) -> None:
    """When it is sent is no part of what is sent."""
    row = Connector.objects.get(key="webhook")
    part = ConnectorWindow(window_id="x", start_at=clock(), end_at=clock() + timedelta(hours=1))
    configuration.save(row, by=world.administrator, clock=clock, windows=[part])
    said = records.payload_of(Record.objects.latest("index"))
    assert said is not None
    assert said["changed_fields"] == ["windows"]
    assert not row.edits.exists()


# --- islands and races --------------------------------------------------------------------------------------------


def test_p17_the_breaker_of_one_holds_nobody_else_back(few: list[Connector], clock: Clock) -> None:
    opened("splunk", clock)
    found = breakers.standing(few, clock())
    assert [row.key for row in few if found[row.pk].waits] == ["splunk"]
    assert [row.key for row in Connector.objects.filter(breakers.waiting(clock()))] == ["splunk"]


def test_it_costs_two_queries_however_many_connectors(few: list[Connector], clock: Clock) -> None:
    with CaptureQueriesContext(connection) as one:
        breakers.standing(few[:1], clock())
    with CaptureQueriesContext(connection) as many:
        breakers.standing(few, clock())
    assert len(one) == len(many) == 2


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_two_at_once_count_right_and_open_it_once(committed: World) -> None:
    clock = Clock(committed.clock())
    act = partial(heard, "webhook", DOWN, clock=clock)
    results = together(*[act] * 8)
    assert [one for one in results if isinstance(one, Exception)] == []
    row = Breaker.objects.get()
    # Those after the fifth were under way when it opened.
    assert (row.state, row.failures) == (BreakerState.OPEN, 5)
    assert Record.objects.filter(kind="connector-breaker").count() == 1


# --- doors --------------------------------------------------------------------------------------------------------


def test_an_announcement_says_whom_it_did_not_tell_and_why(world: World, clock: Clock) -> None:
    opened("webhook", clock)
    arrived = len(world.receiver.log)
    done = drills.announce(world.schedule, by=world.analyst, clock=clock, force=True)
    assert done.delivery is None
    assert [(one["provider"], one["code"]) for one in done.held] == [("webhook", "breaker_open")]
    assert "held back after 5 failures in a row" in done.held[0]["reason"]
    assert len(world.receiver.log) == arrived


def test_what_only_waits_is_no_refusal(splunk: Connector, clock: Clock) -> None:
    opened("splunk", clock)
    splunk.enabled = False
    reasons = policies.reasons_against_sending(splunk, frozenset({"*"}), clock())
    assert [code for code, _ in reasons] == ["sending_paused", "connector_disabled", "breaker_open"]
    assert [code for code, _ in policies.refusals(reasons)] == ["sending_paused", "connector_disabled"]
    assert frozenset(Hold) == policies.WAITS


def test_the_records_tell_every_breaker(splunk: Connector, clock: Clock) -> None:
    opened("splunk", clock)
    assert list(verification.verify()) == []
    real = Breaker.objects.get().opened_at
    Breaker.objects.update(opened_at=clock() - timedelta(days=1))
    assert [one.what for one in verification.verify()] == ["breaker splunk, opened_at"]
    Breaker.objects.update(opened_at=real)
    closed("splunk", clock)
    assert list(verification.verify()) == []


def test_the_database_keeps_breakers(splunk: Connector, clock: Clock) -> None:
    opened("splunk", clock)
    for act in (
        lambda: Breaker.objects.all().delete(),
        lambda: Breaker.objects.update(opened_at=None),
        lambda: Breaker.objects.update(state=BreakerState.HALF_OPEN),
    ):
        with pytest.raises(IntegrityError), transaction.atomic():
            act()
    assert ledger.newest_time() is not None
