"""``make bench``: runs the benchmarks on a database of their own in DATABASE_URL and writes ``docs/benchmarks.md``."""

import argparse
import os
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

INTRODUCTION = """\
# Benchmarks

What the last run on each database measured. `make bench` writes this file; whatever is changed by hand is lost. The
code is in `tests/benchmarks/`. Numbers compare things on one machine; they promise nothing about another one, and a
machine that was busy with something else shows in them.

- *Writers at once*: processes append one record a transaction, all to the same fifty cases, while one more process
  verifies the whole log again and again. SQLite has one writer at a time, so it is measured with one.
- *Records a second*: documents of every kind, built beforehand, through `ledger.append`, and after that the very rows
  that they became, inserted once more into tables with the same columns and indexes but no ledger: nothing is locked,
  numbered, hashed, counted or guarded there.
- *Public safety*: the rules that every text passes before it is recorded, over two kilobytes at a time; the best of
  five rounds for each text, time of the processor. It needs no database and is measured on each all the same.
- *Queued deliveries*: handed to one sender at once, evenly over eight connectors: five receivers that are well, one
  that answers 503, one that is not there, and one that takes 0.1 s for each answer. The receiver is a process of its
  own that counts ids; each has to be there once or failed by its receipt. Then a bare loop of the same HTTP client
  posts to the well ones once more, the same bytes, as many at once: no address is checked, nothing noted or redacted.
- *A long log*: its records, seal entries and tree nodes are written directly, in batches, as `ledger.append` would have
  written them, but without search keys. The first head derives every leaf of it again before it is signed. Proofs at
  that head are computed from stored rows and verified. Then one record more is appended and signed, sixteen times: a
  head derives the leaves that came since the one before.
"""


def arguments() -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--report", type=Path, help="Markdown file whose section of this database is written")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long writers write")
    parser.add_argument("--writers", type=int, help="processes that write (16, on SQLite 1)")
    parser.add_argument("--one-by-one", type=int, default=2_000, help="records, one a transaction")
    parser.add_argument("--batched", type=int, default=20_000, help="records, 500 a transaction")
    parser.add_argument("--deliveries", type=int, default=10_000, help="deliveries queued at once")
    parser.add_argument("--long", type=int, default=1_000_000, help="entries of the long log")
    return parser.parse_args()


def main() -> int:
    """Exit code 0: measured, the log was sound throughout and no delivery was lost. 1: it was not."""
    asked = arguments()
    with tempfile.TemporaryDirectory(prefix="cavra-bench-") as folder:
        scratch = Path(folder)
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "cavra_site.settings")
        os.environ.setdefault("DEBUG", "true")
        os.environ["LOG_LEVEL"] = "ERROR"
        os.environ["CAVRA_DATA"] = folder
        if not os.environ.get("DATABASE_URL", "").startswith("postgres"):
            os.environ["DATABASE_URL"] = f"sqlite:///{scratch}/benchmarks.sqlite3"
        import django

        django.setup()
        return measure(asked, scratch)


def measure(asked: argparse.Namespace, scratch: Path) -> int:
    """Everything, on a database that is made for it and goes afterwards."""
    from django.db import connection

    from tests.benchmarks import million, rates, results, safety, sending, writers
    from tests.processes import database_url
    from tests.torture.nursery import Nursery
    from tests.torture.report import write_section

    began, clock, load = datetime.now(UTC), time.perf_counter(), os.getloadavg()[0]
    named = connection.settings_dict["NAME"]
    # A file even on SQLite, where a test's database would be in memory: processes meet in it.
    connection.settings_dict["TEST"]["NAME"] = (
        f"{named}" if connection.vendor == "sqlite" else f"bench_{named}"
    )
    connection.creation.create_test_db(verbosity=0, autoclobber=True)
    try:
        count = asked.writers or (1 if connection.vendor == "sqlite" else 16)
        with Nursery(database_url(), scratch) as nursery:
            written = writers.measure(nursery, writers=count, seconds=asked.seconds)
        say(results.of_writers(written))
        rated = rates.measure(one_by_one=asked.one_by_one, batched=asked.batched)
        say(results.of_rates(rated))
        looked = safety.measure()
        say(results.of_safety(looked))
        sent = sending.measure(asked.deliveries)
        say(results.of_sending(sent))
        long = million.measure(asked.long, scratch)
        say(results.of_long(long))
        if asked.report:
            took = time.perf_counter() - clock
            section = results.section(began, load, took, written, rated, looked, sent, long)
            write_section(asked.report, INTRODUCTION, section)
    finally:
        connection.creation.destroy_test_db(named, verbosity=0)
    return 0 if written.sound and sent.sound else 1


def say(lines: list[str]) -> None:
    """To the terminal, while the rest is still measured."""
    sys.stdout.write("\n".join([*lines, "", ""]))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
