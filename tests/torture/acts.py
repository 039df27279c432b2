"""What a child of the nursery does: the product's verbs, and dying at a chosen point of one of them.

The points are patched in here, in the child: the product has no hooks for its tests.
"""

import asyncio
import functools
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, NoReturn

import aiohttp
from django.core.management import call_command
from django.db import OperationalError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from evidence.connectors import sender
from evidence.connectors.transports import http
from evidence.domain import records, sending
from evidence.domain.clock import system_clock
from evidence.enums import CaseState
from evidence.models import Case, Person
from recovery.domain import approval_plans, approvals
from recovery.domain.approvals import Ballot
from recovery.enums import ApprovalState, EntryState, RunState
from recovery.execution import claims, outcomes, runs
from recovery.execution.claims import Claimed
from recovery.execution.selection import RunRequest
from recovery.management.commands import worker
from recovery.models import ApprovalEntry, Execution, WorkerRun
from tests.processes import wait_until

REVOKED = (EntryState.DENIED, EntryState.WITHDRAWN)
# A run inside a request goes on for a minute.
HELD_S = 40.0

_told = -1


def tells_into(pipe: int) -> None:
    """From now on ``tell`` writes there."""
    global _told
    _told = pipe


def tell(**facts: Any) -> None:
    """Write facts down where they outlive this process: a written pipe survives ``kill -9``."""
    os.write(_told, json.dumps(facts).encode() + b"\n")


# --- verbs --------------------------------------------------------------------------------------------------------


def run(
    by: int,
    limit: int = 25,
    after_lock: int = 0,
    after_revocation: bool = False,
    dies: str = "",
    lease_s: float = 0.0,
    **request: Any,
) -> dict[str, Any]:
    """A live run of what is approved; the keys of the rows it recorded, skipped and left.

    It waits until somebody keeps the case ``after_lock`` locked, or until an approval was revoked.
    """
    _prepare(dies, lease_s)
    if after_lock:
        wait_until(lambda: _is_locked(after_lock))
    if after_revocation:
        wait_until(ApprovalEntry.objects.filter(state__in=REVOKED).exists)
    _now("begun")
    started = runs.start_and_execute(
        RunRequest(**{"dry_run": False, "max_retry_deliveries": limit, **request}),
        by=Person.objects.get(pk=by),
        clock=system_clock,
    )
    return {
        "recorded": [one.execution.pk for one in started.outcome.recorded],
        "skipped": [one.entry.pk for one in started.outcome.skipped],
        "left": [entry.pk for entry in started.outcome.left],
        "state": started.run.state,
    }


def vote(entry: int, by: int, state: str, after_claims: int = 0) -> None:
    """One person's word on an entry; the requester's denial is a withdrawal.

    It waits until so many approvals were claimed, or until a run has ended before that.
    """
    while Execution.objects.count() < after_claims:
        if WorkerRun.objects.filter(state=RunState.FINISHED).exists():
            break
        time.sleep(0.02)
    approvals.decide(
        approvals.entries().get(pk=entry),
        Ballot(state=ApprovalState(state), notes="Seen at the same moment by somebody else."),
        by=Person.objects.get(pk=by),
        clock=system_clock,
    )


def ask(by: int) -> str:
    """An approval plan over every open decision; its id."""
    return approval_plans.request(by=Person.objects.get(pk=by), clock=system_clock).record_id


def hold(case: int, until_delivered: int) -> int:
    """Keep a case's row locked, as a slow verb would, until so many others are delivered; how many were by then."""
    delivered = Case.objects.filter(state=CaseState.DELIVERED)
    with transaction.atomic():
        Case.objects.select_for_update(no_key=True).get(pk=case)
        with suppress(AssertionError):
            wait_until(lambda: delivered.count() >= until_delivered, seconds=HELD_S)
        return delivered.count()


def _is_locked(case: int) -> bool:
    with transaction.atomic():
        free = Case.objects.select_for_update(no_key=True, skip_locked=True).filter(pk=case)
        return not free.exists()


def run_into_a_collision(by: int, case: str, taken: str) -> dict[str, Any]:
    """A live run whose claim of ``case`` mints an id that another row has: the database refuses that claim."""
    take, mint = claims._take, records.mint_id

    def colliding(entry: Any, *args: Any, **kwargs: Any) -> Claimed:
        if entry.case.case_id == case:
            records.mint_id = lambda kind: taken
        try:
            return take(entry, *args, **kwargs)
        finally:
            records.mint_id = mint

    claims._take = colliding
    return run(by)


