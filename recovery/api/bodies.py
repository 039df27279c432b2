"""Request bodies of the recovery endpoints (CONTRACT §4 to §7, §10): shapes, no rules."""

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from rest_framework import serializers

from evidence.api import fields
from evidence.api.bodies import Body
from evidence.domain import text
from recovery.enums import ApprovalState, ClosureState, DispositionKind, DispositionState, RetryAckState, Seen
from recovery.execution.selection import MAX_IN_BACKGROUND, MAX_PER_RUN

A_YEAR_IN_MINUTES = 366 * 24 * 60
A_YEAR_IN_HOURS = 366 * 24
MAX_REASON_CODE = 40


class RetryPolicyBody(Body):
    """What a caller may tighten; only the keys that were given are in the result."""

    refuses_unknown = True
    aliases = {
        "max_retries": "max_retry_attempts",
        "delay_minutes": "retry_delay_minutes",
        "multiplier": "backoff_multiplier",
    }

    max_retry_attempts = fields.WholeNumber(low=1, high=10, required=False)
    allow_immediate_retry = fields.StrictBoolean(refuse_null=True, required=False)
    retry_delay_minutes = fields.WholeNumber(low=0, high=10_080, required=False)
    backoff_multiplier = fields.Number(low="1", high="10", required=False)


class RetryPlanBody(Body):
    """POST {A}/retry-plan."""

    generated_by = fields.CleanText(limit=text.MAX_NAME)
    retry_policy = RetryPolicyBody(required=False)
    cases = fields.CaseList()


class RetryAckBody(Body):
    """POST {A}/retry-plans/{retry_plan_id}/acknowledgements."""

    provider = fields.ConnectorKey(required=True)
    acknowledged_by = fields.CleanText(limit=text.MAX_NAME)
    acknowledgement_state = fields.StateField(RetryAckState, default=RetryAckState.ACCEPTED)
    delivery_id = fields.CleanText()
    audit_id = fields.CleanText()
    external_ref = fields.ExternalRef()
    notes = fields.Notes()


class ApprovalPolicyBody(Body):
    """Whether a retry has to be acknowledged before it may be approved."""

    refuses_unknown = True

    require_retry_ack = fields.StrictBoolean(refuse_null=True, default=True)


class ApprovalPlanBody(Body):
    """POST {A}/retry-execution-approval-plan."""

    generated_by = fields.CleanText(limit=text.MAX_NAME)
    approval_policy = ApprovalPolicyBody(required=False)
    cases = fields.CaseList()
    reason = fields.Notes()


