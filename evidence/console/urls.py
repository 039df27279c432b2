"""Addresses of the browser console and of signing in."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from evidence.console import more_urls, views

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
    path("console/theme/", views.theme, name="theme"),
    path("console/records/<str:record_id>/", views.record, name="record"),
    *more_urls.urlpatterns,
]
