"""Reading evidence: history, single records, cases, routes, exports. No GET writes anything (P14)."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar, NamedTuple

import django_filters
from django import forms
from django.conf import settings
from django.db.models import QuerySet
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import reverse
from django.utils.cache import get_conditional_response
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from evidence.api.bodies import shown
from evidence.api.schemas import AutoSchema, Problem, answer, objects, texts
from evidence.api.views import ID, ApiView, case_by_id, checked_query
from evidence.domain import clock, exports, history, records
from evidence.domain.history import Place
from evidence.enums import RouteAction, RouteState
from evidence.errors import Gone, InvalidInput, NotFound
from evidence.filtersets import (
    CaseFilter,
    EvidenceFilter,
    HistoryFilter,
    MomentField,
    PageForm,
    RouteFilter,
    RuleFilter,
)
from evidence.models import Case, Record, Route, SealEntry
from evidence.permissions import Permission

# --- what is asked for ------------------------------------------------------------------------------------------


class Asked(NamedTuple):
    """A checked query string: filters, the page, and parameters that mean nothing here."""

    filters: django_filters.FilterSet
    limit: int
    offset: int
    cursor: str
    ignored_keys: list[str]


class ReadSchema(AutoSchema):
    """Describes ``filters`` and ``paging`` of a view as query parameters."""

    def get_override_parameters(self) -> list[Any]:
        asked = _parameters(self.view) if self.method == "GET" else ()
        return [*super().get_override_parameters(), *asked]

    def get_response_serializers(self) -> Any:
        described = super().get_response_serializers()
        if not isinstance(described, dict):
            return described
        missing = {404: Problem} if "{" in self.path else {}
        return {**described, **({400: Problem} if _parameters(self.view) else {}), **missing}


class ReadView(ApiView):
    """A GET. ``filters`` and ``paging`` say what its query string may hold; anything wrong is 400 by its name."""

    permission: ClassVar[str | Mapping[str, str]] = Permission.READ_EVIDENCE
    schema = ReadSchema()
    tag = "history"
    filters: ClassVar[type[django_filters.FilterSet]] = django_filters.FilterSet
    # Names of ``PageForm`` that this list takes.
    paging: ClassVar[tuple[str, ...]] = ()

    def asked(self, request: Request, rows: "QuerySet[Any] | None" = None) -> Asked:
        """The query string, checked; ``rows`` is what a filter set over a model narrows."""
        sent = request.query_params
        filters = self.filters(sent, queryset=Record.objects.none() if rows is None else rows)
        page = PageForm({name: sent[name] for name in self.paging if name in sent})
        known = {*self.filters.base_filters, *self.paging}
        errors = {name: ["Is given more than once."] for name in known if len(sent.getlist(name)) > 1}
        for form in (filters.form, page):
            errors |= {name: [str(sentence) for sentence in found] for name, found in form.errors.items()}
        if errors:
            name, sentences = min(errors.items())
            raise InvalidInput(f"{name}: {sentences[0]}", errors=errors)
        return Asked(
            filters,
            limit=page.cleaned_data["limit"] or history.DEFAULT_LIMIT,
            offset=page.cleaned_data["offset"] or 0,
            cursor=page.cleaned_data["cursor"],
            ignored_keys=[shown(name) for name in sent if name not in known],
        )


def _parameters(view: Any) -> Iterator[OpenApiParameter]:
    for name, one in view.filters.base_filters.items():
        moment = issubclass(one.field_class, MomentField)
        yield OpenApiParameter(
            name,
            OpenApiTypes.DATETIME if moment else OpenApiTypes.STR,
            description=one.extra["help_text"],
            enum=one.choices if isinstance(one, RuleFilter) and one.choices else None,
        )
    for name in view.paging:
        field = PageForm.base_fields[name]
        number = isinstance(field, forms.IntegerField)
        yield OpenApiParameter(
            name, OpenApiTypes.INT if number else OpenApiTypes.STR, description=str(field.help_text)
        )


# --- history ----------------------------------------------------------------------------------------------------


def page_answer(name: str, items: Any, **more: Any) -> serializers.Serializer[Any]:
    """The answer of a paged list of ``items``."""
    return answer(
        name,
        schema_version=serializers.CharField(),
        product=serializers.CharField(),
        items=items,
        total=serializers.IntegerField(help_text=f"Counted up to {history.EXACT_UP_TO}."),
        total_is_exact=serializers.BooleanField(),
        limit=serializers.IntegerField(),
        ignored_keys=texts(),
        **more,
    )


_OFFSET = {"offset": serializers.IntegerField()}
CURSOR = {"cursor": serializers.CharField(allow_null=True, help_text="Continues; null at the end.")}


class RecordList(ReadView):
    """Records, newest first. ``offset`` reaches 10,000 records, ``cursor`` all of them."""

    paging = ("limit", "offset", "cursor")
    schema_version: ClassVar[str]

    def get(self, request: Request) -> Response:
        """One page."""
        asked = self.asked(request)
        found = history.page(
            asked.filters.query,
            limit=asked.limit,
            offset=asked.offset,
            cursor=asked.cursor,
        )
        return Response(
            {
                "schema_version": self.schema_version,
                "product": records.PRODUCT,
                "items": found.items,
                "total": found.total,
                "total_is_exact": found.total_is_exact,
                "limit": asked.limit,
                "offset": asked.offset,
                "cursor": found.cursor or None,
                "ignored_keys": asked.ignored_keys,
            }
        )


class History(RecordList):
    """The history of the chain (CONTRACT §9): the contract's kinds, newest first.

    ``include=all``, or naming a kind, shows the kinds of this service too.
    """

    operation = "history"
    filters = HistoryFilter
    schema_version = "cavra.go-backend-pilot.rollback-drill-notification-history.v1"
    answer = page_answer("History", objects(), **_OFFSET, **CURSOR)


class Evidence(RecordList):
    """Records of every kind, newest first (CONTRACT §1.4)."""

    operation = "evidence"
    filters = EvidenceFilter
    schema_version = "cavra.evidence.metadata-list.v1"
    answer = page_answer("EvidenceList", objects(), **_OFFSET, **CURSOR)


class EvidenceRecord(ReadView):
    """One record, for reading; what proves something are its exact bytes."""

    operation = "evidence_record"
    answer = answer(
        "EvidenceRecord",
        session_id=serializers.CharField(),
        metadata_kind=serializers.CharField(),
        created_at=serializers.CharField(),
        record_hash=serializers.CharField(),
        leaf_index=serializers.IntegerField(),
    )

    def get(self, request: Request, session_id: str) -> Response:
        """The record as history shows it."""
        return Response(history.envelope(found_record(session_id)))


_BYTES = {(200, "application/json"): OpenApiTypes.OBJECT, 304: OpenApiResponse(description="Not changed.")}


class RecordBytes(ReadView):
    """Exactly the bytes that are stored; their SHA-256 is the record's hash."""

    tag = "records"

    @extend_schema(
        operation_id="record_bytes",
        responses={**_BYTES, 401: Problem, 403: Problem, 404: Problem, 410: Problem},
    )
    def get(self, request: Request, record_id: str) -> HttpResponse:
        """The record's bytes, with its hash in ``X-Record-Hash`` and as entity tag."""
        record = found_record(record_id)
        if record.body is None:
            raise Gone("The bytes of this record were erased; its seal entry stays.", code="erased")
        return _exact(request, record.body, record.digest, {"X-Record-Hash": record.digest})


