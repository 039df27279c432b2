"""Audit deliveries: one package to one or more connectors, a case for each, and its first attempt.

A first attempt is claimed (its case is ``sending`` under a lease) before a socket opens and recorded
afterwards; a lease that runs out leaves ``outcome_unknown`` and nothing is sent again by itself (P3).
"""

import logging
import queue
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.db import DatabaseError, transaction

from evidence.connectors import sender
from evidence.connectors.specs import Receipt, SendSpec
from evidence.documents import DELIVERY_PLAN, DELIVERY_RECONCILIATION, EPOCH
from evidence.domain import (
    attempts,
    breakers,
    events,
    ledger,
    live,
    packages,
    parking,
    policies,
    records,
    sending,
    streams,
)
from evidence.domain import clock as clocks
from evidence.domain.attempts import Said, Source
from evidence.domain.clock import Clock
from evidence.domain.packages import Frozen, PackageFilters
from evidence.enums import CaseState, DeliverySource
from evidence.errors import Conflict, DomainError
from evidence.models import Attempt, AuditPackage, Case, Connector, DeliveryPlan, Person, Record
from evidence.permissions import Permission

logger = logging.getLogger(__name__)

# How long one pass over what is parked claims further ones, and how soon it looks for what has room again.
ROUND_S = 60.0
ARRIVES_S = 0.5


@dataclass(frozen=True)
class DeliveryRequest:
    """What is asked for: which routes, to which connectors (empty: all enabled ones), and how it is labelled."""

    filters: PackageFilters
    providers: tuple[str, ...] = ()
    cadence: str = "on_demand"
    schedule_ref: str = ""
    next_delivery_at: str = ""
    retries: int = 2
    timeout_s: float = 10.0
    claimed_actor: str = ""
    # After a new epoch: send what may have been sent before, by an entry that was lost with the old one's end.
    despite_lost_entries: bool = False


@dataclass(frozen=True)
class Delivered:
    """What ``deliver_audit`` did; ``held`` are connectors that have an undelivered case of this content.

    ``parked`` are cases that are sent later by themselves: something holds their connector back. ``delivery`` is
    None when all of them are.
    """

    package: Frozen
    plan: Record
    delivery: records.Draft | None
    success: bool
    cases: list[Case]
    held: list[dict[str, str]]
    parked: list[dict[str, str]]
    unsettled_cases: list[str]


def deliver_audit(request: DeliveryRequest, *, by: Person, clock: Clock) -> Delivered:
    """Freeze the package, open a plan with a case for each connector, send, and record what came of it.

    Raises ``Conflict`` ``delivery_unsettled`` when every connector has an unsettled case of the same content,
    ``delivery_parked`` when it waits there to be sent, ``delivery_superseded`` or ``delivery_abandoned`` when two
    people settled it without a delivery (P1), ``possibly_sent`` when the content is from before the newest epoch
    (P25), ``too_many_connectors``, ``connector_not_configured``, ``connector_disabled`` or ``sending_paused``;
    nothing is sent then. A connector with an open breaker or in a maintenance window gets a parked case (P16).
    """
    policies.require_role(by, Permission.DELIVER)
    sending.require_any_connector()
    connectors = sending.usable_connectors(request.providers or None)
    # Looked at again under the package's lock; here so that a refusal leaves no package behind.
    sending.require_live(connectors, clock=clock)
    frozen = packages.freeze(request.filters, by=by, clock=clock, claimed_actor=request.claimed_actor)
    opened = open_plan(frozen.package, connectors, request, by=by, clock=clock)
    draft = None
    if now := [case for case in opened.cases if case.state == CaseState.SENDING]:
        receipts = sending.send_cases(now, retries=request.retries, timeout_s=request.timeout_s)
        draft = attempts.written(lambda: record_first_attempts(now, receipts, by=by, clock=clock))
    cases = list(Case.objects.filter(pk__in=[case.pk for case in opened.cases]).order_by("case_id"))
    return Delivered(
        package=frozen,
        plan=opened.record,
        delivery=draft,
        success=all(case.state == CaseState.DELIVERED for case in cases),
        cases=cases,
        held=opened.held,
        parked=opened.parked,
        unsettled_cases=opened.unsettled,
    )


