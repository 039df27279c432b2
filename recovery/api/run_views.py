"""Worker runs: started by a person, dry unless told otherwise (CONTRACT §6)."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from evidence.api import schemas
from evidence.api.history_views import RecordList
from evidence.api.views import ACTOR, ActView, ApiView, json_object, stored, stored_record
from evidence.documents import CONNECTOR_DELIVERY, DELIVERY_PLAN
from evidence.domain import policies, records
from evidence.domain.clock import system_clock
from evidence.models import Person
from evidence.permissions import Permission as EvidencePermission
from recovery.api import bodies
from recovery.api.dashboard_views import readable
from recovery.documents import EXECUTION_RECORD, RETRY_PLAN, WORKER_RUN
from recovery.domain import dashboard
from recovery.execution import runs
from recovery.execution.runs import Started
from recovery.execution.selection import RunRequest
from recovery.filtersets import WorkerRunFilter
from recovery.permissions import Permission

SKIPPED_DRY = "dry_run"
# Approved and not claimed: the run's time did not suffice.
LEFT_OVER = "run_time_exhausted"


class StartRun(ActView):
    """Start a worker run. A dry one shows what is due, a live one executes approved entries."""

    permission = Permission.RUN_DRY
    operation = "start_worker_run"
    tag = "worker"
    body_class = bodies.WorkerRunBody
    answer = schemas.answer(
        "WorkerRunAnswer",
        run=schemas.payload(WORKER_RUN),
        metadata=schemas.envelope(WORKER_RUN),
        retry_metadata=schemas.envelope(RETRY_PLAN),
        retry_results=serializers.ListField(
            child=schemas.answer(
                "RetryResult",
                case=serializers.CharField(),
                decision=serializers.DictField(),
                delivery_plan=schemas.nullable(schemas.payload(DELIVERY_PLAN)),
                plan_metadata=schemas.nullable(schemas.envelope(DELIVERY_PLAN)),
                delivery=schemas.nullable(schemas.payload(CONNECTOR_DELIVERY)),
                delivery_metadata=schemas.nullable(schemas.envelope(CONNECTOR_DELIVERY)),
                execution_record=schemas.nullable(schemas.payload(EXECUTION_RECORD)),
                execution_metadata=schemas.nullable(schemas.envelope(EXECUTION_RECORD)),
                skipped=serializers.CharField(allow_null=True),
                skip_reason=serializers.CharField(allow_blank=True),
            )
        ),
        run_state=serializers.CharField(),
        actor=ACTOR,
    )

    def post(self, request: Request, **ids: str) -> Response:
        # The role comes before the shape; which one is needed, only the body tells.
        if bodies.asks_live(json_object(request)):
            policies.require_role(cast(Person, request.user), Permission.RUN_LIVE)
        return super().post(request, **ids)

    def act(
        self, by: Person, subject: None, sent: Mapping[str, Any], *, claimed_actor: str
    ) -> dict[str, Any]:
        schedule = sent.get("schedule", {})
        cases = sent.get("cases")
        request = RunRequest(
            dry_run=bodies.is_dry(sent),
            policy=sent.get("retry_policy", {}),
            providers=sent["provider"],
            cases=None if cases is None else tuple(cases),
            max_retry_deliveries=sent["max_retry_deliveries"],
            timeout_s=float(sent["timeout_seconds"]),
            interval_minutes=schedule.get("interval_minutes", 60),
            schedule_enabled=schedule.get("enabled", True),
            cadence=schedule.get("cadence", ""),
            background=sent["background"],
            claimed_actor=claimed_actor,
        )
        started = runs.start_and_execute(request, by=by, clock=system_clock)
        run, plan = stored(started.record, started.plan)
        return {
            "run": run[WORKER_RUN.payload_key],
            "metadata": run,
            "retry_metadata": plan,
            "retry_results": results(started),
            "run_state": started.run.state,
        }


def results(started: Started) -> list[dict[str, Any]]:
    """What a run did about each case it selected, in the order of its selection."""
    listed: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (judgement.as_dict(), {"skipped": SKIPPED_DRY}) for judgement in started.decisions
    ]
    entries = {entry.pk: runs.selected_entry(entry) for entry in started.entries}
    outcome = started.outcome
    done: dict[int, dict[str, Any]] = {
        **{
            one.execution.entry_id: {"delivery": one.delivery, "execution": one.record}
            for one in outcome.recorded
        },
        **{
            skip.entry.pk: {"execution": skip.record, "skipped": skip.code.value, "skip_reason": skip.reason}
            for skip in outcome.skipped
        },
        **{entry.pk: {"skipped": LEFT_OVER} for entry in outcome.left},
    }
    listed += [(entries[pk], done[pk]) for pk in entries if pk in done]
    views = _views(
        *(decision["delivery_id"] for decision, _ in listed),
        *(
            draft.record_id
            for _, came in listed
            for draft in (came.get("delivery"), came.get("execution"))
            if draft
        ),
    )
    return [_result(decision, came, views) for decision, came in listed]


def _result(
    decision: dict[str, Any], came: Mapping[str, Any], views: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    plan = views.get(decision["delivery_id"])
    delivery, execution = (
        views[came[name].record_id] if came.get(name) else None for name in ("delivery", "execution")
    )
    return {
        "case": decision["case"],
        "decision": decision,
        # A retry keeps its delivery plan: what is sent again is what was planned then.
        "delivery_plan": plan and plan.get(DELIVERY_PLAN.payload_key),
        "plan_metadata": plan,
        "delivery": delivery and delivery[CONNECTOR_DELIVERY.payload_key],
        "delivery_metadata": delivery,
        "execution_record": execution and execution[EXECUTION_RECORD.payload_key],
        "execution_metadata": execution,
        "skipped": came.get("skipped"),
        "skip_reason": came.get("skip_reason", ""),
    }


def _views(*record_ids: str) -> dict[str, dict[str, Any]]:
    wanted: Iterable[str] = dict.fromkeys(record_ids)
    return {record_id: stored_record(record) for record_id, record in records.by_ids(list(wanted)).items()}


class WorkerRuns(RecordList):
    """Worker runs, newest first."""

    operation = "worker_runs"
    tag = "worker"
    filters = WorkerRunFilter
    schema_version = "cavra.go-backend-pilot.rollback-drill-acknowledgement-audit-delivery-worker-history.v1"
    answer = schemas.answer(
        "WorkerRuns",
        schema_version=serializers.CharField(),
        product=serializers.CharField(),
        items=serializers.ListField(child=schemas.envelope(WORKER_RUN)),
        total=serializers.IntegerField(),
        total_is_exact=serializers.BooleanField(),
        limit=serializers.IntegerField(),
        offset=serializers.IntegerField(),
        cursor=serializers.CharField(allow_null=True),
        ignored_keys=schemas.texts(),
    )


class WorkerDashboard(ApiView):
    """Numbers about worker runs."""

    permission = EvidencePermission.READ_DASHBOARD
    operation = "worker_dashboard"
    tag = "worker"
    answer = schemas.answer(
        "WorkerDashboard",
        schema_version=serializers.CharField(),
        product=serializers.CharField(),
        generated_at=serializers.CharField(),
        alert_level=serializers.CharField(),
        run_count=serializers.IntegerField(),
        dry_run_count=serializers.IntegerField(),
        executed_count=serializers.IntegerField(),
        retryable_count=serializers.IntegerField(),
        selected_retry_count=serializers.IntegerField(),
        latest=schemas.objects(),
    )

    def get(self, request: Request) -> Response:
        return Response(readable(request, dashboard.worker_overview(system_clock())))
