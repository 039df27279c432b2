"""Where the items of a set stand, and what is due about the set: what ``turns`` says of one case.

Nothing is decided here that a verb does not decide again; this is what pages say beforehand.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, FilteredRelation, Min, Q

from evidence.domain import records
from evidence.enums import CaseState
from evidence.models import Case
from recovery.domain import sets, turns
from recovery.domain.turns import Standing
from recovery.enums import OPEN_ENTRY_STATES, Act, EntryState, ExecutionState, ItemState, RunState
from recovery.models import ApprovalEntry, Execution, RetryDecision, RetrySet, RetrySetItem, WorkerRun

# What is due about an item that has not been asked for with its set yet. What was asked for alone goes along.
BEFORE: dict[Act, ItemState] = {
    Act.PLAN: ItemState.TO_PLAN,
    Act.ACKNOWLEDGE: ItemState.TO_ACKNOWLEDGE,
    Act.REQUEST: ItemState.TO_REQUEST,
    Act.DECIDE: ItemState.TO_REQUEST,
    Act.EXECUTE: ItemState.TO_REQUEST,
    Act.RENEW: ItemState.TO_REQUEST,
    Act.ATTEST: ItemState.UNKNOWN,
}

# Which act is due while an item stands so, in the order of the chain.
DUE: dict[Act, ItemState] = {
    Act.PLAN: ItemState.TO_PLAN,
    Act.ACKNOWLEDGE: ItemState.TO_ACKNOWLEDGE,
    Act.REQUEST: ItemState.TO_REQUEST,
    Act.DECIDE: ItemState.PENDING,
    Act.EXECUTE: ItemState.APPROVED,
    Act.RENEW: ItemState.EXPIRED,
}


@dataclass(frozen=True)
class Item:
    """One case of a set. ``execution`` is the newest one of its entry; ``decision`` is None once it was asked for."""

    case: Case
    entry: ApprovalEntry | None
    decision: RetryDecision | None
    execution: Execution | None
    state: ItemState

    @property
    def is_open(self) -> bool:
        """Whether its request can still be voted on or used."""
        return self.entry is not None and self.entry.state in OPEN_ENTRY_STATES

    @property
    def may_begin_again(self) -> bool:
        """Whether it needs a new set: its case failed and nothing of this one goes on about it."""
        return self.case.state == CaseState.FAILED and not self.is_open


@dataclass(frozen=True)
class SetStanding:
    """A set with its items in the order of their cases, and its live runs, the newest first."""

    row: RetrySet
    items: list[Item]
    runs: list[WorkerRun]

    def those(self, *states: ItemState) -> list[Item]:
        """Items that stand so."""
        return [item for item in self.items if item.state in states]

    @property
    def failed(self) -> list[Item]:
        """Items whose cases are failed now: what planning is about."""
        return [item for item in self.items if item.case.state == CaseState.FAILED]

    @property
    def planned(self) -> list[Item]:
        """Items with an open decision to answer, for the first time or again."""
        return [item for item in self.those(ItemState.TO_ACKNOWLEDGE, ItemState.TO_REQUEST) if item.decision]

    @property
    def counts(self) -> list[tuple[ItemState, int]]:
        """How many items stand where, in the order of the chain."""
        found = Counter(item.state for item in self.items)
        return [(state, found[state]) for state in ItemState if found[state]]

    @property
    def running(self) -> WorkerRun | None:
        """The run that is under way or waits for the worker."""
        return next((run for run in self.runs if run.state != RunState.FINISHED), None)

    @property
    def due(self) -> list[Act]:
        """Acts that are due, in the order of the chain."""
        acts = [act for act, state in DUE.items() if self.those(state)]
        return [act for act in acts if act is not Act.EXECUTE or not self.running]

    @property
    def again(self) -> list[Item]:
        """What a new set would be made of; nothing while this one has not been asked for."""
        return [item for item in self.items if item.may_begin_again] if self.row.digest else []

    @property
    def until(self) -> datetime | None:
        """When the first open request runs out."""
        ends = [
            item.entry.execute_by or item.entry.approve_by
            for item in self.those(ItemState.PENDING, ItemState.APPROVED, ItemState.QUEUED)
            if item.entry
        ]
        return min(ends, default=None)


def standing(row: RetrySet, at: datetime) -> SetStanding:
    """Where ``row`` stands at ``at``; a handful of queries, however many items."""
    found = sets.items(row)
    runs = list(row.runs.filter(dry_run=False).select_related("requested_by"))
    items = _asked(found, runs, at) if row.digest else _before(found)
    return SetStanding(row, items, runs)


def _before(found: Sequence[RetrySetItem]) -> list[Item]:
    """Items that have not been asked for: each as its case stands."""
    return [
        Item(now.case, None, now.decision, None, _state_before(now))
        for now in turns.standings([item.case for item in found])
    ]


def _state_before(now: Standing) -> ItemState:
    if now.act:
        return BEFORE[now.act]
    match now.case.state:
        case CaseState.DELIVERED:
            return ItemState.DELIVERED
        case CaseState.SENDING:
            return ItemState.SENDING
        case CaseState.FAILED:
            return ItemState.QUEUED if now.open_entry else ItemState.USED_UP
        case _:
            return ItemState.CANCELLED


def _asked(found: Sequence[RetrySetItem], runs: Sequence[WorkerRun], at: datetime) -> list[Item]:
    """Items of a frozen set: each as its request and what came of it stand."""
    executions: dict[int, Execution] = {}
    tried: set[tuple[int, int]] = set()
    for execution in Execution.objects.filter(entry__in=[item.entry_id for item in found]).order_by("pk"):
        executions[execution.entry_id] = execution
        tried.add((execution.run_id, execution.entry_id))
    waiting = {
        entry
        for run in runs
        if run.state != RunState.FINISHED
        for entry in run.request["entries"]
        if (run.pk, entry) not in tried
    }
    return [
        Item(
            item.case,
            item.entry,
            None,
            executions.get(item.entry_id or 0),
            _state_asked(item, executions.get(item.entry_id or 0), waiting, at),
        )
        for item in found
    ]


def _state_asked(
    item: RetrySetItem, execution: Execution | None, waiting: set[int], at: datetime
) -> ItemState:
    entry = item.entry
    if entry is None:
        return ItemState.DELIVERED if item.case.state == CaseState.DELIVERED else ItemState.LEFT_OUT
    match entry.state:
        case EntryState.PENDING:
            return ItemState.RUN_OUT if at > entry.approve_by else ItemState.PENDING
        case EntryState.APPROVED if entry.execute_by and at > entry.execute_by:
            return ItemState.RUN_OUT
        case EntryState.APPROVED:
            return ItemState.QUEUED if entry.pk in waiting else ItemState.APPROVED
        case EntryState.CLAIMED if execution and execution.state != ExecutionState.CLAIMED:
            return ItemState(execution.state)
        case EntryState.CLAIMED:
            return ItemState.SENDING
        case _:
            return ItemState(entry.state)


def shown_decisions(items: Sequence[Item]) -> str:
    """Digest of the retry decisions of ``items``: what an answer to all of them was given to."""
    shown = [
        [item.case.case_id, item.decision.attempt_no, item.decision.policy_digest]
        for item in items
        if item.decision
    ]
    return records.digest(records.canonical(sorted(shown)))


# --- lists --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """A set as a list shows it: how many items stand where, and when the first open request runs out."""

    row: RetrySet
    counts: dict[str, int]
    until: datetime | None
    is_running: bool

    @property
    def total(self) -> int:
        """How many items it has."""
        return sum(self.counts.values())

    @property
    def waiting(self) -> int:
        """How many items wait for a vote."""
        return self.counts.get(EntryState.PENDING, 0)

    @property
    def approved(self) -> int:
        """How many items are approved and not used."""
        return self.counts.get(EntryState.APPROVED, 0)

    @property
    def came_of_it(self) -> list[tuple[str, int]]:
        """What has come of its items so far, the most frequent first."""
        ended = [(s, n) for s, n in self.counts.items() if s and s not in OPEN_ENTRY_STATES]
        return sorted(ended, key=lambda one: -one[1])

    @property
    def state(self) -> str:
        """The one word a list shows."""
        if not self.row.digest:
            return "planned"
        if self.is_running:
            return RunState.RUNNING.value
        for state in (EntryState.PENDING, EntryState.APPROVED, EntryState.EXPIRED):
            if self.counts.get(state):
                return state.value
        return RunState.FINISHED.value


def summaries(rows: Sequence[RetrySet]) -> list[Summary]:
    """Summaries of ``rows`` in the same order; three queries, however many sets and items."""
    used = FilteredRelation(
        "entry__executions", condition=~Q(entry__executions__state=ExecutionState.NOT_SENT)
    )
    items = RetrySetItem.objects.filter(retry_set__in=rows)
    counted = items.annotate(used=used).values("retry_set", "entry__state", "used__state")
    counts: dict[int, dict[str, int]] = {row.pk: {} for row in rows}
    for one in counted.annotate(n=Count("pk")).order_by():
        state = one["entry__state"] or ""
        if state == EntryState.CLAIMED:
            state = one["used__state"] or state
        of_set = counts[one["retry_set"]]
        of_set[state] = of_set.get(state, 0) + one["n"]
    pending = items.filter(entry__state=EntryState.PENDING).values_list("retry_set")
    ends = dict(pending.annotate(end=Min("entry__approve_by")).order_by())
    going_on = WorkerRun.objects.filter(retry_set__in=rows, dry_run=False).exclude(state=RunState.FINISHED)
    running = set(going_on.values_list("retry_set", flat=True))
    return [Summary(row, counts[row.pk], ends.get(row.pk), row.pk in running) for row in rows]


def open_sets() -> list[Summary]:
    """Sets of which something waits for a vote, an operator or a renewal, the soonest end first."""
    waits = Q(items__entry__state__in=OPEN_ENTRY_STATES) | Q(
        items__entry__state=EntryState.EXPIRED, items__case__state=CaseState.FAILED
    )
    rows = RetrySet.objects.filter(waits).select_related("created_by").distinct()
    found = summaries(list(rows.order_by("-created_at")[:MOST]))
    return sorted(found, key=lambda one: (one.until is None, one.until or one.row.created_at))


# Open sets that a list shows.
MOST = 50
