"""``manage.py verify_ledger``: is everything stored as the log says?"""

import json
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from evidence.domain import verification, verifications
from evidence.domain.clock import system_clock


class Command(BaseCommand):
    """Exit code 0: all is well. 1: something differs. 2: the database could not be read."""

    help = "Check digests, seal entries, case chains, tree, search keys, counters and guards of the ledger."
    # It has to work when other parts of the installation do not.
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print the result as one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        began_at = system_clock()
        try:
            report = verification.report()
        except DatabaseError as error:
            raise CommandError(f"The ledger cannot be read: {error}", returncode=2) from error
        try:
            verifications.keep(report, began_at=began_at, clock=system_clock)
        except DatabaseError as error:  # A copy that may only be read is verified all the same.
            self.stderr.write(f"The result is not stored for the console: {error}")
        if options["json"]:
            self.stdout.write(json.dumps(asdict(report)))
        if report.first is None:
            if not options["json"]:
                self.stdout.write(f"{report.records} records verified, root {report.root}")
            return
        more = report.differences - 1
        raise CommandError(
            f"{report.first}" + (f"\nand {more} more differences" if more else ""), returncode=1
        )
