"""Processes that act on the same approvals at the same moment: each approval is one request, or none."""

from collections import Counter
from collections.abc import Callable
from itertools import cycle, islice

import pytest

from evidence.domain import configuration
from evidence.domain.clock import system_clock
from evidence.enums import CaseState, Role
from evidence.models import Attempt, Case, Connector, Person
from recovery.domain import approvals
from recovery.domain.quorum import counted_votes
from recovery.enums import ApprovalState, EntryState, ExecutionState, RunState
from recovery.models import ApprovalEntry, ApprovalPlan, Execution, Vote, WorkerRun
from tests.builders import World, person
from tests.torture.checks import Counted
from tests.torture.conftest import Size
from tests.torture.nursery import Act, Nursery
from tests.torture.report import Tally

pytestmark = [pytest.mark.race, pytest.mark.django_db(transaction=True)]

Worlds = Callable[..., World]
KEYS = ("webhook", "backup", "archive", "desk")


def failed(world: World, count: int) -> list[Case]:
    """So many failed cases, spread over the world's connectors."""
    cases: list[Case] = []
    while len(cases) < count:
        cases += world.failed(*world.providers[: count - len(cases)])
    return cases


def configured(world: World, **fields: object) -> None:
    """Every connector with these settings, set by nobody who is a party."""
    for row in Connector.objects.filter(key__in=world.providers):
        for name, value in fields.items():
            setattr(row, name, value)
        configuration.save(row, by=None, clock=system_clock)


def ran(world: World, **arguments: object) -> Act:
    return Act("run", {"by": world.operator.pk, **arguments})


def voted(entry: ApprovalEntry, by: Person, state: ApprovalState, **arguments: object) -> Act:
    return Act("vote", {"entry": entry.pk, "by": by.pk, "state": state.value, **arguments})


def states(entries: list[ApprovalEntry]) -> dict[int, str]:
    """The state of each entry by its key, as the database has it now."""
    return dict(ApprovalEntry.objects.filter(pk__in=[e.pk for e in entries]).values_list("pk", "state"))


# --- runs ---------------------------------------------------------------------------------------------------------


def test_runs_of_many_processes_send_one_request_for_each_approval(
    worlds: Worlds, nursery: Nursery, size: Size, tally: Tally
) -> None:
    world = worlds(*KEYS)
    failed(world, size.approvals)
    entries = world.approved()
    assert len(entries) == size.approvals
    for key in world.providers:
        world.receiver.behave(f"/{key}", delay_s=0.05)
    counted = Counted(world.receiver, entries)
    ended = nursery.together(*[ran(world)] * size.processes)
    returned = [one.returned for one in ended]
    requests = counted.requests()
    tally.row(
        "Race: live runs",
        processes=size.processes,
        approvals=len(entries),
        requests=requests.total(),
        most_for_one_approval=max(requests.values()),
        delivered=Case.objects.filter(state=CaseState.DELIVERED).count(),
    )
    assert set(requests.values()) == {1}
    assert Case.objects.filter(state=CaseState.DELIVERED).count() == size.approvals
    assert Execution.objects.filter(state=ExecutionState.DELIVERED).count() == size.approvals
    assert Attempt.objects.filter(number=2).count() == size.approvals
    assert WorkerRun.objects.filter(state=RunState.FINISHED).count() == size.processes
    # Every outcome is in exactly one run's answer, and no run gave anything up.
    recorded = [pk for one in returned for pk in one["recorded"]]
    assert sorted(recorded) == sorted(Execution.objects.values_list("pk", flat=True))
    assert [pk for one in returned for pk in one["left"]] == []


def test_a_claim_that_collides_with_another_row_does_not_stop_the_others_of_its_run(
    worlds: Worlds, nursery: Nursery, size: Size
) -> None:
    world = worlds(*KEYS)
    failed(world, 1)
    world.approved()
    world.ran()
    taken = Execution.objects.get().claim_id
    failed(world, size.approvals)
    entries = world.approved()
    colliding, *others = entries
    counted = Counted(world.receiver, entries)
    ended = nursery.alone(
        "run_into_a_collision", by=world.operator.pk, case=colliding.case.case_id, taken=taken
    )
    requests = counted.requests()
    assert [requests[entry.pk] for entry in others] == [1] * len(others)
    assert requests[colliding.pk] == 0
    assert len(ended.returned["recorded"]) == len(others)
    # It costs nothing: the approval stands, and the next run uses it.
    assert states(entries)[colliding.pk] == EntryState.APPROVED
    assert len(world.ran().outcome.recorded) == 1
    assert counted.requests()[colliding.pk] == 1


