"""Audit deliveries: one package to one or more connectors, a case for each, and its first attempt.

A first attempt is claimed (its case is ``sending`` under a lease) before a socket opens and recorded
afterwards; a lease that runs out leaves ``outcome_unknown`` and nothing is sent again by itself (P3).
"""

import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import transaction

from evidence.connectors import prepare, sender
from evidence.connectors.credentials import Misconfigured
from evidence.connectors.specs import ConnectorSettings, Prepared, Receipt, SendSpec
from evidence.documents import CONNECTOR_DELIVERY, DELIVERY_PLAN, DELIVERY_RECONCILIATION
from evidence.domain import clock as clocks
from evidence.domain import ledger, packages, policies, records, transitions
from evidence.domain.clock import Clock
from evidence.domain.packages import Frozen, PackageFilters
from evidence.enums import Answer, CaseState, DeliverySource, Outcome, Product
from evidence.errors import Conflict, InvalidInput
from evidence.models import Attempt, AttemptAnswer, AuditPackage, Case, Connector, DeliveryPlan, Person, Record
from evidence.permissions import Permission

EVENT_TYPE = "cavra.go_backend.rollback_drill.acknowledgement_audit_delivery"
EVENT_SCHEMA = "cavra.go-backend-pilot.rollback-drill-acknowledgement-audit-delivery.v1"
# How long a claimed send may wait for a free slot before it is not sent after all.
QUEUE_S = 30.0
# What a lease outlasts the last possible answer by, so that the answer is still recorded under it.
LEASE_SLACK_S = 10.0
ANSWERS_KEPT = timedelta(days=30)


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


@dataclass(frozen=True)
class Delivered:
    """What ``deliver_audit`` did; ``held`` are connectors that got nothing because a case is unsettled."""

    package: Frozen
    plan: Record
    delivery: records.Draft
    success: bool
    cases: list[Case]
    held: list[dict[str, str]]
    unsettled_cases: list[str]


def deliver_audit(request: DeliveryRequest, *, by: Person, clock: Clock) -> Delivered:
    """Freeze the package, open a plan with a case for each connector, send, and record what came of it.

    Raises ``Conflict`` ``delivery_unsettled`` when every connector has an unsettled case of the same
    content (P1), ``connector_not_configured``, ``connector_disabled`` or ``sending_paused``; nothing is
    sent then.
    """
    policies.require_role(by, Permission.DELIVER)
    require_any_connector()
    connectors = usable_connectors(request.providers or None)
    frozen = packages.freeze(request.filters, by=by, clock=clock, claimed_actor=request.claimed_actor)
    opened = open_plan(frozen.package, connectors, request, by=by, clock=clock)
    receipts = send_cases(opened.cases, retries=request.retries, timeout_s=request.timeout_s)
    draft = record_first_attempts(opened.cases, receipts, by=by, clock=clock)
    cases = list(Case.objects.filter(pk__in=[case.pk for case in opened.cases]).order_by("case_id"))
    return Delivered(
        package=frozen,
        plan=opened.record,
        delivery=draft,
        success=all(case.state == CaseState.DELIVERED for case in cases),
        cases=cases,
        held=opened.held,
        unsettled_cases=opened.unsettled,
    )


@dataclass(frozen=True)
class OpenedPlan:
    """A committed plan whose cases are claimed for their first attempt."""

    plan: DeliveryPlan
    record: Record
    cases: list[Case]
    held: list[dict[str, str]]
    unsettled: list[str]


