"""Dispositions: two people settle a failed case without a delivery, so that nothing ends in a dead end (P8, P23)."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from evidence.connectors import sender
from evidence.domain import deliveries, people, records
from evidence.domain.deliveries import DeliveryRequest
from evidence.domain.packages import PackageFilters
from evidence.enums import CaseState, Role
from evidence.errors import Conflict, DomainError, InvalidInput, NotAllowed, NotFound
from evidence.models import Attempt, Case, Person, Record
from recovery.documents import APPROVAL_CANCELLATION, DISPOSITION, DISPOSITION_PROPOSAL
from recovery.domain import closures, dispositions, recoveries, retry_plans, turns
from recovery.domain.dispositions import Proposal
from recovery.enums import (
    ClosureState,
    DecisionState,
    DispositionKind,
    DispositionState,
    EntryState,
    ExecutionState,
    RecoveryState,
    Seen,
)
from recovery.execution import claims, outcomes, runs
from recovery.execution.claims import Claimed
from recovery.models import ApprovalEntry, Disposition, Execution, Recovery, RetryDecision
from tests.builders import IMMEDIATE, Clock, World, person
from tests.processes import together
from tests.recovery.checks import appended, behind_the_back, nobody_listens, payload

SUPERSEDED, ABANDONED = DispositionKind.SUPERSEDED_BY, DispositionKind.ABANDONED


def successor_of(world: World) -> Case:
    """A delivery of newer content to the same connector."""
    (case,) = world.delivered("webhook")
    return case


def abandoning(**fields: Any) -> Proposal:
    return Proposal(
        **{"kind": ABANDONED, "reason": "The receiver is gone.", "external_ref": "CHG-1", **fields}
    )


def superseding(case_id: str, **fields: Any) -> Proposal:
    return Proposal(
        **{"kind": SUPERSEDED, "reason": "Newer answers arrived.", "superseded_by": case_id, **fields}
    )


def refusal(act: Callable[[], object]) -> DomainError:
    """What the act is refused with; nothing is appended."""
    with appended() as kinds, pytest.raises(DomainError) as refused:
        act()
    assert kinds == []
    return refused.value


def propose(world: World, case: Case, proposal: Proposal, by: Person | None = None) -> records.Draft:
    return dispositions.propose(case, proposal, by=by or world.analyst, clock=world.clock)


# --- proposing ----------------------------------------------------------------------------------------------------


def test_a_proposal_is_recorded_and_settles_nothing(world: World) -> None:
    (case,) = world.failed()
    newer = successor_of(world)
    draft = propose(
        world, case, superseding(newer.case_id, external_ref="CHG-9", claimed_actor="The Director")
    )
    said = payload(draft.record_id)
    attempt = Attempt.objects.get(case=case)
    assert (said["disposition_kind"], said["superseded_by"]) == ("superseded_by", newer.case_id)
    assert (said["attempt_no"], said["attempt_id"]) == (1, attempt.attempt_id)
    assert (said["reason"], said["external_ref"]) == ("Newer answers arrived.", "CHG-9")
    document = records.load(draft.body)
    assert document["cases"] == [case.case_id]
    assert document["actor"]["claimed"] == "The Director"
    quoted = {one["id"] for one in document["references"]}
    delivered = Attempt.objects.get(case=newer)
    assert {attempt.record_id, delivered.record_id, newer.plan.delivery_id, case.plan.delivery_id} <= quoted
    row = Disposition.objects.get()
    assert (row.disposition_id, row.record_hash) == (draft.record_id, draft.digest)
    assert (row.superseded_by, row.state, row.proposed_by) == (newer, "proposed", world.analyst)
    case.refresh_from_db()
    assert (case.state, case.settled_at) == (CaseState.FAILED, None)
    assert dispositions.newest_of(case) == row
    assert dispositions.proposed(10) == [row]


@pytest.mark.parametrize(
    ("proposal", "field"),
    (
        (abandoning(reason="  "), "reason"),
        (abandoning(external_ref=""), "external_ref"),
        (abandoning(superseded_by="x.webhook"), "superseded_by"),
        (superseding(""), "superseded_by"),
        (abandoning(reason="a\0"), "reason"),
        (abandoning(external_ref="https://tickets.example.com/1"), "external_ref"),
        (abandoning(reason="x" * 4_001), "reason"),
    ),
)
def test_each_kind_needs_its_parts(world: World, proposal: Proposal, field: str) -> None:
    (case,) = world.failed()
    error = refusal(lambda: propose(world, case, proposal))
    assert isinstance(error, InvalidInput)
    assert list(error.errors) == [field]


def test_a_case_does_not_stand_in_its_own_place(world: World) -> None:
    (case,) = world.failed()
    error = refusal(lambda: propose(world, case, superseding(case.case_id)))
    assert isinstance(error, InvalidInput)
    assert error.errors["superseded_by"] == ["Name another case: this is the case itself."]


def test_the_successor_is_a_delivered_case_of_the_same_connector_and_not_older(two: World) -> None:
    (older,) = two.delivered("webhook")
    (case,) = two.failed("webhook")
    (elsewhere,) = two.delivered("backup")
    (failed,) = two.failed("webhook")
    unknown = refusal(lambda: propose(two, case, superseding("gordackdelivery-00.webhook")))
    assert isinstance(unknown, NotFound)
    assert (unknown.code, list(unknown.errors)) == ("case_not_found", ["superseded_by"])
    for wrong, code in (
        (older, "successor_older"),
        (elsewhere, "successor_elsewhere"),
        (failed, "successor_not_delivered"),
    ):
        error = refusal(lambda wrong=wrong: propose(two, case, superseding(wrong.case_id)))
        assert isinstance(error, Conflict)
        assert (error.code, list(error.errors)) == (code, ["superseded_by"])
        assert wrong.case_id in error.detail
    newer = successor_of(two)
    assert dispositions.successors(case) == [newer]
    propose(two, case, superseding(newer.case_id))


def test_only_a_failed_case_is_proposed_for(world: World) -> None:
    claimed = world.claimed()
    case = claimed.execution.case
    sending = refusal(lambda: propose(world, case, abandoning()))
    assert (sending.code, sending.extra["case_state"]) == ("sending", "sending")
    world.unheard(claimed)
    unknown = refusal(lambda: propose(world, case, abandoning()))
    assert unknown.code == "outcome_unknown"
    assert "two people have to attest that first" in unknown.detail
    world.attested(case, Seen.DELIVERED, world.approver, world.second_analyst)
    assert refusal(lambda: propose(world, case, abandoning())).code == "settled"


def test_what_two_people_could_not_tell_is_settled_by_a_disposition(world: World) -> None:
    case = world.unknown().execution.case
    world.attested(case, Seen.UNDETERMINED, world.approver, world.second_analyst)
    world.disposed(case)
    assert case.state == CaseState.ABANDONED


def test_one_proposal_of_a_case_is_open_at_a_time(world: World) -> None:
    (case,) = world.failed()
    first = world.proposed(case)
    again = refusal(lambda: propose(world, case, abandoning(), by=world.second_analyst))
    assert again.code == "disposition_open"
    assert world.analyst.username in again.detail
    dispositions.refuse(first, by=world.approver, clock=world.clock, notes="Not yet.")
    second = world.proposed(case)
    assert dispositions.newest_of(case) == second


def test_roles_are_asked_for(world: World) -> None:
    (case,) = world.failed()
    for who in (world.operator, world.auditor, world.administrator):
        assert refusal(lambda who=who: propose(world, case, abandoning(), by=who)).code == "role_required"
    found = world.proposed(case)
    for act in (
        lambda: dispositions.confirm(found, by=world.second_analyst, clock=world.clock),
        lambda: dispositions.refuse(found, by=world.operator, clock=world.clock, notes="no"),
        lambda: dispositions.withdraw(found, by=world.operator, clock=world.clock),
    ):
        assert refusal(act).code == "role_required"


# --- confirming ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", (SUPERSEDED, ABANDONED))
def test_confirmed_it_settles_the_case(world: World, kind: DispositionKind) -> None:
    (case,) = world.failed()
    newer = successor_of(world) if kind is SUPERSEDED else None
    found = world.proposed(case, kind, newer)
    before, sent = Attempt.objects.count(), len(world.receiver.log)
    draft = dispositions.confirm(
        found, by=world.approver, clock=world.clock, notes="Agreed.", claimed_actor="The Director"
    )
    case.refresh_from_db()
    found.refresh_from_db()
    assert (case.state, case.settled_at) == (kind.value, found.decided_at)
    assert (found.state, found.decided_by) == (DispositionState.CONFIRMED, world.approver)
    said = payload(draft.record_id)
    assert (said["disposition_state"], said["case_state"]) == ("confirmed", kind.value)
    assert (said["proposed_by"], said["decided_by"]) == (world.analyst.username, world.approver.username)
    assert (said["disposition_id"], said["disposition_hash"]) == (found.disposition_id, found.record_hash)
    assert (said["notes"], said["superseded_by"]) == ("Agreed.", newer.case_id if newer else "")
    assert dispositions.confirmed([case]) == [found]
    assert dispositions.decisions([found]) == {
        found.disposition_id: Record.objects.get(record_id=draft.record_id)
    }
    # Nothing is taken away, and nothing was sent.
    assert (Attempt.objects.count(), len(world.receiver.log)) == (before, sent)
    assert turns.standing(case).act is None


def test_what_asked_for_its_retry_ends_in_the_same_step(world: World) -> None:
    (case,) = world.failed()
    (entry,) = world.approved()
    found = world.proposed(case)
    with appended() as kinds:
        dispositions.confirm(found, by=world.second_approver, clock=world.clock)
    assert kinds == ["disposition", "retry-execution-cancellation"]
    entry.refresh_from_db()
    assert entry.state == EntryState.CANCELLED
    assert RetryDecision.objects.get().state == DecisionState.CLOSED
    cancelled = payload(Record.objects.get(kind=APPROVAL_CANCELLATION.name).record_id)
    assert (cancelled["entry_id"], cancelled["reason"]) == (entry.entry_id, "Its case is abandoned.")


def test_p2_a_run_that_waited_for_the_worker_sends_nothing_any_more(world: World) -> None:
    (case,) = world.failed()
    world.approved()
    world.ran(background=True)
    sent = len(world.receiver.log)
    world.disposed(case)
    assert runs.execute_due(clock=world.clock) == 1
    assert len(world.receiver.log) == sent
    assert Attempt.objects.count() == 1


def test_nothing_is_planned_for_it_again(world: World) -> None:
    (case,) = world.failed()
    world.disposed(case)
    draft = retry_plans.plan(IMMEDIATE, by=world.analyst, clock=world.clock)
    assert draft.view[draft.kind.payload_key]["retry_decisions"] == []


def test_a_case_whose_tries_are_used_up_has_this_way_out(world: World) -> None:
    world.policy(max_retry_attempts=1)
    (case,) = world.failed()
    world.planned()
    assert turns.standing(case).act is None
    assert turns.standing(case).decision.suppressed
    world.disposed(case)
    assert case.state == CaseState.ABANDONED


# --- by two persons -----------------------------------------------------------------------------------------------


def own_proposal(world: World) -> tuple[Person, Person]:
    both = person(Role.ANALYST, Role.APPROVER)
    return both, both


def own_service_account(world: World) -> tuple[Person, Person]:
    """Through a service account that the approver owns."""
    return person(Role.ANALYST, owner=world.approver), world.approver


def through_own_service_account(world: World) -> tuple[Person, Person]:
    """By the proposer's own service account."""
    both = person(Role.ANALYST, Role.APPROVER)
    return both, person(Role.APPROVER, owner=both)


