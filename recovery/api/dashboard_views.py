"""The dashboard (CONTRACT §9)."""

from typing import Any, cast

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from evidence.api import schemas
from evidence.api.views import ApiView
from evidence.documents import KINDS
from evidence.domain import policies
from evidence.domain.clock import system_clock
from evidence.models import Person
from evidence.permissions import Permission
from recovery.domain import dashboard

AUDIT = "acknowledgement_audit_delivery_"

# Every number of the dashboard, without "_count"; a test compares the list with the answer.
COUNTED = (
    "plan",
    "delivery",
    "notification_delivery",
    "failed_delivery",
    "acknowledgement",
    "acknowledgement_audit_package",
    "acknowledgement_audit_delivery",
    "failed_acknowledgement_audit_delivery",
    "outstanding_acknowledgement",
)
AUDIT_COUNTED = (
    "plan",
    "success",
    "unsettled",
    "retry_plan",
    "retryable",
    "retry_ack",
    "retry_execution_approval_plan",
    "retry_execution_approval_decision",
    "retry_execution_approved",
    "approval_pending",
    "retry_execution_approval_pending",
    "retry_execution_record",
    "retry_execution_success",
    "retry_execution_failed",
    "retry_execution_skipped",
    "retry_execution_unknown",
    "connector_recovery_playbook",
    "connector_recovery_closure",
    "connector_recovery_closed",
    "connector_recovery_open",
    "worker_run",
    "worker_dry_run",
    "worker_executed",
)


class Dashboard(ApiView):
    """Numbers over the whole ledger and the open state."""

    permission = Permission.READ_DASHBOARD
    operation = "dashboard"
    tag = "history"
    answer = schemas.answer(
        "Dashboard",
        schema_version=serializers.CharField(),
        product=serializers.CharField(),
        generated_at=serializers.CharField(),
        alert_level=serializers.CharField(),
        acknowledgement_audit_delivery_success_rate=serializers.FloatField(allow_null=True),
        acknowledgement_audit_delivery_providers=schemas.texts(),
        acknowledgement_audit_delivery_health=serializers.CharField(),
        outstanding_acknowledgements=schemas.objects(),
        latest=schemas.objects(),
        **{
            f"{name}_count": serializers.IntegerField()
            for name in (*COUNTED, *(AUDIT + name for name in AUDIT_COUNTED))
        },
    )

    def get(self, request: Request) -> Response:
        return Response(readable(request, dashboard.overview(system_clock())))


def readable(request: Request, overview: dict[str, Any]) -> dict[str, Any]:
    """The overview; its latest records without their documents for who may only see numbers (P22)."""
    if policies.reasons_against_role(cast(Person, request.user), Permission.READ_EVIDENCE):
        overview["latest"] = [
            {key: value for key, value in item.items() if key != KINDS[item["metadata_kind"]].payload_key}
            for item in overview["latest"]
        ]
    return overview
