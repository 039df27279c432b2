"""Retry plans: what is decided about unsettled cases, and what becomes of a decision (CONTRACT §4, §10)."""

from datetime import timedelta

import pytest

from evidence.domain import deliveries, packages
from evidence.domain.deliveries import DeliveryRequest
from evidence.domain.packages import PackageFilters
from evidence.enums import CaseState, Role
from evidence.errors import Conflict, NotAllowed, NotFound
from evidence.models import Attempt, Case, Connector
from recovery.domain import retry_plans
from recovery.enums import DecisionState
from recovery.models import RetryDecision, RetryPlan, RetryPlanItem
from tests.builders import IMMEDIATE, Clock, World, connector, person
from tests.recovery.checks import payload, unreachable_connectors

PLAN = "acknowledgement_audit_delivery_retry_plan"


def decided(world: World, policy: dict | None = None, cases: list[str] | None = None) -> dict:
    draft = retry_plans.plan(policy or {}, by=world.analyst, clock=world.clock, cases=cases)
    return draft.view[PLAN]


def test_a_first_failure_waits_and_is_due_when_the_window_opens(timed: World, clock: Clock) -> None:
    (case,) = timed.failed()
    (waiting,) = decided(timed)["retry_decisions"]
    assert (waiting["action"], waiting["attempt_no"], waiting["retry_count"]) == ("wait", 2, 1)
    failed_at = Attempt.objects.get(case=case).completed_at
    assert RetryDecision.objects.get().not_before == failed_at + timedelta(minutes=15)
    clock.at = failed_at + timedelta(minutes=15, microseconds=-1)
    assert decided(timed)["waiting_count"] == 1
    clock.at = failed_at + timedelta(minutes=15)
    plan = decided(timed)
    assert (plan["retryable_count"], plan["alert_level"]) == (1, "critical")


@pytest.mark.parametrize(
    ("status", "said"),
    (
        (503, "The last try failed (unavailable) and a retry is due."),
        (
            401,
            "The last try failed (auth), which does not pass by itself. "
            "First: Reissue the credential in the private secret store. Then a retry is due.",
        ),
    ),
)
def test_a_failure_that_does_not_pass_by_itself_says_what_to_do_first(
    world: World, status: int, said: str
) -> None:
    world.failed(status=status)
    (decision,) = decided(world, IMMEDIATE)["retry_decisions"]
    assert (decision["action"], decision["reason"]) == ("retry", said)


def test_immediate_is_due_at_once(world: World) -> None:
    world.failed()
    plan = decided(world, IMMEDIATE)
    assert (plan["retryable_count"], plan["waiting_count"], plan["base_retry_delay_minutes"]) == (1, 0, 0)


@pytest.mark.parametrize(("policy", "due_in"), (({}, 7200), (IMMEDIATE, 0)))
def test_retry_after_is_honoured_unless_somebody_asks_for_immediately(
    world: World, policy: dict, due_in: int
) -> None:
    world.announced()
    world.acknowledged()
    world.receiver.behave("/webhook", status=429, headers={"retry-after": "7200"})
    deliveries.deliver_audit(
        DeliveryRequest(filters=PackageFilters(), retries=0), by=world.analyst, clock=world.clock
    )
    (decision,) = decided(world, policy)["retry_decisions"]
    assert decision["failure_class"] == "throttled"
    failed_at = Attempt.objects.get().completed_at
    assert RetryDecision.objects.get().not_before == failed_at + timedelta(seconds=due_in)


def test_a_short_retry_after_does_not_shorten_the_delay(world: World) -> None:
    world.announced()
    world.acknowledged()
    world.receiver.behave("/webhook", status=429, headers={"retry-after": "1"})
    deliveries.deliver_audit(
        DeliveryRequest(filters=PackageFilters(), retries=0), by=world.analyst, clock=world.clock
    )
    decided(world)
    assert RetryDecision.objects.get().not_before == Attempt.objects.get().completed_at + timedelta(
        minutes=15
    )


def test_planning_twice_keeps_the_decision_and_its_acknowledgement(world: World) -> None:
    world.failed()
    first = world.planned()
    world.reviewed(first)
    second = world.planned()
    (decision,) = RetryDecision.objects.all()
    assert (decision.state, decision.ack_state) == (DecisionState.OPEN, "accepted")
    assert [item.decision for item in second.items.all()] == [decision]
    assert payload(second.retry_plan_id)["retry_decisions"][0]["acknowledgement_state"] == "accepted"
    assert RetryPlan.objects.count() == 2


def test_another_policy_supersedes_the_decision(world: World) -> None:
    world.failed()
    world.reviewed(world.planned())
    plan = world.planned({"max_retry_attempts": 2})
    states = list(RetryDecision.objects.order_by("pk").values_list("state", "ack_state"))
    assert states == [(DecisionState.SUPERSEDED, "accepted"), (DecisionState.OPEN, "")]
    assert plan.items.get().decision.state == DecisionState.OPEN


def test_another_policy_leaves_a_decision_alone_while_an_approval_hangs_on_it(world: World) -> None:
    world.failed()
    (entry,) = world.requested()
    plan = world.planned({"max_retry_attempts": 2})
    (decision,) = RetryDecision.objects.all()
    assert decision.state == DecisionState.OPEN
    assert plan.items.get().decision == decision == entry.decision
    # The plan says what stands, not what was wished for.
    (listed,) = payload(plan.retry_plan_id)["retry_decisions"]
    assert (listed["policy_digest"], listed["max_retry_attempts"]) == (decision.policy_digest, 3)


