"""What passes over the log found, so that a page can say it without reading the log."""

from django.db import models
from django.db.models import Q

from evidence.enums import TaskState
from evidence.models.people import Person


class Verification(models.Model):
    """One pass over the log that somebody or the worker's own calendar asked for, and what it found.

    Not evidence: the log is, and anybody may verify it again.
    """

    state = models.CharField(max_length=8, choices=[(s, s) for s in TaskState], default=TaskState.QUEUED)
    requested_by = models.ForeignKey(Person, on_delete=models.PROTECT, null=True, related_name="+")
    requested_at = models.DateTimeField()
    # While it runs: when it counts as given up, unless the worker says otherwise before.
    lease_until = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    duration_ms = models.PositiveIntegerField(default=0)
    # Progress while it runs: entries checked, of how many.
    checked = models.BigIntegerField(default=0)
    size = models.BigIntegerField(default=0)
    root = models.CharField(max_length=64, blank=True)
    differences = models.PositiveIntegerField(default=0)
    first_difference = models.CharField(max_length=600, blank=True)
    first_index = models.BigIntegerField(null=True)

    class Meta:
        ordering = ("-requested_at", "-pk")
        constraints = (
            models.CheckConstraint(name="verification_state_known", condition=Q(state__in=list(TaskState))),
            models.UniqueConstraint(
                name="verification_one_at_a_time", fields=["state"], condition=Q(state=TaskState.QUEUED)
            ),
        )

    def __str__(self) -> str:
        return f"verification at {self.size}"
