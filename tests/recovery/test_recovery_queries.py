"""Recoveries as pages show them, what a closure still needs, and recoveries that come back on their date (P23)."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command

from evidence.connectors import sender
from evidence.domain import deliveries, packages, people, records
from evidence.domain.clock import system_clock
from evidence.domain.deliveries import DeliveryRequest
from evidence.domain.packages import PackageFilters
from evidence.enums import CaseState, Role
from evidence.errors import DomainError, NotAllowed, NotFound
from evidence.models import Attempt, Case, Connector, Person, Record
from recovery.domain import closures, playbooks, recoveries
from recovery.domain.closures import ClosureRequest
from recovery.domain.recoveries import FAILURE_LABELS, Failures
from recovery.enums import ClosureState, RecoveryState, Seen
from recovery.execution import outcomes
from recovery.models import Closure, Execution, Playbook, Recovery
from tests.builders import Clock, World, person
from tests.recovery.checks import appended, payload, unreachable_connectors


def close(
    world: World, playbook: Playbook, state: ClosureState, by: Person | None = None, **fields: Any
) -> None:
    request = ClosureRequest(**{"provider": "webhook", "state": state, **fields})
    closures.close(playbook, request, by=by or world.second_analyst, clock=world.clock)


def mitigated(world: World, days: int = 3, state: ClosureState = ClosureState.MITIGATED) -> None:
    """A failure that somebody put off for so many days."""
    world.failed()
    review_at = world.clock() + timedelta(days=days)
    close(
        world,
        world.playbook(),
        state,
        owner="siem-team",
        review_at=review_at,
        reason="change freeze",
        external_ref="INC-1",
    )


def recovered(world: World) -> Execution:
    """Retried with success, all of it; the newest execution."""
    world.approved()
    return world.ran().outcome.recorded[-1].execution


def current(provider: str = "webhook") -> recoveries.Summary:
    return recoveries.recovery_of(provider).current


# --- lists --------------------------------------------------------------------------------------------------------


def test_a_line_of_the_list_says_how_far_a_recovery_is(two: World) -> None:
    two.failed("webhook", status=401)
    two.failed("webhook", status=503)
    two.failed("webhook", status=503)
    two.delivered("backup")
    two.playbook()
    (summary,) = recoveries.open_recoveries()
    recovery = Recovery.objects.get()
    assert (summary.recovery, summary.recovery.connector.key) == (recovery, "webhook")
    assert (summary.cases, summary.settled, summary.unlisted, summary.failure_count) == (3, 0, 0, 3)
    assert [(one.name, one.count) for one in summary.failures] == [("unavailable", 2), ("auth", 1)]
    assert summary.newest_failure is not None
    assert summary.newest_failure.label == "receiver is unavailable"
    two.failed("webhook", status=401)
    two.requested()
    two.vote(recovery.items.first().case.approval_entries.get())
    two.ran()
    (summary,) = recoveries.open_recoveries()
    # The new failure is not in the playbook yet; the page says that one is due.
    assert (summary.cases, summary.settled, summary.unlisted) == (3, 1, 1)
    two.playbook()
    (summary,) = recoveries.open_recoveries()
    assert (summary.cases, summary.settled, summary.unlisted, summary.failure_count) == (4, 1, 0, 4)
    assert summary.newest_failure is not None
    assert summary.newest_failure.name == "auth"


def test_open_ones_come_first_then_what_comes_back_soonest(timed: World, clock: Clock) -> None:
    keys = unreachable_connectors(4)
    timed.failed(*keys)
    playbook = timed.playbook()
    for key, days in ((keys[0], 5), (keys[1], 2)):
        close(
            timed,
            playbook,
            ClosureState.MITIGATED,
            provider=key,
            owner="siem-team",
            review_at=clock() + timedelta(days=days),
        )
    close(timed, playbook, ClosureState.ESCALATED, provider=keys[2], external_ref="INC-1")
    found = recoveries.open_recoveries()
    assert [one.recovery.connector.key for one in found] == [keys[3], keys[1], keys[0], keys[2]]
    assert [one.recovery.owner for one in found] == ["", "siem-team", "siem-team", ""]
    assert [[closure.state for closure in one.closures] for one in found] == [
        [],
        ["mitigated"],
        ["mitigated"],
        ["escalated"],
    ]
    assert recoveries.finished_recoveries() == []


def test_lists_cost_the_same_for_one_and_for_many(
    world: World, django_assert_num_queries: Callable[..., Any]
) -> None:
    world.failed()
    world.playbook()
    with django_assert_num_queries(5):
        assert len(recoveries.open_recoveries()) == 1
    keys = unreachable_connectors(40)
    world.failed(*keys)
    world.playbook()
    with django_assert_num_queries(5):
        found = recoveries.open_recoveries()
        assert [(one.cases, one.failure_count, one.recovery.connector.key) for one in found] == [
            (1, 1, key) for key in ("webhook", *keys)
        ]


def test_a_recovery_stands_with_its_earlier_epochs(world: World) -> None:
    with pytest.raises(NotFound) as caught:
        recoveries.recovery_of("webhook")
    assert caught.value.code == "recovery_not_found"
    mitigated(world)
    refs = (recovered(world).execution_id,)
    playbook = world.playbook()
    world.closed(playbook, "webhook", refs)
    assert recoveries.open_recoveries() == []
    close(world, playbook, ClosureState.REOPENED, reason="the receiver lost it")
    world.failed(status=401)
    world.playbook()
    found = recoveries.recovery_of(" Webhook")
    assert (found.current.recovery.epoch, found.current.recovery.state) == (2, RecoveryState.OPEN)
    assert (found.current.cases, found.current.settled, found.current.closures) == (2, 1, ())
    (before,) = found.earlier
    assert (before.recovery.epoch, before.recovery.state) == (1, RecoveryState.REOPENED)
    # What is unsettled now is nothing of the epoch that ended.
    assert (before.cases, before.settled, before.unlisted) == (1, 1, 0)
    assert [closure.state for closure in before.closures] == ["reopened", "resolved", "mitigated"]
    assert before.closures[0].closed_by == world.second_analyst
    assert [one.recovery.epoch for one in recoveries.finished_recoveries()] == [1]
    assert recoveries.finished_recoveries(limit=0) == []


# --- one recovery -------------------------------------------------------------------------------------------------


def test_failures_are_counted_by_class_in_words(world: World) -> None:
    world.failed(status=401)
    world.unknown()
    world.failed(status=503)
    world.playbook()
    found = recoveries.open_recoveries()[0].failures
    assert {(one.name, one.label, one.count) for one in found} == {
        ("auth", "credential was refused", 1),
        ("unavailable", "receiver is unavailable", 2),
        ("outcome_unknown", "outcome unknown", 1),
    }
    assert found[0].name == "unavailable"
    newest = Attempt.objects.filter(failure_class="unavailable").latest("completed_at")
    assert found[0].newest_at == newest.completed_at
    (about,) = payload(Playbook.objects.get().playbook_id)["provider_playbooks"]
    assert about["failure_classes"] == {one.name: one.count for one in found}


def test_every_failure_there_can_be_has_words(world: World) -> None:
    for name in {
        *Attempt._meta.get_field("failure_class").choices,
        *Attempt._meta.get_field("outcome").choices,
    }:
        if name[0] != "delivered":
            assert Failures(name[0], 1, system_clock()).label
    assert "delivered" not in FAILURE_LABELS


def test_affected_cases_are_the_listed_ones_and_what_came_since(world: World) -> None:
    (settled,) = world.failed(status=401)
    world.playbook()
    recovered(world)
    (listed,) = world.failed(status=503)
    world.playbook()
    (since,) = world.failed(status=404)
    recovery = recoveries.newest("webhook")
    found = {one.case.case_id: one for one in recoveries.affected_cases(recovery)}
    assert [
        (found[case.case_id].listed, found[case.case_id].settled, found[case.case_id].failure)
        for case in (settled, listed, since)
    ] == [
        (True, True, "credential was refused"),
        (True, False, "receiver is unavailable"),
        (False, False, "endpoint does not exist"),
    ]
    assert [one.settled for one in recoveries.affected_cases(recovery)] == [False, False, True]
    last = found[settled.case_id].last_failure
    assert last is not None
    assert (last.number, last.status_code) == (1, 401)
    # A capped list leaves out what is settled first.
    assert {one.case for one in recoveries.affected_cases(recovery, limit=2)} == {listed, since}


def test_a_finished_recovery_is_about_its_own_cases(world: World) -> None:
    world.failed()
    refs = (recovered(world).execution_id,)
    world.closed(world.playbook(), "webhook", refs)
    world.failed()
    (only,) = recoveries.affected_cases(recoveries.newest("webhook"))
    assert (only.case.state, only.listed) == (CaseState.DELIVERED, True)


def test_a_page_of_a_recovery_costs_the_same_for_any_number_of_cases(
    world: World, django_assert_num_queries: Callable[..., Any]
) -> None:
    def page() -> int:
        found = recoveries.recovery_of("webhook")
        recovery = found.current.recovery
        recoveries.verification_choices(recovery, world.analyst)
        recoveries.requirements_for(recovery, ClosureState.RESOLVED, world.second_analyst, system_clock())
        return len([one.failure for one in recoveries.affected_cases(recovery)])

    def queries() -> int:
        with django_assert_num_queries(10_000, exact=False) as counted:
            page()
        return len(counted)

    world.failed()
    recovered(world)
    world.playbook()
    first = queries()
    for _ in range(5):
        world.failed()
    recovered(world)
    world.failed()
    world.playbook()
    assert page() == 7
    assert queries() == first


# --- what proves it, and what is needed -----------------------------------------------------------------------------


def test_choices_of_proof_are_the_delivered_executions(two: World) -> None:
    world = two
    both = person(Role.ANALYST, Role.OPERATOR)
    world.failed("backup")
    recovered(world)
    late = world.claimed()
    after = late.execution.lease_until + timedelta(seconds=1)
    outcomes.expire_leases(clock=lambda: after)
    world.failed("webhook")
    world.playbook()
    recovery = recoveries.newest("webhook")
    assert recoveries.verification_choices(recovery, both) == []
    # The late answer settles one, an operator who is an analyst too executes the other.
    deliver(late)
    world.operator = both
    mine = recovered(world)
    found = recoveries.verification_choices(recovery, both)
    assert {(one.reference, one.case_id, one.attempt_no, one.reconciled, one.own) for one in found} == {
        (mine.execution_id, mine.case.case_id, 2, False, True),
        (late.execution.execution_id, late.execution.case.case_id, 2, True, False),
    }
    assert found[0].executed_by in {both.username, late.execution.executed_by.username}
    assert {one.executed_at for one in found} == {
        mine.claimed_at,
        Execution.objects.get(pk=late.execution.pk).claimed_at,
    }
    assert not any(one.own for one in recoveries.verification_choices(recovery, world.second_analyst))


def test_a_first_attempt_that_turned_out_delivered_proves_itself(timed: World, clock: Clock) -> None:
    timed.announced()
    package = packages.freeze(PackageFilters(), by=timed.analyst, clock=clock).package
    request = DeliveryRequest(filters=PackageFilters())
    (case,) = deliveries.open_plan(
        package, list(Connector.objects.all()), request, by=timed.analyst, clock=clock
    ).cases
    clock.forward(minutes=10)
    deliveries.expire_leases(clock=clock)
    playbook = timed.playbook()
    recovery = recoveries.newest("webhook")
    assert recoveries.verification_choices(recovery, timed.analyst) == []
    timed.attested(case, Seen.DELIVERED, timed.approver, timed.second_approver)
    (choice,) = recoveries.verification_choices(recovery, timed.analyst)
    assert (choice.case_id, choice.attempt_no, choice.executed_by) == (
        case.case_id,
        1,
        timed.analyst.username,
    )
    # Who sent it does not confirm it.
    assert (choice.executed_at, choice.reconciled, choice.own) == (case.created_at, True, True)
    with pytest.raises(NotAllowed, match="You sent the first attempt"):
        timed.closed(playbook, "webhook", (choice.reference,), by=timed.analyst)
    (choice,) = recoveries.verification_choices(recovery, timed.second_analyst)
    assert not choice.own
    timed.closed(playbook, "webhook", (choice.reference,))
    assert Recovery.objects.get().state == RecoveryState.RESOLVED


def deliver(claimed: Any) -> None:
    """The sender's answer comes after the lease ran out."""
    (receipt,) = sender.shared().send_all([claimed.spec], deadline_s=5)
    outcomes.record([(claimed.execution.pk, receipt)], clock=system_clock)


