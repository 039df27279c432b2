"""Time for rules: the clock is an argument of every verb and read once, after its first lock."""

from collections.abc import Callable
from datetime import datetime

from django.utils import timezone

from evidence.domain import ledger

Clock = Callable[[], datetime]

system_clock: Clock = timezone.now


def read(clock: Clock) -> datetime:
    """The moment a verb acts at: the later of ``clock`` and the newest entry of the log (P6).

    A clock that was set back can thus never revive what has expired.
    """
    moment = clock()
    newest = ledger.newest_time()
    return max(moment, newest) if newest else moment
