"""Proposals to start a new log: what two people decide after a restored backup (P25)."""

from django.db import models
from django.db.models import Q

from evidence.enums import EpochState
from evidence.models.people import Person


class EpochProposal(models.Model):
    """One person proposes that the log goes on as a new one, another one confirms.

    ``known_*`` is the newest head of the old log that is held outside this database; size 0 when none is.
    ``first_lost_index`` is the first entry of the old log that this database does not hold as the old log had
    it; entries before it are common to both.
    """

    proposal_id = models.CharField(max_length=60, unique=True)
    old_origin = models.CharField(max_length=200)
    origin = models.CharField(max_length=200)
    epoch = models.PositiveIntegerField()
    reason = models.CharField(max_length=4000)
    known_origin = models.CharField(max_length=200, blank=True)
    known_size = models.BigIntegerField()
    known_root = models.CharField(max_length=64, blank=True)
    first_lost_index = models.BigIntegerField()
    # Who answers for it (a service account's owner), and through which account it came.
    proposed_by = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    proposed_through = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    proposed_at = models.DateTimeField()
    record_hash = models.CharField(max_length=64)
    state = models.CharField(max_length=10, choices=[(s, s) for s in EpochState], default=EpochState.PROPOSED)
    decided_by = models.ForeignKey(Person, on_delete=models.PROTECT, null=True, related_name="+")
    decided_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-proposed_at", "-pk")
        constraints = (
            models.CheckConstraint(
                name="epoch_proposal_state_known", condition=Q(state__in=list(EpochState))
            ),
            models.CheckConstraint(
                name="epoch_proposal_decided_in_pair",
                condition=Q(state=EpochState.PROPOSED, decided_by__isnull=True, decided_at__isnull=True)
                | (~Q(state=EpochState.PROPOSED) & Q(decided_by__isnull=False, decided_at__isnull=False)),
            ),
            # Two people: who proposes does not confirm.
            models.CheckConstraint(
                name="epoch_proposal_by_two",
                condition=~Q(state=EpochState.CONFIRMED) | ~Q(decided_by=models.F("proposed_by")),
            ),
            models.UniqueConstraint(
                name="epoch_proposal_open_once", fields=["state"], condition=Q(state=EpochState.PROPOSED)
            ),
            models.UniqueConstraint(
                name="epoch_begins_once", fields=["epoch"], condition=Q(state=EpochState.CONFIRMED)
            ),
        )

    def __str__(self) -> str:
        return self.proposal_id