def open_plan(
    package: AuditPackage, connectors: Sequence[Connector], request: DeliveryRequest, *, by: Person, clock: Clock
) -> OpenedPlan:
    """Commit the plan and claim the first attempt of each case, before anything is sent."""
    policies.require_role(by, Permission.DELIVER)
    with transaction.atomic():
        # The package's row serialises everybody who wants to send this content.
        AuditPackage.objects.select_for_update(no_key=True).get(pk=package.pk)
        at = clocks.read(clock)
        _refuse_paused(connectors)
        unsettled = {
            case.connector_id: case.case_id
            for case in Case.objects.filter(package=package, connector__in=connectors).exclude(state=CaseState.DELIVERED)
        }
        held = [
            {"provider": connector.key, "case": unsettled[connector.pk], "code": "delivery_unsettled"}
            for connector in connectors
            if connector.pk in unsettled
        ]
        free = [connector for connector in connectors if connector.pk not in unsettled]
        if not free:
            named = ", ".join(item["case"] for item in held)
            raise Conflict(
                f"Not sent: the same content is already an unsettled case, {named}. Work that case instead.",
                code="delivery_unsettled",
                case=held[0]["case"],
                held=held,
            )
        others = list(
            Case.objects.filter(connector__in=free, state__in=[CaseState.FAILED, CaseState.UNKNOWN, CaseState.SENDING])
            .order_by("case_id")
            .values_list("case_id", flat=True)[:50]
        )
        content = _package_content(package)
        selected = sorted(connector.key for connector in free)
        delivery_id, ordinal = _delivery_id(package, selected, request)
        case_ids = {connector.pk: f"{delivery_id}.{connector.key}" for connector in free}
        draft = records.draft(
            DELIVERY_PLAN,
            delivery_id,
            {
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
            },
            at=at,
            by=by,
            cases=sorted(case_ids.values()),
            references=[records.Reference(content["kind"], package.audit_id, package.record_hash)],
            claimed_actor=request.claimed_actor,
        )
        plan = DeliveryPlan.objects.create(
            delivery_id=delivery_id, package=package, created_at=at, created_by=by, record_hash=draft.digest
        )
        lease_until = at + timedelta(seconds=lease_seconds(request.timeout_s))
        cases = Case.objects.bulk_create(
            Case(
                case_id=case_ids[connector.pk],
                plan=plan,
                package=package,
                connector=connector,
                state=CaseState.SENDING,
                lease_token=secrets.token_hex(16),
                lease_until=lease_until,
                created_at=at,
                created_by=by,
            )
            for connector in free
        )
        (record,) = ledger.append([draft])
    return OpenedPlan(plan, record, list(cases), held, others)


def send_cases(cases: Sequence[Case], *, retries: int, timeout_s: float) -> list[Receipt]:
    """Send each case's content once and wait for every receipt. A broken connector fails alone (P17)."""
    specs, receipts = [], []
    for case in cases:
        event = event_for(case.plan, case.package)
        try:
            prepared = prepare_event(case.connector, event, about=case.case_id)
            specs.append(
                spec_for(prepared, case.connector, token=case.lease_token, timeout_s=timeout_s, retries=retries)
            )
        except Misconfigured as error:
            receipts.append(misconfigured(case.lease_token, case.connector, error))
    receipts += sender.shared().send_all(specs, deadline_s=QUEUE_S + timeout_s + LEASE_SLACK_S)
    return receipts


def send_event(
    connectors: Sequence[Connector], event: dict[str, Any], *, retries: int, timeout_s: float
) -> list[Receipt]:
    """Send one event that belongs to no case (a notice) to each connector."""
    specs, receipts = [], []
    for connector in connectors:
        try:
            prepared = prepare_event(connector, event, about=f"{event['session_id']}.{connector.key}")
            specs.append(spec_for(prepared, connector, token=connector.key, timeout_s=timeout_s, retries=retries))
        except Misconfigured as error:
            receipts.append(misconfigured(connector.key, connector, error))
    receipts += sender.shared().send_all(specs, deadline_s=QUEUE_S + timeout_s + LEASE_SLACK_S)
    return receipts


def record_first_attempts(
    cases: Sequence[Case], receipts: Iterable[Receipt], *, by: Person | None, clock: Clock
) -> records.Draft:
    """Write the first attempts' outcomes, one delivery record for all of them.

    A receipt that comes after its lease ran out is not lost: the attempt stays unknown, a reconciliation
    record says what came of it and the case moves on.
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
        results = [Result(locked[case.pk], 1, by_token[case.lease_token]) for case in cases]
        plan = cases[0].plan
        draft = delivery_record(
            [result.receipt for result in results],
            source=DeliverySource.AUDIT,
            event_id=plan.delivery_id,
            event_type=EVENT_TYPE,
            at=at,
            by=by,
            cases=[result.case.case_id for result in results],
            references=[records.Reference(DELIVERY_PLAN.name, plan.delivery_id, plan.record_hash)],
            audit_id=cases[0].package.audit_id,
            delivery_id=plan.delivery_id,
            schedule_id="",
            attempts={result.receipt.token: result for result in results},
        )
        late = [result for result in results if result.case.state != CaseState.SENDING]
        for result in results:
            if result not in late:
                finish_attempt(result, draft, at=at)
        reconciliations = [reconcile_first_attempt(result, at=at) for result in late]
        ledger.append([draft, *reconciliations])
    return draft


@dataclass(frozen=True)
class Result:
    """One receipt, as attempt ``number`` of a case."""

    case: Case
    number: int
    receipt: Receipt

    @property
    def outcome(self) -> Outcome:
        """What came of the try."""
        return Outcome.DELIVERED if self.receipt.delivered else Outcome.FAILED


def attempt_id(record_id: str, connector_key: str) -> str:
    """Id of one connector's attempt within a delivery record."""
    return f"{record_id}.{connector_key}"


