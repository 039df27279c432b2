"""Statements for a period: every approved retry is in one place, whatever became of it (CONSOLE, Connectors)."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.conf import settings

from evidence.domain import configuration, records
from evidence.errors import InvalidInput
from evidence.models import Case, Connector
from recovery.domain import approval_plans, approvals, retry_plans, statements
from recovery.domain.approvals import Ballot
from recovery.domain.retry_plans import Review
from recovery.domain.statements import Row
from recovery.enums import ApprovalState, EntryState, ExecutionState, RetryAckState, Seen
from recovery.execution import claims, outcomes, runs
from recovery.execution.claims import Claimed
from recovery.execution.selection import RunRequest
from recovery.models import ApprovalEntry, Execution, RetryPlan
from tests.builders import IMMEDIATE, Clock, World
from tests.receiver import Receiver
from tests.recovery.checks import assert_ledger_verifies, assert_receiver_agrees

A_DAY_AND_MORE = 25


@pytest.fixture
def world(db: None, receiver: Receiver, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Two connectors that fail more often in a row than breakers would let them, and a clock that the test moves."""
    monkeypatch.setattr(settings, "CAVRA_BREAKER_FAILURES", 0)
    made = World(receiver, providers=("webhook", "backup"), clock=clock)
    yield made
    assert_receiver_agrees(made)
    assert_ledger_verifies()


def asked(world: World, key: str) -> ApprovalEntry:
    """A retry of a case of its own was asked for; nothing happens to any other."""
    (case,) = world.failed(key)
    return asked_about(world, case)


def asked_about(world: World, case: Case) -> ApprovalEntry:
    """A retry of this failed case was asked for."""
    named, key = [case.case_id], case.connector.key
    draft = retry_plans.plan(IMMEDIATE, by=world.analyst, clock=world.clock, cases=named)
    plan = RetryPlan.objects.get(retry_plan_id=draft.record_id)
    review = Review(provider=key, state=RetryAckState.ACCEPTED, delivery_id=case.plan.delivery_id)
    retry_plans.acknowledge(plan, review, by=world.second_analyst, clock=world.clock)
    approval_plans.request(by=world.analyst, clock=world.clock, cases=named)
    return approvals.entries().get(case=case)


def approved(world: World, key: str) -> ApprovalEntry:
    entry = asked(world, key)
    world.vote(entry)
    return entry


def run(world: World, entry: ApprovalEntry) -> None:
    world.ran(cases=(entry.case.case_id,))


def withdraw(world: World, entry: ApprovalEntry) -> None:
    approvals.withdraw(entry, Ballot(state=ApprovalState.DENIED), by=world.analyst, clock=world.clock)


def claim(world: World, entry: ApprovalEntry) -> Claimed:
    request = RunRequest(dry_run=False, cases=(entry.case.case_id,))
    started = runs.start(request, by=world.operator, clock=world.clock).run
    claimed = claims.claim(entry.pk, started, clock=world.clock)
    assert isinstance(claimed, Claimed)
    return claimed


# --- what may become of a request ---------------------------------------------------------------------------------


def waits(world: World, clock: Clock, key: str) -> None:
    asked(world, key)


def is_denied(world: World, clock: Clock, key: str) -> None:
    world.vote(asked(world, key), ApprovalState.DENIED)


def is_withdrawn(world: World, clock: Clock, key: str) -> None:
    withdraw(world, asked(world, key))


def runs_out_unapproved(world: World, clock: Clock, key: str) -> None:
    asked(world, key)
    clock.forward(hours=A_DAY_AND_MORE)
    approvals.expire(clock=clock)


def is_deferred_after_its_approval(world: World, clock: Clock, key: str) -> None:
    world.vote(approved(world, key), ApprovalState.DEFERRED)


def is_ready(world: World, clock: Clock, key: str) -> None:
    approved(world, key)


def is_passed_over(world: World, clock: Clock, key: str) -> None:
    entry = approved(world, key)
    configuration.pause("*", reason="freeze", by=world.administrator, clock=clock)
    run(world, entry)
    configuration.resume("*", by=world.administrator, clock=clock)


