"""How each connector does, judged by what came of its tries: one row per connector, a fixed number of queries."""

from dataclasses import dataclass
from datetime import datetime, timedelta

# Medians are taken over this long.
SLOT = timedelta(minutes=30)
SLOTS = 48


@dataclass(frozen=True)
class Slot:
    """One half hour: the median time to an answer, None without one, and tries that were not delivered."""

    median_ms: int | None
    failed: int


@dataclass(frozen=True)
class Failure:
    """The last try that was not delivered: when, its class in words, the receiver's status."""

    at: datetime
    label: str
    status_code: int | None


@dataclass(frozen=True)
class Health:
    """One connector. ``word`` is healthy, warning, critical, disabled or misconfigured; ``reasons`` say why."""

    key: str
    product: str
    title: str
    word: str
    reasons: tuple[str, ...]
    paused: bool
    last_success: datetime | None
    last_failure: Failure | None
    delivered: int
    sends: int
    p50_ms: int | None
    p95_ms: int | None
    slots: tuple[Slot, ...]
    unsettled: int
    unknown: int
    oldest_unsettled: datetime | None


def survey(at: datetime) -> list[Health]:
    """Every configured connector at ``at``, the worst first."""
    raise NotImplementedError
