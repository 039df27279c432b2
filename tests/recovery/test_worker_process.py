"""The worker as a process of its own, and verbs that meet on PostgreSQL's locks."""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from evidence.domain import configuration
from evidence.domain.clock import system_clock
from evidence.models import Connector
from recovery.domain import playbooks
from recovery.execution import runs
from recovery.execution.selection import RunRequest
from recovery.models import WorkerRun
from tests.builders import World, connector
from tests.processes import environment, wait_until

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.race, pytest.mark.django_db(transaction=True)]


def test_a_worker_that_is_told_to_stop_claims_nothing_more(committed: World) -> None:
    world = committed
    row = Connector.objects.get(key="webhook")
    row.max_concurrency = 1
    configuration.save(row, by=None, clock=system_clock)
    for _ in range(4):
        world.failed()
    world.approved()
    # Long enough for the worker to be told so before the second answer, however busy the machine is.
    world.receiver.behave("/webhook", delay_s=4.0)
    before = len(world.receiver.log)
    request = RunRequest(dry_run=False, background=True)
    runs.start_and_execute(request, by=world.operator, clock=system_clock)
    worker = subprocess.Popen(
        [sys.executable, "manage.py", "worker"],
        cwd=ROOT,
        env=environment(),
    )
    try:
        wait_until(lambda: len(world.receiver.log) > before)
    finally:
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
    # What was on its way is recorded; the rest waits for the next worker.
    assert len(world.receiver.log) - before <= 2
    assert WorkerRun.objects.get().state == "queued"


@pytest.mark.only("postgresql")
def test_saving_connectors_and_a_playbook_do_not_wait_for_each_other(
    committed: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    connector("aaa", committed.receiver.url("/aaa"))  # a later row with an earlier key
    rows = [Connector.objects.get(key=key) for key in ("aaa", "webhook")]
    for row in rows:
        row.title = "new"
    locked, held, go = configuration._locked, threading.Event(), threading.Event()

    def slowly(row: Any) -> Any:
        got = locked(row)
        if not held.is_set():
            held.set()
            go.wait(60)
        return got

    monkeypatch.setattr(configuration, "_locked", slowly)
    entries = [configuration.Entry(row) for row in rows]
    failures: list[Exception] = []

    def beside(act: Callable[[], Any]) -> threading.Thread:
        def run() -> None:
            try:
                act()
            except Exception as error:
                failures.append(error)
            finally:
                connection.close()

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    saving = beside(lambda: configuration.save_all(entries, by=None, clock=system_clock))
    assert held.wait(60)
    planning = beside(lambda: playbooks.generate(by=committed.analyst, clock=system_clock))
    planning.join(0.5)
    go.set()
    saving.join(60)
    planning.join(60)
    assert not saving.is_alive()
    assert not planning.is_alive()
    assert failures == []
