"""Who could approve, and whose approval counts after an account was deactivated (P4)."""

from datetime import timedelta

import pytest
from django.db import transaction

from evidence.connectors import sender
from evidence.domain import ledger, people, records
from evidence.enums import Role
from evidence.errors import InvalidInput, NotAllowed
from evidence.models import Connector, Person
from recovery.documents import APPROVAL_RECOUNT
from recovery.domain import approval_plans, approvals, quorum, retry_plans
from recovery.domain.approvals import Ballot
from recovery.enums import ApprovalState, EntryState
from recovery.execution import claims, outcomes, runs
from recovery.execution.claims import Claimed, Passed
from recovery.execution.selection import RunRequest
from recovery.models import ApprovalEntry, EntryParty, Execution, Vote
from tests.builders import Clock, World, person
from tests.recovery.checks import appended

RECOUNT = "retry-execution-recount"


def leaves(world: World, who: Person) -> None:
    people.set_active(who, False, by=world.administrator, clock=world.clock)


def comes_back(world: World, who: Person) -> None:
    people.set_active(who, True, by=world.administrator, clock=world.clock)


def test_p4_a_deactivated_approvers_vote_counts_no_more(world: World) -> None:
    world.failed()
    (entry,) = world.approved()
    leaves(world, world.approver)
    with appended() as kinds:
        assert approvals.recount_all(clock=world.clock) == 1
    assert kinds == [RECOUNT]
    entry.refresh_from_db()
    assert (entry.state, entry.approved_at, entry.execute_by) == (EntryState.PENDING, None, None)
    assert world.ran().entries == []
    world.vote(entry, by=world.second_approver)
    assert world.ran().outcome.recorded[0].receipt.delivered


def test_p4_the_vote_does_not_come_back_with_its_person(world: World) -> None:
    world.failed()
    (entry,) = world.approved()
    leaves(world, world.approver)
    comes_back(world, world.approver)
    assert quorum.counted_votes(entry) == []
    assert approvals.recount_all(clock=world.clock) == 1
    assert world.ran().entries == []


def test_p4_the_claim_counts_again_whether_or_not_the_worker_did(world: World) -> None:
    world.failed()
    (entry,) = world.approved()
    leaves(world, world.approver)
    before = len(world.receiver.log)
    with appended() as kinds:
        (skip,) = world.ran().outcome.skipped
    assert skip.code == "approval_revoked"
    assert RECOUNT in kinds
    entry.refresh_from_db()
    assert entry.state == EntryState.PENDING
    assert len(world.receiver.log) == before


def test_enough_other_votes_keep_the_approval(world: World) -> None:
    world.failed()
    world.approved()
    leaves(world, world.second_approver)
    assert approvals.recount_all(clock=world.clock) == 0
    assert world.ran().outcome.recorded[0].receipt.delivered


def test_the_recount_names_the_votes_that_are_void(world: World) -> None:
    world.failed()
    (entry,) = world.approved()
    vote = Vote.objects.get()
    leaves(world, world.approver)
    with transaction.atomic():
        draft = approvals.recount(approvals.entries().get(pk=entry.pk), at=world.clock())
        assert draft
        ledger.append([draft])
    said = draft.view[APPROVAL_RECOUNT.payload_key]
    assert said["void_decision_ids"] == [vote.decision_id]
    assert (said["counted"], said["required_approvals"]) == (0, 1)


def test_too_few_approvers_is_said_when_it_is_asked_for(world: World) -> None:
    """Two votes are needed; of the two approvers one planned it."""
    Connector.objects.update(required_approvals=2)
    people.grant_role(world.second_approver, Role.ANALYST, by=None, clock=world.clock)
    world.failed()
    world.analyst = world.second_approver
    world.reviewed(world.planned())
    draft = approval_plans.request(by=world.second_analyst, clock=world.clock)
    (listed,) = draft.view["retry_execution_approval_plan"]["approval_decisions"]
    assert listed["action"] == "wait_for_approvers"
    assert listed["reason"].startswith("One person could approve this, 2 must")
    assert not ApprovalEntry.objects.exists()
    # A third one may, once they hold the role: not for what was asked for before.
    person(Role.APPROVER)
    again = approval_plans.request(by=world.second_analyst, clock=world.clock)
    (listed,) = again.view["retry_execution_approval_plan"]["approval_decisions"]
    assert listed["action"] == "request_approval"


def test_an_entry_keeps_who_could_have_approved_it(world: World) -> None:
    world.failed()
    (entry,) = world.requested()
    expected = sorted([world.approver.person_id, world.second_approver.person_id])
    assert entry.eligible_digest == records.digest(records.canonical(expected))


def test_a_service_account_counts_as_its_owner_among_the_approvers(world: World) -> None:
    person(Role.APPROVER, owner=world.approver)
    people_ = {one.person for one in quorum.approvers()}
    assert people_ == {world.approver, world.second_approver}


def test_whoever_got_the_role_afterwards_is_not_eligible(timed: World, clock: Clock) -> None:
    at = clock()
    found = quorum.eligible(quorum.approvers(), at - timedelta(days=1), ())
    assert found == []
    assert quorum.eligible(quorum.approvers(), at, {timed.approver.pk}) == [timed.second_approver]


