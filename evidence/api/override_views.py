"""What was let through past public safety: listed, and reviewed by somebody else (P18)."""

from collections.abc import Mapping
from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from evidence.api import fields, schemas
from evidence.api.bodies import Body
from evidence.api.history_views import CURSOR, page_answer
from evidence.api.lists import REFUSED, ListView
from evidence.api.views import ACTOR, ActView, stored_record
from evidence.documents import PUBLIC_SAFETY_REVIEW
from evidence.domain import history, overrides, text
from evidence.domain.clock import system_clock
from evidence.domain.overrides import Override
from evidence.enums import SafetyVerdict
from evidence.filtersets import OverrideFilter
from evidence.models import Person, Record
from evidence.permissions import Permission


class HitShown(serializers.Serializer):
    """Field and rule of what was let through; the text stands in the record alone."""

    field = serializers.CharField()
    rule = serializers.CharField()


class ReviewShown(serializers.Serializer):
    """What a second person said."""

    review_id = serializers.CharField()
    verdict = serializers.CharField()
    notes = serializers.CharField(allow_blank=True)
    reviewed_by = serializers.CharField()
    reviewed_at = serializers.CharField()


class OverrideShown(serializers.Serializer):
    """An override: who let what through, why, into which record, and what somebody else said about it."""

    override_id = serializers.CharField(source="record.record_id")
    ruleset = serializers.CharField(source="said.ruleset")
    overridden_kind = serializers.CharField(source="said.overridden_kind")
    overridden_record_id = serializers.CharField(source="said.overridden_record_id")
    hits = HitShown(source="said.hits", many=True)
    reason = serializers.CharField(source="said.reason")
    overridden_by = serializers.CharField(source="said.overridden_by")
    overridden_at = serializers.CharField(source="said.overridden_at")
    leaf_index = serializers.IntegerField(source="record.index")
    record_hash = serializers.CharField(source="record.digest")
    review = ReviewShown(allow_null=True)


class _Described(serializers.ListSerializer):
    """Reads what was said about a page of records at once."""

    def to_representation(self, data: Any) -> list[Any]:
        return super().to_representation(overrides.described(list(data)))


class Listed(OverrideShown):
    """A record of an override, in a list."""

    class Meta:
        list_serializer_class = _Described


class Overrides(ListView):
    """Overrides of public safety, newest first; ``reviewed=false`` are those that wait for a second person."""

    permission = Permission.REVIEW_OVERRIDES
    tag = "public safety"
    filters = OverrideFilter
    shown = Listed
    schema_version = "cavra.evidence.public-safety-override-list.v1"
    at = "created_at"

    @extend_schema(
        operation_id="public_safety_overrides",
        responses={200: page_answer("OverrideList", OverrideShown(many=True), **CURSOR), **REFUSED},
    )
    def get(self, request: Request) -> Response:
        """One page."""
        rows: QuerySet[Record] = overrides.overrides()
        return self.listed(request, rows)


class ReviewBody(Body):
    """POST /api/v1/public-safety/overrides/{override_id}/reviews."""

    refuses_unknown = True

    verdict = fields.StateField(SafetyVerdict)
    notes = fields.Notes(help_text="Needed for leak: what was done about it.")
    reviewed_by = fields.CleanText(limit=text.MAX_NAME)


class ReviewOverride(ActView):
    """Say, as a second person, whether what was let through was a false hit or a leak.

    What is called a leak is not let through any more. What holds it is erased by a proposal of its own.
    """

    permission = Permission.REVIEW_OVERRIDES
    operation = "review_public_safety_override"
    tag = "public safety"
    body_class = ReviewBody
    name_key = "reviewed_by"
    answer = schemas.answer(
        "OverrideReviewAnswer",
        override=OverrideShown(),
        metadata=schemas.envelope(PUBLIC_SAFETY_REVIEW),
        actor=ACTOR,
    )

    def subject(self, **ids: str) -> Record:
        return overrides.by_id(ids["override_id"])

    def act(
        self, by: Person, subject: Record, sent: Mapping[str, Any], *, claimed_actor: str
    ) -> dict[str, Any]:
        draft = overrides.review(
            subject,
            verdict=sent["verdict"],
            notes=sent["notes"],
            by=by,
            clock=system_clock,
            claimed_actor=claimed_actor,
        )
        (shown,) = overrides.described([subject])
        described: Override = shown
        return {
            "override": OverrideShown(described).data,
            "metadata": stored_record(history.by_id(draft.record_id)),
        }
