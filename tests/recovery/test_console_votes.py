"""Votes in the console: signed by somebody who signed in lately, about exactly what the page showed."""

import re
from datetime import timedelta

import pytest
from django.test import Client

from evidence import signed_in
from evidence.domain import configuration, heartbeats, people, records
from evidence.domain.clock import system_clock
from evidence.enums import Role
from evidence.models import Case, Connector, Person
from recovery.console import manifest_words
from recovery.domain import approvals, retry_plans, turns
from recovery.domain.approvals import Ballot
from recovery.enums import Act, ApprovalState, EntryState, ExecutionState
from recovery.execution import claims, runs
from recovery.execution.selection import RunRequest
from recovery.models import ApprovalEntry, Execution, RetryDecision, Vote, WorkerRun
from tests.builders import IMMEDIATE, World, person
from tests.recovery.desk import Desk, heading

PASSWORD = "correct horse battery"


@pytest.fixture
def case(world: World) -> Case:
    (failed,) = world.failed()
    return failed


def signed_in_ago(desk: Desk, **ago: float) -> None:
    """The desk's session was authenticated that long ago."""
    session = desk.client.session
    session[signed_in.KEY] = {"by": "session", "at": (system_clock() - timedelta(**ago)).isoformat()}
    session.save()


def words(page: str) -> str:
    """A page as it is read: without markup, white space as one blank."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page))


def lapse(entry: ApprovalEntry) -> ApprovalEntry:
    """The entry after its time to approve ran out."""
    after = entry.approve_by + timedelta(seconds=1)
    assert approvals.expire(clock=lambda: after) == 1
    entry.refresh_from_db()
    assert entry.state == EntryState.EXPIRED
    return entry


# --- a recent sign-in ---------------------------------------------------------------------------------------------


def test_a_vote_says_how_and_when_its_person_had_signed_in(world: World, case: Case) -> None:
    world.requested()
    before = system_clock()
    approver = Desk(world.approver, case)
    assert 'type="password"' not in approver.page()
    approver.send(Act.DECIDE, state="approved", **approver.shown())
    vote = Vote.objects.get()
    assert vote.authenticated_by == "session"
    assert vote.authenticated_at is not None
    assert before <= vote.authenticated_at <= vote.decided_at


@pytest.mark.parametrize("door", ("/accounts/login/", "/admin/login/"))
def test_every_door_makes_the_session_new(world: World, door: str) -> None:
    who = world.administrator if "admin" in door else world.approver
    client = Client()
    began = system_clock()
    answer = client.post(door, {"username": who.username, "password": PASSWORD})
    assert answer.status_code == 302
    kept = client.session[signed_in.KEY]
    assert kept["by"] == "session"
    assert began.isoformat() <= kept["at"] <= system_clock().isoformat()


@pytest.mark.parametrize("state", ("approved", "deferred", "denied"))
def test_a_vote_needs_the_password_once_the_sign_in_is_old(world: World, case: Case, state: str) -> None:
    world.requested()
    approver = Desk(world.approver, case)
    signed_in_ago(approver, minutes=16)
    assert "It is 16 min since you signed in: your password, to sign this vote" in approver.page()
    typed = {"state": state, "notes": "my own words", "external_ref": "CHG-1", **approver.shown()}
    for password in ("", "wrong horse battery", PASSWORD.upper()):
        page = approver.send(Act.DECIDE, 403, **typed, password=password)
        assert ("This is not your password." if password else "Give your password to sign this.") in page
        assert 'id="decide_password_error"' in page
        assert "my own words" in page
        assert 'value="CHG-1"' in page
        assert password not in page or not password
    assert not Vote.objects.exists()
    assert ApprovalEntry.objects.get().state == EntryState.PENDING
    before = system_clock()
    approver.send(Act.DECIDE, **typed, password=PASSWORD)
    vote = Vote.objects.get()
    assert (vote.state, vote.authenticated_by) == (state, "password")
    assert vote.authenticated_at is not None
    assert vote.authenticated_at >= before
    assert approver.client.session[signed_in.KEY]["by"] == "password"


def test_a_password_counts_for_the_next_vote_as_well(world: World, case: Case) -> None:
    (entry,) = world.requested()
    approver = Desk(world.approver, case)
    signed_in_ago(approver, hours=3)
    shown = approver.shown()
    approver.send(Act.DECIDE, state="approved", password=PASSWORD, **shown)
    page = approver.page()
    assert "Deny (revoke)" in page
    assert 'type="password"' not in page
    approver.send(Act.DECIDE, state="denied", notes="not after all", **shown)
    entry.refresh_from_db()
    assert entry.state == EntryState.DENIED


@pytest.mark.parametrize(
    ("ago", "asked"),
    (({"minutes": 14}, False), ({"minutes": 16}, True), ({"minutes": -1}, False), ({"days": -1}, True)),
)
def test_fifteen_minutes_are_recent_and_a_time_ahead_is_no_way_around(
    world: World, case: Case, ago: dict[str, float], asked: bool
) -> None:
    world.requested()
    approver = Desk(world.approver, case)
    signed_in_ago(approver, **ago)
    assert ('type="password"' in approver.page()) is asked


def test_a_session_that_does_not_say_when_is_old(world: World, case: Case) -> None:
    world.requested()
    approver = Desk(world.approver, case)
    session = approver.client.session
    del session[signed_in.KEY]
    session.save()
    assert "It is not known when you signed in: your password" in approver.page()
    approver.send(Act.DECIDE, 403, state="approved", **approver.shown())
    approver.send(Act.DECIDE, state="approved", password=PASSWORD, **approver.shown())


def test_an_account_without_a_password_signs_in_again(world: World, case: Case) -> None:
    service = person(Role.APPROVER, owner=world.approver)
    world.requested()
    desk = Desk(service, case)
    signed_in_ago(desk, hours=1)
    page = desk.send(Act.DECIDE, 403, state="approved", password=PASSWORD, **desk.shown())
    assert "this account has no password. Sign in again." in page
    assert not Vote.objects.exists()


def test_other_acts_ask_for_no_password(world: World, case: Case) -> None:
    analyst = Desk(world.analyst, case)
    signed_in_ago(analyst, days=1)
    analyst.send(Act.PLAN, immediate="on")
    assert RetryDecision.objects.count() == 1


# --- what was shown -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("digest", ("", "0" * 63, "g" * 64, "0" * 64 + "0", "\u0660" * 64))
def test_a_digest_that_is_none_is_refused_by_its_field(world: World, case: Case, digest: str) -> None:
    world.requested()
    approver = Desk(world.approver, case)
    page = approver.send(
        Act.DECIDE, 400, **{**approver.shown(), "manifest_digest": digest, "state": "approved"}
    )
    assert "Manifest digest: " in page
    assert not Vote.objects.exists()


def test_what_changed_is_said_and_the_form_is_about_the_new_request(world: World, case: Case) -> None:
    """Somebody reads a request that is withdrawn and asked for again to another address."""
    (old,) = world.requested()
    approver = Desk(world.approver, case)
    read = approver.shown()
    approvals.withdraw(old, Ballot(ApprovalState.DENIED), by=world.analyst, clock=world.clock)
    row = Connector.objects.get()
    row.url = world.receiver.url("/elsewhere")
    configuration.save(row, by=world.administrator, clock=world.clock)
    (new,) = world.requested()
    page = approver.send(Act.DECIDE, 409, state="approved", notes="read it twice", **read)
    said = words(page)
    assert "This request is withdrawn and takes no more votes." in said
    assert "What is otherwise than you read it: " in said
    assert "configuration of the connector" in said
    assert "destination" in said
    assert "read it twice" in page
    shown = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page))
    assert (shown["entry_id"], shown["manifest_digest"]) == (new.entry_id, new.manifest_digest)
    assert page.index("What is otherwise than you read it") < page.index("Approve " + new.manifest_digest[:4])
    assert not Vote.objects.exists()
    approver.send(
        Act.DECIDE, state="approved", entry_id=shown["entry_id"], manifest_digest=new.manifest_digest
    )
    assert Vote.objects.get().entry == new


def test_another_digest_than_the_requests_is_a_conflict_that_names_what_changed(
    world: World, case: Case
) -> None:
    (old,) = world.requested()
    world.vote(old, ApprovalState.DENIED)
    row = Connector.objects.get()
    row.headers = {"x-lane": "blue"}
    configuration.save(row, by=world.administrator, clock=world.clock)
    (new,) = world.requested()
    approver = Desk(world.approver, case)
    page = approver.send(
        Act.DECIDE, 409, state="approved", entry_id=new.entry_id, manifest_digest=old.manifest_digest
    )
    assert "headers" in words(page).partition("What is otherwise than you read it: ")[2][:200]
    assert f'name="manifest_digest" value="{new.manifest_digest}"' in page
    assert Vote.objects.filter(entry=new).count() == 0


def test_an_answer_to_a_retry_is_about_the_decision_that_was_read(world: World, case: Case) -> None:
    world.planned()
    second = Desk(world.second_analyst, case)
    read = second.shown()
    assert set(read) == {"attempt_no", "policy_digest"}
    retry_plans.plan({}, by=world.analyst, clock=world.clock)
    page = second.send(Act.ACKNOWLEDGE, 409, state="accepted", notes="seen", **read)
    assert "Not acknowledged: the retry was planned again since you read it, now as attempt 2" in words(page)
    assert "seen" in page
    assert not RetryDecision.objects.exclude(ack_state="").exists()
    decision = RetryDecision.objects.get(state="open")
    assert f'name="policy_digest" value="{decision.policy_digest}"' in page
    second.send(Act.ACKNOWLEDGE, 400, state="accepted")
    second.send(Act.ACKNOWLEDGE, 400, state="accepted", attempt_no=2, policy_digest="x")
    second.send(Act.ACKNOWLEDGE, state="accepted", **second.shown())
    decision.refresh_from_db()
    assert decision.ack_state == "accepted"


# --- the manifest on the form -------------------------------------------------------------------------------------


def test_the_form_shows_everything_that_is_signed(world: World, case: Case) -> None:
    (entry,) = world.requested()
    page = Desk(world.approver, case).page()
    said = words(page)
    assert f"Signs {entry.manifest_digest[:12]}" in said
    assert (
        f"First retry: same bytes as the failed try, SHA-256 {case.attempts.get().body_sha256[:12]}" in said
    )
    assert "Attempt 1: failed" in said
    assert "It may have arrived." in said
    assert "the operator may lift the delay" in said
    assert "24 h left" in said or "23 h 59 min left" in said
    assert "4 h to execute, once" in said
    assert "2 people could approve this, 1 must." in said
    assert "rollback" in said.partition("Read the bytes")[2]


def test_fewer_could_approve_once_somebody_had_a_part(world: World, case: Case) -> None:
    """An approver plans the retry; then only the other one is left."""
    people.grant_role(world.second_approver, Role.ANALYST, by=None, clock=system_clock)
    planner = Person.objects.get(pk=world.second_approver.pk)
    retry_plans.plan(IMMEDIATE, by=planner, clock=world.clock)
    world.requested()
    assert "1 person could approve this, 1 must." in words(Desk(world.approver, case).page())


def test_a_later_retry_is_compared_with_the_one_before(world: World, case: Case) -> None:
    world.approved()
    world.receiver.behave("/webhook", status=503)
    world.ran()
    row = Connector.objects.get()
    row.url = world.receiver.url("/elsewhere")
    configuration.save(row, by=world.administrator, clock=world.clock)
    world.requested()
    said = words(Desk(world.approver, case).page())
    assert "Otherwise than in the last approved try: configuration of the connector, destination;" in said
    assert "same bytes as the failed try" in said
    assert "Attempt 1: failed" in said
    assert "Attempt 2: failed" in said


def test_the_same_again_is_said_to_be_the_same(world: World, case: Case) -> None:
    world.approved()
    world.receiver.behave("/webhook", status=503)
    world.ran()
    world.requested()
    assert "Same destination, credential, policy and headers as the last approved try; same bytes" in words(
        Desk(world.approver, case).page()
    )


def test_bytes_that_would_mislead_a_reader_are_escaped() -> None:
    body = '{"a": "<b>\u202etxt\u200b\x00é"}\n'.encode() + b"\xff"
    assert manifest_words.preview(body) == '{"a": "<b>\\u202etxt\\u200b\\x00é"}\n\\xff'


def test_every_field_of_a_manifest_has_a_name(world: World, case: Case) -> None:
    (entry,) = world.requested()
    fields = set(records.load(entry.manifest))
    assert fields <= set(manifest_words.FIELDS)
    # Only a restored database's manifests speak of attempts that may have been made.
    assert fields | {"possible"} >= manifest_words.OWN


# --- renew --------------------------------------------------------------------------------------------------------


def test_an_approver_renews_what_ran_out_in_one_act(world: World, case: Case) -> None:
    (entry,) = world.requested()
    lapse(entry)
    approver = Desk(world.approver, case)
    page = approver.page()
    assert heading(page) == "Next: Plan Retry Approval"
    assert "Or renew what ran out" in page
    assert "Read the bytes" in page
    queue = approver.client.get("/console/approvals/").content.decode()
    assert "Ran out, not asked for again" in queue
    assert "Read and renew" in queue
    approver.send(Act.RENEW, notes="still right", reason_code="receiver_ready", **approver.hidden("renew"))
    new = ApprovalEntry.objects.get(renews=entry)
    vote = Vote.objects.get()
    assert (new.state, vote.entry, vote.person) == (EntryState.APPROVED, new, world.approver)
    assert (vote.authenticated_by, vote.reason_code, vote.digest_presented) == (
        "session",
        "receiver_ready",
        True,
    )
    assert heading(Desk(world.operator, case).page()) == "Next: Execute Retry"
    assert "Ran out, not asked for again" not in approver.client.get("/console/approvals/").content.decode()


def test_only_who_may_vote_is_offered_to_renew(world: World, case: Case) -> None:
    (entry,) = world.requested()
    lapse(entry)
    page = Desk(world.analyst, case).page()
    assert heading(page) == "Next: Plan Retry Approval"
    assert "Or renew what ran out" not in page
    shown = {"entry_id": entry.entry_id, "manifest_digest": entry.manifest_digest}
    Desk(world.analyst, case).send(Act.RENEW, 403, **shown)
    Desk(person(Role.APPROVER), case).send(Act.RENEW, 403, **shown)
    assert not Vote.objects.exists()


def test_a_renewal_is_signed_and_about_what_was_shown(world: World, case: Case) -> None:
    (entry,) = world.requested()
    approver = Desk(world.approver, case)
    lapse(entry)
    shown = approver.hidden("renew")
    signed_in_ago(approver, minutes=20)
    page = approver.send(Act.RENEW, 403, notes="kept words", **shown)
    assert 'id="renew_password_error"' in page
    assert "kept words" in page
    page = approver.send(Act.RENEW, 409, password=PASSWORD, entry_id=entry.entry_id, manifest_digest="0" * 64)
    assert "not that of the request that ran out" in words(page)
    assert not Vote.objects.exists()
    world.requested()
    page = approver.send(Act.RENEW, 409, notes="came too late", **shown)
    assert "approval was asked for again since" in page
    assert "came too late" in page


def test_nothing_is_renewed_that_did_not_run_out(world: World, case: Case) -> None:
    (entry,) = world.requested()
    page = Desk(world.approver, case).send(
        Act.RENEW, 409, entry_id=entry.entry_id, manifest_digest=entry.manifest_digest
    )
    assert "this request is pending; only one that ran out is renewed." in page


# --- a run that waits, and one that got nowhere -------------------------------------------------------------------


@pytest.fixture
def queued(world: World, case: Case) -> WorkerRun:
    """A run that waits for a worker which was heard of just now."""
    heartbeats.beat("worker", clock=system_clock)
    world.approved()
    asked = RunRequest(dry_run=False, cases=(case.case_id,), background=True)
    return runs.start(asked, by=world.operator, clock=system_clock).run


def test_p7_a_queued_run_can_be_denied(world: World, case: Case, queued: WorkerRun) -> None:
    approver = Desk(world.second_approver, case)
    page = approver.page()
    assert heading(page) == "Executing attempt 2"
    assert "Deny (revoke)" in page
    # What is typed is never replaced: the panel about the run asks for itself alone.
    assert 'id="case">' in page
    assert 'id="running" hx-get="' + approver.address + '?part=run"' in page
    shown = approver.hidden("decide")
    approver.send(Act.DECIDE, state="denied", notes="receiver is down again", **shown)
    assert ApprovalEntry.objects.get().state == EntryState.DENIED
    assert runs.execute_due(clock=system_clock) == 1
    assert not Execution.objects.exists()
    assert heading(approver.page()) == "Next: Plan Retry Approval"


def test_p7_a_queued_run_can_be_withdrawn(world: World, case: Case, queued: WorkerRun) -> None:
    analyst = Desk(world.analyst, case)
    assert "Withdraw the request" in analyst.page()
    analyst.send(Act.WITHDRAW, **analyst.hidden("withdraw"))
    assert ApprovalEntry.objects.get().state == EntryState.WITHDRAWN
    assert runs.execute_due(clock=system_clock) == 1
    assert not Execution.objects.exists()


def test_the_panel_about_a_run_follows_it_without_the_page(
    world: World, case: Case, queued: WorkerRun
) -> None:
    approver = Desk(world.second_approver, case)
    entry = ApprovalEntry.objects.get()

    def panel() -> str:
        answer = approver.client.get(approver.address, {"part": "run"})
        assert answer.status_code == 200
        return answer.content.decode()

    assert "Waits for the worker to claim it." in panel()
    assert "<form" not in panel()
    assert queued.run_id in panel()
    runs.take(queued, clock=system_clock)
    claimed = claims.claim(entry.pk, queued, clock=system_clock)
    assert isinstance(claimed, claims.Claimed)
    assert "Claimed." in panel()
    assert 'hx-trigger="every 1s"' in panel()
    page = approver.page()
    assert heading(page) == "Sending attempt 2"
    assert "Deny (revoke)" not in page
    world.unheard(claimed)
    assert "Show the new state" in panel()
    assert "hx-trigger" not in panel()


def test_what_is_claimed_is_sending_and_what_waits_is_queued(
    world: World, case: Case, queued: WorkerRun
) -> None:
    standing = turns.standing(Case.objects.get())
    assert (standing.is_queued, standing.is_sending, standing.act, standing.place) == (True, False, None, 4)
    runs.take(queued, clock=system_clock)
    claimed = claims.claim(ApprovalEntry.objects.get().pk, queued, clock=system_clock)
    assert isinstance(claimed, claims.Claimed)
    standing = turns.standing(Case.objects.get())
    assert (standing.is_queued, standing.is_sending, standing.act, standing.place) == (False, True, None, 4)
    world.unheard(claimed)


@pytest.fixture
def unsent(world: World, case: Case) -> ApprovalEntry:
    """An approval that was run twice while nobody was at home."""
    row = Connector.objects.get()
    row.url = "http://127.0.0.1:1/nobody"
    configuration.save(row, by=world.administrator, clock=world.clock)
    (entry,) = world.approved()
    world.ran()
    world.ran()
    assert Execution.objects.filter(state=ExecutionState.NOT_SENT).count() == 2
    entry.refresh_from_db()
    return entry


def test_a_run_that_got_nowhere_is_said_and_may_be_run_again(
    world: World, case: Case, unsent: ApprovalEntry
) -> None:
    page = Desk(world.operator, case).page()
    assert heading(page) == "Next: Execute Retry"
    said = words(page)
    assert "The last run did not reach the receiver (no connection): nothing left this service" in said
    assert "the approval still stands until" in said
    for execution in Execution.objects.all():
        run = words(
            Desk(world.operator, case).client.get(f"/console/runs/{execution.run.run_id}/").content.decode()
        )
        assert "Not sent" in run
        assert "No connection; the approval was not used up." in run
    assert Client().get("/console/approvals/").status_code == 302
    queue = Desk(world.operator, case).client.get("/console/approvals/")
    assert "Approved, not executed" in queue.content.decode()


def test_an_approval_that_was_released_is_not_waiting_for_the_same_run(world: World, case: Case) -> None:
    """The run goes on with others; this one is nobody's but the next run's."""
    row = Connector.objects.get()
    row.url = "http://127.0.0.1:1/nobody"
    configuration.save(row, by=world.administrator, clock=world.clock)
    (entry,) = world.approved()
    started = world.ran()
    WorkerRun.objects.filter(pk=started.run.pk).update(
        state="running", finished_at=None, lease_until=system_clock()
    )
    standing = turns.standing(Case.objects.get(pk=case.pk))
    assert (standing.entry, standing.is_queued, standing.act) == (entry, False, Act.EXECUTE)


def test_a_request_that_ended_says_what_became_of_its_runs(
    world: World, case: Case, unsent: ApprovalEntry
) -> None:
    world.vote(unsent, ApprovalState.DENIED, by=world.second_approver)
    queue = words(Desk(world.auditor, case).client.get("/console/approvals/").content.decode())
    assert "Not sent" in queue.partition("Decided lately")[2]


# --- refused beside the next action -------------------------------------------------------------------------------


def test_a_refused_denial_keeps_its_words(world: World, case: Case) -> None:
    (entry,) = world.approved()
    approver = Desk(world.second_approver, case)
    signed_in_ago(approver, hours=2)
    page = approver.send(
        Act.DECIDE, 403, state="denied", notes="my reasons", password="wrong", **approver.hidden("decide")
    )
    assert "my reasons" in page
    assert heading(page) == "Next: Execute Retry"
    assert "This is not your password." in page
    page = approver.send(
        Act.DECIDE,
        400,
        state="denied",
        external_ref="https://x.example/1",
        notes="my reasons",
        **approver.hidden("decide"),
    )
    assert "my reasons" in page
    entry.refresh_from_db()
    assert entry.state == EntryState.APPROVED


def test_a_refused_withdrawal_keeps_its_words(world: World, case: Case) -> None:
    (entry,) = world.requested()
    analyst = Desk(world.analyst, case)
    page = analyst.send(Act.WITHDRAW, 409, entry_id="gordackretryentry-0", notes="I was wrong")
    assert "this case has no such request" in page
    assert "I was wrong" in page
    assert f'name="entry_id" value="{entry.entry_id}"' in page


def test_words_that_have_no_form_any_more_are_still_on_the_page(world: World, case: Case) -> None:
    world.requested()
    late = Desk(world.second_approver, case)
    read = late.shown()
    Desk(world.approver, case).send(Act.DECIDE, state="denied", notes="no", **read)
    page = late.send(Act.DECIDE, 409, state="approved", notes="a whole <paragraph>", **read)
    assert "You typed:" in page
    assert "a whole &lt;paragraph&gt;" in page


def test_a_case_is_never_confused_by_somebody_elses_request(world: World, case: Case) -> None:
    world.requested()
    (other,) = world.failed()
    world.requested()
    entry = ApprovalEntry.objects.get(case=other)
    shown = {"entry_id": entry.entry_id, "manifest_digest": entry.manifest_digest}
    page = Desk(world.approver, case).send(Act.DECIDE, 409, state="approved", **shown)
    assert "this case has no such request" in page
    assert "What is otherwise than you read it" not in page
    assert not Vote.objects.exists()
