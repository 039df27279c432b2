"""Addresses of the recovery app's API. Names that begin with ``go_rollback_drill_`` are the contract's."""

from django.urls import path

from evidence.api.urls import NAME, A, B
from recovery.api import (
    dashboard_views,
    disposition_views,
    reconciliation_views,
    recovery_views,
    retry_views,
    run_views,
    statement_views,
    step_views,
)

CHAIN = f"{NAME}_acknowledgement_audit_delivery"

urlpatterns = [
    path(f"{A}/retry-plan", retry_views.PlanRetries.as_view(), name=f"{CHAIN}_retry_plan"),
    path(
        f"{A}/retry-plans/<str:retry_plan_id>/acknowledgements",
        retry_views.AcknowledgeRetry.as_view(),
        name=f"{CHAIN}_retry_acknowledge",
    ),
    path(
        f"{A}/retry-execution-approval-plan",
        retry_views.RequestApproval.as_view(),
        name=f"{CHAIN}_retry_execution_approval_plan",
    ),
    path(
        f"{A}/retry-execution-approval-plans/<str:approval_plan_id>/decisions",
        retry_views.Decide.as_view(),
        name=f"{CHAIN}_retry_execution_approval_decide",
    ),
    path(
        "api/v1/approval-entries/<str:entry_id>/renewals",
        retry_views.Renew.as_view(),
        name="entry-renewals",
    ),
    path(f"{A}/worker-run", run_views.StartRun.as_view(), name=f"{CHAIN}_worker"),
    path(f"{A}/worker-runs", run_views.WorkerRuns.as_view(), name=f"{CHAIN}_workers"),
    path(f"{A}/worker-dashboard", run_views.WorkerDashboard.as_view(), name=f"{CHAIN}_worker_dashboard"),
    path(
        f"{A}/connector-recovery-playbook",
        recovery_views.GeneratePlaybook.as_view(),
        name=f"{CHAIN}_connector_recovery_playbook",
    ),
    path(
        f"{A}/connector-recovery-playbooks/<str:playbook_id>/closures",
        recovery_views.CloseRecovery.as_view(),
        name=f"{CHAIN}_connector_recovery_close",
    ),
    path(
        "api/v1/cases/<str:case_id>/attestations",
        reconciliation_views.Attest.as_view(),
        name="case-attestations",
    ),
    path(
        "api/v1/cases/<str:case_id>/inquiries",
        reconciliation_views.Ask.as_view(),
        name="case-inquiries",
    ),
    path(
        "api/v1/executions/<str:execution_id>/reconcile",
        reconciliation_views.Reconcile.as_view(),
        name="execution-reconcile",
    ),
    path(
        "api/v1/cases/<str:case_id>/dispositions",
        disposition_views.ProposeDisposition.as_view(),
        name="case-dispositions",
    ),
    path(
        "api/v1/dispositions/<str:disposition_id>/decisions",
        disposition_views.DecideDisposition.as_view(),
        name="disposition-decisions",
    ),
    path(
        "api/v1/recoveries/<str:provider>/steps/<str:step_key>",
        step_views.TickStep.as_view(),
        name="recovery-step",
    ),
    path(
        "api/v1/statements/retries",
        statement_views.RetryStatement.as_view(),
        name="retry-statement",
    ),
    path(f"{B}/dashboard", dashboard_views.Dashboard.as_view(), name=f"{NAME}_dashboard"),
]
