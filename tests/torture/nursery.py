"""Processes that start warm: one that has imported everything and opened nothing forks a child for each act.

``Nursery`` is the tests' side; run as a program this module is the parent of those children. A child has its
own connections, sender and loop, exactly like a worker or a web process, and can be killed like one.
"""

import gc
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# A child that hangs is ended by its alarm, so that a deadlock is a failure and not a wait.
CHILD_S = 120


@dataclass(frozen=True)
class Act:
    """One function of ``tests.torture.acts`` by its name, or any by its dotted one, with arguments that JSON can
    carry. A child that takes longer than ``at_most_s`` is ended.
    """

    name: str
    arguments: dict[str, Any]
    at_most_s: int = CHILD_S


@dataclass(frozen=True)
class Ended:
    """How a child ended: the signal that killed it (0 for none) and the facts it told, in order."""

    signal: int
    told: list[dict[str, Any]]

    @property
    def returned(self) -> Any:
        """What the act returned; fails unless it did."""
        return self._last("returned")["returned"]

    @property
    def refused(self) -> str:
        """The code of the refusal; empty when the act was done. Any other end is a failure."""
        return str(self._last("returned", "refused").get("refused", ""))

    def _last(self, *names: str) -> dict[str, Any]:
        last = self.told[-1] if self.told and not self.signal else {}
        assert last.keys() & set(names), self
        return last

    def moment(self, name: str) -> list[float]:
        """When the child told ``name``, by the clock that all processes share."""
        return [fact["at"] for fact in self.told if fact.get("moment") == name]


class Nursery:
    """The parent process, from the tests' side."""

    def __init__(self, database_url: str, scratch: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.nursery"],
            cwd=ROOT,
            env={
                **os.environ,
                "DATABASE_URL": database_url,
                "DEBUG": "true",
                "CAVRA_DATA": str(scratch),
                "EMAIL_URL": "dummy:",
                "LOG_LEVEL": "CRITICAL",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Nursery":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(CHILD_S)
        self.process.stdout.close()

    def together(self, *acts: Act) -> list[Ended]:
        """Each act in a process of its own; all start at once, with their connection open. Waits for all."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(
            json.dumps([[act.name, act.arguments, act.at_most_s] for act in acts]) + "\n"
        )
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the nursery is gone"
        return [Ended(number, told) for number, told in json.loads(line)]

    def alone(self, name: str, **arguments: Any) -> Ended:
        """One act in one process."""
        (ended,) = self.together(Act(name, arguments))
        return ended


# --- the parent process -------------------------------------------------------------------------------------------


def _children(acts: list[tuple[str, dict[str, Any], int]]) -> list[tuple[int, list[dict[str, Any]]]]:
    """Fork one child for each act, let them start at once, and wait for all."""
    ready, said_ready = os.pipe()
    start, let_start = os.pipe()
    born = []
    for name, arguments, at_most_s in acts:
        answer, said = os.pipe()
        pid = os.fork()
        if pid == 0:
            for end in (ready, let_start, answer):
                os.close(end)
            signal.alarm(at_most_s)
            _live(name, arguments, ready=said_ready, start=start, said=said)
        os.close(said)
        born.append((pid, answer))
    os.close(said_ready)
    os.close(start)
    waiting = len(born)
    while waiting and (bytes_read := os.read(ready, 4096)):
        waiting -= len(bytes_read)
    os.close(ready)
    os.close(let_start)
    ended = []
    for pid, answer in born:
        with os.fdopen(answer, encoding="utf-8") as lines:
            told = [json.loads(line) for line in lines]
        _, status = os.waitpid(pid, 0)
        ended.append((os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, told))
    return ended


def _live(name: str, arguments: dict[str, Any], *, ready: int, start: int, said: int) -> None:
    """The whole life of a child. Never returns."""
    from django.db import connection, connections

    from evidence.errors import DomainError
    from tests.torture import acts

    acts.tells_into(said)
    module, _, function = name.rpartition(".")
    try:
        connection.ensure_connection()
        os.write(ready, b".")
        os.read(start, 1)  # until the parent closes its end
        acts.tell(returned=getattr(import_module(module) if module else acts, function)(**arguments))
    except DomainError as error:
        acts.tell(refused=error.code)
    except Exception as error:
        acts.tell(raised=f"{type(error).__name__}: {error}")
    finally:
        connections.close_all()
        os._exit(0)


def _main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "cavra_site.settings")
    import django

    django.setup()
    from tests.torture import acts  # noqa: F401 - imports what the acts need, once for all children

    gc.freeze()
    for line in sys.stdin:
        answer = json.dumps(_children(json.loads(line)))
        sys.stdout.write(answer + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
