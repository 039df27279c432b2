"""A case's page: the one next action by whose turn it is, and what a refusal looks like."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from evidence.domain import configuration, heartbeats, people
from evidence.domain.clock import system_clock
from evidence.enums import CaseState, Role
from evidence.models import Case, Connector, Person, Record
from recovery.documents import APPROVAL_VOID
from recovery.domain import approvals, notices
from recovery.enums import Act, ApprovalState, EntryState
from recovery.execution import runs
from recovery.models import ApprovalEntry, Execution, Vote, WorkerRun
from tests.builders import World
from tests.recovery.desk import Desk, heading

# A case with everything on it may ask this often, however long its history is.
MOST_QUERIES = (
    28  # who read it is noted; its state is read once more, last; what holds its connector back is two
)


@pytest.fixture
def case(world: World) -> Case:
    (failed,) = world.failed()
    return failed


@pytest.fixture
def worker() -> Iterator[None]:
    """A worker that was heard of just now; what is left to it is done by ``execute_due``."""
    heartbeats.beat("worker", clock=system_clock)
    return


def test_four_people_take_a_case_through_the_chain(world: World, case: Case, worker: None) -> None:
    analyst, second, approver, operator = (
        Desk(person, case) for person in (world.analyst, world.second_analyst, world.approver, world.operator)
    )
    assert heading(analyst.page()) == "Next: Plan Audit Retry"
    analyst.send(Act.PLAN, immediate="on")
    assert heading(second.page()) == "Next: Ack Retry"
    second.send(Act.ACKNOWLEDGE, state="accepted", external_ref="CHG-789", notes="read", **second.shown())
    assert heading(analyst.page()) == "Next: Plan Retry Approval"
    analyst.send(Act.REQUEST, reason="receiver is back")
    assert heading(approver.page()) == "Next: decide on attempt 2"
    approver.send(Act.DECIDE, state="approved", reason_code="cause_fixed", **approver.shown())
    assert heading(operator.page()) == "Next: Execute Retry"
    operator.send(Act.EXECUTE, **operator.shown())
    assert heading(operator.page()) == "Executing attempt 2"
    assert 'hx-trigger="every 1s"' in operator.page()
    assert runs.execute_due(clock=system_clock) == 1
    assert heading(operator.page()) == "Nothing left to do"
    assert 'hx-trigger="every 1s"' not in operator.page()
    case.refresh_from_db()
    assert case.state == CaseState.DELIVERED
    vote = Vote.objects.get()
    assert vote.digest_presented
    assert vote.person == world.approver


def test_each_act_is_about_this_case_alone(world: World) -> None:
    world.providers = ("webhook", "second")
    from tests.builders import connector

    connector("second", world.receiver.url("/second"))
    one, other = sorted(world.failed("webhook", "second"), key=lambda case: case.case_id)
    Desk(world.analyst, one).send(Act.PLAN, immediate="on")
    assert heading(Desk(world.analyst, other).page()) == "Next: Plan Audit Retry"
    second = Desk(world.second_analyst, one)
    second.send(Act.ACKNOWLEDGE, state="accepted", **second.shown())
    Desk(world.analyst, one).send(Act.REQUEST)
    assert list(ApprovalEntry.objects.values_list("case", flat=True)) == [one.pk]


def test_not_your_turn_says_whose_it_is(world: World, case: Case) -> None:
    page = Desk(world.auditor, case).page()
    assert "An analyst’s turn" in page
    assert 'aria-disabled="true" aria-describedby="why-due"' in page
    assert "signed in as" in page


def test_who_was_told_stands_beside_whose_turn_it_is(world: World, case: Case, settings: Any) -> None:
    settings.CAVRA_BASE_URL = "https://console.example.com"
    for approver in (world.approver, world.second_approver):
        people.update(approver, by=None, clock=system_clock, email=f"{approver.username}@example.com")
    world.requested()
    notices.notice(clock=system_clock)
    notices.tell(clock=system_clock)
    assert "Told by mail to 2 people" in Desk(world.analyst, case).page()


def test_your_own_request_is_refused_and_says_why(world: World, case: Case) -> None:
    """The button is not there; who sends the form all the same is told."""
    people.grant_role(world.analyst, Role.APPROVER, by=None, clock=system_clock)
    (entry,) = world.requested()
    analyst = Desk(Person.objects.get(pk=world.analyst.pk), case)
    assert "Not decided: you asked for this." in analyst.page()
    page = analyst.send(
        Act.DECIDE, 403, state="approved", entry_id=entry.entry_id, manifest_digest=entry.manifest_digest
    )
    assert "Not decided: you" in page
    assert "data-refusal" in page
    assert not Vote.objects.exists()


def test_a_page_that_went_stale_shows_the_case_as_it_is_now(world: World, case: Case) -> None:
    world.requested()
    late = Desk(world.second_approver, case)
    shown = late.shown()
    Desk(world.approver, case).send(Act.DECIDE, state="denied", notes="not now", **shown)
    page = late.send(Act.DECIDE, 409, state="approved", **shown)
    assert f"{world.approver.username} denied this" in page
    assert heading(page) == "Next: Plan Retry Approval"


def test_a_changed_connector_voids_the_request_and_the_page_says_so(world: World, case: Case) -> None:
    world.requested()
    approver = Desk(world.approver, case)
    shown = approver.shown()
    connector = Connector.objects.get()
    connector.headers = {"x-lane": "blue"}
    configuration.save(connector, by=world.administrator, clock=system_clock)
    assert "Changed since" in approver.page()
    page = approver.send(Act.DECIDE, 409, state="approved", **shown)
    assert "what would be sent has changed" in page
    assert Record.objects.filter(kind=APPROVAL_VOID.name).count() == 1
    assert not Vote.objects.exists()
    assert heading(Desk(world.analyst, case).page()) == "Next: Plan Retry Approval"


def test_a_denial_needs_words(world: World, case: Case) -> None:
    world.requested()
    approver = Desk(world.approver, case)
    page = approver.send(Act.DECIDE, 400, state="denied", **approver.shown())
    assert "Say why you deny it" in page
    assert 'href="#decide_notes"' in page
    assert ApprovalEntry.objects.get().state == EntryState.PENDING


def test_what_was_typed_is_still_there_after_a_refusal(world: World, case: Case) -> None:
    Desk(world.analyst, case).send(Act.PLAN, immediate="on")
    page = Desk(world.analyst, case).send(
        Act.ACKNOWLEDGE, 400, state="accepted", external_ref="https://tickets.example/1", notes="my words"
    )
    assert "my words" in page
    assert "not as a URL" in page


def test_the_requester_withdraws(world: World, case: Case) -> None:
    world.requested()
    analyst = Desk(world.analyst, case)
    assert "Withdraw the request" in analyst.page()
    entry = ApprovalEntry.objects.get()
    Desk(world.second_analyst, case).send(Act.WITHDRAW, 403, entry_id=entry.entry_id)
    analyst.send(Act.WITHDRAW, entry_id=entry.entry_id, notes="wrong case")
    entry.refresh_from_db()
    assert entry.state == EntryState.WITHDRAWN
    assert heading(analyst.page()) == "Next: Plan Retry Approval"


def test_an_approval_can_be_denied_until_it_is_claimed(world: World, case: Case) -> None:
    (entry,) = world.approved()
    approver = Desk(world.second_approver, case)
    assert "Deny (revoke)" in approver.page()
    fields = {"entry_id": entry.entry_id, "manifest_digest": entry.manifest_digest}
    approver.send(Act.DECIDE, state="denied", notes="receiver is down again", **fields)
    assert not approvals.entries().filter(state=EntryState.APPROVED).exists()


def test_nothing_is_handed_to_a_worker_that_is_not_there(world: World, case: Case) -> None:
    (entry,) = world.approved()
    page = Desk(world.operator, case).send(Act.EXECUTE, 409, entry_id=entry.entry_id)
    assert "The worker is not running" in page
    assert not WorkerRun.objects.exists()


def test_only_what_was_shown_is_executed(world: World, case: Case, worker: None) -> None:
    (old,) = world.requested()
    world.vote(old, ApprovalState.DENIED)
    world.approved()
    page = Desk(world.operator, case).send(Act.EXECUTE, 409, entry_id=old.entry_id)
    assert "the request that you were shown has ended" in page
    assert not WorkerRun.objects.exists()


def test_what_cannot_be_text_is_refused(world: World, case: Case) -> None:
    client = Desk(world.analyst, case).client
    assert client.get("/console/cases/%00/").status_code == 404
    assert client.get("/console/recoveries/%00/").status_code == 404
    client.raise_request_exception = False
    moment = "0001-01-01T00:00%2B14:00"
    assert client.get(f"/console/recoveries/webhook/?outcome=mitigated&review_at={moment}").status_code < 500


def test_a_dry_run_sends_nothing(world: World, case: Case) -> None:
    (entry,) = world.approved()
    Desk(world.operator, case).send(Act.EXECUTE, entry_id=entry.entry_id, dry_run="true")
    assert list(WorkerRun.objects.values_list("dry_run", flat=True)) == [True]
    assert not Execution.objects.exists()


def test_only_an_operator_executes(world: World, case: Case, worker: None) -> None:
    (entry,) = world.approved()
    page = Desk(world.approver, case).send(Act.EXECUTE, 403, entry_id=entry.entry_id)
    assert "This needs a role that may run live" in page
    assert not WorkerRun.objects.exists()


def test_the_retry_window_is_said(world: World, case: Case) -> None:
    """By the policy's delay, not at once: approved now, executable later."""
    world.approved(policy={})
    page = Desk(world.operator, case).page()
    assert "The retry window opens at" in page
    assert "Do not wait for the retry window" in page


