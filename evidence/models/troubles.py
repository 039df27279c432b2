"""Troubles: connectors that kept failing for so long that another one was told."""

from django.db import models
from django.db.models import Q

from evidence.enums import FailureClass, Outcome
from evidence.models.connectors import Connector


class Trouble(models.Model):
    """One connector's trouble, from the first failure after its last success to its next success.

    The row is there before anybody is told, so that it is told once. ``told`` and ``told_end`` are what came of
    telling that it began and that it ended; empty while nobody heard, and for good when whoever told it died.
    """

    trouble_id = models.CharField(max_length=60, unique=True)
    connector = models.ForeignKey(Connector, on_delete=models.PROTECT, related_name="troubles")
    since = models.DateTimeField()
    failure_class = models.CharField(max_length=20, choices=[(f, f) for f in FailureClass], blank=True)
    waiting = models.PositiveIntegerField(help_text="Cases that were not settled when it was announced.")
    through = models.CharField(max_length=40, help_text="Key of the connector that it is told through.")
    announced_at = models.DateTimeField()
    record_hash = models.CharField(max_length=64)
    told = models.CharField(max_length=16, choices=[(o, o) for o in Outcome], blank=True)
    ended_at = models.DateTimeField(null=True)
    told_end = models.CharField(max_length=16, choices=[(o, o) for o in Outcome], blank=True)

    class Meta:
        ordering = ("-pk",)
        constraints = (
            # Told once, also by two workers: one that goes on, and never the same again.
            models.UniqueConstraint(
                name="trouble_open_once", fields=["connector"], condition=Q(ended_at__isnull=True)
            ),
            models.UniqueConstraint(name="trouble_once_since", fields=["connector", "since"]),
        )

    def __str__(self) -> str:
        return self.trouble_id
