"""Addresses of connectors: how they do, and testing them."""

from django.urls import path

from evidence.api import connector_views as views

urlpatterns = [
    path("api/v1/connectors", views.Connectors.as_view(), name="connectors"),
    path("api/v1/connectors/<str:connector>", views.OneConnector.as_view(), name="connector"),
    path("api/v1/connectors/<str:connector>/canary", views.SendCanary.as_view(), name="connector-canary"),
]
