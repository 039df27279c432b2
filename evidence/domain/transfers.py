"""Moving the whole database from SQLite to PostgreSQL: every byte, every id, the same tree; then the source is closed.

The source is held under its write lock from the first row read to its closing: nothing is written there that
is not carried over. The target takes part only when it is empty, and counts only when it verifies.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from django.apps import apps
from django.core.management import call_command
from django.core.management.color import no_style
from django.db import DatabaseError, connection, connections, models, transaction
from django.db.migrations.recorder import MigrationRecorder

from evidence import guards
from evidence.documents import TRANSFER
from evidence.domain import clock as clocks
from evidence.domain import databases, heartbeats, ledger, live, merkle, records, text, verification
from evidence.domain.clock import Clock
from evidence.domain.databases import Settings
from evidence.domain.verification import Report
from evidence.errors import Conflict, DomainError, InvalidInput
from evidence.models import LedgerHead

CHUNK = 500
SOURCE = "source"
Model = type[models.Model]
# Hears which table was carried over and how many rows it has.
Progress = Callable[[str, int], None]


@dataclass(frozen=True)
class Transferred:
    """What was carried over, and the target's verification with the record of the transfer in it."""

    rows: int
    report: Report
    to: str


def transfer(
    url: str, *, clock: Clock, reason: str = "", progress: Progress = lambda table, rows: None
) -> Transferred:
    """Carry this database over into the empty PostgreSQL database at ``url``, verify it there, and close this one.

    Raises ``InvalidInput`` ``url``; ``Conflict``: ``not_sqlite``, ``worker_alive``, ``ledger_closed`` or
    ``ledger_behind``, ``source_differs`` when the source does not verify, ``target_not_empty``,
    ``target_differs`` when the target is not the same afterwards. After any of them the source goes on as before.
    """
    target = databases.postgresql(url)
    reason = text.clean(reason, field="reason", limit=text.MAX_NOTES, lines=True)
    _require_source(clock)
    here, there = databases.label(connection.settings_dict), databases.label(target)
    with transaction.atomic():
        head = LedgerHead.objects.select_for_update(no_key=True).get()
        at = clocks.read(clock)
        root = merkle.root(merkle.split(head.peaks)).hex()
        with _in(target):
            counts = _filled(progress)
            _require_same(head, root, verification.report())
            with transaction.atomic():
                ledger.append(
                    [
                        records.draft(
                            TRANSFER,
                            records.mint_id(TRANSFER),
                            {
                                "origin": head.origin,
                                "size": head.size,
                                "root": root,
                                "row_count": counts,
                                "from_database": here,
                                "to_database": there,
                                "reason": reason,
                                "at": records.timestamp(at),
                            },
                            at=at,
                            by=None,
                        )
                    ]
                )
            report = verification.report()
        LedgerHead.objects.update(closed_to=there)
    return Transferred(counts, report, there)


# --- what has to be so before ------------------------------------------------------------------------------------


def _require_source(clock: Clock) -> None:
    if connection.vendor != "sqlite":
        raise Conflict("Not moved: this database is no SQLite file.", code="not_sqlite")
    if heartbeats.alive(clock=clock):
        raise Conflict(
            "Not moved: a worker was heard of in the last minute. Stop it and the web servers first.",
            code="worker_alive",
        )
    for code, sentence in live.reasons_against_log(live.LogState.read()):
        raise Conflict(f"Not moved. {sentence}", code=code)
    found = verification.report()
    if found.first is not None:
        raise Conflict(f"Not moved: this database does not verify. {found.first}", code="source_differs")


def _in(target: Settings) -> Any:
    return databases.instead(target, keep_as=SOURCE)


def _require_empty() -> None:
    try:
        tables = connection.introspection.table_names()
    except DatabaseError as error:
        raise InvalidInput(f"Not moved: the target does not answer: {error}", code="url") from error
    if tables:
        raise Conflict(
            f"Not moved: the target holds tables already ({', '.join(sorted(tables)[:3])} …). Make a new, empty "
            "database for it.",
            code="target_not_empty",
        )


# --- carrying over ------------------------------------------------------------------------------------------------


def _filled(progress: Progress) -> int:
    """Make the target's tables and fill them; how many rows they have."""
    _require_empty()
    call_command("migrate", verbosity=0, interactive=False)
    _require_same_migrations()
    found = _models()
    with transaction.atomic():
        # What migrating wrote of itself: a first entry, roles, kinds of content.
        guards.drop()
        _emptied(found)
        counts = {model: _carried(model, progress) for model in found}
        _count_on(found)
    guards.install()
    for model, rows in counts.items():
        own, theirs = (model._base_manager.using(alias).count() for alias in (SOURCE, connection.alias))
        if not rows == own == theirs:
            raise _differs(f"{model._meta.db_table} has {theirs:,} rows, the source {own:,}.")
    return sum(counts.values())


def _models() -> list[Model]:
    """Every table of every app, the tables between two tables included."""
    return [
        model
        for model in apps.get_models(include_auto_created=True)
        if model._meta.managed and not model._meta.proxy
    ]


def _require_same_migrations() -> None:
    own, theirs = (
        set(MigrationRecorder(connections[alias]).applied_migrations())
        for alias in (SOURCE, connection.alias)
    )
    if own != theirs:
        raise Conflict("Not moved: run manage.py migrate on this database first.", code="not_migrated")


def _emptied(found: Sequence[Model]) -> None:
    tables = [model._meta.db_table for model in found]
    with connection.cursor() as cursor:
        for statement in connection.ops.sql_flush(no_style(), tables, allow_cascade=True):
            cursor.execute(statement)


def _carried(model: Model, progress: Progress) -> int:
    """Copy one table, some rows at a time. References are compared when all tables are there, at the commit."""
    fields = model._meta.local_concrete_fields
    columns = ", ".join(connection.ops.quote_name(str(field.column)) for field in fields)
    table = connection.ops.quote_name(model._meta.db_table)
    insert = f"INSERT INTO {table} ({columns}) VALUES ({', '.join(['%s'] * len(fields))})"  # noqa: S608  (our own names)
    order = [field.attname for field in model._meta.pk_fields]
    rows = (
        model._base_manager.using(SOURCE)
        .order_by(*order)
        .values_list(*(field.attname for field in fields))
        .iterator(chunk_size=CHUNK)
    )
    count = 0
    with connection.cursor() as cursor:
        for chunk in _chunks(rows):
            cursor.executemany(
                insert,
                [
                    [
                        field.get_db_prep_save(value, connection)
                        for field, value in zip(fields, row, strict=True)
                    ]
                    for row in chunk
                ],
            )
            count += len(chunk)
    progress(model._meta.db_table, count)
    return count


def _chunks(rows: Iterable[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    remaining = iter(rows)
    while chunk := list(islice(remaining, CHUNK)):
        yield chunk


def _count_on(found: Sequence[Model]) -> None:
    """Let generated keys go on after the largest that was carried over."""
    with connection.cursor() as cursor:
        for statement in connection.ops.sequence_reset_sql(no_style(), list(found)):
            cursor.execute(statement)


def _require_same(head: LedgerHead, root: str, report: Report) -> None:
    """The target's tree, derived again from its own bytes, is the source's."""
    if report.first is not None:
        raise _differs(f"it does not verify. {report.first}")
    if (report.origin, report.records, report.root) != (head.origin, head.size, root):
        raise _differs(f"its tree is {report.origin} at {report.records:,}, root {report.root}.")


def _differs(what: str) -> DomainError:
    return Conflict(f"Not moved; drop the target database. There, {what}", code="target_differs")
