"""Addresses of the evidence app's API. Names that begin with ``go_rollback_drill_`` are the contract's."""

from django.urls import path

from evidence.api import delivery_views, drill_views, service_views

B = "runtime/go-pilot/rollback-drill-notifications"
A = f"{B}/acknowledgements/audit-delivery"

NAME = "go_rollback_drill_notification"

urlpatterns = [
    path(f"{B}/deliver", drill_views.Announce.as_view(), name=f"{NAME}s"),
    path(
        f"{B}/acknowledgements/bulk", drill_views.BulkAcknowledge.as_view(), name=f"{NAME}_bulk_acknowledge"
    ),
    path(
        f"{B}/acknowledgements/audit-package",
        delivery_views.FreezePackage.as_view(),
        name=f"{NAME}_acknowledgement_audit",
    ),
    path(A, delivery_views.Deliver.as_view(), name=f"{NAME}_acknowledgement_audit_delivery"),
    path(
        f"{B}/<str:schedule_id>/acknowledgements",
        drill_views.Acknowledge.as_view(),
        name=f"{NAME}_acknowledge",
    ),
    path("api/v1/cases/<str:case_id>/takeovers", delivery_views.TakeOver.as_view(), name="case-takeovers"),
    path("console/config", service_views.ConsoleConfig.as_view(), name="console_config"),
    path("healthz", service_views.Healthz.as_view(), name="healthz"),
    path("readyz", service_views.Readyz.as_view(), name="readyz"),
    path("api/schema", service_views.Schema.as_view(), name="api_schema"),
    path("api/docs", service_views.Docs.as_view(), name="api_docs"),
]
