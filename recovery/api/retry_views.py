"""Planning a retry, reviewing it, asking for approval and deciding (CONTRACT §4, §5)."""

from collections.abc import Mapping
from typing import Any

from rest_framework import serializers

from evidence.api import schemas
from evidence.api.permissions import HasPermission
from evidence.api.views import ACTOR, ActView, stored
from evidence.domain.clock import system_clock
from evidence.errors import NotFound
from evidence.models import Person
from recovery.api import bodies
from recovery.api.permissions import InteractiveWhenStrict, signature
from recovery.documents import APPROVAL_DECISION, APPROVAL_PLAN, RETRY_ACK, RETRY_PLAN
from recovery.domain import approval_plans, approvals, renewals, retry_plans
from recovery.domain.approvals import Ballot
from recovery.domain.retry_plans import Review
from recovery.enums import ApprovalState
from recovery.models import ApprovalEntry, ApprovalPlan, RetryPlan
from recovery.permissions import Permission


class PlanRetries(ActView):
    """Decide about unsettled cases: retry, wait or suppress. Nothing is sent."""

    permission = Permission.PLAN_RETRY
    operation = "plan_retries"
    tag = "retries"
    body_class = bodies.RetryPlanBody
    answer = schemas.answer(
        "RetryPlanAnswer",
        plan=schemas.payload(RETRY_PLAN),
        metadata=schemas.envelope(RETRY_PLAN),
        actor=ACTOR,
        ignored_keys=schemas.texts(),
    )

    def act(
        self, by: Person, subject: None, sent: Mapping[str, Any], *, claimed_actor: str
    ) -> dict[str, Any]:
        draft = retry_plans.plan(
            sent.get("retry_policy", {}),
            by=by,
            clock=system_clock,
            cases=sent.get("cases"),
            claimed_actor=claimed_actor,
        )
        (metadata,) = stored(draft)
        return {"plan": metadata[RETRY_PLAN.payload_key], "metadata": metadata}


class AcknowledgeRetry(ActView):
    """Say that a planned retry was reviewed. The newest state counts."""

    permission = Permission.ACKNOWLEDGE_RETRY
    operation = "acknowledge_retry"
    tag = "retries"
    body_class = bodies.RetryAckBody
    name_key = "acknowledged_by"
    answer = schemas.answer(
        "RetryAcknowledgementAnswer",
        acknowledgement=schemas.payload(RETRY_ACK),
        metadata=schemas.envelope(RETRY_ACK),
        case=serializers.CharField(),
        actor=ACTOR,
        ignored_keys=schemas.texts(),
    )

    def subject(self, **ids: str) -> RetryPlan:
        return retry_plans.plan_by_id(ids["retry_plan_id"])

    def act(
        self, by: Person, subject: RetryPlan, sent: Mapping[str, Any], *, claimed_actor: str
    ) -> dict[str, Any]:
        review = Review(
            provider=sent["provider"],
            state=sent["acknowledgement_state"],
            delivery_id=sent["delivery_id"],
            audit_id=sent["audit_id"],
            external_ref=sent["external_ref"],
            notes=sent["notes"],
            claimed_actor=claimed_actor,
        )
        (metadata,) = stored(retry_plans.acknowledge(subject, review, by=by, clock=system_clock))
        return {
            "acknowledgement": metadata[RETRY_ACK.payload_key],
            "metadata": metadata,
            "case": metadata["case"],
        }


class RequestApproval(ActView):
    """Ask a second person to approve retries: each entry freezes exactly what would be sent."""

    permission = Permission.REQUEST_APPROVAL
    operation = "request_approval"
    tag = "approvals"
    body_class = bodies.ApprovalPlanBody
    answer = schemas.answer(
        "ApprovalPlanAnswer",
        plan=schemas.payload(APPROVAL_PLAN),
        metadata=schemas.envelope(APPROVAL_PLAN),
        actor=ACTOR,
        ignored_keys=schemas.texts(),
    )

    def act(
        self, by: Person, subject: None, sent: Mapping[str, Any], *, claimed_actor: str
    ) -> dict[str, Any]:
        draft = approval_plans.request(
            by=by,
            clock=system_clock,
            require_retry_ack=sent.get("approval_policy", {}).get("require_retry_ack", True),
            cases=sent.get("cases"),
            reason=sent["reason"],
            claimed_actor=claimed_actor,
        )
        (metadata,) = stored(draft)
        return {"plan": metadata[APPROVAL_PLAN.payload_key], "metadata": metadata}