def test_a_denial_says_why(world: World) -> None:
    world.failed()
    (entry,) = world.requested()
    with pytest.raises(InvalidInput) as refused:
        approvals.decide(entry, Ballot(state=ApprovalState.DENIED), by=world.approver, clock=world.clock)
    assert refused.value.errors == {"notes": ["Say why."]}
    assert not Vote.objects.exists()


def test_a_vote_keeps_how_its_account_had_signed_in(world: World) -> None:
    world.failed()
    (entry,) = world.requested()
    ballot = Ballot(
        state=ApprovalState.APPROVED,
        reason_code="cause_fixed",
        authenticated_by="password",
        authenticated_at=world.clock(),
    )
    draft = approvals.decide(entry, ballot, by=world.approver, clock=world.clock)
    vote = Vote.objects.get()
    assert (vote.authenticated_by, vote.authenticated_at, vote.reason_code) == (
        "password",
        ballot.authenticated_at,
        "cause_fixed",
    )
    said = draft.view[draft.kind.payload_key]
    assert (said["authenticated_by"], said["authenticated_at"]) == (
        "password",
        records.timestamp(vote.authenticated_at),
    )


# --- accounts that change hands ------------------------------------------------------------------------------------


def handed_over(world: World, account: Person, to: Person) -> Person:
    people.update(account, owner=to, by=None, clock=world.clock)
    return Person.objects.get(pk=account.pk)


def test_p4_a_handover_frees_no_party(world: World) -> None:
    """Who asked owned the account: it does not vote, whoever answers for it now."""
    bot = person(Role.APPROVER, owner=world.analyst)
    world.failed()
    (entry,) = world.requested()
    bot = handed_over(world, bot, world.auditor)
    with pytest.raises(NotAllowed) as refused:
        world.vote(entry, by=bot)
    assert refused.value.code == "second_person_required"
    assert world.ran().entries == []


def test_p4_one_account_is_one_vote_whoever_answers_for_it(world: World) -> None:
    Connector.objects.update(required_approvals=2)
    bot = person(Role.APPROVER, owner=world.auditor)
    world.failed()
    (entry,) = world.requested()
    world.vote(entry, by=bot)
    bot = handed_over(world, bot, world.operator)
    with pytest.raises(NotAllowed) as refused:
        world.vote(entry, by=bot)
    assert "somebody else answered for it" in refused.value.detail
    entry.refresh_from_db()
    assert entry.state == EntryState.PENDING


# --- parts that come after the vote --------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ("plan", "ask"))
def test_p4_who_approved_does_not_become_a_party_by_listing_it_again(world: World, act: str) -> None:
    """What they approved is what it was: neither plan nor request changes an open entry."""
    Connector.objects.update(required_approvals=2)
    people.grant_role(world.approver, Role.ANALYST, by=None, clock=world.clock)
    world.failed()
    (entry,) = world.requested()
    world.vote(entry)
    digest = entry.manifest_digest
    if act == "plan":
        retry_plans.plan({}, by=world.approver, clock=world.clock)
    else:
        approval_plans.request(by=world.approver, clock=world.clock)
    entry.refresh_from_db()
    assert entry.manifest_digest == digest
    assert not EntryParty.objects.filter(entry=entry, person=world.approver).exists()
    world.vote(entry, by=world.second_approver)
    assert world.ran().outcome.recorded[0].receipt.delivered


# --- what the claim was made under ---------------------------------------------------------------------------------


def test_p12_the_execution_record_names_the_votes_of_its_claim(world: World) -> None:
    """An approver who is deactivated while it is under way approved it all the same."""
    claimed = world.claimed()
    vote = Vote.objects.get()
    leaves(world, world.approver)
    world.policy(max_retry_attempts=2)
    (receipt,) = sender.shared().send_all([claimed.spec], deadline_s=5)
    (done,) = outcomes.record([(claimed.execution.pk, receipt)], clock=world.clock)
    said = done.record.view["retry_execution_record"]
    assert (said["approval_decision_id"], said["approval_decision_ids"]) == (
        vote.decision_id,
        [vote.decision_id],
    )
    assert vote.decision_id in {one["id"] for one in done.record.view["references"]}
    assert said["applied_policy"]["max_retry_attempts"] == 3


def test_p9_a_run_claims_nothing_more_once_its_operator_may_not(world: World) -> None:
    world.failed()
    world.failed()
    first, second = world.approved()
    run = runs.start(RunRequest(dry_run=False), by=world.operator, clock=world.clock).run
    assert isinstance(claims.claim(first.pk, run, clock=world.clock), Claimed)
    leaves(world, world.operator)
    assert claims.claim(second.pk, run, clock=world.clock) is Passed.ENDED
    second.refresh_from_db()
    assert (second.state, Execution.objects.count()) == (EntryState.APPROVED, 1)


def test_a_run_that_was_given_up_claims_nothing_more(world: World) -> None:
    world.failed()
    (entry,) = world.approved()
    run = runs.start(RunRequest(dry_run=False), by=world.operator, clock=world.clock).run
    assert runs.expire_leases(clock=lambda: run.lease_until + timedelta(seconds=1)) == 1
    assert claims.claim(entry.pk, run, clock=world.clock) is Passed.ENDED
    assert not Execution.objects.exists()
