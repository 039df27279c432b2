"""Canaries: whether a connector works, found out without evidence (P1).

A canary is a fixed message that says that it is a test: the same bytes every time, whoever asks, with no case,
package, route or name in it. What the connector's product makes of it is what it makes of everything. Where a
test message would leave a ticket behind or wake somebody, the product is asked for a message that never was; where
it cannot be asked, a connection is opened and closed.

It is no live send of evidence: a paused connector may be tested, and a worker tests one whose breaker is open by
itself. What came of it is a record and moves the breaker. One goes at a time for each connector, and its turn is
taken in a row before the socket opens: whoever dies leaves an unknown outcome, and nothing is sent again.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import Any

from django.db import transaction

from evidence.connectors import asking, probing, sender
from evidence.connectors.credentials import Misconfigured
from evidence.connectors.products import PRODUCTS
from evidence.connectors.specs import Receipt, SendSpec
from evidence.documents import CONNECTOR_CANARY
from evidence.domain import attempts, breakers, diagnostics, ledger, live, policies, records, sending
from evidence.domain import clock as clocks
from evidence.domain.breakers import Standing
from evidence.domain.clock import Clock
from evidence.enums import Answer, Assurance, CanaryMeans, FailureClass, Hold, Outcome, Product
from evidence.errors import Conflict
from evidence.models import Canary, CanaryTurn, Connector, Person
from evidence.permissions import Permission

logger = logging.getLogger(__name__)

# The whole content. Nothing of it depends on anything that is stored.
EVENT: Mapping[str, Any] = MappingProxyType(
    {
        "schema_version": "cavra.connector.canary.v1",
        "event_type": "cavra.connector.canary",
        "session_id": "canary",
        "title": "CAVRA canary: a test message, nothing to do",
        "text": "This is a test of the connection from the CAVRA Evidence Console. It holds no evidence.",
        "alert_level": "healthy",
        "max_severity": "low",
    }
)
# Its id on the wire: the same each time, and no case's.
ABOUT = "canary"
# Between two canaries to one connector, whoever sends them.
PAUSE = timedelta(seconds=10)
# How long a canary waits for one of its connector's slots.
SLOT_S = 10.0
# Canaries that one round of the worker sends side by side.
ROUND = 16

RUNNING, TOO_SOON = "canary_running", "canary_too_soon"
# Of what stands against sending, that which stands against a canary as well.
_AGAINST = frozenset({"connector_disabled", Hold.THROTTLED.value})


def send(connector: Connector, *, by: Person, clock: Clock) -> Canary:
    """Test ``connector`` now, and record what came of it; takes as long as the connector's timeout.

    Raises ``NotAllowed`` without the role, ``Conflict`` with the first of ``reasons_against``. A connector that
    fails, or cannot be used as it is configured, is a result and no refusal.
    """
    policies.require_role(by, Permission.SEND_CANARY)
    turn = _begin(connector, by=by, clock=clock)
    receipt = _carry_out(turn)
    return attempts.written(partial(_finish, turn, receipt, clock=clock))


def probe_due(*, clock: Clock, beat: Callable[[], None] = lambda: None) -> int:
    """Test the connectors whose open breakers wait for it, side by side; how many were tested.

    No person asked for it: a canary holds no evidence, so P9 does not speak of it.
    """
    turns = []
    for connector in breakers.due_canaries(clocks.read(clock))[:ROUND]:
        try:
            turns.append(_begin(connector, by=None, clock=clock))
        except Conflict:
            continue  # another worker has it, or somebody tests it at this moment
    if not turns:
        return 0
    beat()
    with ThreadPoolExecutor(len(turns), thread_name_prefix="evidence-canary") as pool:
        under_way = {pool.submit(_carry_out, turn): turn for turn in turns}
        for done in as_completed(under_way):
            beat()
            try:
                attempts.written(partial(_finish, under_way[done], done.result(), clock=clock))
            except Exception:  # it ends as unknown; the others are written down all the same
                logger.exception("what came of canary %s is not known", under_way[done].canary_id)
    return len(turns)


def give_up(*, clock: Clock) -> int:
    """Record canaries of which nobody heard again as unknown; how many."""
    count = 0
    for lost in CanaryTurn.objects.filter(until__lte=clocks.read(clock)).values_list("canary_id", flat=True):
        with transaction.atomic():
            turn = _taken(lost)
            at = clocks.read(clock)
            if turn is not None and turn.until <= at:
                ledger.append([_lost(turn, at)])
                count += 1
    return count


def reasons_against(
    connectors: Iterable[Connector], *, clock: Clock, standing: Mapping[int, Standing] | None = None
) -> dict[int, list[tuple[str, str]]]:
    """Why no canary may go to each connector (by its key) now, as ``(code, sentence)``; empty means that one may.

    A pause is no reason. A fixed number of queries; ``standing`` is what ``breakers.standing`` says.
    """
    asked = list(connectors)
    at = clocks.read(clock)
    known = breakers.standing(asked, at) if standing is None else standing
    always = live.reasons_against_live(clock)
    under_way = set(
        CanaryTurn.objects.filter(connector__in=asked, until__gt=at).values_list("connector_id", flat=True)
    )
    lately = dict(
        Canary.objects.filter(connector__in=asked, started_at__gt=at - PAUSE)
        .order_by("started_at")
        .values_list("connector_id", "started_at")
    )
    found = {}
    for connector in asked:
        reasons = [
            *always,
            *(
                (code, sentence)
                for code, sentence in policies.reasons_against_sending(connector, frozenset(), at, known)
                if code in _AGAINST
            ),
        ]
        if connector.pk in under_way:
            reasons.append((RUNNING, f"A canary to {connector.key} is under way."))
        elif connector.pk in lately:
            left = math.ceil((lately[connector.pk] + PAUSE - at).total_seconds())
            reasons.append(
                (TOO_SOON, f"{connector.key} was tested just now; the next canary may go in {left} s.")
            )
        found[connector.pk] = reasons
    return found


def means_of(connector: Connector) -> CanaryMeans:
    """What a test of this connector does."""
    adapter = PRODUCTS[Product(connector.product)]
    if adapter.canary_sends:
        return CanaryMeans.MESSAGE
    return CanaryMeans.QUESTION if adapter.question else CanaryMeans.CONNECTION


def latest(connector: Connector, count: int) -> list[Canary]:
    """The newest canaries of a connector, newest first."""
    return list(connector.canaries.select_related("by").order_by("-started_at", "-pk")[:count])


# --- one canary ---------------------------------------------------------------------------------------------------


def _begin(connector: Connector, *, by: Person | None, clock: Clock) -> CanaryTurn:
    """Take the connector's turn, committed before anything is opened; raises ``Conflict``."""
    with transaction.atomic():
        # Whoever tests the same connector waits here.
        row = Connector.objects.select_for_update(no_key=True).get(pk=connector.pk)
        at = clocks.read(clock)
        for code, sentence in reasons_against([row], clock=clock)[row.pk]:
            raise Conflict(f"No canary was sent. {sentence}", code=code, provider=row.key)
        if by is None and not breakers.begin_canary(row, at=at):
            raise Conflict(f"No canary to {row.key} is due.", code="canary_not_due", provider=row.key)
        gone = CanaryTurn.objects.filter(connector=row).first()
        # Unless the worker records it at this very moment.
        held = _taken(gone.canary_id) if gone else None
        drafts = [_lost(held, at)] if held else []
        turn = CanaryTurn.objects.create(
            connector=row,
            canary_id=records.mint_id(CONNECTOR_CANARY),
            by=by,
            means=means_of(row),
            started_at=at,
            until=at + breakers.CANARY_TAKES,
        )
        ledger.append(drafts)
    return turn