class RecordSeal(ReadView):
    """Exactly the bytes of the seal entry: the leaf of the log that commits to the record."""

    tag = "records"

    @extend_schema(operation_id="record_seal", responses={**_BYTES, 401: Problem, 403: Problem, 404: Problem})
    def get(self, request: Request, record_id: str) -> HttpResponse:
        """The entry's bytes; SHA-256 of a zero byte and these is ``X-Leaf-Hash`` (RFC 9162, section 2.1.1)."""
        record = found_record(record_id)
        seal = SealEntry.objects.get(index=record.index)
        leaf_hash = bytes(seal.leaf_hash).hex()
        headers = {
            "X-Record-Hash": record.digest,
            "X-Leaf-Hash": leaf_hash,
            "X-Leaf-Index": str(record.index),
        }
        return _exact(request, seal.entry, leaf_hash, headers)


def found_record(record_id: str) -> Record:
    """The record that an address names; ``NotFound`` when there is none."""
    if not ID.fullmatch(record_id):
        raise NotFound("There is no record with this id.", code="record_not_found")
    return history.by_id(record_id)


def _exact(request: Request, data: bytes | memoryview, tag: str, headers: dict[str, str]) -> HttpResponse:
    """Stored bytes as they are. They never change, so the tag alone decides whether they travel again."""
    response = HttpResponse(bytes(data), content_type="application/json", headers=headers)
    response["ETag"] = f'"{tag}"'
    response["Cache-Control"] = "private, no-cache"
    return get_conditional_response(request._request, etag=response["ETag"], response=response)  # type: ignore[return-value]


