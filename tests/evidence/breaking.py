"""Receipts and outages for tests of breakers: what came of sends, without sending any."""

from datetime import datetime

from django.conf import settings
from django.db import transaction

from evidence.connectors.specs import Receipt
from evidence.domain import breakers, configuration, ledger, records
from evidence.domain import clock as clocks
from evidence.enums import Answer, Assurance, FailureClass
from evidence.models import Breaker, Connector, ConnectorWindow
from tests.builders import Clock


def receipt(
    key: str, failure: FailureClass | None, at: datetime, *, retry_after_s: int | None = None
) -> Receipt:
    """What came of a send to ``key``: delivered, or failed in this way."""
    return Receipt(
        token="0" * 32,
        connector=key,
        answer=Answer.ANSWERED,
        assurance=None if failure else Assurance.ACCEPTED,
        may_have_arrived=False,
        failure_class=failure,
        status_code=503 if failure else 200,
        error="",
        tries=1,
        started_at=at,
        completed_at=at,
        bytes_sent=1,
        retry_after_s=retry_after_s,
    )


def heard(
    key: str, *failures: FailureClass | None, clock: Clock, retry_after_s: int | None = None
) -> list[records.Draft]:
    """Sends to ``key`` came to this, one after the other; the records that were appended."""
    found = []
    for failure in failures:
        with transaction.atomic():
            at = clocks.read(clock)
            drafts = breakers.heard([receipt(key, failure, at, retry_after_s=retry_after_s)], at=at)
            ledger.append(drafts)
        found += drafts
    return found


def opened(key: str, clock: Clock) -> Breaker:
    """The breaker of ``key`` after as many failures as it takes."""
    heard(key, *[FailureClass.UNAVAILABLE] * settings.CAVRA_BREAKER_FAILURES, clock=clock)
    return Breaker.objects.get(connector__key=key)


def canary(key: str, failure: FailureClass | None, clock: Clock, **more: int) -> list[records.Draft]:
    """A canary to ``key`` came to this; the records that were appended."""
    with transaction.atomic():
        at = clocks.read(clock)
        row = Connector.objects.get(key=key)
        drafts = breakers.heard_canary(row, receipt(key, failure, at, **more), at=at)
        ledger.append(drafts)
    return drafts


def closed(key: str, clock: Clock) -> None:
    """A canary gets through once it may go."""
    clock.at = max(clock.at, Breaker.objects.get(connector__key=key).probe_at or clock.at)
    canary(key, None, clock)


def window(key: str, start: datetime, end: datetime, clock: Clock, window_id: str = "patch-day") -> None:
    """The receiver of ``key`` is down by plan."""
    row = Connector.objects.get(key=key)
    there = [*row.windows.all(), ConnectorWindow(window_id=window_id, start_at=start, end_at=end)]
    configuration.save(row, by=None, clock=clock, windows=there)
