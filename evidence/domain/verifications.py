"""Passes over the log that the worker takes because somebody asked or a day went by, and what they found.

Not evidence: nothing here is recorded in the log, and whoever doubts a result verifies again.
"""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, transaction

from evidence.domain import policies, verification
from evidence.domain.clock import Clock
from evidence.domain.transitions import Transitions, move
from evidence.enums import TaskState
from evidence.errors import StaleState
from evidence.models import Person, Verification
from evidence.permissions import Permission

# The worker asks by itself when the newest result is older.
DUE_AFTER = timedelta(hours=24)
# A pass that nobody was heard of from for this long is queued again.
LEASE = timedelta(seconds=120)
# Progress is written no more often than this.
PROGRESS_S = 0.5
# Newest results that are kept.
KEPT = 100

PASSES = Transitions(
    Verification,
    "state",
    {
        TaskState.QUEUED: frozenset({TaskState.RUNNING}),
        # Running to running: it says how far it is. Back to queued: its worker died or was told to stop.
        TaskState.RUNNING: frozenset({TaskState.RUNNING, TaskState.QUEUED, TaskState.FINISHED}),
        TaskState.FINISHED: frozenset(),
    },
)


class _Abandoned(Exception):
    """This pass ends without a result: the worker was told to stop, or was taken for dead."""


def ask(*, by: Person | None, clock: Clock) -> Verification:
    """Queue a pass for the worker; ``by`` is None when its calendar asks. Changes nothing in the log.

    While one waits or runs, that one is returned. Raises ``NotAllowed`` for who may not read evidence.
    """
    if by is not None:
        policies.require_role(by, Permission.READ_EVIDENCE)
    if there := current():
        return there
    try:
        with transaction.atomic():
            return Verification.objects.create(requested_by=by, requested_at=clock())
    except IntegrityError:
        # Somebody else asked at this very moment; the worker may be at it by now, or done.
        return current() or Verification.objects.latest("pk")


def current() -> Verification | None:
    """The pass that runs or waits, if any."""
    unfinished = Verification.objects.filter(state__in=(TaskState.QUEUED, TaskState.RUNNING))
    # "running" sorts behind "queued": what runs is the answer to whoever asks meanwhile.
    return unfinished.select_related("requested_by").order_by("-state", "-pk").first()


def latest() -> Verification | None:
    """The newest pass with a result, if any."""
    finished = Verification.objects.filter(state=TaskState.FINISHED)
    return finished.select_related("requested_by").order_by("-finished_at", "-pk").first()


def run_due(
    *, clock: Clock, beat: Callable[[], None] = lambda: None, stopping: Callable[[], bool] = lambda: False
) -> int:
    """Take the pass that waits, or one that the calendar asks for. Returns how many came to a result (0 or 1).

    ``beat`` is called with every stretch of the log. Once ``stopping`` says so the pass waits for the next
    worker.
    """
    _take_back(clock=clock)
    if _is_due(clock()):
        ask(by=None, clock=clock)
    waiting = Verification.objects.filter(state=TaskState.QUEUED).first()
    if waiting is None or stopping():
        return 0
    run = _Run(waiting, clock, beat, stopping)
    try:
        run.take()
        run.finish(verification.report(progress=run.progress))
    except (_Abandoned, StaleState):
        return 0
    _forget()
    return 1


def keep(report: verification.Report, *, began_at: datetime, clock: Clock) -> Verification:
    """Store what a pass outside the worker (``manage.py verify_ledger``) found."""
    at = clock()
    with transaction.atomic():
        kept = Verification.objects.create(
            state=TaskState.FINISHED,
            requested_at=began_at,
            finished_at=at,
            duration_ms=int((at - began_at).total_seconds() * 1000),
            **_found(report),
        )
        _forget()
    return kept


class _Run:
    """One pass in the hands of this worker, for as long as its lease is the stored one."""

    def __init__(
        self, row: Verification, clock: Clock, beat: Callable[[], None], stopping: Callable[[], bool]
    ) -> None:
        self.pk = row.pk
        self.clock, self.beat, self.stopping = clock, beat, stopping
        self.lease: datetime | None = None
        self.began = self.written = time.monotonic()

    def take(self) -> None:
        """Begin. Raises ``StaleState`` when another worker did."""
        self._move(TaskState.RUNNING, TaskState.QUEUED, lease_until=self._new_lease(), checked=0, size=0)

    def progress(self, checked: int, size: int) -> None:
        """Say how far it is and that it is alive; raises ``_Abandoned`` or ``StaleState`` when it has to end."""
        self.beat()
        if self.stopping():
            self._move(TaskState.QUEUED, TaskState.RUNNING, lease_until=None)
            raise _Abandoned
        if time.monotonic() - self.written > PROGRESS_S:
            self.written = time.monotonic()
            self._move(
                TaskState.RUNNING,
                TaskState.RUNNING,
                lease_until=self._new_lease(),
                checked=checked,
                size=size,
            )

    def finish(self, report: verification.Report) -> None:
        """Store the result."""
        self._move(
            TaskState.FINISHED,
            TaskState.RUNNING,
            lease_until=None,
            finished_at=self.clock(),
            duration_ms=int((time.monotonic() - self.began) * 1000),
            **_found(report),
        )

    def _new_lease(self) -> datetime:
        return self.clock() + LEASE

    def _move(self, to: TaskState, source: TaskState, *, lease_until: datetime | None, **values: Any) -> None:
        """Move the row while it is as this worker left it."""
        move(
            PASSES,
            self.pk,
            to,
            only_from=[source],
            only_if={"lease_until": self.lease} if self.lease else None,
            lease_until=lease_until,
            **values,
        )
        self.lease = lease_until


def _found(report: verification.Report) -> dict[str, Any]:
    """A report as columns."""
    first = report.first
    return {
        "checked": report.records,
        "size": report.records,
        "root": report.root,
        "differences": report.differences,
        "first_difference": str(first)[:600] if first else "",
        "first_index": first.index if first else None,
    }


def _is_due(at: datetime) -> bool:
    newest = latest()
    return newest is None or newest.finished_at is None or newest.finished_at < at - DUE_AFTER


def _take_back(*, clock: Clock) -> None:
    """Queue again what a dead worker began, unless another pass waits already: one is as good as the other."""
    for dead in Verification.objects.filter(state=TaskState.RUNNING, lease_until__lt=clock()):
        mine = Verification.objects.filter(pk=dead.pk, state=TaskState.RUNNING, lease_until=dead.lease_until)
        try:
            with transaction.atomic():
                mine.update(state=TaskState.QUEUED, lease_until=None, checked=0, size=0)
        except IntegrityError:
            mine.delete()


def _forget() -> None:
    """Remove all but the newest results."""
    finished = Verification.objects.filter(state=TaskState.FINISHED).order_by("-finished_at", "-pk")
    kept = list(finished.values_list("pk", flat=True)[:KEPT])
    Verification.objects.filter(state=TaskState.FINISHED).exclude(pk__in=kept).delete()