# --- exports ----------------------------------------------------------------------------------------------------


class Export(ReadView):
    """Everything that the filters of the history find at this moment, as a file that is written while it is read."""

    tag = "exports"
    permission = Permission.EXPORT
    filters = HistoryFilter
    content_type: ClassVar[str]
    extension: ClassVar[str]

    def write(self, found: Iterable[Record]) -> Iterator[bytes]:
        """The file, piece by piece."""
        raise NotImplementedError

    def stream(self, request: Request) -> StreamingHttpResponse:
        """The file as an answer."""
        asked = self.asked(request)
        # Which page was looked at means nothing here, so that a query of the history can be copied.
        if unknown := [name for name in asked.ignored_keys if name not in PageForm.base_fields]:
            # A mistyped filter would take away more than was meant.
            raise InvalidInput(
                f"{unknown[0]}: There is no such filter.",
                code="unknown_keys",
                errors={name: ["There is no such filter."] for name in unknown},
            )
        name = f"cavra-history-{clock.system_clock():%Y%m%dT%H%M%SZ}.{self.extension}"
        return StreamingHttpResponse(
            self.write(history.stream(asked.filters.query)),
            content_type=self.content_type,
            headers={
                "Content-Disposition": f'attachment; filename="{name}"',
                "Cache-Control": "private, no-store",
                "X-Cavra-Profile": settings.CAVRA_PROFILE,
            },
        )


class ExportJsonLines(Export):
    """The history as JSON lines: one record a line, as history shows it, with the profile beside it."""

    content_type = "application/x-ndjson"
    extension = "jsonl"

    @extend_schema(
        operation_id="export_history_jsonl",
        responses={(200, content_type): OpenApiTypes.STR, 400: Problem, 401: Problem, 403: Problem},
    )
    def get(self, request: Request) -> StreamingHttpResponse:
        """The file."""
        return self.stream(request)

    def write(self, found: Iterable[Record]) -> Iterator[bytes]:
        return exports.json_lines(found, profile=settings.CAVRA_PROFILE)


class ExportCsv(Export):
    """The history as a table: one record a row, one column for each filter."""

    content_type = "text/csv; charset=utf-8"
    extension = "csv"

    @extend_schema(
        operation_id="export_history_csv",
        responses={(200, "text/csv"): OpenApiTypes.STR, 400: Problem, 401: Problem, 403: Problem},
    )
    def get(self, request: Request) -> StreamingHttpResponse:
        """The file."""
        return self.stream(request)

    def write(self, found: Iterable[Record]) -> Iterator[bytes]:
        return exports.csv_rows(found, profile=settings.CAVRA_PROFILE)


# --- cases ------------------------------------------------------------------------------------------------------


class Timestamp(serializers.DateTimeField):
    """A time as every answer writes it (CONTRACT, row "timestamps")."""

    def to_representation(self, value: datetime | None) -> str | None:  # type: ignore[override]
        return None if value is None else records.timestamp(value)


class CaseSummary(serializers.Serializer):
    """A case: one delivery plan to one connector."""

    case = serializers.CharField(source="case_id")
    delivery_id = serializers.CharField(source="plan.delivery_id")
    audit_id = serializers.CharField(source="package.audit_id")
    provider = serializers.CharField(source="connector.key")
    provider_product = serializers.CharField(source="connector.product")
    state = serializers.CharField()
    settled = serializers.SerializerMethodField()
    settled_at = Timestamp(allow_null=True)
    attempt_count = serializers.IntegerField()
    counted_attempts = serializers.IntegerField(
        help_text="Attempts that left the building; limits count these."
    )
    last_outcome_at = Timestamp(allow_null=True)
    created_at = Timestamp()
    created_by = serializers.CharField(
        source="created_by.username",
        help_text="Who asked for the first attempt, or took it over while it was parked.",
    )

    def get_settled(self, case: Case) -> bool:
        """Whether nothing is left to do."""
        return case.settled_at is not None


