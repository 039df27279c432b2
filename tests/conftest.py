"""What every test gets: a database like a deployment's, standing guards, no network beyond this machine."""

import ipaddress
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.servers.basehttp import WSGIServer
from django.db import connection, transaction
from django.db.backends.postgresql.operations import DatabaseOperations
from django.test import TransactionTestCase
from hypothesis import settings as hypothesis_settings

from evidence import guards
from evidence.connectors import references
from evidence.domain import configured_secrets, live
from tests.builders import Clock, World
from tests.evidence.ledger_keys import Keys
from tests.receiver import Receiver
from tests.rich import rich_world
from tests.tamper import Told

VENDORS = ("sqlite", "postgresql")

# Whoever runs the tests tries the same examples, and no example has a time: that of a busy machine says nothing.
hypothesis_settings.load_profile("ci")


def vendor() -> str:
    """The database that the tests run on: ``sqlite`` or ``postgresql``."""
    return "sqlite" if settings.DATABASES["default"]["ENGINE"].endswith("sqlite3") else "postgresql"


# --- which tests run, and what a skipped one means ------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "only(vendor): says something about this database alone, sqlite or postgresql"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out (not skip) what speaks of the other database; the other run has it."""
    elsewhere = []
    for item in items:
        marker = item.get_closest_marker("only")
        if marker is None:
            continue
        (wanted,) = marker.args
        if wanted not in VENDORS:
            raise pytest.UsageError(f"{item.nodeid}: only({wanted!r}) names none of {VENDORS}")
        if wanted != vendor():
            elsewhere.append(item)
    if elsewhere:
        config.hook.pytest_deselected(items=elsewhere)
        items[:] = [item for item in items if item not in elsewhere]


def _fail_when_skipped(report: Any) -> Any:
    """With CI=true nothing may be left out unnoticed: no database, no browser."""
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: a skipped test is a failure with CI=true ({reason})"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    return _fail_when_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    return _fail_when_skipped((yield))


# --- database ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    django_db_modify_db_settings_parallel_suffix: None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """SQLite in a file, not in memory: threads and processes then meet the locks of a deployment."""
    database = settings.DATABASES["default"]
    if vendor() == "sqlite":
        database.setdefault("TEST", {})["NAME"] = str(tmp_path_factory.mktemp("database") / "test.sqlite3")
        # Nothing here has to survive a power cut; waiting for the disk was most of the time.
        options = database["OPTIONS"]
        options["init_command"] = options["init_command"].replace("synchronous=FULL", "synchronous=OFF")


@pytest.fixture(scope="session", autouse=True)
def _guards_survive_flushes() -> Iterator[None]:
    """Every test that commits ends with a flush, which the guards refuse: drop them for it.

    Hooked where Django and pytest-django both pass (``transactional_db``, ``live_server``, test case
    classes). Nobody here puts the guards back: the flush's own post_migrate has to, and is held to it.
    """
    from evidence import guards

    flush = TransactionTestCase._fixture_teardown

    def drop_then_flush(case: TransactionTestCase) -> None:
        guards.drop()
        flush(case)
        problems = guards.differences()
        assert problems == [], f"after the flush: {problems}"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", drop_then_flush)
        if vendor() == "postgresql":
            patch.setattr(DatabaseOperations, "sql_flush", _delete_what_is_there)
        yield


def _delete_what_is_there(
    operations: DatabaseOperations, style: Any, tables: Sequence[str], **options: Any
) -> list[str]:
    """SQL of a flush that empties the tables that have rows: TRUNCATE makes a new file for every table there is."""
    if not tables:
        return []
    quoted = {table: operations.quote_name(table) for table in tables}
    asked = " UNION ALL ".join(
        f"SELECT '{table}' WHERE EXISTS (SELECT 1 FROM {name})" for table, name in quoted.items()
    )
    with operations.connection.cursor() as cursor:
        cursor.execute(asked)
        filled = [table for (table,) in cursor.fetchall()]
    # The flush is one transaction; nothing is left that a foreign key could miss.
    return ["SET LOCAL session_replication_role = replica", *(f"DELETE FROM {quoted[t]}" for t in filled)]


# --- surroundings -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session", autouse=True)
def _fast_passwords_and_scratch_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A password costs 0.1 ms instead of 265, and nothing is written into the work tree."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "PASSWORD_HASHERS", ["django.contrib.auth.hashers.MD5PasswordHasher"])
        data = tmp_path_factory.mktemp("data")
        patch.setattr(settings, "CAVRA_DATA", data)
        patch.setattr(settings, "MEDIA_ROOT", str(data / "media"))
        yield


