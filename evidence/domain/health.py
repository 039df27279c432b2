"""Whether this service can do its work now: names of checks and whether each passes, nothing more."""

from collections.abc import Callable

from django.db import DatabaseError

from evidence import guards
from evidence.domain import clock as clocks
from evidence.domain import heartbeats, live
from evidence.domain.clock import Clock
from evidence.models import LedgerHead


def checks(*, clock: Clock) -> dict[str, bool]:
    """Each check of readiness by name. A database that does not answer fails all of them."""
    asked: dict[str, Callable[[], bool]] = {
        "database": LedgerHead.objects.exists,
        "guards": lambda: not guards.differences(),
        "worker": lambda: heartbeats.alive(clock=clock),
        "clock": lambda: not clocks.reasons_against_live(clock),
        "ledger": lambda: not live.reasons_against_log(live.LogState.read()),
    }
    return {name: _passes(ask) for name, ask in asked.items()}


def _passes(ask: Callable[[], bool]) -> bool:
    try:
        return ask()
    except DatabaseError:
        return False
