"""Applies migrations to guarded tables with real ``migrate`` runs and reports after each (see test_rebuilds).

Run as a program of its own, on a scratch database, with the migrations of ``evidence`` taken from a
folder that the test has written; prints one JSON object per line.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import django

django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import DatabaseError, connection  # noqa: E402
from django.db.models.signals import post_migrate, pre_migrate  # noqa: E402

from evidence import guards  # noqa: E402
from tests.evidence.rows import one_of_each  # noqa: E402


def rebuilt_tables(seen: set[str]) -> Callable[..., Any]:
    """Notes each table of ours that is dropped and written anew, as SQLite's schema editor does it."""

    def note(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith('DROP TABLE "'):
            seen.add(sql.split('"')[1])
        return execute(sql, params, many, context)

    return note


@contextmanager
def without_signals() -> Iterator[None]:
    """The same migration in a product that had no ``installation``."""
    kept = pre_migrate.receivers, post_migrate.receivers
    pre_migrate.receivers, post_migrate.receivers = [], []
    for signal in (pre_migrate, post_migrate):
        signal.sender_receivers_cache.clear()
    yield
    pre_migrate.receivers, post_migrate.receivers = kept
    for signal in (pre_migrate, post_migrate):
        signal.sender_receivers_cache.clear()


def migrate(name: str) -> None:
    """Migrate to ``name``; ``!name`` does it without the product's signals."""
    seen: set[str] = set()
    failed = ""
    with connection.execute_wrapper(rebuilt_tables(seen)):
        try:
            with without_signals() if name.startswith("!") else nullcontext():
                call_command("migrate", "evidence", name.removeprefix("!"), verbosity=0)
        except DatabaseError as error:
            failed = type(error).__name__
    report = {"name": name, "rebuilt": sorted(seen), "differences": guards.differences(), "failed": failed}
    sys.stdout.write(json.dumps(report) + "\n")


def contents() -> dict[str, list[Any]]:
    """Primary keys in every guarded table."""
    from django.apps import apps

    labels = {guard.model for guard in guards.GUARDS}
    return {
        label: sorted(apps.get_model(label).objects.values_list("pk", flat=True), key=str) for label in labels
    }


if __name__ == "__main__":
    first, *others = sys.argv[1:]
    call_command("migrate", "evidence", first, verbosity=0)
    call_command("migrate", "recovery", verbosity=0)
    one_of_each()
    before = contents()
    for migration in others:
        migrate(migration)
    sys.stdout.write(json.dumps({"name": "contents", "kept": contents() == before}) + "\n")
