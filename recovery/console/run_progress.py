"""How far a run is, connector by connector, read from its rows alone: a restart loses nothing of it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from evidence.models import Attempt
from recovery.console import manifest_words
from recovery.enums import ExecutionState, RunState
from recovery.execution.canary import STAGES
from recovery.models import ApprovalEntry, Execution, WorkerRun

# What stops a connector's part of a run that goes canary first.
STOPS = (ExecutionState.FAILED, ExecutionState.UNKNOWN, ExecutionState.NOT_SENT)


@dataclass(frozen=True)
class Lane:
    """One connector's part of a run.

    ``came_of_it`` counts its executions by state, ``waiting`` what was not claimed yet, ``left`` what the run
    ended without. ``stopped_by`` is the try that ended its part, and ``why`` what came of that.
    """

    connector: str
    selected: int
    came_of_it: dict[str, int]
    waiting: int
    left: int
    stage: str
    stopped_by: Execution | None
    why: str


@dataclass(frozen=True)
class Progress:
    """A run as a whole: how many of what it selected are recorded, what came of them, and each connector's part."""

    run: WorkerRun
    total: int
    recorded: int
    counts: list[tuple[str, int]]
    lanes: list[Lane]

    @property
    def stopped(self) -> list[Lane]:
        """Parts that a failure ended."""
        return [lane for lane in self.lanes if lane.stopped_by]


def progress(run: WorkerRun) -> Progress:
    """How far ``run`` is; three queries, however large it is."""
    entries = ApprovalEntry.objects.filter(pk__in=run.request["entries"]).order_by("connector__key")
    selected = dict(entries.values_list("pk", "connector__key"))
    executions = list(
        Execution.objects.filter(run=run).select_related("case", "case__connector").order_by("pk")
    )
    whys = _failures([one for one in executions if one.state in STOPS]) if run.request.get("canary") else {}
    by_lane: dict[str, list[Execution]] = {key: [] for key in selected.values()}
    for one in executions:
        by_lane.setdefault(one.case.connector.key, []).append(one)
    sizes = Counter(selected.values())
    lanes = [_lane(run, key, sizes[key], found, whys) for key, found in by_lane.items()]
    counts = Counter(one.state for one in executions)
    waiting = sum(lane.waiting for lane in lanes)
    left = sum(lane.left for lane in lanes)
    return Progress(
        run=run,
        total=len(selected),
        recorded=sum(one.recorded_at is not None for one in executions),
        counts=[
            *((state.value, counts[state]) for state in ExecutionState if counts[state]),
            *((word, n) for word, n in (("queued", waiting), ("not_tried", left)) if n),
        ],
        lanes=lanes,
    )


def _lane(
    run: WorkerRun, connector: str, selected: int, executions: Sequence[Execution], whys: dict[int, str]
) -> Lane:
    counts = Counter(one.state for one in executions)
    stopped_by = next((one for one in executions if one.pk in whys), None)
    rest = max(selected - len(executions), 0)
    is_over = run.state == RunState.FINISHED or stopped_by is not None
    return Lane(
        connector=connector,
        selected=selected,
        came_of_it=dict(counts),
        waiting=0 if is_over else rest,
        left=rest if is_over else 0,
        stage=_stage(run, counts[ExecutionState.DELIVERED], rest, is_over),
        stopped_by=stopped_by,
        why=whys[stopped_by.pk] if stopped_by else "",
    )


def _stage(run: WorkerRun, delivered: int, rest: int, is_over: bool) -> str:
    """Where a connector's part is, in words; empty once it is over or when nothing goes first."""
    if is_over or not run.request.get("canary"):
        return ""
    one, few = STAGES
    if delivered < one:
        return "The first goes alone."
    if delivered < few:
        return f"The first arrived; {few - one} more go before the rest."
    return "The first ones arrived; the rest goes." if rest else "The last ones are under way."


def _failures(executions: Sequence[Execution]) -> dict[int, str]:
    """What came of tries that stop a part, in words, by their key."""
    tries = {
        (attempt.case_id, attempt.number): attempt
        for attempt in Attempt.objects.filter(case__in=[one.case_id for one in executions])
    }
    return {one.pk: _failure(one, tries.get((one.case_id, one.attempt_no))) for one in executions}


def _failure(execution: Execution, attempt: Attempt | None) -> str:
    if execution.state == ExecutionState.UNKNOWN:
        return "nobody knows whether it arrived"
    if execution.state == ExecutionState.NOT_SENT:
        return f"nothing left: {manifest_words.failure_words(execution.failure_class) or 'not sent'}"
    if attempt is None or not attempt.failure_class:
        return "it failed"
    words = manifest_words.failure_words(attempt.failure_class)
    return f"{attempt.status_code} {words}" if attempt.status_code else words
