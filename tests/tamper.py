"""A stolen login of the database: guards are dropped, rows changed behind the product's back, guards put back."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, models, transaction

from evidence import guards
from evidence.documents import KINDS
from evidence.domain import checkpoints, merkle, records, replay
from evidence.domain.differences import Difference
from evidence.domain.replay import Fold
from evidence.models import (
    CaseLink,
    LedgerHead,
    MerkleNode,
    Record,
    RecordKey,
    SealEntry,
)

# Rows of a table that are tried before a column counts as one that the database itself protects.
ROWS_TRIED = 12


class Told:
    """What the records of a world say; its rows are held against that after each change."""

    def __init__(self) -> None:
        self.size = LedgerHead.objects.get().size
        self.fold: Fold = replay.folded(self.size)

    def differences(self, *models: str) -> list[Difference]:
        """In what the rows of these tables differ, or of all of them."""
        return list(replay.compare(self.fold, self.size, models or None))

    def empty(self) -> list[str]:
        """Tables that records tell and that have no row here."""
        return [label for label in replay.TABLES if not apps.get_model(label)._base_manager.exists()]


@contextmanager
def undone() -> Iterator[None]:
    """What happens inside never happened."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)
    shutil.rmtree(checkpoints.outside_path().parent, ignore_errors=True)


@contextmanager
def stolen_login() -> Iterator[None]:
    """Guards are away inside, and back afterwards."""
    connection.check_constraints()  # PostgreSQL alters no table that a deferred check still waits for
    guards.drop()
    yield
    connection.check_constraints()
    guards.install()


def columns(app: str) -> list[tuple[str, str]]:
    """Every column of an app's state and evidence that the records tell, for a test each."""
    found = []
    for label, table in replay.TABLES.items():
        if label.startswith(f"{app}."):
            listed = replay.NOT_EVIDENCE.get(label, {})
            fields = apps.get_model(label)._meta.local_concrete_fields
            keys = {field.name for field in apps.get_model(label)._meta.pk_fields}
            named = {path.partition("__")[0] for path in table.paths()}
            found += [
                (label, field.name)
                for field in fields
                if field.name not in listed and (field.name not in keys or field.name in named)
            ]
    return sorted(found)


def tables(app: str) -> list[str]:
    """Tables of an app's state and evidence that the records tell."""
    return sorted(label for label in replay.TABLES if label.startswith(f"{app}."))


def told_rows(label: str) -> models.QuerySet[models.Model]:
    """The rows of a table that records speak of, in the order of their keys."""
    return apps.get_model(label)._base_manager.filter(replay.TABLES[label].only).order_by("pk")


def unnoticed_flips(told: Told, label: str, column: str) -> list[str]:
    """Ways to change one column of a row after which nothing differs; no row that can be changed is one too.

    What the table itself refuses (a check, a key) is no way. Of many rows the first that lets itself be changed.
    """
    model = apps.get_model(label)
    field: Any = model._meta.get_field(column)
    refused = False
    for row in told_rows(label)[:ROWS_TRIED]:
        tried, unnoticed = 0, []
        for value in others(field, getattr(row, field.attname)):
            with undone():
                if not done(
                    lambda row=row, value=value: model._base_manager.filter(pk=row.pk).update(
                        **{field.attname: value}
                    )
                ):
                    refused = True
                    continue
                tried += 1
                if not told.differences(label):
                    unnoticed.append(f"{row}: {column} = {value!r}")
        if tried:
            return unnoticed
    return [] if refused else [f"no row of {label} has anything in {column}"]


def unnoticed_deletions(told: Told, label: str) -> list[str]:
    """Rows of a table that can go, each by itself, and nothing differs."""
    model = apps.get_model(label)
    unnoticed = []
    for pk in told_rows(label).values_list("pk", flat=True)[:ROWS_TRIED]:
        with undone():
            delete(model, pk)
            if not told.differences(label):
                unnoticed.append(f"{label} {pk}")
    return unnoticed


def forged_unnoticed(told: Told, label: str) -> bool:
    """Whether a copy of a row under another name makes no difference; False too when the table refuses all."""
    model = apps.get_model(label)
    for row in told_rows(label)[:ROWS_TRIED]:
        for values in _copies(model, row):
            with undone():
                if done(lambda values=values: model._base_manager.bulk_create([model(**values)])):
                    return not told.differences(label)
    return False


def done(change: Callable[[], object]) -> bool:
    """Whether the database let it happen."""
    try:
        with transaction.atomic():
            change()
    except DatabaseError:
        return False
    return True