class AttemptShown(serializers.Serializer):
    """What came of one numbered try."""

    attempt_id = serializers.CharField()
    attempt_no = serializers.IntegerField(source="number")
    outcome = serializers.CharField()
    answer = serializers.CharField()
    assurance = serializers.CharField()
    may_have_arrived = serializers.BooleanField()
    failure_class = serializers.CharField()
    status_code = serializers.IntegerField(allow_null=True)
    tries = serializers.IntegerField()
    bytes_sent = serializers.IntegerField()
    body_sha256 = serializers.CharField()
    answer_sha256 = serializers.CharField()
    retry_after_s = serializers.IntegerField(allow_null=True)
    started_at = Timestamp()
    completed_at = Timestamp()
    session_id = serializers.CharField(source="record_id")
    record_hash = serializers.CharField()
    answer_excerpt = serializers.CharField(
        source="receiver_answer.excerpt",
        default="",
        help_text="Beginning of the receiver's answer; kept for a while.",
    )


class ChainLinkShown(serializers.Serializer):
    """A record about a case, at place ``n`` of the case's chain."""

    n = serializers.IntegerField()
    id = serializers.CharField(source="record.record_id")
    kind = serializers.CharField(source="record.kind")
    hash = serializers.CharField(source="record.digest")
    leaf_index = serializers.IntegerField(source="record.index")
    at = Timestamp(source="record.created_at")
    href = serializers.SerializerMethodField()

    def get_href(self, link: history.ChainLink) -> str:
        """Where the record is read."""
        return reverse("evidence-record", args=[link.record.record_id])


class CaseDetail(CaseSummary):
    """A case with its attempts and its records in chain order."""

    attempts = AttemptShown(many=True, source="tries_shown")
    records = ChainLinkShown(many=True, source="chain_shown")
    records_cursor = serializers.IntegerField(
        allow_null=True, help_text="Send it as after to read on; null at the end of the chain."
    )


_CASES = Case.objects.select_related("plan", "package", "connector", "created_by")


class Cases(ReadView):
    """Cases, newest first."""

    operation = "cases"
    tag = "cases"
    filters = CaseFilter
    paging = ("limit", "cursor")
    answer = page_answer("CaseList", CaseSummary(many=True), **CURSOR)

    def get(self, request: Request) -> Response:
        """One page."""
        asked = self.asked(request, _CASES.order_by("-pk"))
        matching = asked.filters.qs
        total, exact = history.capped_count(matching)
        if asked.cursor:
            matching = matching.filter(pk__lt=_case_place(asked.cursor))
        found = list(matching[: asked.limit + 1])
        shown_cases = found[: asked.limit]
        more = len(found) > asked.limit
        return Response(
            {
                "schema_version": "cavra.evidence.case-list.v1",
                "product": records.PRODUCT,
                "items": CaseSummary(shown_cases, many=True).data,
                "total": total,
                "total_is_exact": exact,
                "limit": asked.limit,
                "cursor": Place(shown_cases[-1].created_at, shown_cases[-1].pk).cursor if more else None,
                "ignored_keys": asked.ignored_keys,
            }
        )


def _case_place(cursor: str) -> int:
    """Key of the last case of the previous page; cases are listed in the order of their making."""
    return Place.of(cursor).index


class ChainForm(forms.Form):
    """Which part of a case's chain."""

    after = forms.IntegerField(required=False, min_value=0, max_value=2**31 - 1)
    limit = forms.IntegerField(required=False, min_value=1, max_value=history.MAX_LIMIT)


