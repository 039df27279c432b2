"""Forgets old entries of the access log."""

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from evidence.domain import access
from evidence.domain.clock import system_clock
from evidence.management.refusals import as_command_error


class Command(BaseCommand):
    """``prune_access_log [--days N]``: the worker does the same every hour with CAVRA_ACCESS_LOG_DAYS."""

    help = "Remove entries of the access log (who read which evidence) that are older than so many days."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--days", type=int, default=settings.CAVRA_ACCESS_LOG_DAYS, help="keep so many, at least one"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        with as_command_error():
            removed = access.prune(timedelta(days=options["days"]), clock=system_clock)
        self.stdout.write(f"{removed} entries removed")
