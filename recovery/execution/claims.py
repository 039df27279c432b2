"""Claiming an approval: one transaction that uses it up before a socket opens, or says why it was not used."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Any

from django.db import transaction

from evidence.connectors.credentials import Misconfigured
from evidence.connectors.specs import SendSpec
from evidence.domain import clock as clocks
from evidence.domain import ledger, live, records, sending, text
from evidence.domain import policies as evidence_policies
from evidence.domain.clock import Clock
from evidence.domain.transitions import CASES, move
from evidence.enums import CaseState, Hold
from evidence.models import Case, Connector, Record
from recovery.documents import APPROVAL_DECISION, EXECUTION_CLAIM, EXECUTION_RECORD, WORKER_RUN
from recovery.domain import approvals, manifests, quorum, retry_policies, transitions
from recovery.domain.policies import ACKNOWLEDGED, reasons_against_retry
from recovery.enums import DecisionState, EntryState, ExecutionStatus, RunState, SkipCode
from recovery.execution.selection import Applied, applied
from recovery.models import ApprovalEntry, Execution, Vote, WorkerRun
from recovery.permissions import Permission


class Passed(Enum):
    """Nothing to claim and nothing to say: somebody else is at it, or used it up, or the run itself has ended."""

    BUSY = auto()
    USED = auto()
    # The run was given up, or who asked for it may not any more: it claims nothing further.
    ENDED = auto()


@dataclass(frozen=True)
class Claimed:
    """A committed claim: the execution's row and the frozen order to the sender."""

    execution: Execution
    spec: SendSpec
    applied: Applied


@dataclass(frozen=True)
class Skipped:
    """An entry that was not claimed. ``record`` is None when the same was recorded before."""

    entry: ApprovalEntry
    code: SkipCode
    reason: str
    record: records.Draft | None


def claim(entry_pk: int, run: WorkerRun, *, clock: Clock) -> Claimed | Skipped | Passed:
    """Use an approval up, durably, or record why not; ``Passed`` when that is somebody else's to do.

    A skip claims nothing and uses no approval up; it is recorded once for each entry and code, until the
    code changes. A changed manifest ends the entry for good.
    """
    with transaction.atomic():
        case_pk = ApprovalEntry.objects.values_list("case_id", flat=True).get(pk=entry_pk)
        if not Case.objects.select_for_update(no_key=True, skip_locked=True).filter(pk=case_pk).exists():
            return Passed.BUSY
        entry = approvals.entries().get(pk=entry_pk)
        if entry.state == EntryState.CLAIMED:
            return Passed.USED
        if not _goes_on(run):
            return Passed.ENDED
        at = clocks.read(clock)
        last = entry.case.attempts.order_by("-number").first()
        if last is None:
            raise ValueError(f"{entry.case} has an approval entry and no attempt")
        limits = applied(entry, run.request["policy"], last.completed_at)
        recount = approvals.recount(entry, at=at)
        votes = quorum.counted_votes(entry)
        reasons = reasons_against_claim(entry, limits, at, clock=clock)
        rebuilt, against, changed = _held_against(entry, votes, at)
        reasons = [*against, *reasons]
        if reasons or rebuilt is None:
            return _skip(entry, *reasons[0], changed, votes, limits, run, at=at, recount=recount)
        return _take(entry, rebuilt, votes, limits, run, at=at, now=clock())


def _goes_on(run: WorkerRun) -> bool:
    """Whether a run still claims: it is running, and who asked for it may still send (P9)."""
    row = WorkerRun.objects.select_related("requested_by__owner").get(pk=run.pk)
    return row.state == RunState.RUNNING and not evidence_policies.reasons_against_role(
        row.requested_by, Permission.RUN_LIVE
    )


def _held_against(
    entry: ApprovalEntry, votes: Sequence[Vote], at: datetime
) -> tuple[manifests.Rebuilt | None, list[tuple[SkipCode, str]], tuple[str, ...]]:
    """Hold what was approved against live rows and against the votes themselves.

    Returns the rebuilt manifest (None when there is none to be had), the reasons against the claim, the most
    final first, and the names of what changed.
    """
    if entry.state != EntryState.APPROVED:
        return None, [], ()
    reasons: list[tuple[SkipCode, str]] = []
    ends = quorum.deadline(entry, votes)
    if ends and at > ends:
        # By the votes, whatever the row says.
        reasons.append((SkipCode.APPROVAL_EXPIRED, f"The approval ran out at {text.moment(ends)}."))
    rebuilt: manifests.Rebuilt | None = None
    changed: tuple[str, ...] = ()
    try:
        rebuilt = manifests.rebuild(entry, retry_policies.from_dict(entry.decision.policy))
        changed = rebuilt.changed or _votes_against(entry, votes)
    except Misconfigured as error:
        said = f"The connector is misconfigured: {error}."
        reasons.append((SkipCode.CONNECTOR_CONFIG_NOT_CONFIGURED, said))
        changed = ("connector_commitment",) if manifests.connector_changed(entry) else ()
    if changed:
        # The most final of all, also when time ran out meanwhile (P5).
        reasons.insert(0, (SkipCode.MANIFEST_CHANGED, f"Changed since the approval: {', '.join(changed)}."))
    return rebuilt, reasons, changed


