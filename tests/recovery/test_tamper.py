"""Whoever changes a row of the recovery app behind the product's back is found out (P11, P12)."""

import pytest

from evidence.domain import replay
from tests import tamper
from tests.tamper import Told

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(("label", "column"), tamper.columns("recovery"))
def test_no_column_changes_unnoticed(told: Told, label: str, column: str) -> None:
    assert tamper.unnoticed_flips(told, label, column) == []


@pytest.mark.parametrize("label", tamper.tables("recovery"))
def test_no_row_goes_unnoticed(told: Told, label: str) -> None:
    assert tamper.unnoticed_deletions(told, label) == []


@pytest.mark.parametrize("label", tamper.tables("recovery"))
def test_no_row_is_forged_unnoticed(told: Told, label: str) -> None:
    assert tamper.forged_unnoticed(told, label) is False


def test_the_world_has_a_row_in_every_table_and_nothing_differs(told: Told) -> None:
    assert [str(difference) for difference in told.differences()] == []
    assert told.empty() == []


def test_wherever_a_pass_begins_nothing_differs(told: Told) -> None:
    """What only earlier records could tell is left alone, not taken for a difference."""
    for since in range(1, told.size, 7):
        assert [str(one) for one in replay.differences(told.size, since=since)] == [], since
