"""Worker runs: a person asks, the run is recorded, and the approved entries it names are executed (CONTRACT §6)."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import F, OuterRef, Subquery

from evidence.domain import attempts, ledger, live, policies, records
from evidence.domain import clock as clocks
from evidence.domain.clock import Clock
from evidence.domain.transitions import move
from evidence.errors import StaleState
from evidence.models import Person
from recovery.documents import WORKER_RUN
from recovery.domain import approvals, retry_plans, retry_policies, transitions
from recovery.domain.cases import require_cases
from recovery.domain.retry_plans import Judgement, Survey
from recovery.enums import EntryState, RetryAction, RunState
from recovery.execution import pump
from recovery.execution.canary import Ladder
from recovery.execution.pump import Pumped
from recovery.execution.selection import RunRequest, approved, require_connectors
from recovery.models import ApprovalEntry, Execution, RetrySet, WorkerRun
from recovery.permissions import Permission

# A run that nobody was heard of from for this long is given up.
LEASE = timedelta(seconds=120)
# A run inside a request ends within this.
REQUEST_S = 60.0
# A run of the worker command goes on in slices, so that its other steps wait no longer than this. A slice is
# longer than any retry may take.
SLICE_S = 60.0


@dataclass(frozen=True)
class Started:
    """A recorded run, the observation it quotes, and what it selected."""

    run: WorkerRun
    record: records.Draft
    plan: records.Draft
    decisions: list[Judgement]
    entries: list[ApprovalEntry]
    outcome: Pumped = field(default_factory=Pumped)


def start(request: RunRequest, *, by: Person, clock: Clock) -> Started:
    """Record a run and what it selects: every due decision when dry, approved entries when live.

    Live runs are an operator's act (P9); nothing is sent here. Raises ``NotFound`` for a case that is none
    and ``Conflict`` for a policy looser than the ceiling, or a live run with a database that was set back (P25).
    """
    policies.require_role(by, Permission.RUN_DRY if request.dry_run else Permission.RUN_LIVE)
    if not request.dry_run:
        live.require_log()
    require_cases(request.cases)
    require_connectors(request.providers)
    policy = retry_policies.tightened(retry_policies.ceiling(retry_policies.configured()), request.policy)
    with transaction.atomic():
        at = clocks.read(clock)
        survey = retry_plans.survey(policy, at, request.cases)
        entries = [] if request.dry_run else approved(request, at)
        decisions = _due(survey, request) if request.dry_run else []
        run_id = records.mint_id(WORKER_RUN)
        plan = retry_plans.plan_document(survey, policy, at=at, by=by, run_id=run_id, dry_run=request.dry_run)
        draft = _document(run_id, request, survey, plan, decisions, entries, at=at, by=by)
        state = (
            RunState.FINISHED
            if request.dry_run
            else RunState.QUEUED
            if request.background
            else RunState.RUNNING
        )
        run = WorkerRun.objects.create(
            run_id=run_id,
            dry_run=request.dry_run,
            state=state,
            requested_by=by,
            requested_at=at,
            finished_at=at if request.dry_run else None,
            lease_until=clock() + LEASE if state is RunState.RUNNING else None,
            request={**request.as_dict(), "entries": [entry.pk for entry in entries]},
            record_hash=draft.digest,
            selected_count=len(decisions) + len(entries),
            retry_set=RetrySet.objects.filter(set_id=request.set_id).first() if request.set_id else None,
        )
        ledger.append([plan, draft])
    return Started(run, draft, plan, decisions, entries)


def start_and_execute(request: RunRequest, *, by: Person, clock: Clock) -> Started:
    """Start a run and, unless it is dry or left to the worker, execute it within a request's time."""
    started = start(request, by=by, clock=clock)
    if request.dry_run or request.background:
        return started
    outcome = execute(started.run, clock=clock, seconds=REQUEST_S)
    started.run.refresh_from_db()
    return Started(started.run, started.record, started.plan, [], started.entries, outcome)


def take(run: WorkerRun, *, clock: Clock) -> None:
    """Begin a run that was left to the worker. Raises ``StaleState`` when somebody else did."""
    move(
        transitions.RUNS,
        run.pk,
        RunState.RUNNING,
        only_from=[RunState.QUEUED],
        detail="This run was taken already.",
        lease_until=clock() + LEASE,
    )


