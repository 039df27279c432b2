"""Addresses of the pages about drills, connectors and the ledger; part of the console's own."""

from django.urls import path

from evidence.console import connector_views, deliver_views, find_views, ledger_views, route_views

urlpatterns = [
    path("console/routes/", route_views.routes, name="routes"),
    path("console/routes/answer/", route_views.answer, name="answer"),
    path("console/deliver/", deliver_views.deliver, name="deliver"),
    path("console/deliver/notify/", deliver_views.notify, name="notify"),
    path("console/deliver/audit/", deliver_views.send, name="send"),
    path("console/ledger/", ledger_views.ledger, name="ledger"),
    path("console/ledger/verification/", ledger_views.verification, name="verification"),
    path("console/ledger/verify/", ledger_views.verify, name="verify"),
    path("console/connectors/", connector_views.connectors, name="connectors"),
    path("console/find/", find_views.find, name="find"),
]