@dataclass(frozen=True)
class OpenedPlan:
    """A committed plan whose cases are claimed for their first attempt, or parked."""

    plan: DeliveryPlan
    record: Record
    cases: list[Case]
    held: list[dict[str, str]]
    parked: list[dict[str, str]]
    unsettled: list[str]


def open_plan(
    package: AuditPackage,
    connectors: Sequence[Connector],
    request: DeliveryRequest,
    *,
    by: Person,
    clock: Clock,
) -> OpenedPlan:
    """Commit the plan and claim the first attempt of each case, before anything is sent, or park it."""
    policies.require_role(by, Permission.DELIVER)
    with transaction.atomic():
        # The package's row serialises everybody who wants to send this content.
        AuditPackage.objects.select_for_update(no_key=True).get(pk=package.pk)
        # And these everybody who makes a case for one of the connectors, by whatever package: from here on
        # nobody else's case can collide with one made here.
        heads = streams.lock(connectors)
        at = clocks.read(clock)
        waits = sending.require_live(connectors, clock=clock, at=at)
        undelivered = {
            case.connector_id: case
            for case in Case.objects.filter(
                content_hash=package.content_hash, connector__in=connectors
            ).exclude(state=CaseState.DELIVERED)
        }
        held = [
            _held(connector, undelivered[connector.pk])
            for connector in connectors
            if connector.pk in undelivered
        ]
        free = [connector for connector in connectors if connector.pk not in undelivered]
        if not free:
            raise _nothing_free(held)
        if len(free) > records.MAX_CASES_PER_RECORD:
            raise Conflict(
                f"One delivery goes to at most {records.MAX_CASES_PER_RECORD} connectors; name fewer.",
                code="too_many_connectors",
            )
        others = list(
            Case.objects.filter(
                connector__in=free,
                state__in=[CaseState.PARKED, CaseState.FAILED, CaseState.UNKNOWN, CaseState.SENDING],
            )
            .order_by("case_id")
            .values_list("case_id", flat=True)[:50]
        )
        content = _package_content(package)
        perhaps_sent = _perhaps_sent(package, content, free)
        if perhaps_sent and not request.despite_lost_entries:
            raise Conflict(
                _PERHAPS_SENT.format(", ".join(perhaps_sent)), code="possibly_sent", providers=perhaps_sent
            )
        selected = sorted(connector.key for connector in free)
        delivery_id, ordinal = _delivery_id(package, selected, request)
        case_ids = {connector.pk: f"{delivery_id}.{connector.key}" for connector in free}
        planned = {
            "audit_id": package.audit_id,
            "audit_hash": package.record_hash,
            "generated_at": records.timestamp(at),
            "generated_by": by.username,
            "cadence": request.cadence,
            "schedule_ref": request.schedule_ref,
            "next_delivery_at": request.next_delivery_at,
            "requested_provider": ",".join(request.providers) or "all",
            "requested_providers": list(request.providers),
            "selected_providers": selected,
            "destination_count": len(selected),
            "route_count": content["route_count"],
            "outstanding_count": content["outstanding_count"],
            "escalated_count": content["escalated_count"],
            "alert_level": content["alert_level"],
            "filters": content["filters"],
            "ordinal": ordinal,
            "possibly_sent_providers": perhaps_sent,
        }
        draft = records.draft(
            DELIVERY_PLAN,
            delivery_id,
            planned,
            at=at,
            by=by,
            cases=sorted(case_ids.values()),
            references=[records.Reference(content["kind"], package.audit_id, package.record_hash)],
            claimed_actor=request.claimed_actor,
            sends=events.build(
                {**planned, DELIVERY_PLAN.id_field: delivery_id},
                content,
                audit_hash=package.record_hash,
                stream=None,
            ),
        )
        plan = DeliveryPlan.objects.create(
            delivery_id=delivery_id, package=package, created_at=at, created_by=by, record_hash=draft.digest
        )
        lease_until = clock() + timedelta(seconds=sending.lease_seconds(request.timeout_s))
        cases = [
            Case(
                case_id=case_ids[connector.pk],
                plan=plan,
                package=package,
                connector=connector,
                content_hash=package.content_hash,
                created_at=at,
                created_by=by,
                **(
                    {"state": CaseState.PARKED}
                    if connector.pk in waits
                    else {
                        "state": CaseState.SENDING,
                        "lease_token": secrets.token_hex(16),
                        "lease_until": lease_until,
                    }
                ),
            )
            for connector in free
        ]
        # The cases' places quote the head that ends with the plan, so it is sealed first. What is inserted
        # afterwards can wait for nobody: whatever it could collide with needs the streams locked above.
        (record,) = ledger.append([draft])
        # Read again with the log held: an erasure, which holds it too, may have been waited for.
        content = _package_content(package)
        streams.place(cases, heads, record, content, audit_hash=package.record_hash)
        Case.objects.bulk_create(cases)
        drafts = [streams.record(cases, draft, at=at, by=by)]
        parked = []
        if waiting := [case for case in cases if case.state == CaseState.PARKED]:
            drafts.append(
                parking.park(
                    waiting,
                    waits,
                    draft,
                    retries=request.retries,
                    timeout_s=request.timeout_s,
                    at=at,
                    by=by,
                )
            )
            parked = parking.as_dicts(drafts[-1])
        ledger.append(drafts)
    return OpenedPlan(plan, record, cases, held, parked, others)


