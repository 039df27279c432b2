"""The benchmarks themselves, with numbers too small to measure anything: what they would report is true."""

from pathlib import Path

import pytest

from tests.benchmarks import million, rates, results, writers
from tests.processes import database_url
from tests.torture.nursery import Nursery


@pytest.mark.django_db(transaction=True)
def test_writers_at_once_are_counted_and_verified(tmp_path: Path) -> None:
    with Nursery(database_url(), tmp_path) as nursery:
        written = writers.measure(nursery, writers=2, seconds=0.2)
    assert written.sound, written
    assert written.appended > 0
    assert written.passes >= 1


@pytest.mark.django_db(transaction=True)
def test_rates_and_a_long_log_are_measured(tmp_path: Path) -> None:
    rated = rates.measure(one_by_one=2, batched=20)
    assert [rate.records for rate in rated] == [2, 20]
    assert all(rate.ledger > 0 and rate.plain > 0 for rate in rated)
    long = million.measure(300, tmp_path)
    assert max(long.inclusion.rows, long.consistency.rows, long.head.rows) <= 25
    text = "\n".join([*results.of_rates(rated), *results.of_long(long)])
    assert "300 entries" in text
