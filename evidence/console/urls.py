"""Addresses of the browser console and of signing in."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from evidence.console import (
    connector_views,
    deliver_views,
    erasure_views,
    find_views,
    ledger_views,
    override_views,
    route_views,
    views,
)

app_name = "console"

urlpatterns = [
    path(
        "accounts/login/",
        LoginView.as_view(template_name="evidence/sign_in.html", redirect_authenticated_user=True),
        name="login",
    ),
    path("accounts/logout/", LogoutView.as_view(), name="logout"),
    path("console/", views.overview, name="overview"),
    path("console/cases/", views.cases, name="cases"),
    path("console/cases/<str:case_id>/", views.case, name="case"),
    path("console/cases/<str:case_id>/stamp/", views.stamp, name="stamp"),
    path("console/cases/<str:case_id>/capsule/", views.freeze, name="freeze"),
    path("console/cases/<str:case_id>/connections/", views.connections, name="connections"),
    path("console/theme/", views.theme, name="theme"),
    path("console/records/<str:record_id>/", views.record, name="record"),
    path("console/records/<str:record_id>/erase/", erasure_views.propose, name="propose-erasure"),
    path("console/erasures/", erasure_views.index, name="erasures"),
    # No id of an erasure or a hold reads like these.
    path("console/erasures/hold/", erasure_views.place, name="place-hold"),
    path("console/erasures/holds/<str:hold_id>/lift/", erasure_views.lift, name="lift-hold"),
    path("console/erasures/rules/<str:kind>/confirm/", erasure_views.confirm_rule, name="confirm-rule"),
    path("console/erasures/<str:erasure_id>/decide/", erasure_views.decide, name="decide-erasure"),
    path("console/public-safety/", override_views.index, name="public-safety"),
    path("console/public-safety/<str:override_id>/review/", override_views.review, name="review-override"),
    path("console/access-log/", erasure_views.access_log, name="access-log"),
    path("console/routes/", route_views.routes, name="routes"),
    path("console/routes/answer/", route_views.answer, name="answer"),
    path("console/deliver/", deliver_views.deliver, name="deliver"),
    path("console/deliver/notify/", deliver_views.notify, name="notify"),
    path("console/deliver/audit/", deliver_views.send, name="send"),
    path("console/ledger/", ledger_views.ledger, name="ledger"),
    path("console/ledger/verification/", ledger_views.verification, name="verification"),
    path("console/ledger/verify/", ledger_views.verify, name="verify"),
    path("console/ledger/sign/", ledger_views.sign, name="sign"),
    path("console/ledger/heads/<int:pk>/", ledger_views.signed_head, name="signed_head"),
    path("console/ledger/keys/", ledger_views.public_keys, name="public_keys"),
    path("console/connectors/", connector_views.connectors, name="connectors"),
    path("console/connectors/<str:key>/", connector_views.connector, name="connector"),
    path("console/connectors/<str:key>/canary/", connector_views.canary, name="canary"),
    path("console/find/", find_views.find, name="find"),
]