_PERHAPS_SENT = (
    "Not sent: the database was restored, and a delivery of the same content to {} may have been lost with what "
    "followed the backup. Ask the receivers. To send it all the same, perhaps a second time, say so "
    "(despite_lost_entries)."
)


def _perhaps_sent(
    package: AuditPackage, content: Mapping[str, Any], connectors: Sequence[Connector]
) -> list[str]:
    """Keys of connectors that may have got the content already, by entries that a restore lost (P25).

    So it is when nothing in the content is from the newest epoch, and no case of it is known for the connector.
    """
    begun = (
        Record.objects.filter(kind=EPOCH.name).order_by("-index").values_list("created_at", flat=True).first()
    )
    if begun is None:
        return []
    since = records.timestamp(begun)
    if any(max(route["route_created_at"], route["acknowledged_at"]) >= since for route in content["routes"]):
        return []
    known = Case.objects.filter(content_hash=package.content_hash, connector__in=connectors)
    told = set(known.values_list("connector_id", flat=True))
    return sorted(connector.key for connector in connectors if connector.pk not in told)


# Why the same content does not go to a connector again (P1), by the code of what is held there.
UNSETTLED = "delivery_unsettled"
_SETTLED = "two people settled the same content as {word}, {{cases}}; it does not go to that connector again."
WHY_HELD = {
    UNSETTLED: "the same content is already an unsettled case, {cases}. Work that case instead.",
    "delivery_parked": "the same content waits to be sent there, {cases}. It is sent by itself once nothing stands "
    "against it; its page says what does.",
    "delivery_superseded": _SETTLED.format(word="superseded"),
    "delivery_abandoned": _SETTLED.format(word="abandoned"),
}
HELD_AS = {
    CaseState.PARKED: "delivery_parked",
    CaseState.SUPERSEDED: "delivery_superseded",
    CaseState.ABANDONED: "delivery_abandoned",
}


def _held(connector: Connector, case: Case) -> dict[str, str]:
    """What is said about a connector that gets nothing because of a case that was not delivered."""
    code = HELD_AS.get(CaseState(case.state), UNSETTLED)
    return {"provider": connector.key, "case": case.case_id, "code": code}


def why_held(held: Sequence[Mapping[str, str]]) -> str:
    """Why connectors got nothing, inside a sentence: first the cases that can be worked, then settled ones."""
    found = {code: [item["case"] for item in held if item["code"] == code] for code in WHY_HELD}
    return " And ".join(
        WHY_HELD[code].format(cases=", ".join(cases)) for code, cases in found.items() if cases
    )


def _nothing_free(held: Sequence[dict[str, str]]) -> Conflict:
    """What a delivery is refused with when every connector it is for has a case of the same content."""
    first = next((item for item in held if item["code"] == UNSETTLED), held[0])
    return Conflict(f"Not sent: {why_held(held)}", code=first["code"], case=first["case"], held=list(held))


