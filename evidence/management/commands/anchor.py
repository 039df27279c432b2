"""``manage.py anchor``: have the newest signed head kept where whoever runs this database cannot rewrite it."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from evidence.domain import anchors, checkpoints
from evidence.domain.clock import system_clock
from evidence.domain.keepers import Keeper
from evidence.enums import Administration
from evidence.management.refusals import as_command_error


class Command(BaseCommand):
    """Signs what is new, hands the head over, checks what comes back, and records it. Exit code 1 when it failed."""

    help = (
        "Have the newest signed head kept outside. file:PATH appends it to a file, git:DIR commits it in a "
        "repository (push it from there), rfc3161:URL has it time-stamped, tlog-witness:URL has it cosigned by a "
        "C2SP witness. Run it from a timer."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--to", required=True, metavar="MEANS:PLACE", help="Who keeps it, as above.")
        parser.add_argument(
            "--administered-by",
            required=True,
            choices=[each.value for each in Administration],
            help="Who could change what is kept there: that is what an anchor is worth.",
        )
        parser.add_argument(
            "--witness-key", default="", metavar="VKEY", help="The witness's key, <name>+<id>+<base64>."
        )
        parser.add_argument(
            "--allow-network",
            metavar="CIDR",
            nargs="+",
            action="extend",
            default=[],
            help="Private networks that may be reached, e.g. 10.0.0.0/8.",
        )
        parser.add_argument("--timeout", type=float, default=30.0, metavar="S", help="Seconds, default 30.")

    def handle(self, *args: Any, **options: Any) -> None:
        with as_command_error():
            keeper = Keeper.of(
                options["to"],
                witness_key=options["witness_key"],
                allow_networks=tuple(options["allow_network"]),
                timeout_s=options["timeout"],
            )
            head = checkpoints.to_hand_out(clock=system_clock)
            anchor = anchors.hold(
                head,
                keeper.keep(head),
                administered_by=Administration(options["administered_by"]),
                by=None,
                clock=system_clock,
            )
        self.stdout.write(f"{anchor.anchor_id}: {head} is held by {anchor.means}:{anchor.place}")
