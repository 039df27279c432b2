"""For tests in which several threads or processes act at once."""

import threading
import time
from collections.abc import Callable

from django.db import connection


def database_url() -> str:
    """Where the tests' own database is, for a process beside this one."""
    settings = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{settings['NAME']}"
    password = f":{settings['PASSWORD']}" if settings["PASSWORD"] else ""
    return f"postgres://{settings['USER']}{password}@{settings['HOST']}:{settings['PORT'] or 5432}/{settings['NAME']}"


def wait_until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something that another process does."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


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
