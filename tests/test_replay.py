"""Rows that are written again are those that were walked, and a test that begins otherwise walks (``tests.replay``)."""

from typing import Any

import pytest
from django.apps import apps
from django.db import connection, transaction

from evidence.domain import verification
from evidence.domain.clock import system_clock
from evidence.enums import Role
from evidence.models import LedgerHead, Person, Record
from tests import replay
from tests.builders import World, person, staff
from tests.endpoints import furnished
from tests.receiver import Receiver
from tests.replay import walked_once

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _walks_of_this_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "_walks", {})
    monkeypatch.setattr(replay, "FRESH_S", float("inf"))


def rows() -> dict[str, Any]:
    """Everything in the database, and where its numbering stands."""
    found: dict[str, Any] = {}
    with connection.cursor() as cursor:
        for model in apps.get_models(include_auto_created=True):
            table = model._meta.db_table
            cursor.execute(f'SELECT * FROM "{table}"')
            found[table] = sorted(map(repr, map(_plain, cursor.fetchall())))
    return found


def _plain(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(bytes(value) if isinstance(value, memoryview) else value for value in row)


def rolled_back(act: Any) -> Any:
    """What ``act`` gives and the rows it leaves, in a test of its own as it were."""
    with transaction.atomic():
        result = act(), rows()
        transaction.set_rollback(True)
    return result


class Walks:
    """Counts how often it is really walked."""

    def __init__(self, walk: Any) -> None:
        self.walk, self.count = walk, 0

    def __call__(self) -> Any:
        self.count += 1
        return self.walk()


def test_people_are_written_again_row_by_row() -> None:
    walk = Walks(staff)
    once, walked = rolled_back(lambda: walked_once("staff", walk))
    again, written = rolled_back(lambda: walked_once("staff", walk))
    assert walk.count == 1
    assert written == walked
    assert {part: vars(who)["username"] for part, who in again.items()} == {
        part: who.username for part, who in once.items()
    }
    assert all(again[part] is not once[part] for part in once)


def test_a_long_walk_with_deliveries_is_written_again_and_verifies_alike(receiver: Receiver) -> None:
    walk = Walks(lambda: furnished(World(receiver)))

    def made() -> Any:
        return walked_once("ready", walk, receiver), list(verification.verify())

    (once, said), walked = rolled_back(made)
    arrived = [one.body for one in receiver.log]
    receiver.forget()
    (again, said_again), written = rolled_back(made)
    assert walk.count == 1
    assert written == walked
    assert said_again == said
    assert [one.body for one in receiver.log] == arrived != []
    assert again.ids == once.ids
    assert again.world.receiver is receiver


def test_the_verbs_go_on_from_rows_that_were_written_again() -> None:
    rolled_back(lambda: walked_once("staff", staff))
    walked_once("staff", staff)
    size, newest = LedgerHead.objects.get().size, Person.objects.latest("pk")
    assert person(Role.ANALYST).pk > newest.pk
    assert Record.objects.count() == LedgerHead.objects.get().size == size + 2
    assert list(verification.verify()) == []


BEGUN = {
    "a verb": lambda: person(Role.ANALYST),
    "a row": lambda: Person.objects.create(username="unrecorded", created_at=system_clock()),
}


@pytest.mark.parametrize("begin", BEGUN)
def test_where_something_is_already_it_is_walked(begin: str) -> None:
    walk = Walks(staff)
    rolled_back(lambda: walked_once("staff", walk))
    BEGUN[begin]()
    walked_once("staff", walk)
    assert walk.count == 2


def test_what_is_a_minute_old_is_walked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    walk = Walks(staff)
    rolled_back(lambda: walked_once("staff", walk))
    monkeypatch.setattr(replay, "FRESH_S", 0.0)
    rolled_back(lambda: walked_once("staff", walk))
    assert walk.count == 2


def test_another_address_is_walked(receiver: Receiver) -> None:
    walk = Walks(staff)
    rolled_back(lambda: walked_once("staff", walk, receiver))
    other = Receiver()
    rolled_back(lambda: walked_once("staff", walk, other))
    other.stop()
    assert walk.count == 2


def test_a_walk_that_was_partly_taken_back_is_not_kept() -> None:
    def stumbling() -> None:
        rolled_back(lambda: person(Role.ANALYST))

    walk = Walks(stumbling)
    for _ in range(2):
        rolled_back(lambda: walked_once("stumbling", walk))
    assert walk.count == 2
