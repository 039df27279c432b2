"""Many writers at once while the log is verified: no gap, no fork, no deadlock, no false alarm."""

import random
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from django.db import OperationalError, transaction

from evidence.domain import ledger, verification
from evidence.models import LedgerHead, Record
from tests.benchmarks import workload
from tests.torture.nursery import Act, Nursery

# What a child may take beyond the time it writes: the last pass of the verification ends when it ends.
PATIENCE_S = 600


# --- in processes of their own ------------------------------------------------------------------------------------


def append_for(seconds: float, seed: int) -> dict[str, Any]:
    """Append one record a transaction until the time is up; how many, what failed, and the slowest in ms."""
    chosen = random.Random(seed)
    appended, failed, slowest = 0, Counter[str](), 0.0
    until = time.monotonic() + seconds
    while (began := time.monotonic()) < until:
        try:
            with transaction.atomic():
                ledger.append([workload.about_a_case(chosen.randrange(10**6))])
            appended += 1
        except OperationalError as error:
            failed[str(error).split("\n", 1)[0]] += 1
        slowest = max(slowest, time.monotonic() - began)
    return {"appended": appended, "failed": dict(failed), "slowest_ms": slowest * 1000}


def verify_for(seconds: float) -> dict[str, Any]:
    """Verify the log again and again until the time is up, at least once; entries seen and every alarm."""
    passes, entries, alarms = 0, 0, []
    until = time.monotonic() + seconds
    while not passes or time.monotonic() < until:
        found = verification.report()
        passes, entries = passes + 1, found.records
        if found.first:
            alarms.append(str(found.first))
    return {"passes": passes, "entries": entries, "alarms": alarms}


# --- the measurement ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Written:
    """What came of it. ``gaps`` are entries that are not there, ``differences`` those of a verification afterwards."""

    writers: int
    seconds: float
    appended: int
    failed: dict[str, int]
    slowest_ms: float
    passes: int
    alarms: list[str]
    gaps: int
    differences: int

    @property
    def sound(self) -> bool:
        """Nothing failed, nothing is missing, nothing was alarmed about."""
        return not (self.failed or self.alarms or self.gaps or self.differences)


def measure(nursery: Nursery, *, writers: int, seconds: float) -> Written:
    """Let so many processes append and one more verify, all at once."""
    before = LedgerHead.objects.get().size
    at_most = int(seconds) + PATIENCE_S
    acts = [
        Act("tests.benchmarks.writers.append_for", {"seconds": seconds, "seed": seed}, at_most)
        for seed in range(writers)
    ]
    verifier = Act("tests.benchmarks.writers.verify_for", {"seconds": seconds}, at_most)
    *wrote, verified = [ended.returned for ended in nursery.together(*acts, verifier)]
    appended = sum(one["appended"] for one in wrote)
    failed = sum((Counter(one["failed"]) for one in wrote), Counter[str]())
    head = LedgerHead.objects.get().size
    stored = Record.objects.filter(index__gte=before, index__lt=head).count()
    return Written(
        writers=writers,
        seconds=seconds,
        appended=appended,
        failed=dict(failed),
        slowest_ms=max(one["slowest_ms"] for one in wrote),
        passes=verified["passes"],
        alarms=verified["alarms"],
        gaps=abs(head - before - appended) + abs(head - before - stored),
        differences=verification.report().differences,
    )