def record_first_attempts(
    cases: Sequence[Case], receipts: Iterable[Receipt], *, by: Person | None, clock: Clock
) -> records.Draft:
    """Write the first attempts' outcomes, one delivery record for all of them.

    A receipt that comes after its lease ran out is not lost: the attempt stays unknown, a reconciliation
    record says what came of it and the case moves on, unless people settled it before. Raises ``StaleState``
    for an attempt whose receipt was recorded before.
    """
    by_token = {receipt.token: receipt for receipt in receipts}
    with transaction.atomic():
        locked = {
            case.pk: case
            for case in Case.objects.select_for_update(no_key=True, of=("self",))
            .filter(pk__in=[case.pk for case in cases])
            .select_related("connector", "plan", "package")
            .order_by("pk")
        }
        at = clocks.read(clock)
        results = [attempts.Result(locked[case.pk], 1, by_token[case.lease_token]) for case in cases]
        # Not by the case's state: once people settled it, its next attempt may be on its way already.
        given_up = {
            attempt.case_id: attempt for attempt in Attempt.objects.filter(case__in=list(locked), number=1)
        }
        late = [result for result in results if result.case.pk in given_up]
        plan = cases[0].plan
        draft = attempts.delivery_record(
            [result.receipt for result in results],
            source=DeliverySource.AUDIT,
            event_id=plan.delivery_id,
            event_type=events.EVENT_TYPE,
            at=at,
            by=by,
            cases=[result.case.case_id for result in results],
            references=attempts.case_references(cases),
            audit_id=cases[0].package.audit_id,
            delivery_id=plan.delivery_id,
            schedule_id="",
            # A late answer's attempt was recorded as unknown before; the reconciliation names it.
            attempts={result.receipt.token: result for result in results if result not in late},
        )
        for result in results:
            if result not in late:
                attempts.finish_attempt(result, draft, at=at)
        reconciliations = [_reconcile(result, given_up[result.case.pk], at=at) for result in late]
        # A late answer says how the receiver was, not how it is.
        receipts = [result.receipt for result in results if result not in late]
        moved = breakers.heard(
            receipts, at=at, because=dict.fromkeys((one.token for one in receipts), draft.reference)
        )
        ledger.append([draft, *reconciliations, *moved])
    return draft


def send_parked(
    *,
    clock: Clock,
    beat: Callable[[], None] = lambda: None,
    stopping: Callable[[], bool] = lambda: False,
) -> int:
    """Send parked first attempts that nothing stands against any more; returns how many.

    Oldest first, a few of each connector at a time, and what one receiver takes long for holds up no other's
    (P17). Goes on while there are any, for at most ``ROUND_S`` seconds, and then until what is under way has ended.
    """
    arrived: queue.SimpleQueue[Receipt] = queue.SimpleQueue()
    under_way: dict[str, Case] = {}
    looked_at: set[int] = set()
    sent, until = 0, time.monotonic() + ROUND_S
    while True:
        seen = len(looked_at)
        if not stopping() and time.monotonic() < until:
            try:
                _release_what_fits(under_way, looked_at, arrived, clock=clock)
            except Exception:  # whatever broke one, what the others were answered is written down
                logger.exception("claiming parked deliveries failed; they are left for the next round")
                until = 0.0
        if not under_way:
            if len(looked_at) > seen and until:
                continue  # Those could not go, which keeps none behind them.
            return sent
        beat()
        try:
            receipt = arrived.get(timeout=ARRIVES_S)
        except queue.Empty:
            continue
        case = under_way.pop(receipt.token)
        sent += 1
        try:
            attempts.written(
                partial(record_first_attempts, [case], [receipt], by=case.created_by, clock=clock)
            )
        except (DatabaseError, DomainError):
            # Its lease runs out and leaves it unknown; the others are written down all the same.
            logger.exception("what came of %s could not be recorded", case.case_id)


