"""What ``tests/conftest.py`` promises to every test."""

import asyncio
import socket
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.db import connection

from tests import conftest


@pytest.mark.parametrize("address", ("192.0.2.1", "2001:db8::1", "10.0.0.1", "::ffff:192.0.2.1"))
def test_no_socket_leaves_this_machine(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as sock, pytest.raises(conftest.NetworkUsed):
        sock.connect((address, 80))
    with socket.socket(family) as sock, pytest.raises(conftest.NetworkUsed):
        sock.connect_ex((address, 80))


def test_no_event_loop_leaves_it_either() -> None:
    with pytest.raises(conftest.NetworkUsed):
        asyncio.run(asyncio.wait_for(asyncio.open_connection("192.0.2.1", 80), timeout=5))


def test_no_name_server_is_asked() -> None:
    with pytest.raises(conftest.NetworkUsed):
        socket.getaddrinfo("receiver.example", 443)
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("receiver.invalid", 443)


def test_the_loopback_is_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(("localhost", server.getsockname()[1]), timeout=5).close()


@pytest.mark.parametrize(("ci", "outcome"), (("true", "failed"), ("", "skipped")))
def test_a_skipped_test_fails_in_ci_only(monkeypatch: pytest.MonkeyPatch, ci: str, outcome: str) -> None:
    monkeypatch.setenv("CI", ci)
    assert report(longrepr=("file", 1, "Skipped: no browser")).outcome == outcome


def test_an_expected_failure_is_no_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    assert report(longrepr="reason", wasxfail="known").outcome == "skipped"


def report(**fields: Any) -> Any:
    return conftest._fail_when_skipped(
        SimpleNamespace(skipped=True, outcome="skipped", nodeid="a test", **fields)
    )


def test_passwords_are_cheap_and_files_go_elsewhere() -> None:
    assert make_password("secret").startswith("md5$")
    assert settings.BASE_DIR not in settings.CAVRA_DATA.parents


@pytest.mark.only("sqlite")
@pytest.mark.django_db
def test_sqlite_is_set_up_like_a_deployments() -> None:
    """All but ``synchronous``: tests survive no power cut."""
    pragmas = {}
    with connection.cursor() as cursor:
        for name in ("journal_mode", "recursive_triggers", "foreign_keys", "busy_timeout"):
            cursor.execute(f"PRAGMA {name}")
            (pragmas[name],) = cursor.fetchone()
        cursor.execute("PRAGMA database_list")
        file = cursor.fetchone()[2]
    assert pragmas == {
        "journal_mode": "wal",
        "recursive_triggers": 1,
        "foreign_keys": 1,
        "busy_timeout": 20_000,
    }
    assert file.endswith("test.sqlite3")
    assert connection.transaction_mode == "IMMEDIATE"


@pytest.mark.only("postgresql")
@pytest.mark.django_db
def test_postgresql_commits_durably_and_reads_what_is_committed() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SHOW transaction_isolation")
        assert cursor.fetchone() == ("read committed",)
        cursor.execute("SHOW synchronous_commit")
        assert cursor.fetchone() == ("on",)
