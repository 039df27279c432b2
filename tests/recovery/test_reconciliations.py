"""What came of a try that nobody heard of: two people who saw the same settle it, nobody alone (P3)."""

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from evidence.connectors import sender
from evidence.connectors.credentials import Misconfigured
from evidence.connectors.specs import Receipt
from evidence.domain import attempts, deliveries, packages, people, records, sending
from evidence.domain.clock import system_clock
from evidence.domain.deliveries import DeliveryRequest
from evidence.domain.packages import PackageFilters
from evidence.enums import CaseState, Outcome, Role
from evidence.errors import Conflict, DomainError, InvalidInput, NotAllowed, StaleState
from evidence.models import Attempt, Case, Connector, Person, Record
from recovery.domain import approvals, policies, reconciliations, retry_plans
from recovery.domain.reconciliations import Statement
from recovery.enums import (
    OPEN_ENTRY_STATES,
    ClosureState,
    DecisionState,
    EntryState,
    ExecutionState,
    RecoveryState,
    Seen,
)
from recovery.execution import outcomes
from recovery.execution.claims import Claimed
from recovery.models import ApprovalEntry, Attestation, Execution, Recovery
from tests.builders import IMMEDIATE, World, person
from tests.processes import together
from tests.recovery.checks import CHAIN, appended, payload

ATTESTED, SETTLED = "attestation", "retry-execution-reconciliation"


def attest(world: World, case: Case, seen: Seen, by: Person, **statement: Any) -> dict[str, Any]:
    """One person's word; its document."""
    statement = {"external_ref": "INC-4471", **statement}
    draft = reconciliations.attest(case, Statement(seen, **statement), by=by, clock=world.clock)
    return draft.view["delivery_attestation"]


def refused(world: World, case: Case, by: Person, **statement: Any) -> DomainError:
    """The refusal of somebody's word; nothing is written."""
    with appended() as kinds, pytest.raises(DomainError) as caught:
        attest(world, case, statement.pop("seen", Seen.DELIVERED), by, **statement)
    assert kinds == []
    assert not Attestation.objects.filter(account=by).exists()
    return caught.value


def first_unknown(world: World) -> tuple[Case, list[Receipt]]:
    """A first attempt that was really sent and whose answer was not recorded in time, and that answer."""
    world.announced()
    world.acknowledged()
    package = packages.freeze(PackageFilters(), by=world.analyst, clock=world.clock).package
    request = DeliveryRequest(filters=PackageFilters(), timeout_s=5.0)
    opened = deliveries.open_plan(
        package, list(Connector.objects.all()), request, by=world.analyst, clock=world.clock
    )
    receipts = sending.send_cases(opened.cases, retries=0, timeout_s=5)
    after = opened.cases[0].lease_until + timedelta(seconds=1)
    assert deliveries.expire_leases(clock=lambda: after) == 1
    (case,) = opened.cases
    case.refresh_from_db()
    return case, receipts


def answered(taken: Claimed) -> Receipt:
    """The claim's request goes out after all, and this is what comes back."""
    (receipt,) = sender.shared().send_all([taken.spec], deadline_s=5)
    return receipt


# --- settling -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "state", "may_have_arrived"),
    (
        (Seen.DELIVERED, CaseState.DELIVERED, True),
        (Seen.NOT_DELIVERED, CaseState.FAILED, False),
        (Seen.UNDETERMINED, CaseState.FAILED, True),
    ),
)
def test_p3_two_people_who_agree_settle_an_execution(
    world: World, seen: Seen, state: CaseState, may_have_arrived: bool
) -> None:
    case = world.unknown().execution.case
    with appended() as first:
        one = attest(world, case, seen, world.approver, notes="Not in the import set.")
    case.refresh_from_db()
    assert (first, case.state) == ([ATTESTED], CaseState.UNKNOWN)
    with appended() as second:
        other = attest(world, case, seen, world.second_analyst, external_ref="INC-4472")
    case.refresh_from_db()
    execution, unknown = Execution.objects.get(), Attempt.objects.get(number=2)
    assert second == [ATTESTED, SETTLED]
    assert (case.state, execution.state) == (state, state.value)
    assert (case.settled_at is not None, case.lease_token) == (state is CaseState.DELIVERED, "")
    # What was recorded stays as it was, and the try goes on counting: it may have left.
    assert (unknown.outcome, unknown.may_have_arrived, case.counted_attempts) == (Outcome.UNKNOWN, True, 2)
    record = Record.objects.get(kind=CHAIN + SETTLED)
    said = payload(record.record_id)
    assert (said["outcome"], said["may_have_arrived"]) == (state.value, may_have_arrived)
    assert (said["source"], said["answer"], said["assurance"]) == ("attestation", "no_answer", "")
    assert (said["attempt_id"], said["execution_hash"]) == (unknown.attempt_id, execution.execution_hash)
    quoted = {one["id"]: one["hash"] for one in records.load(record.body)["references"]}
    assert quoted[one["attestation_id"]] == one["attestation_hash"]
    assert quoted[other["attestation_id"]] == other["attestation_hash"]
    assert quoted[execution.claim_id] == execution.claim_hash
    assert quoted[unknown.record_id] == unknown.record_hash
    assert len(quoted) == len(Record.objects.filter(record_id__in=quoted)) == 10