def _release_what_fits(
    under_way: dict[str, Case],
    looked_at: set[int],
    arrived: "queue.SimpleQueue[Receipt]",
    *,
    clock: Clock,
) -> None:
    """Claim parked cases for which their connector has room, and hand them to the sender."""
    if live.reasons_against_live(clock):
        return
    lane = sender.shared()
    for connector, pks in parking.due(clock(), but=looked_at):
        room = min(parking.AT_ONCE, connector.max_concurrency) - sum(
            case.connector_id == connector.pk for case in under_way.values()
        )
        room = min(room, lane.free_slots(connector.key, connector.max_concurrency))
        for pk in pks[: max(room, 0)]:
            looked_at.add(pk)
            case = parking.release(pk, clock=clock)
            if case is None:
                continue
            asked = case.parking
            order = attempts.written(
                partial(sending.order_for, case, retries=asked.retries, timeout_s=asked.timeout_ms / 1000)
            )
            # Only what has an order has an answer to wait for; what lost its own ends with its lease.
            under_way[case.lease_token] = case
            if isinstance(order, SendSpec):
                lane.submit(order, arrived)
            else:
                arrived.put(order)


def expire_leases(*, clock: Clock, limit: int = 50) -> int:
    """Give up first attempts whose lease ran out: ``outcome_unknown``, one record each. Returns how many."""
    expired = 0
    for pk in Case.objects.filter(
        state=CaseState.SENDING, attempt_count=0, lease_until__lt=clock()
    ).values_list("pk", flat=True)[:limit]:
        with transaction.atomic():
            case = (
                Case.objects.select_for_update(no_key=True, skip_locked=True, of=("self",))
                .select_related("connector", "plan", "package")
                .filter(pk=pk, state=CaseState.SENDING, attempt_count=0)
                .first()
            )
            at = clocks.read(clock)
            if case is None or case.lease_until is None or case.lease_until >= clock():
                continue
            ledger.append([give_up(case, at=at)])
            expired += 1
    return expired


def give_up(case: Case, *, at: datetime) -> records.Draft:
    """End a first attempt that nobody will be heard of: ``outcome_unknown``.

    The caller holds the case's lock and appends the record.
    """
    draft = attempts.unknown_record(case, 1, at=at)
    attempts.abandon_lease(case, 1, draft, body_sha256="", at=at)
    return draft


def _reconcile(result: attempts.Result, attempt: Attempt, *, at: datetime) -> records.Draft:
    """A late answer: the attempt stays unknown as it was recorded, the case learns the truth."""
    attempts.settle_late(result, attempt, at=at)
    said = attempts.said_by(result.receipt, source=Source.LATE_ANSWER)
    return reconciliation(result.case, attempt, said, at=at, by=None)


def reconciliation(
    case: Case,
    attempt: Attempt,
    said: Said,
    *,
    at: datetime,
    by: Person | None,
    references: Sequence[records.Reference] = (),
    claimed_actor: str = "",
) -> records.Draft:
    """The document of what turned out about a first attempt; ``references`` are what it rests on."""
    return records.draft(
        DELIVERY_RECONCILIATION,
        records.mint_id(DELIVERY_RECONCILIATION),
        attempts.reconciliation_fields(case, attempt, said, at=at),
        at=at,
        by=by,
        cases=[case.case_id],
        references=[
            *attempts.case_references([case]),
            attempts.delivery_reference(attempt),
            *references,
        ],
        claimed_actor=claimed_actor,
    )


def _package_content(package: AuditPackage) -> dict[str, Any]:
    record = Record.objects.get(record_id=package.audit_id)
    content = records.payload_of(record)
    if content is None:
        raise Conflict("The audit package is not there any more.", code="audit_package_not_found")
    return {**content, "kind": record.kind}


def _delivery_id(package: AuditPackage, selected: Sequence[str], request: DeliveryRequest) -> tuple[str, int]:
    """Id from content; after a settled delivery of the same content the next ordinal (CONTRACT, ids)."""
    content: dict[str, Any] = {
        "audit_id": package.audit_id,
        "providers": list(selected),
        "cadence": request.cadence,
        "schedule_ref": request.schedule_ref,
        "next_delivery_at": request.next_delivery_at,
    }
    ordinal = 1
    delivery_id = records.content_id(DELIVERY_PLAN, content)
    while DeliveryPlan.objects.filter(delivery_id=delivery_id).exists():
        ordinal += 1
        delivery_id = records.content_id(DELIVERY_PLAN, {**content, "ordinal": ordinal})
    return delivery_id, ordinal
