"""Who read which evidence: a log of its own outside the ledger, kept for a time (P14)."""

from django.db import models
from django.db.models import Q

from evidence.enums import Access, Via


class AccessLogEntry(models.Model):
    """One successful read of evidence. Names and ids as text: what they speak of may change or be erased."""

    at = models.DateTimeField()
    person_id = models.CharField(max_length=24)
    name = models.CharField(max_length=64)
    act = models.CharField(max_length=8, choices=[(a, a) for a in Access])
    # What was read, e.g. a record and its id; the id is empty for a list or an export.
    subject = models.CharField(max_length=16)
    subject_id = models.CharField(max_length=200, blank=True)
    # Name of the address, not the address: a query may hold anything.
    page = models.CharField(max_length=100)
    via = models.CharField(max_length=8, choices=[(v, v) for v in Via])

    class Meta:
        verbose_name_plural = "access log entries"
        ordering = ("-id",)
        constraints = (
            models.CheckConstraint(name="access_act_known", condition=Q(act__in=list(Access))),
            models.CheckConstraint(name="access_via_known", condition=Q(via__in=list(Via))),
        )
        indexes = (
            # Pruning, and a span of time.
            models.Index(name="access_by_time", fields=["at"]),
            # "Who read this?" and "what did they read?", newest first.
            models.Index(name="access_by_subject", fields=["subject_id", "-id"]),
            models.Index(name="access_by_person", fields=["person_id", "-id"]),
        )

    def __str__(self) -> str:
        return f"{self.name}: {self.act} {self.subject} {self.subject_id}".rstrip()
