"""Approval plans, entries with their frozen manifests, parties and votes."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from django.db import models
from django.db.models import Q

from evidence.models import Case, Connector, Person
from recovery.enums import OPEN_ENTRY_STATES, ApprovalState, EntryState, Part, PlanAction, SkipCode
from recovery.models.retries import RetryDecision, RetryPlan
from recovery.permissions import Permission


class ApprovalPlan(models.Model):
    """A document that asks for approvals, and the entries it listed."""

    approval_plan_id = models.CharField(max_length=50, unique=True)
    created_at = models.DateTimeField()
    created_by = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    require_retry_ack = models.BooleanField()
    record_hash = models.CharField(max_length=64)

    class Meta:
        ordering = ("-created_at", "-pk")

    def __str__(self) -> str:
        return self.approval_plan_id


class ApprovalEntry(models.Model):
    """Asks for approval of one case's next attempt: exactly these bytes, there, under this policy."""

    entry_id = models.CharField(max_length=50, unique=True)
    plan = models.ForeignKey(ApprovalPlan, on_delete=models.PROTECT, related_name="entries")
    retry_plan = models.ForeignKey(RetryPlan, on_delete=models.PROTECT, related_name="+")
    decision = models.ForeignKey(RetryDecision, on_delete=models.PROTECT, related_name="entries")
    case = models.ForeignKey(Case, on_delete=models.PROTECT, related_name="approval_entries")
    connector = models.ForeignKey(Connector, on_delete=models.PROTECT, related_name="+")
    attempt_no = models.PositiveIntegerField()
    # Frozen: what is approved is what is sent (P5).
    manifest = models.BinaryField()
    manifest_digest = models.CharField(max_length=64)
    body = models.BinaryField()
    required_approvals = models.PositiveIntegerField()
    require_retry_ack = models.BooleanField()
    requested_by = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    requested_at = models.DateTimeField()
    not_before = models.DateTimeField()
    approve_by = models.DateTimeField()
    execute_within_minutes = models.PositiveIntegerField()
    # SHA-256 over the sorted ids of the people who could approve when this was asked for.
    eligible_digest = models.CharField(max_length=64, blank=True, default="", db_default="")
    # The lapsed request of which this one is the same content with new clocks (P6).
    renews = models.ForeignKey(
        "self", on_delete=models.PROTECT, null=True, editable=False, related_name="renewals"
    )
    # State.
    state = models.CharField(max_length=16, choices=[(s, s) for s in EntryState], default=EntryState.PENDING)
    execute_by = models.DateTimeField(null=True)
    approved_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    last_skip = models.CharField(max_length=40, choices=[(c, c) for c in SkipCode], blank=True)

    class Meta:
        verbose_name_plural = "approval entries"
        ordering = ("-requested_at", "-pk")
        permissions = tuple((act.partition(".")[2], act.label) for act in Permission)
        constraints = (
            models.CheckConstraint(name="entry_state_known", condition=Q(state__in=list(EntryState))),
            models.UniqueConstraint(
                name="entry_open_once", fields=["case"], condition=Q(state__in=list(OPEN_ENTRY_STATES))
            ),
            models.UniqueConstraint(
                name="entry_claimed_once",
                fields=["case", "attempt_no"],
                condition=Q(state=EntryState.CLAIMED),
            ),
            models.CheckConstraint(name="entry_needs_approval", condition=Q(required_approvals__gte=1)),
            models.CheckConstraint(
                name="entry_approved_in_pair",
                condition=Q(approved_at__isnull=True, execute_by__isnull=True)
                | Q(approved_at__isnull=False, execute_by__isnull=False),
            ),
            models.CheckConstraint(
                name="entry_approved_has_deadline",
                condition=~Q(state__in=[EntryState.APPROVED, EntryState.CLAIMED])
                | Q(execute_by__isnull=False),
            ),
        )
        indexes = (
            # The worker's selection: approved, oldest deadline first.
            models.Index(
                name="entry_approved", fields=["execute_by"], condition=Q(state=EntryState.APPROVED)
            ),
            models.Index(name="entry_pending", fields=["approve_by"], condition=Q(state=EntryState.PENDING)),
        )

    # Before it is saved: who had a part in this attempt, as its rows of ``EntryParty`` will say, and who could
    # approve it.
    frozen_parties: Collection[tuple[Person, Part]] = ()
    eligible: Sequence[Person] = ()
    # Before it is saved, of one that is not a renewal: the event that its body was rendered from.
    event: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        return self.entry_id


class ApprovalPlanItem(models.Model):
    """One entry as an approval plan listed it."""

    plan = models.ForeignKey(ApprovalPlan, on_delete=models.PROTECT, related_name="items")
    entry = models.ForeignKey(ApprovalEntry, on_delete=models.PROTECT, related_name="listed_in")
    action = models.CharField(max_length=24, choices=[(a, a) for a in PlanAction])

    class Meta:
        constraints = (models.UniqueConstraint(name="entry_listed_once", fields=["plan", "entry"]),)

    def __str__(self) -> str:
        return f"{self.action} {self.entry}"


class EntryParty(models.Model):
    """A person who may not vote on an entry, and why; frozen with it and checked by the database (P4)."""

    entry = models.ForeignKey(ApprovalEntry, on_delete=models.PROTECT, related_name="parties")
    person = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    part = models.CharField(max_length=20, choices=[(p, p) for p in Part])

    class Meta:
        verbose_name_plural = "entry parties"
        constraints = (models.UniqueConstraint(name="party_once", fields=["entry", "person", "part"]),)

    def __str__(self) -> str:
        return f"{self.person} as {self.part}"


class Vote(models.Model):
    """One person's insert-only word on an entry; the person's newest counts."""

    decision_id = models.CharField(max_length=60, unique=True)
    entry = models.ForeignKey(ApprovalEntry, on_delete=models.PROTECT, related_name="votes")
    # Who answers for it (a service account's owner), and through which account it came.
    person = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    account = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    state = models.CharField(max_length=10, choices=[(s, s) for s in ApprovalState])
    manifest_digest = models.CharField(max_length=64)
    digest_presented = models.BooleanField()
    reason_code = models.CharField(max_length=40, blank=True, default="", db_default="")
    # How and when the account had signed in when it voted; empty for a shell.
    authenticated_by = models.CharField(max_length=16, blank=True, default="", db_default="")
    authenticated_at = models.DateTimeField(null=True)
    decided_at = models.DateTimeField()
    record_hash = models.CharField(max_length=64)

    class Meta:
        ordering = ("decided_at", "pk")
        constraints = (
            models.CheckConstraint(name="vote_state_known", condition=Q(state__in=list(ApprovalState))),
            models.UniqueConstraint(name="vote_once_per_state", fields=["entry", "person", "state"]),
        )

    def __str__(self) -> str:
        return f"{self.person}: {self.state}"
