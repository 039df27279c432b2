"""Cases as they were taken away: the bytes that whoever asks again gets again."""

from django.db import models
from django.db.models import Q

from evidence.models.people import Person


class Capsule(models.Model):
    """One case frozen at one signed head. Subjects are ids as text, like in the ledger.

    It holds each of the case's records that stand before ``log_size``, unless a body was erased before. When one
    is erased afterwards, ``content`` goes with it and the rest of the row stays.
    """

    capsule_id = models.CharField(max_length=60, unique=True)
    case_id = models.CharField(max_length=90)
    records = models.PositiveIntegerField(help_text="How many records of the case it speaks of.")
    log_size = models.BigIntegerField(help_text="Entries of the log under the head it is frozen at.")
    size = models.PositiveIntegerField(help_text="Bytes of the zip.")
    sha256 = models.CharField(max_length=64)
    content = models.BinaryField(null=True, help_text="The zip; null once a body in it was erased.")
    created_at = models.DateTimeField()
    created_by = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    record_hash = models.CharField(max_length=64)

    class Meta:
        ordering = ("-pk",)
        indexes = (models.Index(name="capsule_of_case", fields=["case_id", "log_size"]),)
        constraints = (
            models.CheckConstraint(name="capsule_is_of_something", condition=Q(records__gt=0, size__gt=0)),
        )

    def __str__(self) -> str:
        return self.capsule_id