def test_a_choice_is_ones_own_through_a_service_account_too(world: World) -> None:
    both = person(Role.ANALYST)
    robot = people.create("sending-robot", by=None, clock=system_clock, owner=both)
    people.set_roles(robot, [Role.OPERATOR], by=None, clock=system_clock)
    world.failed()
    world.operator = Person.objects.get(pk=robot.pk)
    recovered(world)
    world.playbook()
    (choice,) = recoveries.verification_choices(recoveries.newest("webhook"), both)
    assert (choice.own, choice.executed_by) == (True, "sending-robot")


@pytest.mark.parametrize("state", ClosureState)
@pytest.mark.parametrize("filled", (False, True))
def test_form_and_refusal_speak_from_one_list(world: World, state: ClosureState, filled: bool) -> None:
    """What the form shows as unmet is exactly what the closure is refused for."""
    world.failed()
    world.playbook()
    recovered(world)
    world.failed()
    playbook = world.playbook()
    recovery = recoveries.newest("webhook")
    request = ClosureRequest(
        provider="webhook",
        state=state,
        owner="siem-team" if filled else "",
        reason="because" if filled else "",
        external_ref="INC-1" if filled else "",
        review_at=system_clock() + timedelta(days=40) if filled else None,
        verification_refs=("gordackretryexec-0000000000000000",) if filled else (),
    )
    shown = recoveries.requirements_for(
        recovery, state, world.second_analyst, system_clock(), request if filled else None
    )
    assert len({one.field for one in shown}) > 1
    unmet = [one for one in shown if not one.met and one.field != "state"]
    refusal = refused(lambda: closures.close(playbook, request, by=world.second_analyst, clock=system_clock))
    assert (refusal is None) == all(one.met for one in shown)
    if refusal is not None:
        by_field: dict[str, list[str]] = {}
        for one in unmet:
            by_field.setdefault(one.field, []).append(one.sentence)
        assert refusal.errors == by_field
        assert unmet or refusal.detail == shown[0].sentence


