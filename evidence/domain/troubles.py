"""A connector that keeps failing is announced through another one, and so is that it delivers again.

One announcement and one all-clear for each trouble: the row is there before anything is sent, so that two workers
tell it once and a crash tells nobody twice. Through whom is the connector's own setting; it is never itself, and
one that is paused, disabled or held back is waited for. What is told is fixed wording around connector key,
failure class, time and number of cases: no case, no content, no address.

A timer may tell it: P9 is about live sends of evidence, which wait for a person's approval and run. This holds no
evidence, no attempt comes of it and no approval is used up. What it comes to is a record, and counts for the
breaker of the connector that it went through; it is nobody's trouble, so announcements never cause another one.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet

from evidence.connectors import sender
from evidence.connectors.credentials import Misconfigured
from evidence.connectors.failures import PROPERTIES
from evidence.connectors.specs import Receipt
from evidence.documents import CONNECTOR_TROUBLE, CONNECTOR_TROUBLE_END, CONNECTOR_TROUBLE_NOTICE
from evidence.domain import attempts, breakers, ledger, live, policies, records, sending
from evidence.domain import clock as clocks
from evidence.domain.clock import Clock
from evidence.enums import Answer, BreakerState, CaseState, FailureClass, Outcome
from evidence.models import Attempt, Canary, Case, Connector, Trouble

SCHEMA = "cavra.connector.trouble.v1"
EVENT_TYPE = "cavra.connector.trouble"
# A connector has to fail for this long.
AFTER = timedelta(hours=1)
# Failures that are longer ago are no news.
LOOK_BACK = timedelta(days=30)
# How long an announcement waits for a slot of the connector it goes through.
SLOT_S = 10.0

BEGAN, ENDED = "began", "ended"


@dataclass(frozen=True)
class Failing:
    """A connector that has been failing ``since``: the class of its newest failure, and who is told.

    ``through`` is empty when nobody is. ``held`` says why telling has to wait; empty when it need not.
    """

    connector: Connector
    since: datetime
    failure_class: str
    through: str
    held: str = ""

    @property
    def label(self) -> str:
        """The newest failure in words."""
        return label_of(self.failure_class)


def label_of(failure_class: str) -> str:
    """A failure class in words."""
    return PROPERTIES[FailureClass(failure_class)].label if failure_class else "nothing was tried"


# --- telling ------------------------------------------------------------------------------------------------------


def announce(*, clock: Clock, beat: Callable[[], None] = lambda: None) -> int:
    """Announce what has been failing for an hour, and what delivers again; how many announcements were made."""
    at = clocks.read(clock)
    if live.reasons_against_live(clock):
        return 0
    told = 0
    for trouble in Trouble.objects.filter(ended_at=None).select_related("connector"):
        through = _through(trouble.through)
        if through and (not through.enabled or policies.reasons_against_telling(through)):
            through = None  # Whoever could be told is gone; the trouble ends, and the next one is news.
        if delivers_again(trouble) and not _held(through, at):
            end = partial(_end, trouble, through, clock=clock)
            told += _told(trouble, through, end, clock=clock, beat=beat)
    for one in failing(at):
        if one.through and not one.held:
            told += _told(
                None, _through(one.through), partial(_open, one, clock=clock), clock=clock, beat=beat
            )
    return told


def failing(at: datetime, connectors: Iterable[Connector] | None = None) -> list[Failing]:
    """Connectors that have been failing for an hour at ``at`` and were not announced, whoever is to be told.

    None whose receiver is down by plan: that is known.
    """
    # Where nothing waits, nobody has to be told.
    asked = Connector.objects.filter(enabled=True, pk__in=_unsettled().values("connector"))
    if connectors is not None:
        asked = asked.filter(pk__in=[connector.pk for connector in connectors])
    asked = asked.exclude(breakers.down(at))
    open_now = Trouble.objects.filter(ended_at=None).values("connector")
    # Who delivered within the hour is in no trouble of an hour: that leaves few to look at closely.
    well = Attempt.objects.filter(completed_at__gt=at - AFTER, outcome=Outcome.DELIVERED)
    found = []
    for connector in asked.exclude(pk__in=open_now).exclude(pk__in=well.values("case__connector")):
        since, failure_class = _failing_since(connector, at)
        if since is None or at - since < AFTER:
            continue
        key = connector.announce_through
        held = _held(_through(key), at) if key else ""
        found.append(Failing(connector, since, failure_class, key, held))
    return found


def delivers_again(trouble: Trouble) -> bool:
    """Whether the connector delivered anything since its trouble was announced, a canary included."""
    last = _last_success(trouble.connector, trouble.since)
    return last is not None


def open_troubles(connectors: Iterable[Connector]) -> dict[int, Trouble]:
    """The trouble of each connector (by its key) that goes on; only those that are in one."""
    rows = Trouble.objects.filter(ended_at=None, connector__in=[one.pk for one in connectors])
    return {row.connector_id: row for row in rows}


def event_about(trouble: Trouble, change: str) -> dict[str, Any]:
    """What another connector is told: fixed words, a key, a class, a time, a number."""
    key, began = trouble.connector.key, change == BEGAN
    since = records.timestamp(trouble.since)
    if began:
        cases = "1 case waits" if trouble.waiting == 1 else f"{trouble.waiting} cases wait"
        text = f"{key} has been failing since {since}: {label_of(trouble.failure_class)}. {cases}."
    else:
        text = f"{key} delivers again. It had been failing since {since}."
    return {
        "schema_version": SCHEMA,
        "event_type": EVENT_TYPE,
        "session_id": trouble.trouble_id,
        "title": f"CAVRA: {key} keeps failing" if began else f"CAVRA: {key} delivers again",
        "text": text,
        "alert_level": "critical" if began else "healthy",
        "max_severity": "high" if began else "low",
        "change": change,
        "connector": key,
        "failure_class": trouble.failure_class,
        "since": since,
        "waiting_cases": trouble.waiting,
    }


def _told(
    there: Trouble | None,
    through: Connector | None,
    begin: Callable[[], Trouble | None],
    *,
    clock: Clock,
    beat: Callable[[], None],
) -> int:
    """Take one step of a trouble, then tell it; 1 when this process took it."""
    trouble = begin()
    if trouble is None:
        return 0
    if through is None:
        return 1
    change = BEGAN if there is None else ENDED
    beat()
    receipt = _sent(through, event_about(trouble, change), about=f"{trouble.trouble_id}.{change}")
    attempts.written(partial(_finish, trouble, through, change, receipt, clock=clock))
    return 1


def _sent(through: Connector, event: dict[str, Any], *, about: str) -> Receipt:
    """One try, whatever comes of it."""
    try:
        prepared = sending.prepare_event(through, event, about=about)
    except Misconfigured as error:
        return sending.misconfigured(about, through, error)
    spec = sending.spec_for(prepared, through, token=about, timeout_s=through.timeout_ms / 1000)
    (receipt,) = sender.shared().send_all([spec], deadline_s=SLOT_S)
    return receipt


def _through(key: str) -> Connector | None:
    return Connector.objects.filter(key=key).first() if key else None


def _held(through: Connector | None, at: datetime) -> str:
    """Why nothing can be told through this connector now; empty when it can, or when it is not there any more."""
    if through is None:
        return ""
    reasons = [
        *policies.reasons_against_telling(through),
        *policies.reasons_against_sending(through, policies.paused_scopes(), at),
    ]
    return reasons[0][1] if reasons else ""


# --- rows and records ---------------------------------------------------------------------------------------------


def _open(one: Failing, *, clock: Clock) -> Trouble | None:
    """The trouble, as this process is to tell it; None when another one does."""
    try:
        with transaction.atomic():
            connector = Connector.objects.select_for_update(no_key=True).get(pk=one.connector.pk)
            at = clocks.read(clock)
            if not connector.enabled or connector.announce_through != one.through:
                return None
            # By the announcement before this one, maybe.
            if _held(_through(one.through), at):
                return None
            draft = records.draft(
                CONNECTOR_TROUBLE,
                records.mint_id(CONNECTOR_TROUBLE),
                {
                    "provider": connector.key,
                    "failure_class": one.failure_class,
                    "since": records.timestamp(one.since),
                    "waiting": (waiting := _waiting(connector)),
                    "through": one.through,
                    "announced_at": records.timestamp(at),
                },
                at=at,
                by=None,
            )
            trouble = Trouble.objects.create(
                trouble_id=draft.record_id,
                connector=connector,
                since=one.since,
                failure_class=one.failure_class,
                waiting=waiting,
                through=one.through,
                announced_at=at,
                record_hash=draft.digest,
            )
            ledger.append([draft])
    except IntegrityError:  # another worker was first
        return None
    return trouble


def _end(trouble: Trouble, through: Connector | None, *, clock: Clock) -> Trouble | None:
    """The trouble ended, as this process is to tell it; None when another one does."""
    with transaction.atomic():
        row = Trouble.objects.select_for_update(no_key=True, of=("self",)).select_related("connector")
        held = row.filter(pk=trouble.pk, ended_at=None).first()
        if held is None:
            return None
        at = clocks.read(clock)
        if _held(through, at):
            return None
        held.ended_at = at
        held.save(update_fields=["ended_at"])
        draft = records.draft(
            CONNECTOR_TROUBLE_END,
            records.mint_id(CONNECTOR_TROUBLE_END),
            {
                "trouble_id": held.trouble_id,
                "provider": held.connector.key,
                "since": records.timestamp(held.since),
                "ended_at": records.timestamp(at),
                "through": held.through,
            },
            at=at,
            by=None,
            references=[records.Reference(CONNECTOR_TROUBLE.name, held.trouble_id, held.record_hash)],
        )
        ledger.append([draft])
    return held


def _finish(trouble: Trouble, through: Connector, change: str, receipt: Receipt, *, clock: Clock) -> None:
    """Write down what came of telling it."""
    column = "told" if change == BEGAN else "told_end"
    outcome = Outcome.DELIVERED if receipt.delivered else Outcome.FAILED
    with transaction.atomic():
        Trouble.objects.filter(pk=trouble.pk).update(**{column: outcome})
        at = clocks.read(clock)
        draft = records.draft(
            CONNECTOR_TROUBLE_NOTICE,
            records.mint_id(CONNECTOR_TROUBLE_NOTICE),
            {
                "trouble_id": trouble.trouble_id,
                "provider": trouble.connector.key,
                "change": change,
                "through": through.key,
                "outcome": outcome.value,
                "failure_class": receipt.failure_class or "",
                "status_code": receipt.status_code,
                "at": records.timestamp(at),
            },
            at=at,
            by=None,
            references=[records.Reference(CONNECTOR_TROUBLE.name, trouble.trouble_id, trouble.record_hash)],
        )
        moved = breakers.heard([receipt], at=at, because={receipt.token: draft.reference})
        ledger.append([draft, *moved])


# --- looking ------------------------------------------------------------------------------------------------------


def _failures(connector: Connector, at: datetime) -> QuerySet[Attempt]:
    """Tries of evidence that failed. One whose outcome is unknown tells of our crash and not of the receiver."""
    lately = Attempt.objects.filter(completed_at__gt=at - LOOK_BACK, case__connector=connector)
    return lately.filter(outcome=Outcome.FAILED).exclude(answer=Answer.NOT_SENT, failure_class="")


def _last_success(connector: Connector, since: datetime) -> datetime | None:
    """When anything arrived last after ``since``: a delivery, or a canary. None when nothing did."""
    delivered = Attempt.objects.filter(
        completed_at__gt=since, case__connector=connector, outcome=Outcome.DELIVERED
    )
    tested = Canary.objects.filter(connector=connector, started_at__gt=since, outcome=Outcome.DELIVERED)
    found = (
        delivered.order_by("-completed_at").values_list("completed_at", flat=True).first(),
        tested.order_by("-started_at").values_list("started_at", flat=True).first(),
    )
    return max((at for at in found if at is not None), default=None)


def _failing_since(connector: Connector, at: datetime) -> tuple[datetime | None, str]:
    """When its first try after the last success failed, and the class of the newest one; None when none did.

    An open breaker is a failure, too, whatever opened it: what waits behind it is never tried.
    """
    last = _last_success(connector, at - LOOK_BACK)
    tries = _failures(connector, at).filter(Q(completed_at__gt=last) if last else Q())
    if first := tries.order_by("completed_at", "pk").first():
        return first.completed_at, tries.latest("completed_at").failure_class
    standing = breakers.standing([connector], at)[connector.pk]
    if standing.state == BreakerState.CLOSED or standing.since is None:
        return None, ""
    return max(standing.since, last or standing.since), standing.failure_class


def _unsettled() -> QuerySet[Case]:
    return Case.objects.filter(state__in=(CaseState.PARKED, CaseState.FAILED, CaseState.UNKNOWN))


def _waiting(connector: Connector) -> int:
    """Cases that are not settled."""
    return _unsettled().filter(connector=connector).count()
