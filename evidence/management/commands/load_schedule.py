"""Loads rollback-drill schedules from a file of the reference's format."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from evidence.domain import loading
from evidence.domain.clock import system_clock
from evidence.management.refusals import as_command_error, read_json


class Command(BaseCommand):
    """``load_schedule FILE``: create or update; loading the same file again records nothing."""

    help = (
        f"Create or update rollback-drill schedules from a JSON file ({loading.SCHEDULE_SCHEMA}): "
        'one schedule, a list of them, or {"schedules": [...]}. One fault anywhere, and nothing is loaded.'
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE", help="JSON in UTF-8.")

    def handle(self, *args: Any, **options: Any) -> None:
        data = read_json(options["file"])
        with as_command_error():
            loaded = loading.load_schedules(data, by=None, clock=system_clock)
        for notice in loaded.notices:
            self.stderr.write(notice)
        for name, change in loaded.rows:
            self.stdout.write(f"schedule {name}: {change}")