def test_an_attestation_says_who_saw_what_of_which_attempt(world: World) -> None:
    execution = world.unknown().execution
    said = attest(
        world,
        execution.case,
        Seen.NOT_DELIVERED,
        world.approver,
        external_ref=" INC-4471 ",
        notes="No row with this key.\nLooked twice.",
        claimed_actor="release-manager",
    )
    attempt, row = Attempt.objects.get(number=2), Attestation.objects.get()
    assert (said["attempt_id"], said["execution_id"], said["attempt_no"]) == (
        attempt.attempt_id,
        execution.execution_id,
        2,
    )
    assert (said["seen"], said["as_approver"], said["attested_by"]) == (
        "not_delivered",
        True,
        world.approver.username,
    )
    assert (said["external_ref"], said["notes"]) == ("INC-4471", "No row with this key.\nLooked twice.")
    assert (row.attestation_id, row.record_hash) == (said["attestation_id"], said["attestation_hash"])
    assert (row.person, row.account, row.seen) == (world.approver, world.approver, Seen.NOT_DELIVERED)
    document = records.load(Record.objects.get(record_id=row.attestation_id).body)
    assert document["actor"]["claimed"] == "release-manager"
    assert attempt.record_id in {one["id"] for one in document["references"]}


@pytest.mark.parametrize(
    ("seen", "state"), ((Seen.DELIVERED, CaseState.DELIVERED), (Seen.NOT_DELIVERED, CaseState.FAILED))
)
def test_p3_two_people_settle_a_first_attempt(world: World, seen: Seen, state: CaseState) -> None:
    case, _ = first_unknown(world)
    with appended() as kinds:
        world.attested(case, seen, world.second_analyst, world.approver)
    assert kinds == [ATTESTED, ATTESTED, "reconciliation"]
    case.refresh_from_db()
    assert (case.state, case.attempt_count) == (state, 1)
    record = Record.objects.get(kind=CHAIN + "reconciliation")
    said = payload(record.record_id)
    assert (said["outcome"], said["source"]) == (state.value, "attestation")
    assert (said["attempt_id"], said["attempt_no"]) == (Attempt.objects.get().attempt_id, 1)
    quoted = {one["id"] for one in records.load(record.body)["references"]}
    assert set(Attestation.objects.values_list("attestation_id", flat=True)) < quoted


def test_p3_a_contradiction_leaves_it_unknown_until_two_agree(world: World) -> None:
    case = world.unknown().execution.case
    world.attested(case, Seen.DELIVERED, world.approver)
    with appended() as kinds:
        world.attested(case, Seen.NOT_DELIVERED, world.second_approver)
        world.attested(case, Seen.UNDETERMINED, world.analyst)
    assert kinds == [ATTESTED] * 2
    case.refresh_from_db()
    assert case.state == CaseState.UNKNOWN
    # Somebody looked again: their newest word counts, not the one before.
    world.attested(case, Seen.NOT_DELIVERED, world.approver)
    case.refresh_from_db()
    assert case.state == CaseState.FAILED
    settled = Record.objects.get(kind=CHAIN + SETTLED)
    quoted = {one["id"] for one in records.load(settled.body)["references"]}
    agreed = Attestation.objects.filter(seen=Seen.NOT_DELIVERED).values_list("attestation_id", flat=True)
    others = Attestation.objects.exclude(seen=Seen.NOT_DELIVERED).values_list("attestation_id", flat=True)
    assert set(agreed) < quoted
    assert not set(others) & quoted


def test_p3_a_word_that_was_taken_back_settles_nothing(world: World) -> None:
    case = world.unknown().execution.case
    world.attested(case, Seen.DELIVERED, world.approver)
    world.attested(case, Seen.UNDETERMINED, world.approver)
    world.attested(case, Seen.DELIVERED, world.second_analyst)
    case.refresh_from_db()
    assert case.state == CaseState.UNKNOWN


def test_p3_the_same_person_twice_is_one(world: World) -> None:
    case = world.unknown().execution.case
    world.attested(case, Seen.DELIVERED, world.approver, world.approver)
    case.refresh_from_db()
    assert case.state == CaseState.UNKNOWN


