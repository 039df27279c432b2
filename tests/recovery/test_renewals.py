"""Renewing what ran out: the same content, new clocks, one act of an approver (P6)."""

import pytest

from evidence.domain import configuration, people, records
from evidence.enums import Role
from evidence.errors import Conflict, NotAllowed
from evidence.models import Connector
from recovery.domain import approvals, manifests, renewals, retry_plans
from recovery.domain.approvals import Ballot
from recovery.enums import ApprovalState, EntryState
from recovery.errors import ManifestChanged
from recovery.models import ApprovalEntry, EntryParty
from tests.builders import IMMEDIATE, Clock, World
from tests.recovery.checks import appended

YES = Ballot(state=ApprovalState.APPROVED, notes="still right")


def lapsed(world: World, clock: Clock) -> ApprovalEntry:
    """An approved request whose time to execute ran out."""
    world.failed()
    (entry,) = world.approved()
    clock.forward(hours=5)
    assert approvals.expire(clock=clock) == 1
    entry.refresh_from_db()
    assert entry.state == EntryState.EXPIRED
    return entry


def renewed(world: World, entry: ApprovalEntry, **more: object) -> ApprovalEntry:
    renewals.renew([entry], YES, by=more.get("by", world.second_approver), clock=world.clock)  # type: ignore[arg-type]
    return approvals.entries().get(renews=entry)


def test_p6_a_lapsed_approval_is_renewed_with_one_act(timed: World, clock: Clock) -> None:
    old = lapsed(timed, clock)
    with appended() as kinds:
        new = renewed(timed, old)
    assert kinds == ["retry-execution-approval-plan", "retry-execution-approval-decision"]
    assert new.state == EntryState.APPROVED
    assert bytes(new.body) == bytes(old.body)
    differs = manifests.differences(records.load(old.manifest), records.load(new.manifest))
    assert set(differs) <= {"approve_by", "execute_within_minutes"}
    assert (new.requested_by, new.decision) == (old.requested_by, old.decision)
    parties = set(EntryParty.objects.filter(entry=old).values_list("person", "part"))
    assert set(EntryParty.objects.filter(entry=new).values_list("person", "part")) >= parties
    assert timed.ran(policy=IMMEDIATE).outcome.recorded[0].receipt.delivered


def test_the_same_approver_may_renew_what_they_approved(timed: World, clock: Clock) -> None:
    assert renewed(timed, lapsed(timed, clock), by=timed.approver).state == EntryState.APPROVED


def test_with_two_votes_needed_the_renewal_is_the_first(timed: World, clock: Clock) -> None:
    Connector.objects.update(required_approvals=2)
    timed.failed()
    (entry,) = timed.requested()
    clock.forward(days=2)
    approvals.expire(clock=clock)
    new = renewed(timed, entry, by=timed.approver)
    assert new.state == EntryState.PENDING
    timed.vote(new, by=timed.second_approver)
    assert timed.ran().outcome.recorded[0].receipt.delivered


def test_p4_who_had_a_part_renews_nothing(timed: World, clock: Clock) -> None:
    people.grant_role(timed.analyst, Role.APPROVER, by=None, clock=clock)
    clock.forward(minutes=1)
    old = lapsed(timed, clock)
    with pytest.raises(NotAllowed) as refused:
        renewed(timed, old, by=timed.analyst)
    assert refused.value.code == "second_person_required"
    assert ApprovalEntry.objects.count() == 1


@pytest.mark.parametrize("state", (ApprovalState.DENIED, ApprovalState.APPROVED))
def test_only_what_ran_out_is_renewed(timed: World, clock: Clock, state: ApprovalState) -> None:
    timed.failed()
    (entry,) = timed.requested()
    timed.vote(entry, state)
    with pytest.raises(Conflict) as refused:
        renewed(timed, entry)
    assert refused.value.code == "not_renewable"


def test_p5_what_changed_since_is_not_renewed(timed: World, clock: Clock) -> None:
    old = lapsed(timed, clock)
    row = Connector.objects.get()
    row.url = timed.receiver.url("/elsewhere")
    configuration.save(row, by=timed.administrator, clock=clock)
    with appended() as kinds, pytest.raises(ManifestChanged) as refused:
        renewed(timed, old)
    assert "destination_commitment" in refused.value.detail
    assert kinds == ["retry-execution-approval-void"]
    old.refresh_from_db()
    assert (ApprovalEntry.objects.count(), old.state) == (1, EntryState.VOID)
    # For good: putting the address back revives nothing.
    row.url = timed.receiver.url("/webhook")
    configuration.save(row, by=timed.administrator, clock=clock)
    with pytest.raises(Conflict) as final:
        renewed(timed, old)
    assert final.value.code == "not_renewable"


def test_what_was_planned_again_is_asked_for_anew(timed: World, clock: Clock) -> None:
    old = lapsed(timed, clock)
    retry_plans.plan({}, by=timed.analyst, clock=clock)
    with pytest.raises(Conflict) as refused:
        renewed(timed, old)
    assert "planned again" in refused.value.detail


def test_a_renewal_of_several_is_all_or_nothing(timed: World, clock: Clock) -> None:
    timed.failed()
    timed.failed()
    first, second = timed.approved()
    timed.vote(second, ApprovalState.DENIED)
    clock.forward(hours=5)
    approvals.expire(clock=clock)
    with appended() as kinds, pytest.raises(Conflict) as refused:
        renewals.renew([first, second], YES, by=timed.second_approver, clock=clock)
    assert refused.value.extra["case"] == second.case.case_id
    assert kinds == []
    assert ApprovalEntry.objects.count() == 2


def test_what_an_approver_ended_is_not_renewed(timed: World, clock: Clock) -> None:
    """``expired`` as a word of an approver ends a request before its time; that is no running out."""
    timed.failed()
    (entry,) = timed.requested()
    timed.vote(entry, ApprovalState.EXPIRED)
    with pytest.raises(Conflict) as refused:
        renewed(timed, entry)
    assert "an approver ended this request" in refused.value.detail
    assert ApprovalEntry.objects.count() == 1


@pytest.mark.parametrize("part", ("plan", "policy"))
def test_p4_a_part_since_the_old_request_bars_as_well(timed: World, clock: Clock, part: str) -> None:
    both = timed.second_approver
    people.grant_role(both, Role.ANALYST, by=None, clock=clock)
    people.grant_role(both, Role.ADMINISTRATOR, by=None, clock=clock)
    clock.forward(minutes=1)
    old = lapsed(timed, clock)
    if part == "plan":
        retry_plans.plan(IMMEDIATE, by=both, clock=clock)
    else:
        timed.administrator = both
        timed.policy(retry_delay_minutes=20)
    with pytest.raises(NotAllowed) as refused:
        renewed(timed, old, by=both)
    assert refused.value.code == "second_person_required"


def test_a_renewal_says_which_digest_was_presented(timed: World, clock: Clock) -> None:
    old = lapsed(timed, clock)
    ballot = Ballot(state=ApprovalState.APPROVED, manifest_digest=old.manifest_digest)
    *_, vote = renewals.renew([old], ballot, by=timed.second_approver, clock=clock)
    said = vote.view[vote.kind.payload_key]
    new = ApprovalEntry.objects.get(renews=old)
    assert (said["renewed_digest"], said["manifest_digest"], said["digest_presented"]) == (
        old.manifest_digest,
        new.manifest_digest,
        True,
    )