def handed_over(world: World) -> tuple[Person, Person]:
    """Through an account that was the approver's until somebody else took it over."""
    account = person(Role.ANALYST, owner=world.approver)
    people.update(account, by=None, clock=world.clock, owner=world.second_approver)
    return Person.objects.get(pk=account.pk), world.approver


@pytest.mark.parametrize("who", (own_proposal, own_service_account, through_own_service_account, handed_over))
def test_p4_who_proposed_it_neither_confirms_nor_refuses(
    world: World, who: Callable[[World], tuple[Person, Person]]
) -> None:
    (case,) = world.failed()
    proposer, decider = who(world)
    draft = propose(world, case, abandoning(), by=proposer)
    found = dispositions.disposition_by_id(draft.record_id)
    for act in (
        lambda: dispositions.confirm(found, by=decider, clock=world.clock),
        lambda: dispositions.refuse(found, by=decider, clock=world.clock, notes="no"),
    ):
        error = refusal(act)
        assert isinstance(error, NotAllowed)
        assert error.code == "second_person_required"
        assert error.extra["reasons"] == [
            "Not decided: you proposed this disposition; another approver decides."
        ]
    others = person(Role.APPROVER)
    too_young = refusal(lambda: dispositions.confirm(found, by=others, clock=world.clock))
    assert "did not hold the approver role when this was proposed" in too_young.detail


