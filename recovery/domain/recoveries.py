"""Recoveries as pages show them, what closing one still needs, and the verb that brings one back on its date (P23)."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction
from django.db.models import Case as SqlCase
from django.db.models import Count, Exists, F, Max, OuterRef, Q, QuerySet, Value, When

from evidence.connectors.failures import PROPERTIES
from evidence.domain import clock as clocks
from evidence.domain import ledger, people, policies, records, text
from evidence.domain.clock import Clock
from evidence.domain.transitions import move
from evidence.enums import FailureClass, Outcome
from evidence.errors import NotFound
from evidence.models import Attempt, Case, Connector, Person
from recovery.documents import CLOSURE, RECOVERY_RETURN
from recovery.domain import closures, transitions
from recovery.domain.closures import NOT_SETTLED, ClosureRequest, Requirement
from recovery.domain.playbooks import FINISHED, date_has_come, listed_cases, newest_playbook
from recovery.enums import ClosureState, RecoveryState
from recovery.models import Closure, Recovery, RecoveryCase
from recovery.permissions import Permission

# A page's worth and more; whoever shows fewer than there are says so.
MAX_CASES_SHOWN = 500
MAX_FINISHED_SHOWN = 25

# A failed try in words: its class, or what is known when it has none.
FAILURE_LABELS: dict[str, str] = {
    **{name.value: PROPERTIES[name].label for name in FailureClass},
    Outcome.UNKNOWN.value: "outcome unknown",
    Outcome.FAILED.value: "nothing was sent",
}


@dataclass(frozen=True)
class Failures:
    """Tries of one class that were not delivered: how many, and when the newest came back."""

    name: str
    count: int
    newest_at: datetime

    @property
    def label(self) -> str:
        """The class in words."""
        return FAILURE_LABELS[self.name]


@dataclass(frozen=True)
class Summary:
    """One recovery as lists show it.

    ``cases`` are those its playbooks list, ``settled`` some of them; ``unlisted`` are unsettled ones of the
    connector that no playbook lists yet. ``failures`` are by class, the most frequent first; ``closures`` newest first.
    """

    recovery: Recovery
    cases: int
    settled: int
    unlisted: int
    failures: tuple[Failures, ...]
    closures: tuple[Closure, ...]

    @property
    def failure_count(self) -> int:
        """How many tries of its cases were not delivered."""
        return sum(one.count for one in self.failures)

    @property
    def newest_failure(self) -> Failures | None:
        """The class that failed last."""
        return max(self.failures, key=lambda one: one.newest_at, default=None)


@dataclass(frozen=True)
class Epochs:
    """A connector's newest recovery and those before it, newest first, each with its closures."""

    current: Summary
    earlier: list[Summary]


@dataclass(frozen=True)
class AffectedCase:
    """A case that keeps a recovery busy; ``listed`` once a playbook names it."""

    case: Case
    listed: bool
    settled: bool
    last_failure: Attempt | None

    @property
    def failure(self) -> str:
        """The newest failure in words; empty when nothing failed."""
        last = self.last_failure
        return FAILURE_LABELS[last.failure_class or last.outcome] if last else ""


@dataclass(frozen=True)
class VerificationChoice:
    """What may be named as proof: a delivered execution, what an unknown first attempt turned out to be, or a
    confirmed disposition.

    ``reference`` is the id to name: the execution's, else the reconciliation's or the disposition's.
    ``reconciled``: the outcome was unknown first. ``own``: the asking person executed or proposed it and may not
    confirm. ``settled_as`` is the state that a disposition gave its case, else empty; ``executed_by`` proposed it
    then, and ``executed_at`` is when it was confirmed.
    """

    reference: str
    case_id: str
    attempt_no: int
    executed_by: str
    executed_at: datetime
    reconciled: bool
    own: bool
    settled_as: str = ""


# --- lists --------------------------------------------------------------------------------------------------------


def open_recoveries() -> list[Summary]:
    """Every unfinished recovery, at most one for a connector: open ones first, then what comes back soonest."""
    waits = SqlCase(When(state=RecoveryState.OPEN, then=Value(0)), default=Value(1))
    unfinished = Recovery.objects.exclude(state__in=FINISHED)
    return _summaries(unfinished.order_by(waits, F("review_at").asc(nulls_last=True), "opened_at", "pk"))


def finished_recoveries(limit: int = MAX_FINISHED_SHOWN) -> list[Summary]:
    """The recoveries that were resolved or reopened last, newest first."""
    finished = Recovery.objects.filter(state__in=FINISHED).annotate(ended=Max("closures__closed_at"))
    return _summaries(finished.order_by("-ended", "-pk")[:limit])


