"""Recoveries of connectors, their playbooks and closures."""

from django.db import models
from django.db.models import Q

from evidence.models import Case, Connector, Person
from recovery.enums import ClosureState, RecoveryState


class Recovery(models.Model):
    """One connector's unsettled trouble, per epoch."""

    connector = models.ForeignKey(Connector, on_delete=models.PROTECT, related_name="recoveries")
    epoch = models.PositiveIntegerField()
    state = models.CharField(
        max_length=12, choices=[(s, s) for s in RecoveryState], default=RecoveryState.OPEN
    )
    opened_at = models.DateTimeField()
    owner = models.CharField(max_length=120, blank=True)
    review_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "recoveries"
        ordering = ("-opened_at", "-pk")
        constraints = (
            models.CheckConstraint(name="recovery_state_known", condition=Q(state__in=list(RecoveryState))),
            models.UniqueConstraint(name="recovery_once_per_epoch", fields=["connector", "epoch"]),
            models.UniqueConstraint(
                name="recovery_one_unfinished",
                fields=["connector"],
                condition=~Q(state__in=[RecoveryState.RESOLVED, RecoveryState.REOPENED]),
            ),
        )

    def __str__(self) -> str:
        return f"recovery {self.epoch} of {self.connector}"


class RecoveryCase(models.Model):
    """A case that a recovery is about."""

    recovery = models.ForeignKey(Recovery, on_delete=models.PROTECT, related_name="items")
    case = models.ForeignKey(Case, on_delete=models.PROTECT, related_name="recovery_items")
    listed_at = models.DateTimeField()

    class Meta:
        constraints = (models.UniqueConstraint(name="recovery_case_once", fields=["recovery", "case"]),)

    def __str__(self) -> str:
        return f"{self.case} in {self.recovery}"


class Playbook(models.Model):
    """A guidance document; it may speak of several recoveries."""

    playbook_id = models.CharField(max_length=40, unique=True)
    created_at = models.DateTimeField()
    created_by = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    record_hash = models.CharField(max_length=64)

    class Meta:
        ordering = ("-created_at", "-pk")

    def __str__(self) -> str:
        return self.playbook_id


class PlaybookItem(models.Model):
    """One recovery as a playbook describes it. A recovery's newest item is its playbook."""

    playbook = models.ForeignKey(Playbook, on_delete=models.PROTECT, related_name="items")
    recovery = models.ForeignKey(Recovery, on_delete=models.PROTECT, related_name="playbook_items")

    class Meta:
        ordering = ("-playbook__created_at", "-pk")
        constraints = (
            models.UniqueConstraint(name="recovery_once_per_playbook", fields=["playbook", "recovery"]),
        )

    def __str__(self) -> str:
        return f"{self.playbook} on {self.recovery}"


class Closure(models.Model):
    """A recorded outcome of a recovery; an older one stays when the recovery is reopened."""

    closure_id = models.CharField(max_length=60, unique=True)
    recovery = models.ForeignKey(Recovery, on_delete=models.PROTECT, related_name="closures")
    playbook = models.ForeignKey(Playbook, on_delete=models.PROTECT, related_name="closures")
    state = models.CharField(max_length=12, choices=[(s, s) for s in ClosureState])
    closed_by = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    closed_at = models.DateTimeField()
    record_hash = models.CharField(max_length=64)

    class Meta:
        ordering = ("-closed_at", "-pk")
        constraints = (
            models.CheckConstraint(name="closure_state_known", condition=Q(state__in=list(ClosureState))),
        )

    def __str__(self) -> str:
        return self.closure_id


class StepTick(models.Model):
    """Somebody did a step of a recovery's playbook, or took that back; the newest word on a step counts."""

    tick_id = models.CharField(max_length=60, unique=True)
    recovery = models.ForeignKey(Recovery, on_delete=models.PROTECT, related_name="ticks")
    step_key = models.CharField(max_length=40)
    done = models.BooleanField()
    note = models.CharField(max_length=300, blank=True)
    ticked_by = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    ticked_at = models.DateTimeField()
    record_hash = models.CharField(max_length=64)

    class Meta:
        ordering = ("ticked_at", "pk")

    def __str__(self) -> str:
        return f"{self.step_key} of {self.recovery}"
