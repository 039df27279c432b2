"""Working with another database for a while, as if it were this service's own: to verify, to fill, to read it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dj_database_url
from django.contrib.contenttypes.models import ContentType
from django.db import DEFAULT_DB_ALIAS, connections

from evidence.errors import InvalidInput

Settings = Mapping[str, Any]


def sqlite_file(path: Path) -> Settings:
    """Settings of a SQLite database that is only read; its file is not changed by being opened."""
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(path),
        "OPTIONS": {"timeout": 20, "init_command": "PRAGMA query_only=ON;"},
    }


def postgresql(url: str) -> Settings:
    """Settings of the PostgreSQL database that ``url`` names; ``InvalidInput`` for anything else."""
    try:
        parsed = dict(dj_database_url.parse(url))
    except (ValueError, KeyError) as error:
        raise InvalidInput(
            "This is no address of a database: postgresql://USER@HOST/NAME.", code="url"
        ) from error
    if not str(parsed["ENGINE"]).endswith("postgresql") or not parsed["NAME"]:
        raise InvalidInput("This names no PostgreSQL database: postgresql://USER@HOST/NAME.", code="url")
    return parsed


def label(database: Settings) -> str:
    """How a database is named to people: never with user or password."""
    if str(database["ENGINE"]).endswith("sqlite3"):
        return f"sqlite {Path(database['NAME']).name}"
    port = f":{database['PORT']}" if database.get("PORT") else ""
    return f"postgresql {database.get('HOST') or 'localhost'}{port}/{database['NAME']}"[:200]


@contextmanager
def instead(database: Settings, *, keep_as: str = "") -> Iterator[None]:
    """Let every query inside go to ``database``; the one before is reached as ``keep_as``, if that is given.

    For commands, which have one thread: connections of other threads stay where they are.
    """
    before, own = connections.databases[DEFAULT_DB_ALIAS], connections[DEFAULT_DB_ALIAS]
    if keep_as:
        connections.databases[keep_as], connections[keep_as] = before, own
    connections.databases[DEFAULT_DB_ALIAS] = connections.configure_settings(
        {DEFAULT_DB_ALIAS: dict(database)}
    )[DEFAULT_DB_ALIAS]
    connections[DEFAULT_DB_ALIAS] = connections.create_connection(DEFAULT_DB_ALIAS)
    ContentType.objects.clear_cache()
    try:
        yield
    finally:
        connections[DEFAULT_DB_ALIAS].close()
        connections.databases[DEFAULT_DB_ALIAS], connections[DEFAULT_DB_ALIAS] = before, own
        if keep_as:
            del connections.databases[keep_as]
            del connections[keep_as]
        ContentType.objects.clear_cache()
