"""What the torture suite is made of: its size, worlds that commit, warm processes, and the report it leaves.

CAVRA_TORTURE=full, set by ``make torture``, takes the full numbers; anything else a form that is short enough for
every test run. CAVRA_TORTURE_REPORT names the Markdown file that a full run writes.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.conf import settings

from tests.builders import World
from tests.processes import database_url
from tests.receiver import Receiver
from tests.recovery.checks import assert_ledger_verifies, assert_receiver_agrees
from tests.torture.checks import assert_nothing_is_stuck, assert_used_once
from tests.torture.nursery import Nursery
from tests.torture.report import Report, Tally


@dataclass(frozen=True)
class Size:
    """How much of everything.

    ``processes`` act at once on so many ``approvals``. A worker is killed in so many ``rounds`` at each step,
    and in so many ``answer_rounds`` while another answer is under way. A slow connector answers after
    ``slow_s``, nobody waits longer than ``timeout_s``; a throughput is that of so many ``healthy_sends`` for
    each connector beside ``troubled_sends``, taken ``measures`` times at least.
    """

    processes: int
    approvals: int
    rounds: int
    answer_rounds: int
    slow_s: float
    timeout_s: float
    healthy_sends: int
    troubled_sends: int
    measures: int


SHORT = Size(
    processes=8,
    approvals=8,
    rounds=2,
    answer_rounds=1,
    slow_s=1.5,
    timeout_s=6.0,
    healthy_sends=3,
    troubled_sends=1,
    measures=1,
)
FULL = Size(
    processes=50,
    approvals=20,
    rounds=100,
    answer_rounds=100,
    slow_s=30.0,
    timeout_s=30.0,
    healthy_sends=12,
    troubled_sends=4,
    measures=3,
)


def in_full() -> bool:
    """Whether this is the run of ``make torture``."""
    return os.environ.get("CAVRA_TORTURE") == "full"


REPORT = pytest.StashKey[Report]()


@pytest.fixture(scope="session")
def size() -> Size:
    """The numbers of this run."""
    return FULL if in_full() else SHORT


@pytest.fixture(scope="session")
def nursery(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Forks warm processes on the tests' database."""
    with Nursery(database_url(), tmp_path_factory.mktemp("nursery")) as made:
        yield made


@pytest.fixture
def worlds(
    transactional_db: None,
    receiver: Receiver,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., World]]:
    """Makes the test's one world, whose verbs really commit. Checked as a whole when the test ends."""
    request.config.stash[REPORT].note_database()
    # Breakers would take whoever is in trouble out of the way; the state machine walks with them.
    monkeypatch.setattr(settings, "CAVRA_BREAKER_FAILURES", 0)
    made: list[World] = []

    def make(*providers: str) -> World:
        made.append(World(receiver, providers=providers))
        return made[0]

    yield make
    assert_used_once()
    assert_nothing_is_stuck()
    for world in made:
        assert_receiver_agrees(world)
    assert_ledger_verifies()


# --- results ------------------------------------------------------------------------------------------------------


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """Where a test writes its counts; they are printed when the run ends."""
    tally: Tally = request.config.stash[REPORT].tally
    return tally


def pytest_configure(config: pytest.Config) -> None:
    config.stash[REPORT] = Report(started_at=datetime.now(UTC))
    config.pluginmanager.register(config.stash[REPORT], "torture-report")


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    report = config.stash[REPORT]
    for line in report.tally.lines():
        terminalreporter.write_line(line)
    path = os.environ.get("CAVRA_TORTURE_REPORT")
    narrowed = config.option.keyword or config.option.markexpr
    if path and in_full() and report.outcomes and not narrowed:
        report.write(Path(path))
        terminalreporter.write_line(f"written: {path}")
