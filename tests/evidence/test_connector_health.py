"""How connectors do: judged by what came of their tries, in a fixed number of queries."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from evidence.domain import configuration, connector_health
from evidence.domain.clock import system_clock
from evidence.domain.connector_health import SLOTS, THRESHOLDS, Health
from evidence.models import Connector
from tests.builders import World, connector
from tests.receiver import Receiver


@pytest.fixture
def two(db: None, receiver: Receiver) -> World:
    return World(receiver, providers=("webhook", "backup"))


def survey(**later: float) -> dict[str, Health]:
    return {health.key: health for health in connector_health.survey(datetime.now(UTC) + timedelta(**later))}


def test_a_quiet_connector_is_healthy(world: World) -> None:
    health = survey()["webhook"]
    assert (health.word, health.reasons, health.paused) == ("healthy", (), False)
    assert (health.sends, health.p50_ms, health.last_success, health.last_failure) == (0, None, None, None)
    assert [slot.median_ms for slot in health.slots] == [None] * SLOTS


def test_a_delivery_is_counted_and_timed(world: World) -> None:
    (case,) = world.delivered()
    attempt = case.attempts.get()
    health = survey()["webhook"]
    took = round((attempt.completed_at - attempt.started_at).total_seconds() * 1000)
    assert (health.word, health.delivered, health.sends) == ("healthy", 1, 1)
    assert (health.p50_ms, health.p95_ms, health.slots[-1].median_ms) == (took, took, took)
    assert health.last_success == attempt.completed_at
    assert survey(days=29)["webhook"].last_success == attempt.completed_at
    assert survey(days=31)["webhook"].last_success is None
    assert survey(days=2)["webhook"].sends == 0


def test_failures_warn_then_alarm_and_name_their_class(world: World) -> None:
    world.failed()
    health = survey()["webhook"]
    assert health.word == "warning"
    assert health.reasons == ("The last try was not delivered: receiver is unavailable (HTTP 503).",)
    assert (health.unsettled, health.unknown, health.delivered, health.sends) == (1, 0, 0, 1)
    assert health.last_failure
    assert (health.last_failure.label, health.last_failure.status_code) == ("receiver is unavailable", 503)
    assert health.slots[-1].failed == 1
    world.failed()
    world.failed()
    health = survey()["webhook"]
    assert health.word == "critical"
    assert "The last 3 tries were not delivered: receiver is unavailable (HTTP 503)." in health.reasons


def test_a_share_of_the_day_counts_once_there_were_enough(world: World) -> None:
    world.failed()
    world.delivered()
    world.delivered()
    assert survey()["webhook"].word == "healthy"
    world.delivered()
    health = survey()["webhook"]
    assert health.word == "warning"
    assert health.reasons == ("1 of 4 tries of the last 24 hours were not delivered.",)


def test_cases_that_wait_long_count_by_age(world: World) -> None:
    (case,) = world.failed()
    world.delivered()
    assert survey()["webhook"].word == "healthy"
    health = survey(hours=3)["webhook"]
    assert (health.word, health.reasons) == ("warning", ("1 case is not settled for 3 h.",))
    case.refresh_from_db()
    assert health.oldest_unsettled == case.last_outcome_at
    health = survey(days=3)["webhook"]
    assert (health.word, health.reasons) == ("critical", ("1 case is not settled for 3 days.",))


def test_an_unknown_outcome_is_neither_delivered_nor_timed(world: World) -> None:
    world.unknown()
    health = survey(minutes=10)["webhook"]
    assert (health.delivered, health.sends, health.unsettled, health.unknown) == (0, 2, 1, 1)
    assert health.last_failure
    assert health.last_failure.label == "outcome unknown"
    assert sum(slot.failed for slot in health.slots) == 2
    assert sum(slot.median_ms is not None for slot in health.slots) == 1


def test_a_retry_that_delivers_makes_it_well(world: World) -> None:
    world.failed()
    world.approved()
    world.ran()
    health = survey()["webhook"]
    assert (health.word, health.unsettled, health.delivered, health.sends) == ("healthy", 0, 1, 2)


def test_what_an_administrator_did_comes_before_the_figures(two: World) -> None:
    configuration.pause("webhook", reason="Migration.", by=two.administrator, clock=system_clock)
    backup = Connector.objects.get(key="backup")
    backup.enabled = False
    configuration.save(backup, by=two.administrator, clock=system_clock)
    connector("chat", two.receiver.url("/chat"), token_ref="env:CAVRA_TEST_NOT_SET")
    found = survey()
    assert (found["webhook"].word, found["webhook"].paused) == ("healthy", True)
    assert found["webhook"].reasons == ("Live sending to webhook is paused.",)
    assert (found["backup"].word, found["backup"].reasons) == (
        "disabled",
        ("The connector backup is disabled.",),
    )
    assert found["chat"].word == "misconfigured"
    assert found["chat"].reasons == (
        "Its configuration cannot be used: token_ref names an environment variable that is not set.",
    )
    configuration.resume("webhook", by=two.administrator, clock=system_clock)
    configuration.pause("*", reason="Incident.", by=two.administrator, clock=system_clock)
    assert all(health.paused for health in survey().values())


def test_the_worst_comes_first_and_one_does_not_colour_the_other(two: World) -> None:
    connector("aaa", two.receiver.url("/aaa"))
    for _ in range(3):
        two.failed("webhook")
    found = connector_health.survey(datetime.now(UTC))
    assert [(health.key, health.word) for health in found] == [
        ("webhook", "critical"),
        ("aaa", "healthy"),
        ("backup", "healthy"),
    ]


def test_it_costs_the_same_for_many_connectors_and_cases(two: World) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            survey()
        return len(captured)

    two.failed()
    before = queries()
    connector("chat", two.receiver.url("/chat"))
    two.failed()
    two.delivered("chat")
    assert queries() == before <= 10


def test_every_limit_is_reached_later_the_worse_it_is() -> None:
    for worse, better in pairwise(THRESHOLDS):
        assert worse.in_a_row >= better.in_a_row
        assert worse.share >= better.share
        assert worse.of_least >= better.of_least
        assert worse.waiting >= better.waiting