def test_p3_one_of_the_two_is_an_approver(world: World) -> None:
    case = world.unknown().execution.case
    with appended() as kinds:
        world.attested(case, Seen.DELIVERED, world.analyst, world.second_analyst)
    case.refresh_from_db()
    assert (kinds, case.state) == ([ATTESTED] * 2, CaseState.UNKNOWN)
    # What counts is the role when they said it: made an approver since, they have to say it again.
    people.grant_role(world.analyst, Role.APPROVER, by=None, clock=system_clock)
    promoted = Person.objects.get(pk=world.analyst.pk)
    world.attested(case, Seen.DELIVERED, world.second_analyst)
    case.refresh_from_db()
    assert case.state == CaseState.UNKNOWN
    world.attested(case, Seen.DELIVERED, promoted)
    case.refresh_from_db()
    assert case.state == CaseState.DELIVERED


def test_p3_the_role_given_up_later_does_not_unsay_it(world: World) -> None:
    case = world.unknown().execution.case
    world.attested(case, Seen.DELIVERED, world.approver)
    people.revoke_role(world.approver, Role.APPROVER, by=None, clock=system_clock)
    world.attested(case, Seen.DELIVERED, world.analyst)
    case.refresh_from_db()
    assert case.state == CaseState.DELIVERED


def test_p3_nobody_stands_up_for_what_a_deactivated_account_said(world: World) -> None:
    case = world.unknown().execution.case
    world.attested(case, Seen.DELIVERED, world.approver)
    people.set_active(world.approver, False, by=None, clock=system_clock)
    world.attested(case, Seen.DELIVERED, world.analyst)
    case.refresh_from_db()
    assert case.state == CaseState.UNKNOWN
    assert [word.counts for word in reconciliations.standing(case).words] == [False, True]
    world.attested(case, Seen.DELIVERED, world.second_approver)
    case.refresh_from_db()
    assert case.state == CaseState.DELIVERED


# --- who may ------------------------------------------------------------------------------------------------------


def test_p3_who_executed_does_not_attest(world: World) -> None:
    world.operator = person(Role.OPERATOR, Role.APPROVER)
    case = world.unknown().execution.case
    error = refused(world, case, world.operator)
    assert isinstance(error, NotAllowed)
    assert (error.code, error.detail) == (
        "second_person_required",
        "Not attested: you sent attempt 2. Two others have to look at the receiver.",
    )
    assert policies.reasons_against_attesting(world.operator, case) == error.extra["reasons"]
    assert policies.reasons_against_attesting(world.analyst, case) == []


def test_p3_who_delivered_does_not_attest_the_first_attempt(world: World) -> None:
    case, _ = first_unknown(world)
    assert refused(world, case, world.analyst).code == "second_person_required"
    world.attested(case, Seen.DELIVERED, world.second_analyst)


def test_p3_who_answers_for_the_account_that_executed_does_not_attest(world: World) -> None:
    owner, heir = person(Role.APPROVER), person(Role.APPROVER)
    robot = person(Role.OPERATOR, owner=owner)
    world.operator = robot
    case = world.unknown().execution.case
    assert refused(world, case, owner).code == "second_person_required"
    # A handover frees nobody, and binds who takes it over.
    people.update(robot, by=None, clock=system_clock, owner=heir)
    for answering in (owner, heir):
        assert refused(world, case, answering).code == "second_person_required"


def test_p3_a_service_account_and_its_owner_are_one_person(world: World) -> None:
    robot = person(Role.ANALYST, owner=world.approver)
    case = world.unknown().execution.case
    world.attested(case, Seen.DELIVERED, world.approver, robot)
    case.refresh_from_db()
    assert case.state == CaseState.UNKNOWN
    newest = Attestation.objects.latest("pk")
    assert (newest.person, newest.account, newest.as_approver) == (world.approver, robot, False)


def test_an_account_of_who_executed_does_not_attest_either(world: World) -> None:
    case = world.unknown().execution.case
    robot = person(Role.APPROVER, owner=world.operator)
    assert refused(world, case, robot).code == "second_person_required"


@pytest.mark.parametrize("role", (Role.OPERATOR, Role.AUDITOR, Role.VIEWER, Role.ADMINISTRATOR))
def test_p22_other_roles_do_not_attest(world: World, role: Role) -> None:
    assert refused(world, world.unknown().execution.case, person(role)).code == "role_required"


# --- what it takes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "field"),
    (
        ({"external_ref": ""}, "external_ref"),
        ({"external_ref": "  "}, "external_ref"),
        ({"external_ref": "https://tickets.example.com/INC-1"}, "external_ref"),
        ({"external_ref": "INC\u202e-1"}, "external_ref"),
        ({"notes": "x" * 4_001}, "notes"),
    ),
)
def test_a_statement_has_a_reference_and_clean_text(
    world: World, statement: dict[str, str], field: str
) -> None:
    error = refused(world, world.unknown().execution.case, world.approver, **statement)
    assert isinstance(error, InvalidInput)
    assert list(error.errors) == [field]


def test_the_longest_notes_fit(world: World) -> None:
    case = world.unknown().execution.case
    said = attest(world, case, Seen.DELIVERED, world.approver, notes="x" * 4_000)
    assert Attestation.objects.get().notes == said["notes"] == "x" * 4_000


