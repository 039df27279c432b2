"""Statements: what the records say about a period."""

from django.conf import settings
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from evidence.api import schemas
from evidence.api.history_views import ReadView
from evidence.domain.clock import system_clock
from recovery.domain import proofs
from recovery.filtersets import PeriodFilter


class RetryStatement(ReadView):
    """The live retries of a period, who approved each before it was claimed, and approvals that were not used.

    Computed from stored records up to the ledger's size in the answer. Every number has its list.
    """

    operation = "retry_statement"
    tag = "statements"
    filters = PeriodFilter
    answer = schemas.answer(
        "RetryStatement",
        schema_version=serializers.CharField(),
        product=serializers.CharField(),
        profile=serializers.CharField(),
        generated_at=serializers.CharField(),
        period=serializers.DictField(child=serializers.CharField()),
        ledger=schemas.answer(
            "RetryStatementLedger",
            origin=serializers.CharField(),
            epoch=serializers.IntegerField(),
            size=serializers.IntegerField(),
            root=serializers.CharField(help_text="Root hash of the log of this size, hex."),
        ),
        numbers=schemas.answer(
            "RetryStatementNumbers",
            **{name: serializers.IntegerField(help_text=meaning) for name, meaning in proofs.NUMBERS.items()},
        ),
        meaning=serializers.DictField(child=serializers.CharField()),
        lists=schemas.answer(
            "RetryStatementLists",
            **{name: schemas.texts() for name in proofs.NUMBERS},
        ),
        retries=schemas.objects(),
        unused_approvals=schemas.objects(),
        records_not_readable=schemas.objects(),
        ignored_keys=schemas.texts(),
    )

    @extend_schema(
        parameters=[
            OpenApiParameter(name, OpenApiTypes.DATETIME, required=True, description=one.extra["help_text"])
            for name, one in PeriodFilter.base_filters.items()
        ]
    )
    def get(self, request: Request) -> Response:
        """The statement; 400 for a period with more retries than one statement looks at."""
        asked = self.asked(request)
        period = asked.filters.form.cleaned_data
        statement = proofs.retries(period["from"], period["to"], at=system_clock())
        return Response(
            {**statement.as_dict(profile=settings.CAVRA_PROFILE), "ignored_keys": asked.ignored_keys}
        )