def others(field: Any, value: Any) -> Iterator[Any]:
    """Values that a column does not have, likely ones first."""
    if field.is_relation:
        for other in field.related_model._base_manager.exclude(pk=value).order_by("pk")[:4]:
            yield other.pk
        if field.null and value is not None:
            yield None
    elif field.choices:
        yield from (choice for choice, _ in field.choices if choice != value)
        if field.blank and value:
            yield ""
    elif isinstance(field, models.BooleanField):
        yield not value
    elif isinstance(field, models.DateTimeField):
        yield value + timedelta(microseconds=1) if value else datetime(2026, 1, 1, tzinfo=UTC)
        if field.null and value:
            yield None
    elif isinstance(field, models.IntegerField):
        yield (value or 0) + 1
        yield (value or 0) + 1_000
    elif isinstance(field, models.BinaryField):
        data = bytes(value or b"\0")
        yield data[:-1] + bytes([data[-1] ^ 1])
    elif isinstance(field, models.JSONField):
        yield {**value, "max_retry_attempts": 9, "state": "other"}
    else:
        yield f"{value[:-1]}~" if value else "~"


def _copies(model: type[models.Model], row: models.Model) -> Iterator[dict[str, Any]]:
    """Columns of rows like this one under another key: as it is, then with one more column changed."""
    fields = [field for field in model._meta.local_concrete_fields if not isinstance(field, models.AutoField)]
    copy = {field.attname: getattr(row, field.attname) for field in fields}
    for field in fields:
        if field.unique:
            copy[field.attname] = next(others(field, copy[field.attname]), None)
    yield copy
    for field in fields:
        yield from ({**copy, field.attname: value} for value in others(field, getattr(row, field.attname)))


def delete(model: type[models.Model], *pks: Any) -> None:
    """Rows gone, whatever refers to them."""
    table = connection.ops.quote_name(model._meta.db_table)
    key = connection.ops.quote_name(model._meta.pk.column)
    with connection.cursor() as cursor:
        for pk in pks:
            cursor.execute(f"DELETE FROM {table} WHERE {key} = %s", [pk])


def rebuild_from(index: int, document: dict[str, Any]) -> str:
    """Another body for one record, and everything in the log that follows from it made anew; the body's digest.

    Chains, leaves, tree, head and search keys fit each other again: only a head from outside knows better.
    """
    record = Record.objects.get(index=index)
    body = records.canonical(document)
    digest = records.digest(body)
    Record.objects.filter(index=index).update(body=body, digest=digest, size=len(body))
    RecordKey.objects.filter(record=index).delete()
    kind = KINDS[record.kind]
    RecordKey.objects.bulk_create(
        RecordKey(name=name, value=value, created_at=record.created_at, record=index)
        for name, value in records.search_keys(kind, document)
    )
    _seal_again(index)
    return digest


def model_of(label: str) -> type[models.Model]:
    """The model of a label."""
    return apps.get_model(label)


def _seal_again(first: int) -> None:
    leaves: dict[tuple[str, int], str] = {}
    for seal in SealEntry.objects.filter(index__gte=first).order_by("index"):
        said = json.loads(bytes(seal.entry))
        record = Record.objects.get(index=seal.index)
        said["body"] = {"sha256": record.digest, "size": record.size}
        for case in said["cases"]:
            case["prev"] = leaves.get((case["case"], case["n"] - 1), case["prev"])
        entry = records.canonical(said)
        leaf = merkle.leaf_hash(entry)
        SealEntry.objects.filter(index=seal.index).update(entry=entry, leaf_hash=leaf)
        CaseLink.objects.filter(index=seal.index).update(leaf_hash=leaf)
        leaves |= {(case["case"], case["n"]): leaf.hex() for case in said["cases"]}
    head_again(None)


def head_again(size: int | None) -> None:
    """Tree nodes and head made anew from the leaves that are there; ``size`` is the new one, if it changed."""
    peaks: list[bytes] = []
    for seal in SealEntry.objects.order_by("index"):
        peaks, completed = merkle.append(peaks, seal.index, bytes(seal.leaf_hash))
        for level, place, digest in completed:
            MerkleNode.objects.filter(level=level, index=place).update(hash=digest)
    newest = Record.objects.order_by("-created_at").values_list("created_at", flat=True).first()
    LedgerHead.objects.update(peaks=b"".join(peaks), newest_at=newest, **({"size": size} if size else {}))


def verified(*arguments: str) -> tuple[str, str, int]:
    """What ``manage.py verify_ledger`` prints, what it ends with, and its exit code."""
    out = StringIO()
    try:
        call_command("verify_ledger", *arguments, stdout=out, stderr=StringIO())
    except CommandError as error:
        return out.getvalue(), str(error), error.returncode
    return out.getvalue(), "", 0
