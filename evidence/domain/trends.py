"""What happened day by day: tries of audit deliveries, and entries of the log. Days are UTC days."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from django.db.models import Count, Q
from django.db.models.functions import TruncDate

from evidence.enums import Outcome
from evidence.models import Attempt, Connector, LedgerHead, Record


@dataclass(frozen=True)
class Day:
    """What came of the tries that ended on one day."""

    date: date
    delivered: int = 0
    failed: int = 0
    unknown: int = 0

    @property
    def total(self) -> int:
        """Every try of the day."""
        return self.delivered + self.failed + self.unknown


@dataclass(frozen=True)
class Growth:
    """How many entries the log had at the end of one day, and how many of them were new."""

    date: date
    size: int
    added: int


def daily(days: int = 14, *, at: datetime, connector: Connector | None = None) -> list[Day]:
    """The last ``days`` days up to ``at``'s own, oldest first, of all connectors or one; quiet ones are there too."""
    dates = _dates(days, at)
    about = Q(case__connector=connector) if connector else Q()
    counted = (
        Attempt.objects.filter(about, completed_at__gte=_midnight(dates[0]))
        .order_by()
        .annotate(day=TruncDate("completed_at", tzinfo=UTC))
        .values_list("day")
        .annotate(
            delivered=Count("pk", filter=Q(outcome=Outcome.DELIVERED)),
            failed=Count("pk", filter=Q(outcome=Outcome.FAILED)),
            unknown=Count("pk", filter=Q(outcome=Outcome.UNKNOWN)),
        )
    )
    found = {day: Day(day, *counts) for day, *counts in counted}
    return [found.get(day, Day(day)) for day in dates]


def growth(days: int = 30, *, at: datetime) -> list[Growth]:
    """Size of the log at the end of each of the last ``days`` days up to ``at``'s own, oldest first."""
    dates = _dates(days, at)
    counted = (
        Record.objects.filter(created_at__gte=_midnight(dates[0]))
        .order_by()
        .annotate(day=TruncDate("created_at", tzinfo=UTC))
        .values_list("day")
        .annotate(added=Count("pk"))
    )
    added = dict(counted)
    size = LedgerHead.objects.values_list("size", flat=True).first() or 0
    grown = []
    for day in reversed(dates):
        grown.append(Growth(day, size, added.get(day, 0)))
        size -= added.get(day, 0)
    return grown[::-1]


def _dates(days: int, at: datetime) -> list[date]:
    last = at.astimezone(UTC).date()
    return [last - timedelta(days=back) for back in reversed(range(days))]


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), tzinfo=UTC)
