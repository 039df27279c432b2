"""What the service says about itself: what is served, whether it is well, and its OpenAPI document."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from csp.constants import SELF
from csp.decorators import csp_update
from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.db import connection
from django.http import HttpRequest, HttpResponseBase
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils.decorators import method_decorator
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework import serializers, status
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from evidence.api import schemas
from evidence.api.permissions import HasPermission
from evidence.api.renderers import JSONRenderer
from evidence.api.views import ApiView
from evidence.domain import health
from evidence.domain.clock import system_clock
from evidence.errors import NotFound
from evidence.models import Connector
from evidence.permissions import Permission

# URL names that begin so are the contract's own names (CONTRACT §1.1).
CONTRACT_NAME = "go_rollback_drill_"

# One converter or another: <str:schedule_id> is {schedule_id} in a template.
PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>")


class ConsoleConfig(ApiView):
    """Addresses that are served, by the contract's names, and how this service is set up."""

    permission = Permission.READ_DASHBOARD
    operation = "console_config"
    tag = "service"
    answer = schemas.answer(
        "ConsoleConfig",
        product=serializers.CharField(),
        profile=serializers.CharField(),
        endpoints=serializers.DictField(child=serializers.CharField()),
        connector_delivery=serializers.CharField(),
        approval_oidc=serializers.CharField(),
        approval_rbac=serializers.CharField(),
        metadata_mode=serializers.CharField(),
    )

    def get(self, request: Request) -> Response:
        return Response(
            {
                "product": "CAVRA",
                "profile": settings.CAVRA_PROFILE,
                "endpoints": dict(sorted(contract_endpoints())),
                "connector_delivery": (
                    "configured" if Connector.objects.filter(enabled=True).exists() else "disabled"
                ),
                "approval_oidc": "disabled",
                # Roles are always asked.
                "approval_rbac": "configured",
                "metadata_mode": connection.vendor,
            }
        )


def contract_endpoints() -> Iterator[tuple[str, str]]:
    """Contract name and path template of every endpoint that is served."""
    for name, route in _routes(get_resolver().url_patterns, "/"):
        if name.startswith(CONTRACT_NAME):
            yield name, PARAMETER.sub(r"{\1}", route)


def _routes(patterns: Sequence[URLPattern | URLResolver], prefix: str) -> Iterator[tuple[str, str]]:
    for one in patterns:
        route = prefix + str(one.pattern)
        if isinstance(one, URLResolver):
            yield from _routes(one.url_patterns, route)
        elif one.name:
            yield one.name, route


class Healthz(ApiView):
    """Alive: this process answers."""

    authentication_classes = ()
    permission_classes = (AllowAny,)
    operation = "healthz"
    tag = "service"
    answer = schemas.answer("Healthz", status=serializers.CharField())

    def get(self, request: Request) -> Response:
        return Response({"status": "ok"})


class Readyz(ApiView):
    """Ready: database, guards and worker. 503 names the checks that fail."""

    authentication_classes = ()
    permission_classes = (AllowAny,)
    operation = "readyz"
    tag = "service"
    answer = schemas.answer(
        "Readyz", status=serializers.CharField(), checks=serializers.DictField(child=serializers.CharField())
    )

    @extend_schema(responses={200: answer, 503: answer})
    def get(self, request: Request) -> Response:
        passed = health.checks(clock=system_clock)
        ready = all(passed.values())
        return Response(
            {
                "status": "ready" if ready else "not_ready",
                "checks": {name: "ok" if fine else "failed" for name, fine in passed.items()},
            },
            status=status.HTTP_200_OK if ready else status.HTTP_503_SERVICE_UNAVAILABLE,
        )


class UnknownPath(ApiView):
    """Anything below the API's roots that is not served: 401 for strangers, 404 for everybody else."""

    schema = None  # type: ignore[assignment]

    def unknown(self, request: Request, **kwargs: Any) -> Response:
        hint = " Paths have no trailing slash." if request.path.endswith("/") else ""
        raise NotFound(f"There is nothing at this address.{hint}")

    get = post = put = patch = delete = unknown


class Schema(SpectacularAPIView):
    """The OpenAPI document, YAML unless ``Accept`` asks for JSON."""

    permission = Permission.READ_DASHBOARD
    permission_classes = (HasPermission,)
    content_negotiation_class = DefaultContentNegotiation

    def handle_exception(self, exc: Exception) -> Response:
        # A refusal is JSON here too, whatever the document would have been.
        self.request.accepted_renderer = JSONRenderer()
        self.request.accepted_media_type = JSONRenderer.media_type
        return super().handle_exception(exc)


# Swagger UI's sheet draws its icons from data: addresses; scripts and styles stay our own files.
@method_decorator(csp_update({"img-src": [SELF, "data:"]}), name="dispatch")
class Docs(SpectacularSwaggerSplitView):
    """The same document as a page. Browsers that are not signed in are sent to sign in."""

    permission = Permission.READ_DASHBOARD
    permission_classes = (HasPermission,)
    url_name = "api_schema"
    template_name = "api/docs.html"

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not request.user.is_authenticated:
            return redirect_to_login(request.get_full_path())
        answer: HttpResponseBase = super().dispatch(request, *args, **kwargs)
        return answer
