"""What is kept for a time beside attempts, so that somebody can look for a fault: it is no evidence.

The connection (host, address, certificate, durations) for administrators and auditors, the start of the receiver's
answer for who may read the case. The records name neither; what came of a try is in them and stays.
"""

from dataclasses import asdict
from datetime import datetime, timedelta

from django.db.models import Exists, OuterRef, Q, QuerySet

from evidence.connectors.specs import Receipt
from evidence.domain.clock import Clock
from evidence.models import Attempt, AttemptAnswer, Case, Connector, LegalHold, SendDiagnostic

KEPT = timedelta(days=30)
# Rows that one statement removes: a long one would keep writers of SQLite waiting.
PRUNED_AT_ONCE = 5_000


def keep(
    connector: Connector, receipt: Receipt, *, at: datetime, attempt: Attempt | None = None
) -> SendDiagnostic | None:
    """Keep where a send of ``connector`` really went; without ``attempt`` it was a canary.

    None when nothing was tried. Part of the caller's transaction.
    """
    if (found := receipt.diagnostics) is None:
        return None
    said = asdict(found) | {"host": found.host[:255], "address": found.address[:64]}
    return SendDiagnostic.objects.create(
        connector=connector, attempt=attempt, at=at, keep_until=at + KEPT, **said
    )


def of_case(case: Case) -> QuerySet[SendDiagnostic]:
    """What is kept of a case's attempts, the first one first."""
    rows = SendDiagnostic.objects.filter(attempt__case=case).select_related("attempt")
    return rows.order_by("attempt__number")


def prune(*, clock: Clock) -> int:
    """Forget connections and receivers' answers whose time is over; returns how many.

    A legal hold keeps an answer, for it is part of what somebody has to be able to read later (P24).
    """
    now = clock()
    over = AttemptAnswer.objects.filter(~Exists(_holds()), keep_until__lt=now)
    return _removed(SendDiagnostic.objects.filter(keep_until__lt=now)) + _removed(over)


def _holds() -> QuerySet[LegalHold]:
    """The holds that stand on an answer, as part of a query for answers."""
    names = (
        "attempt__record_id",
        "attempt__case__case_id",
        "attempt__case__plan__delivery_id",
        "attempt__case__package__audit_id",
    )
    named = Q(scope=LegalHold.ALL)
    for name in names:
        named |= Q(scope=OuterRef(name))
    return LegalHold.objects.filter(named, lifted_at__isnull=True)


def _removed(rows: QuerySet[SendDiagnostic] | QuerySet[AttemptAnswer]) -> int:
    removed = 0
    while places := list(rows.order_by("pk").values_list("pk", flat=True)[:PRUNED_AT_ONCE]):
        removed += rows.model._default_manager.filter(pk__in=places).delete()[0]
    return removed
