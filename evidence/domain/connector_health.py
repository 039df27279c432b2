"""How each connector does, judged by what came of its tries: one row per connector, a fixed number of queries."""

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, Max, Min, Q

from evidence.connectors.credentials import Misconfigured
from evidence.connectors.failures import PROPERTIES
from evidence.connectors.products import PRODUCTS
from evidence.connectors.products.adapter import Adapter
from evidence.domain import breakers, parking, policies, sending, troubles
from evidence.domain.breakers import Standing
from evidence.domain.parking import Parked
from evidence.enums import Answer, BreakerState, CaseState, FailureClass, Outcome, Product
from evidence.models import Attempt, Case, Connector, ConnectorWindow, PauseSwitch, Trouble

# Tries are counted and timed over this long, medians over each slot of it.
DAY = timedelta(hours=24)
SLOT = timedelta(minutes=30)
SLOTS = DAY // SLOT
# The last success and the last failure are looked for no further back.
LOOK_BACK = timedelta(days=30)
# Tries of a day that are read, newest first; beyond it the figures speak of fewer hours.
TRIES_READ = 20_000

HEALTHY, WARNING, CRITICAL = "healthy", "warning", "critical"
DISABLED, MISCONFIGURED = "disabled", "misconfigured"
WORST_FIRST = (CRITICAL, MISCONFIGURED, WARNING, HEALTHY, DISABLED)


@dataclass(frozen=True)
class Threshold:
    """From when on a connector is called ``word``; reaching one of the limits is enough.

    ``in_a_row``: newest tries that were not delivered. ``share``: of the day's tries, if there were ``of_least``.
    ``waiting``: age of the oldest case that is not settled.
    """

    word: str
    in_a_row: int
    share: float
    of_least: int
    waiting: timedelta


# The worst first; the last one says what is worth mentioning at all.
THRESHOLDS = (
    Threshold(CRITICAL, in_a_row=3, share=0.5, of_least=4, waiting=timedelta(hours=24)),
    Threshold(WARNING, in_a_row=1, share=0.1, of_least=4, waiting=timedelta(hours=1)),
)


@dataclass(frozen=True)
class Slot:
    """One half hour: the median time to an answer, None without one, and tries that were not delivered."""

    median_ms: int | None
    failed: int


@dataclass(frozen=True)
class Failure:
    """The last try that was not delivered: when, its class and that in words, the status in its protocol."""

    at: datetime
    label: str
    status_code: int | None
    failure_class: str = ""
    protocol: str = "HTTP"


@dataclass(frozen=True)
class Health:
    """One connector at ``at``.

    ``word`` is healthy, warning, critical, disabled or misconfigured, ``reasons`` say why. ``delivered`` of
    ``sends``, the times and ``slots`` (oldest first) speak of the last 24 hours, ``last_success`` and
    ``last_failure`` of the last 30 days. ``unknown`` are those of the ``unsettled`` cases whose outcome is.
    ``standing`` is its breaker and its windows, ``trouble`` what was announced of it and is not over.
    """

    at: datetime
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
    connector: Connector
    standing: Standing
    parked: Parked | None
    trouble: Trouble | None

    @property
    def adapter(self) -> Adapter:
        """What its product does: assurance, limits, ways to test it."""
        return PRODUCTS[Product(self.product)]

    @property
    def max_body(self) -> int:
        """How many bytes of content it takes."""
        return self.adapter.most(sending.settings_of(self.connector))

    @property
    def breaker_word(self) -> str:
        """The state of its breaker, as the table of states calls it."""
        return f"breaker_{self.standing.state}"

    @property
    def own_reasons(self) -> tuple[str, ...]:
        """The reasons without those that ``standing`` tells better."""
        told = {wait.sentence for wait in self.standing.waits}
        return tuple(reason for reason in self.reasons if reason not in told)

    @property
    def success_rate(self) -> float | None:
        """Share of the day's tries that were delivered; None without any."""
        return self.delivered / self.sends if self.sends else None

    @property
    def window(self) -> ConnectorWindow | None:
        """The maintenance window that is on: its receiver is down by plan."""
        return next((one for one in self.standing.windows if one.start_at <= self.at), None)

    @property
    def next_window(self) -> ConnectorWindow | None:
        """The next one of those that are ahead."""
        return next((one for one in self.standing.windows if one.start_at > self.at), None)


