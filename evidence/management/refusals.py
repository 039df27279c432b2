"""How a command refuses: one sentence, then one line for each wrong field, exit code 1, no traceback."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.core.management import BaseCommand, CommandError
from django.db import OperationalError, ProgrammingError

from evidence.connectors.redaction import redact
from evidence.domain import reading
from evidence.domain.verification import Report
from evidence.errors import DomainError

MAX_FILE = 2 * 1024 * 1024


@contextmanager
def as_command_error() -> Iterator[None]:
    """Turn what the domain refuses, or a database that was never migrated, into a ``CommandError``."""
    try:
        yield
    except DomainError as error:
        lines = [
            f"  {path}: {sentence}" for path, sentences in error.errors.items() for sentence in sentences
        ]
        raise CommandError(redact("\n".join([error.detail, *lines]))) from error
    except (OperationalError, ProgrammingError) as error:
        raise CommandError(
            f"The database refused: {redact(str(error))}. Has it been migrated (manage.py migrate)?"
        ) from error


def read_json(path: str) -> Any:
    """The JSON in a file of at most two megabytes; ``CommandError`` when there is none."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}.") from error
    if len(data) > MAX_FILE:
        raise CommandError(f"{path} is larger than {MAX_FILE} bytes.")
    with as_command_error():
        try:
            return reading.parse(data)
        except DomainError as error:
            if path.lower().endswith((".yaml", ".yml")):
                error.detail += " Only JSON is read here; convert YAML first."
            raise


def say_copy(command: BaseCommand, report: Report, what: str) -> None:
    """Say the head of a copy and that it verifies; ``CommandError`` with the first difference when it does not."""
    if report.first is not None:
        raise CommandError(f"{what} does not verify: {report.first}", returncode=1)
    command.stdout.write(f"{what}: {report.records:,} records verified, {report.origin}, root {report.root}")