def test_only_an_unknown_outcome_is_attested(world: World) -> None:
    (failed,) = world.failed()
    error = refused(world, failed, world.approver)
    assert isinstance(error, Conflict)
    assert (error.code, error.extra["case_state"]) == ("not_unknown", "failed")
    assert error.detail == "Not attested: this case is failed now; only an unknown outcome is attested."
    sending_now = world.claimed().execution.case
    assert "is sending now" in refused(world, sending_now, world.approver).detail


def test_what_is_settled_is_not_attested_again(world: World) -> None:
    case = world.unknown().execution.case
    world.attested(case, Seen.DELIVERED, world.approver, world.second_analyst)
    error = refused(world, case, world.analyst, seen=Seen.NOT_DELIVERED)
    assert (error.code, error.extra["case_state"]) == ("not_unknown", "delivered")


def test_a_word_about_another_attempt_than_the_unknown_one_is_refused(world: World) -> None:
    case = world.unknown().execution.case
    error = refused(world, case, world.approver, attempt_no=1)
    assert (error.code, error.detail) == (
        "not_unknown",
        "Not attested: it is attempt 2 whose outcome is unknown, not 1.",
    )
    attest(world, case, Seen.DELIVERED, world.approver, attempt_no=2)


def test_words_about_an_earlier_attempt_count_for_nothing_in_the_next(world: World) -> None:
    case = world.unknown().execution.case
    world.attested(case, Seen.NOT_DELIVERED, world.approver, world.second_analyst)
    world.unheard(world.taken(*world.approved()))
    world.attested(case, Seen.NOT_DELIVERED, world.analyst)
    case.refresh_from_db()
    assert (case.state, case.attempt_count) == (CaseState.UNKNOWN, 3)


@pytest.mark.parametrize("change", ({"seen": Seen.UNDETERMINED}, {"as_approver": False}, {"attempt_no": 3}))
def test_p11_the_database_keeps_what_was_attested(world: World, change: dict[str, Any]) -> None:
    case = world.unknown().execution.case
    world.attested(case, Seen.DELIVERED, world.approver)
    with pytest.raises(IntegrityError), transaction.atomic():
        Attestation.objects.update(**change)
    with pytest.raises(IntegrityError), transaction.atomic():
        Attestation.objects.all().delete()


# --- what comes after ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "may_have_arrived", "reason"),
    (
        (Seen.NOT_DELIVERED, False, "Two people attested that the last try did not arrive; a retry is due."),
        (
            Seen.UNDETERMINED,
            True,
            "Two people could not tell whether the last try arrived; a retry is due and may repeat it.",
        ),
    ),
)
def test_p3_the_next_approver_sees_what_was_attested_and_the_retry_runs(
    world: World, seen: Seen, may_have_arrived: bool, reason: str
) -> None:
    case = world.unknown().execution.case
    world.attested(case, seen, world.approver, world.second_analyst)
    plan = retry_plans.plan(IMMEDIATE, by=world.analyst, clock=world.clock).view
    (decision,) = plan["acknowledgement_audit_delivery_retry_plan"]["retry_decisions"]
    assert (decision["action"], decision["reason"]) == ("retry", reason)
    assert (decision["may_have_arrived"], decision["outcome_known_by"]) == (may_have_arrived, "attestation")
    (entry,) = world.approved()
    (listed,) = payload(entry.plan.approval_plan_id)["approval_decisions"]
    assert (listed["may_have_arrived"], listed["outcome_known_by"]) == (may_have_arrived, "attestation")
    assert records.load(entry.manifest)["previous"] == {
        "attempt_no": 2,
        "attempt_id": Attempt.objects.get(number=2).attempt_id,
        "outcome": "failed",
        "failure_class": "",
        "may_have_arrived": may_have_arrived,
        "known_by": "attestation",
    }
    (done,) = world.ran().outcome.recorded
    case.refresh_from_db()
    assert (done.execution.attempt_no, case.state) == (3, CaseState.DELIVERED)


def closed_as_resolved(world: World, reference: str) -> dict[str, Any]:
    """The recovery, closed with this reference; the closure's document."""
    playbook = world.playbook()
    with pytest.raises(DomainError) as refusal:
        world.closed(playbook, "webhook", ("gordackdeliveryreconcile-0000000000000000",))
    assert list(refusal.value.errors) == ["verification_refs"]
    draft = world.closed(playbook, "webhook", (reference,))
    assert Recovery.objects.get().state == RecoveryState.RESOLVED
    closure = draft.view["connector_recovery_closure"]
    assert closure["closure_state"] == ClosureState.RESOLVED
    assert reference in {one["id"] for one in draft.view["references"]}
    return closure


