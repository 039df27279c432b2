"""Recoveries: playbooks from what truly failed, and closures that are earned (P23, CONTRACT §7, §12)."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from evidence.connectors.failures import STEPS
from evidence.domain import people, records
from evidence.domain.clock import system_clock
from evidence.enums import Role
from evidence.errors import Conflict, InvalidInput, NotAllowed, NotFound, StaleState
from evidence.models import Attempt, Case, Person
from recovery.domain import approval_plans, closures, playbooks
from recovery.domain.closures import ClosureRequest
from recovery.domain.playbooks import CLOSING_STEPS
from recovery.enums import ClosureState, RecoveryState
from recovery.errors import ClosureNotEarned
from recovery.models import ApprovalEntry, Closure, Execution, Playbook, PlaybookItem, Recovery, RecoveryCase
from tests.builders import Clock, World, person
from tests.recovery.checks import appended

PLAYBOOK = "connector_recovery_playbook"
CLOSURE = "connector_recovery_closure"


def guidance(world: World, **how: Any) -> dict[str, Any]:
    draft = playbooks.generate(by=world.analyst, clock=world.clock, **{"min_failure_count": 1, **how})
    return draft.view[PLAYBOOK]


def close(
    world: World, playbook: Playbook, state: ClosureState, by: Person | None = None, **fields: Any
) -> dict[str, Any]:
    draft = closures.close(
        playbook,
        ClosureRequest(**{"provider": "webhook", "state": state, **fields}),
        by=by or world.second_analyst,
        clock=world.clock,
    )
    return draft.view[CLOSURE]


def refused(world: World, playbook: Playbook, state: ClosureState, **fields: Any) -> Conflict:
    """A closure that is not earned: nothing is written."""
    before = Recovery.objects.get(playbook_items__playbook=playbook, connector__key="webhook").state
    with appended() as kinds, pytest.raises(Conflict) as caught:
        close(world, playbook, state, **fields)
    assert kinds == []
    assert not Closure.objects.exists()
    assert Recovery.objects.get(playbook_items__playbook=playbook, connector__key="webhook").state == before
    return caught.value


def recovered(world: World) -> tuple[Playbook, str]:
    """Failed, retried with success, and described by a playbook; the playbook and the execution's id."""
    world.failed()
    world.approved()
    (done,) = world.ran().outcome.recorded
    return world.playbook(), done.execution.execution_id


def recovery(world: World) -> Recovery:
    return Recovery.objects.latest("epoch")


# --- playbooks ----------------------------------------------------------------------------------------------------


def test_a_playbook_says_what_failed_and_what_to_do(world: World) -> None:
    (case,) = world.failed(status=401)
    plan = guidance(world)
    (about,) = plan["provider_playbooks"]
    attempt = Attempt.objects.get()
    assert (plan["alert_level"], plan["provider_count"], plan["failure_count"]) == ("critical", 1, 1)
    assert (about["provider"], about["category"], about["failure_count"]) == ("webhook", "webhook", 1)
    assert (about["status_codes"], about["failure_classes"]) == (["401"], {"auth": 1})
    assert about["latest_failure_at"] == records.timestamp(attempt.completed_at)
    assert (about["cases"], about["failed_attempt_ids"]) == ([case.case_id], [attempt.attempt_id])
    assert (about["recovery_epoch"], about["recovery_state"]) == (1, "open")
    found = Recovery.objects.get()
    assert (found.state, found.epoch) == (RecoveryState.OPEN, 1)
    assert playbooks.listed_cases(found) == [case]


@pytest.mark.parametrize(
    ("status", "step"),
    ((401, "rotate_credential"), (429, "wait"), (503, "check_receiver"), (404, "check_endpoint")),
)
def test_w32_the_steps_are_those_of_the_failure(world: World, status: int, step: str) -> None:
    world.failed(status=status)
    (about,) = guidance(world)["provider_playbooks"]
    assert step in [one["step_key"] for one in about["steps"]]
    assert STEPS[step] in about["recovery_steps"]
    assert about["recovery_steps"] == [one["text"] for one in about["steps"]]
    assert list(CLOSING_STEPS.values()) == about["recovery_steps"][-len(CLOSING_STEPS) :]
    others = {401: "wait", 429: "rotate_credential", 503: "rotate_credential", 404: "wait"}
    assert others[status] not in [one["step_key"] for one in about["steps"]]


def test_w30_a_connectors_codes_are_its_own(two: World) -> None:
    two.failed("webhook", status=401)
    two.failed("backup", status=503)
    abouts = {one["provider"]: one for one in guidance(two)["provider_playbooks"]}
    assert (abouts["webhook"]["status_codes"], abouts["backup"]["status_codes"]) == (["401"], ["503"])
    assert abouts["webhook"]["cases"] != abouts["backup"]["cases"]


