"""Addresses of erasing, holding and of the access log."""

from django.urls import path

from evidence.api import erasure_views as views

urlpatterns = [
    path("api/v1/erasures", views.Erasures.as_view(), name="erasures"),
    path(
        "api/v1/erasures/<str:erasure_id>/decisions",
        views.DecideErasure.as_view(),
        name="erasure-decisions",
    ),
    path("api/v1/legal-holds", views.Holds.as_view(), name="legal-holds"),
    path("api/v1/legal-holds/<str:hold_id>/lift", views.LiftHold.as_view(), name="legal-hold-lift"),
    path(
        "api/v1/retention-rules/<str:kind>/confirmations",
        views.ConfirmRule.as_view(),
        name="retention-rule-confirmations",
    ),
    path("api/v1/access-log", views.AccessEntries.as_view(), name="access-log"),
]
