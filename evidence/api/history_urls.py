"""Addresses of the reads of evidence. Names that begin with ``go_rollback_drill_`` are the contract's."""

from django.urls import path

from evidence.api import history_views as views
from evidence.api import ledger_views

B = "runtime/go-pilot/rollback-drill-notifications"

urlpatterns = [
    path(B, views.History.as_view(), name="go_rollback_drill_notification_history"),
    path(f"{B}/routes", views.Routes.as_view(), name="go_rollback_drill_notification_routes"),
    path("evidence", views.Evidence.as_view(), name="evidence"),
    path("evidence/<str:session_id>", views.EvidenceRecord.as_view(), name="evidence-record"),
    path("api/v1/records/<str:record_id>/bytes", views.RecordBytes.as_view(), name="record-bytes"),
    path("api/v1/records/<str:record_id>/seal", views.RecordSeal.as_view(), name="record-seal"),
    path("api/v1/records/<str:record_id>/proof", ledger_views.RecordProof.as_view(), name="record-proof"),
    path("api/v1/ledger/checkpoints", ledger_views.Checkpoints.as_view(), name="ledger-checkpoints"),
    path("api/v1/ledger/consistency", ledger_views.Consistency.as_view(), name="ledger-consistency"),
    path("api/v1/ledger/keys", ledger_views.Keys.as_view(), name="ledger-keys"),
    path("api/v1/ledger/anchors", ledger_views.Anchors.as_view(), name="ledger-anchors"),
    path("tlog/checkpoint", ledger_views.LogHead.as_view(), name="tlog-checkpoint"),
    path("tlog/tile/entries/<path:tile>", ledger_views.LogEntries.as_view(), name="tlog-entries"),
    path("tlog/tile/<str:level>/<path:tile>", ledger_views.LogTile.as_view(), name="tlog-tile"),
    path("api/v1/exports/history.jsonl", views.ExportJsonLines.as_view(), name="export-history-jsonl"),
    path("api/v1/exports/history.csv", views.ExportCsv.as_view(), name="export-history-csv"),
    path("api/v1/cases", views.Cases.as_view(), name="cases"),
    path("api/v1/cases/<str:case>", views.OneCase.as_view(), name="case"),
]
