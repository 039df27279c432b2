"""What shows that a step of a recovery's playbook is done: somebody's tick, or rows that were there anyway."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Max

from evidence.models import RecordKey
from recovery.enums import ApprovalState
from recovery.models import Closure, Recovery, StepTick, Vote, WorkerRun


@dataclass(frozen=True)
class Shown:
    """Who did a step, when, what they noted, and the record that says so: a tick, a run or a vote."""

    by: str
    at: datetime
    record_id: str
    note: str = ""


@dataclass(frozen=True)
class Fact:
    """How a step ticks itself: the newest row that shows it, and a sentence that says which rows do."""

    find: Callable[[Recovery, datetime], Shown | None]
    evidence: str


def _dry_run(recovery: Recovery, at: datetime) -> Shown | None:
    """The newest dry run since the recovery opened whose own plan lists a case of the connector.

    What is quoted is the plan a run looked at: a case that waits for its window was seen, too.
    """
    named = RecordKey.objects.filter(
        name="provider", value=recovery.connector.key, created_at__gte=recovery.opened_at
    )
    runs = RecordKey.objects.filter(name="run_id", record__in=named.values("record"))
    run = (
        WorkerRun.objects.filter(
            dry_run=True,
            requested_at__gte=recovery.opened_at,
            requested_at__lte=at,
            run_id__in=runs.values("value"),
        )
        .select_related("requested_by")
        .order_by("-requested_at", "-pk")
        .first()
    )
    return Shown(run.requested_by.username, run.requested_at, run.run_id) if run else None


def _approval(recovery: Recovery, at: datetime) -> Shown | None:
    """The newest approval of a retry of one of the recovery's cases.

    A reopened recovery goes on with the same cases: what was approved in an earlier epoch shows nothing now.
    """
    votes = Vote.objects.filter(
        state=ApprovalState.APPROVED, entry__case__recovery_items__recovery=recovery, decided_at__lte=at
    )
    earlier = Closure.objects.filter(
        recovery__connector=recovery.connector, recovery__epoch__lt=recovery.epoch
    )
    if ended := earlier.aggregate(newest=Max("closed_at"))["newest"]:
        votes = votes.filter(decided_at__gt=ended)
    vote = votes.select_related("account").order_by("-decided_at", "-pk").first()
    return Shown(vote.account.username, vote.decided_at, vote.decision_id) if vote else None


# Steps whose fulfilment the rows show. Nobody ticks these by hand.
AUTOMATIC: dict[str, Fact] = {
    "dry_run": Fact(
        _dry_run, "A dry run since this recovery opened shows it, if its plan lists a case of the connector."
    ),
    "approval": Fact(_approval, "An approver's vote for a retry of one of these cases shows it."),
}


def newest_ticks(recovery: Recovery, at: datetime) -> dict[str, StepTick]:
    """The newest word on each step of a recovery, done or taken back, whichever playbook it was said by."""
    ticks = StepTick.objects.filter(recovery=recovery, ticked_at__lte=at).select_related("ticked_by")
    return {tick.step_key: tick for tick in ticks.order_by("pk")}


def shown(recovery: Recovery, at: datetime) -> dict[str, Shown]:
    """Steps of a recovery that are done as known at ``at``, by key; ticks hold for every later playbook."""
    done = {
        key: Shown(tick.ticked_by.username, tick.ticked_at, tick.tick_id, tick.note)
        for key, tick in newest_ticks(recovery, at).items()
        if tick.done
    }
    return done | {
        key: found for key, fact in AUTOMATIC.items() if (found := fact.find(recovery, at)) is not None
    }