def refused(act: Callable[[], object]) -> DomainError | None:
    """What an act was refused with, if it was."""
    try:
        act()
    except DomainError as refusal:
        return refusal
    return None


def test_what_a_form_can_still_meet_is_told_from_what_it_cannot(world: World) -> None:
    both = person(Role.ANALYST, Role.OPERATOR)
    world.failed()
    world.operator = both
    recovered(world)
    world.failed()
    world.playbook()
    recovery = recoveries.newest("webhook")
    shown = recoveries.requirements_for(recovery, ClosureState.RESOLVED, both, system_clock())
    assert [(one.field, one.met, one.by_form) for one in shown] == [
        ("state", True, False),
        ("cases", False, False),
        ("verification_refs", False, True),
        ("person", False, False),
    ]
    done = Execution.objects.get()
    assert shown[-1].sentence == f"You executed {done.execution_id}; somebody else has to confirm it."
    shown = recoveries.requirements_for(recovery, ClosureState.DEFERRED, both, system_clock())
    assert [(one.field, one.met, one.by_form) for one in shown] == [
        ("state", True, False),
        ("owner", False, True),
        ("review_at", False, True),
        ("reason", False, True),
    ]


def test_a_date_in_the_past_meets_nothing(timed: World, clock: Clock) -> None:
    timed.failed()
    timed.playbook()
    recovery = recoveries.newest("webhook")
    for days, met in ((-1, False), (0, False), (1, True), (30, True), (31, False)):
        request = ClosureRequest(
            provider="webhook",
            state=ClosureState.MITIGATED,
            owner="siem-team",
            review_at=clock() + timedelta(days=days),
        )
        shown = recoveries.requirements_for(recovery, ClosureState.MITIGATED, timed.analyst, clock(), request)
        assert {one.field: one.met for one in shown}["review_at"] is met, days


