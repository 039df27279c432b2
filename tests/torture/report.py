"""The results file of a full torture run: one section for each database, written from what was counted."""

import os
import platform
import re
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import django
import pytest
from django.db import connection

ROOT = Path(__file__).resolve().parents[2]
# Results files, which the command that asks for the commit is just writing.
WRITTEN = ("docs/torture.md", "docs/benchmarks.md")
VENDORS = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
INTRODUCTION = """\
# Results of the torture suite

What the last full run on each database counted. `make torture` writes this file; whatever is changed by hand is lost.
The suite is in `tests/torture/`: processes that race for the same approvals, workers that are killed with `kill -9` at
every step of a send, connectors that are slow, silent or gone, and a state machine that walks the whole chain. A short
form of the same tests is part of `make test`.

Each test also ends with these checks of the whole: the receiver's own log is what we recorded, an approval that was
used has exactly one execution that may have left, every unsettled case says who is to do what next, and the log
verifies.
"""

Cell = str | int | float


@dataclass
class Tally:
    """Tables of counts, in the order they were begun: title to column names and rows."""

    tables: dict[str, tuple[tuple[str, ...], list[tuple[str, ...]]]] = field(default_factory=dict)

    def row(self, title: str, **cells: Cell) -> None:
        """Add one row to the table ``title``; the keywords name its columns, a ``_`` in them is a space."""
        columns = tuple(name.replace("_", " ") for name in cells)
        known, rows = self.tables.setdefault(title, (columns, []))
        assert known == columns, f"{title} has the columns {known}"
        rows.append(
            tuple(f"{cell:,.2f}" if isinstance(cell, float) else str(cell) for cell in cells.values())
        )

    def lines(self, heading: str = "") -> list[str]:
        """Every table as lines of Markdown."""
        lines: list[str] = []
        for title, (columns, rows) in self.tables.items():
            lines += ["", f"{heading}{title}", "", *table(columns, rows)]
        return lines


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table whose columns line up in plain text, too."""
    widths = [max(len(row[place]) for row in (columns, *rows)) for place in range(len(columns))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return [line(columns), line(["-" * width for width in widths]), *(line(row) for row in rows)]


class Report:
    """Collects what every test of this folder came to, and writes the section of the database it ran on."""

    def __init__(self, started_at: datetime) -> None:
        self.started_at = started_at
        self.tally = Tally()
        self.outcomes: dict[str, str] = {}
        self.seconds: Counter[str] = Counter()
        self.database = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test passed when each of its phases did."""
        path, _, name = report.nodeid.partition("::")
        if Path(path).parent.name != "torture":
            return
        self.seconds[name] += report.duration
        if self.outcomes.get(name, "passed") == "passed":
            self.outcomes[name] = report.outcome
        for title, value in report.user_properties if report.when == "call" else ():
            self.tally.row("What else was counted", test=name, what=title, count=str(value))

    def note_database(self) -> None:
        """Ask the database what it is, while a test may still use it."""
        self.database = database()

    def write(self, path: Path) -> None:
        """Replace the section of this database; the other one's stays as it is."""
        write_section(path, INTRODUCTION, self.section())

    def section(self) -> list[str]:
        """Machine, versions, counts and tests of this run."""
        ended = Counter(self.outcomes.values())
        facts = {
            "result": ", ".join(f"{count} {outcome}" for outcome, count in sorted(ended.items())),
            "begun": f"{self.started_at:%Y-%m-%d %H:%M} UTC",
            "took": f"{sum(self.seconds.values()):,.0f} s",
            **surroundings(),
            "aiohttp": version("aiohttp"),
            "database": self.database,
        }
        tests = [
            (name.removeprefix("test_").replace("_", " "), outcome, f"{self.seconds[name]:,.1f}")
            for name, outcome in self.outcomes.items()
        ]
        return [
            *table(("what", "value"), list(facts.items())),
            *self.tally.lines("### "),
            "",
            "### Tests",
            "",
            *table(("test", "outcome", "seconds"), tests),
        ]


def write_section(path: Path, introduction: str, lines: Sequence[str]) -> None:
    """Replace the section of this database in a results file; the other one's stays as it is."""
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    parts = re.split(r"^## (.+)\n", old, flags=re.MULTILINE)[1:]
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    sections[VENDORS[connection.vendor]] = "\n" + "\n".join(lines) + "\n"
    kept = [
        f"## {vendor}\n{sections[vendor].rstrip()}\n" for vendor in VENDORS.values() if vendor in sections
    ]
    path.write_text("\n".join([introduction, *kept]), encoding="utf-8")


def surroundings() -> dict[str, str]:
    """Commit, machine and versions of what runs here."""
    return {
        "commit": commit(),
        "machine": f"{cores()} cores, {platform.system()} {platform.release()}, {platform.machine()}",
        "Python": platform.python_version(),
        "Django": django.get_version(),
    }


def database() -> str:
    """Which database this is, and its version."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT sqlite_version()" if connection.vendor == "sqlite" else "SHOW server_version")
        return f"{VENDORS[connection.vendor]} {cursor.fetchone()[0]}"


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def commit() -> str:
    """The commit that ran, and whether the work tree held anything else."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    head = git("rev-parse", "--short=12", "HEAD") or "unknown"
    changed = git("status", "--porcelain", "--", ".", *(f":!{path}" for path in WRITTEN))
    return f"{head} with changes that are not committed" if changed else head