def execute(
    run: WorkerRun,
    *,
    clock: Clock,
    seconds: float,
    beat: Callable[[], None] = lambda: None,
    stopping: Callable[[], bool] = lambda: False,
) -> Pumped:
    """Execute the entries of a run that was taken. What does not fit into ``seconds`` stays approved.

    A run of the worker waits for its next slice then, unless nothing at all came of this one. ``beat`` is called
    now and then. Once ``stopping`` says so nothing more is claimed, and the run waits for the next worker.
    """
    renewed = time.monotonic()

    def still_here() -> None:
        nonlocal renewed
        beat()
        if time.monotonic() - renewed > LEASE.total_seconds() / 4:
            renewed = time.monotonic()
            # Given up meanwhile: what is claimed is recorded all the same.
            with suppress(StaleState):
                move(transitions.RUNS, run.pk, RunState.RUNNING, lease_until=clock() + LEASE)

    chosen = {entry.pk: entry for entry in approvals.entries().filter(pk__in=run.request["entries"])}
    # A run that goes on after its worker died claims nothing twice, not even what did not leave.
    claimed = set(Execution.objects.filter(run=run).values_list("entry_id", flat=True))
    entries = [chosen[pk] for pk in run.request["entries"] if pk in chosen and pk not in claimed]
    outcome = pump.run(
        entries,
        run,
        clock=clock,
        deadline=time.monotonic() + seconds,
        beat=still_here,
        stopping=stopping,
        ladder=Ladder(run) if run.request.get("canary") else None,
    )
    with suppress(StaleState):
        if outcome.left and (stopping() or _goes_on(run, outcome)):
            move(transitions.RUNS, run.pk, RunState.QUEUED, lease_until=None)
        else:
            move(
                transitions.RUNS, run.pk, RunState.FINISHED, finished_at=clocks.read(clock), lease_until=None
            )
    return outcome


def _goes_on(run: WorkerRun, outcome: Pumped) -> bool:
    """Whether a run has another slice: its time was up, and this slice came to something (else it would never end)."""
    said = outcome.recorded or any(skip.record for skip in outcome.skipped)
    return outcome.late and bool(said) and run.request["background"]


def execute_due(
    *, clock: Clock, beat: Callable[[], None] = lambda: None, stopping: Callable[[], bool] = lambda: False
) -> int:
    """Execute a slice of a run that was left to the worker. Returns of how many (0 or 1).

    The runs take turns: the one whose newest claim is the oldest has the next slice, a new one before it.
    """
    newest = Execution.objects.filter(run=OuterRef("pk")).order_by("-claimed_at").values("claimed_at")[:1]
    due = WorkerRun.objects.filter(state=RunState.QUEUED, request__background=True)
    turns = due.annotate(newest_claim=Subquery(newest)).order_by(
        F("newest_claim").asc(nulls_first=True), "requested_at"
    )
    run = turns.select_related("requested_by__owner").first()
    if run is None:
        return 0
    try:
        take(run, clock=clock)
    except StaleState:
        return 0  # Another worker took it first.
    if policies.reasons_against_role(run.requested_by, Permission.RUN_LIVE):
        # Who asked may not any more: nothing is claimed under that name, the approvals stay.
        move(transitions.RUNS, run.pk, RunState.FINISHED, finished_at=clocks.read(clock), lease_until=None)
    else:
        execute(run, clock=clock, seconds=SLICE_S, beat=beat, stopping=stopping)
    return 1


def expire_leases(*, clock: Clock, limit: int = 50) -> int:
    """Take runs back whose process died: the worker's go on, a request's are finished. Returns how many."""
    at = clocks.read(clock)
    given_up = 0
    for run in WorkerRun.objects.filter(state=RunState.RUNNING, lease_until__lt=clock())[:limit]:
        resumes = run.request["background"]
        try:
            move(
                transitions.RUNS,
                run.pk,
                RunState.QUEUED if resumes else RunState.FINISHED,
                only_from=[RunState.RUNNING],
                only_if={"lease_until": run.lease_until},
                lease_until=None,
                finished_at=None if resumes else at,
            )
        except StaleState:
            continue  # It is alive after all.
        given_up += 1
    return given_up


def _due(survey: Survey, request: RunRequest) -> list[Judgement]:
    due = [
        judgement
        for judgement in survey.judgements
        if judgement.action is RetryAction.RETRY
        and (not request.providers or judgement.case.connector.key in request.providers)
    ]
    return due[: request.max_retry_deliveries]