def test_outcomes_that_turn_out_to_be_recorded_already_do_not_stop_the_others_of_their_run(
    worlds: Worlds, nursery: Nursery, size: Size
) -> None:
    """The database was lost between a commit and its answer: what is written again is there already."""
    world = worlds(*KEYS)
    configured(world, max_concurrency=1)
    failed(world, size.approvals)
    entries = world.approved()
    counted = Counted(world.receiver, entries)
    ended = nursery.alone("run_without_an_answer_to_its_commit", by=world.operator.pk)
    assert counted.requests() == Counter({entry.pk: 1 for entry in entries})
    assert Execution.objects.filter(state=ExecutionState.DELIVERED).count() == len(entries)
    assert ended.returned["state"] == RunState.FINISHED


@pytest.mark.only("postgresql")
def test_a_case_that_another_process_keeps_locked_does_not_hold_up_the_others_of_a_run(
    worlds: Worlds, nursery: Nursery, size: Size
) -> None:
    world = worlds(*KEYS)
    failed(world, size.approvals)
    entries = world.approved()
    locked = entries[0]
    counted = Counted(world.receiver, entries)
    others = len(entries) - 1
    holder, runner = nursery.together(
        Act("hold", {"case": locked.case.pk, "until_delivered": others}),
        ran(world, after_lock=locked.case.pk),
    )
    assert holder.returned == others
    assert len(runner.returned["recorded"]) == len(entries)
    assert set(counted.requests().values()) == {1}


def test_an_approval_that_another_process_claimed_first_does_not_stop_the_others_of_a_run(
    worlds: Worlds, nursery: Nursery, size: Size
) -> None:
    world = worlds(*KEYS)
    failed(world, size.approvals)
    entries = world.approved()
    counted = Counted(world.receiver, entries)
    # Dead right after its first claim; what that used up belongs to nobody until its lease runs out.
    dead = nursery.alone("run", by=world.operator.pk, dies="after the claim", lease_s=0.5)
    assert dead.signal == 9
    (gone,) = Execution.objects.values_list("entry", flat=True)
    ended = nursery.alone("run", by=world.operator.pk)
    assert len(ended.returned["recorded"]) == len(entries) - 1
    assert counted.requests() == Counter({entry.pk: int(entry.pk != gone) for entry in entries})
    nursery.alone("work", later_s=2.0)