def test_p4_a_role_that_is_as_young_as_the_proposal_does_not_count(timed: World, clock: Clock) -> None:
    (case,) = timed.failed()
    late = person()
    people.grant_role(late, Role.APPROVER, by=None, clock=clock)
    found = timed.proposed(case)
    assert refusal(lambda: dispositions.confirm(found, by=late, clock=clock)).code == "second_person_required"
    dispositions.refuse(found, by=timed.approver, clock=clock, notes="no")
    clock.forward(seconds=1)
    dispositions.confirm(timed.proposed(case), by=late, clock=clock)


@pytest.mark.tampers
def test_p4_the_database_refuses_one_person_alone(world: World) -> None:
    (case,) = world.failed()
    found = world.proposed(case)
    rows = Disposition.objects.filter(pk=found.pk)
    with pytest.raises(IntegrityError), transaction.atomic():
        rows.update(state="confirmed", decided_by=world.analyst, decided_at=world.clock())
    for change in ({"reason": "another"}, {"kind": "superseded_by"}, {"proposed_by": world.approver}):
        with pytest.raises(IntegrityError), transaction.atomic():
            rows.update(**change)
    with pytest.raises(IntegrityError), transaction.atomic():
        rows.delete()
    found.refresh_from_db()
    assert (found.state, found.reason) == ("proposed", "The receiver is gone.")


