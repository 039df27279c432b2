"""Attempts: what came of one numbered try of a case, as rows and as delivery records (CONTRACT §8.5)."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from django.db import InterfaceError, OperationalError, close_old_connections
from django.db.models import Q

from evidence.connectors.specs import Receipt
from evidence.documents import AUDIT_PACKAGE, CONNECTOR_DELIVERY, DELIVERY_PLAN
from evidence.domain import diagnostics, public_safety, records, transitions
from evidence.domain.events import EVENT_TYPE
from evidence.enums import Answer, CaseState, DeliverySource, FailureClass, Outcome
from evidence.errors import StaleState
from evidence.models import Attempt, AttemptAnswer, Case, Person, Record, RecordKey

logger = logging.getLogger(__name__)

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
# Search key of a reconciliation, whatever its kind: the attempt it is about.
RECONCILES = "reconciles"

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


class Source(StrEnum):
    """Who says what came of an attempt: its own record, an answer after its lease, two people, or the connector.

    The connector says it when it is asked afterwards; that it has nothing settles nothing and is no source.
    """

    ATTEMPT = "attempt"
    LATE_ANSWER = "late_answer"
    ATTESTATION = "attestation"
    CONNECTOR = "connector_answer"


# What an answer of the attempt's own that comes after them does not undo, unless it is a success.
SETTLING = frozenset({Source.ATTESTATION, Source.CONNECTOR})
# Attempts of which more may be learnt than their own records say.
PERHAPS = Q(outcome=Outcome.UNKNOWN) | Q(outcome=Outcome.FAILED, may_have_arrived=True)


@dataclass(frozen=True, kw_only=True)
class Said:
    """What came of an attempt, according to ``source``; ``external_ref`` is where the receiver keeps it."""

    source: Source
    outcome: Outcome
    answer: Answer
    may_have_arrived: bool
    assurance: str = ""
    failure_class: str = ""
    status_code: int | None = None
    external_ref: str = ""

    @property
    def outcome_fields(self) -> dict[str, Any]:
        """Outcome fields of CONTRACT for a document."""
        return {
            "outcome": self.outcome.value,
            "answer": self.answer.value,
            "assurance": self.assurance,
            "may_have_arrived": self.may_have_arrived,
            "failure_class": self.failure_class,
            "status_code": self.status_code,
        }


@dataclass(frozen=True, kw_only=True)
class Known(Said):
    """The same with the record in which it stands."""

    record: records.Reference


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
    settled = result.outcome is Outcome.DELIVERED or arrived_after_all(case)
    transitions.move(
        transitions.CASES,
        case.pk,
        CaseState.DELIVERED if settled else CaseState(result.outcome),
        only_from=[CaseState.SENDING],
        attempt_count=result.number,
        counted_attempts=case.counted_attempts + int(left),
        last_outcome_at=at,
        lease_token="",
        lease_until=None,
        settled_at=at if settled else None,
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
    diagnostics.keep(case.connector, receipt, at=at, attempt=attempt)
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
    """Keep the first kilobyte of the receiver's answer beside the attempt.

    The sender took our own secrets out of it; the receiver's, and addresses in its network, go here, by rule (P18).
    """
    if not (said := receipt.answer_excerpt):
        return
    excerpt = public_safety.redacted(said, public_safety.find(said))
    AttemptAnswer.objects.create(attempt=attempt, excerpt=excerpt, keep_until=at + diagnostics.KEPT)


def abandon_lease(
    case: Case, number: int, record: records.Draft, *, body_sha256: str, at: datetime
) -> Attempt:
    """Write an attempt nobody heard of again: outcome unknown, and it may have arrived (P3)."""
    transitions.move(
        transitions.CASES,
        case.pk,
        CaseState.UNKNOWN,
        # Parked only with the end of an epoch: what followed the backup may have sent it.
        only_from=[CaseState.SENDING, CaseState.PARKED],
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


def release_lease(case: Case, *, at: datetime) -> bool:
    """Take a case back from ``sending`` to ``failed`` as it was before: what was claimed did not leave (P9).

    There is no attempt of it: the next one has the same number. True when an earlier try turned out delivered
    meanwhile: then the case is settled.
    """
    settled = arrived_after_all(case)
    transitions.move(
        transitions.CASES,
        case.pk,
        CaseState.DELIVERED if settled else CaseState.FAILED,
        only_from=[CaseState.SENDING],
        lease_token="",
        lease_until=None,
        settled_at=at if settled else None,
    )
    return settled


def settle_unknown(
    case: Case, outcome: Outcome, *, at: datetime, left: bool = True, lease_token: str | None = None
) -> None:
    """Move a case from unknown to what turned out; ``left`` is false when it was not sent after all.

    A failure leaves it settled when an earlier try turned out delivered. With ``lease_token`` only if that is
    still the case's. Raises ``StaleState`` when it was settled before.
    """
    settled = outcome is Outcome.DELIVERED or arrived_after_all(case)
    transitions.move(
        transitions.CASES,
        case.pk,
        CaseState.DELIVERED if settled else CaseState(outcome),
        only_from=[CaseState.UNKNOWN],
        only_if={} if lease_token is None else {"lease_token": lease_token},
        lease_token="",
        counted_attempts=case.counted_attempts - int(not left),
        settled_at=at if settled else None,
    )


def settle_found(case: Case, *, at: datetime) -> None:
    """Move a case whose connector says that it has the message, whatever was known or attested before.

    Raises ``StaleState`` when it is settled or a try is under way.
    """
    transitions.move(
        transitions.CASES,
        case.pk,
        CaseState.DELIVERED,
        only_from=[CaseState.UNKNOWN, CaseState.FAILED],
        lease_token="",
        settled_at=at,
    )


def settle_late(result: Result, attempt: Attempt, *, at: datetime) -> bool:
    """Move the case of an unknown ``attempt`` to what its late receipt says; whether it moved.

    What people or the connector said before stands against a late failure; a late success counts more, and
    settles a case of which nothing is under way. Raises ``StaleState`` when a receipt of this attempt was
    recorded before.
    """
    receipt, case = result.receipt, result.case
    heard = {known.source for known in reconciliations([attempt])[attempt.pk]}
    if attempt.outcome != Outcome.UNKNOWN or Source.LATE_ANSWER in heard:
        raise StaleState("What came of this attempt is recorded already.", current_state=case.state)
    if heard & SETTLING:
        if result.outcome is not Outcome.DELIVERED or case.state != CaseState.FAILED:
            return False
        transitions.move(
            transitions.CASES, case.pk, CaseState.DELIVERED, only_from=[CaseState.FAILED], settled_at=at
        )
        return True
    left = receipt.answer is not Answer.NOT_SENT
    settle_unknown(case, result.outcome, at=at, left=left, lease_token=receipt.token)
    return True


def arrived_after_all(case: Case) -> bool:
    """Whether an earlier try of a case turned out delivered while a later one was under way."""
    known = what_is_known(Attempt.objects.filter(case=case, outcome=Outcome.UNKNOWN))
    return any(said.outcome is Outcome.DELIVERED for said in known.values())


def reconciliations(attempts: Iterable[Attempt]) -> dict[int, list[Known]]:
    """What turned out about each attempt (by key) after it was recorded, oldest first.

    A reconciliation whose body was erased says nothing any more.
    """
    by_id = {attempt.attempt_id: attempt.pk for attempt in attempts}
    found: dict[int, list[Known]] = {pk: [] for pk in by_id.values()}
    named = RecordKey.objects.filter(name=RECONCILES, value__in=list(by_id)).values("record")
    for record in Record.objects.filter(index__in=named).order_by("index"):
        if said := records.payload_of(record):
            found[by_id[said["attempt_id"]]].append(
                Known(
                    source=Source(said["source"]),
                    outcome=Outcome(said["outcome"]),
                    answer=Answer(said["answer"]),
                    may_have_arrived=said["may_have_arrived"],
                    assurance=said["assurance"],
                    failure_class=said["failure_class"],
                    status_code=said["status_code"],
                    external_ref=said.get("external_ref", ""),
                    record=records.Reference(record.kind, record.record_id, record.digest),
                )
            )
    return found


def what_is_known(attempts: Iterable[Attempt], *, failed_too: bool = False) -> dict[int, Known]:
    """What came of each attempt (by key) as far as anybody knows by now.

    That is its own record, unless that says unknown: then the newest reconciliation counts, and a success
    that was seen once is not unseen by what somebody says later. ``failed_too``: also of a failure that may have
    arrived; what its connector said of it later has settled the case, so that of an unsettled one nobody asks.
    """
    attempts = list(attempts)
    unheard = [
        attempt
        for attempt in attempts
        if attempt.outcome == Outcome.UNKNOWN
        or (failed_too and attempt.outcome == Outcome.FAILED and attempt.may_have_arrived)
    ]
    turned_out = reconciliations(unheard) if unheard else {}
    known = {}
    for attempt in attempts:
        all_said = turned_out.get(attempt.pk) or [_own(attempt)]
        seen = (said for said in all_said if said.outcome is Outcome.DELIVERED)
        known[attempt.pk] = next(seen, all_said[-1])
    return known


def _own(attempt: Attempt) -> Known:
    return Known(
        source=Source.ATTEMPT,
        outcome=Outcome(attempt.outcome),
        answer=Answer(attempt.answer),
        may_have_arrived=attempt.may_have_arrived,
        assurance=attempt.assurance,
        failure_class=attempt.failure_class,
        status_code=attempt.status_code,
        record=delivery_reference(attempt),
    )


def delivery_reference(attempt: Attempt) -> records.Reference:
    """The delivery record that an attempt stands in."""
    return records.Reference(CONNECTOR_DELIVERY.name, attempt.record_id, attempt.record_hash)


def said_by(receipt: Receipt, *, source: Source = Source.ATTEMPT) -> Said:
    """What a receipt says came of its attempt."""
    return Said(
        source=source,
        outcome=Outcome.DELIVERED if receipt.delivered else Outcome.FAILED,
        answer=receipt.answer,
        may_have_arrived=receipt.may_have_arrived,
        assurance=receipt.assurance.value if receipt.assurance else "",
        failure_class=receipt.failure_class.value if receipt.failure_class else "",
        status_code=status_of(receipt),
    )


def outcome_fields(receipt: Receipt) -> dict[str, Any]:
    """Outcome fields of CONTRACT for a document."""
    return said_by(receipt).outcome_fields


def reconciliation_fields(case: Case, attempt: Attempt, said: Said, *, at: datetime) -> dict[str, Any]:
    """What a reconciliation of either kind says: which attempt, who says it, and the outcome."""
    return {
        "delivery_id": case.plan.delivery_id,
        "provider": case.connector.key,
        "attempt_id": attempt.attempt_id,
        "attempt_no": attempt.number,
        "reconciled_at": records.timestamp(at),
        "source": said.source.value,
        "external_ref": said.external_ref,
        **said.outcome_fields,
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