def test_the_first_line_says_whether_this_person_may_at_all(world: World) -> None:
    def first(by: Person, state: ClosureState) -> recoveries.Requirement:
        return recoveries.requirements_for(recoveries.newest("webhook"), state, by, system_clock())[0]

    world.failed()
    world.playbook()
    role = first(world.operator, ClosureState.ESCALATED)
    assert not role.met
    assert "close recovery" in role.sentence
    assert "operator" in role.sentence
    state = first(world.analyst, ClosureState.REOPENED)
    assert (state.met, state.sentence) == (False, "This recovery is open; it cannot become reopened.")
    refs = (recovered(world).execution_id,)
    playbook = world.playbook()
    world.closed(playbook, "webhook", refs)
    assert not first(world.analyst, ClosureState.RESOLVED).met
    assert first(world.analyst, ClosureState.REOPENED).met
    close(world, playbook, ClosureState.REOPENED, reason="the receiver lost it")
    assert "No playbook" in first(world.analyst, ClosureState.ESCALATED).sentence


# --- coming back ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", (ClosureState.MITIGATED, ClosureState.DEFERRED, ClosureState.ESCALATED))
def test_p23_its_date_brings_a_recovery_back_by_itself(
    timed: World, clock: Clock, state: ClosureState
) -> None:
    mitigated(timed, state=state)
    clock.forward(days=3, microseconds=-1)
    with appended() as kinds:
        assert recoveries.bring_back(clock=clock) == 0
    assert kinds == []
    clock.forward(microseconds=1)
    with appended() as kinds:
        assert recoveries.bring_back(clock=clock) == 1
        assert recoveries.bring_back(clock=clock) == 0
    assert kinds == ["connector-recovery-return"]
    recovery, closure = Recovery.objects.get(), Closure.objects.get()
    assert (recovery.state, recovery.owner, recovery.review_at) == (RecoveryState.OPEN, "", None)
    record = Record.objects.latest("index")
    said = payload(record.record_id)
    assert (said["provider"], said["recovery_epoch"], said["closure_state"]) == ("webhook", 1, state)
    assert (said["closure_id"], said["closure_hash"]) == (closure.closure_id, closure.record_hash)
    assert (said["owner"], said["returned_at"]) == ("siem-team", said["review_at"])
    assert said["review_at"] == records.timestamp(clock())
    document = records.load(record.body)
    assert document["actor"]["name"] == "system"
    assert document["cases"] == [case.case_id for case in playbooks.listed_cases(recovery)]
    assert [one["id"] for one in document["references"]] == [closure.closure_id]
    # It is the analyst's again: another outcome may be recorded.
    close(timed, Playbook.objects.get(), ClosureState.ESCALATED, external_ref="INC-2")


