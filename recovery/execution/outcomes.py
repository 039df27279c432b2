"""What came of claimed executions: written as it arrives, and what nobody heard of again given up."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction

from evidence.connectors.specs import Receipt
from evidence.domain import attempts, breakers, events, ledger, records
from evidence.domain import clock as clocks
from evidence.domain.attempts import Result, Source
from evidence.domain.clock import Clock
from evidence.domain.transitions import move
from evidence.enums import Answer, DeliverySource, Outcome
from evidence.errors import StaleState
from evidence.models import Attempt, Case
from recovery.documents import EXECUTION_CLAIM, WORKER_RUN
from recovery.domain import approvals, quorum, reconciliations, retry_policies, transitions
from recovery.enums import DecisionState, EntryState, ExecutionState, ExecutionStatus
from recovery.execution.claims import execution_document
from recovery.execution.selection import Applied, applied
from recovery.models import ApprovalEntry, Execution, Vote

TURNED_OUT = "It turned out delivered."


@dataclass(frozen=True)
class Recorded:
    """One execution's outcome with its documents."""

    execution: Execution
    receipt: Receipt
    delivery: records.Draft
    record: records.Draft
    # What asked for a retry of a case that is settled by now.
    ended: Sequence[records.Draft] = ()


def record(results: Sequence[tuple[int, Receipt]], *, clock: Clock) -> list[Recorded]:
    """Write outcomes of ``(execution pk, receipt)`` in one transaction.

    A receipt that says that no byte left releases its approval (P9). One whose lease had run out is kept: a
    reconciliation record says what came of it, and execution and case move on, unless people settled them
    before with something else than a late success. Returns what was recorded, in order. Raises
    ``StaleState`` for another claim's receipt and for one that was recorded before.
    """
    with transaction.atomic():
        executions = _locked([pk for pk, _ in results])
        at = clocks.read(clock)
        recorded, drafts = [], []
        for pk, receipt in results:
            execution = executions[pk]
            if execution.state != ExecutionState.CLAIMED:
                drafts += _reconcile(execution, receipt, at=at)
                continue
            left = receipt.answer is not Answer.NOT_SENT
            one = _finish(execution, receipt, at=at) if left else _release(execution, receipt, at=at)
            recorded.append(one)
            drafts += [one.delivery, one.record, *one.ended]
        heard = {one.receipt.token: one.delivery.reference for one in recorded}
        drafts += breakers.heard([one.receipt for one in recorded], at=at, because=heard)
        ledger.append(drafts)
    return recorded


def expire_leases(*, clock: Clock, limit: int = 50) -> int:
    """Give up executions whose lease ran out: ``outcome_unknown``, never sent again by itself (P3)."""
    due = Execution.objects.filter(state=ExecutionState.CLAIMED, lease_until__lt=clock())
    return sum(_give_up(pk, clock=clock) for pk in due.values_list("pk", flat=True)[:limit])


def _give_up(pk: int, *, clock: Clock) -> bool:
    with transaction.atomic():
        case_pk = Execution.objects.values_list("case_id", flat=True).get(pk=pk)
        if not Case.objects.select_for_update(no_key=True, skip_locked=True).filter(pk=case_pk).exists():
            return False
        execution = _related(pk)
        at = clocks.read(clock)
        if execution.state != ExecutionState.CLAIMED or execution.lease_until >= clock():
            return False
        ledger.append(give_up(execution, at=at))
    return True


def give_up(execution: Execution, *, at: datetime) -> list[records.Draft]:
    """End a claim that nobody will be heard of: ``outcome_unknown``.

    The caller holds the case's lock and appends the records.
    """
    entry, case = _entry(execution), execution.case
    body = records.digest(bytes(entry.body))
    delivery = attempts.unknown_record(
        case, execution.attempt_no, at=at, body_sha256=body, worker_run_id=execution.run.run_id
    )
    draft = _document(
        execution,
        ExecutionStatus.UNKNOWN,
        delivery,
        at=at,
        attempt_id=_attempt_id(execution, delivery),
        answer="no_answer",
        may_have_arrived=True,
    )
    move(
        transitions.EXECUTIONS,
        execution.pk,
        ExecutionState.UNKNOWN,
        only_from=[ExecutionState.CLAIMED],
        recorded_at=at,
        execution_hash=draft.digest,
    )
    attempts.abandon_lease(case, execution.attempt_no, delivery, body_sha256=body, at=at)
    return [delivery, draft]


def under_way(cases: Iterable[int]) -> list[Execution]:
    """Claims of these cases (by key) of which nothing was heard yet, with everything that ending one needs."""
    found = Execution.objects.filter(state=ExecutionState.CLAIMED, case__in=cases)
    return [_related(pk) for pk in found.order_by("pk").values_list("pk", flat=True)]


def _finish(execution: Execution, receipt: Receipt, *, at: datetime) -> Recorded:
    """Something left: the attempt is written, and the approval is used up."""
    result = Result(execution.case, execution.attempt_no, receipt)
    delivery = _delivery(execution, receipt, {receipt.token: result}, at=at)
    draft = _recorded(
        execution, receipt, ExecutionState(result.outcome), delivery, _attempt_id(execution, delivery), at=at
    )
    attempts.finish_attempt(result, delivery, at=at)
    return Recorded(execution, receipt, delivery, draft)


