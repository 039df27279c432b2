"""Erasing records by two people, legal holds, retention rules, and who read what (P24, P14)."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import django_filters
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from evidence.api import fields, schemas
from evidence.api.bodies import Body
from evidence.api.history_views import CURSOR, Timestamp, page_answer
from evidence.api.lists import REFUSED, ListView
from evidence.api.views import ACTOR, ActView, stored_record
from evidence.documents import ERASURE_PROPOSAL, LEGAL_HOLD
from evidence.domain import erasures, history, holds, retention, retention_terms, text
from evidence.domain.clock import system_clock
from evidence.domain.records import Draft
from evidence.enums import Access, ErasureState
from evidence.filtersets import AccessFilter, ErasureFilter, HoldFilter
from evidence.models import AccessLogEntry, Erasure, LegalHold, Person, RetentionRule
from evidence.permissions import Permission

# --- erasures -----------------------------------------------------------------------------------------------------


class ErasureItemShown(serializers.Serializer):
    """A record of an erasure."""

    record_id = serializers.CharField()
    kind = serializers.CharField()
    leaf_index = serializers.IntegerField(source="index")
    record_hash = serializers.CharField(source="digest")


class ErasureShown(serializers.Serializer):
    """An erasure: proposed, confirmed, refused, withdrawn, or carried out under a retention rule."""

    erasure_id = serializers.CharField()
    erasure_state = serializers.CharField(source="state")
    legal_basis = serializers.CharField()
    reason = serializers.CharField()
    retention_kind = serializers.CharField(source="rule.kind", default="")
    proposed_by = serializers.CharField(source="proposed_by.username", default="")
    proposed_at = Timestamp()
    decided_by = serializers.CharField(source="decided_by.username", default="")
    decided_at = Timestamp(allow_null=True)
    records = ErasureItemShown(source="items.all", many=True)


class ErasureBody(Body):
    """POST /api/v1/erasures."""

    refuses_unknown = True

    records = fields.TextList(limit=erasures.MOST, help_text="Ids of the records whose bytes are to go.")
    legal_basis = fields.CleanText(required=True)
    reason = fields.Notes(required=True)
    proposed_by = fields.CleanText(limit=text.MAX_NAME)


class ErasureDecisionBody(Body):
    """POST /api/v1/erasures/{erasure_id}/decisions."""

    refuses_unknown = True

    state = fields.StateField(
        ErasureState, words=(ErasureState.CONFIRMED, ErasureState.REFUSED, ErasureState.WITHDRAWN)
    )
    notes = fields.Notes(help_text="Needed for refused.")
    decided_by = fields.CleanText(limit=text.MAX_NAME)


class Erasures(ListView, ActView):
    """Erasures: listed, and proposed. Nothing goes before an auditor who is somebody else confirms."""

    permission: ClassVar[Mapping[str, str]] = {
        "GET": Permission.READ_EVIDENCE,
        "HEAD": Permission.READ_EVIDENCE,
        "POST": Permission.PROPOSE_ERASURE,
    }
    tag = "erasures"
    filters = ErasureFilter
    shown = ErasureShown
    schema_version = "cavra.evidence.erasure-list.v1"
    at = "proposed_at"
    body_class = ErasureBody
    name_key = "proposed_by"
    answer = schemas.answer(
        "ErasureProposalAnswer",
        erasure=ErasureShown(),
        metadata=schemas.envelope(ERASURE_PROPOSAL),
        actor=ACTOR,
    )

    @extend_schema(
        operation_id="erasures",
        responses={200: page_answer("ErasureList", ErasureShown(many=True), **CURSOR), **REFUSED},
    )
    def get(self, request: Request) -> Response:
        """One page."""
        return self.listed(request, erasures.erasures())

    @extend_schema(operation_id="propose_erasure")
    def post(self, request: Request, **ids: str) -> Response:
        """Propose that the bytes of some records go."""
        return super().post(request, **ids)

    def act(
        self, by: Person, subject: None, sent: Mapping[str, Any], *, claimed_actor: str
    ) -> dict[str, Any]:
        made = erasures.propose(
            sent["records"],
            sent["legal_basis"],
            sent["reason"],
            by=by,
            clock=system_clock,
            claimed_actor=claimed_actor,
        )
        return {
            "erasure": ErasureShown(made).data,
            "metadata": stored_record(history.by_id(made.proposal_id)),
        }


DECIDE: dict[ErasureState, Callable[..., Draft]] = {
    ErasureState.REFUSED: erasures.refuse,
    ErasureState.WITHDRAWN: erasures.withdraw,
}


class DecideErasure(ActView):
    """Confirm or refuse what somebody else proposed. Who proposed it may withdraw it.

    Confirming erases at once and for good; the answer is the record that says so.
    """

    permission = (Permission.CONFIRM_ERASURE, Permission.PROPOSE_ERASURE)
    operation = "decide_erasure"
    tag = "erasures"
    body_class = ErasureDecisionBody
    name_key = "decided_by"
    answer = schemas.answer(
        "ErasureAnswer", erasure=ErasureShown(), metadata=serializers.DictField(), actor=ACTOR
    )

    def subject(self, **ids: str) -> Erasure:
        return erasures.erasure_by_id(ids["erasure_id"])

    def act(
        self, by: Person, subject: Erasure, sent: Mapping[str, Any], *, claimed_actor: str
    ) -> dict[str, Any]:
        given: dict[str, Any] = {"by": by, "clock": system_clock, "claimed_actor": claimed_actor}
        decide = DECIDE.get(sent["state"])
        draft = (
            decide(subject, notes=sent["notes"], **given) if decide else erasures.confirm(subject, **given)
        )
        return {
            "erasure": ErasureShown(erasures.erasure_by_id(subject.erasure_id)).data,
            "metadata": stored_record(history.by_id(draft.record_id)),
        }


# --- legal holds --------------------------------------------------------------------------------------------------


class HoldShown(serializers.Serializer):
    """A legal hold."""

    hold_id = serializers.CharField()
    scope = serializers.CharField(help_text="* for everything, a case id or a record id.")
    reason = serializers.CharField()
    standing = serializers.SerializerMethodField()
    placed_by = serializers.CharField(source="placed_by.username")
    placed_at = Timestamp()
    lifted_by = serializers.CharField(source="lifted_by.username", default="")
    lifted_at = Timestamp(allow_null=True)

    def get_standing(self, hold: LegalHold) -> bool:
        """Whether nobody lifted it."""
        return hold.lifted_at is None


class HoldBody(Body):
    """POST /api/v1/legal-holds."""

    refuses_unknown = True

    scope = fields.CleanText(limit=90, required=True, help_text="* for everything, a case id or a record id.")
    reason = fields.Notes(required=True)


class LiftBody(Body):
    """POST /api/v1/legal-holds/{hold_id}/lift."""

    refuses_unknown = True

    reason = fields.Notes(required=True)


class Holds(ListView, ActView):
    """Legal holds: listed, and placed. What one covers is not erased."""

    permission: ClassVar[Mapping[str, str]] = {
        "GET": Permission.READ_EVIDENCE,
        "HEAD": Permission.READ_EVIDENCE,
        "POST": Permission.HOLD,
    }
    tag = "erasures"
    filters = HoldFilter
    shown = HoldShown
    schema_version = "cavra.evidence.legal-hold-list.v1"
    at = "placed_at"
    body_class = HoldBody
    answer = schemas.answer(
        "LegalHoldAnswer", legal_hold=HoldShown(), metadata=schemas.envelope(LEGAL_HOLD), actor=ACTOR
    )

    @extend_schema(
        operation_id="legal_holds",
        responses={200: page_answer("LegalHoldList", HoldShown(many=True), **CURSOR), **REFUSED},
    )
    def get(self, request: Request) -> Response:
        """One page."""
        return self.listed(request, holds.holds())

    @extend_schema(operation_id="place_legal_hold")
    def post(self, request: Request, **ids: str) -> Response:
        """Keep something from being erased."""
        return super().post(request, **ids)

    def act(
        self, by: Person, subject: None, sent: Mapping[str, Any], *, claimed_actor: str
    ) -> dict[str, Any]:
        hold = holds.place(sent["scope"], reason=sent["reason"], by=by, clock=system_clock)
        return {
            "legal_hold": HoldShown(hold).data,
            "metadata": stored_record(history.by_id(hold.hold_id)),
        }


class LiftHold(ActView):
    """End a legal hold. Nothing is erased by that."""

    permission = Permission.HOLD
    operation = "lift_legal_hold"
    tag = "erasures"
    body_class = LiftBody
    answer = schemas.answer("LegalHoldLiftAnswer", legal_hold=HoldShown(), actor=ACTOR)

    def subject(self, **ids: str) -> LegalHold:
        return holds.hold_by_id(ids["hold_id"])

    def act(
        self, by: Person, subject: LegalHold, sent: Mapping[str, Any], *, claimed_actor: str
    ) -> dict[str, Any]:
        hold = holds.lift(subject, reason=sent["reason"], by=by, clock=system_clock)
        return {"legal_hold": HoldShown(hold).data}


# --- retention ----------------------------------------------------------------------------------------------------


class RuleShown(serializers.Serializer):
    """How long records of a kind are kept."""

    kind = serializers.CharField()
    keep_days = serializers.IntegerField()
    legal_basis = serializers.CharField()
    enabled = serializers.BooleanField()
    in_force = serializers.SerializerMethodField()
    edited_by = serializers.CharField(source="edited_by.username", default="")
    edited_at = Timestamp(allow_null=True)
    confirmed_by = serializers.CharField(source="confirmed_by.username", default="")
    confirmed_at = Timestamp(allow_null=True)

    def get_in_force(self, rule: RetentionRule) -> bool:
        """Whether it acts: enabled, and confirmed as it stands."""
        return retention_terms.in_force(rule)


class NoBody(Body):
    """Nothing has to be said."""

    refuses_unknown = True


class ConfirmRule(ActView):
    """Put the terms of a retention rule in force, as an auditor who did not edit it."""

    permission = Permission.CONFIRM_ERASURE
    operation = "confirm_retention_rule"
    tag = "erasures"
    body_class = NoBody
    answer = schemas.answer("RetentionRuleAnswer", retention_rule=RuleShown(), actor=ACTOR)

    def subject(self, **ids: str) -> RetentionRule:
        return retention.rule_by_kind(ids["kind"])

    def act(
        self, by: Person, subject: RetentionRule, sent: Mapping[str, Any], *, claimed_actor: str
    ) -> dict[str, Any]:
        return {"retention_rule": RuleShown(retention.confirm(subject, by=by, clock=system_clock)).data}


# --- the access log -----------------------------------------------------------------------------------------------


class AccessShown(serializers.Serializer):
    """One read of evidence."""

    at = Timestamp()
    person_id = serializers.CharField()
    name = serializers.CharField()
    act = serializers.CharField(help_text=", ".join(Access))
    subject = serializers.CharField()
    subject_id = serializers.CharField()
    page = serializers.CharField(help_text="Name of the address that was read.")
    via = serializers.CharField()


class AccessEntries(ListView):
    """Who read which evidence, newest first. Kept for a time, and no evidence itself."""

    permission = Permission.READ_ACCESS_LOG
    operation = "access_log"
    tag = "access log"
    filters: ClassVar[type[django_filters.FilterSet]] = AccessFilter
    shown = AccessShown
    schema_version = "cavra.evidence.access-log.v1"
    at = "at"
    answer = page_answer("AccessLog", AccessShown(many=True), **CURSOR)

    def get(self, request: Request) -> Response:
        """One page."""
        return self.listed(request, AccessLogEntry.objects.all())