@dataclass(frozen=True)
class _Try:
    """What counts of an attempt: when it ended, whether it was delivered, how long an answer took."""

    at: datetime
    delivered: bool
    took_ms: int | None


@dataclass(frozen=True)
class _Waiting:
    """Cases of a connector that are not settled."""

    count: int = 0
    unknown: int = 0
    oldest: datetime | None = None


def survey(at: datetime, only: Connector | None = None) -> list[Health]:
    """Every configured connector at ``at`` (or ``only`` one), the worst first, then by key."""
    connectors = list(Connector.objects.all()) if only is None else [only]
    tries, ends, waiting = _tries(at, only), _ends(at, only), _waiting(only)
    scopes = policies.paused_scopes()
    standing = breakers.standing(connectors, at)
    parked, open_troubles = parking.standing(connectors), troubles.open_troubles(connectors)
    found = [
        _health(
            connector,
            at,
            tries.get(connector.pk, []),
            *ends.get(connector.pk, (None, None)),
            waiting.get(connector.pk, _Waiting()),
            scopes,
            standing,
            parked.get(connector.pk),
            open_troubles.get(connector.pk),
        )
        for connector in connectors
    ]
    return sorted(found, key=lambda health: (WORST_FIRST.index(health.word), health.key))


def _of(only: Connector | None, path: str = "case__connector") -> Q:
    """Rows of one connector, or of all."""
    return Q(**{path: only}) if only else Q()


def _health(
    connector: Connector,
    at: datetime,
    tries: Sequence[_Try],
    success: datetime | None,
    failure: Failure | None,
    waiting: _Waiting,
    scopes: frozenset[str],
    standing: Mapping[int, Standing],
    parked: Parked | None,
    trouble: Trouble | None,
) -> Health:
    """One connector judged; ``tries`` are the day's, newest first."""
    reasons = policies.reasons_against_sending(connector, scopes, at, standing)
    held = [sentence for _, sentence in reasons]
    broken = _misconfigured(connector)
    reached = next((limit for limit in THRESHOLDS if _reasons(limit, at, tries, failure, waiting)), None)
    word = reached.word if reached else HEALTHY
    if standing[connector.pk].state != BreakerState.CLOSED:
        word = CRITICAL
    if broken:
        word = MISCONFIGURED
    if not connector.enabled:
        word = DISABLED
    times = sorted(one.took_ms for one in tries if one.took_ms is not None)
    return Health(
        at=at,
        key=connector.key,
        product=connector.product,
        title=connector.title,
        word=word,
        reasons=(*held, *broken, *_reasons(THRESHOLDS[-1], at, tries, failure, waiting)),
        paused=bool(scopes & {PauseSwitch.ALL, connector.key}),
        last_success=success,
        last_failure=failure,
        delivered=sum(one.delivered for one in tries),
        sends=len(tries),
        p50_ms=_rank(times, 0.5),
        p95_ms=_rank(times, 0.95),
        slots=_slots(tries, at),
        unsettled=waiting.count,
        unknown=waiting.unknown,
        oldest_unsettled=waiting.oldest,
        connector=connector,
        standing=standing[connector.pk],
        parked=parked,
        trouble=trouble,
    )


def _reasons(
    limit: Threshold, at: datetime, tries: Sequence[_Try], failure: Failure | None, waiting: _Waiting
) -> list[str]:
    """Sentences about what has reached ``limit``."""
    reasons = []
    row = next((place for place, one in enumerate(tries) if one.delivered), len(tries))
    if row >= limit.in_a_row:
        why = f": {failure.label}" if failure else ""
        status = f" ({failure.protocol} {failure.status_code})" if failure and failure.status_code else ""
        last = "The last try was" if row == 1 else f"The last {row} tries were"
        reasons.append(f"{last} not delivered{why}{status}.")
    failed = sum(not one.delivered for one in tries)
    if len(tries) >= limit.of_least and failed >= limit.share * len(tries):
        reasons.append(f"{failed} of {len(tries)} tries of the last 24 hours were not delivered.")
    if waiting.oldest is not None and at - waiting.oldest >= limit.waiting:
        hours = int((at - waiting.oldest) / timedelta(hours=1))
        age = f"{hours} h" if hours < 48 else f"{hours // 24} days"
        those = (
            "1 case is not settled"
            if waiting.count == 1
            else f"{waiting.count} cases are not settled, the oldest"
        )
        reasons.append(f"{those} for {age}.")
    return reasons