def finish_attempt(result: Result, record: records.Draft, *, at: datetime) -> Attempt:
    """Insert the attempt and move its case from ``sending`` to what came of it; the lease ends.

    The caller holds the case's lock, appends ``record`` and has checked the lease token.
    """
    receipt, case = result.receipt, result.case
    left = receipt.answer is not Answer.NOT_SENT
    transitions.move(
        transitions.CASES,
        case.pk,
        CaseState(result.outcome),
        only_from=[CaseState.SENDING],
        attempt_count=result.number,
        counted_attempts=case.counted_attempts + int(left),
        last_outcome_at=at,
        lease_token="",
        lease_until=None,
        settled_at=at if result.outcome is Outcome.DELIVERED else None,
    )
    attempt = Attempt.objects.create(
        attempt_id=attempt_id(record.record_id, case.connector.key),
        case=case,
        number=result.number,
        outcome=result.outcome,
        answer=receipt.answer,
        assurance=receipt.assurance or "",
        may_have_arrived=receipt.may_have_arrived,
        failure_class=receipt.failure_class or "",
        status_code=receipt.status_code,
        tries=receipt.tries,
        bytes_sent=receipt.bytes_sent,
        body_sha256=receipt.sent_sha256,
        answer_sha256=receipt.answer_sha256,
        retry_after_s=receipt.retry_after_s,
        started_at=receipt.started_at,
        completed_at=receipt.completed_at,
        record_id=record.record_id,
        record_hash=record.digest,
    )
    keep_answer(attempt, receipt, at=at)
    return attempt


def keep_answer(attempt: Attempt, receipt: Receipt, *, at: datetime) -> None:
    """Keep the first kilobyte of the receiver's answer, redacted by the sender, beside the attempt."""
    if not receipt.answer_excerpt:
        return
    AttemptAnswer.objects.create(attempt=attempt, excerpt=receipt.answer_excerpt, keep_until=at + ANSWERS_KEPT)


def abandon_lease(case: Case, number: int, record: records.Draft, *, body_sha256: str, at: datetime) -> Attempt:
    """Write an attempt nobody heard of again: outcome unknown, and it may have arrived (P3)."""
    transitions.move(
        transitions.CASES,
        case.pk,
        CaseState.UNKNOWN,
        only_from=[CaseState.SENDING],
        attempt_count=number,
        counted_attempts=case.counted_attempts + 1,
        last_outcome_at=at,
        lease_until=None,
    )
    return Attempt.objects.create(
        attempt_id=attempt_id(record.record_id, case.connector.key),
        case=case,
        number=number,
        outcome=Outcome.UNKNOWN,
        answer=Answer.NO_ANSWER,
        may_have_arrived=True,
        tries=1,
        bytes_sent=0,
        body_sha256=body_sha256,
        started_at=at,
        completed_at=at,
        record_id=record.record_id,
        record_hash=record.digest,
    )


def expire_leases(*, clock: Clock, limit: int = 50) -> int:
    """Give up first attempts whose lease ran out: ``outcome_unknown``, one record each. Returns how many."""
    expired = 0
    for pk in Case.objects.filter(
        state=CaseState.SENDING, attempt_count=0, lease_until__lt=clocks.read(clock)
    ).values_list("pk", flat=True)[:limit]:
        with transaction.atomic():
            case = (
                Case.objects.select_for_update(no_key=True, skip_locked=True, of=("self",))
                .select_related("connector", "plan", "package")
                .filter(pk=pk, state=CaseState.SENDING, attempt_count=0)
                .first()
            )
            at = clocks.read(clock)
            if case is None or case.lease_until is None or case.lease_until >= at:
                continue
            draft = unknown_record(case, 1, at=at)
            abandon_lease(case, 1, draft, body_sha256="", at=at)
            ledger.append([draft])
            expired += 1
    return expired