# --- refusing, withdrawing, and what happened meanwhile -------------------------------------------------------------


def test_refused_the_case_stays_as_it_is(world: World) -> None:
    (case,) = world.failed()
    found = world.proposed(case)
    silent = refusal(lambda: dispositions.refuse(found, by=world.approver, clock=world.clock, notes=" "))
    assert list(silent.errors) == ["notes"]
    draft = dispositions.refuse(found, by=world.approver, clock=world.clock, notes="Try it again first.")
    said = payload(draft.record_id)
    assert (said["disposition_state"], said["case_state"]) == ("refused", "failed")
    assert said["notes"] == "Try it again first."
    case.refresh_from_db()
    assert (case.state, case.settled_at) == (CaseState.FAILED, None)
    for act in (dispositions.confirm, dispositions.refuse, dispositions.withdraw):
        by = world.analyst if act is dispositions.withdraw else world.approver
        error = refusal(lambda act=act, by=by: act(found, by=by, clock=world.clock, notes="x"))
        assert (error.code, error.extra["disposition_state"]) == ("disposition_ended", "refused")


def test_the_proposer_alone_takes_it_back(world: World) -> None:
    (case,) = world.failed()
    found = world.proposed(case)
    error = refusal(lambda: dispositions.withdraw(found, by=world.second_analyst, clock=world.clock))
    assert (error.code, error.status) == ("proposer_required", 403)
    draft = dispositions.withdraw(found, by=world.analyst, clock=world.clock)
    assert payload(draft.record_id)["disposition_state"] == "withdrawn"
    found.refresh_from_db()
    assert (found.state, found.decided_by) == (DispositionState.WITHDRAWN, world.analyst)
    assert refusal(lambda: dispositions.confirm(found, by=world.approver, clock=world.clock)).code == (
        "disposition_ended"
    )