def _document(
    run_id: str,
    request: RunRequest,
    survey: Survey,
    plan: records.Draft,
    decisions: list[Judgement],
    entries: list[ApprovalEntry],
    *,
    at: datetime,
    by: Person,
) -> records.Draft:
    selected = (
        [judgement.as_dict() for judgement in decisions]
        if request.dry_run
        else [selected_entry(entry) for entry in entries]
    )
    follow_ups = _follow_ups(request, survey, decisions, entries)
    pending = sum(item["approval_state"] == "approval_required" for item in follow_ups)
    observed = plan.view["acknowledgement_audit_delivery_retry_plan"]
    return records.draft(
        WORKER_RUN,
        run_id,
        {
            "generated_at": records.timestamp(at),
            "generated_by": by.username,
            "dry_run": request.dry_run,
            "schedule": _schedule(request, at),
            "summary": {
                "retry_plan_count": 1,
                "retryable_count": survey.count(RetryAction.RETRY),
                "waiting_retry_count": survey.count(RetryAction.WAIT),
                "suppressed_retry_count": survey.count(RetryAction.SUPPRESS),
                "selected_retry_count": len(selected),
                "approval_pending_count": pending,
                "follow_up_action_count": len(follow_ups),
            },
            "retry_plan": observed,
            "selected_retries": selected,
            "follow_up_actions": follow_ups,
            "retryable_count": survey.count(RetryAction.RETRY),
            "selected_retry_count": len(selected),
            "follow_up_action_count": len(follow_ups),
            "suppressed_retry_count": survey.count(RetryAction.SUPPRESS),
            "set_id": request.set_id,
            "canary": request.canary,
            "request": request.as_dict(),
        },
        at=at,
        by=by,
        # The seal entry names some; the document names all of them, and each claim its own.
        cases=[item["case"] for item in selected][: records.MAX_CASES_PER_RECORD],
        references=[
            plan.reference,
            *attempts.case_references(judgement.case for judgement in decisions),
            *(reference for entry in entries for reference in approvals.entry_references(entry)),
        ],
        claimed_actor=request.claimed_actor,
    )


def selected_entry(entry: ApprovalEntry) -> dict[str, Any]:
    """An approved entry as a run lists it."""
    case = entry.case
    return {
        "case": case.case_id,
        "delivery_id": case.plan.delivery_id,
        "audit_id": case.package.audit_id,
        "provider": entry.connector.key,
        "attempt_no": entry.attempt_no,
        "action": RetryAction.RETRY.value,
        "retry_count": case.counted_attempts,
        "entry_id": entry.entry_id,
        "approval_plan_id": entry.plan.approval_plan_id,
        "retry_plan_id": entry.retry_plan.retry_plan_id,
        "manifest_digest": entry.manifest_digest,
        "next_retry_at": records.timestamp(entry.not_before),
        "execute_by": records.timestamp(entry.execute_by) if entry.execute_by else "",
    }


def _follow_ups(
    request: RunRequest, survey: Survey, decisions: list[Judgement], entries: list[ApprovalEntry]
) -> list[dict[str, Any]]:
    """What is to be done next for each due case: deliver, or get an approval first."""
    approved_cases = set(
        ApprovalEntry.objects.filter(
            state=EntryState.APPROVED, case__in=[judgement.case for judgement in survey.judgements]
        ).values_list("case_id", flat=True)
    )
    chosen = {judgement.case.pk for judgement in decisions} | {entry.case_id for entry in entries}
    actions = []
    for judgement in survey.judgements:
        case = judgement.case
        if request.dry_run:
            if case.pk not in chosen:
                continue
            action, state = "deliver_retry", "dry_run_not_required"
        elif case.pk in approved_cases:
            action, state = "deliver_retry", "approved"
        elif judgement.action is RetryAction.RETRY:
            action, state = "request_retry_approval", "approval_required"
        else:
            continue
        actions.append(
            {
                "action": action,
                "case": case.case_id,
                "provider": case.connector.key,
                "audit_id": case.package.audit_id,
                "delivery_id": case.plan.delivery_id,
                "reason": judgement.reason,
                "approval_state": state,
            }
        )
    return actions


def _schedule(request: RunRequest, at: datetime) -> dict[str, Any]:
    """The window a run falls into (CONTRACT §8.10): metadata, no timer hangs on it."""
    interval = request.interval_minutes
    start_minute = at.minute - at.minute % interval if interval < 60 else 0
    window_start = at.replace(minute=start_minute, second=0, microsecond=0)
    return {
        "interval_minutes": interval,
        "window_start": records.timestamp(window_start),
        "window_end": records.timestamp(window_start + timedelta(minutes=interval)),
        "enabled": request.schedule_enabled,
        "cadence": request.cadence or f"every_{interval}_minutes",
    }
