"""What happened day by day, quiet days included; and the charts drawn of it."""

import re
from datetime import UTC, date, datetime, timedelta

import pytest
from django.db import connection
from django.template import Context, Template
from django.test.utils import CaptureQueriesContext

from evidence.domain import trends
from evidence.domain.connector_health import Slot
from evidence.domain.trends import Day, Growth
from evidence.models import Attempt, LedgerHead, Record
from tests.builders import World


def drawn(tag: str, **context: object) -> str:
    return Template("{% load charts %}{% " + tag + " %}").render(Context(context))


def numbers(svg: str, name: str, element: str) -> list[float]:
    return [float(n) for n in re.findall(rf'<{element} [^>]*\b{name}="([^"]+)"', svg)]


def test_every_try_counts_on_the_day_it_ended(world: World) -> None:
    world.delivered()
    world.failed()
    ended = dict(Attempt.objects.values_list("outcome", "completed_at"))
    now = max(ended.values())
    days = trends.daily(at=now)
    dates = [now.date() - timedelta(days=back) for back in range(13, -1, -1)]
    assert days == [
        Day(date, **{outcome: int(at.date() == date) for outcome, at in ended.items()}) for date in dates
    ]
    assert sum(day.total for day in days) == 2
    tomorrow = trends.daily(2, at=now + timedelta(days=1))
    assert tomorrow == [days[-1], Day(now.date() + timedelta(days=1))]
    assert [day.total for day in trends.daily(1, at=now + timedelta(days=1))] == [0]


def test_a_lost_try_is_neither_delivered_nor_failed(world: World) -> None:
    lost = world.unknown().execution.case.attempts.get(number=2)
    days = trends.daily(2, at=lost.completed_at)
    assert days[-1].unknown == 1
    assert [sum(day.delivered for day in days), sum(day.failed for day in days)] == [0, 1]


def test_growth_ends_with_the_log_as_it_is(world: World) -> None:
    before = LedgerHead.objects.get().size
    world.announced()
    now = datetime.now(UTC)
    grown = trends.growth(at=now)
    size = LedgerHead.objects.get().size
    # The first entry, and people who were there before, may be of the day before.
    moments = [moment.date() for moment in Record.objects.values_list("created_at", flat=True)]
    dates = [now.date() - timedelta(days=back) for back in range(29, -1, -1)]
    assert grown == [Growth(date, sum(one <= date for one in moments), moments.count(date)) for date in dates]
    assert (grown[0].size, grown[-1].size) == (0, size)
    assert size > before
    (_, later) = trends.growth(2, at=now + timedelta(days=1))
    assert (later.size, later.added) == (size, 0)


def test_each_is_a_fixed_number_of_queries(world: World) -> None:
    world.delivered()
    with CaptureQueriesContext(connection) as captured:
        trends.daily(at=datetime.now(UTC))
        trends.growth(at=datetime.now(UTC))
    assert len(captured) == 3


# --- charts -------------------------------------------------------------------------------------------------------


def test_bars_stack_to_the_share_of_the_largest_day() -> None:
    days = [Day(date(2026, 6, 1), delivered=2), Day(date(2026, 6, 2)), Day(date(2026, 6, 3), 2, 1, 1)]
    svg = drawn('bars days "trend"', days=days)
    assert 'aria-labelledby="trend"' in svg
    assert re.findall(r'<rect class="([\w-]+)"', svg) == ["c-ok", "c-ok", "c-bad", "c-unk"]
    assert numbers(svg, "height", "rect") == [59.2, 59.2, 29.2, 29.2]
    tops = numbers(svg, "y", "rect")
    assert tops == [64.0, 64.0, 34.0, 4.0]


@pytest.mark.parametrize("days", ([], [Day(date(2026, 6, 1))]))
def test_bars_of_nothing_are_an_empty_chart(days: list[Day]) -> None:
    assert "<rect" not in drawn('bars days "trend"', days=days)


def test_an_area_reaches_from_the_lowest_to_the_highest() -> None:
    svg = drawn('area values "growth"', values=[10, 15, 20])
    line = re.findall(r'<polyline class="c-line" points="([^"]+)"', svg)
    assert line == ["0.0,120.0 200.0,64.0 400.0,8.0"]


@pytest.mark.parametrize(("values", "points"), (([], ""), ([7], "0.0,64.0"), ([7, 7], "0.0,64.0 400.0,64.0")))
def test_a_flat_area_lies_in_the_middle(values: list[int], points: str) -> None:
    assert f'<polyline class="c-line" points="{points}"' in drawn('area values "growth"', values=values)


def test_a_spark_breaks_where_nothing_answered_and_marks_failures() -> None:
    slots = [Slot(100, 0), Slot(None, 0), Slot(None, 2), Slot(50, 1)]
    svg = drawn("spark slots", slots=slots)
    assert re.findall(r'points="([^"]+)"', svg) == ["0.0,3.0 25.0,3.0", "75.0,12.5 100.0,12.5"]
    assert numbers(svg, "x", "rect") == [50.0, 75.0]