def test_a_case_that_moved_on_is_not_settled_by_an_old_proposal(world: World) -> None:
    (case,) = world.failed()
    (entry,) = world.approved()
    found = world.proposed(case)
    claimed = world.taken(entry)
    sending = refusal(lambda: dispositions.confirm(found, by=world.approver, clock=world.clock))
    assert (sending.code, sending.status) == ("sending", 409)
    (receipt,) = sender.shared().send_all([claimed.spec], deadline_s=5)
    outcomes.record([(claimed.execution.pk, receipt)], clock=world.clock)
    case.refresh_from_db()
    assert case.state == CaseState.DELIVERED
    settled = refusal(lambda: dispositions.confirm(found, by=world.approver, clock=world.clock))
    assert (settled.code, settled.extra["case_state"]) == ("settled", "delivered")
    # No dead end: the proposal itself can be ended.
    dispositions.refuse(found, by=world.approver, clock=world.clock, notes="Delivered meanwhile.")


def test_what_was_proposed_before_another_attempt_is_not_confirmed(world: World) -> None:
    (case,) = world.failed()
    world.approved()
    found = world.proposed(case)
    world.receiver.behave("/webhook", status=503)
    world.ran()
    case.refresh_from_db()
    assert (case.state, case.attempt_count) == (CaseState.FAILED, 2)
    stale = refusal(lambda: dispositions.confirm(found, by=world.second_approver, clock=world.clock))
    assert (stale.code, stale.status) == ("disposition_stale", 409)
    assert stale.detail == (
        "Not confirmed: Another attempt was made since it was proposed; propose it again."
    )
    # No dead end: it can be ended, and proposed after the newest attempt.
    dispositions.withdraw(found, by=world.analyst, clock=world.clock)
    again = world.proposed(case)
    dispositions.confirm(again, by=world.second_approver, clock=world.clock)
    case.refresh_from_db()
    assert case.state == CaseState.ABANDONED


def test_a_try_of_which_nothing_left_makes_no_proposal_stale(world: World) -> None:
    (case,) = world.failed()
    nobody_listens()
    world.approved()
    found = world.proposed(case)
    world.ran()
    assert Execution.objects.get().state == ExecutionState.NOT_SENT
    dispositions.confirm(found, by=world.second_approver, clock=world.clock)
    case.refresh_from_db()
    assert case.state == CaseState.ABANDONED


@pytest.mark.tampers
def test_a_proposal_that_nobody_can_read_any_more_is_not_confirmed(world: World) -> None:
    (case,) = world.failed()
    found = world.proposed(case)
    record = Record.objects.filter(record_id=found.disposition_id)
    behind_the_back(lambda: record.update(body=None))
    stale = refusal(lambda: dispositions.confirm(found, by=world.approver, clock=world.clock))
    assert stale.code == "disposition_stale"
    assert "cannot be read any more" in stale.detail
    dispositions.refuse(found, by=world.approver, clock=world.clock, notes="Say it again.")


