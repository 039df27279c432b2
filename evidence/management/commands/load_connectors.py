"""Loads connectors from a file of the reference's format."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from evidence.domain import loading
from evidence.domain.clock import system_clock
from evidence.management.refusals import as_command_error, read_json


class Command(BaseCommand):
    """``load_connectors FILE``: create or update; loading the same file again records nothing."""

    help = (
        "Create or update connectors from a JSON file (YAML is not read): "
        '{"connectors": {key: {...}}}, {"providers": {...}} or the bare map. Secrets are named by their '
        "environment variable (token_env, url_env, ...) or their file in CAVRA_SECRETS_DIR (token_file, ...), never "
        "written out. One fault anywhere, and nothing is loaded."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE", help="JSON in UTF-8.")
        parser.add_argument(
            "--allow-network",
            metavar="CIDR",
            nargs="+",
            action="extend",
            default=[],
            help="Private networks that every connector of the file may reach, e.g. 127.0.0.0/8.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        data = read_json(options["file"])
        with as_command_error():
            loaded = loading.load_connectors(
                data, by=None, clock=system_clock, allow_networks=options["allow_network"]
            )
        for notice in loaded.notices:
            self.stderr.write(notice)
        for key, change in loaded.rows:
            self.stdout.write(f"connector {key}: {change}")
