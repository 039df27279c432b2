"""Acknowledging a retry: who reviewed which decision, and that the newest word counts (CONTRACT §4, W14)."""

import pytest

from evidence.domain.clock import system_clock
from evidence.enums import Role
from evidence.errors import Conflict, NotAllowed, NotFound
from evidence.models import Record
from recovery.documents import RETRY_ACK
from recovery.domain import approval_plans, approvals, retry_plans
from recovery.domain.approvals import Ballot
from recovery.domain.retry_plans import Review
from recovery.enums import ApprovalState, DecisionState, EntryState, ExecutionState, RetryAckState, SkipCode
from recovery.models import ApprovalEntry, Execution, RetryDecision, RetryPlan
from tests.builders import IMMEDIATE, World, person
from tests.recovery.checks import payload

PLAN = "retry_execution_approval_plan"


def answer(world: World, plan: RetryPlan, state: RetryAckState, **fields: str) -> dict:
    draft = retry_plans.acknowledge(
        plan,
        Review(**{"provider": "webhook", "state": state, **fields}),
        by=world.second_analyst,
        clock=world.clock,
    )
    return draft.view["acknowledgement"]


def test_the_record_quotes_plan_decision_and_person(world: World) -> None:
    (case,) = world.failed()
    plan = world.planned()
    said = answer(
        world,
        plan,
        RetryAckState.ACCEPTED,
        external_ref="INC-7",
        notes="seen",
        audit_id=case.package.audit_id,
    )
    decision = RetryDecision.objects.get()
    assert said["retry_plan_id"] == plan.retry_plan_id
    assert said["retry_plan_hash"] == plan.record_hash
    assert (said["attempt_no"], said["policy_digest"]) == (2, decision.policy_digest)
    assert (said["acknowledgement_state"], said["acknowledged_by"]) == (
        "accepted",
        world.second_analyst.username,
    )
    assert (said["external_ref"], said["notes"]) == ("INC-7", "seen")
    assert (decision.ack_id, decision.acknowledged_by) == (said["acknowledgement_id"], world.second_analyst)
    assert decision.ack_hash == Record.objects.get(record_id=decision.ack_id).digest


@pytest.mark.parametrize(
    ("states", "asks"),
    (
        ((), "wait_for_retry_ack"),
        (("accepted",), "request_approval"),
        (("resolved",), "request_approval"),
        (("deferred",), "wait_for_retry_ack"),
        (("escalated",), "wait_for_retry_ack"),
        (("dismissed",), "wait_for_retry_ack"),
        (("accepted", "dismissed"), "wait_for_retry_ack"),
        (("dismissed", "accepted"), "request_approval"),
        (("accepted", "dismissed", "resolved"), "request_approval"),
    ),
)
def test_w14_the_newest_acknowledgement_counts(world: World, states: tuple[str, ...], asks: str) -> None:
    world.failed()
    plan = world.planned()
    for state in states:
        answer(world, plan, RetryAckState(state))
    draft = approval_plans.request(by=world.analyst, clock=world.clock)
    (listed,) = draft.view[PLAN]["approval_decisions"]
    assert listed["action"] == asks
    assert ApprovalEntry.objects.count() == (asks == "request_approval")
    assert Record.objects.filter(kind=RETRY_ACK.name).count() == len(states)


def test_no_acknowledgement_is_needed_when_the_plan_does_not_ask_for_one(world: World) -> None:
    world.failed()
    world.planned()
    draft = approval_plans.request(by=world.analyst, clock=world.clock, require_retry_ack=False)
    (listed,) = draft.view[PLAN]["approval_decisions"]
    assert listed["action"] == "request_approval"
    world.vote(ApprovalEntry.objects.get())
    assert len(world.ran().outcome.recorded) == 1


def test_w14_a_dismissal_after_the_approval_stops_its_claim(world: World) -> None:
    world.failed()
    (entry,) = world.approved()
    answer(world, entry.retry_plan, RetryAckState.DISMISSED)
    sent = len(world.receiver.log)
    (skip,) = world.ran().outcome.skipped
    assert skip.code is SkipCode.ACKNOWLEDGEMENT_WITHDRAWN
    assert len(world.receiver.log) == sent
    entry.refresh_from_db()
    assert entry.state == EntryState.APPROVED
    # Accepted again: the approval still stands and is used.
    answer(world, entry.retry_plan, RetryAckState.ACCEPTED)
    assert len(world.ran().outcome.recorded) == 1
    assert Execution.objects.get().state == ExecutionState.DELIVERED


def test_an_older_plan_may_be_quoted_as_long_as_the_decision_is_the_same(world: World) -> None:
    world.failed()
    older = world.planned()
    world.planned()
    answer(world, older, RetryAckState.ACCEPTED)
    assert RetryDecision.objects.get().ack_state == RetryAckState.ACCEPTED


def test_a_superseded_decision_takes_no_acknowledgement(world: World) -> None:
    world.failed()
    older = world.planned()
    world.planned({"max_retry_attempts": 2})
    with pytest.raises(Conflict) as refused:
        answer(world, older, RetryAckState.ACCEPTED)
    assert refused.value.code == "decision_closed"
    assert not Record.objects.filter(kind=RETRY_ACK.name).exists()
    assert set(RetryDecision.objects.values_list("ack_state", flat=True)) == {""}


