"""Records a second through the ledger, beside the same rows in plain tables with the same columns and indexes."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.db import connection, models, transaction

from evidence.domain import ledger
from evidence.models import CaseLink, LedgerHead, MerkleNode, Record, RecordKey, SealEntry
from tests.evidence import documents

LEDGER_TABLES = (Record, RecordKey, SealEntry, CaseLink, MerkleNode)
BATCH = 500


@dataclass(frozen=True)
class Rate:
    """Records a second, ``at_once`` in one transaction."""

    at_once: int
    records: int
    ledger: float
    plain: float

    @property
    def share(self) -> float:
        """The ledger's rate as a part of the plain one."""
        return self.ledger / self.plain


def measure(*, one_by_one: int, batched: int) -> list[Rate]:
    """Rates of so many documents of all kinds, one a transaction and ``BATCH`` of them."""
    with _plain_tables() as plain:
        return [_rate(plain, one_by_one, 1), _rate(plain, batched, BATCH)]


def _rate(plain: "dict[type[models.Model], type[models.Model]]", count: int, at_once: int) -> Rate:
    """Append ``count`` documents, built before, then insert the rows that they became once more elsewhere."""
    drafts = list(documents.drafts(count))
    begin = LedgerHead.objects.get().size
    through_ledger = _timed(drafts, at_once, ledger.append)
    groups = [
        _rows(plain, first, min(first + at_once, begin + count))
        for first in range(begin, begin + count, at_once)
    ]
    through_tables = _timed(groups, 1, lambda group: [_insert(rows) for rows in group])
    return Rate(at_once, count, count / through_ledger, count / through_tables)


def _timed(items: Sequence[Any], at_once: int, act: Callable[[Sequence[Any]], object]) -> float:
    """Seconds that ``act`` takes over all items, ``at_once`` in a transaction."""
    began = time.perf_counter()
    for first in range(0, len(items), at_once):
        with transaction.atomic():
            act(items[first : first + at_once])
    return time.perf_counter() - began


def _rows(
    plain: "dict[type[models.Model], type[models.Model]]", start: int, stop: int
) -> dict[type[models.Model], list[models.Model]]:
    """Rows of the plain tables that repeat what entries ``start`` to before ``stop`` stored."""
    found: dict[type[models.Model], list[models.Model]] = {}
    for model, copy in plain.items():
        names = [field.attname for field in model._meta.local_concrete_fields]
        rows = model._base_manager.filter(_of_entries(model, start, stop)).values_list(*names)
        found[copy] = [copy(**dict(zip(names, row, strict=True))) for row in rows]
    return found


def _of_entries(model: type[models.Model], start: int, stop: int) -> models.Q:
    if model is MerkleNode:
        # The nodes that these leaves complete: their last leaf is one of them.
        there = models.Q()
        for level in range(stop.bit_length()):
            there |= models.Q(level=level, index__gte=start >> level, index__lt=stop >> level)
        return there
    column = "record" if model is RecordKey else "index"
    return models.Q(**{f"{column}__gte": start, f"{column}__lt": stop})


def _insert(rows: dict[type[models.Model], list[models.Model]]) -> None:
    for model, new in rows.items():
        model._base_manager.bulk_create(new)


@contextmanager
def _plain_tables() -> "Iterator[dict[type[models.Model], type[models.Model]]]":
    """Copies of the ledger's tables with the same columns and indexes: no guards, no head, nothing derived."""
    copies = {model: _copy(model) for model in LEDGER_TABLES}
    with connection.schema_editor() as editor:
        for copy in copies.values():
            editor.create_model(copy)
    try:
        yield copies
    finally:
        with connection.schema_editor() as editor:
            for copy in copies.values():
                editor.delete_model(copy)


def _copy(model: type[models.Model]) -> type[models.Model]:
    name = f"Plain{model.__name__}"
    known = apps.all_models["benchmarks"].get(name.lower())
    if known:
        return known
    meta = {
        "app_label": "benchmarks",
        "db_table": f"benchmark_{model._meta.db_table}",
        "indexes": [_renamed(index) for index in model._meta.indexes],
    }
    fields = {field.name: field.clone() for field in model._meta.local_fields}
    return type(name, (models.Model,), {**fields, "Meta": type("Meta", (), meta), "__module__": __name__})


def _renamed(index: models.Index) -> models.Index:
    copy = index.clone()
    copy.name = f"b_{index.name}"
    return copy