def _learn_as_far_as_there_is_a_database(learn: Callable[[], None] = configured_secrets._learn) -> None:
    """Documents are also built by tests, and at import, that have none; there are no connectors there.

    Whether there is one is asked for before the first query: a refused query would leave a pool of connections to
    the configured database behind, and every later test would be in that.
    """
    try:
        connection.ensure_connection()
    except RuntimeError as error:
        if "Database access not allowed" not in str(error):
            raise
    else:
        learn()


configured_secrets._learn = _learn_as_far_as_there_is_a_database


@pytest.fixture(autouse=True)
def _no_secrets_of_another_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """References are asked for once in each test, not when some seconds have passed; values of others are unknown."""
    monkeypatch.setattr(configured_secrets, "KEPT_S", float("inf"))
    configured_secrets.forget()
    references._known._refs.clear()
    references._known._held.clear()


@pytest.fixture(autouse=True)
def _no_head_of_another_test(request: pytest.FixtureRequest) -> None:
    """The signed head beside the database outlives a test's rollback; the next one would be found set back."""
    if "told" in request.fixturenames:
        return  # A database that is a whole module's, with the head that belongs to it.
    live._ANSWERED.clear()
    shutil.rmtree(settings.CAVRA_DATA / "ledger", ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _many_may_call_the_live_server_at_once() -> Iterator[None]:
    """Django's own lets ten callers wait to be accepted; on a busy machine those behind them are cut off."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WSGIServer, "request_queue_size", 128)
        yield


class NetworkUsed(RuntimeError):
    """No subclass of OSError: code under test must not take it for a network failure."""


def _on_this_machine(host: str | bytes | None) -> bool:
    if isinstance(host, bytes):
        host = host.decode()
    if host in (None, "", "localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    """Sockets of this process reach the loopback only, and no name server is asked."""
    connect, connect_ex, resolve = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def refuse(sock: socket.socket, address: Any) -> None:
        if sock.family in (socket.AF_INET, socket.AF_INET6) and not _on_this_machine(address[0]):
            sock.close()
            raise NetworkUsed(f"a test tried to connect to {address[0]}")

    def guarded_connect(sock: socket.socket, address: Any) -> None:
        refuse(sock, address)
        connect(sock, address)

    def guarded_connect_ex(sock: socket.socket, address: Any) -> int:
        refuse(sock, address)
        return connect_ex(sock, address)

    def guarded_resolve(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if _is_name(name) and not _on_this_machine(name):
            if name.rstrip(".").endswith("invalid"):  # RFC 6761: such a name never resolves
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            raise NetworkUsed(f"a test tried to resolve {name}")
        return resolve(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded_connect)
        patch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
        patch.setattr(socket, "getaddrinfo", guarded_resolve)
        yield


def _is_name(host: str | None) -> bool:
    """Whether it takes a name server to know this host."""
    try:
        ipaddress.ip_address((host or "").partition("%")[0])
    except ValueError:
        return bool(host)
    return False


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keys:
    """Keys that sign the log's head; none is configured until the test adds one."""
    return Keys(tmp_path / "keys", monkeypatch)


# --- the chain ----------------------------------------------------------------------------------------------------


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver of this test's own."""
    made = Receiver()
    yield made
    made.stop()


@pytest.fixture
def clock() -> Clock:
    """Stands a little after everything that happens by the real one, until the test moves it."""
    return Clock(datetime.now(UTC) + timedelta(minutes=1))


@pytest.fixture
def world(db: None, receiver: Receiver) -> World:
    """People, a schedule and one webhook connector whose receiver is the test's."""
    return World(receiver)


@pytest.fixture(scope="module")
def told(
    django_db_setup: None, django_db_blocker: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Told]:
    """A world in which everything happened once, guards dropped, for a whole module; each test undoes its change."""
    folder = tmp_path_factory.mktemp("rich")
    receiver = Receiver()
    with pytest.MonkeyPatch.context() as patch, django_db_blocker.unblock(), transaction.atomic():
        patch.setattr(settings, "CAVRA_DATA", folder)
        Keys(folder / "keys", patch).add()
        rich_world(receiver)
        connection.check_constraints()
        guards.drop()
        yield Told()
        transaction.set_rollback(True)
    receiver.stop()