class OneCase(ReadView):
    """A case with its attempts, what the receiver answered, and its records in chain order."""

    tag = "cases"

    @extend_schema(
        operation_id="case",
        parameters=[
            OpenApiParameter(
                "after", OpenApiTypes.INT, description="Records behind this place of the chain."
            ),
            OpenApiParameter(
                "limit", OpenApiTypes.INT, description=f"Records, 1 to {history.MAX_LIMIT} (default)."
            ),
        ],
        responses={200: CaseDetail, **dict.fromkeys((400, 401, 403, 404), Problem)},
    )
    def get(self, request: Request, case: str) -> Response:
        """The case; ``after`` and ``limit`` page through a long chain."""
        row = case_by_id(case, among=_CASES)
        asked = checked_query(ChainForm, request)
        limit = asked["limit"] or history.MAX_LIMIT
        chain = history.chain_of(row.case_id, after=asked["after"] or 0, limit=limit + 1)
        row.tries_shown = row.attempts.select_related("receiver_answer").order_by("number")  # type: ignore[attr-defined]
        row.chain_shown = chain[:limit]  # type: ignore[attr-defined]
        row.records_cursor = chain[limit - 1].n if len(chain) > limit else None  # type: ignore[attr-defined]
        return Response(CaseDetail(row).data)


# --- routes -----------------------------------------------------------------------------------------------------


class RouteShown(serializers.Serializer):
    """Who was to be told about a drill, the latest answer, and how long it has been waited for."""

    route_id = serializers.CharField()
    schedule_id = serializers.CharField(source="plan.schedule.schedule_id")
    plan_id = serializers.CharField(source="plan.plan_id")
    provider = serializers.CharField()
    owner = serializers.CharField()
    escalation_owner = serializers.CharField()
    action = serializers.CharField()
    category = serializers.CharField()
    reason = serializers.CharField()
    created_at = Timestamp()
    acknowledgement_state = serializers.CharField()
    acknowledgement_id = serializers.CharField()
    acknowledged = serializers.SerializerMethodField()
    acknowledged_by = serializers.CharField(source="acknowledged_by.username", default="")
    acknowledged_at = Timestamp(allow_null=True)
    external_ref = serializers.CharField()
    acknowledgement_minutes = serializers.IntegerField()
    due_at = serializers.SerializerMethodField()
    age_minutes = serializers.SerializerMethodField()
    breached = serializers.SerializerMethodField()

    def get_acknowledged(self, route: Route) -> bool:
        """Whether the owner has taken it on."""
        return route.acknowledgement_state in (RouteState.ACKNOWLEDGED, RouteState.RESOLVED)

    def get_due_at(self, route: Route) -> str:
        """Until when an answer was asked for."""
        return records.timestamp(_due_at(route))

    def get_age_minutes(self, route: Route) -> int:
        """Whole minutes from the notice to its answer, or until now."""
        return (self._until(route) - route.created_at) // timedelta(minutes=1)

    def get_breached(self, route: Route) -> bool:
        """Whether an owner who was told let the time pass, up to the answer or until now."""
        return route.action == RouteAction.DELIVER and self._until(route) > _due_at(route)

    def _until(self, route: Route) -> datetime:
        """When the wait ended. Outstanding and escalated routes are still waiting."""
        if route.acknowledgement_state in (RouteState.OUTSTANDING, RouteState.ESCALATED):
            return max(self.context["now"], route.created_at)
        return route.acknowledged_at or route.created_at


def _due_at(route: Route) -> datetime:
    return route.created_at + timedelta(minutes=route.acknowledgement_minutes)


class Routes(ReadView):
    """Routes of every notification plan, newest first, with their state and age."""

    operation = "routes"
    filters = RouteFilter
    paging = ("limit", "offset")
    answer = page_answer("RouteList", RouteShown(many=True), **_OFFSET)

    def get(self, request: Request) -> Response:
        """One page."""
        rows = Route.objects.select_related("plan__schedule", "acknowledged_by").order_by(
            "-created_at", "-pk"
        )
        asked = self.asked(request, rows)
        matching = asked.filters.qs
        total, exact = history.capped_count(matching)
        found = matching[asked.offset : asked.offset + asked.limit]
        return Response(
            {
                "schema_version": "cavra.go-backend-pilot.rollback-drill-notification-routes.v1",
                "product": records.PRODUCT,
                "items": RouteShown(found, many=True, context={"now": clock.system_clock()}).data,
                "total": total,
                "total_is_exact": exact,
                "limit": asked.limit,
                "offset": asked.offset,
                "ignored_keys": asked.ignored_keys,
            }
        )