def _release(execution: Execution, receipt: Receipt, *, at: datetime) -> Recorded:
    """Nothing left the building: no attempt was made, and the approval stands until its own end (P9)."""
    delivery = _delivery(execution, receipt, {}, at=at)
    draft = _recorded(
        execution,
        receipt,
        ExecutionState.NOT_SENT,
        delivery,
        "",
        at=at,
        failure_class=receipt.failure_class or "",
    )
    settled = attempts.release_lease(execution.case, at=at)
    entry = _entry(execution)
    move(transitions.DECISIONS, entry.decision_id, DecisionState.OPEN, only_from=[DecisionState.USED])
    move(
        transitions.ENTRIES,
        entry.pk,
        EntryState.APPROVED,
        only_from=[EntryState.CLAIMED],
        ended_at=None,
        last_skip="",
    )
    ended = approvals.cancel_open(execution.case, TURNED_OUT, by=None, at=at) if settled else []
    return Recorded(execution, receipt, delivery, draft, ended)


def _delivery(
    execution: Execution, receipt: Receipt, results: Mapping[str, Result], *, at: datetime
) -> records.Draft:
    case, entry = execution.case, _entry(execution)
    return attempts.delivery_record(
        [receipt],
        source=DeliverySource.AUDIT,
        event_id=case.plan.delivery_id,
        event_type=events.EVENT_TYPE,
        at=at,
        by=execution.executed_by,
        cases=[case.case_id],
        references=[
            *approvals.entry_references(entry),
            records.Reference(WORKER_RUN.name, execution.run.run_id, execution.run.record_hash),
            records.Reference(EXECUTION_CLAIM.name, execution.claim_id, execution.claim_hash),
        ],
        audit_id=case.package.audit_id,
        delivery_id=case.plan.delivery_id,
        retry_plan_id=entry.retry_plan.retry_plan_id,
        worker_run_id=execution.run.run_id,
        attempts=results,
    )


def _recorded(
    execution: Execution,
    receipt: Receipt,
    state: ExecutionState,
    delivery: records.Draft,
    attempt_id: str,
    *,
    at: datetime,
    **values: str,
) -> records.Draft:
    """Move the execution to what its receipt says; its record, to be appended."""
    fields = attempts.outcome_fields(receipt)
    status = ExecutionStatus(fields.pop("outcome"))
    draft = _document(execution, status, delivery, at=at, attempt_id=attempt_id, **fields)
    move(
        transitions.EXECUTIONS,
        execution.pk,
        state,
        only_from=[ExecutionState.CLAIMED],
        only_if={"lease_token": receipt.token},
        recorded_at=at,
        execution_hash=draft.digest,
        **values,
    )
    return draft


def _reconcile(execution: Execution, receipt: Receipt, *, at: datetime) -> list[records.Draft]:
    """A late answer: the attempt stays unknown as it was recorded, execution and case learn the truth."""
    if receipt.token != execution.lease_token:
        raise StaleState("This receipt belongs to another claim.", current_state=execution.state)
    if execution.state == ExecutionState.NOT_SENT:
        raise StaleState("What came of this claim is recorded already.", current_state=execution.state)
    result = Result(execution.case, execution.attempt_no, receipt)
    attempt = Attempt.objects.get(case=execution.case, number=execution.attempt_no)
    ended = []
    arrived = result.outcome is Outcome.DELIVERED
    moved = attempts.settle_late(result, attempt, at=at)
    if moved or (arrived and execution.state == ExecutionState.FAILED):
        # Also while the next try is under way: what people attested of this one was wrong.
        reconciliations.settle_execution(execution, result.outcome)
    if moved and arrived:
        ended = approvals.cancel_open(execution.case, TURNED_OUT, by=None, at=at)
    said = attempts.said_by(receipt, source=Source.LATE_ANSWER)
    return [reconciliations.reconciliation(execution, attempt, said, at=at, by=None), *ended]


def _document(
    execution: Execution, status: ExecutionStatus, delivery: records.Draft, *, at: datetime, **fields: object
) -> records.Draft:
    entry = _entry(execution)
    votes, limits = _as_claimed(execution, entry)
    return execution_document(
        entry,
        execution.run,
        votes,
        limits,
        execution.execution_id,
        at=at,
        status=status,
        references=[
            records.Reference(EXECUTION_CLAIM.name, execution.claim_id, execution.claim_hash),
            delivery.reference,
        ],
        delivery_metadata_id=delivery.record_id,
        **fields,
    )


def _as_claimed(execution: Execution, entry: ApprovalEntry) -> tuple[list[Vote], Applied]:
    """The votes and limits that the claim was made under, as its record says: neither is judged again."""
    claim = records.payload_of(records.by_ids([execution.claim_id])[execution.claim_id])
    if claim is None:
        # Erased: what stands now is the nearest to it.
        limits = applied(entry, execution.run.request["policy"], execution.claimed_at)
        return quorum.counted_votes(entry), limits
    votes = Vote.objects.filter(decision_id__in=claim["approval_decision_ids"]).select_related("person")
    policy = retry_policies.from_dict(claim["applied_policy"])
    return list(votes.order_by("pk")), Applied(policy, entry.not_before, claim["immediate_by_operator"])


def _attempt_id(execution: Execution, delivery: records.Draft) -> str:
    return attempts.attempt_id(delivery.record_id, execution.case.connector.key)


def _locked(pks: Sequence[int]) -> dict[int, Execution]:
    """Executions with their cases' rows locked in one order for everybody."""
    cases = Execution.objects.filter(pk__in=pks).values_list("case_id", flat=True)
    list(
        Case.objects.select_for_update(no_key=True)
        .filter(pk__in=list(cases))
        .order_by("pk")
        .values_list("pk", flat=True)
    )
    return {pk: _related(pk) for pk in pks}


def _related(pk: int) -> Execution:
    return Execution.objects.select_related(
        "case__plan", "case__package", "case__connector", "run__requested_by", "executed_by"
    ).get(pk=pk)


def _entry(execution: Execution) -> ApprovalEntry:
    return approvals.entries().get(pk=execution.entry_id)
