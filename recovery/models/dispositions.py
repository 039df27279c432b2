"""Dispositions: what two people settle a case with when no delivery does."""

from django.db import models
from django.db.models import Q

from evidence.models import Case, Person
from recovery.enums import DispositionKind, DispositionState


class Disposition(models.Model):
    """One person proposes that a case is superseded or abandoned, another one confirms or refuses it."""

    disposition_id = models.CharField(max_length=60, unique=True)
    case = models.ForeignKey(Case, on_delete=models.PROTECT, related_name="dispositions")
    kind = models.CharField(max_length=16, choices=[(k, k) for k in DispositionKind])
    # The delivered case that stands in its place.
    superseded_by = models.ForeignKey(Case, on_delete=models.PROTECT, null=True, related_name="supersedes")
    reason = models.CharField(max_length=4000)
    external_ref = models.CharField(max_length=200, blank=True)
    # Who answers for it (a service account's owner), and through which account it came.
    proposed_by = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    proposed_through = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    proposed_at = models.DateTimeField()
    record_hash = models.CharField(max_length=64)
    state = models.CharField(
        max_length=12, choices=[(s, s) for s in DispositionState], default=DispositionState.PROPOSED
    )
    decided_by = models.ForeignKey(Person, on_delete=models.PROTECT, null=True, related_name="+")
    decided_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-proposed_at", "-pk")
        constraints = (
            models.CheckConstraint(
                name="disposition_kind_known", condition=Q(kind__in=list(DispositionKind))
            ),
            models.CheckConstraint(
                name="disposition_state_known", condition=Q(state__in=list(DispositionState))
            ),
            models.CheckConstraint(
                name="disposition_names_successor",
                condition=Q(kind=DispositionKind.SUPERSEDED_BY, superseded_by__isnull=False)
                | Q(kind=DispositionKind.ABANDONED, superseded_by__isnull=True),
            ),
            models.CheckConstraint(
                name="disposition_decided_in_pair",
                condition=Q(state=DispositionState.PROPOSED, decided_by__isnull=True, decided_at__isnull=True)
                | (
                    ~Q(state=DispositionState.PROPOSED)
                    & Q(decided_by__isnull=False, decided_at__isnull=False)
                ),
            ),
            # Two people: who proposes does not confirm.
            models.CheckConstraint(
                name="disposition_by_two",
                condition=~Q(state=DispositionState.CONFIRMED) | ~Q(decided_by=models.F("proposed_by")),
            ),
            models.UniqueConstraint(
                name="disposition_open_once", fields=["case"], condition=Q(state=DispositionState.PROPOSED)
            ),
        )

    def __str__(self) -> str:
        return self.disposition_id
