"""Addresses of what was let through past public safety."""

from django.urls import path

from evidence.api import override_views as views

urlpatterns = [
    path("api/v1/public-safety/overrides", views.Overrides.as_view(), name="public-safety-overrides"),
    path(
        "api/v1/public-safety/overrides/<str:override_id>/reviews",
        views.ReviewOverride.as_view(),
        name="public-safety-reviews",
    ),
]