def runs_out_approved(world: World, clock: Clock, key: str) -> None:
    approved(world, key)
    clock.forward(hours=A_DAY_AND_MORE)
    approvals.expire(clock=clock)


def is_revoked(world: World, clock: Clock, key: str) -> None:
    world.vote(approved(world, key), ApprovalState.DENIED)


def is_withdrawn_approved(world: World, clock: Clock, key: str) -> None:
    withdraw(world, approved(world, key))


def becomes_void(world: World, clock: Clock, key: str) -> None:
    entry = approved(world, key)
    for path in ("/elsewhere", f"/{key}"):
        row = Connector.objects.get(key=key)
        row.url = world.receiver.url(path)
        configuration.save(row, by=None, clock=clock)
        if path == "/elsewhere":
            run(world, entry)


def is_delivered(world: World, clock: Clock, key: str) -> None:
    run(world, approved(world, key))


def fails(world: World, clock: Clock, key: str) -> None:
    entry = approved(world, key)
    world.receiver.behave(f"/{key}", status=500)
    run(world, entry)


def nothing_leaves(world: World, clock: Clock, key: str) -> None:
    """Nobody listens at the connector's address while the retry is asked for and tried."""
    (case,) = world.failed(key)
    address = Connector.objects.get(key=key).url
    for url in ("http://127.0.0.1:1/nobody", address):
        row = Connector.objects.get(key=key)
        row.url = url
        configuration.save(row, by=None, clock=clock)
        if url != address:
            entry = asked_about(world, case)
            world.vote(entry)
            run(world, entry)


def is_under_way(world: World, clock: Clock, key: str) -> None:
    claim(world, approved(world, key))


def is_unknown(world: World, clock: Clock, key: str) -> ApprovalEntry:
    entry = approved(world, key)
    clock.at = claim(world, entry).execution.lease_until + timedelta(seconds=1)
    outcomes.expire_leases(clock=clock)
    return entry


def turns_out_delivered(world: World, clock: Clock, key: str) -> None:
    entry = is_unknown(world, clock, key)
    world.attested(entry.case, Seen.DELIVERED, world.approver, world.second_analyst)


def turns_out_not_delivered(world: World, clock: Clock, key: str) -> None:
    entry = is_unknown(world, clock, key)
    world.attested(entry.case, Seen.NOT_DELIVERED, world.approver, world.second_analyst)


Walk = Callable[[World, Clock, str], object]

# What happens, and the columns beside "asked" in which it counts. What runs out comes first: time passes for all.
WALKS: tuple[tuple[Walk, tuple[str, ...]], ...] = (
    (runs_out_unapproved, ()),
    (runs_out_approved, ("unused",)),
    (waits, ()),
    (is_denied, ()),
    (is_withdrawn, ()),
    (is_deferred_after_its_approval, ()),
    (is_ready, ("ready",)),
    (is_passed_over, ("ready", "skipped")),
    (is_revoked, ("unused",)),
    (is_withdrawn_approved, ("unused",)),
    (becomes_void, ("unused", "skipped")),
    (is_delivered, ("delivered",)),
    (fails, ("failed",)),
    # It used nothing up.
    (nothing_leaves, ("ready",)),
    (is_unknown, ("unknown",)),
    (turns_out_delivered, ("delivered",)),
    (turns_out_not_delivered, ("failed",)),
    # Last, or its lease runs out with the others'.
    (is_under_way, ("unknown",)),
)


def numbers(row: Row) -> Counter[str]:
    """The numbers of a row that are not 0."""
    return +Counter({name: number for name, number in asdict(row).items() if name != "connector"})


