"""Addresses of the log for who checks it: signed heads, tiles, proofs, keys."""

from django.urls import path

from evidence.api import ledger_views as views

urlpatterns = [
    path("api/v1/records/<str:record_id>/proof", views.RecordProof.as_view(), name="record-proof"),
    path("api/v1/ledger/checkpoints", views.Checkpoints.as_view(), name="ledger-checkpoints"),
    path("api/v1/ledger/consistency", views.Consistency.as_view(), name="ledger-consistency"),
    path("api/v1/ledger/keys", views.Keys.as_view(), name="ledger-keys"),
    path("api/v1/ledger/anchors", views.Anchors.as_view(), name="ledger-anchors"),
    path(
        "api/v1/ledger/anchors/<str:anchor_id>/proof", views.AnchorProof.as_view(), name="ledger-anchor-proof"
    ),
    path("tlog/checkpoint", views.LogHead.as_view(), name="tlog-checkpoint"),
    path("tlog/tile/entries/<path:tile>", views.LogEntries.as_view(), name="tlog-entries"),
    path("tlog/tile/<str:level>/<path:tile>", views.LogTile.as_view(), name="tlog-tile"),
]