@pytest.mark.parametrize("by", ("execution", "reconciliation"))
def test_p23_what_was_attested_as_delivered_closes_the_recovery(world: World, by: str) -> None:
    execution = world.unknown().execution
    world.attested(execution.case, Seen.DELIVERED, world.approver, world.analyst)
    settled = Record.objects.get(kind=CHAIN + SETTLED)
    reference = execution.execution_id if by == "execution" else settled.record_id
    (verified,) = closed_as_resolved(world, reference)["verified"]
    assert (verified["case"], verified["execution_id"]) == (execution.case.case_id, execution.execution_id)
    assert (verified["reconciliation_id"], verified["reconciliation_hash"]) == (
        settled.record_id,
        settled.digest,
    )


@pytest.mark.parametrize("how", ("attested", "late"))
def test_p23_a_first_attempt_that_turned_out_delivered_closes_the_recovery(world: World, how: str) -> None:
    case, receipts = first_unknown(world)
    if how == "attested":
        world.attested(case, Seen.DELIVERED, world.approver, world.second_analyst)
    else:
        deliveries.record_first_attempts([case], receipts, by=world.analyst, clock=world.clock)
    settled = Record.objects.get(kind=CHAIN + "reconciliation")
    (verified,) = closed_as_resolved(world, settled.record_id)["verified"]
    assert (verified["case"], verified["state"]) == (case.case_id, "delivered")
    assert (verified["attempt_id"], verified["execution_id"]) == ("", "")
    assert (verified["reconciliation_id"], verified["reconciliation_hash"]) == (
        settled.record_id,
        settled.digest,
    )


def test_what_was_attested_as_not_delivered_proves_nothing(world: World) -> None:
    case = world.unknown().execution.case
    world.attested(case, Seen.NOT_DELIVERED, world.approver, world.analyst)
    settled = Record.objects.get(kind=CHAIN + SETTLED).record_id
    with pytest.raises(DomainError) as unsettled:
        world.closed(world.playbook(), "webhook", (settled,))
    assert unsettled.value.errors.keys() == {"cases", "verification_refs"}
    world.approved()
    world.ran()
    with pytest.raises(DomainError) as unproved:
        world.closed(world.playbook(), "webhook", (settled,))
    assert unproved.value.errors.keys() == {"verification_refs"}


# --- late answers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "status"), ((Seen.DELIVERED, 200), *((seen, 503) for seen in Seen)), ids=str
)
def test_p3_an_answer_after_people_settled_it_is_kept_and_moves_nothing(
    world: World, seen: Seen, status: int
) -> None:
    taken = world.unknown()
    world.attested(taken.execution.case, seen, world.approver, world.analyst)
    states = list(Case.objects.values()), list(Execution.objects.values())
    world.receiver.behave("/webhook", status=status)
    receipt = answered(taken)
    with appended() as kinds:
        assert outcomes.record([(taken.execution.pk, receipt)], clock=world.clock) == []
    assert kinds == [SETTLED]
    assert (list(Case.objects.values()), list(Execution.objects.values())) == states
    said = payload(Record.objects.filter(kind=CHAIN + SETTLED).latest("index").record_id)
    assert (said["source"], said["status_code"]) == ("late_answer", status)
    assert said["outcome"] == ("delivered" if status == 200 else "failed")
    # It is kept once, and nobody else's receipt is.
    for again in (receipt, replace(receipt, token="0" * 32)):
        with appended() as kinds, pytest.raises(StaleState):
            outcomes.record([(taken.execution.pk, again)], clock=world.clock)
        assert kinds == []


@pytest.mark.parametrize("seen", (Seen.NOT_DELIVERED, Seen.UNDETERMINED))
def test_w05_a_late_success_settles_the_case_whatever_was_attested(world: World, seen: Seen) -> None:
    """People said that nothing arrived and the next try was approved; it had arrived: nothing is sent again."""
    taken = world.unknown()
    case = taken.execution.case
    world.attested(case, seen, world.approver, world.analyst)
    (entry,) = world.approved()
    receipt = answered(taken)
    with appended() as kinds:
        outcomes.record([(taken.execution.pk, receipt)], clock=world.clock)
    assert kinds == [SETTLED, "retry-execution-cancellation"]
    case.refresh_from_db()
    taken.execution.refresh_from_db()
    entry.refresh_from_db()
    assert (case.state, taken.execution.state) == (CaseState.DELIVERED, ExecutionState.DELIVERED)
    assert case.settled_at is not None
    assert (entry.state, entry.decision.state) == (EntryState.CANCELLED, DecisionState.CLOSED)
    before = len(world.receiver.log)
    assert world.ran().entries == []
    assert len(world.receiver.log) == before
    # The receipt is recorded once.
    with pytest.raises(StaleState):
        outcomes.record([(taken.execution.pk, receipt)], clock=world.clock)


def test_w05_a_try_that_fails_after_an_earlier_one_arrived_leaves_the_case_settled(world: World) -> None:
    taken = world.unknown()
    case = taken.execution.case
    world.attested(case, Seen.UNDETERMINED, world.approver, world.analyst)
    following = world.taken(*world.approved())
    outcomes.record([(taken.execution.pk, answered(taken))], clock=world.clock)
    case.refresh_from_db()
    assert case.state == CaseState.SENDING
    world.receiver.behave("/webhook", status=503)
    (done,) = outcomes.record([(following.execution.pk, answered(following))], clock=world.clock)
    assert not done.receipt.delivered
    case.refresh_from_db()
    assert (case.state, case.attempt_count) == (CaseState.DELIVERED, 3)


