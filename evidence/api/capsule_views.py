"""Capsules: a case frozen with its proofs, listed, and served as it was made."""

from collections.abc import Mapping
from typing import Any, cast

from django.http import HttpResponse
from django.utils.cache import get_conditional_response
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from evidence.api import fields
from evidence.api.bodies import Body
from evidence.api.history_views import ReadView, Timestamp
from evidence.api.schemas import Problem, answer, envelope, texts
from evidence.api.views import ACTOR, ID, ActView, case_by_id, stored_record
from evidence.documents import CASE_CAPSULE
from evidence.domain import capsules, history, records
from evidence.domain.clock import system_clock
from evidence.models import Case, Person
from evidence.permissions import Permission

# Capsules that a list shows, the newest of them; ``total`` says how many there are.
LISTED = 100


class CapsuleShown(serializers.Serializer):
    """A capsule without its bytes."""

    capsule_id = serializers.CharField()
    case = serializers.CharField(source="case_id")
    records = serializers.IntegerField(help_text="Records of the case that it holds or lists as erased.")
    log_size = serializers.IntegerField(help_text="Entries of the log under the head it is frozen at.")
    size = serializers.IntegerField(help_text="Bytes of the zip.")
    sha256 = serializers.CharField(help_text="SHA-256 of the zip, hex.")
    erased = serializers.BooleanField(help_text="Its bytes are gone, because a record in it was erased.")
    created_at = Timestamp()
    created_by = serializers.CharField(source="created_by.username")


class FreezeBody(Body):
    """What it is for; the case stands in the path."""

    generated_by = fields.CleanText()
    notes = fields.Notes()


_MADE = answer(
    "CapsuleAnswer",
    **CapsuleShown().fields,
    metadata=envelope(CASE_CAPSULE),
    actor=ACTOR,
    ignored_keys=texts(),
)
_LISTED = answer(
    "CapsuleList",
    schema_version=serializers.CharField(),
    product=serializers.CharField(),
    items=CapsuleShown(many=True),
    total=serializers.IntegerField(),
)


class CaseCapsules(ActView):
    """Capsules of a case: one more, or those there are."""

    permission = {
        "GET": Permission.READ_EVIDENCE,
        "HEAD": Permission.READ_EVIDENCE,
        "POST": Permission.EXPORT,
    }
    tag = "capsules"
    body_class = FreezeBody

    @extend_schema(
        operation_id="freeze_capsule",
        responses={200: _MADE, **dict.fromkeys((400, 401, 403, 404, 409, 503), Problem)},
    )
    def post(self, request: Request, **ids: str) -> Response:
        """Freeze the case at a signed head that covers everything recorded about it so far; a new capsule each time."""
        return super().post(request, **ids)

    def subject(self, **ids: str) -> Case:
        return case_by_id(ids["case"])

    def act(
        self, by: Person, subject: Case, sent: Mapping[str, Any], *, claimed_actor: str
    ) -> dict[str, Any]:
        made = capsules.freeze(
            subject, by=by, clock=system_clock, notes=sent["notes"], claimed_actor=claimed_actor
        )
        return {
            **CapsuleShown(made).data,
            "metadata": stored_record(history.by_id(made.capsule_id)),
        }

    @extend_schema(
        operation_id="capsules_of_case",
        request=None,
        responses={200: _LISTED, **dict.fromkeys((401, 403, 404), Problem)},
    )
    def get(self, request: Request, case: str) -> Response:
        """The newest hundred, newest first."""
        found = capsules.of_case(case_by_id(case).case_id)
        return Response(
            {
                "schema_version": "cavra.evidence.capsule-list.v1",
                "product": records.PRODUCT,
                "items": CapsuleShown(found[:LISTED], many=True).data,
                "total": found.count(),
            }
        )


class OneCapsule(ReadView):
    """The zip of a capsule: the same bytes for as long as nothing in it is erased."""

    tag = "capsules"
    permission = Permission.EXPORT

    @extend_schema(
        operation_id="capsule",
        responses={
            (200, "application/zip"): OpenApiTypes.BINARY,
            304: OpenApiResponse(description="Not changed."),
            **dict.fromkeys((401, 403, 404, 410), Problem),
        },
    )
    def get(self, request: Request, capsule_id: str) -> HttpResponse:
        """The bytes, with their SHA-256 as entity tag; 410 ``erased`` once a record in it was erased."""
        found = capsules.by_id(capsule_id if ID.fullmatch(capsule_id) else "")
        content = capsules.content_of(found, by=cast(Person, request.user))
        response = HttpResponse(
            content,
            content_type="application/zip",
            headers={
                "Content-Disposition": f'attachment; filename="{found.capsule_id}.zip"',
                "ETag": f'"{found.sha256}"',
                "Cache-Control": "private, no-cache",
            },
        )
        return get_conditional_response(request._request, etag=response["ETag"], response=response)  # type: ignore[return-value]
