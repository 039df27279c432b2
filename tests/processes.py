"""For tests in which several threads or processes act at once."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.conf import settings
from django.db import connection


def database_url() -> str:
    """Where the tests' own database is, for a process beside this one."""
    own = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{own['NAME']}"
    password = f":{own['PASSWORD']}" if own["PASSWORD"] else ""
    return f"postgres://{own['USER']}{password}@{own['HOST']}:{own['PORT'] or 5432}/{own['NAME']}"


def environment(**more: str) -> dict[str, str]:
    """For a process beside this one: the tests' database and data, not what `make run` left in the work tree."""
    own = {"DATABASE_URL": database_url(), "CAVRA_DATA": str(settings.CAVRA_DATA), "DEBUG": "true"}
    return {**os.environ, **own, **more}


def wait_until(true: Callable[[], bool], seconds: float = 120.0) -> None:
    """Wait for something that another process does; how long matters only when it never happens."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


@contextmanager
def closed_port() -> Iterator[int]:
    """A port of this machine that refuses every connection, and that nobody else gets meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def together(*acts: Callable[[], object]) -> list[object]:
    """Each act in a thread of its own, all starting at once; what they returned or raised."""
    start = threading.Barrier(len(acts))
    results: list[object] = []

    def one(act: Callable[[], object]) -> None:
        try:
            start.wait()
            results.append(act())
        except Exception as error:
            results.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=one, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