def _carry_out(turn: CanaryTurn) -> Receipt:
    """What came of it. Asks the database nothing, so any thread may do it."""
    connector = turn.connector
    try:
        spec = _spec(turn)
    except Misconfigured as error:
        return sending.misconfigured(turn.canary_id, connector, error)
    if turn.means == CanaryMeans.CONNECTION:
        return _reached(turn, spec)
    (receipt,) = sender.shared().send_all([spec], deadline_s=SLOT_S)
    return _judged(receipt) if turn.means == CanaryMeans.QUESTION else receipt


def _spec(turn: CanaryTurn) -> SendSpec:
    connector = turn.connector
    timeout_s = connector.timeout_ms / 1000
    if turn.means == CanaryMeans.QUESTION:
        return asking.order(
            sending.settings_of(connector),
            asking.nobodys_id(),
            token=turn.canary_id,
            timeout_s=timeout_s,
            wait_s=SLOT_S,
        )
    if turn.means == CanaryMeans.MESSAGE:
        prepared = sending.prepare_event(connector, dict(EVENT), about=ABOUT)
    else:
        prepared = sending.address_body(connector, b"", "application/json", about=ABOUT)
    return sending.spec_for(prepared, connector, token=turn.canary_id, timeout_s=timeout_s)


def _reached(turn: CanaryTurn, spec: SendSpec) -> Receipt:
    """A connection that was opened and closed as what came of a test: what is written is nothing, and no failure."""
    started_at, started = datetime.now(UTC), time.monotonic()
    probe = probing.probe(spec)
    duration_ms = round((time.monotonic() - started) * 1000)
    return Receipt(
        token=turn.canary_id,
        connector=turn.connector.key,
        answer=Answer.NOT_SENT,
        assurance=None if probe.failed else Assurance.WRITTEN,
        may_have_arrived=False,
        failure_class=probe.failure_class,
        status_code=None,
        error=probe.why,
        tries=1,
        started_at=started_at,
        completed_at=started_at + timedelta(milliseconds=duration_ms),
        duration_ms=duration_ms,
    )


