"""Which state may follow which, as data, and the one function that moves a row (compare and set)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from django.db import models

from evidence.enums import CaseState, EpochState, ErasureState, KeyState, RouteState
from evidence.errors import StaleState
from evidence.models import Case, EpochProposal, Erasure, LedgerKey, Route


@dataclass(frozen=True)
class Transitions:
    """Allowed moves of one model's state field: each state to the states that may follow it."""

    model: type[models.Model]
    field: str
    moves: Mapping[StrEnum, frozenset[StrEnum]]

    def sources(self, to: StrEnum) -> list[StrEnum]:
        """States from which ``to`` may be reached."""
        return [state for state, following in self.moves.items() if to in following]

    def allows(self, old: str, new: str) -> bool:
        """Whether ``new`` may follow ``old``."""
        return any(old == state and new in following for state, following in self.moves.items())


def move(
    table: Transitions,
    pk: int,
    to: StrEnum,
    *,
    only_from: Iterable[StrEnum] | None = None,
    only_if: Mapping[str, Any] | None = None,
    detail: str = "",
    **values: Any,
) -> None:
    """Set the state of one row to ``to``, if it is in a state the table allows (and in ``only_from``).

    ``only_if`` are further conditions on the row, ``values`` further columns to set with it. One UPDATE
    decides and locks; raises ``StaleState`` when the row was somewhere else already.
    """
    sources = table.sources(to)
    if only_from is not None:
        chosen = set(only_from)
        sources = [state for state in sources if state in chosen]
    rows = table.model._default_manager.filter(pk=pk, **{f"{table.field}__in": sources}, **(only_if or {}))
    if not rows.update(**{table.field: to, **values}):
        current = table.model._default_manager.filter(pk=pk).values_list(table.field, flat=True).first()
        raise StaleState(
            detail or f"This {table.model._meta.verbose_name} is {current} now; it cannot become {to}.",
            current_state=current,
        )


_ANSWERS = frozenset(
    {RouteState.ACKNOWLEDGED, RouteState.DISMISSED, RouteState.ESCALATED, RouteState.RESOLVED}
)

# The newest answer counts, whatever came before it; nothing becomes outstanding again.
ROUTES = Transitions(Route, "acknowledgement_state", dict.fromkeys(RouteState, _ANSWERS))

CASES = Transitions(
    Case,
    "state",
    {
        CaseState.SENDING: frozenset({CaseState.DELIVERED, CaseState.FAILED, CaseState.UNKNOWN}),
        # Sent by the worker, or settled by two people before; what was lost with an epoch is unknown.
        CaseState.PARKED: frozenset(
            {CaseState.SENDING, CaseState.UNKNOWN, CaseState.SUPERSEDED, CaseState.ABANDONED}
        ),
        # To delivered: the answer came after people had attested that nothing arrived.
        CaseState.FAILED: frozenset(
            {CaseState.SENDING, CaseState.DELIVERED, CaseState.SUPERSEDED, CaseState.ABANDONED}
        ),
        # A late answer or a reconciliation says what came of it; nothing is sent before that.
        CaseState.UNKNOWN: frozenset({CaseState.DELIVERED, CaseState.FAILED}),
        CaseState.DELIVERED: frozenset(),
        CaseState.SUPERSEDED: frozenset(),
        CaseState.ABANDONED: frozenset(),
    },
)

# A retired key may turn out to be stolen; nothing brings a key back.
LEDGER_KEYS = Transitions(
    LedgerKey,
    "state",
    {
        KeyState.ACTIVE: frozenset({KeyState.RETIRED, KeyState.REVOKED}),
        KeyState.RETIRED: frozenset({KeyState.REVOKED}),
        KeyState.REVOKED: frozenset(),
    },
)

EPOCHS = Transitions(
    EpochProposal,
    "state",
    {
        EpochState.PROPOSED: frozenset({EpochState.CONFIRMED, EpochState.WITHDRAWN}),
        EpochState.CONFIRMED: frozenset(),
        EpochState.WITHDRAWN: frozenset(),
    },
)

# Decided once, by somebody else than who proposed it or by nobody but them.
ERASURES = Transitions(
    Erasure,
    "state",
    {
        ErasureState.PROPOSED: frozenset(
            {ErasureState.CONFIRMED, ErasureState.REFUSED, ErasureState.WITHDRAWN}
        ),
        ErasureState.CONFIRMED: frozenset(),
        ErasureState.REFUSED: frozenset(),
        ErasureState.WITHDRAWN: frozenset(),
    },
)