@pytest.mark.parametrize("ends", ("not_sent", "attested"))
def test_w05_whatever_comes_of_the_next_try_an_arrival_settles_the_case(world: World, ends: str) -> None:
    """The late success of attempt 2 came while attempt 3 was under way; nothing is sent a fourth time."""
    taken = world.unknown()
    case = taken.execution.case
    world.attested(case, Seen.NOT_DELIVERED, world.approver, world.analyst)
    following = world.taken(*world.approved())
    outcomes.record([(taken.execution.pk, answered(taken))], clock=world.clock)
    taken.execution.refresh_from_db()
    assert taken.execution.state == ExecutionState.DELIVERED
    if ends == "not_sent":
        nothing_left = sending.misconfigured(
            following.spec.token, case.connector, Misconfigured("url", "nowhere")
        )
        outcomes.record([(following.execution.pk, nothing_left)], clock=world.clock)
    else:
        world.unheard(following)
        world.attested(case, Seen.NOT_DELIVERED, world.approver, world.analyst)
    case.refresh_from_db()
    assert (case.state, case.settled_at is not None) == (CaseState.DELIVERED, True)
    assert not ApprovalEntry.objects.filter(case=case, state__in=OPEN_ENTRY_STATES).exists()
    assert not case.retry_decisions.filter(state=DecisionState.OPEN).exists()
    before = len(world.receiver.log)
    assert world.ran().entries == []
    assert len(world.receiver.log) == before


def test_p3_an_answer_that_comes_while_the_next_try_is_under_way_touches_only_its_own(world: World) -> None:
    taken = world.unknown()
    case = taken.execution.case
    world.attested(case, Seen.UNDETERMINED, world.approver, world.analyst)
    following = world.taken(*world.approved())
    receipt = answered(taken)
    assert outcomes.record([(taken.execution.pk, receipt)], clock=world.clock) == []
    case.refresh_from_db()
    assert (case.state, case.lease_token) == (CaseState.SENDING, following.spec.token)
    (done,) = outcomes.record([(following.execution.pk, answered(following))], clock=world.clock)
    assert done.receipt.delivered
    case.refresh_from_db()
    assert (case.state, case.attempt_count) == (CaseState.DELIVERED, 3)


@pytest.mark.parametrize("seen", (Seen.DELIVERED, Seen.NOT_DELIVERED))
def test_p3_a_late_first_answer_after_people_settled_it_is_kept(world: World, seen: Seen) -> None:
    case, receipts = first_unknown(world)
    world.attested(case, seen, world.approver, world.second_analyst)
    with appended() as kinds:
        deliveries.record_first_attempts([case], receipts, by=world.analyst, clock=world.clock)
    assert kinds == ["release-connector-delivery", "reconciliation"]
    settled = Case.objects.get()
    assert (settled.state, settled.attempt_count) == (CaseState.DELIVERED, 1)
    (attested, late) = attempts.reconciliations(Attempt.objects.all())[Attempt.objects.get().pk]
    assert (attested.source, late.source, late.outcome) == ("attestation", "late_answer", Outcome.DELIVERED)
    with appended() as kinds, pytest.raises(StaleState):
        deliveries.record_first_attempts([case], receipts, by=world.analyst, clock=world.clock)
    assert kinds == []


def test_p3_a_late_first_answer_is_not_taken_for_that_of_the_retry_under_way(world: World) -> None:
    case, receipts = first_unknown(world)
    world.attested(case, Seen.NOT_DELIVERED, world.approver, world.second_analyst)
    following = world.taken(*world.approved())
    deliveries.record_first_attempts([case], receipts, by=world.analyst, clock=world.clock)
    case.refresh_from_db()
    assert (case.state, case.lease_token, case.attempt_count) == (CaseState.SENDING, following.spec.token, 1)
    outcomes.record([(following.execution.pk, answered(following))], clock=world.clock)
    case.refresh_from_db()
    assert (case.state, case.attempt_count) == (CaseState.DELIVERED, 2)


def test_w05_what_a_late_first_answer_settled_takes_no_more_votes(world: World) -> None:
    """The answer belongs to the facts; the decisions follow with the worker's next round."""
    case, receipts = first_unknown(world)
    world.attested(case, Seen.NOT_DELIVERED, world.approver, world.second_analyst)
    (entry,) = world.requested()
    deliveries.record_first_attempts([case], receipts, by=world.analyst, clock=world.clock)
    with pytest.raises(Conflict) as refused:
        world.vote(entry, by=world.second_approver)
    assert refused.value.code == "settled"
    assert approvals.cancel_settled(clock=world.clock) == 1
    entry.refresh_from_db()
    assert (entry.state, entry.decision.state) == (EntryState.CANCELLED, DecisionState.CLOSED)


