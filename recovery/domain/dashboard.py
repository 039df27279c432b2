"""Numbers of the dashboard (CONTRACT §9): record counters, and gauges over state tables.

Counters say how many documents were ever written; gauges what is so now. Both cover everything, there is
no window (P15). One is not a counter alone: failed retries are the execution records that say failed without
those of tries of which nothing left, which are counted by their rows.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db.models import Count, F, QuerySet, Sum, Window
from django.db.models.functions import RowNumber

from evidence.documents import (
    AUDIT_PACKAGE,
    CONNECTOR_DELIVERY,
    DELIVERY_PLAN,
    KINDS,
    NOTIFICATION_ACK,
    NOTIFICATION_PLAN,
)
from evidence.domain import records
from evidence.enums import AlertLevel, CaseState, DeliverySource, RouteAction, RouteState
from evidence.models import Case, NotificationPlan, Record, RecordCounter, RecordKey, Route
from recovery.documents import (
    APPROVAL_DECISION,
    APPROVAL_PLAN,
    CLOSURE,
    EXECUTION_RECORD,
    PLAYBOOK,
    RETRY_ACK,
    RETRY_PLAN,
    WORKER_RUN,
)
from recovery.domain import retry_plans, retry_policies
from recovery.enums import EntryState, ExecutionState, RecoveryState, RetryAction
from recovery.models import ApprovalEntry, Execution, Recovery, WorkerRun

AUDIT = "acknowledgement_audit_delivery_"
SHOWN = 20
LATEST = 10


class Counters:
    """Record counters by kind and state, read in one query."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, int]] = {}
        for kind, state, count in RecordCounter.objects.values_list("kind", "state", "count"):
            self._counts.setdefault(kind, {})[state] = count

    def of(self, kind: str, *states: str) -> int:
        """Records of ``kind``, of all states or of those given."""
        counts = self._counts.get(kind, {})
        return sum(counts.get(state, 0) for state in states) if states else sum(counts.values())


def overview(at: datetime) -> dict[str, Any]:
    """The dashboard's answer at ``at``."""
    counters = Counters()
    outstanding, outstanding_count = _outstanding()
    gauges = _gauges(at)
    # A try of which nothing left has a record that says failed; it is no failed retry (P9).
    not_sent = Execution.objects.filter(state=ExecutionState.NOT_SENT).count()
    audit, notification = DeliverySource.AUDIT.value, DeliverySource.NOTIFICATION.value
    delivered, failed = (counters.of(CONNECTOR_DELIVERY.name, f"{audit}/{ok}") for ok in ("true", "false"))
    unsettled = gauges["unsettled"]
    return {
        "schema_version": "cavra.go-backend-pilot.rollback-drill-notification-dashboard.v1",
        "product": records.PRODUCT,
        "generated_at": records.timestamp(at),
        "alert_level": _alert_level(unsettled, outstanding_count, gauges),
        "plan_count": counters.of(NOTIFICATION_PLAN.name),
        "delivery_count": counters.of(CONNECTOR_DELIVERY.name),
        "notification_delivery_count": counters.of(
            CONNECTOR_DELIVERY.name, f"{notification}/true", f"{notification}/false"
        ),
        "failed_delivery_count": failed + counters.of(CONNECTOR_DELIVERY.name, f"{notification}/false"),
        "acknowledgement_count": counters.of(NOTIFICATION_ACK.name),
        "acknowledgement_audit_package_count": counters.of(AUDIT_PACKAGE.name),
        f"{AUDIT}plan_count": counters.of(DELIVERY_PLAN.name),
        f"{AUDIT}count": delivered + failed,
        "failed_acknowledgement_audit_delivery_count": failed,
        f"{AUDIT}success_count": delivered,
        f"{AUDIT}success_rate": round(delivered / (delivered + failed), 3) if delivered + failed else None,
        f"{AUDIT}providers": sorted(
            Case.objects.order_by().values_list("connector__key", flat=True).distinct()
        ),
        f"{AUDIT}health": (AlertLevel.CRITICAL if unsettled else AlertLevel.HEALTHY).value,
        f"{AUDIT}unsettled_count": unsettled,
        f"{AUDIT}retry_plan_count": counters.of(RETRY_PLAN.name, "false"),
        f"{AUDIT}retryable_count": gauges["retryable"],
        f"{AUDIT}retry_ack_count": counters.of(RETRY_ACK.name),
        f"{AUDIT}retry_execution_approval_plan_count": counters.of(APPROVAL_PLAN.name),
        f"{AUDIT}retry_execution_approval_decision_count": counters.of(APPROVAL_DECISION.name),
        f"{AUDIT}retry_execution_approved_count": counters.of(APPROVAL_DECISION.name, "approved"),
        f"{AUDIT}approval_pending_count": gauges["pending"],
        f"{AUDIT}retry_execution_approval_pending_count": gauges["pending"],
        f"{AUDIT}retry_execution_record_count": counters.of(EXECUTION_RECORD.name),
        f"{AUDIT}retry_execution_success_count": counters.of(EXECUTION_RECORD.name, "delivered"),
        f"{AUDIT}retry_execution_failed_count": counters.of(EXECUTION_RECORD.name, "failed") - not_sent,
        f"{AUDIT}retry_execution_skipped_count": counters.of(EXECUTION_RECORD.name, "skipped"),
        f"{AUDIT}retry_execution_unknown_count": gauges["unknown"],
        f"{AUDIT}connector_recovery_playbook_count": counters.of(PLAYBOOK.name),
        f"{AUDIT}connector_recovery_closure_count": counters.of(CLOSURE.name),
        f"{AUDIT}connector_recovery_closed_count": counters.of(CLOSURE.name, "resolved", "mitigated"),
        f"{AUDIT}connector_recovery_open_count": gauges["recoveries"],
        f"{AUDIT}worker_run_count": counters.of(WORKER_RUN.name),
        f"{AUDIT}worker_dry_run_count": counters.of(WORKER_RUN.name, "true"),
        f"{AUDIT}worker_executed_count": counters.of(WORKER_RUN.name, "false"),
        "outstanding_acknowledgement_count": outstanding_count,
        "outstanding_acknowledgements": outstanding,
        "latest": latest("history", "default"),
    }


