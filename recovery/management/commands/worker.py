"""``manage.py worker``: the one background process. Rows are the truth; each step is its own transaction."""

import logging
import os
import signal
import socket
import threading
import time
from argparse import ArgumentParser
from collections.abc import Callable
from datetime import timedelta
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, close_old_connections

from evidence.domain import (
    access,
    canaries,
    checkpoints,
    deliveries,
    diagnostics,
    heartbeats,
    live,
    retention,
    sending,
    troubles,
    verifications,
)
from evidence.domain.clock import system_clock
from evidence.errors import Conflict
from recovery.domain import approvals, notices, recoveries
from recovery.execution import outcomes, runs
from recovery.execution.asking import Asker

logger = logging.getLogger(__name__)

IDLE_S = 1.0
BEAT_S = 5.0
MINUTE_S = 60.0
HOUR_S = 3600.0


class Command(BaseCommand):
    """Executes runs that were left to the worker, sends first deliveries that had to wait, and gives up what ran out.

    No evidence is sent that nobody asked for.
    """

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--once", action="store_true", help="do what is due now, then stop")

    def handle(self, *args: Any, once: bool, **options: Any) -> None:
        self.name = f"{socket.gethostname()[:60]}:{os.getpid()}"
        self.last_beat = -BEAT_S
        self.once, self.asker = once, Asker()
        self.idle_since: dict[str, float] = {}
        self.stopping = stopping = threading.Event()

        def stop(number: int, frame: FrameType | None) -> None:
            stopping.set()

        if not once:
            signal.signal(signal.SIGTERM, stop)
            signal.signal(signal.SIGINT, stop)
        while not stopping.is_set():
            done = self.work()
            if once and not done:
                break
            if not done:
                stopping.wait(IDLE_S)

    def work(self) -> int:
        """Take every step once; returns how much was done. Ends the command when the log goes on elsewhere."""
        self.step("ledger", self.require_open)
        self.beat()
        return sum(self.step(name, act) for name, act in self.steps().items())

    def steps(self) -> dict[str, Callable[[], int]]:
        """What a worker does, in order; each returns how many things it did."""
        return {
            "secrets": lambda: self.seldom("secrets", MINUTE_S, sending.learn_secrets),
            "run leases": lambda: runs.expire_leases(clock=system_clock),
            "runs": lambda: runs.execute_due(
                clock=system_clock, beat=self.beat, stopping=self.stopping.is_set
            ),
            "execution leases": lambda: outcomes.expire_leases(clock=system_clock),
            "inquiries": lambda: self.asker.step(clock=system_clock, wait=self.once),
            "delivery leases": lambda: deliveries.expire_leases(clock=system_clock),
            "parked": lambda: deliveries.send_parked(
                clock=system_clock, beat=self.beat, stopping=self.stopping.is_set
            ),
            "approvals": lambda: approvals.expire(clock=system_clock),
            "votes": lambda: approvals.recount_all(clock=system_clock),
            "settled": lambda: approvals.cancel_settled(clock=system_clock),
            "recoveries": lambda: recoveries.bring_back(clock=system_clock),
            "notices": lambda: notices.notice(clock=system_clock),
            "lost canaries": lambda: canaries.give_up(clock=system_clock),
            "canaries": lambda: canaries.probe_due(clock=system_clock, beat=self.beat),
            "troubles": lambda: self.seldom(
                "troubles", MINUTE_S, lambda: troubles.announce(clock=system_clock, beat=self.beat)
            ),
            "messages": lambda: notices.tell(clock=system_clock, beat=self.beat),
            "checkpoints": lambda: checkpoints.make_due(clock=system_clock, beat=self.beat),
            "verification": lambda: verifications.run_due(
                clock=system_clock, beat=self.beat, stopping=self.stopping.is_set
            ),
            "retention": lambda: self.seldom("retention", HOUR_S, lambda: retention.run(clock=system_clock)),
            "access log": lambda: self.seldom(
                "access log",
                HOUR_S,
                lambda: access.prune(timedelta(days=settings.CAVRA_ACCESS_LOG_DAYS), clock=system_clock),
            ),
            "diagnostics": lambda: self.seldom(
                "diagnostics", HOUR_S, lambda: diagnostics.prune(clock=system_clock)
            ),
        }

    def require_open(self) -> int:
        """End the worker where nothing can be written any more."""
        try:
            live.require_open()
        except Conflict as error:
            raise CommandError(error.detail) from error
        return 0

    def seldom(self, name: str, pause_s: float, act: Callable[[], int]) -> int:
        """A step that waits for ``pause_s`` seconds once there was nothing to do."""
        if time.monotonic() - self.idle_since.get(name, -pause_s) < pause_s:
            return 0
        done = act()
        if not done:
            self.idle_since[name] = time.monotonic()
        return done

    def step(self, name: str, act: Callable[[], int]) -> int:
        """One step; a locked or restarted database is logged and tried again with the next round."""
        try:
            close_old_connections()
            return act()
        except OperationalError as error:
            logger.warning("worker step %s failed and will be tried again: %s", name, error)
        except CommandError:
            raise
        except Exception:  # one broken row must not end leases, expiries and everybody else's runs
            logger.exception("worker step %s failed", name)
        return 0

    def beat(self) -> None:
        """Write the heartbeat every few seconds."""
        if time.monotonic() - self.last_beat < BEAT_S:
            return
        try:
            heartbeats.beat(self.name, clock=system_clock)
            self.last_beat = time.monotonic()
        except OperationalError as error:
            logger.warning("worker heartbeat failed and will be tried again: %s", error)
