"""Breakers and maintenance windows: what makes sends to a connector wait, without a refusal and without a failure.

A breaker opens after ``CAVRA_BREAKER_FAILURES`` failures in a row of a class that counts. While it is open nothing
goes to the connector but a canary, a fixed synthetic body: its success closes the breaker, its failure doubles
what the next one waits for. So does opening again before anything was delivered: a canary may get through where
content does not, and each time it does deliveries that waited fail in a row.

A connector's row is moved in the transaction that writes the outcome, locked after the cases, so two processes
count right and only one of them opens it. An expired lease does not count: it is our crash that it tells of. Nor
does a question whether something arrived: it goes through another door of the receiver than content does, and who
asks leaves a connector alone by itself for a while after one that failed.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Q, QuerySet

from evidence.connectors.failures import PROPERTIES
from evidence.connectors.specs import Receipt
from evidence.documents import CONNECTOR_BREAKER
from evidence.domain import records, text
from evidence.enums import BreakerState, FailureClass, Hold
from evidence.models import Breaker, Connector, ConnectorWindow, PauseSwitch

COOL_DOWN = timedelta(seconds=60)
LONGEST_COOL_DOWN = timedelta(minutes=30)
# Nobody else sends a canary while one is under way: longer than any may take, slot and answer included.
CANARY_TAKES = timedelta(seconds=90)
# Windows that are shown before they begin.
SHOWN_AHEAD = timedelta(days=14)

OPENED, CLOSED = "opened", "closed"


@dataclass(frozen=True)
class Wait:
    """One thing that holds a connector back; ``until`` is when it is looked at again, or ends by itself."""

    code: Hold
    sentence: str
    until: datetime | None


@dataclass(frozen=True)
class Standing:
    """A connector's breaker and windows at one moment.

    ``state`` is closed, open, or half-open: a canary may go. ``failures`` in a row and ``failure_class`` of the
    newest that counted; ``since`` is when it opened, ``probe_at`` when the next canary may go, ``held_until``
    what the receiver asked for. ``windows`` are the one that is on and those of the next two weeks.
    """

    state: BreakerState = BreakerState.CLOSED
    failures: int = 0
    failure_class: str = ""
    since: datetime | None = None
    probe_at: datetime | None = None
    held_until: datetime | None = None
    changed_at: datetime | None = None
    windows: tuple[ConnectorWindow, ...] = ()
    waits: tuple[Wait, ...] = ()

    @property
    def label(self) -> str:
        """The newest failure that counted, in words."""
        return PROPERTIES[FailureClass(self.failure_class)].label if self.failure_class else ""


# --- what stands against sending ----------------------------------------------------------------------------------


def reasons_against_sending(connector: Connector, at: datetime) -> list[tuple[str, str]]:
    """Why a send to ``connector`` waits at ``at``, as ``(code, sentence)``; empty means it need not."""
    return [(wait.code.value, wait.sentence) for wait in waits([connector], at).get(connector.pk, ())]


def waits(connectors: Iterable[Connector], at: datetime) -> dict[int, tuple[Wait, ...]]:
    """What holds each connector (by its key) back at ``at``, the longest first; only those that wait.

    Two queries, however many connectors.
    """
    return {pk: found.waits for pk, found in standing(connectors, at).items() if found.waits}


def standing(connectors: Iterable[Connector], at: datetime) -> dict[int, Standing]:
    """Breaker and windows of each connector, by its key, at ``at``; two queries, however many connectors."""
    by_pk = {connector.pk: connector for connector in connectors}
    rows = {row.pk: row for row in Breaker.objects.filter(connector__in=by_pk)}
    windows: dict[int, list[ConnectorWindow]] = defaultdict(list)
    for window in ConnectorWindow.objects.filter(
        connector__in=by_pk, end_at__gt=at, start_at__lte=at + SHOWN_AHEAD
    ):
        windows[window.connector_id].append(window)
    return {pk: _standing(connector, rows.get(pk), tuple(windows[pk]), at) for pk, connector in by_pk.items()}


def waiting(at: datetime) -> Q:
    """Connectors that something holds back at ``at``, as a condition on their rows."""
    held = Q(held_until__gt=at)
    if settings.CAVRA_BREAKER_FAILURES:
        held |= Q(state=BreakerState.OPEN)
    return Q(pk__in=Breaker.objects.filter(held).values("connector")) | down(at)


def down(at: datetime) -> Q:
    """Connectors whose receiver is down by plan at ``at``, as a condition on their rows."""
    on = ConnectorWindow.objects.filter(start_at__lte=at, end_at__gt=at)
    return Q(pk__in=on.values("connector"))


def _standing(
    connector: Connector, row: Breaker | None, windows: tuple[ConnectorWindow, ...], at: datetime
) -> Standing:
    row = row or Breaker(connector=connector)
    is_open = row.state == BreakerState.OPEN and bool(settings.CAVRA_BREAKER_FAILURES)
    half_open = is_open and row.probe_at is not None and row.probe_at <= at
    state = BreakerState.HALF_OPEN if half_open else BreakerState.OPEN if is_open else BreakerState.CLOSED
    found = [
        Wait(
            Hold.MAINTENANCE_WINDOW,
            f"{connector.key} is under maintenance until {text.moment(window.end_at)} ({window.window_id}).",
            window.end_at,
        )
        for window in windows
        if window.start_at <= at
    ]
    if is_open:
        found.append(Wait(Hold.BREAKER_OPEN, _why_open(connector, row, half_open), row.probe_at))
    held_until = row.held_until if row.held_until and row.held_until > at else None
    if held_until:
        sentence = f"{connector.key} asked to be left alone until {text.moment(held_until)}."
        found.append(Wait(Hold.THROTTLED, sentence, held_until))
    found.sort(key=lambda wait: wait.until or at, reverse=True)
    return Standing(
        state=state,
        failures=row.failures,
        failure_class=row.failure_class,
        since=row.opened_at,
        probe_at=row.probe_at,
        held_until=held_until,
        changed_at=row.changed_at,
        windows=windows,
        waits=tuple(found),
    )


def _why_open(connector: Connector, row: Breaker, half_open: bool) -> str:
    label = PROPERTIES[FailureClass(row.failure_class)].label
    canary = (
        "a canary has to get through first"
        if half_open or row.probe_at is None
        else f"the next canary goes at {text.moment(row.probe_at)}"
    )
    return f"{connector.key} is held back after {row.failures} failures in a row ({label}); {canary}."


# --- what came of sends -------------------------------------------------------------------------------------------


def heard(
    receipts: Iterable[Receipt],
    *,
    at: datetime,
    because: Mapping[str, records.Reference] | None = None,
) -> list[records.Draft]:
    """Count what came of sends of evidence and notices; the records of breakers that opened.

    The caller's transaction writes the outcomes themselves, holds their cases, locks nothing after this, and
    appends what is returned. ``because`` maps a receipt's token to the record that says what came of it.

    While a breaker is open only its canary moves it: what was under way when it opened says nothing new.
    """
    drafts = []
    by_key = _in_order(receipts)
    rows = _lock_what_moves(by_key)
    for row in rows.values():
        opened = None
        for receipt in by_key[row.connector.key]:
            _hold(row, receipt, at)
            if row.state == BreakerState.CLOSED and _count(row, receipt, at):
                opened = receipt
        row.save()
        if opened:
            drafts.append(_record(row, OPENED, at, (because or {}).get(opened.token)))
    return drafts


def heard_canary(
    connector: Connector, receipt: Receipt, *, at: datetime, because: records.Reference | None = None
) -> list[records.Draft]:
    """Count what came of a canary; the record of the breaker that closed or opened by it.

    In the transaction that records the canary, see ``heard``. A success closes an open breaker. A failure of
    any class keeps it open and doubles what the next canary waits for. With a closed breaker a canary counts like
    any other send.
    """
    row = _locked([connector.pk])[connector.pk]
    _hold(row, receipt, at)
    drafts = []
    if row.state == BreakerState.CLOSED:
        drafts = [_record(row, OPENED, at, because)] if _count(row, receipt, at) else []
    elif receipt.delivered:
        drafts = [_record(row, CLOSED, at, because)]
        row.state, row.failures, row.failure_class = BreakerState.CLOSED, 0, ""
        row.opened_at = row.probe_at = row.held_until = None
        row.changed_at = at
    else:
        _cool_down(row, at)
    row.save()
    return drafts


def due_canaries(at: datetime) -> QuerySet[Connector]:
    """Connectors whose open breaker waits for a canary at ``at``, and to which one may go."""
    if not settings.CAVRA_BREAKER_FAILURES:
        return Connector.objects.none()
    paused = PauseSwitch.objects.values_list("scope", flat=True)
    if PauseSwitch.ALL in paused:
        return Connector.objects.none()
    return (
        Connector.objects.filter(enabled=True, breaker__state=BreakerState.OPEN, breaker__probe_at__lte=at)
        .exclude(key__in=paused)
        .exclude(down(at))
        .order_by("breaker__probe_at", "pk")
    )


def begin_canary(connector: Connector, *, at: datetime) -> bool:
    """Take the turn of a due canary, in a transaction of its own before the socket; False when somebody has it.

    Of several workers one gets it. If nobody is heard of again the next one is due after ``CANARY_TAKES``.
    """
    due = Breaker.objects.filter(connector=connector, state=BreakerState.OPEN, probe_at__lte=at)
    return bool(due.update(probe_at=at + CANARY_TAKES))


def _in_order(receipts: Iterable[Receipt]) -> dict[str, list[Receipt]]:
    """Receipts by their connectors' keys, in the order in which they were answered."""
    found: dict[str, list[Receipt]] = defaultdict(list)
    for receipt in sorted(receipts, key=lambda one: one.completed_at):
        found[receipt.connector].append(receipt)
    return found