def worker_overview(at: datetime) -> dict[str, Any]:
    """The worker dashboard's answer at ``at`` (CONTRACT §6)."""
    counters = Counters()
    retryable = _retryable(at)
    return {
        "schema_version": (
            "cavra.go-backend-pilot.rollback-drill-acknowledgement-audit-delivery-worker-dashboard.v1"
        ),
        "product": records.PRODUCT,
        "generated_at": records.timestamp(at),
        "alert_level": (AlertLevel.CRITICAL if retryable else AlertLevel.HEALTHY).value,
        "run_count": counters.of(WORKER_RUN.name),
        "dry_run_count": counters.of(WORKER_RUN.name, "true"),
        "executed_count": counters.of(WORKER_RUN.name, "false"),
        "retryable_count": retryable,
        "selected_retry_count": WorkerRun.objects.aggregate(sum=Sum("selected_count"))["sum"] or 0,
        "latest": latest("metadata_kind", WORKER_RUN.name),
    }


def latest(name: str, value: str) -> list[dict[str, Any]]:
    """The newest records that a search key finds, newest first."""
    keys = RecordKey.objects.filter(name=name, value=value).order_by("-created_at", "-record")[:LATEST]
    indexes = [key.record for key in keys]
    found = Record.objects.in_bulk(indexes)
    return [
        records.view(KINDS[found[index].kind], found[index].body, found[index].digest, index)
        for index in indexes
    ]


def _gauges(at: datetime) -> Mapping[str, int]:
    states = {
        row["state"]: row["count"]
        for row in Case.objects.filter(state__in=retry_plans.UNSETTLED)
        .values("state")
        .annotate(count=Count("pk"))
    }
    return {
        "unsettled": sum(states.values()),
        "unknown": states.get(CaseState.UNKNOWN, 0),
        "retryable": _retryable(at) if states else 0,
        "pending": ApprovalEntry.objects.filter(state=EntryState.PENDING).count(),
        "recoveries": Recovery.objects.exclude(
            state__in=[RecoveryState.RESOLVED, RecoveryState.REOPENED]
        ).count(),
    }


def _retryable(at: datetime) -> int:
    """Cases whose retry is due now under the configured policy; all of them, not the first two hundred."""
    policy = retry_policies.ceiling(retry_policies.configured())
    cases = Case.objects.filter(state=CaseState.FAILED)
    return sum(judgement.action is RetryAction.RETRY for judgement in retry_plans.judge(cases, policy, at))


def outstanding_routes() -> QuerySet[Route]:
    """Routes of each schedule's newest plan that nobody acknowledged or resolved."""
    place = Window(RowNumber(), partition_by=F("schedule"), order_by=[F("created_at").desc(), F("pk").desc()])
    newest = NotificationPlan.objects.annotate(place=place).filter(place=1).order_by().values("pk")
    answered = [RouteState.ACKNOWLEDGED, RouteState.RESOLVED]
    return Route.objects.filter(plan__in=newest, action=RouteAction.DELIVER).exclude(
        acknowledgement_state__in=answered
    )


def _outstanding() -> tuple[list[dict[str, str]], int]:
    """A few of the outstanding routes and their number."""
    routes = outstanding_routes()
    shown = [
        {
            "schedule_id": route.plan.schedule.schedule_id,
            "provider": route.provider,
            "plan_id": route.plan.plan_id,
            "owner": route.owner,
            "acknowledgement_state": route.acknowledgement_state,
        }
        for route in routes.select_related("plan__schedule").order_by("created_at", "route_id")[:SHOWN]
    ]
    return shown, routes.count()


def _alert_level(unsettled: int, outstanding: int, gauges: Mapping[str, int]) -> str:
    if unsettled or outstanding:
        return AlertLevel.CRITICAL.value
    return (AlertLevel.WARNING if gauges["recoveries"] or gauges["pending"] else AlertLevel.HEALTHY).value
