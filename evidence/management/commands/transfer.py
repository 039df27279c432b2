"""``manage.py transfer --to URL``: from SQLite to PostgreSQL, every byte of it, and this database is closed."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from evidence.domain import transfers
from evidence.domain.clock import system_clock
from evidence.management.refusals import as_command_error, say_copy


class Command(BaseCommand):
    """Exit code 0: moved, and the target verifies. 1: refused; this database goes on as before."""

    help = (
        "Move this SQLite database into an empty PostgreSQL database: copy every table, derive the tree again there, "
        "require the same root, then close this database for good. Stop worker and web servers first; afterwards "
        "start them with the new DATABASE_URL."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--to", required=True, metavar="URL", help="postgresql://USER:PASSWORD@HOST/NAME")
        parser.add_argument("--reason", default="", metavar="TEXT", help="what the record of it says")

    def handle(self, *args: Any, **options: Any) -> None:
        with as_command_error():
            done = transfers.transfer(
                options["to"],
                clock=system_clock,
                reason=options["reason"],
                progress=lambda table, rows: self.stdout.write(f"{table}: {rows:,}"),
            )
        self.stdout.write(f"{done.rows:,} rows are in {done.to} now; this database is closed.")
        say_copy(self, done.report, done.to)
