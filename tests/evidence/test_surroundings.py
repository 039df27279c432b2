"""What stands around every page is read in two queries and says what is wrong with the service."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.db.models import F
from django.http import HttpRequest
from django.template import Context, Template
from django.test.utils import CaptureQueriesContext

from evidence import guards
from evidence.domain import configuration, heartbeats, surroundings, verifications
from evidence.domain.clock import system_clock
from evidence.enums import Role
from evidence.models import LedgerHead, RecordCounter, SealEntry
from tests.builders import Clock, connector, person

pytestmark = pytest.mark.django_db


@pytest.fixture
def clock() -> Clock:
    return Clock(datetime(2030, 6, 1, 10, 30, tzinfo=UTC))


@pytest.fixture
def well(clock: Clock) -> Clock:
    """A worker that lives and a log that was verified."""
    heartbeats.beat("w:1", clock=clock)
    verifications.run_due(clock=clock)
    return clock


def told(clock: Clock) -> list[tuple[str, str]]:
    return [(banner.tone, banner.fact) for banner in surroundings.look(clock()).banners]


def test_all_is_well(well: Clock) -> None:
    around = surroundings.look(well())
    assert (around.size, around.worker_alive, around.verified) == (LedgerHead.objects.get().size, True, True)
    assert around.banners == []


def test_it_costs_one_query_and_another_while_something_is_paused(clock: Clock) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            surroundings.look(clock()).banners  # noqa: B018
        return len(captured)

    # A log that grew is held once against the head that lies beside the database.
    assert (queries(), queries()) == (2, 1)
    administrator = person(Role.ADMINISTRATOR)
    for key in ("a", "b", "c"):
        connector(key, "http://127.0.0.1/")
        configuration.pause(key, reason="migration", by=administrator, clock=system_clock)
    heartbeats.beat("w:1", clock=clock)
    verifications.run_due(clock=clock)
    assert (queries(), queries()) == (3, 2)


def test_a_page_asks_once(well: Clock) -> None:
    request = HttpRequest()
    template = Template("{% load surroundings %}{% surroundings as a %}{% surroundings as b %}{{ b.size }}")
    surroundings.look(well())
    with CaptureQueriesContext(connection) as captured:
        shown = template.render(Context({"request": request}))
    assert shown == str(LedgerHead.objects.get().size)
    assert len(captured) == 1


def test_a_fresh_installation_says_what_is_missing(clock: Clock) -> None:
    assert told(clock) == [
        ("bad", "The worker never ran."),
        ("warn", "The ledger was never verified."),
    ]


def test_a_silent_worker_is_told_with_its_last_sign(well: Clock) -> None:
    well.forward(minutes=2)
    assert told(well) == [("bad", "The worker has not run since 10:30:00 UTC.")]
    well.forward(days=1)
    assert told(well) == [("bad", "The worker has not run since 1 June 2030 10:30:00 UTC.")]


def test_pauses_say_who_and_why(well: Clock) -> None:
    administrator = person(Role.ADMINISTRATOR, name="i.adeyemi")
    connector("splunk", "http://127.0.0.1/")
    configuration.pause("splunk", reason="Index migration.", by=administrator, clock=well)
    configuration.pause("*", reason="Incident 7.", by=administrator, clock=well)
    assert told(well) == [
        ("bad", "Live sending to all connectors is paused since 10:30:00 UTC by i.adeyemi: Incident 7."),
        ("warn", "Live sending to splunk is paused since 10:30:00 UTC by i.adeyemi: Index migration."),
    ]
    configuration.resume("*", by=administrator, clock=well)
    configuration.resume("splunk", by=administrator, clock=well)
    assert told(well) == []


def test_missing_guards_are_told_by_worker_or_verification(well: Clock) -> None:
    guards.drop()
    missing = guards.differences()[0]
    assert told(well) == []  # No page looks into the catalog.
    well.forward(seconds=30)
    heartbeats.beat("w:1", clock=well)
    assert told(well) == [("bad", f"The database does not refuse what it should: {missing}.")]
    verifications.keep(verifications.verification.report(), began_at=well(), clock=well)
    facts = [fact for _, fact in told(well)]
    assert f"The database does not refuse what it should: {missing}." in facts
    guards.install()
    well.forward(seconds=30)
    heartbeats.beat("w:1", clock=well)
    verifications.keep(verifications.verification.report(), began_at=well(), clock=well)
    assert told(well) == []


def test_a_difference_names_its_entry(well: Clock) -> None:
    person(Role.AUDITOR)
    connection.check_constraints()  # PostgreSQL alters no table whose foreign keys are still to be checked.
    guards.drop()
    SealEntry.objects.filter(index=1).update(leaf_hash=b"\0" * 32)
    guards.install()
    well.forward(hours=1)
    verifications.keep(verifications.verification.report(), began_at=well(), clock=well)
    heartbeats.beat("w:1", clock=well)
    ((tone, fact),) = told(well)
    assert tone == "bad"
    assert "the first at entry 1, found 11:30:00 UTC" in fact


def test_a_difference_of_the_log_as_a_whole_has_no_entry(well: Clock) -> None:
    RecordCounter.objects.update(count=F("count") + 1)
    verifications.keep(verifications.verification.report(), began_at=well(), clock=well)
    well.forward(seconds=1)
    ((tone, fact),) = told(well)
    assert tone == "bad"
    assert "entry" not in fact


def test_an_old_verification_is_told(well: Clock) -> None:
    well.at += surroundings.STALE_AFTER + timedelta(seconds=1)
    heartbeats.beat("w:1", clock=well)
    assert told(well) == [("warn", "The ledger was last verified 1 June 2030 10:30:00 UTC.")]
