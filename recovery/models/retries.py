"""Retry policy, retry plans and the decision rows that everything about a retry hangs on."""

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q

from evidence.models import Case, Person
from recovery.enums import DecisionState, RetryAckState, RetryAction


class RetryPolicy(models.Model):
    """The administrator's ceiling: one row. What a caller sends may only be tighter."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    max_retry_attempts = models.PositiveIntegerField(
        default=3, validators=[MinValueValidator(1), MaxValueValidator(10)]
    )
    retry_delay_minutes = models.PositiveIntegerField(default=15, validators=[MaxValueValidator(10_080)])
    backoff_multiplier = models.DecimalField(
        max_digits=5, decimal_places=3, default=2, validators=[MinValueValidator(1), MaxValueValidator(10)]
    )
    allow_immediate_retry = models.BooleanField(
        default=True, help_text="Whether a person may lift the delay for one approved manual run."
    )
    approve_within_minutes = models.PositiveIntegerField(default=24 * 60, validators=[MinValueValidator(1)])
    execute_within_minutes = models.PositiveIntegerField(default=4 * 60, validators=[MinValueValidator(1)])
    edited_by = models.ForeignKey(
        Person, on_delete=models.PROTECT, null=True, related_name="+", editable=False
    )
    edited_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        verbose_name_plural = "retry policy"
        constraints = (models.CheckConstraint(name="one_retry_policy", condition=Q(id=1)),)

    def __str__(self) -> str:
        return "retry policy"


class RetryDecision(models.Model):
    """What is decided about one case's next attempt under one policy; one open decision per case."""

    case = models.ForeignKey(Case, on_delete=models.PROTECT, related_name="retry_decisions")
    attempt_no = models.PositiveIntegerField(
        help_text="The attempt this decision is about: 2 is the first retry."
    )
    policy_digest = models.CharField(max_length=64)
    policy = models.JSONField()
    state = models.CharField(
        max_length=12, choices=[(s, s) for s in DecisionState], default=DecisionState.OPEN
    )
    suppressed = models.BooleanField(default=False)
    not_before = models.DateTimeField()
    created_at = models.DateTimeField()
    planned_by = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    # The newest acknowledgement counts (W14).
    ack_state = models.CharField(max_length=12, choices=[(s, s) for s in RetryAckState], blank=True)
    ack_id = models.CharField(max_length=60, blank=True)
    ack_hash = models.CharField(max_length=64, blank=True)
    acknowledged_by = models.ForeignKey(Person, on_delete=models.PROTECT, null=True, related_name="+")
    acknowledged_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-created_at", "-pk")
        constraints = (
            models.CheckConstraint(name="decision_state_known", condition=Q(state__in=list(DecisionState))),
            models.CheckConstraint(name="decision_about_a_retry", condition=Q(attempt_no__gte=2)),
            models.UniqueConstraint(
                name="decision_open_once", fields=["case"], condition=Q(state=DecisionState.OPEN)
            ),
            models.CheckConstraint(
                name="decision_ack_in_pair",
                condition=Q(ack_state="", acknowledged_by__isnull=True, acknowledged_at__isnull=True)
                | (~Q(ack_state="") & Q(acknowledged_by__isnull=False, acknowledged_at__isnull=False)),
            ),
        )

    def __str__(self) -> str:
        return f"retry {self.attempt_no} of {self.case}"


class RetryPlan(models.Model):
    """A document over the open decisions at one moment; ``observation`` for a worker's own."""

    retry_plan_id = models.CharField(max_length=40, unique=True)
    created_at = models.DateTimeField()
    created_by = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    record_hash = models.CharField(max_length=64)

    class Meta:
        ordering = ("-created_at", "-pk")

    def __str__(self) -> str:
        return self.retry_plan_id


class RetryPlanItem(models.Model):
    """One decision as a plan listed it."""

    plan = models.ForeignKey(RetryPlan, on_delete=models.PROTECT, related_name="items")
    decision = models.ForeignKey(RetryDecision, on_delete=models.PROTECT, related_name="listed_in")
    action = models.CharField(max_length=8, choices=[(a, a) for a in RetryAction])

    class Meta:
        constraints = (models.UniqueConstraint(name="decision_listed_once", fields=["plan", "decision"]),)

    def __str__(self) -> str:
        return f"{self.action} {self.decision}"
