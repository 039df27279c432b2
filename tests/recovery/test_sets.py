"""Sets: the failures of one outage, taken through the chain together."""

from datetime import timedelta

import pytest

from evidence.domain import configuration
from evidence.errors import Conflict, InvalidInput, NotAllowed, NotFound
from evidence.models import Case, Connector
from recovery.domain import approvals, manifests, sets
from recovery.domain.approvals import Ballot
from recovery.domain.retry_plans import Review
from recovery.enums import ApprovalState, EntryState, ExecutionState, RetryAckState, RunState
from recovery.errors import ManifestChanged
from recovery.execution import outcomes, runs
from recovery.execution.selection import RunRequest
from recovery.models import ApprovalEntry, Execution, RetrySet, RetrySetItem, Vote, WorkerRun
from tests.builders import IMMEDIATE, Clock, World
from tests.recovery.checks import appended

ACCEPT = Review(provider="", state=RetryAckState.ACCEPTED)
SELECTION = {"state": "failed"}


def chosen(world: World, count: int = 3, *providers: str) -> RetrySet:
    """A set of ``count`` failures of each connector."""
    for _ in range(count):
        world.failed(*providers)
    failed = Case.objects.filter(state="failed").values_list("case_id", flat=True)
    return sets.choose(list(failed), SELECTION, by=world.analyst, clock=world.clock)


def requested(world: World, row: RetrySet) -> RetrySet:
    sets.plan(row, IMMEDIATE, by=world.analyst, clock=world.clock)
    sets.acknowledge(row, ACCEPT, by=world.second_analyst, clock=world.clock)
    return sets.request(row, by=world.analyst, clock=world.clock, reason="the receiver is back")


def entries(row: RetrySet) -> list[ApprovalEntry]:
    return list(approvals.entries().filter(set_items__retry_set=row).order_by("pk"))


def yes(row: RetrySet, some: list[ApprovalEntry] | None = None) -> Ballot:
    return Ballot(state=ApprovalState.APPROVED, set_digest=manifests.digest_of(some or entries(row)))


def approved(world: World, row: RetrySet) -> RetrySet:
    sets.decide(row, yes(row), by=world.approver, clock=world.clock)
    return row


def executed(world: World, row: RetrySet, **more: object) -> WorkerRun:
    """The set's live run, as the worker executes it."""
    request = RunRequest(
        dry_run=False, set_id=row.set_id, canary=True, background=True, max_retry_deliveries=500
    )
    run = runs.start(request, by=world.operator, clock=world.clock).run
    runs.take(run, clock=world.clock)
    runs.execute(run, clock=world.clock, seconds=60)
    return run


def test_a_set_goes_through_the_chain_in_five_acts(world: World) -> None:
    row = chosen(world, 8)
    before = len(world.receiver.log)
    row = requested(world, row)
    assert row.digest == manifests.digest_of(entries(row))
    decided = sets.decide(row, yes(row), by=world.approver, clock=world.clock)
    assert (len(decided.votes), decided.void) == (8, [])
    votes = Vote.objects.all()
    assert votes.count() == 8
    assert all(vote.digest_presented for vote in votes)
    executed(world, row)
    assert len(world.receiver.log) - before == 8
    assert set(Case.objects.values_list("state", flat=True)) == {"delivered"}


def test_every_item_gets_the_records_that_it_would_get_alone(world: World) -> None:
    row = chosen(world, 2)
    with appended() as kinds:
        sets.plan(row, IMMEDIATE, by=world.analyst, clock=world.clock)
    assert kinds == ["retry-plan"]
    with appended() as kinds:
        sets.acknowledge(row, ACCEPT, by=world.second_analyst, clock=world.clock)
    assert kinds == ["retry-ack"] * 2
    with appended() as kinds:
        sets.request(row, by=world.analyst, clock=world.clock)
    assert kinds == ["retry-execution-approval-plan"]
    with appended() as kinds:
        decided = sets.decide(row, yes(row), by=world.approver, clock=world.clock)
    assert kinds == ["retry-execution-approval-decision"] * 2
    said = decided.votes[0].view["retry_execution_approval_decision"]
    row.refresh_from_db()
    assert (said["set_id"], said["set_digest"]) == (row.set_id, row.digest)


def test_a_set_is_chosen_by_the_filter_and_says_which(world: World) -> None:
    row = chosen(world, 2)
    assert row.selection == SELECTION
    assert [item.case.case_id for item in sets.items(row)] == list(
        Case.objects.order_by("pk").values_list("case_id", flat=True)
    )
    assert sets.set_by_id(row.set_id) == row
    with pytest.raises(NotFound):
        sets.set_by_id("gordackretryset-0000000000000000")


def test_no_case_and_too_many_are_refused(world: World) -> None:
    for cases in ([], [f"gordackdelivery-{n:016x}.webhook" for n in range(501)]):
        with pytest.raises(InvalidInput) as refused:
            sets.choose(cases, SELECTION, by=world.analyst, clock=world.clock)
        assert "cases" in refused.value.errors
    assert not RetrySet.objects.exists()


