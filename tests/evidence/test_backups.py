"""Backup and restore of a SQLite database: what they keep, what they refuse, and what shows afterwards (P25)."""

import io
import sqlite3
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection

from evidence import guards
from evidence.domain import checkpoints, databases, heartbeats, live, log_keys, people, verification
from evidence.domain.clock import system_clock
from evidence.enums import Role
from evidence.models import LedgerHead, Person
from tests.builders import person
from tests.heads import data_of_its_own


@pytest.fixture
def beside(transactional_db: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of this test's own, for what lies beside the database and for its backups."""
    data_of_its_own(monkeypatch, tmp_path)
    return tmp_path


@pytest.fixture
def signing(beside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log_keys.make(beside / "key")
    monkeypatch.setattr(settings, "CAVRA_LEDGER_KEYS", [f"file:{beside / 'key'}"])
    log_keys.introduce(by=None, clock=system_clock)


def run(*arguments: object) -> str:
    out = io.StringIO()
    call_command(*(str(argument) for argument in arguments), stdout=out, stderr=out)
    return out.getvalue()


def refused(*arguments: object) -> str:
    with pytest.raises(CommandError) as error:
        run(*arguments)
    return str(error.value)


def remove_what_was_kept() -> None:
    own = Path(str(connection.settings_dict["NAME"]))
    for path in own.parent.glob(f"{own.name}.before-restore-*"):
        path.unlink()


# --- SQLite -------------------------------------------------------------------------------------------------------

sqlite = pytest.mark.only("sqlite")


@sqlite
def test_a_backup_is_one_file_that_verifies_and_is_never_written_over(beside: Path) -> None:
    person(Role.ANALYST, name="ann")
    file = beside / "backup.sqlite3"
    head = LedgerHead.objects.get()
    said = run("backup", file)
    assert said.startswith(f"{file}: {head.size} records verified, {head.origin}, root ")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in beside.iterdir()] == ["backup.sqlite3"]
    with sqlite3.connect(file) as copy:
        assert copy.execute("SELECT count(*) FROM evidence_record").fetchone() == (head.size,)
    before = file.read_bytes()
    assert "stays as it is" in refused("backup", file)
    assert file.read_bytes() == before
    assert "cannot be written" in refused("backup", beside / "none" / "backup")


@sqlite
def test_a_backup_of_a_damaged_database_says_so(beside: Path) -> None:
    person(Role.ANALYST, name="ann")
    guards.drop()
    LedgerHead.objects.update(size=2)
    file = beside / "backup.sqlite3"
    assert "does not verify" in refused("backup", file)
    assert "does not verify" in refused("restore", file)


@sqlite
def test_p25_a_restored_database_verifies_and_is_behind(signing: None, beside: Path) -> None:
    ann = person(Role.ANALYST, name="ann")
    file = beside / "backup.sqlite3"
    run("backup", file)
    size = LedgerHead.objects.get().size
    people.grant_role(ann, Role.VIEWER, by=None, clock=system_clock)
    # No head was signed of it yet: the restore sees to it before anything is lost.
    said = refused("restore", file)
    assert f"this database has {size + 1} entries, the backup {size}." in said
    assert people.roles_of(ann) == {Role.ANALYST, Role.VIEWER}
    said = run("restore", file, "--force", "the disk lost its mind")
    try:
        assert "is kept in" in said
        assert "Nothing live is done with it. This database is not the one that was worked with last." in said
        assert f"this database: {size} records verified" in said
        assert people.roles_of(Person.objects.get(username="ann")) == {Role.ANALYST}
        assert [code for code, _ in live.reasons_against_live(system_clock)] == ["ledger_behind"]
        assert list(verification.verify()) == []
        own = Path(str(connection.settings_dict["NAME"]))
        (kept,) = [
            path for path in own.parent.glob(f"{own.name}.before-restore-*") if path.suffix != ".reason"
        ]
        assert kept.with_name(f"{kept.name}.reason").read_text() == "the disk lost its mind\n"
        # What was there before is a backup like any other, and no longer behind.
        run("restore", kept)
        assert live.reasons_against_live(system_clock) == []
        assert people.roles_of(Person.objects.get(username="ann")) == {Role.ANALYST, Role.VIEWER}
    finally:
        remove_what_was_kept()


@sqlite
def test_a_restore_without_a_key_says_that_nothing_shows_the_loss(beside: Path) -> None:
    file = beside / "backup.sqlite3"
    run("backup", file)
    person(Role.ANALYST, name="ann")
    try:
        assert "No key signs its heads. Start a new epoch with --not-behind." in run(
            "restore", file, "--force", "test"
        )
        assert checkpoints.outside_head() is None
        assert not Person.objects.exists()
    finally:
        remove_what_was_kept()


@sqlite
def test_nothing_is_restored_under_a_worker_or_from_something_else(beside: Path) -> None:
    file = beside / "backup.sqlite3"
    run("backup", file)
    heartbeats.beat("w:1", clock=system_clock)
    assert "Stop it and the web servers first" in refused("restore", file)
    heartbeats.beat("w:1", clock=lambda: system_clock() - timedelta(minutes=2))
    assert "holds no database of this service" in refused("restore", beside / "none")
    other = beside / "other.sqlite3"
    sqlite3.connect(other).execute("CREATE TABLE t (c)").connection.close()
    assert "holds no database of this service" in refused("restore", other)
    text = beside / "text"
    text.write_text("no database at all, whatever its name says " * 40)
    assert "cannot be read as a database" in refused("restore", text)
    run("restore", file)
    remove_what_was_kept()


@sqlite
def test_p25_a_closed_database_is_not_opened_again_by_a_backup(beside: Path) -> None:
    file = beside / "backup.sqlite3"
    run("backup", file)
    LedgerHead.objects.update(closed_to="postgresql db/cavra")
    try:
        for arguments in ((), ("--force", "we want it back")):
            assert "This database is closed" in refused("restore", file, *arguments)
        assert LedgerHead.objects.get().closed_to
    finally:
        guards.drop()
        LedgerHead.objects.update(closed_to="")
        guards.install()


@sqlite
def test_a_database_that_cannot_be_read_is_moved_aside_by_force(
    beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    person(Role.ANALYST, name="ann")
    file, own = beside / "backup.sqlite3", beside / "own.sqlite3"
    run("backup", file)
    damaged = b"no database any more " * 400
    own.write_bytes(damaged)
    with databases.instead({**databases.sqlite_file(own), "OPTIONS": {"timeout": 20}}):
        assert "cannot be read" in refused("restore", file)
        assert own.read_bytes() == damaged
        said = run("restore", file, "--force", "the disk is broken")
        assert "is kept in" in said
        assert "Its last head is not signed" in said
        assert "records verified" in said
        assert Person.objects.filter(username="ann").exists()
    (kept,) = [path for path in beside.glob("own.sqlite3.before-restore-*") if path.suffix != ".reason"]
    assert kept.read_bytes() == damaged


# --- PostgreSQL -----------------------------------------------------------------------------------------------------


@pytest.mark.only("postgresql")
@pytest.mark.parametrize("command", ("backup", "restore"))
def test_on_postgresql_its_own_tools_do_it(command: str, beside: Path) -> None:
    assert "pg_dump" in refused(command, beside / "backup")
