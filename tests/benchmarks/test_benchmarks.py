"""The benchmarks themselves, with numbers too small to measure anything: what they would report is true."""

from pathlib import Path

import pytest

from tests.benchmarks import million, rates, results, safety, sending, writers
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


def test_the_time_that_public_safety_takes_is_measured() -> None:
    looked = safety.measure(10_000)
    assert all(one.texts > 0 and 0 < one.median_ms <= one.worst_ms for one in looked)
    assert "nothing but secrets" in "\n".join(results.of_safety(looked))


def test_every_queued_delivery_is_accounted_for() -> None:
    sent = sending.measure(400)
    assert sent.sound, sent
    # One of eight connectors answers 503, one is not there.
    assert (sent.orders, sent.delivered, sent.failed, sent.well) == (400, 300, 100, 250)
    assert "400, over 8 connectors" in "\n".join(results.of_sending(sent))
