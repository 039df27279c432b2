"""What holds a connector back by itself: its breaker, and the windows in which its receiver is down by plan."""

from django.db import models
from django.db.models import Q

from evidence.enums import BreakerState, FailureClass
from evidence.models.connectors import Connector


class Breaker(models.Model):
    """How a connector's newest tries ended; open after too many failures in a row.

    The row holds closed or open; half-open is an open one whose ``probe_at`` has come, so that nothing has to
    move it there. ``failure_class`` is that of the newest failure that counted, ``cool_down_s`` what the next
    canary waits for or, of a closed one, what the last one waited for, until something is delivered. ``held_until``
    is what the receiver asked for with Retry-After.
    """

    connector = models.OneToOneField(
        Connector, on_delete=models.PROTECT, primary_key=True, related_name="breaker"
    )
    state = models.CharField(
        max_length=10, choices=[(s, s) for s in BreakerState], default=BreakerState.CLOSED
    )
    failures = models.PositiveIntegerField(default=0, help_text="Failures in a row that count.")
    failure_class = models.CharField(max_length=20, choices=[(f, f) for f in FailureClass], blank=True)
    opened_at = models.DateTimeField(null=True)
    probe_at = models.DateTimeField(null=True, help_text="When the next canary may go.")
    cool_down_s = models.PositiveIntegerField(default=0)
    held_until = models.DateTimeField(null=True)
    changed_at = models.DateTimeField(null=True, help_text="When it last opened or closed.")

    class Meta:
        constraints = (
            models.CheckConstraint(
                name="breaker_open_has_a_probe",
                condition=Q(
                    state=BreakerState.OPEN,
                    opened_at__isnull=False,
                    probe_at__isnull=False,
                    changed_at__isnull=False,
                )
                | Q(state=BreakerState.CLOSED, opened_at__isnull=True, probe_at__isnull=True),
            ),
        )

    def __str__(self) -> str:
        return f"{self.connector}: {self.state}"


class ConnectorWindow(models.Model):
    """A time in which a connector's receiver is down by plan: what is for it waits and does not fail."""

    connector = models.ForeignKey(Connector, on_delete=models.CASCADE, related_name="windows")
    window_id = models.CharField(max_length=80)
    start_at = models.DateTimeField()
    end_at = models.DateTimeField()
    reason = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering = ("start_at", "window_id")
        constraints = (
            models.UniqueConstraint(name="window_once_per_connector", fields=["connector", "window_id"]),
            models.CheckConstraint(
                name="connector_window_ends_later", condition=Q(end_at__gt=models.F("start_at"))
            ),
        )

    def __str__(self) -> str:
        return self.window_id
