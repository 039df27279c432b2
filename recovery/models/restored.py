"""What a restored database does not know: tries that may have been made while its memory of them was lost."""

from django.db import models

from evidence.models import Case


class PossibleAttempt(models.Model):
    """Between ``since`` and ``until`` an attempt of this case may have been made that nothing here knows of (P25)."""

    case = models.ForeignKey(Case, on_delete=models.PROTECT, related_name="possible_attempts")
    # The epoch that began at ``until``; the attempt would be the old one's.
    epoch = models.PositiveIntegerField()
    since = models.DateTimeField()
    until = models.DateTimeField()
    record_id = models.CharField(max_length=60)
    record_hash = models.CharField(max_length=64)

    class Meta:
        ordering = ("epoch",)
        constraints = (models.UniqueConstraint(name="possible_attempt_once", fields=["case", "epoch"]),)

    def __str__(self) -> str:
        return f"{self.case} before epoch {self.epoch}"