def test_what_is_known_never_unlearns_a_success(world: World) -> None:
    taken = world.unknown()
    world.attested(taken.execution.case, Seen.DELIVERED, world.approver, world.analyst)
    world.receiver.behave("/webhook", status=503)
    outcomes.record([(taken.execution.pk, answered(taken))], clock=world.clock)
    first, second = Attempt.objects.order_by("number")
    known = attempts.what_is_known([first, second])
    assert (known[first.pk].source, known[first.pk].outcome) == ("attempt", Outcome.FAILED)
    assert known[first.pk].record.id == first.record_id
    assert (known[second.pk].source, known[second.pk].outcome) == ("attestation", Outcome.DELIVERED)


# --- for the page -------------------------------------------------------------------------------------------------


def test_the_page_is_told_what_is_known_and_what_is_missing(world: World) -> None:
    execution = world.unknown().execution
    case = execution.case
    standing = reconciliations.standing(case)
    entry, attempt = ApprovalEntry.objects.get(), Attempt.objects.get(number=2)
    assert (standing.attempt_no, standing.attempt_id) == (2, attempt.attempt_id)
    assert (standing.execution_id, standing.sent_by) == (execution.execution_id, world.operator.username)
    assert (standing.claimed_at, standing.lease_until) == (execution.claimed_at, execution.lease_until)
    assert standing.unknown_since == attempt.completed_at > execution.lease_until
    assert standing.body_size == len(bytes(entry.body))
    key = records.load(entry.manifest)["headers"]["idempotency-key"]
    assert standing.look_for == ("idempotency key", key)
    assert (standing.words, standing.missing) == (
        [],
        [
            "Two people have to look at the receiver and say the same; nobody has yet.",
            "One of the two has to be an approver.",
        ],
    )
    said = attest(world, case, Seen.DELIVERED, world.analyst, notes="Row 4.")
    standing = reconciliations.standing(case)
    (word,) = standing.words
    assert (word.name, word.as_approver, word.seen) == (world.analyst.username, False, Seen.DELIVERED)
    assert (word.external_ref, word.notes, word.record_id) == ("INC-4471", "Row 4.", said["attestation_id"])
    assert (records.timestamp(word.at), word.counts) == (said["attested_at"], True)
    assert standing.missing == [
        "A second person has to look at the receiver and say the same.",
        "One of the two has to be an approver.",
    ]
    world.attested(case, Seen.UNDETERMINED, world.approver)
    assert reconciliations.standing(case).missing == [
        f"They contradict each other: {world.analyst.username} says delivered, "
        f"{world.approver.username} says cannot be told. Two of them have to say the same."
    ]


def test_the_page_of_a_first_attempt_has_what_there_is(world: World) -> None:
    case, _ = first_unknown(world)
    standing = reconciliations.standing(case)
    assert (standing.attempt_no, standing.execution_id, standing.sent_by) == (1, "", world.analyst.username)
    assert (standing.claimed_at, standing.lease_until) == (case.created_at, None)
    assert (standing.body_size, standing.look_for) == (None, None)


def test_the_page_costs_the_same_however_many_speak(world: World, django_assert_num_queries: Any) -> None:
    case = world.unknown().execution.case
    for seen in Seen:
        world.attested(case, seen, person(Role.ANALYST), person(Role.ANALYST))
    case = Case.objects.select_related("created_by").get(pk=case.pk)
    with django_assert_num_queries(3):
        assert len(reconciliations.standing(case).words) == 6


def test_neither_product_can_be_asked(world: World) -> None:
    (webhook,) = Connector.objects.all()
    assert reconciliations.reasons_against_asking(webhook) == [
        "webhook cannot be asked: its interface has no lookup by idempotency key."
    ]
    assert reconciliations.reasons_against_asking(Connector(key="siem", product="splunk")) == [
        "siem cannot be asked: its event collector has no lookup by idempotency key."
    ]