def run_without_an_answer_to_its_commit(by: int) -> dict[str, Any]:
    """A live run that loses the database right after its first outcomes were committed, and does not know it."""
    commit, lost = BaseDatabaseWrapper._commit, threading.Event()

    def lose(self: BaseDatabaseWrapper) -> None:
        BaseDatabaseWrapper._commit = commit
        commit(self)
        lost.set()
        raise OperationalError("the connection was lost")

    def record(real: Any, *args: Any, **kwargs: Any) -> Any:
        if not lost.is_set():
            BaseDatabaseWrapper._commit = lose
        return real(*args, **kwargs)

    _wrap(outcomes, "record", record)
    return run(by)


# --- a worker and its death ---------------------------------------------------------------------------------------


def work(dies: str = "", lease_s: float = 1.0, later_s: float = 0.0) -> None:
    """``manage.py worker --once`` with short leases, ``later_s`` from now; killed at the point ``dies``."""
    _prepare(dies, lease_s)
    worker.system_clock = lambda: timezone.now() + timedelta(seconds=later_s)
    call_command("worker", "--once")


def _prepare(dies: str, lease_s: float) -> None:
    if lease_s:
        sending.lease_seconds = lambda timeout_s: lease_s
        runs.LEASE = timedelta(seconds=lease_s)
    _note_answers()
    if dies:
        POINTS[dies]()


def _now(moment: str) -> None:
    tell(moment=moment, at=time.monotonic())


def _die(*_: object, **__: object) -> NoReturn:
    _now("killed")
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("nobody survives this")


def _wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Replace ``owner.name`` by ``around``, which gets the original as its first argument."""
    setattr(owner, name, functools.partial(around, getattr(owner, name)))


def _note_answers() -> None:
    """Tell when an answer was handed to the thread that writes, and when that had written it."""

    def answer(real: Any, self: sender.Sender, job: Any, receipt: Any) -> None:
        real(self, job, receipt)
        _now("handed over")

    def record(real: Any, results: Any, **kwargs: Any) -> Any:
        done = real(results, **kwargs)
        for _ in results:
            _now("written")
        return done

    original = sender.Sender._answer
    sender.Sender._answer = lambda self, job, receipt: answer(original, self, job, receipt)  # type: ignore[method-assign]
    _wrap(outcomes, "record", record)


def _before_claim() -> None:
    claims.claim = _die


def _after_claim() -> None:
    def claim(real: Any, *args: Any, **kwargs: Any) -> Any:
        result = real(*args, **kwargs)
        return _die() if isinstance(result, Claimed) else result

    _wrap(claims, "claim", claim)


def _socket_open() -> None:
    """The connection stands, nothing is written yet."""

    async def opened(*_: object) -> None:
        _die()

    def tracing(real: Any) -> aiohttp.TraceConfig:
        config: aiohttp.TraceConfig = real()
        config.on_connection_create_end.append(opened)
        return config

    _wrap(http, "_tracing", tracing)


def _bytes_sent() -> None:
    """The client waits for an answer. Whatever it still had to write is written while this sleeps."""

    async def start(*_: object) -> None:
        await asyncio.sleep(0.02)
        _die()

    aiohttp.ClientResponse.start = start  # type: ignore[assignment,method-assign]


def _answer_received() -> None:
    """The sender's thread has read the answer and has not handed it over."""
    sender.Sender._answer = _die  # type: ignore[assignment,method-assign]


def _at_outcome_commit(*, done: bool) -> None:
    commit = BaseDatabaseWrapper._commit

    def die(self: BaseDatabaseWrapper) -> None:
        if done:
            commit(self)
        _die()

    def record(real: Any, *args: Any, **kwargs: Any) -> Any:
        BaseDatabaseWrapper._commit = die
        return real(*args, **kwargs)

    _wrap(outcomes, "record", record)


# An answer is written once its batch of 50 ms is over. Longer than this no machine is too busy for that.
WRITTEN_S = 8.0


def _between_answers() -> None:
    """One answer was handed over and is written, or was not for too long; another one is still under way."""
    answer, written = sender.Sender._answer, threading.Event()

    def record(real: Any, *args: Any, **kwargs: Any) -> Any:
        done = real(*args, **kwargs)
        written.set()
        return done

    def wait() -> None:
        written.wait(WRITTEN_S)
        _die()

    def first(self: sender.Sender, job: Any, receipt: Any) -> None:
        answer(self, job, receipt)
        threading.Thread(target=wait, daemon=True).start()

    sender.Sender._answer = first  # type: ignore[method-assign]
    _wrap(outcomes, "record", record)


POINTS: dict[str, Callable[[], None]] = {
    "before the claim": _before_claim,
    "after the claim": _after_claim,
    "socket open": _socket_open,
    "bytes sent": _bytes_sent,
    "answer received": _answer_received,
    "before the outcome commit": functools.partial(_at_outcome_commit, done=False),
    "after the outcome commit": functools.partial(_at_outcome_commit, done=True),
    "between two answers": _between_answers,
}