def _counts(receipt: Receipt) -> bool:
    return receipt.failure_class is not None and PROPERTIES[receipt.failure_class].counts_for_breaker


def _lock_what_moves(by_key: Mapping[str, Sequence[Receipt]]) -> dict[int, Breaker]:
    """The breakers that these receipts move, locked. A success that changes nothing costs no lock."""
    failing = {key for key, receipts in by_key.items() if any(_counts(one) for one in receipts)}
    wanted = set(Connector.objects.filter(key__in=failing).values_list("pk", flat=True)) if failing else set()
    if delivered := {key for key in by_key.keys() - failing if any(one.delivered for one in by_key[key])}:
        counting = Breaker.objects.filter(Q(failures__gt=0) | Q(cool_down_s__gt=0), state=BreakerState.CLOSED)
        wanted |= set(counting.filter(connector__key__in=delivered).values_list("pk", flat=True))
    return _locked(wanted)


def _locked(pks: Iterable[int]) -> dict[int, Breaker]:
    """The breakers of connectors (by key), made where there is none, locked in one order for everybody."""
    wanted = sorted(pks)
    if not wanted:
        return {}
    known = set(Breaker.objects.filter(pk__in=wanted).values_list("pk", flat=True))
    if missing := [pk for pk in wanted if pk not in known]:
        Breaker.objects.bulk_create([Breaker(connector_id=pk) for pk in missing], ignore_conflicts=True)
    rows = Breaker.objects.select_for_update(no_key=True, of=("self",)).filter(pk__in=wanted)
    return {row.pk: row for row in rows.select_related("connector").order_by("pk")}