class SignedBody(Body):
    """A vote: bound to the digest of what the approver was shown, which the strict profile asks for."""

    refuses_unknown = True

    manifest_digest = fields.Digest(help_text="What the approver was shown; needed in the strict profile.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if settings.CAVRA_PROFILE == "strict" and not attrs["manifest_digest"]:
            raise serializers.ValidationError(
                {"manifest_digest": "Present the digest of what you were shown."}
            )
        return attrs


class DecisionBody(SignedBody):
    """POST {A}/retry-execution-approval-plans/{approval_plan_id}/decisions."""

    aliases = {"approved_by": "decided_by"}

    provider = fields.ConnectorKey(required=True)
    delivery_id = fields.CleanText(required=True)
    audit_id = fields.CleanText(required=True)
    decided_by = fields.CleanText(limit=text.MAX_NAME)
    approval_state = fields.StateField(ApprovalState, default=ApprovalState.APPROVED)
    retry_plan_id = fields.CleanText()
    reason_code = fields.CleanText(limit=MAX_REASON_CODE)
    external_ref = fields.ExternalRef()
    notes = fields.Notes()


class RenewalBody(SignedBody):
    """POST /api/v1/approval-entries/{entry_id}/renewals; ``manifest_digest`` is the lapsed request's."""

    decided_by = fields.CleanText(limit=text.MAX_NAME)
    reason_code = fields.CleanText(limit=MAX_REASON_CODE)
    external_ref = fields.ExternalRef()
    notes = fields.Notes()


class RunScheduleBody(Body):
    """How a run is labelled; no timer hangs on it."""

    refuses_unknown = True
    aliases = {"schedule_interval_minutes": "interval_minutes"}

    interval_minutes = fields.WholeNumber(low=1, high=A_YEAR_IN_MINUTES, default=60)
    enabled = fields.StrictBoolean(default=True)
    cadence = fields.CleanText()


class WorkerRunBody(Body):
    """POST {A}/worker-run. Live only with ``"dry_run": false`` or ``"execute": true`` (P9)."""

    refuses_unknown = True

    dry_run = fields.StrictBoolean(refuse_null=True, required=False)
    execute = fields.StrictBoolean(refuse_null=True, required=False)
    generated_by = fields.CleanText(limit=text.MAX_NAME)
    retry_policy = RetryPolicyBody(required=False)
    schedule = RunScheduleBody(required=False)
    max_retry_deliveries = fields.WholeNumber(low=1, high=MAX_IN_BACKGROUND, default=5)
    provider = fields.ProviderList()
    cases = fields.CaseList()
    retries = fields.WholeNumber(
        low=0, high=5, default=0, help_text="For first deliveries only; a retry is one request."
    )
    timeout_seconds = fields.Number(low="0.1", high="30", default=10)
    background = fields.StrictBoolean(default=False, help_text="true: the worker command executes it.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if contradicts_itself(attrs):
            raise serializers.ValidationError(
                {"execute": [serializers.ErrorDetail("Contradicts dry_run.", code="contradiction")]}
            )
        if not attrs["background"] and attrs["max_retry_deliveries"] > MAX_PER_RUN:
            raise serializers.ValidationError(
                {
                    "max_retry_deliveries": f"At most {MAX_PER_RUN}; a larger run is left to the worker (background)."
                }
            )
        return attrs


def contradicts_itself(sent: Mapping[str, Any]) -> bool:
    """Whether ``dry_run`` and ``execute`` are both given and say the opposite of each other."""
    return sent.get("dry_run") is sent.get("execute") is not None


def asks_live(data: Mapping[str, Any]) -> bool:
    """Whether a body that nobody has checked asks for a live run in so many words.

    Not when one of its two words is no boolean or they contradict each other: those are faults of shape.
    """
    words = {key: data[key] for key in ("dry_run", "execute") if key in data}
    well_formed = all(isinstance(word, bool) for word in words.values())
    return well_formed and not contradicts_itself(words) and not is_dry(words)


def is_dry(sent: Mapping[str, Any]) -> bool:
    """Dry unless the body says live in so many words."""
    return bool(sent.get("dry_run", not sent.get("execute", False)))


class AttestationBody(Body):
    """POST /api/v1/cases/{case_id}/attestations and /api/v1/executions/{execution_id}/reconcile."""

    refuses_unknown = True

    seen = fields.StateField(Seen)
    external_ref = fields.ExternalRef(required=True)
    notes = fields.Notes()
    attested_by = fields.CleanText(limit=text.MAX_NAME)


class InquiryBody(Body):
    """POST /api/v1/cases/{case_id}/inquiries."""

    refuses_unknown = True

    asked_by = fields.CleanText(limit=text.MAX_NAME)


class DispositionBody(Body):
    """POST /api/v1/cases/{case_id}/dispositions. What each kind needs beside the reason, the verb says."""

    refuses_unknown = True

    kind = fields.StateField(DispositionKind)
    reason = fields.Notes(required=True)
    superseded_by = fields.CleanText(
        limit=fields.MAX_CASE_ID, help_text="The delivered case in its place; for superseded_by alone."
    )
    external_ref = fields.ExternalRef(help_text="Needed for abandoned.")
    proposed_by = fields.CleanText(limit=text.MAX_NAME)


class DispositionDecisionBody(Body):
    """POST /api/v1/dispositions/{disposition_id}/decisions."""

    refuses_unknown = True

    state = fields.StateField(
        DispositionState,
        words=(DispositionState.CONFIRMED, DispositionState.REFUSED, DispositionState.WITHDRAWN),
    )
    notes = fields.Notes(help_text="Needed for refused.")
    decided_by = fields.CleanText(limit=text.MAX_NAME)


class PlaybookBody(Body):
    """POST {A}/connector-recovery-playbook."""

    generated_by = fields.CleanText(limit=text.MAX_NAME)
    min_failure_count = fields.WholeNumber(low=1, high=10_000, default=2)
    lookback_hours = fields.WholeNumber(low=1, high=A_YEAR_IN_HOURS, default=24)


class ClosureBody(Body):
    """POST {A}/connector-recovery-playbooks/{playbook_id}/closures."""

    refuses_unknown = True

    provider = fields.ConnectorKey(required=True)
    closed_by = fields.CleanText(limit=text.MAX_NAME)
    closure_state = fields.StateField(ClosureState, default=ClosureState.RESOLVED)
    external_ref = fields.ExternalRef()
    notes = fields.Notes()
    verification_refs = fields.TextList(limit=200, required=False)
    owner = fields.CleanText(limit=text.MAX_NAME)
    review_at = fields.Moment(required=False)
    reason = fields.Notes()