def test_a_settled_case_is_not_planned(world: World) -> None:
    world.delivered()
    plan = decided(world, IMMEDIATE)
    assert (plan["decision_count"], plan["alert_level"]) == (0, "healthy")
    assert not RetryDecision.objects.exists()


def test_an_unknown_case_is_shown_and_not_planned(timed: World, clock: Clock) -> None:
    timed.announced()
    timed.acknowledged()
    package = packages.freeze(PackageFilters(), by=timed.analyst, clock=timed.clock).package
    deliveries.open_plan(
        package,
        list(Connector.objects.all()),
        DeliveryRequest(filters=PackageFilters()),
        by=timed.analyst,
        clock=timed.clock,
    )
    clock.forward(minutes=10)
    assert deliveries.expire_leases(clock=clock) == 1
    assert Case.objects.get().state == CaseState.UNKNOWN
    plan = decided(timed, IMMEDIATE)
    (listed,) = plan["retry_decisions"]
    assert (listed["action"], plan["suppressed_count"]) == ("suppress", 1)
    assert listed["may_have_arrived"] is True
    assert not RetryDecision.objects.exists()
    assert not RetryPlanItem.objects.exists()


def test_w06_every_try_that_left_counts_and_beyond_the_limit_is_suppressed(world: World) -> None:
    (case,) = world.failed()
    for number in (2, 3):
        world.approved()
        world.receiver.behave("/webhook", status=503)
        world.ran(policy=IMMEDIATE)
        case.refresh_from_db()
        assert (case.attempt_count, case.counted_attempts) == (number, number)
    (decision,) = decided(world, IMMEDIATE)["retry_decisions"]
    assert (decision["action"], decision["retry_count"], decision["attempt_no"]) == ("suppress", 3, 4)
    row = RetryDecision.objects.get(state=DecisionState.OPEN)
    assert row.suppressed
    # A suppressed decision is not asked about.
    assert world.requested() == []
    # The administrator's ceiling is raised: the next plan decides anew.
    world.policy(max_retry_attempts=5)
    (decision,) = decided(world, IMMEDIATE)["retry_decisions"]
    assert (decision["action"], decision["max_retry_attempts"]) == ("retry", 5)
    assert len(world.requested()) == 1


def test_what_did_not_leave_does_not_count_towards_the_limit(world: World) -> None:
    connector("nobody", "http://127.0.0.1:1/hook")
    (case,) = world.delivered("nobody")
    assert (case.state, case.attempt_count, case.counted_attempts) == (CaseState.FAILED, 1, 0)
    (decision,) = decided(world)["retry_decisions"]
    assert (decision["retry_count"], decision["retry_delay_minutes"]) == (0, 15)


def test_a_plan_over_named_cases_leaves_the_others_alone(two: World) -> None:
    cases = two.failed()
    plan = decided(two, IMMEDIATE, cases=[cases[0].case_id])
    assert [one["case"] for one in plan["retry_decisions"]] == [cases[0].case_id]
    assert plan["remaining_count"] == 0
    assert RetryDecision.objects.get().case == cases[0]


def test_a_plan_over_no_case_at_all_is_empty(world: World) -> None:
    world.failed()
    assert decided(world, IMMEDIATE, cases=[])["decision_count"] == 0


def test_an_unknown_case_id_is_refused_and_nothing_is_written(world: World) -> None:
    (case,) = world.failed()
    with pytest.raises(NotFound) as refused:
        decided(world, IMMEDIATE, cases=[case.case_id, "gordackdelivery-0000000000000000.webhook"])
    assert refused.value.errors == {"cases": ["unknown: gordackdelivery-0000000000000000.webhook"]}
    assert not RetryPlan.objects.exists()


def test_w04_a_looser_policy_plans_nothing(world: World) -> None:
    world.failed()
    with pytest.raises(Conflict, match="looser"):
        decided(world, {"max_retry_attempts": 1000})
    assert not RetryPlan.objects.exists()
    assert not RetryDecision.objects.exists()


@pytest.mark.parametrize(
    "role", (Role.APPROVER, Role.OPERATOR, Role.AUDITOR, Role.VIEWER, Role.ADMINISTRATOR)
)
def test_w08_only_analysts_plan(world: World, role: Role) -> None:
    world.failed()
    with pytest.raises(NotAllowed):
        retry_plans.plan(IMMEDIATE, by=person(role), clock=world.clock)
    assert not RetryPlan.objects.exists()


def test_w22_more_than_a_plan_holds_is_counted_and_the_oldest_come_first(world: World) -> None:
    keys = unreachable_connectors(101)
    world.announced()
    for _ in range(2):
        world.acknowledged()
        deliveries.deliver_audit(
            DeliveryRequest(filters=PackageFilters(), providers=keys, retries=0),
            by=world.analyst,
            clock=world.clock,
        )
    assert Case.objects.filter(state=CaseState.FAILED).count() == 202
    plan = decided(world, IMMEDIATE)
    assert (plan["decision_count"], plan["remaining_count"]) == (200, 2)
    left = Case.objects.exclude(retry_decisions__isnull=False)
    newest = Case.objects.order_by("-last_outcome_at", "-pk")[:2]
    assert set(left) == set(newest)
    # What a plan has no room for can be named.
    assert decided(world, IMMEDIATE, cases=[case.case_id for case in left])["decision_count"] == 2
    assert RetryDecision.objects.filter(state=DecisionState.OPEN).count() == 202