def _hold(row: Breaker, receipt: Receipt, at: datetime) -> None:
    """What the receiver asked for with Retry-After (RFC 9110 §10.2.3, RFC 6585 §4) holds its connector back."""
    if receipt.failure_class is FailureClass.THROTTLED and receipt.retry_after_s:
        until = at + timedelta(seconds=receipt.retry_after_s)
        row.held_until = max(row.held_until or until, until)
        if row.probe_at:
            row.probe_at = max(row.probe_at, until)


def _count(row: Breaker, receipt: Receipt, at: datetime) -> bool:
    """Count one result of a closed breaker; whether it opened by it."""
    if receipt.delivered:
        row.failures, row.failure_class, row.cool_down_s = 0, "", 0
        return False
    if not _counts(receipt):
        return False
    row.failures += 1
    row.failure_class = receipt.failure_class or ""
    most = settings.CAVRA_BREAKER_FAILURES
    if not most or row.failures < most:
        return False
    row.state, row.opened_at, row.changed_at = BreakerState.OPEN, at, at
    _cool_down(row, at)
    return True


def _cool_down(row: Breaker, at: datetime) -> None:
    """The next canary waits twice as long as the last one did, and as long as the receiver asked for."""
    longer = min(timedelta(seconds=2 * row.cool_down_s) or COOL_DOWN, LONGEST_COOL_DOWN)
    row.cool_down_s = round(longer.total_seconds())
    row.probe_at = max(at + longer, row.held_until or at)


def _record(row: Breaker, change: str, at: datetime, because: records.Reference | None) -> records.Draft:
    return records.draft(
        CONNECTOR_BREAKER,
        records.mint_id(CONNECTOR_BREAKER),
        {
            "provider": row.connector.key,
            "change": change,
            "failure_class": row.failure_class,
            "failures": row.failures,
            "opened_at": records.timestamp(row.opened_at or at),
            "at": records.timestamp(at),
        },
        at=at,
        by=None,
        references=[because] if because else [],
    )
