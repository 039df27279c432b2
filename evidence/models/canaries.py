"""Canaries: test messages to a connector that hold no evidence, and what came of each."""

from django.db import models
from django.db.models import Q

from evidence.enums import CanaryMeans, FailureClass, Outcome
from evidence.models.connectors import Connector
from evidence.models.people import Person


class CanaryTurn(models.Model):
    """A canary that is under way: taken before its socket opens, gone with the record of what came of it.

    One for each connector. What nobody said by ``until`` is recorded as unknown.
    """

    connector = models.OneToOneField(
        Connector, on_delete=models.PROTECT, primary_key=True, related_name="canary_turn"
    )
    canary_id = models.CharField(max_length=60)
    by = models.ForeignKey(Person, on_delete=models.PROTECT, null=True, related_name="+")
    means = models.CharField(max_length=12, choices=[(m, m) for m in CanaryMeans])
    started_at = models.DateTimeField()
    until = models.DateTimeField()

    def __str__(self) -> str:
        return self.canary_id


class Canary(models.Model):
    """What came of one canary, written once. ``by`` is None for one that a worker sent to an open breaker."""

    canary_id = models.CharField(max_length=60, unique=True)
    connector = models.ForeignKey(Connector, on_delete=models.PROTECT, related_name="canaries")
    by = models.ForeignKey(Person, on_delete=models.PROTECT, null=True, related_name="+")
    means = models.CharField(max_length=12, choices=[(m, m) for m in CanaryMeans])
    outcome = models.CharField(max_length=16, choices=[(o, o) for o in Outcome])
    failure_class = models.CharField(max_length=20, choices=[(f, f) for f in FailureClass], blank=True)
    status_code = models.PositiveIntegerField(null=True)
    duration_ms = models.PositiveIntegerField(null=True)
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField()
    record_hash = models.CharField(max_length=64)

    class Meta:
        verbose_name_plural = "canaries"
        ordering = ("-pk",)
        constraints = (
            models.CheckConstraint(name="canary_outcome_known", condition=Q(outcome__in=list(Outcome))),
            models.CheckConstraint(name="canary_means_known", condition=Q(means__in=list(CanaryMeans))),
        )
        indexes = (models.Index(name="canary_newest", fields=["connector", "-started_at"]),)

    def __str__(self) -> str:
        return self.canary_id
