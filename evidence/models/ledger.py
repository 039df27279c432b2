"""Records and the Merkle log over their seal entries (DESIGN §5).

No foreign keys to subjects: ids are text, so that the log outlives and never blocks what it speaks of.
Everything here but head and counters is insert-only, guarded by the database (``evidence.guards``).
"""

from django.db import models


class Record(models.Model):
    """An immutable evidence document: RFC 8785 bytes with a nonce, found by its place in the log."""

    index = models.BigIntegerField(primary_key=True)
    record_id = models.CharField(max_length=60, unique=True)
    kind = models.CharField(max_length=90)
    created_at = models.DateTimeField()
    body = models.BinaryField(null=True, help_text="Null once erased; entry, place and proofs stay.")
    digest = models.CharField(max_length=64, help_text="SHA-256 of the body, hex.")
    size = models.PositiveIntegerField()

    class Meta:
        ordering = ("-created_at", "-index")
        indexes = (
            models.Index(name="record_newest", fields=["-created_at", "-index"]),
            models.Index(name="record_kind_newest", fields=["kind", "-created_at", "-index"]),
            models.Index(name="record_digest", fields=["digest"]),
        )

    def __str__(self) -> str:
        return self.record_id


class RecordKey(models.Model):
    """One filterable value of one record: a filter is one range of the primary key, newest last."""

    pk = models.CompositePrimaryKey("name", "value", "created_at", "record")
    name = models.CharField(max_length=32)
    value = models.CharField(max_length=200)
    created_at = models.DateTimeField()
    record = models.BigIntegerField()

    class Meta:
        # verify_ledger re-derives the keys of one record.
        indexes = (models.Index(name="record_key_of", fields=["record"]),)

    def __str__(self) -> str:
        return f"{self.name}={self.value}"


class SealEntry(models.Model):
    """The small leaf that commits to one record and names its cases; ``entry`` is its RFC 8785 bytes."""

    index = models.BigIntegerField(primary_key=True)
    entry = models.BinaryField()
    leaf_hash = models.BinaryField(max_length=32)

    class Meta:
        verbose_name_plural = "seal entries"

    def __str__(self) -> str:
        return f"entry {self.index}"


class CaseLink(models.Model):
    """Place ``n`` of a case's own chain: which entry, and its leaf hash for the next link to quote."""

    pk = models.CompositePrimaryKey("case_id", "n")
    case_id = models.CharField(max_length=90)
    n = models.PositiveIntegerField()
    index = models.BigIntegerField()
    leaf_hash = models.BinaryField(max_length=32)

    def __str__(self) -> str:
        return f"{self.case_id} #{self.n}"


class MerkleNode(models.Model):
    """Hash of one complete subtree: 2**level leaves from leaf index * 2**level on (RFC 6962)."""

    pk = models.CompositePrimaryKey("level", "index")
    level = models.PositiveSmallIntegerField()
    index = models.BigIntegerField()
    hash = models.BinaryField(max_length=32)

    def __str__(self) -> str:
        return f"node {self.level}/{self.index}"


class LedgerHead(models.Model):
    """The one row that serialises appends: size of the log and the peaks its root folds from."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    origin = models.CharField(max_length=200)
    epoch = models.PositiveIntegerField(default=1)
    size = models.BigIntegerField(default=0)
    peaks = models.BinaryField(
        default=b"", help_text="Hashes of the complete subtrees, largest first, 32 bytes each."
    )
    newest_at = models.DateTimeField(
        null=True, help_text="Time of the newest entry; rules never judge by less."
    )
    closed_to = models.CharField(
        max_length=200,
        blank=True,
        default="",
        db_default="",
        help_text="Where the log goes on; nothing is appended here any more.",
    )

    class Meta:
        constraints = (models.CheckConstraint(name="ledger_has_one_head", condition=models.Q(id=1)),)

    def __str__(self) -> str:
        return f"{self.origin} at {self.size}"


class RecordCounter(models.Model):
    """How many records of a kind are in a state; advanced with the append, recomputed by verify_ledger."""

    pk = models.CompositePrimaryKey("kind", "state")
    kind = models.CharField(max_length=90)
    state = models.CharField(max_length=100, blank=True)
    count = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.kind} {self.state}: {self.count}"