def _judged(receipt: Receipt) -> Receipt:
    """An answer to a question as what came of a test: nobody has what was never sent."""
    if receipt.found is False:
        return replace(receipt, assurance=Assurance.ACCEPTED)
    if receipt.found:
        return replace(receipt, failure_class=FailureClass.BAD_RESPONSE)
    return receipt


def _taken(canary_id: str) -> CanaryTurn | None:
    """The turn, locked; None when it ended meanwhile."""
    rows = CanaryTurn.objects.select_for_update(no_key=True, of=("self",)).select_related("connector", "by")
    return rows.filter(canary_id=canary_id).first()


def _finish(turn: CanaryTurn, receipt: Receipt, *, clock: Clock) -> Canary:
    """Write down what came of it, and let it move the breaker.

    An answer that came after its turn was given up changes nothing: the outcome is recorded as unknown.
    """
    with transaction.atomic():
        held = _taken(turn.canary_id)
        if held is None:
            return Canary.objects.select_related("by", "connector").get(canary_id=turn.canary_id)
        at = clocks.read(clock)
        canary, draft = _recorded(
            held,
            at,
            outcome=Outcome.DELIVERED if receipt.delivered else Outcome.FAILED,
            failure_class=receipt.failure_class or "",
            status_code=receipt.status_code,
            duration_ms=receipt.duration_ms,
        )
        moved = breakers.heard_canary(held.connector, receipt, at=at, because=draft.reference)
        diagnostics.keep(held.connector, receipt, at=at)
        ledger.append([draft, *moved])
    return canary


def _lost(turn: CanaryTurn, at: datetime) -> records.Draft:
    """The record of a canary of which nobody heard again; its turn ends."""
    _, draft = _recorded(
        turn, at, outcome=Outcome.UNKNOWN, failure_class="", status_code=None, duration_ms=None
    )
    return draft


def _recorded(
    turn: CanaryTurn,
    at: datetime,
    *,
    outcome: Outcome,
    failure_class: str,
    status_code: int | None,
    duration_ms: int | None,
) -> tuple[Canary, records.Draft]:
    said: dict[str, Any] = {
        "means": CanaryMeans(turn.means).value,
        "outcome": outcome.value,
        "failure_class": failure_class,
        "status_code": status_code,
        "duration_ms": duration_ms,
    }
    draft = records.draft(
        CONNECTOR_CANARY,
        turn.canary_id,
        {
            **said,
            "provider": turn.connector.key,
            "tested_by": turn.by.username if turn.by else "",
            "tested_by_id": turn.by.person_id if turn.by else "",
            "started_at": records.timestamp(turn.started_at),
            "ended_at": records.timestamp(at),
        },
        at=at,
        # Nobody in particular says that nothing was heard.
        by=None if outcome is Outcome.UNKNOWN else turn.by,
    )
    canary = Canary.objects.create(
        **said,
        canary_id=turn.canary_id,
        connector=turn.connector,
        by=turn.by,
        started_at=turn.started_at,
        ended_at=at,
        record_hash=draft.digest,
    )
    CanaryTurn.objects.filter(pk=turn.pk).delete()
    return canary, draft