def test_the_stamp_tells_what_happened_since(world: World, case: Case) -> None:
    analyst = Desk(world.analyst, case)
    since = re.search(r"stamp/\?since=(\d+)", analyst.page())
    assert since
    stamp = f"{analyst.address}stamp/?since={since[1]}"
    assert "Nothing new" in analyst.client.get(stamp).content.decode()
    world.planned()
    said = analyst.client.get(stamp).content.decode()
    assert "This case changed at" in said
    assert world.analyst.username in said


def test_a_page_costs_the_same_for_a_long_history(world: World, case: Case) -> None:
    desks = [Desk(person, case) for person in (world.analyst, world.approver, world.operator, world.auditor)]

    def queries() -> list[int]:
        counts = []
        for desk in desks:
            with CaptureQueriesContext(connection) as captured:
                desk.page()
            counts.append(len(captured))
        return counts

    world.requested()
    before = queries()
    for entry in approvals.entries().filter(state=EntryState.PENDING):
        world.vote(entry, ApprovalState.DENIED)
    world.requested()
    assert queries() == before
    assert max(before) <= MOST_QUERIES, before


def test_an_unknown_outcome_is_reconciled_by_two(world: World, case: Case) -> None:
    world.approved()
    started = runs.start(runs.RunRequest(dry_run=False), by=world.operator, clock=system_clock)
    from recovery.execution import claims, outcomes
    from tests.builders import Clock

    claimed = claims.claim(started.entries[0].pk, started.run, clock=system_clock)
    assert isinstance(claimed, claims.Claimed)
    later = Clock()
    later.forward(hours=1)
    assert outcomes.expire_leases(clock=later) == 1
    analyst, approver, operator = (Desk(p, case) for p in (world.analyst, world.approver, world.operator))
    assert "We do not know whether" in analyst.page()
    analyst.send(Act.ATTEST, 400, seen="delivered", attempt_no=2)
    operator.send(Act.ATTEST, 403, seen="delivered", external_ref="INC-1", attempt_no=2)
    analyst.send(Act.ATTEST, seen="not_delivered", external_ref="INC-1", **analyst.shown())
    approver.send(Act.ATTEST, seen="not_delivered", external_ref="INC-2", attempt_no=2)
    case.refresh_from_db()
    assert case.state == CaseState.FAILED
    assert heading(analyst.page()) == "Next: Plan Audit Retry"