def reconcile_first_attempt(result: Result, *, at: datetime) -> records.Draft:
    """Move a case whose lease had run out to what its late receipt says; returns the record to append."""
    settle_unknown(result, at=at)
    return records.draft(
        DELIVERY_RECONCILIATION,
        records.mint_id(DELIVERY_RECONCILIATION),
        {
            "delivery_id": result.case.plan.delivery_id,
            "provider": result.case.connector.key,
            "attempt_id": Attempt.objects.get(case=result.case, number=result.number).attempt_id,
            "attempt_no": result.number,
            "reconciled_at": records.timestamp(at),
            "source": "late_answer",
            **outcome_fields(result.receipt),
        },
        at=at,
        by=None,
        cases=[result.case.case_id],
    )


def settle_unknown(result: Result, *, at: datetime) -> None:
    """Move a case from unknown to what a late receipt with its lease token says."""
    left = result.receipt.answer is not Answer.NOT_SENT
    transitions.move(
        transitions.CASES,
        result.case.pk,
        CaseState(result.outcome),
        only_from=[CaseState.UNKNOWN],
        only_if={"lease_token": result.receipt.token},
        lease_token="",
        counted_attempts=result.case.counted_attempts - int(not left),
        settled_at=at if result.outcome is Outcome.DELIVERED else None,
    )


def outcome_fields(receipt: Receipt) -> dict[str, Any]:
    """Outcome fields of CONTRACT for a document."""
    return {
        "outcome": (Outcome.DELIVERED if receipt.delivered else Outcome.FAILED).value,
        "answer": receipt.answer.value,
        "assurance": receipt.assurance.value if receipt.assurance else "",
        "may_have_arrived": receipt.may_have_arrived,
        "failure_class": receipt.failure_class.value if receipt.failure_class else "",
        "status_code": receipt.status_code,
    }


def delivery_record(
    receipts: Sequence[Receipt],
    *,
    source: DeliverySource,
    event_id: str,
    event_type: str,
    at: datetime,
    by: Person | None,
    cases: Sequence[str] = (),
    references: Sequence[records.Reference] = (),
    audit_id: str = "",
    delivery_id: str = "",
    schedule_id: str = "",
    retry_plan_id: str = "",
    worker_run_id: str = "",
    attempts: Mapping[str, Result] | None = None,
) -> records.Draft:
    """The ``release-connector-delivery`` document over some receipts (CONTRACT §8.5).

    ``attempts`` maps a receipt's token to its result, for sends that belong to cases. Destinations are
    connector keys; there is no host, header value or body in it.
    """
    record_id = records.mint_id(CONNECTOR_DELIVERY)
    ordered = sorted(receipts, key=lambda receipt: receipt.connector)
    failed = [receipt.connector for receipt in ordered if not receipt.delivered]
    return records.draft(
        CONNECTOR_DELIVERY,
        record_id,
        {
            "connector_delivery_source": source.value,
            "event_id": event_id,
            "event_type": event_type,
            "generated_at": records.timestamp(at),
            "success": not failed,
            "delivery_success": not failed,
            "providers": [receipt.connector for receipt in ordered],
            "failed_providers": failed,
            "attempt_count": sum(receipt.tries for receipt in ordered),
            "max_attempt_count": max((receipt.tries for receipt in ordered), default=0),
            "status_codes": [receipt.status_code for receipt in ordered],
            "deliveries": [_delivery_entry(record_id, receipt, (attempts or {}).get(receipt.token)) for receipt in ordered],
            "attempt_ids": [attempt_id(record_id, receipt.connector) for receipt in ordered] if attempts else [],
            "audit_id": audit_id,
            "delivery_id": delivery_id,
            "schedule_id": schedule_id,
            "retry_plan_id": retry_plan_id,
            "worker_run_id": worker_run_id,
        },
        at=at,
        by=by,
        cases=cases,
        references=references,
    )