def test_a_late_answer_is_recorded_and_does_not_undo_it(timed: World, clock: Clock) -> None:
    timed.failed()
    (entry,) = timed.approved()
    run = timed.ran(background=True).run
    runs.take(run, clock=clock)
    claimed = claims.claim(entry.pk, run, clock=clock)
    assert isinstance(claimed, Claimed)
    (receipt,) = sender.shared().send_all([claimed.spec], deadline_s=5)
    timed.unheard(claimed)
    clock.at = claimed.execution.lease_until + timedelta(seconds=2)
    case = claimed.execution.case
    timed.attested(case, Seen.NOT_DELIVERED, timed.approver, timed.second_analyst)
    timed.disposed(case)
    outcomes.record([(claimed.execution.pk, receipt)], clock=clock)
    case.refresh_from_db()
    assert case.state == CaseState.ABANDONED


# --- what it means elsewhere --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", (SUPERSEDED, ABANDONED))
def test_p1_the_same_content_does_not_go_there_again(world: World, kind: DispositionKind) -> None:
    (case,) = world.failed()
    newer = successor_of(world) if kind is SUPERSEDED else None
    request = DeliveryRequest(filters=PackageFilters())

    def again() -> object:
        return deliveries.open_plan(
            case.package, [case.connector], request, by=world.analyst, clock=world.clock
        )

    assert refusal(again).code == "delivery_unsettled"
    world.disposed(case, kind, newer)
    error = refusal(again)
    word = "superseded" if kind is SUPERSEDED else "abandoned"
    assert (error.code, error.extra["case"]) == (f"delivery_{word}", case.case_id)
    assert error.detail == (
        f"Not sent: two people settled the same content as {word}, {case.case_id}; "
        "it does not go to that connector again."
    )
    assert error.extra["held"] == [{"provider": "webhook", "case": case.case_id, "code": f"delivery_{word}"}]


def test_p1_beside_an_unsettled_case_a_settled_one_is_said_as_what_it_is(two: World) -> None:
    one, other = two.failed("webhook", "backup")
    two.disposed(one)
    error = refusal(
        lambda: deliveries.open_plan(
            one.package,
            [one.connector, other.connector],
            DeliveryRequest(filters=PackageFilters()),
            by=two.analyst,
            clock=two.clock,
        )
    )
    assert (error.code, error.extra["case"]) == ("delivery_unsettled", other.case_id)
    assert f"is already an unsettled case, {other.case_id}. Work that case instead." in error.detail
    assert f"settled the same content as abandoned, {one.case_id};" in error.detail


def test_p23_a_recovery_whose_cases_were_disposed_of_is_resolved_by_them(world: World) -> None:
    (case,) = world.failed()
    playbook = world.playbook()
    found = world.disposed(case)
    decision = dispositions.decisions([found])[found.disposition_id]
    recovery = Recovery.objects.get()
    (choice,) = recoveries.verification_choices(recovery, world.second_analyst)
    assert (choice.reference, choice.case_id, choice.settled_as) == (
        found.disposition_id,
        case.case_id,
        "abandoned",
    )
    assert not choice.own
    wrong = refusal(lambda: world.closed(playbook, "webhook", ("gordackdisposition-0000000000000000",)))
    assert list(wrong.errors) == ["verification_refs"]
    draft = world.closed(playbook, "webhook", (found.disposition_id,))
    said = draft.view["connector_recovery_closure"]
    (verified,) = said["verified"]
    assert (verified["case"], verified["state"], verified["attempt_id"]) == (case.case_id, "abandoned", "")
    assert (verified["disposition_id"], verified["disposition_decision_id"]) == (
        found.disposition_id,
        decision.record_id,
    )
    assert verified["disposition_decision_hash"] == decision.digest
    quoted = {(one["kind"], one["id"]) for one in draft.view["references"]}
    assert {
        (DISPOSITION_PROPOSAL.name, found.disposition_id),
        (DISPOSITION.name, decision.record_id),
    } < quoted
    assert Recovery.objects.get().state == RecoveryState.RESOLVED