def test_fewer_failures_than_asked_for_open_nothing(world: World) -> None:
    world.failed()
    plan = guidance(world, min_failure_count=2)
    assert (plan["provider_playbooks"], plan["alert_level"]) == ([], "healthy")
    assert not Recovery.objects.exists()
    world.failed()
    assert guidance(world, min_failure_count=2)["failure_count"] == 2


def test_older_failures_than_asked_for_open_nothing(timed: World, clock: Clock) -> None:
    timed.failed()
    clock.forward(hours=25)
    assert guidance(timed)["provider_playbooks"] == []
    assert guidance(timed, lookback_hours=48)["failure_count"] == 1


def test_nothing_failed_is_an_empty_playbook(world: World) -> None:
    world.delivered()
    assert guidance(world)["provider_count"] == 0
    assert (Playbook.objects.count(), Recovery.objects.count()) == (1, 0)


def test_another_playbook_goes_on_with_the_same_recovery(timed: World, clock: Clock) -> None:
    first = timed.failed()[0]
    one = timed.playbook()
    second = timed.failed()[0]
    two = timed.playbook()
    found = Recovery.objects.get()
    assert set(RecoveryCase.objects.values_list("case", flat=True)) == {first.pk, second.pk}
    assert [item.playbook for item in PlaybookItem.objects.order_by("pk")] == [one, two]
    assert found.epoch == 1
    # An unfinished recovery with unsettled cases is described however old its failures are.
    clock.forward(days=5)
    (about,) = guidance(timed)["provider_playbooks"]
    assert (about["failure_count"], set(about["cases"])) == (0, {first.case_id, second.case_id})


@pytest.mark.parametrize(
    "role", (Role.APPROVER, Role.OPERATOR, Role.AUDITOR, Role.VIEWER, Role.ADMINISTRATOR)
)
def test_w08_only_analysts_plan_and_close_recoveries(world: World, role: Role) -> None:
    playbook, execution = recovered(world)
    somebody = person(role)
    with pytest.raises(NotAllowed):
        playbooks.generate(by=somebody, clock=world.clock)
    with pytest.raises(NotAllowed):
        close(world, playbook, ClosureState.RESOLVED, by=somebody, verification_refs=(execution,))
    assert (Playbook.objects.count(), Closure.objects.count()) == (1, 0)


def test_the_database_holds_one_unfinished_recovery_for_a_connector(world: World) -> None:
    world.failed()
    world.playbook()
    found = Recovery.objects.get()
    with pytest.raises(IntegrityError), transaction.atomic():
        Recovery.objects.create(connector=found.connector, epoch=2, opened_at=world.clock())


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_playbooks_at_once_open_one_recovery(committed_two: World) -> None:
    world = committed_two
    world.failed()
    start = threading.Barrier(4)
    failures: list[Exception] = []

    def generate() -> None:
        try:
            start.wait()
            guidance(world)
        except Exception as error:
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=generate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert (Playbook.objects.count(), Recovery.objects.count(), RecoveryCase.objects.count()) == (4, 2, 2)


# --- resolved -----------------------------------------------------------------------------------------------------


def test_resolved_by_a_second_person_with_proof(world: World) -> None:
    playbook, execution_id = recovered(world)
    said = close(
        world, playbook, ClosureState.RESOLVED, verification_refs=(execution_id,), external_ref="INC-1"
    )
    case, execution = Case.objects.get(), Execution.objects.get()
    attempt = Attempt.objects.get(number=2)
    assert said["verified"] == [
        {
            "case": case.case_id,
            "state": "delivered",
            "attempt_id": attempt.attempt_id,
            "attempt_record_hash": attempt.record_hash,
            "execution_id": execution_id,
            "execution_hash": execution.execution_hash,
            "reconciliation_id": "",
            "reconciliation_hash": "",
            "disposition_id": "",
            "disposition_decision_id": "",
            "disposition_decision_hash": "",
        }
    ]
    assert (said["closed_by"], said["playbook_hash"]) == (world.second_analyst.username, playbook.record_hash)
    closure = Closure.objects.get()
    assert (closure.closure_id, closure.record_hash) == (said["closure_id"], said["closure_hash"])
    assert recovery(world).state == RecoveryState.RESOLVED


def test_w32_resolved_needs_a_reference(world: World) -> None:
    playbook, _ = recovered(world)
    error = refused(world, playbook, ClosureState.RESOLVED)
    assert error.code == "closure_requirements_missing"
    assert error.errors.keys() == {"verification_refs"}


