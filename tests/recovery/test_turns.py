"""Whose turn a case is while a worker moves it: what a page read a moment ago never looks like somebody's turn."""

from copy import copy

import pytest

from evidence.enums import CaseState
from recovery.domain import turns
from recovery.domain.turns import Standing
from recovery.enums import Act
from tests.builders import World


def waits_for_the_worker(standing: Standing) -> bool:
    return standing.act is None and not standing.case.settled_at


def test_a_case_that_is_claimed_while_its_page_is_read_is_sending(world: World) -> None:
    (case,) = world.failed()
    (entry,) = world.approved()
    read = copy(case)
    world.taken(entry)
    standing = turns.standing(read)
    assert standing.is_sending
    assert waits_for_the_worker(standing)


@pytest.mark.parametrize("status", (200, 503))
def test_a_case_whose_retry_ends_while_its_page_is_read_shows_the_end(world: World, status: int) -> None:
    (case,) = world.failed()
    world.approved()
    read = copy(case)
    world.receiver.behave(f"/{case.connector.key}", status=status)
    world.ran()
    standing = turns.standing(read)
    case.refresh_from_db()
    assert (standing.case.state, standing.case.attempt_count) == (case.state, 2)
    assert case.state == (CaseState.DELIVERED if status == 200 else CaseState.FAILED)
    assert standing.act is (None if status == 200 else Act.PLAN)
    # A list says the same.
    assert turns.standings([copy(case)])[0].act == standing.act
