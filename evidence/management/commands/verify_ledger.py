"""``manage.py verify_ledger``: is everything stored as the log says?"""

import json
import os
import sys
from argparse import ArgumentParser
from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connection

from evidence.domain import heads, verification, verifications
from evidence.domain.clock import system_clock
from evidence.domain.heads import Held
from evidence.domain.verification import Base, Report
from evidence.errors import InvalidInput

BAR = 40


class Command(BaseCommand):
    """Exit code 0: all is well. 1: something differs. 2: the database or a head could not be read."""

    help = (
        "Check digests, seal entries, case chains, tree, signed heads, search keys, counters and guards of the "
        "ledger, and the rows of cases, approvals, executions and recoveries against their records."
    )
    # It has to work when other parts of the installation do not.
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
        parser.add_argument(
            "--incremental",
            action="store_true",
            help="look only at what came after the newest signed head or clean verification",
        )
        parser.add_argument(
            "--against",
            metavar="HEADS",
            type=Path,
            help="a file with signed heads that were kept elsewhere; the log has to extend each of them",
        )
        parser.add_argument(
            "--processes",
            type=int,
            default=os.cpu_count() or 1,
            help="share a large log among so many processes",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        began_at = system_clock()
        notes = _notes(options["against"])
        bar = _Bar(self.stderr, shown=not options["json"] and sys.stderr.isatty())
        processes = 1 if connection.in_atomic_block else max(options["processes"], 1)
        try:
            base = verification.since_last() if options["incremental"] else Base()
            report = verification.report(bar.show, base=base, processes=processes)
            held = [*(heads.hold_against(note) for note in notes), *heads.beside()]
        except DatabaseError as error:
            raise CommandError(f"The ledger cannot be read: {error}", returncode=2) from error
        except InvalidInput as error:
            raise CommandError(f"A head cannot be read: {error.detail}", returncode=2) from error
        finally:
            bar.end()
        try:
            verifications.keep(report, began_at=began_at, clock=system_clock)
        except DatabaseError as error:  # A copy that may only be read is verified all the same.
            self.stderr.write(f"The result is not stored for the console: {error}")
        if options["json"]:
            self.stdout.write(json.dumps(_as_json(report, held)))
        else:
            self._tell(report, held)
        against = [one for one in held if one.fails]
        if report.first is None and not against:
            return
        said = [str(report.first)] if report.first else []
        if report.differences > 1:
            said.append(f"and {report.differences - 1} more differences")
        raise CommandError("\n".join([*said, *(str(one) for one in against)]), returncode=1)

    def _tell(self, report: Report, held: list[Held]) -> None:
        if report.first is None:
            self.stdout.write(f"{_looked_at(report)}, root {report.root}")
        for one in held:
            if not one.fails:
                self.stdout.write(str(one))
        for sentence in (*report.not_checked, *([] if report.first else heads.not_shown(held))):
            self.stdout.write(sentence)


def _notes(path: Path | None) -> list[str]:
    """The signed heads in a file; exit code 2 when there is none."""
    if path is None:
        return []
    try:
        found = heads.split(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} cannot be read: {error}", returncode=2) from error
    if not found:
        raise CommandError(f"{path} holds no signed head.", returncode=2)
    return found


def _looked_at(report: Report) -> str:
    """What was found to be well."""
    last = report.records - 1
    if report.since > last:
        return f"nothing new since entry {last}"
    what = heads.span(report.since, last) if report.since else f"{report.records} records"
    return f"{what} verified, {report.rows} rows as they say"


def _as_json(report: Report, held: list[Held]) -> dict[str, Any]:
    return {**asdict(report), "held": [one.as_dict() for one in held], "not_shown": heads.not_shown(held)}


class _Bar:
    """Progress on a terminal; nothing anywhere else."""

    def __init__(self, out: Any, *, shown: bool) -> None:
        self.out, self.shown = out, shown
        self.drawn = ""

    def show(self, checked: int, size: int) -> None:
        """Draw how far the pass is, when that changed."""
        filled = BAR * checked // max(size, 1)
        bar = f"[{'#' * filled}{'.' * (BAR - filled)}]"
        if self.shown and bar != self.drawn:
            self.drawn = bar
            self.out.write(f"\r{bar} {checked:,} of {size:,} entries", ending="")
            self.out.flush()

    def end(self) -> None:
        """Leave the line to what is said afterwards."""
        if self.drawn:
            self.out.write("")