def test_w18_a_reference_is_looked_up(two: World) -> None:
    two.failed()
    two.approved()
    ids = {
        done.execution.case.connector.key: done.execution.execution_id for done in two.ran().outcome.recorded
    }
    playbook = two.playbook()
    for wrong in ("gordackretryexec-0000000000000000", ids["backup"], Attempt.objects.first().attempt_id):
        error = refused(two, playbook, ClosureState.RESOLVED, verification_refs=(ids["webhook"], wrong))
        assert (error.code, list(error.errors)) == ("closure_requirements_missing", ["verification_refs"])
        assert wrong in error.errors["verification_refs"][0]
    close(two, playbook, ClosureState.RESOLVED, verification_refs=(ids["webhook"],))
    # The other connector's recovery is its own.
    assert dict(Recovery.objects.values_list("connector__key", "state")) == {
        "webhook": RecoveryState.RESOLVED,
        "backup": RecoveryState.OPEN,
    }


def test_a_failed_execution_proves_nothing(world: World) -> None:
    (case,) = world.failed()
    world.approved()
    world.receiver.behave("/webhook", status=500)
    world.ran()
    failed = Execution.objects.get().execution_id
    playbook = world.playbook()
    error = refused(world, playbook, ClosureState.RESOLVED, verification_refs=(failed,))
    assert isinstance(error, ClosureNotEarned)
    assert error.code == "closure_not_earned"
    assert case.case_id in error.errors["cases"][0]
    assert error.errors.keys() == {"cases", "verification_refs"}


def test_p23_a_listed_case_that_is_not_settled_keeps_it_open(world: World) -> None:
    world.failed()
    left = world.failed()[0]
    world.reviewed(world.planned())
    approval_plans.request(by=world.analyst, clock=world.clock)
    world.vote(ApprovalEntry.objects.exclude(case=left).get())
    (done,) = world.ran().outcome.recorded
    error = refused(
        world, world.playbook(), ClosureState.RESOLVED, verification_refs=(done.execution.execution_id,)
    )
    assert error.code == "closure_not_earned"
    assert error.errors["cases"] == [f"{left.case_id} is not settled after its newest failure."]


def test_p23_a_failure_since_the_playbook_keeps_it_open_too(world: World) -> None:
    playbook, execution = recovered(world)
    (case,) = world.failed()
    error = refused(world, playbook, ClosureState.RESOLVED, verification_refs=(execution,))
    assert error.code == "closure_not_earned"
    assert case.case_id in error.errors["cases"][0]


def test_p23_who_executed_does_not_confirm(world: World) -> None:
    both = person(Role.ANALYST, Role.OPERATOR)
    world.failed()
    world.approved()
    world.operator = both
    (done,) = world.ran().outcome.recorded
    playbook = world.playbook()
    with appended() as kinds, pytest.raises(NotAllowed) as caught:
        close(
            world,
            playbook,
            ClosureState.RESOLVED,
            by=both,
            verification_refs=(done.execution.execution_id,),
        )
    assert (caught.value.code, kinds) == ("second_person_required", [])
    assert recovery(world).state == RecoveryState.OPEN
    close(world, playbook, ClosureState.RESOLVED, verification_refs=(done.execution.execution_id,))


def test_p23_nor_does_a_service_account_of_who_executed(world: World) -> None:
    robot = people.create("closing-robot", by=None, clock=system_clock, owner=world.operator)
    people.set_roles(robot, [Role.ANALYST], by=None, clock=system_clock)
    playbook, execution = recovered(world)
    with pytest.raises(NotAllowed) as caught:
        close(
            world,
            playbook,
            ClosureState.RESOLVED,
            by=Person.objects.get(pk=robot.pk),
            verification_refs=(execution,),
        )
    assert caught.value.code == "second_person_required"


def test_p23_nor_who_executed_another_case_of_it(world: World) -> None:
    both = person(Role.ANALYST, Role.OPERATOR)
    world.failed()
    world.approved()
    (first,) = world.ran().outcome.recorded
    world.failed()
    world.approved()
    world.operator = both
    world.ran()
    with pytest.raises(NotAllowed):
        close(
            world,
            world.playbook(),
            ClosureState.RESOLVED,
            by=both,
            verification_refs=(first.execution.execution_id,),
        )


def test_an_older_playbook_does_not_close(world: World) -> None:
    playbook, execution = recovered(world)
    newer = world.playbook()
    error = refused(world, playbook, ClosureState.RESOLVED, verification_refs=(execution,))
    assert (error.code, error.extra["playbook_id"]) == ("playbook_superseded", newer.playbook_id)
    close(world, newer, ClosureState.RESOLVED, verification_refs=(execution,))


