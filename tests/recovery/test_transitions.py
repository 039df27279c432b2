"""Every pair of states of every table: what the table allows happens, the rest is refused and changes nothing."""

from collections.abc import Callable
from datetime import timedelta
from enum import StrEnum
from typing import Any

import pytest
from django.db import models

from evidence.domain import epochs, erasures
from evidence.domain import transitions as evidence_transitions
from evidence.domain.transitions import Transitions, move
from evidence.enums import CaseState, EpochState, ErasureState, KeyState, RouteState
from evidence.errors import StaleState
from evidence.models import Case, EpochProposal, Erasure, LedgerKey, Record, Route
from recovery.domain import dispositions, transitions
from recovery.domain.dispositions import Proposal
from recovery.enums import (
    DecisionState,
    DispositionKind,
    DispositionState,
    EntryState,
    ExecutionState,
    RecoveryState,
    RunState,
)
from recovery.execution import claims, runs
from recovery.execution.selection import RunRequest
from recovery.models import ApprovalEntry, Disposition, Execution, Recovery, RetryDecision, WorkerRun
from tests.builders import World

pytestmark = pytest.mark.tampers  # states are set without their records

ROUTES, CASES = evidence_transitions.ROUTES, evidence_transitions.CASES
LEDGER_KEYS, EPOCHS = evidence_transitions.LEDGER_KEYS, evidence_transitions.EPOCHS


def a_route(world: World) -> Route:
    world.announced()
    return Route.objects.earliest("pk")


def a_case(world: World) -> Case:
    return world.failed()[0]


def a_ledger_key(world: World) -> LedgerKey:
    return LedgerKey.objects.create(
        name="log", public_key=b"0" * 32, key_id="00000000", introduced_at=world.clock()
    )


def an_erasure(world: World) -> Erasure:
    world.announced()
    record = Record.objects.latest("index")
    return erasures.propose([record.record_id], "law", "asked", by=world.administrator, clock=world.clock)


def a_decision(world: World) -> RetryDecision:
    world.failed()
    world.planned()
    return RetryDecision.objects.get()


def an_entry(world: World) -> ApprovalEntry:
    world.failed()
    return world.requested()[0]


def an_execution(world: World) -> Execution:
    world.failed()
    (entry,) = world.approved()
    run = runs.start(RunRequest(dry_run=False), by=world.operator, clock=world.clock).run
    claims.claim(entry.pk, run, clock=world.clock)
    return Execution.objects.get()


def a_run(world: World) -> WorkerRun:
    return runs.start(RunRequest(dry_run=False, background=True), by=world.operator, clock=world.clock).run


def a_recovery(world: World) -> Recovery:
    world.failed()
    world.playbook()
    return Recovery.objects.get()


def a_disposition(world: World) -> Disposition:
    (case,) = world.failed()
    abandoned = Proposal(DispositionKind.ABANDONED, reason="the drill was called off", external_ref="CHG-1")
    dispositions.propose(case, abandoned, by=world.analyst, clock=world.clock)
    return Disposition.objects.get()


def with_route(state: StrEnum, world: World) -> dict[str, Any]:
    """Columns that a row's constraints ask for beside a route's state."""
    if state == RouteState.OUTSTANDING:
        return {"acknowledged_by": None, "acknowledged_at": None, "acknowledgement_id": ""}
    return {
        "acknowledged_by": world.analyst,
        "acknowledged_at": world.clock(),
        "acknowledgement_id": "gordack-0000000000000000",
    }


def with_case(state: StrEnum, world: World) -> dict[str, Any]:
    beside: dict[str, Any] = {"lease_until": world.clock() if state == CaseState.SENDING else None}
    # What is parked was never tried.
    return beside | ({"attempt_count": 0, "counted_attempts": 0} if state == CaseState.PARKED else {})


def with_entry(state: StrEnum, world: World) -> dict[str, Any]:
    approved = state in (EntryState.APPROVED, EntryState.CLAIMED)
    at = world.clock() if approved else None
    return {"approved_at": at, "execute_by": at}


def with_execution(state: StrEnum, world: World) -> dict[str, Any]:
    return {"recorded_at": None if state == ExecutionState.CLAIMED else world.clock()}


def with_run(state: StrEnum, world: World) -> dict[str, Any]:
    later = world.clock() + timedelta(minutes=2)
    return {
        "finished_at": world.clock() if state == RunState.FINISHED else None,
        "lease_until": later if state == RunState.RUNNING else None,
    }


def with_disposition(state: StrEnum, world: World) -> dict[str, Any]:
    if state == DispositionState.PROPOSED:
        return {"decided_by": None, "decided_at": None}
    return {"decided_by": world.approver, "decided_at": world.clock()}


def with_ledger_key(state: StrEnum, world: World) -> dict[str, Any]:
    return {"ended_at": None if state == KeyState.ACTIVE else world.clock()}


def an_epoch_proposal(world: World) -> EpochProposal:
    return epochs.propose(
        reason="restored", by=world.administrator, clock=world.clock, although_not_behind=True
    )


def with_epoch(state: StrEnum, world: World) -> dict[str, Any]:
    if state == EpochState.PROPOSED:
        return {"decided_by": None, "decided_at": None}
    return {"decided_by": world.auditor, "decided_at": world.clock()}


def with_erasure(state: StrEnum, world: World) -> dict[str, Any]:
    decided = {"decided_by": world.auditor, "decided_at": world.clock()}
    return dict.fromkeys(decided) if state == ErasureState.PROPOSED else decided


def nothing(state: StrEnum, world: World) -> dict[str, Any]:
    return {}


Make = Callable[[World], models.Model]
Beside = Callable[[StrEnum, World], dict[str, Any]]

