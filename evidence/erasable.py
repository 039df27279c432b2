"""What goes when a record is erased: every place outside the ledger's proofs that holds its bytes or its free text.

One table. ``evidence.domain.erasures`` clears what is listed here, and the guards let exactly that be cleared, and
only while a confirmed erasure names the record and no legal hold stands on it (P24). Another app adds its own places.
What is not a column (a file, bytes derived from several records) is cleared by a function, see
``evidence.domain.erasures.register``.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.db import models


@dataclass(frozen=True)
class Place:
    """Columns of a model, ``app.Model``, that are emptied with the record that ``named_by`` leads to.

    ``named_by`` is a path of fields ending in the record's id (``case__package__audit_id``). ``rows`` means that
    the row itself goes, found by the record's place in the log in the column ``named_by``. ``holds`` stands instead
    of a path where a row holds the bytes of many records: SQL over ``OLD``, the erasure ``e`` and its item ``i``. A
    function clears such a row.
    """

    model: str
    columns: tuple[str, ...] = ()
    named_by: str = "record_id"
    rows: bool = False
    holds: str = ""

    @property
    def cls(self) -> type[models.Model]:
        """The model itself."""
        return apps.get_model(self.model)

    def empty(self, column: str) -> Any:
        """What an emptied column holds: null where it may be, else the empty text or bytes."""
        field = self.cls._meta.get_field(column)
        if field.null:
            return None
        return b"" if isinstance(field, models.BinaryField) else ""

    def sql(self) -> str:
        """SQL over ``OLD``: an erasure that was confirmed names its record, and no legal hold stands on it."""
        item = self.holds or f'i."{"index" if self.rows else "record_id"}" = {self._named()}'
        return (
            'EXISTS (SELECT 1 FROM "evidence_erasureitem" i JOIN "evidence_erasure" e ON e."id" = i."erasure_id" '  # noqa: S608  (names of our own tables)
            f"WHERE {item} AND e.\"state\" = 'confirmed' AND NOT EXISTS ("
            'SELECT 1 FROM "evidence_legalhold" h WHERE h."lifted_at" IS NULL '
            'AND (h."scope" = \'*\' OR h."scope" = i."record_id" OR EXISTS ('
            'SELECT 1 FROM "evidence_caselink" l WHERE l."case_id" = h."scope" AND l."index" = i."index") '
            # A package and a plan name no case, they were sent for some.
            'OR EXISTS (SELECT 1 FROM "evidence_case" c JOIN "evidence_auditpackage" p ON p."id" = c."package_id" '
            'JOIN "evidence_deliveryplan" d ON d."id" = c."plan_id" WHERE c."case_id" = h."scope" '
            'AND (p."audit_id" = i."record_id" OR d."delivery_id" = i."record_id")))))'
        )

    def _named(self) -> str:
        """SQL over ``OLD`` for the end of the path, one subquery for each step from table to table."""
        *steps, last = self.named_by.split("__")
        meta, value = self.cls._meta, ""
        for step in (*steps, last):
            field: Any = meta.get_field(step)
            column = field.column
            value = (
                f'(SELECT "{column}" FROM "{meta.db_table}" WHERE "{meta.pk.column}" = {value})'  # noqa: S608
                if value
                else f'OLD."{column}"'
            )
            if field.is_relation:
                meta = field.related_model._meta
        return value


PLACES: list[Place] = [
    Place("evidence.Record", columns=("body",)),
    # Those that say what the record is, which cases it is about and which ids it names stay: see erasures.stays.
    Place("evidence.RecordKey", rows=True, named_by="record"),
    Place("evidence.AttemptAnswer", columns=("excerpt",), named_by="attempt__record_id"),
    Place("evidence.SendDiagnostic", columns=("host", "address"), named_by="attempt__record_id"),
    Place("evidence.Route", columns=("external_ref", "notes"), named_by="acknowledgement_id"),
    Place("evidence.Route", columns=("reason",), named_by="plan__plan_id"),
    Place(
        "evidence.Capsule",
        columns=("content",),
        holds=(
            # Whatever was erased before it was made is not in it.
            'i."index" < OLD."log_size" AND e."decided_at" >= OLD."created_at" AND EXISTS ('
            'SELECT 1 FROM "evidence_caselink" k WHERE k."case_id" = OLD."case_id" AND k."index" = i."index")'
        ),
    ),
]


def register(places: Iterable[Place]) -> None:
    """Add another app's places."""
    PLACES.extend(place for place in places if place not in PLACES)


def of(model: str) -> Sequence[Place]:
    """The places in one model."""
    return [place for place in PLACES if place.model == model]