def test_w18_a_playbook_closes_what_it_speaks_of(two: World) -> None:
    two.failed("backup")
    playbook = two.playbook()
    with pytest.raises(NotFound) as caught:
        close(two, playbook, ClosureState.ESCALATED, external_ref="INC-1")
    assert caught.value.code == "provider_not_in_playbook"
    with pytest.raises(NotFound):
        playbooks.playbook_by_id("gordackrecovery-0000000000000000")


def test_resolving_twice_is_refused(world: World) -> None:
    playbook, execution = recovered(world)
    close(world, playbook, ClosureState.RESOLVED, verification_refs=(execution,))
    with pytest.raises(StaleState):
        close(world, playbook, ClosureState.RESOLVED, verification_refs=(execution,))
    assert Closure.objects.count() == 1


# --- the other outcomes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "given", "missing"),
    (
        ("mitigated", {}, {"owner", "review_at"}),
        ("mitigated", {"owner": "siem-team"}, {"review_at"}),
        ("mitigated", {"review_in": 1}, {"owner"}),
        ("mitigated", {"owner": "siem-team", "review_in": 31}, {"review_at"}),
        ("deferred", {}, {"owner", "review_at", "reason"}),
        ("deferred", {"owner": "siem-team", "review_in": 1}, {"reason"}),
        ("deferred", {"owner": "siem-team", "reason": "freeze"}, {"review_at"}),
        ("escalated", {}, {"external_ref"}),
        ("escalated", {"owner": "siem-team", "reason": "stuck"}, {"external_ref"}),
    ),
)
def test_p23_each_outcome_needs_its_own(
    world: World, state: str, given: dict[str, Any], missing: set[str]
) -> None:
    world.failed()
    playbook = world.playbook()
    if "review_in" in given:
        given = {**given, "review_at": system_clock() + timedelta(days=given["review_in"])}
        del given["review_in"]
    error = refused(world, playbook, ClosureState(state), **given)
    assert (error.code, error.errors.keys()) == ("closure_requirements_missing", missing)


@pytest.mark.parametrize(
    ("state", "given"),
    (
        ("mitigated", {"owner": "siem-team", "days": 30}),
        ("deferred", {"owner": "siem-team", "days": 7, "reason": "change freeze"}),
        ("escalated", {"external_ref": "SERVICENOW:INC0012345"}),
    ),
)
def test_each_outcome_is_recorded(timed: World, clock: Clock, state: str, given: dict[str, Any]) -> None:
    timed.failed()
    playbook = timed.playbook()
    days = given.get("days")
    given = {key: value for key, value in given.items() if key != "days"}
    if days:
        given["review_at"] = clock() + timedelta(days=days)
    said = close(timed, playbook, ClosureState(state), by=timed.analyst, **given)
    found = recovery(timed)
    assert (said["closure_state"], found.state, found.owner) == (state, state, given.get("owner", ""))
    assert said["review_at"] == (records.timestamp(given["review_at"]) if days else "")
    assert found.review_at == given.get("review_at")


def test_a_date_in_the_past_is_wrong_input(world: World) -> None:
    world.failed()
    playbook = world.playbook()
    with pytest.raises(InvalidInput) as caught:
        close(
            world,
            playbook,
            ClosureState.MITIGATED,
            owner="siem-team",
            review_at=system_clock() - timedelta(seconds=1),
        )
    assert caught.value.errors.keys() == {"review_at"}
    assert not Closure.objects.exists()


def mitigated(world: World, days: int = 7) -> Playbook:
    world.failed()
    playbook = world.playbook()
    close(
        world,
        playbook,
        ClosureState.MITIGATED,
        owner="siem-team",
        review_at=world.clock() + timedelta(days=days),
    )
    return playbook


def test_p23_a_mitigated_recovery_stays_until_something_happens(timed: World, clock: Clock) -> None:
    mitigated(timed)
    clock.forward(days=1)
    (about,) = guidance(timed)["provider_playbooks"]
    assert (about["recovery_state"], recovery(timed).state) == ("mitigated", RecoveryState.MITIGATED)


def test_p23_a_new_failure_brings_a_mitigated_recovery_back(world: World) -> None:
    mitigated(world)
    world.failed()
    (about,) = guidance(world)["provider_playbooks"]
    found = Recovery.objects.get()
    assert (about["recovery_state"], found.state, found.owner, found.review_at) == ("open", "open", "", None)
    assert Closure.objects.count() == 1


