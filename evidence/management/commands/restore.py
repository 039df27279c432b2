"""``manage.py restore FILE``: the SQLite database becomes what a backup holds, and verifies."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand

from evidence.domain import backups
from evidence.domain.clock import system_clock
from evidence.management.refusals import as_command_error, say_copy


class Command(BaseCommand):
    """Exit code 0: restored, and it verifies. 1: refused, or it does not."""

    help = (
        "Restore a file that manage.py backup wrote. Stop worker and web servers first. What the database held is "
        "kept in a file beside it. When it had entries that the backup has not, say why they are to be lost; "
        "afterwards two people start a new epoch (manage.py new_epoch)."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE", help="a file that manage.py backup wrote")
        parser.add_argument(
            "--force",
            metavar="REASON",
            default="",
            help="lose entries that the backup does not have, and why",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        with as_command_error():
            copied = backups.restore(options["file"], clock=system_clock, force=options["force"])
        if copied.kept:
            self.stdout.write(f"What was there before is kept in {copied.kept}.")
        if copied.unsigned:
            self.stderr.write(
                f"Its last head is not signed, so nothing outside shows the loss: {copied.unsigned} "
                "Start a new epoch with --not-behind."
            )
        for sentence in copied.behind:
            self.stdout.write(f"Nothing live is done with it. {sentence}")
        say_copy(self, copied.report, "this database")
