"""Time for rules: the clock is an argument of every verb and read once, after its first lock."""

from collections.abc import Callable
from datetime import datetime, timedelta

from django.utils import timezone

from evidence.domain import ledger

Clock = Callable[[], datetime]

system_clock: Clock = timezone.now

# A clock further behind the log than this is not to be trusted with anything live (P6).
MOST_BEHIND = timedelta(seconds=60)


def read(clock: Clock) -> datetime:
    """The moment a verb acts at: the later of ``clock`` and the newest entry of the log (P6).

    A clock that was set back can thus never revive what has expired.
    """
    moment = clock()
    newest = ledger.newest_time()
    return max(moment, newest) if newest else moment


def reasons_against_live(clock: Clock) -> list[tuple[str, str]]:
    """Why nothing live is done by this clock, as ``(code, sentence)``: it is behind the newest entry (P6)."""
    newest = ledger.newest_time()
    behind = how_far_behind(clock(), newest) if newest else timedelta()
    if not behind:
        return []
    return [
        (
            "clock_behind",
            f"This machine's clock is {round(behind.total_seconds())} s behind the newest entry of the log; "
            "nothing is sent until it is right.",
        )
    ]


def how_far_behind(now: datetime, newest: datetime) -> timedelta:
    """By how much ``now`` is too far behind the newest entry to be trusted; nothing when it is not."""
    behind = newest - now
    return behind if behind > MOST_BEHIND else timedelta()