def test_p23_its_date_brings_a_mitigated_recovery_back(timed: World, clock: Clock) -> None:
    mitigated(timed, days=3)
    clock.forward(days=3)
    (about,) = guidance(timed)["provider_playbooks"]
    assert (about["recovery_state"], recovery(timed).state) == ("open", RecoveryState.OPEN)
    assert recovery(timed).review_at is None


def test_p23_its_date_brings_it_back_although_all_is_settled(timed: World, clock: Clock) -> None:
    mitigated(timed, days=3)
    timed.approved()
    (done,) = timed.ran().outcome.recorded
    clock.forward(days=3)
    playbook = timed.playbook()
    assert recovery(timed).state == RecoveryState.OPEN
    close(timed, playbook, ClosureState.RESOLVED, verification_refs=(done.execution.execution_id,))


def test_a_mitigated_recovery_may_be_resolved_by_its_playbook(world: World) -> None:
    playbook = mitigated(world)
    world.approved()
    (done,) = world.ran().outcome.recorded
    close(world, playbook, ClosureState.RESOLVED, verification_refs=(done.execution.execution_id,))
    assert recovery(world).state == RecoveryState.RESOLVED
    assert list(Closure.objects.order_by("pk").values_list("state", flat=True)) == ["mitigated", "resolved"]


# --- afterwards ---------------------------------------------------------------------------------------------------


def test_w05_after_a_resolution_old_failures_open_nothing_new(world: World) -> None:
    playbook, execution = recovered(world)
    close(world, playbook, ClosureState.RESOLVED, verification_refs=(execution,))
    assert guidance(world)["provider_playbooks"] == []
    assert Recovery.objects.count() == 1


def test_a_failure_after_a_resolution_is_a_recovery_of_its_own(world: World) -> None:
    playbook, execution = recovered(world)
    close(world, playbook, ClosureState.RESOLVED, verification_refs=(execution,))
    (case,) = world.failed()
    for _ in range(2):
        (about,) = guidance(world)["provider_playbooks"]
        assert (about["recovery_epoch"], about["failure_count"]) == (2, 1)
        assert about["cases"] == [case.case_id]
    assert playbooks.listed_cases(recovery(world)) == [case]


def test_a_reopened_recovery_starts_over_and_the_old_closure_stays(world: World) -> None:
    playbook, execution = recovered(world)
    close(world, playbook, ClosureState.RESOLVED, verification_refs=(execution,))
    error = refused_reopening(world, playbook)
    assert error.errors.keys() == {"reason"}
    said = close(world, playbook, ClosureState.REOPENED, reason="the receiver lost it")
    assert (said["recovery_epoch"], said["reason"]) == (1, "the receiver lost it")
    old, new = Recovery.objects.order_by("epoch")
    assert (old.state, new.state, new.epoch) == (RecoveryState.REOPENED, RecoveryState.OPEN, 2)
    assert playbooks.listed_cases(new) == playbooks.listed_cases(old) == [Case.objects.get()]
    assert list(Closure.objects.order_by("pk").values_list("recovery", "state")) == [
        (old.pk, "resolved"),
        (old.pk, "reopened"),
    ]
    # What it was about counts again, in the new epoch; the old playbook closes nothing any more.
    (about,) = guidance(world)["provider_playbooks"]
    assert (about["recovery_epoch"], about["failure_count"]) == (2, 1)
    with pytest.raises(StaleState):
        close(world, playbook, ClosureState.ESCALATED, external_ref="INC-2")
    close(world, Playbook.objects.latest("pk"), ClosureState.RESOLVED, verification_refs=(execution,))
    assert recovery(world).state == RecoveryState.RESOLVED
    assert guidance(world)["provider_playbooks"] == []


def refused_reopening(world: World, playbook: Playbook) -> Conflict:
    with pytest.raises(Conflict) as caught:
        close(world, playbook, ClosureState.REOPENED)
    assert Recovery.objects.count() == 1
    return caught.value


def test_an_open_recovery_is_not_reopened(world: World) -> None:
    world.failed()
    playbook = world.playbook()
    with pytest.raises(StaleState):
        close(world, playbook, ClosureState.REOPENED, reason="why not")
    assert (Recovery.objects.count(), Closure.objects.count()) == (1, 0)


def test_closures_and_playbooks_are_never_changed(world: World) -> None:
    playbook, execution = recovered(world)
    close(world, playbook, ClosureState.RESOLVED, verification_refs=(execution,))
    for model in (Closure, Playbook, PlaybookItem, RecoveryCase):
        with pytest.raises(IntegrityError), transaction.atomic():
            model.objects.all().delete()
    with pytest.raises(IntegrityError), transaction.atomic():
        Closure.objects.update(state="mitigated")
