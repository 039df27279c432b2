"""Worker runs and executions: the once-only use of an approval."""

from django.db import models
from django.db.models import Q

from evidence.enums import FailureClass
from evidence.models import Case, Person
from recovery.enums import ExecutionState, RunState, Seen
from recovery.models.approvals import ApprovalEntry
from recovery.models.sets import RetrySet


class WorkerRun(models.Model):
    """One pass of the retry worker, dry or live, started by a person. ``retry_set`` names the set it is about."""

    run_id = models.CharField(max_length=40, unique=True)
    dry_run = models.BooleanField()
    state = models.CharField(max_length=8, choices=[(s, s) for s in RunState])
    requested_by = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    requested_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)
    # While it runs: when it counts as given up, unless whoever executes it says otherwise before.
    lease_until = models.DateTimeField(null=True)
    # The request as it was checked: policy, schedule, limits, cases.
    request = models.JSONField()
    record_hash = models.CharField(max_length=64, blank=True)
    selected_count = models.PositiveIntegerField(default=0)
    retry_set = models.ForeignKey(RetrySet, on_delete=models.PROTECT, null=True, related_name="runs")

    class Meta:
        ordering = ("-requested_at", "-pk")
        constraints = (
            models.CheckConstraint(name="run_state_known", condition=Q(state__in=list(RunState))),
            models.CheckConstraint(
                name="run_finished_in_pair",
                condition=Q(state=RunState.FINISHED, finished_at__isnull=False)
                | (~Q(state=RunState.FINISHED) & Q(finished_at__isnull=True)),
            ),
            models.CheckConstraint(
                name="run_lease_while_running",
                condition=Q(state=RunState.RUNNING, lease_until__isnull=False)
                | (~Q(state=RunState.RUNNING) & Q(lease_until__isnull=True)),
            ),
        )
        indexes = (
            models.Index(name="run_due", fields=["requested_at"], condition=Q(state=RunState.QUEUED)),
            models.Index(name="run_leases", fields=["lease_until"], condition=Q(state=RunState.RUNNING)),
            models.Index(name="run_newest", fields=["dry_run", "-requested_at"]),
        )

    def __str__(self) -> str:
        return self.run_id


class Execution(models.Model):
    """The claim of one approval and what came of it. The row is there before a socket opens (P3)."""

    claim_id = models.CharField(max_length=60, unique=True)
    claim_hash = models.CharField(max_length=64)
    execution_id = models.CharField(max_length=60, unique=True)
    # Set once the outcome is recorded.
    execution_hash = models.CharField(max_length=64, blank=True)
    # Not null: no attempt without an approval (P1). Unique but for tries of which no byte left: no approval
    # sends twice (P2), and none is used up by what stayed in the building (P9).
    entry = models.ForeignKey(ApprovalEntry, on_delete=models.PROTECT, related_name="executions")
    case = models.ForeignKey(Case, on_delete=models.PROTECT, related_name="executions")
    attempt_no = models.PositiveIntegerField()
    run = models.ForeignKey(WorkerRun, on_delete=models.PROTECT, related_name="executions")
    executed_by = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    claimed_at = models.DateTimeField()
    lease_token = models.CharField(max_length=32)
    lease_until = models.DateTimeField()
    state = models.CharField(
        max_length=16, choices=[(s, s) for s in ExecutionState], default=ExecutionState.CLAIMED
    )
    recorded_at = models.DateTimeField(null=True)
    # Why no byte left; empty for every other state.
    failure_class = models.CharField(
        max_length=20, choices=[(f, f) for f in FailureClass], blank=True, default="", db_default=""
    )

    class Meta:
        ordering = ("-claimed_at", "-pk")
        constraints = (
            models.CheckConstraint(name="execution_state_known", condition=Q(state__in=list(ExecutionState))),
            models.UniqueConstraint(
                name="execution_once_per_attempt",
                fields=["case", "attempt_no"],
                condition=~Q(state=ExecutionState.NOT_SENT),
            ),
            models.UniqueConstraint(
                name="execution_once_per_entry",
                fields=["entry"],
                condition=~Q(state=ExecutionState.NOT_SENT),
            ),
            models.CheckConstraint(
                name="execution_recorded_in_pair",
                condition=Q(state=ExecutionState.CLAIMED, recorded_at__isnull=True)
                | (~Q(state=ExecutionState.CLAIMED) & Q(recorded_at__isnull=False)),
            ),
        )
        indexes = (
            models.Index(
                name="execution_leases", fields=["lease_until"], condition=Q(state=ExecutionState.CLAIMED)
            ),
        )

    def __str__(self) -> str:
        return self.execution_id


class Attestation(models.Model):
    """What one person saw at the receiver of an attempt whose outcome is unknown; their newest word counts (P3)."""

    attestation_id = models.CharField(max_length=60, unique=True)
    case = models.ForeignKey(Case, on_delete=models.PROTECT, related_name="attestations")
    attempt_no = models.PositiveIntegerField()
    # Who answers for it (a service account's owner), and through which account it came.
    person = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    account = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    # Held the approver role when they said so; one of the two has to.
    as_approver = models.BooleanField()
    seen = models.CharField(max_length=16, choices=[(s, s) for s in Seen])
    external_ref = models.CharField(max_length=200)
    notes = models.CharField(max_length=4000, blank=True)
    attested_at = models.DateTimeField()
    record_hash = models.CharField(max_length=64)

    class Meta:
        ordering = ("attested_at", "pk")
        constraints = (
            models.CheckConstraint(name="attestation_seen_known", condition=Q(seen__in=list(Seen))),
        )
        indexes = (models.Index(name="attestations_of_try", fields=["case", "attempt_no"]),)

    def __str__(self) -> str:
        return f"{self.person}: {self.seen}"
