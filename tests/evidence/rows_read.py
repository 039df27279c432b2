"""Counting the rows that a piece of code reads, whatever queries it makes of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from django.db.models.sql.compiler import SQLCompiler


@dataclass
class Read:
    """Rows that were fetched, and queries that fetched them."""

    rows: int = 0
    queries: int = 0


@contextmanager
def rows_read() -> Iterator[Read]:
    """Count rows as the ORM hands them out."""
    read = Read()
    original = SQLCompiler.results_iter

    def counted(compiler: SQLCompiler, *args: Any, **kwargs: Any) -> Iterator[Any]:
        read.queries += 1
        for row in original(compiler, *args, **kwargs):
            read.rows += 1
            yield row

    with mock.patch.object(SQLCompiler, "results_iter", counted):
        yield read
