"""The admin of the recovery app: the retry policy is edited, everything else is read."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.safestring import SafeString

from evidence.admin import (
    ConfigurationAdmin,
    EvidenceAdmin,
    EvidenceInline,
    WithRecord,
    link_to_record,
    pretty,
)
from recovery.domain import retry_policies
from recovery.models import (
    ApprovalEntry,
    ApprovalPlan,
    ApprovalPlanItem,
    Attestation,
    Closure,
    Disposition,
    EntryParty,
    Execution,
    Notice,
    Playbook,
    PlaybookItem,
    PossibleAttempt,
    Recovery,
    RecoveryCase,
    RetryDecision,
    RetryPlan,
    RetryPlanItem,
    RetryPolicy,
    RetrySet,
    RetrySetItem,
    StepTick,
    Vote,
    WorkerRun,
)


@admin.register(RetryPolicy)
class RetryPolicyAdmin(ConfigurationAdmin):
    """The one retry policy: a ceiling that callers may only tighten."""

    readonly_fields = ("edited_by", "edited_at")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """The policy, its defaults before anybody saved one; looking at it writes nothing."""
        return retry_policies.configured() if object_id == "1" else None

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        return redirect("admin:recovery_retrypolicy_change", 1)


class RetryPlanItemInline(EvidenceInline):
    """Decisions as a plan listed them."""

    model = RetryPlanItem


@admin.register(RetryPlan)
class RetryPlanAdmin(WithRecord):
    """Retry plans."""

    record_id = "retry_plan_id"
    list_display = ("retry_plan_id", "created_at", "created_by")
    list_filter = ("created_at",)
    list_select_related = ("created_by",)
    search_fields = ("retry_plan_id__exact",)
    inlines = (RetryPlanItemInline,)


@admin.register(RetryDecision)
class RetryDecisionAdmin(EvidenceAdmin):
    """What is decided about one case's next attempt."""

    list_display = ("case", "attempt_no", "state", "suppressed", "ack_state", "not_before", "planned_by")
    list_filter = ("state", "suppressed", "ack_state", "created_at")
    list_select_related = ("case", "planned_by")
    search_fields = ("case__case_id__exact", "ack_id__exact", "planned_by__username__exact")
    shown = ("acknowledgement",)

    @admin.display(description="newest acknowledgement")
    def acknowledgement(self, decision: RetryDecision) -> SafeString | str:
        """Link to the record of the review that counts."""
        return link_to_record(decision.ack_id)


class ApprovalPlanItemInline(EvidenceInline):
    """Entries as a plan listed them."""

    model = ApprovalPlanItem


@admin.register(ApprovalPlan)
class ApprovalPlanAdmin(WithRecord):
    """Requests for approval."""

    record_id = "approval_plan_id"
    list_display = ("approval_plan_id", "created_at", "created_by", "require_retry_ack")
    list_filter = ("created_at",)
    list_select_related = ("created_by",)
    search_fields = ("approval_plan_id__exact",)
    inlines = (ApprovalPlanItemInline,)


class EntryPartyInline(EvidenceInline):
    """Who may not vote on an entry, and why."""

    model = EntryParty


class VoteInline(EvidenceInline):
    """Votes on an entry."""

    model = Vote


@admin.register(ApprovalEntry)
class ApprovalEntryAdmin(EvidenceAdmin):
    """What was asked for: exactly these bytes, there, under this policy."""

    list_display = ("entry_id", "case", "attempt_no", "state", "requested_by", "approve_by", "execute_by")
    list_filter = ("state", "connector", "requested_at")
    list_select_related = ("case", "requested_by")
    search_fields = ("entry_id__exact", "case__case_id__exact", "manifest_digest__startswith")
    shown = ("manifest_shown", "body_shown")
    inlines = (EntryPartyInline, VoteInline)

    @admin.display(description="manifest")
    def manifest_shown(self, entry: ApprovalEntry) -> SafeString | str:
        """What was approved, indented."""
        return pretty(entry.manifest)

    @admin.display(description="body")
    def body_shown(self, entry: ApprovalEntry) -> SafeString | str:
        """What would be sent, indented."""
        return pretty(entry.body)


@admin.register(Vote)
class VoteAdmin(WithRecord):
    """Approvals, denials and deferrals."""

    record_id = "decision_id"
    list_display = ("decision_id", "entry", "person", "state", "decided_at")
    list_filter = ("state", "decided_at")
    list_select_related = ("entry", "person")
    search_fields = ("decision_id__exact", "entry__entry_id__exact", "person__username__exact")


class ExecutionInline(EvidenceInline):
    """Executions of a run."""

    model = Execution
    hidden = ("lease_token", "lease_until", "claim_hash", "execution_hash")


@admin.register(WorkerRun)
class WorkerRunAdmin(WithRecord):
    """Passes of the retry worker."""

    record_id = "run_id"
    list_display = ("run_id", "dry_run", "state", "requested_by", "requested_at", "finished_at")
    list_filter = ("dry_run", "state", "requested_at")
    list_select_related = ("requested_by",)
    search_fields = ("run_id__exact", "requested_by__username__exact")
    inlines = (ExecutionInline,)


