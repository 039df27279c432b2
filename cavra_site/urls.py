"""Every address of the product, by surface."""

from django.contrib import admin
from django.urls import include, path, re_path

from cavra_site import problems
from evidence.api.service_views import UnknownPath

handler400 = problems.handler400
handler403 = problems.handler403
handler404 = problems.handler404
handler500 = problems.handler500

urlpatterns = [
    path("", include("evidence.api.urls")),
    path("", include("evidence.api.history_urls")),
    path("", include("evidence.api.ledger_urls")),
    path("", include("evidence.api.erasure_urls")),
    path("", include("evidence.api.connector_urls")),
    path("", include("evidence.api.override_urls")),
    path("", include("recovery.api.urls")),
    path("", include("recovery.console.urls")),
    path("", include("evidence.console.urls")),
    path("admin/", admin.site.urls),
    # Last: what is not served below the API's roots answers like the rest of the API.
    re_path(r"^(?:runtime|api|evidence|tlog)(?:/|$)", UnknownPath.as_view()),
]