TABLES: dict[str, tuple[Transitions, type[StrEnum], Make, Beside]] = {
    "routes": (ROUTES, RouteState, a_route, with_route),
    "cases": (CASES, CaseState, a_case, with_case),
    "ledger keys": (LEDGER_KEYS, KeyState, a_ledger_key, with_ledger_key),
    "epochs": (EPOCHS, EpochState, an_epoch_proposal, with_epoch),
    "erasures": (evidence_transitions.ERASURES, ErasureState, an_erasure, with_erasure),
    "decisions": (transitions.DECISIONS, DecisionState, a_decision, nothing),
    "entries": (transitions.ENTRIES, EntryState, an_entry, with_entry),
    "executions": (transitions.EXECUTIONS, ExecutionState, an_execution, with_execution),
    "runs": (transitions.RUNS, RunState, a_run, with_run),
    "recoveries": (transitions.RECOVERIES, RecoveryState, a_recovery, nothing),
    "dispositions": (transitions.DISPOSITIONS, DispositionState, a_disposition, with_disposition),
}


@pytest.mark.parametrize("name", TABLES)
def test_every_pair_of_states(world: World, name: str) -> None:
    table, states, make, beside = TABLES[name]
    row = make(world)
    rows = table.model._default_manager.filter(pk=row.pk)
    for old in states:
        for new in states:
            rows.update(**{table.field: old, **beside(old, world)})
            if table.allows(old, new):
                move(table, row.pk, new, **beside(new, world))
                assert rows.values_list(table.field, flat=True).get() == new
                continue
            before = rows.values().get()
            with pytest.raises(StaleState) as refused:
                move(table, row.pk, new, **beside(new, world))
            assert refused.value.extra["current_state"] == old
            assert rows.values().get() == before, f"{old} became {new}"


@pytest.mark.parametrize("name", TABLES)
def test_a_verb_moves_only_from_where_it_says(world: World, name: str) -> None:
    """``only_from`` and ``only_if`` narrow a table; they never widen it."""
    table, states, make, beside = TABLES[name]
    row = make(world)
    rows = table.model._default_manager.filter(pk=row.pk)
    old, new = next((old, new) for old in states for new in states if table.allows(old, new))
    rows.update(**{table.field: old, **beside(old, world)})
    before = rows.values().get()
    elsewhere: list[dict[str, Any]] = [
        {"only_from": [state for state in states if state != old]},
        {"only_from": []},
        {"only_if": {"pk__in": [row.pk + 1]}},
    ]
    for narrowed in elsewhere:
        with pytest.raises(StaleState):
            move(table, row.pk, new, **narrowed, **beside(new, world))
        assert rows.values().get() == before
    for to in set(states) - table.moves[old]:
        with pytest.raises(StaleState):
            move(table, row.pk, to, only_from=list(states), **beside(to, world))
        assert rows.values().get() == before
    move(table, row.pk, new, only_from=[old], **beside(new, world))
    assert rows.values_list(table.field, flat=True).get() == new


@pytest.mark.parametrize("name", TABLES)
def test_every_state_is_in_its_table(name: str) -> None:
    table, states, _, _ = TABLES[name]
    assert set(table.moves) == set(states)
    assert set().union(*table.moves.values()) <= set(states)


def test_every_table_is_here() -> None:
    known = {id(table) for table, *_ in TABLES.values()}
    for module in (evidence_transitions, transitions):
        found = {name for name, value in vars(module).items() if isinstance(value, Transitions)}
        assert {name for name in found if id(getattr(module, name)) not in known} == set()


# What must never lead anywhere again, written down apart from the tables.
FINAL = {
    "erasures": {ErasureState.CONFIRMED, ErasureState.REFUSED, ErasureState.WITHDRAWN},
    "cases": {CaseState.DELIVERED, CaseState.SUPERSEDED, CaseState.ABANDONED},
    "decisions": {DecisionState.SUPERSEDED, DecisionState.CLOSED},
    "entries": {
        EntryState.DENIED,
        EntryState.WITHDRAWN,
        EntryState.VOID,
        EntryState.CANCELLED,
    },
    "executions": {ExecutionState.DELIVERED, ExecutionState.NOT_SENT},
    "runs": {RunState.FINISHED},
    "recoveries": {RecoveryState.REOPENED},
    "ledger keys": {KeyState.REVOKED},
    "epochs": {EpochState.CONFIRMED, EpochState.WITHDRAWN},
    "routes": set(),
    "dispositions": set(DispositionState) - {DispositionState.PROPOSED},
}


@pytest.mark.parametrize("name", TABLES)
def test_what_is_final_is_final(name: str) -> None:
    table, states, _, _ = TABLES[name]
    assert {state for state in states if not table.moves[state]} == FINAL[name]


def test_p9_what_was_used_comes_back_only_when_nothing_left() -> None:
    assert transitions.DECISIONS.moves[DecisionState.USED] == {DecisionState.OPEN}
    assert transitions.ENTRIES.moves[EntryState.CLAIMED] == {EntryState.APPROVED}
    # Permission never comes back: what ran out can only be found changed as well.
    assert transitions.ENTRIES.moves[EntryState.EXPIRED] == {EntryState.VOID}
    # A failure is unsaid by an answer that came late, by nothing else.
    assert transitions.EXECUTIONS.moves[ExecutionState.FAILED] == {ExecutionState.DELIVERED}


def test_p3_an_unknown_outcome_is_never_sent_from() -> None:
    assert not CASES.allows(CaseState.UNKNOWN, CaseState.SENDING)
    assert CASES.sources(CaseState.SENDING) == [CaseState.PARKED, CaseState.FAILED]
    assert transitions.ENTRIES.sources(EntryState.CLAIMED) == [EntryState.APPROVED]
    assert transitions.EXECUTIONS.sources(ExecutionState.CLAIMED) == []