def unknown_record(
    case: Case, number: int, *, at: datetime, body_sha256: str = "", worker_run_id: str = ""
) -> records.Draft:
    """The delivery record of an attempt whose lease ran out."""
    record_id = records.mint_id(CONNECTOR_DELIVERY)
    key = case.connector.key
    entry = {
        "provider": key,
        "success": False,
        "status_code": None,
        "attempt_count": 1,
        "started_at": "",
        "completed_at": "",
        "error": "The lease ran out before an answer was recorded.",
        "request": {"method": "POST", "url": f"connector://{key}", "headers": {}},
        "case": case.case_id,
        "attempt_id": attempt_id(record_id, key),
        "attempt_no": number,
        "outcome": Outcome.UNKNOWN.value,
        "answer": Answer.NO_ANSWER.value,
        "assurance": "",
        "may_have_arrived": True,
        "failure_class": "",
        "body_sha256": body_sha256,
        "bytes_sent": 0,
    }
    return records.draft(
        CONNECTOR_DELIVERY,
        record_id,
        {
            "connector_delivery_source": DeliverySource.AUDIT.value,
            "event_id": case.plan.delivery_id,
            "event_type": EVENT_TYPE,
            "generated_at": records.timestamp(at),
            "success": False,
            "delivery_success": False,
            "providers": [key],
            "failed_providers": [key],
            "attempt_count": 1,
            "max_attempt_count": 1,
            "status_codes": [None],
            "deliveries": [entry],
            "attempt_ids": [entry["attempt_id"]],
            "audit_id": case.package.audit_id,
            "delivery_id": case.plan.delivery_id,
            "schedule_id": "",
            "retry_plan_id": "",
            "worker_run_id": worker_run_id,
        },
        at=at,
        by=None,
        cases=[case.case_id],
        references=[records.Reference(DELIVERY_PLAN.name, case.plan.delivery_id, case.plan.record_hash)],
    )


def _delivery_entry(record_id: str, receipt: Receipt, result: Result | None) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "provider": receipt.connector,
        "success": receipt.delivered,
        "status_code": receipt.status_code,
        "attempt_count": receipt.tries,
        "started_at": records.timestamp(receipt.started_at),
        "completed_at": records.timestamp(receipt.completed_at),
        "error": receipt.error or None,
        "request": {"method": "POST", "url": f"connector://{receipt.connector}", "headers": {}},
        **outcome_fields(receipt),
        "body_sha256": receipt.sent_sha256,
        "bytes_sent": receipt.bytes_sent,
        "answer_sha256": receipt.answer_sha256,
        "retry_after_s": receipt.retry_after_s,
    }
    if result:
        entry |= {
            "case": result.case.case_id,
            "attempt_id": attempt_id(record_id, receipt.connector),
            "attempt_no": result.number,
        }
    return entry


def event_for(plan: DeliveryPlan, package: AuditPackage) -> dict[str, Any]:
    """What connectors are told about a package: the routes' states, never their notes (CONTRACT §3).

    Built from stored records alone, so that the same plan gives the same bytes at any time. Raises
    ``Conflict`` ``audit_package_not_found`` when a body was erased.
    """
    found = records.by_ids([plan.delivery_id, package.audit_id])
    planned, content = (
        records.payload_of(found[record_id]) if record_id in found else None
        for record_id in (plan.delivery_id, package.audit_id)
    )
    if planned is None or content is None:
        raise Conflict("The audit package is not there any more.", code="audit_package_not_found")
    summary = {
        "audit_id": package.audit_id,
        "audit_hash": package.record_hash,
        "delivery_id": plan.delivery_id,
        **{
            key: content[key]
            for key in (
                "route_count",
                "acknowledged_count",
                "resolved_count",
                "escalated_count",
                "dismissed_count",
                "outstanding_count",
                "alert_level",
                "filters",
            )
        },
        **{key: planned[key] for key in ("cadence", "schedule_ref", "next_delivery_at")},
    }
    critical = content["alert_level"] == "critical"
    return {
        "schema_version": EVENT_SCHEMA,
        "event_type": EVENT_TYPE,
        "session_id": plan.delivery_id,
        "title": f"Rollback drill acknowledgements: {content['outstanding_count']} of {content['route_count']} outstanding",
        "alert_level": content["alert_level"],
        "blocked_count": content["outstanding_count"] + content["escalated_count"],
        "max_severity": "high" if critical else "low",
        "audit_package_summary": summary,
        "delivery_plan": planned,
        "routes": [
            {
                key: route[key]
                for key in (
                    "route_id",
                    "schedule_id",
                    "plan_id",
                    "provider",
                    "owner",
                    "escalation_owner",
                    "acknowledgement_state",
                    "acknowledged",
                    "acknowledged_by",
                    "acknowledged_at",
                    "external_ref",
                    "acknowledgement_id",
                )
            }
            for route in content["routes"]
        ],
        "controls": [
            "delivery-event-redacts-connector-secrets",
            "route-notes-are-not-sent-to-connectors",
            "siem-itsm-routing-uses-public-safe-acknowledgement-state",
        ],
    }