def reasons_against_claim(
    entry: ApprovalEntry, limits: Applied, at: datetime, *, clock: Clock
) -> list[tuple[SkipCode, str]]:
    """Why an approval may not be used now, most final first; the manifest is compared apart from this."""
    case, connector = entry.case, entry.connector
    reasons: list[tuple[SkipCode, str]] = []
    if entry.state == EntryState.VOID:
        reasons.append((SkipCode.MANIFEST_CHANGED, "What was approved is not what would be sent."))
    elif entry.state == EntryState.EXPIRED:
        reasons.append((SkipCode.APPROVAL_EXPIRED, "The approval has run out."))
    elif entry.state != EntryState.APPROVED or reasons_against_retry(case):
        now = case.state if entry.state == EntryState.APPROVED else entry.state
        reasons.append((SkipCode.APPROVAL_REVOKED, f"The approval does not stand any more ({now})."))
    elif entry.execute_by is not None and at > entry.execute_by:
        reasons.append(
            (SkipCode.APPROVAL_EXPIRED, f"The approval ran out at {text.moment(entry.execute_by)}.")
        )
    if entry.require_retry_ack and entry.decision.ack_state not in ACKNOWLEDGED:
        reasons.append(
            (
                SkipCode.ACKNOWLEDGEMENT_WITHDRAWN,
                f"The newest acknowledgement of the retry says {entry.decision.ack_state or 'nothing'}.",
            )
        )
    if case.counted_attempts >= limits.policy.max_retry_attempts:
        reasons.append(
            (
                SkipCode.RETRY_LIMIT_REACHED,
                f"{case.counted_attempts} tries left us; {limits.policy.max_retry_attempts} are allowed.",
            )
        )
    if at < limits.not_before:
        reasons.append(
            (
                SkipCode.RETRY_WINDOW_NOT_OPEN,
                f"The retry window opens at {text.moment(limits.not_before)}.",
            )
        )
    reasons += reasons_against_sending(connector, limits, at)
    reasons += [(SkipCode(code), sentence) for code, sentence in live.reasons_against_live(clock)]
    if not Record.objects.filter(record_id=case.package.audit_id, body__isnull=False).exists():
        reasons.append((SkipCode.AUDIT_PACKAGE_NOT_FOUND, "The audit package is not there any more."))
    return reasons


def reasons_against_sending(
    connector: Connector, limits: Applied, at: datetime
) -> list[tuple[SkipCode, str]]:
    """Why nothing goes to ``connector`` now under these limits.

    Who lifts the delay for an approved retry lifts what the receiver asked for, too (P9).
    """
    lifted = {Hold.THROTTLED} if limits.policy.allow_immediate_retry else set()
    scopes = evidence_policies.paused_scopes()
    found = evidence_policies.reasons_against_sending(connector, scopes, at)
    return [(SkipCode(code), sentence) for code, sentence in found if code not in lifted]


def _votes_against(entry: ApprovalEntry, votes: Sequence[Vote]) -> tuple[str, ...]:
    """Every vote that counts has to be about exactly this manifest, and there have to be enough of them."""
    if any(vote.manifest_digest != entry.manifest_digest for vote in votes):
        return ("votes",)
    return () if len(votes) >= entry.required_approvals else ("required_approvals",)


def _take(
    entry: ApprovalEntry,
    rebuilt: manifests.Rebuilt,
    votes: Sequence[Vote],
    limits: Applied,
    run: WorkerRun,
    *,
    at: Any,
    now: datetime,
) -> Claimed:
    case, connector = entry.case, entry.connector
    timeout_s = max(run.request["timeout_ms"], connector.min_timeout_ms) / 1000
    token = secrets.token_hex(16)
    lease_until = now + timedelta(seconds=sending.lease_seconds(timeout_s))
    execution_id = records.mint_id(EXECUTION_RECORD)
    draft = records.draft(
        EXECUTION_CLAIM,
        records.mint_id(EXECUTION_CLAIM),
        {
            "execution_id": execution_id,
            "entry_id": entry.entry_id,
            "approval_plan_id": entry.plan.approval_plan_id,
            "approval_decision_ids": [vote.decision_id for vote in votes],
            "run_id": run.run_id,
            "delivery_id": case.plan.delivery_id,
            "audit_id": case.package.audit_id,
            "provider": connector.key,
            "attempt_no": entry.attempt_no,
            "manifest_digest": rebuilt.digest,
            "claimed_at": records.timestamp(at),
            "claimed_by": run.requested_by.username,
            "lease_until": records.timestamp(lease_until),
            "immediate_by_operator": limits.immediate,
            "applied_policy": limits.as_dict(),
        },
        at=at,
        by=run.requested_by,
        cases=[case.case_id],
        references=_references(entry, votes, run),
    )
    move(transitions.ENTRIES, entry.pk, EntryState.CLAIMED, only_from=[EntryState.APPROVED], ended_at=at)
    move(transitions.DECISIONS, entry.decision_id, DecisionState.USED)
    move(
        CASES,
        case.pk,
        CaseState.SENDING,
        only_from=[CaseState.FAILED],
        lease_token=token,
        lease_until=lease_until,
    )
    execution = Execution.objects.create(
        claim_id=draft.record_id,
        claim_hash=draft.digest,
        execution_id=execution_id,
        entry=entry,
        case=case,
        attempt_no=entry.attempt_no,
        run=run,
        executed_by=run.requested_by,
        claimed_at=at,
        lease_token=token,
        lease_until=lease_until,
    )
    ledger.append([draft])
    spec = sending.spec_for(rebuilt.prepared, connector, token=token, timeout_s=timeout_s)
    return Claimed(execution, spec, limits)