def test_p23_who_proposed_it_does_not_close_by_it(world: World) -> None:
    (case,) = world.failed()
    playbook = world.playbook()
    found = world.disposed(case)
    (choice,) = recoveries.verification_choices(Recovery.objects.get(), world.analyst)
    assert choice.own
    error = refusal(lambda: world.closed(playbook, "webhook", (found.disposition_id,), by=world.analyst))
    assert (error.code, error.status) == ("second_person_required", 403)
    assert found.disposition_id in error.detail


def test_p23_a_proposal_that_nobody_confirmed_proves_nothing(world: World) -> None:
    (case,) = world.failed()
    playbook = world.playbook()
    found = world.proposed(case)
    error = refusal(lambda: world.closed(playbook, "webhook", (found.disposition_id,)))
    assert error.code == "closure_not_earned"
    assert list(error.errors) == ["cases", "verification_refs"]
    needs = closures.requirements(
        closures.ClosureRequest(
            provider="webhook", state=ClosureState.RESOLVED, verification_refs=(found.disposition_id,)
        ),
        Recovery.objects.get(),
        world.second_analyst,
        world.clock(),
    )
    assert [need.met for need in needs] == [False, False, True]


def test_an_unknown_id_names_nothing(world: World) -> None:
    error = refusal(lambda: dispositions.disposition_by_id("gordackdisposition-0000000000000000"))
    assert (error.code, error.status) == ("disposition_not_found", 404)
    assert not ApprovalEntry.objects.exists()


# --- at once ------------------------------------------------------------------------------------------------------


def came_of(results: list[object]) -> tuple[list[object], list[str]]:
    """What succeeded, and the codes of what was refused."""
    refused = [one.code for one in results if isinstance(one, DomainError)]
    done = [one for one in results if not isinstance(one, Exception)]
    assert len(refused) + len(done) == len(results), results
    return done, refused


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_of_many_proposals_at_once_one_is_open(committed: World) -> None:
    (case,) = committed.failed()
    done, refused = came_of(together(*[lambda: committed.proposed(case)] * 6))
    assert (len(done), refused) == (1, ["disposition_open"] * 5)
    assert Disposition.objects.count() == 1


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_confirmed_refused_and_withdrawn_at_once_one_holds(committed: World) -> None:
    world = committed
    (case,) = world.failed()
    found = world.proposed(case)
    done, refused = came_of(
        together(
            lambda: dispositions.confirm(found, by=world.approver, clock=world.clock),
            lambda: dispositions.refuse(found, by=world.second_approver, clock=world.clock, notes="no"),
            lambda: dispositions.withdraw(found, by=world.analyst, clock=world.clock),
        )
    )
    assert (len(done), refused) == (1, ["disposition_ended"] * 2)
    found.refresh_from_db()
    case.refresh_from_db()
    settled = found.state == DispositionState.CONFIRMED
    assert case.state == (CaseState.ABANDONED if settled else CaseState.FAILED)


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_p2_a_case_is_executed_or_disposed_of_never_both(committed: World) -> None:
    world = committed
    (case,) = world.failed()
    world.approved()
    found = world.proposed(case)
    sent = len(world.receiver.log)
    results = together(
        world.ran, lambda: dispositions.confirm(found, by=world.second_approver, clock=world.clock)
    )
    _, refused = came_of(results)
    case.refresh_from_db()
    if case.state == CaseState.ABANDONED:
        assert (refused, len(world.receiver.log) - sent) == ([], 0)
        assert ApprovalEntry.objects.get().state == EntryState.CANCELLED
    else:
        assert (case.state, len(world.receiver.log) - sent) == (CaseState.DELIVERED, 1)
        assert refused in (["sending"], ["settled"])