def _misconfigured(connector: Connector) -> list[str]:
    """Why nothing could be addressed to it, without opening anything."""
    try:
        sending.address_body(connector, b"", "application/json", about=connector.key)
    except Misconfigured as error:
        return [f"Its configuration cannot be used: {error}."]
    return []


def _tries(at: datetime, only: Connector | None) -> Mapping[int, list[_Try]]:
    """Tries of the last day by connector, newest first."""
    rows = (
        Attempt.objects.filter(_of(only), completed_at__gt=at - DAY)
        .order_by("-completed_at", "-pk")
        .values_list("case__connector_id", "outcome", "answer", "started_at", "completed_at")
    )
    found: dict[int, list[_Try]] = defaultdict(list)
    for connector, outcome, answer, started, completed in rows[:TRIES_READ]:
        # Nothing is known of how long a lost one took, and what never left took no time of the receiver's.
        timed = outcome != Outcome.UNKNOWN and answer != Answer.NOT_SENT
        took = round((completed - started).total_seconds() * 1000) if timed else None
        found[connector].append(_Try(completed, outcome == Outcome.DELIVERED, took))
    return found


def _ends(at: datetime, only: Connector | None) -> Mapping[int, tuple[datetime | None, Failure | None]]:
    """Last success and last failure of each connector in the time looked back on."""
    delivered = Q(outcome=Outcome.DELIVERED)
    rows = list(
        Attempt.objects.filter(_of(only), completed_at__gt=at - LOOK_BACK)
        .order_by()
        .values_list("case__connector_id")
        .annotate(
            success=Max("completed_at", filter=delivered), failure=Max("completed_at", filter=~delivered)
        )
    )
    failed = Attempt.objects.filter(~delivered, completed_at__in={failure for *_, failure in rows if failure})
    failures = {
        (connector, completed): Failure(
            completed, _label(failure_class), status, failure_class, PRODUCTS[Product(product)].transport.name
        )
        for connector, completed, failure_class, status, product in failed.order_by("pk").values_list(
            "case__connector_id", "completed_at", "failure_class", "status_code", "case__connector__product"
        )
    }
    return {connector: (success, failures.get((connector, failure))) for connector, success, failure in rows}


def _label(failure_class: str) -> str:
    return PROPERTIES[FailureClass(failure_class)].label if failure_class else "outcome unknown"


def _waiting(only: Connector | None) -> Mapping[int, _Waiting]:
    """Cases that are not settled, by connector."""
    rows = (
        Case.objects.filter(_of(only, "connector"), state__in=[CaseState.FAILED, CaseState.UNKNOWN])
        .order_by()
        .values_list("connector_id")
        .annotate(
            count=Count("pk"),
            unknown=Count("pk", filter=Q(state=CaseState.UNKNOWN)),
            oldest=Min("last_outcome_at"),
        )
    )
    return {connector: _Waiting(count, unknown, oldest) for connector, count, unknown, oldest in rows}


def _slots(tries: Sequence[_Try], at: datetime) -> tuple[Slot, ...]:
    """The day in slots, oldest first."""
    times: list[list[int]] = [[] for _ in range(SLOTS)]
    failed = [0] * SLOTS
    for one in tries:
        place = min(int((one.at - (at - DAY)) / SLOT), SLOTS - 1)
        failed[place] += not one.delivered
        if one.took_ms is not None:
            times[place].append(one.took_ms)
    return tuple(
        Slot(round(statistics.median(took)) if took else None, count)
        for took, count in zip(times, failed, strict=True)
    )


def _rank(ordered: Sequence[int], share: float) -> int | None:
    """The value that ``share`` of them do not exceed (nearest rank); None of none."""
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else None