def _skip(
    entry: ApprovalEntry,
    code: SkipCode,
    reason: str,
    changed: Sequence[str],
    votes: Sequence[Vote],
    limits: Applied,
    run: WorkerRun,
    *,
    at: Any,
    recount: records.Draft | None,
) -> Skipped:
    drafts = [recount] if recount else []
    if entry.last_skip == code and not changed:
        ledger.append(drafts)
        return Skipped(entry, code, reason, None)
    if changed:
        drafts.append(approvals.void_entry(entry, changed, by=run.requested_by, at=at))
    ApprovalEntry.objects.filter(pk=entry.pk).update(last_skip=code)
    record = execution_document(
        entry,
        run,
        votes,
        limits,
        records.mint_id(EXECUTION_RECORD),
        at=at,
        status=ExecutionStatus.SKIPPED,
        skipped=code.value,
        skip_reason=reason,
        changed_fields=list(changed),
    )
    ledger.append([*drafts, record])
    return Skipped(entry, code, reason, record)


def execution_document(
    entry: ApprovalEntry,
    run: WorkerRun,
    votes: Sequence[Vote],
    limits: Applied,
    execution_id: str,
    *,
    at: Any,
    status: ExecutionStatus,
    references: Sequence[records.Reference] = (),
    **fields: Any,
) -> records.Draft:
    """The execution record of CONTRACT §8.11; ``fields`` override what a skip leaves empty."""
    case = entry.case
    delivery_record = fields.get("delivery_metadata_id", "")
    evidence = [
        f"go-rollback-drill-retry-worker://{run.run_id}",
        f"go-rollback-drill-retry-approval://{votes[-1].decision_id}" if votes else "",
        f"go-rollback-drill-audit-delivery://{case.plan.delivery_id}",
        f"connector-delivery://{delivery_record}" if delivery_record else "",
    ]
    payload: dict[str, Any] = {
        "execution_status": status.value,
        "executed_at": records.timestamp(at),
        "executed_by": run.requested_by.username,
        "run_id": run.run_id,
        "retry_plan_id": entry.retry_plan.retry_plan_id,
        "approval_decision_id": votes[-1].decision_id if votes else "",
        "approval_decision_ids": [vote.decision_id for vote in votes],
        "approval_plan_id": entry.plan.approval_plan_id,
        "entry_id": entry.entry_id,
        "manifest_digest": entry.manifest_digest,
        "delivery_id": case.plan.delivery_id,
        "audit_id": case.package.audit_id,
        "provider": entry.connector.key,
        "attempt_no": entry.attempt_no,
        "attempt_id": "",
        "skipped": "",
        "skip_reason": "",
        "changed_fields": [],
        "delivery_plan_id": case.plan.delivery_id,
        "delivery_metadata_id": "",
        "delivery_success": status is ExecutionStatus.DELIVERED,
        "selected_providers": [entry.connector.key],
        "public_evidence_refs": [ref for ref in evidence if ref],
        "answer": "not_sent",
        "assurance": "",
        "may_have_arrived": False,
        "failure_class": "",
        "status_code": None,
        "applied_policy": limits.as_dict(),
        "immediate_by_operator": limits.immediate,
    }
    return records.draft(
        EXECUTION_RECORD,
        execution_id,
        payload | fields,
        at=at,
        by=run.requested_by,
        cases=[case.case_id],
        references=[*_references(entry, votes, run), *references],
    )


def _references(entry: ApprovalEntry, votes: Sequence[Vote], run: WorkerRun) -> list[records.Reference]:
    return [
        *approvals.entry_references(entry),
        records.Reference(WORKER_RUN.name, run.run_id, run.record_hash),
        *(records.Reference(APPROVAL_DECISION.name, vote.decision_id, vote.record_hash) for vote in votes),
    ]
