"""Erasures, what keeps records from them, and how long a kind of record is kept (P24).

Ids of records and cases are text, like in the ledger: these rows speak of records, they never hold them.
"""

from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import F, Q

from evidence.enums import ErasureState
from evidence.models.people import Person


class RetentionRule(models.Model):
    """How long the bytes of one kind of record are kept, and under which basis they go afterwards.

    Configuration: an administrator edits it. It acts once an auditor who is somebody else has confirmed it as it
    stands; ``confirmed_terms`` is what they confirmed, so that an edited rule waits for its confirmation again.
    """

    kind = models.CharField(max_length=90, unique=True)
    keep_days = models.PositiveIntegerField(validators=[MinValueValidator(1)])
    legal_basis = models.CharField(max_length=200)
    enabled = models.BooleanField(default=True)
    edited_by = models.ForeignKey(
        Person, on_delete=models.PROTECT, null=True, related_name="+", editable=False
    )
    edited_at = models.DateTimeField(null=True, editable=False)
    confirmed_by = models.ForeignKey(
        Person, on_delete=models.PROTECT, null=True, related_name="+", editable=False
    )
    confirmed_at = models.DateTimeField(null=True, editable=False)
    confirmed_terms = models.CharField(max_length=64, blank=True, default="", editable=False)

    class Meta:
        ordering = ("kind",)
        constraints = (
            models.CheckConstraint(name="retention_keeps_a_day", condition=Q(keep_days__gte=1)),
            models.CheckConstraint(
                name="retention_confirmed_together",
                condition=Q(confirmed_by__isnull=True, confirmed_at__isnull=True, confirmed_terms="")
                | (Q(confirmed_by__isnull=False, confirmed_at__isnull=False) & ~Q(confirmed_terms="")),
            ),
        )

    def __str__(self) -> str:
        return self.kind


class Erasure(models.Model):
    """Some records whose bytes are to go: by two people, or under a retention rule (``rule``), which needs none."""

    # Also the id of the record that says that it happened.
    erasure_id = models.CharField(max_length=60, unique=True)
    legal_basis = models.CharField(max_length=200)
    reason = models.CharField(max_length=4000, blank=True)
    rule = models.ForeignKey(RetentionRule, on_delete=models.PROTECT, null=True, related_name="+")
    # Who answers for it (a service account's owner), and through which account it came.
    proposed_by = models.ForeignKey(Person, on_delete=models.PROTECT, null=True, related_name="+")
    proposed_through = models.ForeignKey(Person, on_delete=models.PROTECT, null=True, related_name="+")
    proposed_at = models.DateTimeField()
    proposal_id = models.CharField(max_length=60, blank=True)
    proposal_hash = models.CharField(max_length=64, blank=True)
    state = models.CharField(
        max_length=12, choices=[(s, s) for s in ErasureState], default=ErasureState.PROPOSED
    )
    decided_by = models.ForeignKey(Person, on_delete=models.PROTECT, null=True, related_name="+")
    decided_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-proposed_at", "-pk")
        constraints = (
            models.CheckConstraint(name="erasure_state_known", condition=Q(state__in=list(ErasureState))),
            models.CheckConstraint(
                name="erasure_by_people_or_rule",
                condition=Q(
                    rule__isnull=False,
                    proposed_by__isnull=True,
                    proposed_through__isnull=True,
                    decided_by__isnull=True,
                    proposal_id="",
                )
                | (
                    Q(rule__isnull=True, proposed_by__isnull=False, proposed_through__isnull=False)
                    & ~Q(proposal_id="")
                ),
            ),
            models.CheckConstraint(
                name="erasure_decided_together",
                condition=Q(state=ErasureState.PROPOSED, decided_by__isnull=True, decided_at__isnull=True)
                | (
                    ~Q(state=ErasureState.PROPOSED)
                    & Q(decided_at__isnull=False)
                    & (Q(decided_by__isnull=False) | Q(rule__isnull=False))
                ),
            ),
            # Two people: who proposes does not confirm.
            models.CheckConstraint(
                name="erasure_by_two",
                condition=~Q(state=ErasureState.CONFIRMED)
                | Q(rule__isnull=False)
                | ~Q(decided_by=F("proposed_by")),
            ),
        )
        # What waits for somebody, and the newest ones.
        indexes = (models.Index(name="erasure_by_state", fields=["state", "-id"]),)

    def __str__(self) -> str:
        return self.erasure_id


class ErasureItem(models.Model):
    """One record of an erasure. The guards let its bytes go only while such a row of a confirmed erasure names it."""

    erasure = models.ForeignKey(Erasure, on_delete=models.PROTECT, related_name="items")
    index = models.BigIntegerField()
    record_id = models.CharField(max_length=60)
    kind = models.CharField(max_length=90)
    digest = models.CharField(max_length=64)

    class Meta:
        ordering = ("index",)
        constraints = (models.UniqueConstraint(name="erasure_names_once", fields=["erasure", "index"]),)
        indexes = (
            # The guards and every page ask by the record.
            models.Index(name="erasure_item_record", fields=["record_id"]),
            models.Index(name="erasure_item_index", fields=["index"]),
        )

    def __str__(self) -> str:
        return self.record_id


class LegalHold(models.Model):
    """Nothing that a hold covers is erased until it is lifted: everything (``*``), a case, or one record."""

    ALL = "*"

    hold_id = models.CharField(max_length=60, unique=True)
    scope = models.CharField(max_length=90, help_text="* for everything, a case id or a record id.")
    reason = models.CharField(max_length=4000)
    placed_by = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    placed_at = models.DateTimeField()
    record_hash = models.CharField(max_length=64)
    lifted_by = models.ForeignKey(Person, on_delete=models.PROTECT, null=True, related_name="+")
    lifted_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-placed_at", "-pk")
        constraints = (
            models.CheckConstraint(
                name="hold_lifted_in_pair",
                condition=Q(lifted_by__isnull=True, lifted_at__isnull=True)
                | Q(lifted_by__isnull=False, lifted_at__isnull=False),
            ),
        )
        indexes = (
            # The guards ask which holds stand.
            models.Index(name="hold_standing", fields=["scope"], condition=Q(lifted_at__isnull=True)),
        )

    def __str__(self) -> str:
        return f"hold on {self.scope}"