def test_every_approved_retry_is_in_one_place_whatever_became_of_it(world: World, clock: Clock) -> None:
    since = clock()
    expected = {"webhook": Counter[str](), "backup": Counter[str]()}
    for number, (walk, columns) in enumerate(WALKS):
        for key in ("webhook",) if number % 3 else ("webhook", "backup"):
            walk(world, clock, key)
            expected[key].update(("asked", *columns))
            clock.forward(seconds=1)
    until = clock()
    statement = statements.approved_retries(since, until)
    assert {row.connector: numbers(row) for row in statement.rows} == expected
    assert numbers(statement.total) == expected["webhook"] + expected["backup"]
    assert set(Execution.objects.values_list("state", flat=True)) == set(ExecutionState)
    for row in (*statement.rows, statement.total):
        assert row.approved == row.ready + row.unused + row.delivered + row.failed + row.unknown
        entries = ApprovalEntry.objects.filter(approved_at__isnull=False)
        if row.connector != statements.TOTAL:
            entries = entries.filter(connector__key=row.connector)
        assert row.approved == entries.count()
    assert set(EntryState) - set(ApprovalEntry.objects.values_list("state", flat=True)) == {
        EntryState.CANCELLED
    }
    assert_periods_add_up(since, until)


def assert_periods_add_up(since: datetime, until: datetime) -> None:
    """Wherever a period is cut in two, nothing is lost, nothing is counted twice, and every sum holds."""
    whole = numbers(statements.approved_retries(since, until).total)
    for cut in ApprovalEntry.objects.values_list("requested_at", flat=True):
        halves = [statements.approved_retries(*period) for period in ((since, cut), (cut, until))]
        assert numbers(halves[0].total) + numbers(halves[1].total) == whole
        for half in halves:
            for row in half.rows:
                assert row.asked >= row.approved
                assert numbers(row)


def test_a_period_begins_with_its_first_moment_and_ends_before_its_last(world: World, clock: Clock) -> None:
    entry = approved(world, "webhook")
    at, a_moment = entry.requested_at, timedelta(microseconds=1)
    assert statements.approved_retries(at, at + a_moment).total.asked == 1
    for since, until in ((at - a_moment, at), (at + a_moment, at + 2 * a_moment), (at, at)):
        statement = statements.approved_retries(since, until)
        assert (statement.rows, statement.total) == ((), Row(statements.TOTAL))
    with pytest.raises(InvalidInput) as caught:
        statements.approved_retries(at, at - a_moment)
    assert list(caught.value.errors) == ["until"]


def test_a_skip_is_of_the_period_it_happened_in(world: World, clock: Clock) -> None:
    since = clock()
    entry = approved(world, "webhook")
    clock.forward(minutes=5)
    later = clock()
    configuration.pause("webhook", reason="freeze", by=world.administrator, clock=clock)
    # The same reason again is no second record.
    run(world, entry)
    run(world, entry)
    until = later + timedelta(minutes=1)
    assert numbers(statements.approved_retries(since, later).total) == Counter(asked=1, ready=1)
    (row,) = statements.approved_retries(later, until).rows
    assert (row.connector, numbers(row), row.approved) == ("webhook", Counter(skipped=1), 0)


def test_a_statement_is_lines_of_cells_too(world: World, clock: Clock) -> None:
    since = clock()
    is_delivered(world, clock, "webhook")
    is_revoked(world, clock, "backup")
    clock.forward(seconds=1)
    period = [records.timestamp(since), records.timestamp(clock())]
    assert statements.approved_retries(since, clock()).as_csv() == [
        ["since", "until", "connector", *statements.COLUMNS],
        [*period, "backup", "1", "1", "0", "1", "0", "0", "0", "0"],
        [*period, "webhook", "1", "1", "0", "0", "1", "0", "0", "0"],
        [*period, "total", "2", "2", "0", "1", "1", "0", "0", "0"],
    ]


def test_a_statement_costs_two_queries_however_much_happened(
    world: World, clock: Clock, django_assert_num_queries: Callable[..., Any]
) -> None:
    since = clock()
    with django_assert_num_queries(2):
        assert statements.approved_retries(since, clock()).rows == ()
    for key in ("webhook", "backup"):
        is_passed_over(world, clock, key)
        is_delivered(world, clock, key)
    clock.forward(seconds=1)
    with django_assert_num_queries(2):
        statement = statements.approved_retries(since, clock())
        assert numbers(statement.total) == Counter(asked=4, ready=2, delivered=2, skipped=2)
        assert statement.as_csv()