# --- votes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quorum", (2, 3))
def test_votes_cast_at_once_approve_with_enough_people_and_never_with_fewer(
    worlds: Worlds, nursery: Nursery, size: Size, tally: Tally, quorum: int
) -> None:
    """Exactly as many votes as the quorum, so that one which does not see the others leaves its entry pending.

    Every second entry gets as many votes, but two of them are the same person's.
    """
    world = worlds(*KEYS)
    configured(world, required_approvals=quorum)
    approvers = [person(Role.APPROVER) for _ in range(quorum)]
    failed(world, max(2, size.processes // quorum))
    entries = world.requested()
    enough, too_few = entries[::2], entries[1::2]
    votes = [voted(entry, by, ApprovalState.APPROVED) for entry in enough for by in approvers]
    votes += [
        voted(entry, by, ApprovalState.APPROVED)
        for entry in too_few
        for by in islice(cycle(approvers[:-1]), quorum)
    ]
    ended = nursery.together(*votes)
    refused = Counter(one.refused for one in ended)
    now = states(entries)
    tally.row(
        "Race: votes",
        quorum=quorum,
        processes=len(votes),
        entries_with_enough=len(enough),
        of_them_approved=sum(now[entry.pk] == EntryState.APPROVED for entry in enough),
        entries_with_too_few=len(too_few),
        of_these_approved=sum(now[entry.pk] == EntryState.APPROVED for entry in too_few),
    )
    assert {now[entry.pk] for entry in enough} == {EntryState.APPROVED}
    assert {now[entry.pk] for entry in too_few} == {EntryState.PENDING}
    assert refused == {"": len(votes) - len(too_few), "already_decided": len(too_few)}
    for entry in approvals.entries():
        people = [vote.person_id for vote in counted_votes(entry)]
        assert len(people) == len(set(people)) == quorum - (entry in too_few)


def test_an_approval_and_a_denial_at_once_end_denied_and_nothing_is_sent(
    worlds: Worlds, nursery: Nursery, size: Size, tally: Tally
) -> None:
    world = worlds(*KEYS)
    failed(world, size.processes // 2)
    entries = world.requested()
    counted = Counted(world.receiver, entries)
    ended = nursery.together(
        *(voted(entry, world.approver, ApprovalState.APPROVED) for entry in entries),
        *(voted(entry, world.second_approver, ApprovalState.DENIED) for entry in entries),
    )
    approving, denying = ended[: len(entries)], ended[len(entries) :]
    too_late = sum(one.refused == "entry_ended" for one in approving)
    tally.row(
        "Race: approve against deny",
        entries=len(entries),
        approved_then_denied=len(entries) - too_late,
        denied_before_the_approval=too_late,
        denied=sum(state == EntryState.DENIED for state in states(entries).values()),
    )
    assert {one.refused for one in approving} <= {"", "entry_ended"}
    assert {one.refused for one in denying} == {""}
    assert set(states(entries).values()) == {EntryState.DENIED}
    # An approval that came too late was not written down as a vote.
    assert Vote.objects.filter(state=ApprovalState.APPROVED).count() == len(entries) - too_late
    assert world.ran().entries == []
    assert counted.requests().total() == 0


def test_a_claim_and_a_revocation_at_once_either_send_or_revoke_and_never_both(
    worlds: Worlds, nursery: Nursery, size: Size, tally: Tally
) -> None:
    """A run claims from the front of the queue while approvals are revoked from its end, one for each claim.

    It begins behind the first revocation, so that there is one before all are claimed. Half of them are denied by
    an approver and half withdrawn by who asked. The connectors take one request at a time, so that the run is never
    through at once.
    """
    world = worlds(*KEYS)
    configured(world, max_concurrency=1)
    failed(world, max(size.approvals, size.processes // 2))
    entries = world.approved()
    for key in world.providers:
        world.receiver.behave(f"/{key}", delay_s=0.05)
    counted = Counted(world.receiver, entries)
    from_the_end = entries[::-1]
    revocations = [
        voted(
            entry, (world.second_approver, world.analyst)[turn % 2], ApprovalState.DENIED, after_claims=turn
        )
        for turn, entry in enumerate(from_the_end)
    ]
    *revoking, running = nursery.together(*revocations, ran(world, after_revocation=True))
    now, requests = states(entries), counted.requests()
    refused = {entry.pk for entry, one in zip(from_the_end, revoking, strict=True) if one.refused}
    sent = {pk for pk, count in requests.items() if count}
    tally.row(
        "Race: claim against revoke",
        approvals=len(entries),
        sent_and_the_revocation_refused=len(sent & refused),
        revoked_and_nothing_sent=len(now.keys() - sent - refused),
        both=len(sent - refused),
        neither=len(refused - sent),
    )
    assert sent == refused
    assert {requests[pk] for pk in sent} == {1}
    assert {now[pk] for pk in sent} == {EntryState.CLAIMED}
    assert {now[pk] for pk in now.keys() - sent} <= {EntryState.DENIED, EntryState.WITHDRAWN}
    assert len(running.returned["recorded"]) == len(sent)
    assert 0 < len(sent) < len(entries), "they never met"


def test_approval_plans_at_once_ask_once_for_each_case(
    worlds: Worlds, nursery: Nursery, size: Size, tally: Tally
) -> None:
    world = worlds(*KEYS)
    cases = failed(world, size.approvals)
    world.reviewed(world.planned())
    askers = [world.analyst, world.second_analyst]
    ended = nursery.together(*(Act("ask", {"by": by.pk}) for by in islice(cycle(askers), size.processes)))
    plans = ApprovalPlan.objects.filter(approval_plan_id__in=[one.returned for one in ended])
    entries = ApprovalEntry.objects.all()
    tally.row(
        "Race: approval plans",
        processes=size.processes,
        cases=len(cases),
        plans=plans.count(),
        open_entries=entries.filter(state=EntryState.PENDING).count(),
    )
    assert plans.count() == size.processes
    assert sorted(entries.values_list("case", flat=True)) == sorted(case.pk for case in cases)
    assert set(entries.values_list("state", flat=True)) == {EntryState.PENDING}
    # Each plan lists the same one entry for each case, whoever asked first.
    for plan in plans:
        assert sorted(plan.items.values_list("entry", flat=True)) == sorted(
            entries.values_list("pk", flat=True)
        )
