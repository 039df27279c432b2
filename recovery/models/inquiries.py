"""What connectors said when they were asked whether a try arrived, and when they are asked next."""

from django.db import models
from django.db.models import Q

from evidence.enums import FailureClass
from evidence.models import Case, Person
from recovery.enums import Told


class Inquiry(models.Model):
    """The newest question about a case. An answer that settles is a record; this is what else was said.

    ``times`` counts the questions that the worker asked about attempt ``attempt_no``. No ``told``: no answer was
    written, or none came yet. No ``next_at``: it is not asked again by itself.
    """

    case = models.OneToOneField(Case, on_delete=models.PROTECT, primary_key=True, related_name="inquiry")
    attempt_no = models.PositiveIntegerField()
    times = models.PositiveIntegerField(default=0)
    asked_at = models.DateTimeField()
    # Nobody: the worker asked by itself.
    asked_by = models.ForeignKey(Person, on_delete=models.PROTECT, null=True, related_name="+")
    told = models.CharField(max_length=12, choices=[(t, t) for t in Told], blank=True)
    failure_class = models.CharField(max_length=20, choices=[(f, f) for f in FailureClass], blank=True)
    next_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "inquiries"
        constraints = (
            models.CheckConstraint(
                name="inquiry_told_known", condition=Q(told__in=["", *(told.value for told in Told)])
            ),
        )

    def __str__(self) -> str:
        return f"{self.case} asked at {self.asked_at}"