# --- at once ------------------------------------------------------------------------------------------------------


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_p3_two_who_attest_at_once_settle_it_once(committed: World) -> None:
    world = committed
    for _ in range(3):
        case = world.unknown().execution.case
        results = together(
            partial(world.attested, case, Seen.NOT_DELIVERED, world.approver),
            partial(world.attested, case, Seen.NOT_DELIVERED, world.second_analyst),
            partial(world.attested, case, Seen.NOT_DELIVERED, world.second_approver),
        )
        # Whichever two came first settled it; the third came too late.
        (refusal,) = [one for one in results if isinstance(one, Exception)]
        assert isinstance(refusal, Conflict)
        assert (refusal.code, Attestation.objects.filter(case=case).count()) == ("not_unknown", 2)
        case.refresh_from_db()
        assert case.state == CaseState.FAILED
        settled = Record.objects.filter(kind=CHAIN + SETTLED)
        assert [one for one in settled if case.case_id in records.load(one.body)["cases"]] == [
            settled.latest("index")
        ]
        # Out of the next round's way.
        world.approved()
        world.ran()


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_p3_a_late_answer_and_the_second_word_at_once(committed: World) -> None:
    world = committed
    for _ in range(3):
        taken = world.unknown()
        case = taken.execution.case
        world.attested(case, Seen.DELIVERED, world.approver)
        receipt = answered(taken)
        results = together(
            partial(world.attested, case, Seen.DELIVERED, world.analyst),
            partial(outcomes.record, [(taken.execution.pk, receipt)], clock=world.clock),
        )
        refusals = [one for one in results if isinstance(one, Exception)]
        assert all(isinstance(one, Conflict) and one.code == "not_unknown" for one in refusals)
        case.refresh_from_db()
        assert case.state == CaseState.DELIVERED
        attempt = Attempt.objects.get(case=case, number=2)
        sources = [known.source for known in attempts.reconciliations([attempt])[attempt.pk]]
        assert sources == (["late_answer"] if refusals else ["attestation", "late_answer"])


# --- the same about many --------------------------------------------------------------------------------------


def unknowns(world: World, count: int) -> list[Case]:
    return [world.unknown().execution.case for _ in range(count)]


def test_one_statement_is_a_record_for_each_case(world: World) -> None:
    cases = unknowns(world, 3)
    said = Statement(Seen.NOT_DELIVERED, external_ref="INC-4471", notes="nothing in their log")
    with appended() as kinds:
        one = reconciliations.attest_all(cases, said, by=world.approver, clock=world.clock)
    assert (kinds, len(one.attestations), one.settled, one.left_out) == ([ATTESTED] * 3, 3, [], [])
    assert set(Attestation.objects.values_list("external_ref", "notes")) == {
        ("INC-4471", "nothing in their log")
    }
    with appended() as kinds:
        two = reconciliations.attest_all(cases, said, by=world.second_analyst, clock=world.clock)
    assert kinds == [ATTESTED] * 3 + [SETTLED] * 3
    assert len(two.settled) == 3
    assert set(Case.objects.values_list("state", flat=True)) == {CaseState.FAILED}


def test_p3_what_you_sent_is_left_out_of_a_statement_about_many(world: World) -> None:
    mine, other = unknowns(world, 2)
    sender_of_one = Execution.objects.get(case=mine)
    assert sender_of_one.executed_by == world.operator
    analyst = world.second_analyst
    opened, _ = first_unknown(world)
    said = Statement(Seen.NOT_DELIVERED, external_ref="INC-1")
    # The first attempt went out in the analyst's name; the retries in the operator's.
    done = reconciliations.attest_all([mine, other, opened], said, by=world.analyst, clock=world.clock)
    assert (len(done.attestations), done.left_out) == (2, [opened.case_id])
    with pytest.raises(NotAllowed) as refusal:
        reconciliations.attest_all([opened], said, by=world.analyst, clock=world.clock)
    assert refusal.value.extra["cases"] == [opened.case_id]
    assert reconciliations.attest_all([opened], said, by=analyst, clock=world.clock).left_out == []


def test_a_statement_about_many_is_all_or_nothing(world: World) -> None:
    known, still = unknowns(world, 2)
    world.attested(known, Seen.DELIVERED, world.approver, world.second_analyst)
    said = Statement(Seen.DELIVERED, external_ref="INC-1")
    with appended() as kinds, pytest.raises(Conflict) as refusal:
        reconciliations.attest_all([still, known], said, by=world.approver, clock=world.clock)
    assert (kinds, refusal.value.code, refusal.value.extra["case"]) == ([], "not_unknown", known.case_id)
    assert not Attestation.objects.filter(case=still).exists()


def test_a_statement_about_many_is_about_the_try_that_was_read(world: World) -> None:
    (case,) = unknowns(world, 1)
    read = Case.objects.get(pk=case.pk)
    read.attempt_count -= 1
    said = Statement(Seen.DELIVERED, external_ref="INC-1")
    with pytest.raises(Conflict) as refusal:
        reconciliations.attest_all([read], said, by=world.approver, clock=world.clock)
    assert refusal.value.code == "not_unknown"


def test_none_and_too_many_are_no_statement(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = unknowns(world, 2)
    monkeypatch.setattr(reconciliations, "MAX_AT_ONCE", 1)
    said = Statement(Seen.DELIVERED, external_ref="INC-1")
    for some in ([], cases):
        with pytest.raises(InvalidInput) as refusal:
            reconciliations.attest_all(some, said, by=world.approver, clock=world.clock)
        assert "cases" in refusal.value.errors
    with pytest.raises(InvalidInput):
        reconciliations.attest_all(
            cases[:1], replace(said, external_ref=" "), by=world.approver, clock=world.clock
        )
    assert not Attestation.objects.exists()
