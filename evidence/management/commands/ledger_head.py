"""``manage.py ledger_head``: the newest signed head beside the database, P25's witness on this machine."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from evidence.domain import checkpoints
from evidence.domain.clock import system_clock
from evidence.management.refusals import as_command_error


class Command(BaseCommand):
    """Exit code 0: kept. 1: refused."""

    help = (
        "Lay the newest signed head beside the database where none lies: on a machine that joins a deployment, or one "
        "that lost the file. Never after a restore; then two people start a new epoch (manage.py new_epoch)."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        acts = parser.add_subparsers(dest="act", required=True)
        keeping = acts.add_parser("keep", help="write the file that is missing")
        keeping.add_argument("--reason", required=True, metavar="TEXT", help="why it is missing")

    def handle(self, *args: Any, **options: Any) -> None:
        with as_command_error():
            kept = checkpoints.keep_anew(reason=options["reason"], clock=system_clock)
        self.stdout.write(
            f"{checkpoints.outside_path()} holds the head of {kept.origin} at {kept.size:,} entries."
        )
