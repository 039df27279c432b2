"""``manage.py ledger_key``: keys that sign heads of the log, from making one to revoking it."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from evidence.domain import log_keys
from evidence.domain.clock import system_clock
from evidence.management.refusals import as_command_error
from evidence.models import LedgerHead, LedgerKey


class Command(BaseCommand):
    """``make`` writes a file; ``add``, ``retire`` and ``revoke`` are records of the log; ``show`` changes nothing."""

    help = (
        "Keys that sign heads of the log. The private half is one line of text in a file (file:PATH) or an "
        "environment variable (env:NAME) that CAVRA_LEDGER_KEYS names, several comma separated. To rotate: make, "
        "name both, add, wait for a head that both sign, retire the old one, take its name away."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        acts = parser.add_subparsers(dest="act", required=True, metavar="show|make|add|retire|revoke")
        acts.add_parser(
            "show", help="Which keys there are, which are configured here, and what verifies them."
        )
        make = acts.add_parser("make", help="Make a private key in a new file; what is there stays.")
        make.add_argument(
            "file",
            nargs="?",
            metavar="FILE",
            help="Default: the first file of CAVRA_LEDGER_KEYS that does not exist.",
        )
        acts.add_parser("add", help="Let the configured keys that are new sign from now on.")
        for act, text in (
            ("retire", "End a key in order, after its successor signed a head beside it."),
            ("revoke", "End a key that is not to be trusted any more, at once."),
        ):
            end = acts.add_parser(act, help=text)
            end.add_argument("key_id", metavar="KEYID", help="Eight hex digits, as show prints them.")
            end.add_argument("--reason", required=True, help="Why; it is part of the record.")

    def handle(self, *args: Any, act: str, **options: Any) -> None:
        with as_command_error():
            getattr(self, f"_{act}")(options)

    def _show(self, options: dict[str, Any]) -> None:
        origin = LedgerHead.objects.values_list("origin", flat=True).first()
        self.stdout.write(f"log {origin}")
        for row in LedgerKey.objects.order_by("pk"):
            self._row(row)
        for reference in settings.CAVRA_LEDGER_KEYS:
            self.stdout.write(f"configured {reference}: {log_keys.configured(reference)[1]}")
        if not settings.CAVRA_LEDGER_KEYS:
            self.stdout.write("CAVRA_LEDGER_KEYS names no key: no head is signed.")

    def _make(self, options: dict[str, Any]) -> None:
        path = Path(options["file"] or self._first_missing_file())
        log_keys.make(path)
        self.stdout.write(f"made {path}. It is nowhere else: keep a copy where the database is not.")
        if f"file:{path}" not in settings.CAVRA_LEDGER_KEYS:
            self.stdout.write(f"Next: add file:{path.resolve()} to CAVRA_LEDGER_KEYS.")
        self.stdout.write("Next: manage.py ledger_key add")

    def _first_missing_file(self) -> str:
        files = [ref.removeprefix("file:") for ref in settings.CAVRA_LEDGER_KEYS if ref.startswith("file:")]
        if not files:
            raise CommandError(
                "CAVRA_LEDGER_KEYS names no file. Name one, or say which: ledger_key make FILE"
            )
        return next((place for place in files if not Path(place).exists()), files[0])

    def _add(self, options: dict[str, Any]) -> None:
        if not settings.CAVRA_LEDGER_KEYS:
            raise CommandError("CAVRA_LEDGER_KEYS names no key. Set it to file:PATH or env:NAME.")
        rows = log_keys.introduce(by=None, clock=system_clock)
        for row in rows:
            self._row(row)
        if not rows:
            self.stdout.write("Every configured key signs already.")

    def _retire(self, options: dict[str, Any]) -> None:
        self._row(log_keys.retire(options["key_id"], reason=options["reason"], by=None, clock=system_clock))

    def _revoke(self, options: dict[str, Any]) -> None:
        self._row(log_keys.revoke(options["key_id"], reason=options["reason"], by=None, clock=system_clock))

    def _row(self, row: LedgerKey) -> None:
        self.stdout.write(f"{row.state} {log_keys.vkey_of(row)}" + (f" ({row.reason})" if row.reason else ""))