@admin.register(Execution)
class ExecutionAdmin(WithRecord):
    """Once-only uses of approvals."""

    record_id = "execution_id"
    list_display = ("execution_id", "case", "attempt_no", "state", "executed_by", "claimed_at")
    list_filter = ("state", "claimed_at")
    list_select_related = ("case", "executed_by")
    search_fields = (
        "execution_id__exact",
        "claim_id__exact",
        "case__case_id__exact",
        "entry__entry_id__exact",
    )
    hidden = ("lease_token",)
    shown = ("own_record", "claim")

    @admin.display(description="claim record")
    def claim(self, execution: Execution) -> SafeString | str:
        """Link to the record that was written before the socket opened."""
        return link_to_record(execution.claim_id)


@admin.register(Attestation)
class AttestationAdmin(WithRecord):
    """What people saw at a receiver whose answer nobody heard."""

    record_id = "attestation_id"
    list_display = ("attestation_id", "case", "attempt_no", "person", "as_approver", "seen", "attested_at")
    list_filter = ("seen", "as_approver", "attested_at")
    list_select_related = ("case", "person")
    search_fields = (
        "attestation_id__exact",
        "case__case_id__exact",
        "person__username__exact",
        "external_ref__exact",
    )


@admin.register(Disposition)
class DispositionAdmin(WithRecord):
    """What two people settle cases with when no delivery does."""

    record_id = "disposition_id"
    list_display = ("disposition_id", "case", "kind", "state", "proposed_by", "proposed_at", "decided_by")
    list_filter = ("kind", "state", "proposed_at")
    list_select_related = ("case", "proposed_by", "decided_by")
    search_fields = (
        "disposition_id__exact",
        "case__case_id__exact",
        "superseded_by__case_id__exact",
        "proposed_by__username__exact",
        "decided_by__username__exact",
        "external_ref__exact",
    )


class RetrySetItemInline(EvidenceInline):
    """Cases of a set, with the entry that was asked for about each."""

    model = RetrySetItem


@admin.register(RetrySet)
class RetrySetAdmin(WithRecord):
    """Cases of one outage that are taken through the chain together."""

    record_id = "set_id"
    list_display = ("set_id", "created_at", "created_by", "requested_at", "digest")
    list_filter = ("created_at", "requested_at")
    list_select_related = ("created_by",)
    search_fields = ("set_id__exact", "digest__startswith", "created_by__username__exact")
    inlines = (RetrySetItemInline,)


class RecoveryCaseInline(EvidenceInline):
    """Cases a recovery is about."""

    model = RecoveryCase


class RecoveryPlaybookInline(EvidenceInline):
    """Playbooks that describe a recovery."""

    model = PlaybookItem


class ClosureInline(EvidenceInline):
    """Closures of a recovery."""

    model = Closure


@admin.register(Recovery)
class RecoveryAdmin(EvidenceAdmin):
    """Connectors in trouble."""

    list_display = ("connector", "epoch", "state", "owner", "review_at", "opened_at")
    list_filter = ("state", "connector")
    list_select_related = ("connector",)
    search_fields = ("connector__key__exact", "owner")
    inlines = (RecoveryCaseInline, RecoveryPlaybookInline, ClosureInline)


@admin.register(Playbook)
class PlaybookAdmin(WithRecord):
    """Guidance documents."""

    record_id = "playbook_id"
    list_display = ("playbook_id", "created_at", "created_by")
    list_filter = ("created_at",)
    list_select_related = ("created_by",)
    search_fields = ("playbook_id__exact",)
    inlines = (RecoveryPlaybookInline,)


@admin.register(Closure)
class ClosureAdmin(WithRecord):
    """Recorded outcomes of recoveries."""

    record_id = "closure_id"
    list_display = ("closure_id", "recovery", "state", "closed_by", "closed_at")
    list_filter = ("state", "closed_at")
    list_select_related = ("recovery__connector", "closed_by")
    search_fields = ("closure_id__exact", "playbook__playbook_id__exact")


@admin.register(Notice)
class NoticeAdmin(EvidenceAdmin):
    """Who was told that something waits for them, or why nobody was."""

    list_display = ("kind", "case_id", "created_at", "tries", "told_at", "told", "given_up")
    list_filter = ("kind", "given_up", "created_at")
    search_fields = ("subject__exact", "case_id__exact")


@admin.register(StepTick)
class StepTickAdmin(WithRecord):
    """Steps of playbooks that somebody ticked or took back."""

    record_id = "tick_id"
    list_display = ("tick_id", "recovery", "step_key", "done", "ticked_by", "ticked_at")
    list_filter = ("done", "step_key", "ticked_at")
    list_select_related = ("recovery__connector", "ticked_by")
    search_fields = ("tick_id__exact", "recovery__connector__key__exact", "ticked_by__username__exact")


@admin.register(PossibleAttempt)
class PossibleAttemptAdmin(WithRecord):
    """Attempts that a restored database may not know of."""

    record_id = "record_id"
    list_display = ("case", "epoch", "since", "until")
    list_filter = ("epoch",)
    list_select_related = ("case",)
    search_fields = ("case__case_id__exact",)
