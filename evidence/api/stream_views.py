"""A connector's stream for an integrator who compares by himself what arrived."""

from typing import Any

from django import forms
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from evidence.api.schemas import Problem, answer
from evidence.api.views import ID, ApiView, checked_query
from evidence.domain import records
from evidence.errors import NotFound
from evidence.models import Case, Connector, StreamHead
from evidence.permissions import Permission

# Places of one answer.
AT_MOST = 500
_PLACE: dict[str, Any] = {"required": False, "min_value": 1, "max_value": 2**53 - 1}


# Not a class statement: "from" is no name in Python.
PlacesForm = type(
    "PlacesForm", (forms.Form,), {name: forms.IntegerField(**_PLACE) for name in ("from", "to")}
)


class HeadShown(serializers.Serializer):
    """The log's head that the event quotes; its root is recomputed from the log's entries."""

    origin = serializers.CharField(source="head_origin")
    size = serializers.IntegerField(source="head_size")


class PlaceShown(serializers.Serializer):
    """One event's place; ``head`` and ``leaf_index`` are null for a case from before events quoted a head."""

    seq = serializers.IntegerField(source="stream_seq")
    previous = serializers.CharField(source="stream_prev")
    digest = serializers.CharField(source="stream_digest", help_text="SHA-256 of the event (RFC 8785).")
    case = serializers.CharField(source="case_id")
    state = serializers.CharField()
    leaf_index = serializers.SerializerMethodField()
    head = serializers.SerializerMethodField()

    def get_leaf_index(self, case: Case) -> int | None:
        """Where the log has the delivery plan."""
        return None if case.head_size is None else case.head_size - 1

    @extend_schema_field(HeadShown(allow_null=True))
    def get_head(self, case: Case) -> Any:
        """What the event quotes."""
        return None if case.head_size is None else HeadShown(case).data


class Stream(ApiView):
    """Places of a connector's stream in their order, without a gap: what its receiver should have."""

    permission = Permission.READ_EVIDENCE
    tag = "cases"

    @extend_schema(
        operation_id="connector_stream",
        parameters=[
            OpenApiParameter("from", OpenApiTypes.INT, description="First place; 1 unless told."),
            OpenApiParameter(
                "to", OpenApiTypes.INT, description=f"Last place; at most {AT_MOST} are given at once."
            ),
        ],
        responses={
            200: answer(
                "ConnectorStream",
                schema_version=serializers.CharField(),
                product=serializers.CharField(),
                connector=serializers.CharField(),
                newest=serializers.IntegerField(help_text="Newest place; 0 for a stream without any."),
                items=PlaceShown(many=True),
                next=serializers.IntegerField(
                    allow_null=True, help_text="Send it as from to read on; null when all was given."
                ),
                **{"from": serializers.IntegerField(), "to": serializers.IntegerField()},
            ),
            **dict.fromkeys((400, 401, 403, 404), Problem),
        },
    )
    def get(self, request: Request, connector: str) -> Response:
        """Some places."""
        row = Connector.objects.filter(key=connector).first() if ID.fullmatch(connector) else None
        if row is None:
            raise NotFound("There is no connector with this key.", code="connector_not_found")
        asked = checked_query(PlacesForm, request)
        head = StreamHead.objects.filter(connector=row).first()
        newest = head.seq if head else 0
        first = asked["from"] or 1
        wanted = min(asked["to"] or newest, newest)
        last = min(wanted, first + AT_MOST - 1)
        places = Case.objects.filter(connector=row, stream_seq__gte=first, stream_seq__lte=last)
        return Response(
            {
                "schema_version": "cavra.connector.stream.v1",
                "product": records.PRODUCT,
                "connector": row.key,
                "newest": newest,
                "from": first,
                "to": last,
                "items": PlaceShown(places.order_by("stream_seq"), many=True).data,
                "next": last + 1 if last < wanted else None,
            }
        )
