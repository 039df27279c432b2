"""Processes beside this one that read the same database. They import this before Django: it imports nothing of it."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context


@contextmanager
def pool(processes: int, database: str) -> Iterator[ProcessPoolExecutor]:
    """``processes`` that open connections of their own to ``database``, the name in Django's settings.

    They are started anew, not forked: a connection that two processes hold serves neither.
    """
    made = ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=_begin, initargs=(database,)
    )
    with made:
        try:
            yield made
        finally:
            made.shutdown(cancel_futures=True)


def _begin(database: str) -> None:
    import django

    django.setup()

    from django.db import connection

    connection.settings_dict["NAME"] = database
