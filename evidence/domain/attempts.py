"""Attempts: what came of one numbered try of a case, as rows and as delivery records (CONTRACT §8.5)."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from django.db import InterfaceError, OperationalError, close_old_connections

from evidence.connectors.specs import Receipt
from evidence.documents import AUDIT_PACKAGE, CONNECTOR_DELIVERY, DELIVERY_PLAN
from evidence.domain import records, transitions
from evidence.domain.sending import EVENT_TYPE
from evidence.enums import Answer, CaseState, DeliverySource, FailureClass, Outcome
from evidence.models import Attempt, AttemptAnswer, Case, Person

logger = logging.getLogger(__name__)

ANSWERS_KEPT = timedelta(days=30)
# Values of headers are never recorded.
REDACTED = "REDACTED"
UNREACHABLE = (
    FailureClass.DNS,
    FailureClass.CONNECT,
    FailureClass.CONNECT_TIMEOUT,
    FailureClass.TLS,
    FailureClass.BLOCKED_ADDRESS,
)
# Before each further try to write what came of a send: these answers come once.
WRITE_PAUSES_S = (0.2, 1.0, 3.0)

Written = TypeVar("Written")


def written(act: Callable[[], Written]) -> Written:
    """``act``'s result; a locked or restarted database is tried again. For writing down what was sent."""
    for pause in WRITE_PAUSES_S:
        try:
            return act()
        except (OperationalError, InterfaceError) as error:
            logger.warning("recording what was sent failed and is tried again: %s", error)
            close_old_connections()
            time.sleep(pause)
    return act()


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


def case_references(cases: Iterable[Case]) -> list[records.Reference]:
    """The delivery plans and audit packages that cases are about, each once."""
    return list(
        dict.fromkeys(
            reference
            for case in cases
            for reference in (
                records.Reference(DELIVERY_PLAN.name, case.plan.delivery_id, case.plan.record_hash),
                records.Reference(AUDIT_PACKAGE.name, case.package.audit_id, case.package.record_hash),
            )
        )
    )


def keep_answer(attempt: Attempt, receipt: Receipt, *, at: datetime) -> None:
    """Keep the first kilobyte of the receiver's answer, redacted by the sender, beside the attempt."""
    if not receipt.answer_excerpt:
        return
    AttemptAnswer.objects.create(
        attempt=attempt, excerpt=receipt.answer_excerpt, keep_until=at + ANSWERS_KEPT
    )


def abandon_lease(
    case: Case, number: int, record: records.Draft, *, body_sha256: str, at: datetime
) -> Attempt:
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
        "status_code": status_of(receipt),
    }


def status_of(receipt: Receipt) -> int | None:
    """The answer's status; 0 when there was no connection, None when there was one and no answer (CONTRACT §3)."""
    return 0 if receipt.failure_class in UNREACHABLE else receipt.status_code


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

    ``attempts`` maps a receipt's token to its result, for sends that become attempts of cases with this
    record. Destinations are connector keys; there is no host, header value or body in it.
    """
    record_id = records.mint_id(CONNECTOR_DELIVERY)
    ordered = sorted(receipts, key=lambda receipt: receipt.connector)
    failed = [receipt.connector for receipt in ordered if not receipt.delivered]
    attempts = attempts or {}
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
            "status_codes": [status_of(receipt) for receipt in ordered],
            "deliveries": [
                _delivery_entry(record_id, receipt, attempts.get(receipt.token)) for receipt in ordered
            ],
            "attempt_ids": [
                attempt_id(record_id, receipt.connector) for receipt in ordered if receipt.token in attempts
            ],
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
        references=case_references([case]),
    )


def _delivery_entry(record_id: str, receipt: Receipt, result: Result | None) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "provider": receipt.connector,
        "success": receipt.delivered,
        "attempt_count": receipt.tries,
        "started_at": records.timestamp(receipt.started_at),
        "completed_at": records.timestamp(receipt.completed_at),
        "error": receipt.error or None,
        "request": {
            "method": "POST",
            "url": f"connector://{receipt.connector}",
            "headers": dict.fromkeys(receipt.header_names, REDACTED),
        },
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