def settings_of(connector: Connector) -> ConnectorSettings:
    """A connector's row as the frozen settings that sending works with."""
    return ConnectorSettings(
        key=connector.key,
        product=Product(connector.product),
        url=connector.url,
        url_ref=connector.url_ref,
        headers=tuple(sorted(connector.headers.items())),
        authorization_ref=connector.authorization_ref,
        token_ref=connector.token_ref,
        authorization_scheme=connector.authorization_scheme,
        api_key_ref=connector.api_key_ref,
        api_key_header=connector.api_key_header,
        title=connector.title,
        index=connector.index,
        service=connector.service,
        allow_networks=tuple(connector.allow_networks),
        timeout_s=connector.timeout_ms / 1000,
        max_concurrency=connector.max_concurrency,
    )


def prepare_event(connector: Connector, event: dict[str, Any], *, about: str) -> Prepared:
    """What would go on the wire for ``event``. The idempotency key is the same for the same bytes (P20)."""
    settings = settings_of(connector)
    rendered = prepare.prepare(settings, event, idempotency_key="", message_id=about)
    return address_body(connector, rendered.body, rendered.content_type, about=about)


def address_body(connector: Connector, body: bytes, content_type: str, *, about: str) -> Prepared:
    """Today's address, headers and credentials around bytes that were rendered before.

    Raises ``Misconfigured`` when the connector cannot be used as it is configured.
    """
    key = records.digest(about.encode() + b"\n" + body)[:32]
    return prepare.address(settings_of(connector), body, content_type, idempotency_key=key, message_id=about)


def spec_for(
    prepared: Prepared, connector: Connector, *, token: str, timeout_s: float, retries: int = 0
) -> SendSpec:
    """The frozen order to the sender; it reads no row afterwards."""
    return SendSpec(
        token=token,
        connector=connector.key,
        product=Product(connector.product),
        url=prepared.url,
        headers=(*prepared.public_headers, *prepared.secret_headers),
        body=prepared.body,
        timeout_s=timeout_s,
        retries=retries,
        allow_networks=tuple(connector.allow_networks),
        max_concurrency=connector.max_concurrency,
        not_after=time.monotonic() + QUEUE_S,
    )


def misconfigured(token: str, connector: Connector, error: Misconfigured) -> Receipt:
    """The receipt of a send that could not even be prepared: nothing left."""
    now = datetime.now(UTC)
    return Receipt(
        token=token,
        connector=connector.key,
        answer=Answer.NOT_SENT,
        assurance=None,
        may_have_arrived=False,
        failure_class=error.failure_class,
        status_code=None,
        error=str(error)[:200],
        tries=0,
        started_at=now,
        completed_at=now,
        bytes_sent=0,
        sent_sha256="",
        answer_excerpt="",
        answer_sha256="",
        retry_after_s=None,
    )


def lease_seconds(timeout_s: float) -> float:
    """How long a claim holds: waiting for a slot, the try itself, and writing its outcome."""
    return QUEUE_S + timeout_s + LEASE_SLACK_S


def require_any_connector() -> None:
    """Raise ``InvalidInput`` when nothing at all is configured."""
    if not Connector.objects.exists():
        raise InvalidInput("No connector is configured.", code="connector_config_not_loaded")


def usable_connectors(keys: Sequence[str] | None) -> list[Connector]:
    """Connectors by key, or every enabled one for None; a missing or disabled one is an answer (P16)."""
    if keys is None:
        connectors = list(Connector.objects.filter(enabled=True))
        if not connectors:
            raise Conflict("Every connector is disabled.", code="connector_disabled")
        return connectors
    known = {connector.key: connector for connector in Connector.objects.filter(key__in=keys)}
    missing = [key for key in keys if key not in known]
    if missing:
        raise Conflict(
            f"Not configured: {', '.join(missing)}.", code="connector_not_configured", providers=missing
        )
    disabled = [key for key in keys if not known[key].enabled]
    if disabled:
        raise Conflict(f"Disabled: {', '.join(disabled)}.", code="connector_disabled", providers=disabled)
    return [known[key] for key in dict.fromkeys(keys)]


def _refuse_paused(connectors: Sequence[Connector]) -> None:
    scopes = policies.paused_scopes()
    for connector in connectors:
        if reasons := policies.reasons_against_sending(connector, scopes):
            code, sentence = reasons[0]
            raise Conflict(sentence, code=code, provider=connector.key)


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
