"""Who has to be told that something waits for them, and whether they were."""

from django.db import models
from django.db.models import Q

from recovery.enums import NoticeKind


class Notice(models.Model):
    """One message about one subject, told once. It carries a link, never evidence."""

    kind = models.CharField(max_length=20, choices=[(k, k) for k in NoticeKind])
    # An approval entry's id, or a case and attempt: what the message is about.
    subject = models.CharField(max_length=120)
    case_id = models.CharField(max_length=90)
    created_at = models.DateTimeField()
    # Not before: when it is tried (again).
    due_at = models.DateTimeField()
    tries = models.PositiveIntegerField(default=0)
    told_at = models.DateTimeField(null=True)
    # "mail to 3 people", "connector ops_chat", or why nobody was told.
    told = models.CharField(max_length=200, blank=True)
    given_up = models.BooleanField(default=False)

    class Meta:
        ordering = ("-created_at", "-pk")
        constraints = (
            models.CheckConstraint(name="notice_kind_known", condition=Q(kind__in=list(NoticeKind))),
            models.UniqueConstraint(name="notice_once", fields=["kind", "subject"]),
        )
        indexes = (
            models.Index(
                name="notice_due", fields=["due_at"], condition=Q(told_at__isnull=True, given_up=False)
            ),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.subject}"