def test_a_used_decision_takes_no_acknowledgement(world: World) -> None:
    world.failed()
    (entry,) = world.approved()
    world.ran()
    with pytest.raises(Conflict) as refused:
        answer(world, entry.retry_plan, RetryAckState.ACCEPTED)
    assert refused.value.code == "decision_closed"
    assert RetryDecision.objects.get().state == DecisionState.USED


def test_several_decisions_of_one_connector_are_ambiguous_by_provider_alone(world: World) -> None:
    cases = [*world.failed(), *world.failed()]
    plan = world.planned()
    with pytest.raises(Conflict) as refused:
        answer(world, plan, RetryAckState.ACCEPTED)
    assert refused.value.code == "ambiguous_entry"
    assert set(refused.value.extra["cases"]) == {case.case_id for case in cases}
    answer(world, plan, RetryAckState.ACCEPTED, delivery_id=cases[1].plan.delivery_id)
    assert RetryDecision.objects.get(case=cases[1]).ack_state == "accepted"
    answer(world, plan, RetryAckState.DEFERRED, audit_id=cases[0].package.audit_id)
    assert RetryDecision.objects.get(case=cases[0]).ack_state == "deferred"


@pytest.mark.parametrize(
    "fields",
    (
        {"provider": "splunk"},
        {"delivery_id": "gordackdelivery-0000000000000000"},
        {"audit_id": "gordackaudit-0000000000000000"},
    ),
)
def test_w18_what_the_plan_does_not_list_is_not_found(world: World, fields: dict[str, str]) -> None:
    world.failed()
    with pytest.raises(NotFound) as refused:
        answer(world, world.planned(), RetryAckState.ACCEPTED, **fields)
    assert refused.value.code == "decision_not_found"
    assert "provider" in refused.value.errors


def test_a_case_that_the_plan_does_not_list_is_not_found_through_it(two: World) -> None:
    cases = {case.connector.key: case for case in two.failed()}
    draft = retry_plans.plan(IMMEDIATE, by=two.analyst, clock=two.clock, cases=[cases["webhook"].case_id])
    plan = retry_plans.plan_by_id(draft.record_id)
    two.planned()
    with pytest.raises(NotFound):
        answer(two, plan, RetryAckState.ACCEPTED, provider="backup")


def test_w18_a_plan_that_is_none_is_not_found(world: World) -> None:
    with pytest.raises(NotFound):
        retry_plans.plan_by_id("gordackretry-0000000000000000")


@pytest.mark.parametrize(
    "role", (Role.APPROVER, Role.OPERATOR, Role.AUDITOR, Role.VIEWER, Role.ADMINISTRATOR)
)
def test_w08_only_analysts_acknowledge(world: World, role: Role) -> None:
    world.failed()
    plan = world.planned()
    with pytest.raises(NotAllowed):
        retry_plans.acknowledge(
            plan,
            Review(provider="webhook", state=RetryAckState.ACCEPTED),
            by=person(role),
            clock=system_clock,
        )
    assert RetryDecision.objects.get().ack_state == ""


def test_p4_who_approved_a_retry_cannot_acknowledge_it_afterwards(world: World) -> None:
    """Else one person would be both: the dismissal took the acknowledgement away, theirs would bring it back."""
    both = person(Role.ANALYST, Role.APPROVER)
    world.failed()
    (entry,) = world.requested()
    world.vote(entry, by=both)
    answer(world, entry.retry_plan, RetryAckState.DISMISSED)
    with pytest.raises(NotAllowed) as refused:
        retry_plans.acknowledge(
            entry.retry_plan,
            Review(provider="webhook", state=RetryAckState.ACCEPTED),
            by=both,
            clock=world.clock,
        )
    assert refused.value.code == "second_person_required"
    (skip,) = world.ran().outcome.skipped
    assert skip.code is SkipCode.ACKNOWLEDGEMENT_WITHDRAWN
    # Taking one's own approval's ground away is allowed to everybody.
    retry_plans.acknowledge(
        entry.retry_plan,
        Review(provider="webhook", state=RetryAckState.DISMISSED),
        by=both,
        clock=world.clock,
    )


def test_p4_who_acknowledges_after_the_request_does_not_vote_either(world: World) -> None:
    both = person(Role.ANALYST, Role.APPROVER)
    world.failed()
    (entry,) = world.requested()
    retry_plans.acknowledge(
        entry.retry_plan,
        Review(provider="webhook", state=RetryAckState.DEFERRED),
        by=both,
        clock=world.clock,
    )
    answer(world, entry.retry_plan, RetryAckState.ACCEPTED)
    with pytest.raises(NotAllowed) as refused:
        approvals.decide(entry, Ballot(state=ApprovalState.APPROVED), by=both, clock=world.clock)
    assert refused.value.code == "second_person_required"


def test_the_ack_is_in_the_next_plan(world: World) -> None:
    world.failed()
    plan = world.planned()
    answer(world, plan, RetryAckState.ESCALATED)
    (listed,) = payload(world.planned().retry_plan_id)["retry_decisions"]
    assert listed["acknowledgement_state"] == "escalated"