class Decide(ActView):
    """Vote on one entry. Who asked for it may take it back by denying it."""

    permission = (Permission.DECIDE, Permission.REQUEST_APPROVAL)
    permission_classes = (HasPermission, InteractiveWhenStrict)
    operation = "decide"
    tag = "approvals"
    body_class = bodies.DecisionBody
    name_key = "decided_by"
    answer = schemas.answer(
        "DecisionAnswer",
        decision=schemas.payload(APPROVAL_DECISION),
        metadata=schemas.envelope(APPROVAL_DECISION),
        case=serializers.CharField(),
        actor=ACTOR,
    )

    def subject(self, **ids: str) -> ApprovalPlan:
        return approvals.plan_by_id(ids["approval_plan_id"])

    def act(
        self, by: Person, subject: ApprovalPlan, sent: Mapping[str, Any], *, claimed_actor: str
    ) -> dict[str, Any]:
        entry = approvals.entry_of(
            subject, provider=sent["provider"], delivery_id=sent["delivery_id"], audit_id=sent["audit_id"]
        )
        ballot = Ballot(
            state=sent["approval_state"],
            manifest_digest=sent["manifest_digest"],
            retry_plan_id=sent["retry_plan_id"],
            external_ref=sent["external_ref"],
            notes=sent["notes"],
            reason_code=sent["reason_code"],
            claimed_actor=claimed_actor,
            **signature(self.request),
        )
        draft = approvals.decide(entry, ballot, by=by, clock=system_clock)
        (metadata,) = stored(draft)
        # A withdrawal is a document of its own kind under the same key of the answer.
        decision = {"decision_id": draft.record_id, **metadata[draft.kind.payload_key]}
        return {"decision": decision, "metadata": metadata, "case": metadata["case"]}


class Renew(ActView):
    """Ask again for what ran out, with the same content and new clocks, and approve it in one act."""

    permission = Permission.DECIDE
    permission_classes = (HasPermission, InteractiveWhenStrict)
    operation = "renew"
    tag = "approvals"
    body_class = bodies.RenewalBody
    name_key = "decided_by"
    answer = schemas.answer(
        "RenewalAnswer",
        plan=schemas.payload(APPROVAL_PLAN),
        plan_metadata=schemas.envelope(APPROVAL_PLAN),
        decision=schemas.payload(APPROVAL_DECISION),
        metadata=schemas.envelope(APPROVAL_DECISION),
        case=serializers.CharField(),
        actor=ACTOR,
    )

    def subject(self, **ids: str) -> ApprovalEntry:
        entry = approvals.entries().filter(entry_id=ids["entry_id"]).first()
        if entry is None:
            raise NotFound("There is no approval entry with this id.", code="entry_not_found")
        return entry

    def act(
        self, by: Person, subject: ApprovalEntry, sent: Mapping[str, Any], *, claimed_actor: str
    ) -> dict[str, Any]:
        ballot = Ballot(
            state=ApprovalState.APPROVED,
            manifest_digest=sent["manifest_digest"],
            external_ref=sent["external_ref"],
            notes=sent["notes"],
            reason_code=sent["reason_code"],
            claimed_actor=claimed_actor,
            **signature(self.request),
        )
        plan, vote = stored(*renewals.renew([subject], ballot, by=by, clock=system_clock))
        return {
            "plan": plan[APPROVAL_PLAN.payload_key],
            "plan_metadata": plan,
            "decision": vote[APPROVAL_DECISION.payload_key],
            "metadata": vote,
            "case": vote["case"],
        }
