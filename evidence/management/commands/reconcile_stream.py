"""``manage.py reconcile_stream FILE --connector KEY``: does a receiver have everything that was sent to it?"""

import json
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from evidence.domain import stream_files
from evidence.domain.stream_comparison import Comparison, Finding
from evidence.errors import DomainError
from evidence.models import Connector


class Command(BaseCommand):
    """Exit code 0: the file is complete. 1: something differs. 2: file, connector or database cannot be read."""

    help = (
        "Compare what a receiver holds (FILE: one event a line, plain or as Splunk, Sentinel, Datadog, syslog have it; "
        "see docs/streams.md) with a connector's stream: missing, extra, altered and repeated events, and the chain."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", help="the receiver's export; - reads standard input")
        parser.add_argument(
            "--connector", required=True, help="key of the connector whose stream it should hold"
        )
        parser.add_argument("--from", type=int, default=1, dest="first", help="first place to compare (1)")
        parser.add_argument("--to", type=int, dest="last", help="last place to compare (the newest)")
        parser.add_argument(
            "--json", action="store_true", help="one JSON object a line: every finding, then the summary"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            connector = Connector.objects.filter(key=options["connector"]).first()
            if connector is None:
                raise CommandError(f"There is no connector {options['connector']!r}.", returncode=2)
            if options["first"] < 1:
                raise CommandError("--from counts from 1.", returncode=2)
            with _opened(options["file"]) as file:
                compared = Comparison(
                    connector,
                    stream_files.lines_of(file),
                    first=options["first"],
                    last=options["last"],
                )
            for finding in compared.findings():
                self.stdout.write(json.dumps(asdict(finding)) if options["json"] else _line(finding))
        except OSError as error:
            raise CommandError(f"The file cannot be read: {error.strerror}.", returncode=2) from error
        except DomainError as error:
            raise CommandError(f"The file cannot be compared. {error.detail}", returncode=2) from error
        except DatabaseError as error:
            raise CommandError(f"The database cannot be read: {error}", returncode=2) from error
        summary = compared.summary
        said = (
            f"{summary.connector}: places {summary.first} to {summary.last}, {summary.events} events in the file, "
            f"{summary.others} other objects; "
            + ", ".join(f"{count} {what}" for what, count in summary.as_dict()["counts"].items())
        )
        self.stdout.write(json.dumps({"summary": summary.as_dict()}) if options["json"] else said)
        if not summary.complete:
            raise CommandError(f"The file is not complete: {summary.differences} differences.", returncode=1)


@contextmanager
def _opened(name: str) -> Iterator[IO[bytes]]:
    if name == "-":
        yield sys.stdin.buffer
    else:
        with Path(name).open("rb") as file:
            yield file


def _line(finding: Finding) -> str:
    place = f"line {finding.line}" if finding.line else ""
    about = " ".join(part for part in (finding.case, place) if part)
    return f"{finding.what.value:<9} {finding.seq:>8}  {about}: {finding.sentence}"