def test_what_has_no_date_or_is_finished_stays(timed: World, clock: Clock) -> None:
    timed.failed()
    playbook = timed.playbook()
    close(timed, playbook, ClosureState.ESCALATED, external_ref="INC-1")
    clock.forward(days=300)
    assert recoveries.bring_back(clock=clock) == 0
    refs = (recovered(timed).execution_id,)
    close(
        timed,
        playbook,
        ClosureState.RESOLVED,
        verification_refs=refs,
        review_at=clock() + timedelta(days=1),
    )
    clock.forward(days=2)
    assert recoveries.bring_back(clock=clock) == 0
    assert Recovery.objects.get().state == RecoveryState.RESOLVED


def test_a_later_date_counts(timed: World, clock: Clock) -> None:
    mitigated(timed)
    clock.forward(days=2)
    close(
        timed,
        Playbook.objects.get(),
        ClosureState.DEFERRED,
        owner="siem-team",
        reason="change freeze",
        review_at=clock() + timedelta(days=2),
    )
    clock.forward(days=1)
    assert recoveries.bring_back(clock=clock) == 0
    clock.forward(days=1)
    assert recoveries.bring_back(clock=clock) == 1


def test_as_many_come_back_as_a_step_may_take_soonest_first(timed: World, clock: Clock) -> None:
    keys = unreachable_connectors(3)
    timed.failed(*keys)
    playbook = timed.playbook()
    for days, key in enumerate(keys, start=1):
        close(
            timed,
            playbook,
            ClosureState.MITIGATED,
            provider=key,
            owner="siem-team",
            review_at=clock() + timedelta(days=days),
        )
    clock.forward(days=5)
    assert recoveries.bring_back(clock=clock, limit=2) == 2
    assert [one.recovery.connector.key for one in recoveries.open_recoveries()][-1] == keys[-1]
    assert recoveries.bring_back(clock=clock, limit=2) == 1


@pytest.mark.django_db(transaction=True)
def test_the_worker_brings_back_what_is_due(committed: World, clock: Clock) -> None:
    committed.clock = clock
    mitigated(committed)
    call_command("worker", once=True)
    assert Recovery.objects.get().state == RecoveryState.MITIGATED
    clock.forward(days=3)
    committed.announced()  # rules judge by nothing earlier than the log's newest entry
    call_command("worker", once=True)
    assert Recovery.objects.get().state == RecoveryState.OPEN
    assert Case.objects.get().state == CaseState.FAILED