def newest(provider: str) -> Recovery:
    """A connector's newest recovery; ``NotFound`` when it never had one."""
    found = Recovery.objects.filter(connector__key=text.word(provider)).select_related("connector")
    row = found.order_by("-epoch").first()
    if row is None:
        raise NotFound("There is no recovery of this connector.", code="recovery_not_found")
    return row


def recovery_of(provider: str) -> Epochs:
    """A connector's newest recovery and its earlier ones; ``NotFound`` when it never had one."""
    recovery = newest(provider)
    current, *earlier = _summaries(
        Recovery.objects.filter(connector=recovery.connector_id, epoch__lte=recovery.epoch).order_by("-epoch")
    )
    return Epochs(current, earlier)


def _summaries(found: QuerySet[Recovery]) -> list[Summary]:
    """Recoveries with their numbers: as many queries for one as for three hundred."""
    rows = list(found.select_related("connector"))
    pks = [row.pk for row in rows]
    cases = {
        counted["recovery"]: counted
        for counted in RecoveryCase.objects.filter(recovery__in=pks)
        .values("recovery")
        .annotate(listed=Count("pk"), unsettled=Count("pk", filter=Q(case__state__in=NOT_SETTLED)))
    }
    unsettled = Counter(
        dict(
            Case.objects.filter(
                connector__in=[row.connector_id for row in rows if row.state not in FINISHED],
                state__in=NOT_SETTLED,
            )
            .order_by()
            .values_list("connector")
            .annotate(count=Count("pk"))
        )
    )
    failures = _failures(pks)
    said = defaultdict(list)
    for closure in Closure.objects.filter(recovery__in=pks).select_related("closed_by").order_by("-pk"):
        said[closure.recovery_id].append(closure)
    summaries = []
    for row in rows:
        counted = cases.get(row.pk, {"listed": 0, "unsettled": 0})
        summaries.append(
            Summary(
                recovery=row,
                cases=counted["listed"],
                settled=counted["listed"] - counted["unsettled"],
                # Listed cases are the connector's own, so what they leave of its unsettled ones is not listed.
                unlisted=0 if row.state in FINISHED else unsettled[row.connector_id] - counted["unsettled"],
                failures=failures.get(row.pk, ()),
                closures=tuple(said[row.pk]),
            )
        )
    return summaries


def _failures(pks: Sequence[int]) -> dict[int, tuple[Failures, ...]]:
    """Failures of recoveries' cases by class, the most frequent first (one query)."""
    found = defaultdict(list)
    tries = Attempt.objects.filter(case__recovery_items__recovery__in=pks).exclude(outcome=Outcome.DELIVERED)
    for counted in (
        tries.order_by()
        .values("case__recovery_items__recovery", "failure_class", "outcome")
        .annotate(count=Count("pk"), newest_at=Max("completed_at"))
    ):
        found[counted["case__recovery_items__recovery"]].append(
            Failures(counted["failure_class"] or counted["outcome"], counted["count"], counted["newest_at"])
        )
    return {
        pk: tuple(sorted(classes, key=lambda one: (-one.count, one.name))) for pk, classes in found.items()
    }


# --- one recovery -------------------------------------------------------------------------------------------------


def affected_cases(recovery: Recovery, limit: int = MAX_CASES_SHOWN) -> list[AffectedCase]:
    """Cases that a recovery is about, unsettled ones first, then by their newest outcome.

    While it is unfinished, also unsettled ones of its connector that no playbook lists yet: they keep it open.
    """
    listing = RecoveryCase.objects.filter(recovery=recovery, case=OuterRef("pk"))
    concerned = Q(Exists(listing))
    if recovery.state not in FINISHED:
        concerned |= Q(connector=recovery.connector_id, state__in=NOT_SETTLED)
    settled = SqlCase(When(state__in=NOT_SETTLED, then=Value(0)), default=Value(1))
    cases = list(
        Case.objects.filter(concerned)
        .select_related("plan", "package", "connector")
        .order_by(settled, "-last_outcome_at", "pk")[:limit]
    )
    listed = set(
        RecoveryCase.objects.filter(recovery=recovery, case__in=cases).values_list("case_id", flat=True)
    )
    last = {
        attempt.case_id: attempt
        for attempt in Attempt.objects.filter(case__in=cases)
        .exclude(outcome=Outcome.DELIVERED)
        .order_by("number")
    }
    return [
        AffectedCase(
            case,
            listed=case.pk in listed,
            settled=case.state not in NOT_SETTLED,
            last_failure=last.get(case.pk),
        )
        for case in cases
    ]


