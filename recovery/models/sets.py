"""Sets: many cases of one outage, taken through the chain together."""

from django.db import models
from django.db.models import Q

from evidence.models import Case, Person
from recovery.models.approvals import ApprovalEntry


class RetrySet(models.Model):
    """Cases that one person chose by a filter. Frozen once approval is asked for: ``digest`` covers every manifest."""

    set_id = models.CharField(max_length=40, unique=True)
    created_at = models.DateTimeField()
    created_by = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    # The filter it was chosen by, as the page showed it.
    selection = models.JSONField()
    record_hash = models.CharField(max_length=64)
    # SHA-256 over the sorted manifest digests of what was asked for.
    digest = models.CharField(max_length=64, blank=True)
    requested_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-created_at", "-pk")
        constraints = (
            models.CheckConstraint(
                name="set_requested_in_pair",
                condition=Q(digest="", requested_at__isnull=True)
                | (~Q(digest="") & Q(requested_at__isnull=False)),
            ),
        )

    def __str__(self) -> str:
        return self.set_id


class RetrySetItem(models.Model):
    """One case of a set, and the newest entry that was asked for with the set."""

    retry_set = models.ForeignKey(RetrySet, on_delete=models.PROTECT, related_name="items")
    case = models.ForeignKey(Case, on_delete=models.PROTECT, related_name="+")
    entry = models.ForeignKey(ApprovalEntry, on_delete=models.PROTECT, null=True, related_name="set_items")

    class Meta:
        ordering = ("pk",)
        constraints = (models.UniqueConstraint(name="case_once_per_set", fields=["retry_set", "case"]),)

    def __str__(self) -> str:
        return f"{self.case} in {self.retry_set}"
