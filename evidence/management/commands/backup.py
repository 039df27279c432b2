"""``manage.py backup FILE``: a copy of the SQLite database, verified."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand

from evidence.domain import backups
from evidence.management.refusals import as_command_error, say_copy


class Command(BaseCommand):
    """Exit code 0: the copy verifies. 1: refused, or it does not."""

    help = (
        "Copy the SQLite database into a new file while the service goes on, verify the copy and say its head. "
        "On PostgreSQL use pg_dump (docs/operating.md). SECRET_KEY, the ledger's keys and the secrets of connectors "
        "are not in it."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE", help="a file that is not there yet")

    def handle(self, *args: Any, **options: Any) -> None:
        with as_command_error():
            copied = backups.back_up(options["file"])
        say_copy(self, copied.report, str(options["file"]))
