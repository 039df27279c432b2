"""Addresses for who checks without us: signed heads, tiles, proofs and keys of the log, capsules, streams."""

from django.urls import path

from evidence.api import capsule_views, stream_views
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
    path("api/v1/connectors/<str:connector>/stream", stream_views.Stream.as_view(), name="connector-stream"),
    path("api/v1/cases/<str:case>/capsules", capsule_views.CaseCapsules.as_view(), name="case-capsules"),
    path("api/v1/capsules/<str:capsule_id>", capsule_views.OneCapsule.as_view(), name="capsule"),
    path("tlog/checkpoint", views.LogHead.as_view(), name="tlog-checkpoint"),
    path("tlog/tile/entries/<path:tile>", views.LogEntries.as_view(), name="tlog-entries"),
    path("tlog/tile/<str:level>/<path:tile>", views.LogTile.as_view(), name="tlog-tile"),
]
