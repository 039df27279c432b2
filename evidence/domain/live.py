"""What stands against anything live, whoever asks: claims, first deliveries, runs, pages, ``/readyz`` (P6, P25)."""

import os
from dataclasses import dataclass

from evidence.domain import checkpoints, ledger
from evidence.domain import clock as clocks
from evidence.domain.clock import Clock
from evidence.errors import Conflict
from evidence.models import LedgerHead

Reasons = list[tuple[str, str]]


@dataclass(frozen=True)
class LogState:
    """The head row as a question about the log needs it."""

    origin: str
    size: int
    peaks: bytes
    closed_to: str

    @classmethod
    def read(cls) -> "LogState | None":
        """The row as it is now; None when there is no log."""
        row = LedgerHead.objects.values_list("origin", "size", "peaks", "closed_to").first()
        return row and cls(row[0], row[1], bytes(row[2]), row[3])


# The last answer of ``checkpoints.ledger_behind``, under everything that it depends on: file and tree.
_ANSWERED: dict[object, Reasons] = {}


def reasons_against_live(clock: Clock) -> Reasons:
    """Why nothing live is done here and now, as ``(code, sentence)``, the most lasting first; empty means yes."""
    return [*reasons_against_log(LogState.read()), *clocks.reasons_against_live(clock)]


def reasons_against_log(state: LogState | None) -> Reasons:
    """Why nothing live is done with this database at all: it went on elsewhere, or was set back (P25).

    The same file beside the same tree is looked at once; else this takes a few short queries.
    """
    if state is None:
        return []
    if state.closed_to:
        return [(ledger.CLOSED, ledger.closed_sentence(state.closed_to))]
    about = (_outside(), state.origin, state.size, state.peaks)
    answer = _ANSWERED.get(about)
    if answer is None:
        answer = checkpoints.ledger_behind()
        _ANSWERED.clear()
        _ANSWERED[about] = answer
    return list(answer)


def require_open() -> None:
    """Raise ``Conflict`` ``ledger_closed`` when the log goes on in another database."""
    state = LogState.read()
    if state and state.closed_to:
        raise Conflict(ledger.closed_sentence(state.closed_to), code=ledger.CLOSED)


def require_log() -> None:
    """Raise ``Conflict`` when nothing live is done with this database."""
    for code, sentence in reasons_against_log(LogState.read()):
        raise Conflict(sentence, code=code)


def _outside() -> tuple[int, ...]:
    """What tells one head file from the next; empty when there is none."""
    try:
        found = os.stat(checkpoints.outside_path())
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns, found.st_size
