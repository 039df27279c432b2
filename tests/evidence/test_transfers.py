"""From SQLite to PostgreSQL: the same bytes, the same tree, and a source that takes nothing any more (P25)."""

import io
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction

from evidence import guards
from evidence.domain import databases, heartbeats, live, people, transfers, verification
from evidence.domain.clock import system_clock
from evidence.enums import Role
from evidence.errors import Conflict
from evidence.models import LedgerHead, Person, Record, SealEntry
from tests.builders import World, person
from tests.heads import data_of_its_own, lay_outside
from tests.processes import database_url
from tests.receiver import Receiver

pytestmark = [pytest.mark.django_db(transaction=True)]
postgresql = pytest.mark.only("postgresql")


def moved(url: str) -> str:
    out = io.StringIO()
    call_command("transfer", "--to", url, "--reason", "we grew", stdout=out)
    return out.getvalue()


def refused(url: str) -> str:
    with pytest.raises(CommandError) as error:
        moved(url)
    return str(error.value)


@pytest.fixture
def target(transactional_db: None) -> Iterator[str]:
    """An empty PostgreSQL database."""
    name = f"transfer_{secrets.token_hex(4)}"
    with connection.cursor() as cursor:
        cursor.execute(f'CREATE DATABASE "{name}"')
    yield database_url().rpartition("/")[0] + f"/{name}"
    with connection.cursor() as cursor:
        cursor.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def taken(transactional_db: None) -> str:
    """A PostgreSQL database that holds something: the tests' own."""
    return database_url()


@pytest.fixture
def source(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A SQLite database, in which a case was delivered by an approved retry, is this service's for the test."""
    data_of_its_own(monkeypatch, tmp_path)
    file: dict[str, Any] = {
        **databases.sqlite_file(tmp_path / "cavra.sqlite3"),
        "OPTIONS": {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA foreign_keys=ON;",
        },
    }
    receiver = Receiver()
    with databases.instead(file):
        call_command("migrate", verbosity=0)
        world = World(receiver)
        world.failed()
        world.approved()
        assert world.ran().outcome.recorded[0].receipt.delivered
        yield world
    receiver.stop()


@postgresql
def test_p25_everything_is_carried_over_and_the_source_is_closed(
    source: World, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "CHUNK", 3)
    before = {
        model: list(
            model._base_manager.order_by(*(field.attname for field in model._meta.pk_fields)).values()
        )
        for model in transfers._models()
    }
    head = LedgerHead.objects.get()
    said = moved(target)
    assert "this database is closed" in said
    assert "root " in said
    # The source: everything is read, nothing is written.
    assert [code for code, _ in live.reasons_against_live(system_clock)] == ["ledger_closed"]
    with pytest.raises(Conflict) as closed:
        people.grant_role(source.auditor, Role.VIEWER, by=None, clock=system_clock)
    assert closed.value.code == "ledger_closed"
    with pytest.raises(IntegrityError), transaction.atomic():
        LedgerHead.objects.update(size=1)
    assert list(verification.verify()) == []
    assert "This database is closed" in refused(target)
    # The target: the same rows and one record more, guards up, keys that go on.
    with databases.instead(databases.postgresql(target)):
        for model, rows in before.items():
            order = [field.attname for field in model._meta.pk_fields]
            found = list(model._base_manager.order_by(*order).values())
            if model._meta.label not in ADVANCED:
                assert [plain(row) for row in found[: len(rows)]] == [plain(row) for row in rows], model
        newest = Record.objects.latest("index")
        assert (newest.kind, newest.index) == ("ledger-transfer", head.size)
        assert guards.differences() == []
        assert list(verification.verify()) == []
        assert live.reasons_against_live(system_clock) == []
        assert Person.objects.get(pk=source.analyst.pk).check_password("correct horse battery")
        assert person(Role.VIEWER).pk > source.administrator.pk


# What the record of the transfer itself advances.
ADVANCED = {"evidence.LedgerHead", "evidence.RecordCounter", "evidence.RecordKey", "evidence.MerkleNode"}


def plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: bytes(value) if isinstance(value, memoryview) else value for name, value in row.items()}


@postgresql
def test_p25_refused_before_anything_is_copied(taken: str, source: World, target: str) -> None:
    heartbeats.beat("w:1", clock=system_clock)
    assert "Stop it and the web servers first" in refused(target)
    apps.get_model("evidence.Heartbeat").objects.all().delete()
    assert "holds tables already" in refused(taken)
    path = lay_outside()
    assert "not the one that was worked with last" in refused(target)
    path.unlink()
    assert "names no PostgreSQL database" in refused("sqlite:///elsewhere.sqlite3")
    assert "does not answer" in refused(target + "_none")
    guards.drop()
    SealEntry.objects.filter(index=3).update(leaf_hash=b"0" * 32)
    assert "does not verify" in refused(target)
    assert LedgerHead.objects.get().closed_to == ""


@postgresql
def test_p25_a_target_that_is_not_the_same_leaves_the_source_open(
    source: World, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried = transfers._carried

    def bent(model: Any, progress: Any) -> int:
        rows = carried(model, progress)
        if model is SealEntry:
            SealEntry.objects.filter(index=3).update(leaf_hash=b"0" * 32)
        return rows

    monkeypatch.setattr(transfers, "_carried", bent)
    assert "drop the target database" in refused(target)
    assert LedgerHead.objects.get().closed_to == ""
    people.grant_role(source.auditor, Role.VIEWER, by=None, clock=system_clock)
    assert list(verification.verify()) == []
    monkeypatch.undo()
    assert "holds tables already" in refused(target)


@postgresql
def test_only_sqlite_is_moved(target: str) -> None:
    assert "no SQLite file" in refused(target)


@pytest.mark.only("sqlite")
@pytest.mark.parametrize(
    "url", ("sqlite:///elsewhere.sqlite3", "nonsense", "postgresql://db", "mysql://db/x")
)
def test_the_target_is_postgresql(url: str) -> None:
    assert "PostgreSQL database" in refused(url) or "no address of a database" in refused(url)