def test_what_is_not_failed_any_more_is_named(world: World) -> None:
    (done,) = world.delivered()
    (case,) = world.failed()
    with pytest.raises(Conflict) as refused:
        sets.choose([case.case_id, done.case_id], SELECTION, by=world.analyst, clock=world.clock)
    assert (refused.value.code, refused.value.extra["cases"]) == ("not_failed", [done.case_id])


def test_a_large_selection_is_several_records_under_one_id(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evidence.domain.records.MAX_CASES_PER_RECORD", 2)
    for _ in range(3):
        world.failed()
    with appended() as kinds:
        chosen(world, 0)
    assert kinds == ["retry-set", "retry-set"]


def test_items_may_be_taken_out_and_have_a_digest_of_their_own(world: World) -> None:
    row = requested(world, chosen(world))
    first, *rest = entries(row)
    ids = [entry.entry_id for entry in rest]
    with pytest.raises(ManifestChanged):
        sets.decide(row, yes(row), by=world.approver, clock=world.clock, entry_ids=ids)
    sets.decide(row, yes(row, rest), by=world.approver, clock=world.clock, entry_ids=ids)
    assert [entry.state for entry in entries(row)] == ["pending", "approved", "approved"]
    executed(world, row)
    assert Execution.objects.count() == 2
    assert not Execution.objects.filter(entry=first).exists()


def test_a_strange_item_is_no_item(world: World) -> None:
    row = requested(world, chosen(world, 1))
    with pytest.raises(NotFound) as refused:
        sets.decide(row, yes(row), by=world.approver, clock=world.clock, entry_ids=["gordackretryentry-0"])
    assert refused.value.errors == {"items": ["gordackretryentry-0"]}


def test_p5_a_changed_item_is_void_and_the_others_count(two: World) -> None:
    row = requested(two, chosen(two, 2))
    changed = Connector.objects.get(key="backup")
    changed.url = two.receiver.url("/elsewhere")
    configuration.save(changed, by=None, clock=two.clock)
    decided = sets.decide(row, yes(row), by=two.approver, clock=two.clock)
    assert (len(decided.votes), len(decided.void)) == (2, 2)
    states = {(entry.connector.key, entry.state) for entry in entries(row)}
    assert states == {("webhook", "approved"), ("backup", "manifest_changed")}


def test_p4_who_had_a_part_in_one_item_decides_on_none(world: World) -> None:
    row = chosen(world, 2)
    sets.plan(row, IMMEDIATE, by=world.analyst, clock=world.clock)
    sets.acknowledge(row, ACCEPT, by=world.second_analyst, clock=world.clock)
    row = sets.request(row, by=world.analyst, clock=world.clock)
    for party in (world.analyst, world.second_analyst):
        with pytest.raises(NotAllowed):
            sets.decide(row, yes(row), by=party, clock=world.clock)
    assert not Vote.objects.exists()


def test_an_item_that_ended_meanwhile_stops_the_act_and_is_named(world: World) -> None:
    row = requested(world, chosen(world, 2))
    shown = entries(row)
    world.vote(shown[0], ApprovalState.DENIED, by=world.second_approver)
    with pytest.raises(Conflict) as refused:
        sets.decide(
            row, yes(row, shown), by=world.approver, clock=world.clock, entry_ids=[e.entry_id for e in shown]
        )
    assert refused.value.extra["case"] == shown[0].case.case_id
    assert Vote.objects.count() == 1


def test_a_set_is_asked_for_once(world: World) -> None:
    row = requested(world, chosen(world, 1))
    with pytest.raises(Conflict) as refused:
        sets.request(row, by=world.analyst, clock=world.clock)
    assert refused.value.code == "set_frozen"


def test_nothing_is_asked_for_before_it_is_acknowledged(world: World) -> None:
    row = chosen(world, 1)
    with pytest.raises(Conflict) as refused:
        sets.request(row, by=world.analyst, clock=world.clock)
    assert refused.value.code == "not_requested"
    sets.plan(row, IMMEDIATE, by=world.analyst, clock=world.clock)
    with pytest.raises(Conflict) as refused:
        sets.request(row, by=world.analyst, clock=world.clock)
    assert "acknowledged" in refused.value.detail
    row.refresh_from_db()
    assert (row.digest, row.requested_at) == ("", None)


def test_two_votes_are_two_acts(world: World) -> None:
    Connector.objects.update(required_approvals=2)
    row = requested(world, chosen(world, 2))
    sets.decide(row, yes(row), by=world.approver, clock=world.clock)
    assert {entry.state for entry in entries(row)} == {"pending"}
    sets.decide(row, yes(row), by=world.second_approver, clock=world.clock)
    assert {entry.state for entry in entries(row)} == {"approved"}


def test_p6_lapsed_items_are_renewed_with_one_act(timed: World, clock: Clock) -> None:
    row = approved(timed, requested(timed, chosen(timed, 2)))
    clock.forward(hours=5)
    assert approvals.expire(clock=clock) == 2
    sets.renew(row, Ballot(state=ApprovalState.APPROVED), by=timed.second_approver, clock=clock)
    assert [entry.state for entry in entries(row)] == ["approved", "approved"]
    assert ApprovalEntry.objects.count() == 4
    executed(timed, row)
    assert set(Case.objects.values_list("state", flat=True)) == {"delivered"}


def test_a_set_without_lapsed_items_has_nothing_to_renew(world: World) -> None:
    row = requested(world, chosen(world, 1))
    with pytest.raises(Conflict) as refused:
        sets.renew(row, Ballot(state=ApprovalState.APPROVED), by=world.approver, clock=world.clock)
    assert refused.value.code == "not_renewable"


# --- canary first -------------------------------------------------------------------------------------------------


def test_the_first_failure_stops_before_anything_else_is_claimed(world: World) -> None:
    row = approved(world, requested(world, chosen(world, 4)))
    world.receiver.behave("/webhook", status=500)
    run = executed(world, row)
    assert Execution.objects.count() == 1
    assert sorted(entry.state for entry in entries(row)) == ["approved"] * 3 + ["claimed"]
    run.refresh_from_db()
    assert run.state == RunState.FINISHED


def test_five_follow_the_first_and_then_the_rest(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    row = approved(world, requested(world, chosen(world, 9)))
    Connector.objects.update(max_concurrency=8)
    under_way: list[int] = []
    submit = runs.pump.sender.Sender.submit

    def counted(self, spec, arrived):  # type: ignore[no-untyped-def]
        under_way.append(Execution.objects.filter(state=ExecutionState.DELIVERED).count())
        submit(self, spec, arrived)

    monkeypatch.setattr(runs.pump.sender.Sender, "submit", counted)
    executed(world, row)
    # How many were delivered when each was sent: the first alone, nobody beyond the fifth before six were.
    assert under_way[0] == 0
    assert all(done >= 1 for done in under_way[1:])
    assert all(done >= 6 for done in under_way[6:])
    assert len(under_way) == 9


def test_p17_a_failing_connector_ends_its_own_part_alone(two: World) -> None:
    row = approved(two, requested(two, chosen(two, 3)))
    two.receiver.behave("/webhook", status=500)
    executed(two, row)
    by_connector = {
        key: Execution.objects.filter(case__connector__key=key).count() for key in ("webhook", "backup")
    }
    assert by_connector == {"webhook": 1, "backup": 3}


def test_an_answer_that_comes_too_late_stops_the_ladder_as_well(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The canary's lease ran out before its failure was written: it is a failure all the same."""
    row = approved(world, requested(world, chosen(world, 4)))
    world.receiver.behave("/webhook", status=500)
    record = outcomes.record

    def too_late(results, *, clock):  # type: ignore[no-untyped-def]
        (pk, _), *_ = results
        after = Execution.objects.get(pk=pk).lease_until + timedelta(seconds=1)
        outcomes.expire_leases(clock=lambda: after)
        return record(results, clock=clock)

    monkeypatch.setattr(outcomes, "record", too_late)
    executed(world, row)
    assert Execution.objects.count() == 1


def test_a_run_that_goes_on_starts_where_it_was(world: World) -> None:
    row = approved(world, requested(world, chosen(world, 4)))
    world.receiver.behave("/webhook", status=500)
    run = executed(world, row)
    world.receiver.behave("/webhook", status=200)
    WorkerRun.objects.filter(pk=run.pk).update(
        state=RunState.RUNNING, finished_at=None, lease_until=world.clock()
    )
    run.refresh_from_db()
    # Its canary failed before the worker died: nothing more of this connector in this run.
    runs.execute(run, clock=world.clock, seconds=30)
    assert Execution.objects.count() == 1
    # Another run is another person's word.
    executed(world, row)
    assert Execution.objects.filter(state=ExecutionState.DELIVERED).count() == 3


# --- what the approver sees -----------------------------------------------------------------------------------------


def test_like_items_are_grouped_outliers_first(two: World) -> None:
    for _ in range(2):
        two.failed("webhook")
    two.receiver.behave("/backup", hang_up=True)
    row = chosen(two, 1, "backup")
    row = requested(two, row)
    found = sets.groups(entries(row))
    assert [(group.connector, len(group.entries)) for group in found] == [("backup", 1), ("webhook", 2)]
    assert {group.size_class for group in found} <= {"up to 1 KB", "up to 10 KB"}


@pytest.mark.parametrize(
    ("size", "expected"),
    ((0, "up to 1 KB"), (1_024, "up to 1 KB"), (1_025, "up to 10 KB"), (102_401, "over 100 KB")),
)
def test_size_classes(size: int, expected: str) -> None:
    assert sets.size_class(size) == expected


def test_an_item_belongs_to_a_set_once(world: World) -> None:
    row = chosen(world, 1)
    assert RetrySetItem.objects.filter(retry_set=row).count() == 1
    assert EntryState.PENDING not in {item.entry and item.entry.state for item in sets.items(row)}
