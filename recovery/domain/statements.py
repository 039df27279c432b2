"""Statements for the platform owner: what became of the retries asked for in a period (CONSOLE, Connectors).

These numbers are read from the state tables; ``proofs`` reads its own from the records.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import datetime

from django.db.models import Count, Q

from evidence.domain import records
from evidence.errors import InvalidInput
from evidence.models import RecordKey
from recovery.enums import EntryState, ExecutionState, ExecutionStatus
from recovery.models import ApprovalEntry

TOTAL = "total"


@dataclass(frozen=True)
class Row:
    """Retries of one connector that were asked for in a period, by what became of each until now.

    ``asked`` is every request, approved or not. An approved one is in exactly one of five places: ``ready``
    waits for a run, ``unused`` ended without one (run out, revoked or void), ``delivered``, ``failed``, or
    ``unknown``: claimed with an outcome nobody knows, or none recorded yet. ``skipped`` counts the records of
    runs that passed an approval over in the period; a skip uses no approval up and is no part of the sum.
    """

    connector: str
    asked: int = 0
    ready: int = 0
    unused: int = 0
    delivered: int = 0
    failed: int = 0
    unknown: int = 0
    skipped: int = 0

    @property
    def approved(self) -> int:
        """Retries that have their approvals or had them when they ended: the five places added up."""
        return self.ready + self.unused + self.delivered + self.failed + self.unknown


@dataclass(frozen=True)
class Statement:
    """A row for each connector with anything in the period [``since``, ``until``), and their total."""

    since: datetime
    until: datetime
    rows: tuple[Row, ...]

    @property
    def total(self) -> Row:
        """All connectors together."""
        return _total(self.rows)

    def as_csv(self) -> list[list[str]]:
        """Lines of cells for a CSV file: a header, the rows, the total; each with the period it is about."""
        period = [records.timestamp(self.since), records.timestamp(self.until)]
        lines = (
            [*period, row.connector, *(str(getattr(row, name)) for name in COLUMNS)]
            for row in (*self.rows, self.total)
        )
        return [["since", "until", "connector", *COLUMNS], *lines]


# In the order of the table: what was asked, what was approved of it, and where that is.
COLUMNS = ("asked", "approved", "ready", "unused", "delivered", "failed", "unknown", "skipped")

# What became of an entry, as the rows say it. A request whose approval was taken back by a deferral is not
# approved; one that ran out and that the worker has not ended yet is still ready.
_PLACES = {
    "ready": Q(state=EntryState.APPROVED),
    "unused": Q(approved_at__isnull=False) & ~Q(state__in=(EntryState.APPROVED, EntryState.CLAIMED)),
    "delivered": Q(executions__state=ExecutionState.DELIVERED),
    "failed": Q(executions__state=ExecutionState.FAILED),
    "unknown": Q(executions__state__in=(ExecutionState.UNKNOWN, ExecutionState.CLAIMED)),
}


def approved_retries(since: datetime, until: datetime) -> Statement:
    """Retries asked for from ``since`` on and before ``until``, per connector (two queries).

    Raises ``InvalidInput`` for a period that ends before it begins.
    """
    if until < since:
        raise InvalidInput(
            "The period ends before it begins.", errors={"until": ["lies before the beginning"]}
        )
    asked = ApprovalEntry.objects.filter(requested_at__gte=since, requested_at__lt=until).order_by()
    # An entry is one row for each of its executions: tries of which nothing left give their approval back.
    places = {name: Count("pk", distinct=True, filter=place) for name, place in _PLACES.items()}
    counted: dict[str, dict[str, int]] = {
        key: dict(zip(("asked", *_PLACES), numbers, strict=True))
        for key, *numbers in asked.values_list("connector__key").annotate(
            asked=Count("pk", distinct=True), **places
        )
    }
    skipped = _skipped(since, until)
    return Statement(
        since,
        until,
        tuple(
            Row(key, skipped=skipped.get(key, 0), **counted.get(key, {}))
            for key in sorted({*counted, *skipped})
        ),
    )


def _skipped(since: datetime, until: datetime) -> dict[str, int]:
    """Execution records with status skipped, by connector."""
    of_period = RecordKey.objects.filter(created_at__gte=since, created_at__lt=until)
    skips = of_period.filter(name="execution_status", value=ExecutionStatus.SKIPPED)
    connectors = of_period.filter(name="provider", record__in=skips.values("record"))
    return dict(connectors.order_by().values_list("value").annotate(count=Count("record")))


def _total(rows: Iterable[Row]) -> Row:
    numbers = [field.name for field in fields(Row) if field.name != "connector"]
    found = list(rows)
    return Row(TOTAL, **{name: sum(getattr(row, name) for row in found) for name in numbers})
