"""``manage.py export_entries``: every seal entry in one file, for who checks a capsule without this service."""

import os
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from evidence.domain import exports
from evidence.management.refusals import as_command_error


class Command(BaseCommand):
    """Reads alone. The file is there whole or not at all."""

    help = (
        "Write every seal entry of the log into FILE, each behind its length as two bytes, big-endian "
        "(C2SP tlog-tiles). Entries hold neither free text nor names. For: verify.py --entries FILE."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE")

    def handle(self, *args: Any, file: str, **options: Any) -> None:
        path = Path(file)
        beside = path.with_name(path.name + ".new")
        written = 0
        try:
            with as_command_error(), beside.open("wb") as target:
                for entry in exports.seal_entries():
                    target.write(entry)
                    written += 1
            os.replace(beside, path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise CommandError(f"{file} cannot be written: {error.strerror}.") from error
        self.stdout.write(f"{written} entries written to {file}.")