def verification_choices(recovery: Recovery, person: Person) -> list[VerificationChoice]:
    """Everything that proves a case of this recovery settled, as ``person`` may choose from it; newest first."""
    executions = list(closures.delivered_executions(recovery).select_related("case", "executed_by__owner"))
    own = {execution.pk for execution in closures.executed_by(person, executions)}
    reconciled = closures.turned_out_delivered(recovery)
    choices = [
        VerificationChoice(
            execution.execution_id,
            execution.case.case_id,
            execution.attempt_no,
            execution.executed_by.username,
            execution.claimed_at,
            reconciled=execution.case_id in reconciled,
            own=execution.pk in own,
        )
        for execution in executions
    ]
    # Only a first attempt was executed by nobody: what settled it stands in its reconciliation alone.
    firsts = closures.sent_first(recovery)
    choices += [
        VerificationChoice(
            reconciled[case.pk].record.id,
            case.case_id,
            1,
            case.created_by.username,
            case.created_at,
            reconciled=True,
            own=person.principal in people.answering(case.created_by),
        )
        for case in firsts
    ]
    disposed = closures.disposed(recovery)
    proposed = set(closures.proposed_by(person, disposed))
    choices += [
        VerificationChoice(
            one.disposition_id,
            one.case.case_id,
            one.case.attempt_count,
            one.proposed_by.username,
            one.decided_at,
            reconciled=False,
            own=one in proposed,
            settled_as=one.case.state,
        )
        for one in disposed
        if one.decided_at
    ]
    return sorted(choices, key=lambda choice: (choice.executed_at, choice.reference), reverse=True)


def requirements_for(
    recovery: Recovery,
    state: ClosureState,
    person: Person,
    at: datetime,
    filled: ClosureRequest | None = None,
) -> list[Requirement]:
    """Everything this outcome needs when ``person`` closes at ``at``, met or not: what ``closures.close`` asks for.

    ``filled`` is what the form holds so far; without it an empty form is judged.
    """
    request = filled or ClosureRequest(provider=recovery.connector.key, state=state)
    against = [
        *policies.reasons_against_role(person, Permission.CLOSE_RECOVERY),
        *closures.reasons_against_state(recovery, state),
    ]
    if newest_playbook(recovery) is None:
        against.append("No playbook describes this recovery yet; write one first.")
    allowed = [Requirement("state", sentence, False) for sentence in against] or [
        Requirement("state", f"This recovery is {recovery.state} and you may close it.", True)
    ]
    return [*allowed, *closures.requirements(request, recovery, person, at)]


# --- coming back --------------------------------------------------------------------------------------------------


def bring_back(*, clock: Clock, limit: int = 50) -> int:
    """Open the recoveries again whose date has come (P23). Returns how many came back.

    A playbook that is written after the date does the same; whichever is first.
    """
    due = Recovery.objects.filter(
        state__in=transitions.RECOVERIES.sources(RecoveryState.OPEN), review_at__lte=clocks.read(clock)
    )
    pks = list(due.order_by("review_at", "pk").values_list("pk", flat=True)[:limit])
    return sum(_bring_back(pk, clock=clock) for pk in pks)


def _bring_back(pk: int, *, clock: Clock) -> bool:
    with transaction.atomic():
        # Like a playbook and a closure, the connector first: neither finds the other half done.
        whose = Recovery.objects.filter(pk=pk).values("connector")
        if (
            not Connector.objects.select_for_update(no_key=True, skip_locked=True)
            .filter(pk__in=whose)
            .exists()
        ):
            return False
        recovery = (
            Recovery.objects.select_for_update(no_key=True, of=("self",), skip_locked=True)
            .select_related("connector")
            .filter(pk=pk)
            .first()
        )
        if recovery is None:
            return False  # Somebody is closing it right now.
        at = clocks.read(clock)
        back = transitions.RECOVERIES.allows(recovery.state, RecoveryState.OPEN)
        if not back or recovery.review_at is None or not date_has_come(recovery, at):
            return False
        closure = Closure.objects.filter(recovery=recovery).latest("pk")
        draft = records.draft(
            RECOVERY_RETURN,
            records.mint_id(RECOVERY_RETURN),
            {
                "closure_id": closure.closure_id,
                "closure_hash": closure.record_hash,
                "provider": recovery.connector.key,
                "recovery_epoch": recovery.epoch,
                "closure_state": closure.state,
                "owner": recovery.owner,
                "review_at": records.timestamp(recovery.review_at),
                "returned_at": records.timestamp(at),
            },
            at=at,
            by=None,
            cases=[case.case_id for case in listed_cases(recovery)][: records.MAX_CASES_PER_RECORD],
            references=[records.Reference(CLOSURE.name, closure.closure_id, closure.record_hash)],
        )
        move(transitions.RECOVERIES, recovery.pk, RecoveryState.OPEN, review_at=None, owner="")
        ledger.append([draft])
    return True
