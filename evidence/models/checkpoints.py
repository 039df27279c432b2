"""Signed heads of the log, the keys that sign them, and where heads are held outside (DESIGN §5).

A signed head is no record: signing must not make something new to sign. No foreign keys, like the ledger.
"""

from django.db import models
from django.db.models import Q

from evidence.enums import Administration, AnchorMeans, KeyState


class LedgerKey(models.Model):
    """A key that signs heads under one name, the log's origin; the private half is never in the database."""

    name = models.CharField(max_length=200)
    public_key = models.BinaryField(max_length=32, help_text="Ed25519, the 32 bytes of RFC 8032.")
    key_id = models.CharField(max_length=8, help_text="Four bytes in hex by which signatures name the key.")
    state = models.CharField(max_length=8, choices=[(s, s) for s in KeyState], default=KeyState.ACTIVE)
    introduced_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)
    reason = models.CharField(max_length=300, blank=True, help_text="Why it was retired or revoked.")

    class Meta:
        ordering = ("pk",)
        constraints = (
            models.UniqueConstraint(name="ledger_key_once_a_name", fields=["name", "public_key"]),
            models.CheckConstraint(name="ledger_key_state_known", condition=Q(state__in=list(KeyState))),
            models.CheckConstraint(
                name="ledger_key_ended_in_pair",
                condition=Q(state=KeyState.ACTIVE, ended_at__isnull=True)
                | Q(~Q(state=KeyState.ACTIVE), ended_at__isnull=False),
            ),
        )

    def __str__(self) -> str:
        return f"{self.name} {self.key_id}"


class Checkpoint(models.Model):
    """A head of the log as it was signed. ``peaks`` are what the root folds from, as in ``LedgerHead``."""

    origin = models.CharField(max_length=200)
    epoch = models.PositiveIntegerField()
    size = models.BigIntegerField()
    root = models.BinaryField(max_length=32)
    peaks = models.BinaryField()
    note = models.TextField(help_text="C2SP tlog-checkpoint with its signatures.")
    created_at = models.DateTimeField()

    class Meta:
        ordering = ("-pk",)
        # One root for each size: a second one would be a fork. Proofs look the size up.
        constraints = (models.UniqueConstraint(name="checkpoint_once_a_size", fields=["size", "origin"]),)

    def __str__(self) -> str:
        return f"{self.origin} at {self.size}"


class SigningRefusal(models.Model):
    """Why the newest attempt to sign a head was refused; no row when it was not."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    code = models.CharField(max_length=40)
    detail = models.CharField(max_length=600)
    at = models.DateTimeField()

    class Meta:
        constraints = (models.CheckConstraint(name="signing_refusal_is_one", condition=Q(id=1)),)

    def __str__(self) -> str:
        return self.code


class Anchor(models.Model):
    """A signed head that is held outside this database, and what its keeper gave as proof."""

    anchor_id = models.CharField(max_length=60, unique=True)
    origin = models.CharField(max_length=200)
    size = models.BigIntegerField()
    root = models.BinaryField(max_length=32)
    note = models.TextField(help_text="The signed head exactly as it was handed over.")
    means = models.CharField(max_length=16, choices=[(m, m) for m in AnchorMeans])
    place = models.CharField(max_length=500)
    administered_by = models.CharField(max_length=16, choices=[(a, a) for a in Administration])
    attested_at = models.DateTimeField(null=True, help_text="The keeper's own time, when it gave one.")
    proof = models.BinaryField(help_text="Commit id, time-stamp token or cosignature, as received.")
    created_at = models.DateTimeField()
    record_hash = models.CharField(max_length=64)

    class Meta:
        ordering = ("-pk",)
        indexes = (models.Index(name="anchor_by_size", fields=["size"]),)
        constraints = (
            models.CheckConstraint(name="anchor_means_known", condition=Q(means__in=list(AnchorMeans))),
            models.CheckConstraint(
                name="anchor_administration_known", condition=Q(administered_by__in=list(Administration))
            ),
        )

    def __str__(self) -> str:
        return f"{self.means} at {self.size}"
