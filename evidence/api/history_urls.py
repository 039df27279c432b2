"""Addresses of the reads of evidence. Names that begin with ``go_rollback_drill_`` are the contract's."""

from django.urls import path

from evidence.api import history_views as views

B = "runtime/go-pilot/rollback-drill-notifications"

urlpatterns = [
    path(B, views.History.as_view(), name="go_rollback_drill_notification_history"),
    path(f"{B}/routes", views.Routes.as_view(), name="go_rollback_drill_notification_routes"),
    path("evidence", views.Evidence.as_view(), name="evidence"),
    path("evidence/<str:session_id>", views.EvidenceRecord.as_view(), name="evidence-record"),
    path("api/v1/records/<str:record_id>/bytes", views.RecordBytes.as_view(), name="record-bytes"),
    path("api/v1/records/<str:record_id>/seal", views.RecordSeal.as_view(), name="record-seal"),
    path("api/v1/exports/history.jsonl", views.ExportJsonLines.as_view(), name="export-history-jsonl"),
    path("api/v1/exports/history.csv", views.ExportCsv.as_view(), name="export-history-csv"),
    path("api/v1/cases", views.Cases.as_view(), name="cases"),
    path("api/v1/cases/<str:case>", views.OneCase.as_view(), name="case"),
]
