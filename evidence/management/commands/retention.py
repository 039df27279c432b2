"""Erases what retention rules let go."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from evidence.domain import retention
from evidence.domain.clock import system_clock
from evidence.management.refusals import as_command_error


class Command(BaseCommand):
    """``retention [--dry-run]``: erase what is due, or say what would be. The worker does the same every hour."""

    help = (
        "Erase the bytes of records that were kept as long as a retention rule in force asks for. Nothing under legal "
        "hold, nothing of an unsettled case. Entries, places and proofs stay."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="say what is due and erase nothing")
        parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")

    def handle(self, *args: Any, **options: Any) -> None:
        with as_command_error():
            if options["dry_run"]:
                due = retention.look(clock=system_clock)
                said: Any = [
                    {
                        "kind": one.rule.kind,
                        "due": one.count,
                        "keep_days": one.rule.keep_days,
                        "in_force": one.in_force,
                    }
                    for one in due
                ]
                lines = [
                    f"{one['kind']}: {one['due']} due, kept for {one['keep_days']} days"
                    + ("" if one["in_force"] else ": waits for an auditor's confirmation")
                    for one in said
                ]
            else:
                said = {"erased": retention.run(clock=system_clock)}
                lines = [f"{said['erased']} records erased"]
        self.stdout.write(json.dumps(said) if options["json"] else "\n".join(lines))
