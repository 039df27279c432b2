"""Who is told that something waits for them: once, in few messages, without anything of the evidence (issue item 6)."""

import json
import os
import smtplib
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.core import mail
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import resolve

from evidence.connectors import sender
from evidence.domain import configuration, people
from evidence.domain.clock import system_clock
from evidence.enums import Role
from evidence.models import Attempt, Breaker, Case, Connector, LedgerHead, Person
from recovery.domain import approvals, notices, policies, retry_plans
from recovery.domain.approvals import Ballot
from recovery.domain.retry_plans import Review
from recovery.enums import ApprovalState, NoticeKind, RetryAckState
from recovery.execution import claims, outcomes, runs
from recovery.execution.claims import Claimed
from recovery.execution.selection import RunRequest
from recovery.models import ApprovalEntry, Notice
from tests.builders import Clock, World, connector, person, schedule
from tests.heads import data_of_its_own, lay_outside
from tests.processes import environment, together
from tests.receiver import Receiver

ROOT = Path(__file__).resolve().parents[2]
BASE = "https://console.example"
REQUESTED, RUNS_OUT, UNKNOWN = (
    NoticeKind.APPROVAL_REQUESTED,
    NoticeKind.APPROVAL_RUNS_OUT,
    NoticeKind.OUTCOME_UNKNOWN,
)
ANALYSTS = ["analyst@example.com", "second_analyst@example.com"]
APPROVERS = ["approver@example.com", "second_approver@example.com"]


@pytest.fixture(autouse=True)
def _address(settings: LazySettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where messages lead; and the command leaves alone the connection that a test's transaction lives on."""
    settings.CAVRA_BASE_URL = BASE
    monkeypatch.setattr("recovery.management.commands.worker.close_old_connections", lambda: None)


@pytest.fixture
def chat() -> Iterator[Receiver]:
    """A receiver of its own: what comes here is no attempt and no drill's notice."""
    made = Receiver()
    yield made
    made.stop()


@pytest.fixture
def chosen(chat: Receiver, settings: LazySettings, db: None) -> Connector:
    """A connector to the chat, chosen for notices."""
    settings.CAVRA_NOTICE_CONNECTOR = "ops_chat"
    return connector("ops_chat", chat.url("/chat"))


def with_addresses(world: World) -> World:
    """Everybody of the world can be mailed to."""
    for name in ("analyst", "second_analyst", "approver", "second_approver", "operator", "auditor"):
        people.update(getattr(world, name), by=None, clock=system_clock, email=f"{name}@example.com")
    return world


def worker() -> None:
    """What is due now, by the command."""
    call_command("worker", once=True)


def rounds(clock: Clock) -> int:
    """What a worker's round does about notices at a moment of the test's choice."""
    return notices.notice(clock=clock) + notices.tell(clock=clock)


def told(kind: NoticeKind) -> Notice:
    return Notice.objects.get(kind=kind)


def links(message: mail.EmailMessage) -> list[str]:
    return [line for line in str(message.body).splitlines() if line.startswith(BASE)]


def taken_away(world: World, entry: ApprovalEntry, clock: Clock) -> Case:
    """The entry is claimed by a process that then falls silent; its outcome is unknown."""
    run = runs.start(RunRequest(dry_run=False), by=world.operator, clock=clock).run
    claim = claims.claim(entry.pk, run, clock=clock)
    assert isinstance(claim, Claimed)
    clock.at = claim.execution.lease_until + timedelta(seconds=1)
    assert outcomes.expire_leases(clock=clock) == 1
    return Case.objects.get(pk=entry.case_id)


# --- what is told, to whom ----------------------------------------------------------------------------------------


def test_approvers_are_told_once_in_one_mail(world: World) -> None:
    with_addresses(world)
    (case,) = world.failed()
    (entry,) = world.requested()
    worker()
    (message,) = mail.outbox
    assert message.subject == "CAVRA: an approval waits for you"
    assert sorted(message.recipients()) == APPROVERS
    assert links(message) == [f"{BASE}/console/cases/{case.case_id}/"]
    assert "    webhook, 23 h 59 min left\n" in message.body
    assert "Sign in to read what would be sent." in message.body
    # Nobody sees who else was told, and no machine answers it.
    head = message.message()
    assert (head["To"], head["Bcc"], head["Auto-Submitted"]) == (
        "undisclosed-recipients:;",
        None,
        "auto-generated",
    )
    worker()
    assert len(mail.outbox) == 1
    assert [(one.kind, one.sentence) for one in notices.told_about(entry)] == [
        (REQUESTED, "Told by mail to 2 people")
    ]


def test_every_link_leads_to_a_page(world: World) -> None:
    with_addresses(world)
    world.failed()
    world.requested()
    worker()
    (link,) = links(mail.outbox[0])
    client = Client()
    client.force_login(world.approver)
    assert client.get(link.removeprefix(BASE)).status_code == 200
    assert resolve(notices.WORDINGS[UNKNOWN].page.partition("?")[0])


def test_who_had_a_part_or_voted_or_came_later_is_not_told(world: World) -> None:
    """Exactly those are told whom the rule about votes lets through, and who have not voted yet."""
    with_addresses(world)
    for one in (world.analyst, world.second_analyst):  # one asked for it, one acknowledged it
        people.grant_role(one, Role.APPROVER, by=None, clock=world.clock)
    for row in Connector.objects.all():
        row.required_approvals = 2
        configuration.save(row, by=None, clock=world.clock)
    world.failed()
    editor = person(Role.APPROVER, Role.ADMINISTRATOR)
    people.update(editor, by=None, clock=world.clock, email="editor@example.com")
    row = Connector.objects.get()
    row.index = "changed"
    configuration.save(row, by=editor, clock=world.clock)
    (entry,) = world.requested()
    late = person(Role.APPROVER)
    people.update(late, by=None, clock=world.clock, email="late@example.com")
    world.vote(entry, by=world.approver)
    worker()
    (message,) = mail.outbox
    may_vote = {
        one.email
        for one in Person.objects.filter(groups__name=Role.APPROVER)
        if not policies.reasons_against_voting(one, entry)
    }
    assert may_vote == {"approver@example.com", "second_approver@example.com"}
    assert message.recipients() == ["second_approver@example.com"]


@pytest.mark.parametrize(
    "unmade",
    (
        lambda one: people.set_active(one, False, by=None, clock=system_clock),
        lambda one: people.revoke_role(one, Role.APPROVER, by=None, clock=system_clock),
        lambda one: people.update(one, by=None, clock=system_clock, email=""),
    ),
    ids=("deactivated", "role revoked", "no address"),
)
def test_who_cannot_act_or_be_reached_is_not_told(world: World, unmade: Callable[[Person], Any]) -> None:
    with_addresses(world)
    world.failed()
    world.requested()
    unmade(world.second_approver)
    worker()
    (message,) = mail.outbox
    assert message.recipients() == ["approver@example.com"]
    assert told(REQUESTED).told == "mail to 1 person"


def test_a_service_account_is_not_told(world: World) -> None:
    robot = person(Role.APPROVER, owner=world.approver)
    people.update(robot, by=None, clock=world.clock, email="robot@example.com")
    world.failed()
    (entry,) = world.requested()
    worker()
    assert mail.outbox == []
    assert [one.sentence for one in notices.told_about(entry)] == [
        "Nobody was told: nobody with the approver role who may decide on this has an address"
    ]
    # It is over: nobody is told of it when somebody gets an address later.
    with_addresses(world)
    worker()
    assert mail.outbox == []


def test_different_people_get_different_messages(two: World) -> None:
    with_addresses(two)
    people.grant_role(two.second_approver, Role.ADMINISTRATOR, by=None, clock=two.clock)
    two.failed()
    row = Connector.objects.get(key="backup")
    row.index = "changed"
    configuration.save(row, by=Person.objects.get(pk=two.second_approver.pk), clock=two.clock)
    two.requested()
    worker()
    assert {tuple(message.recipients()): links(message)[0].rpartition(".")[2] for message in mail.outbox} == {
        ("approver@example.com",): "backup/",
        tuple(APPROVERS): "webhook/",
    }


def test_many_at_once_are_one_message(two: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with_addresses(two)
    monkeypatch.setattr(notices, "LINKS", 3)
    for _ in range(3):
        two.failed()
    assert len(two.requested()) == 6
    worker()
    (message,) = mail.outbox
    assert message.subject == "CAVRA: 6 approvals wait for you"
    assert message.body.startswith("6 retries of failed deliveries wait for approval.\n")
    assert len(set(links(message))) == 3
    assert f"and 3 more: {BASE}/console/approvals/\n" in message.body
    assert Notice.objects.exclude(told_at=None).count() == 6


def test_a_round_is_bounded_and_costs_the_same_for_one_as_for_six(two: World) -> None:
    with_addresses(two)
    costs = []
    for failures in (("webhook",), ("webhook", "backup", "webhook", "backup", "webhook", "backup")):
        for key in failures:
            two.failed(key)
        two.requested()
        with CaptureQueriesContext(connection) as asked:
            assert rounds(two.clock) == 2 * len(failures)  # type: ignore[arg-type]
        costs.append(len(asked))
    assert costs[0] == costs[1]
    assert [message.subject for message in mail.outbox] == [
        "CAVRA: an approval waits for you",
        "CAVRA: 6 approvals wait for you",
    ]
    for _ in range(2):
        two.failed()
    two.requested()
    assert [notices.notice(clock=two.clock, limit=3) for _ in range(3)] == [3, 1, 0]
    assert [notices.tell(clock=two.clock, limit=3) for _ in range(3)] == [3, 1, 0]


# --- running out --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("within", "quiet", "left"),
    ((24 * 60, 18 * 60, "5 h 59 min"), (120, 60, "59 min"), (10 * 24 * 60, 7.5 * 24 * 60, "2 days")),
    ids=("a quarter of a day", "an hour of two", "a quarter of ten days"),
)
def test_a_request_that_runs_out_is_told_again_once(
    timed: World, clock: Clock, within: int, quiet: float, left: str
) -> None:
    with_addresses(timed)
    timed.policy(approve_within_minutes=within)
    timed.failed()
    (entry,) = timed.requested()
    rounds(clock)
    clock.at = entry.approve_by - timedelta(minutes=within - quiet)
    assert rounds(clock) == 0
    clock.forward(seconds=1)
    rounds(clock)
    rounds(clock)
    assert [message.subject for message in mail.outbox] == [
        "CAVRA: an approval waits for you",
        f"CAVRA: an approval runs out in {left}",
    ]
    assert sorted(mail.outbox[1].recipients()) == APPROVERS
    assert [one.kind for one in notices.told_about(entry)] == [REQUESTED, RUNS_OUT]


def test_a_short_request_is_told_once(timed: World, clock: Clock) -> None:
    """It runs out from the beginning: two messages about it would say the same."""
    with_addresses(timed)
    timed.policy(approve_within_minutes=45)
    timed.failed()
    timed.requested()
    rounds(clock)
    clock.forward(minutes=40)
    rounds(clock)
    assert [message.subject for message in mail.outbox] == ["CAVRA: an approval runs out in 45 min"]


def test_the_first_of_several_is_the_one_that_runs_out_soonest(timed: World, clock: Clock) -> None:
    with_addresses(timed)
    for minutes in (50, 40):
        timed.policy(approve_within_minutes=minutes)
        timed.failed()
        timed.requested()
        notices.notice(clock=clock)
    notices.tell(clock=clock)
    (message,) = mail.outbox
    assert message.subject == "CAVRA: 2 approvals run out, the first in 40 min"
    assert [line for line in str(message.body).splitlines() if "left" in line] == [
        "    webhook, 40 min left",
        "    webhook, 50 min left",
    ]


# --- unknown outcomes ---------------------------------------------------------------------------------------------


def test_analysts_are_told_of_each_unknown_outcome(timed: World, clock: Clock) -> None:
    with_addresses(timed)
    timed.policy(max_retry_attempts=9)
    timed.failed()
    (entry,) = timed.approved()
    case = taken_away(timed, entry, clock)
    rounds(clock)
    rounds(clock)
    (message,) = mail.outbox
    assert message.subject == "CAVRA: the outcome of a delivery is unknown"
    assert sorted(message.recipients()) == ANALYSTS
    assert links(message) == [f"{BASE}/console/cases/{case.case_id}/"]
    assert [one.sentence for one in notices.told_about_case(case)] == ["Told by mail to 2 people"]
    assert told(UNKNOWN).subject == f"{case.case_id}#2"


def test_a_second_unknown_attempt_is_told_too(timed: World, clock: Clock) -> None:
    with_addresses(timed)
    timed.policy(max_retry_attempts=9)
    timed.failed()
    (entry,) = timed.approved()
    run = runs.start(RunRequest(dry_run=False), by=timed.operator, clock=clock).run
    claim = claims.claim(entry.pk, run, clock=clock)
    assert isinstance(claim, Claimed)
    clock.at = claim.execution.lease_until + timedelta(seconds=1)
    outcomes.expire_leases(clock=clock)
    rounds(clock)
    # The answer comes late: it failed, so it may be asked for again.
    timed.receiver.behave("/webhook", status=503)
    (receipt,) = sender.shared().send_all([claim.spec], deadline_s=5)
    outcomes.record([(claim.execution.pk, receipt)], clock=clock)
    (again,) = timed.approved()
    case = taken_away(timed, again, clock)
    rounds(clock)
    subjects = Notice.objects.filter(kind=UNKNOWN).order_by("pk").values_list("subject", flat=True)
    assert list(subjects) == [f"{case.case_id}#2", f"{case.case_id}#3"]
    assert [message.subject for message in mail.outbox] == ["CAVRA: the outcome of a delivery is unknown"] * 2


# --- what no longer waits -----------------------------------------------------------------------------------------


def ended(world: World, clock: Clock, how: str) -> ApprovalEntry:
    """A request that ended after somebody noticed it and before anybody was told."""
    world.failed()
    (entry,) = world.requested()
    assert notices.notice(clock=clock) == 1
    if how == "withdrawn":
        approvals.decide(entry, Ballot(ApprovalState.DENIED), by=world.analyst, clock=clock)
    elif how == "expired":
        clock.at = entry.approve_by
    else:
        world.vote(entry, ApprovalState(how))
    return entry


@pytest.mark.parametrize("how", ("approved", "denied", "withdrawn", "expired"))
def test_what_no_longer_waits_is_not_told(timed: World, clock: Clock, how: str) -> None:
    with_addresses(timed)
    entry = ended(timed, clock, how)
    assert notices.tell(clock=clock) == 1
    assert mail.outbox == []
    row = told(REQUESTED)
    assert (row.given_up, row.told, row.told_at) == (True, "no longer waiting", None)
    assert notices.told_about(entry) == []


def test_a_settled_case_is_not_told(timed: World, clock: Clock) -> None:
    with_addresses(timed)
    timed.failed()
    (entry,) = timed.approved()
    run = runs.start(RunRequest(dry_run=False), by=timed.operator, clock=clock).run
    claim = claims.claim(entry.pk, run, clock=clock)
    assert isinstance(claim, Claimed)
    clock.at = claim.execution.lease_until + timedelta(seconds=1)
    outcomes.expire_leases(clock=clock)
    assert notices.notice(clock=clock) == 1
    (receipt,) = sender.shared().send_all([claim.spec], deadline_s=5)
    outcomes.record([(claim.execution.pk, receipt)], clock=clock)
    assert notices.tell(clock=clock) == 1
    assert (mail.outbox, told(UNKNOWN).told) == ([], "no longer waiting")
    assert notices.told_about_case(Case.objects.get()) == []


# --- nothing of the evidence --------------------------------------------------------------------------------------


def test_no_message_holds_anything_of_the_evidence(
    timed: World, clock: Clock, chosen: Connector, chat: Receiver
) -> None:
    """Markers in everything that people write; digests, ids of requests and hosts besides."""
    with_addresses(timed)
    timed.schedule = schedule("marker-schedule", title="MARKER title", runbook_ref="MARKER:runbook")
    row = Connector.objects.get(key="webhook")
    row.title = "MARKER connector"
    configuration.save(row, by=None, clock=clock)
    timed.failed("webhook")
    plan = timed.planned()
    review = Review(
        provider="webhook", state=RetryAckState.ACCEPTED, notes="MARKER note", external_ref="MARKER:1"
    )
    retry_plans.acknowledge(plan, review, by=timed.second_analyst, clock=clock)
    (entry,) = timed.requested()
    rounds(clock)
    clock.forward(hours=23)
    rounds(clock)
    approvals.decide(
        entry, Ballot(ApprovalState.APPROVED, notes="MARKER vote"), by=timed.approver, clock=clock
    )
    taken_away(timed, approvals.entries().get(pk=entry.pk), clock)
    rounds(clock)
    assert len(mail.outbox) == len(chat.log) == 3
    said = [message.message().as_string() for message in mail.outbox]
    said += [f"{one.headers} {one.body.decode()}" for one in chat.log]
    case = entry.case
    secret = [
        "marker",
        "release-governance",
        "payments-platform",
        "head-of-release",
        "idempotency-key: ",
        entry.entry_id,
        entry.manifest_digest,
        case.content_hash,
        timed.receiver.url("").partition("//")[2],
        *(
            str(getattr(timed, name).username)
            for name in ("analyst", "second_analyst", "approver", "operator")
        ),
    ]
    for text in said:
        found = [word for word in secret if word.casefold() in text.casefold().replace(chat.url(""), "")]
        assert found == []


# --- through a connector ------------------------------------------------------------------------------------------


def test_the_chosen_connector_gets_a_small_fixed_body(
    world: World, chosen: Connector, chat: Receiver
) -> None:
    (case,) = world.failed("webhook")
    (entry,) = world.requested()
    before = (Case.objects.count(), Attempt.objects.count(), LedgerHead.objects.get().size)
    worker()
    (one,) = chat.log
    link = f"{BASE}/console/cases/{case.case_id}/"
    assert json.loads(one.body) == {
        "text": f"A retry of a failed delivery waits for approval. Sign in to read what would be sent. {link}",
        "link": link,
    }
    sent = {arrived.headers["idempotency-key"] for arrived in world.receiver.log}
    assert one.headers["idempotency-key"] not in sent
    assert (Case.objects.count(), Attempt.objects.count(), LedgerHead.objects.get().size) == before
    assert [row.sentence for row in notices.told_about(entry)] == ["Told by connector ops_chat"]
    worker()
    assert len(chat.log) == 1


def test_mail_and_connector_are_both_used(two: World, chosen: Connector, chat: Receiver) -> None:
    with_addresses(two)
    two.failed("webhook", "backup")
    two.requested()
    worker()
    (one,) = chat.log
    assert json.loads(one.body)["link"] == f"{BASE}/console/approvals/"
    assert len(mail.outbox) == 1
    assert set(Notice.objects.values_list("told", flat=True)) == {"mail to 2 people, connector ops_chat"}


@pytest.mark.parametrize("scope", ("*", "ops_chat", "disabled"))
def test_a_switch_holds_the_connector_back_and_costs_no_try(
    timed: World, clock: Clock, chosen: Connector, chat: Receiver, scope: str
) -> None:
    timed.failed("webhook")
    (entry,) = timed.requested()
    if scope == "disabled":
        chosen.enabled = False
        configuration.save(chosen, by=None, clock=clock)
    else:
        configuration.pause(scope, reason="fire drill", by=timed.administrator, clock=clock)
    for _ in range(8):
        rounds(clock)
        clock.forward(minutes=2)
    row = told(REQUESTED)
    assert (chat.log, row.told_at, row.given_up, row.tries) == ([], None, False, 0)
    (line,) = notices.told_about(entry)
    assert line.sentence.startswith("Not told yet: connector ops_chat held back: ")
    if scope == "disabled":
        chosen.enabled = True
        configuration.save(chosen, by=None, clock=clock)
    else:
        configuration.resume(scope, by=timed.administrator, clock=clock)
    rounds(clock)
    assert len(chat.log) == 1
    assert told(REQUESTED).told == "connector ops_chat"


def test_mail_goes_out_although_the_connector_is_held_back(
    world: World, chosen: Connector, chat: Receiver
) -> None:
    with_addresses(world)
    world.failed("webhook")
    world.requested()
    configuration.pause("ops_chat", reason="fire drill", by=world.administrator, clock=world.clock)
    worker()
    assert (len(mail.outbox), chat.log) == (1, [])
    assert told(REQUESTED).told == (
        "mail to 2 people, connector ops_chat held back: Live sending to ops_chat is paused."
    )


def test_p25_a_database_that_was_set_back_posts_nothing_and_people_get_their_mail(
    world: World, chosen: Connector, chat: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with_addresses(world)
    world.failed("webhook")
    world.requested()
    data_of_its_own(monkeypatch, tmp_path)
    lay_outside()
    worker()
    assert (len(mail.outbox), chat.log) == (1, [])
    assert "held back: This database is not the one" in told(REQUESTED).told


def unset(row: Connector) -> None:
    row.url, row.url_ref = "", "env:CAVRA_TEST_UNSET"


def nobody_there(row: Connector) -> None:
    row.url = "http://127.0.0.1:1/chat"


@pytest.mark.parametrize("broken", (unset, nobody_there))
def test_a_broken_connector_is_tried_again_and_given_up(
    timed: World,
    clock: Clock,
    chosen: Connector,
    broken: Callable[[Connector], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    timed.failed("webhook")
    (entry,) = timed.requested()
    broken(chosen)
    configuration.save(chosen, by=None, clock=clock)
    notices.notice(clock=clock)
    assert notices.tell(clock=clock) == 1
    for minutes in (1, 5, 15, 60):
        clock.forward(minutes=minutes, seconds=-1)
        assert notices.tell(clock=clock) == 0
        clock.forward(seconds=1)
        assert notices.tell(clock=clock) == 1
    row = told(REQUESTED)
    assert (row.given_up, row.tries, row.told_at) == (True, 5, None)
    assert row.told.startswith("connector ops_chat: ")
    # What is tried in vain holds the connector back, whatever it was; what is not set up is not its receiver's fault.
    assert Breaker.objects.filter(connector=chosen, state="open").exists() is (broken is nobody_there)
    assert len([one for one in caplog.records if "were not told: connector ops_chat" in one.message]) == 5
    clock.forward(hours=3)
    assert rounds(clock) == 0
    (line,) = notices.told_about(entry)
    assert line.sentence.startswith("Nobody was told: connector ops_chat: ")


def test_a_connector_that_does_not_exist_does_not_stop_the_worker(
    world: World, settings: LazySettings
) -> None:
    settings.CAVRA_NOTICE_CONNECTOR = "gone"
    world.failed()
    world.requested()
    worker()
    assert told(REQUESTED).told == "connector gone is not configured"
    out = StringIO()
    call_command("check", databases=["default"], stderr=out)
    assert "evidence.W004" in out.getvalue()


# --- mail that does not go out ------------------------------------------------------------------------------------


def test_a_mail_server_that_is_down_is_tried_again(
    timed: World, clock: Clock, settings: LazySettings
) -> None:
    with_addresses(timed)
    timed.failed()
    (entry,) = timed.requested()
    well = settings.EMAIL_BACKEND
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    rounds(clock)
    assert [one.sentence for one in notices.told_about(entry)] == [
        "Not told yet: mail: ConnectionRefusedError"
    ]
    settings.EMAIL_BACKEND = well
    clock.forward(seconds=59)
    assert rounds(clock) == 0
    clock.forward(seconds=1)
    rounds(clock)
    assert len(mail.outbox) == 1
    assert [one.sentence for one in notices.told_about(entry)] == ["Told by mail to 2 people"]


def test_what_a_mail_server_says_is_not_kept(
    timed: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer may name people."""
    with_addresses(timed)
    timed.failed()
    timed.requested()

    def refuse(message: mail.EmailMessage) -> int:
        raise smtplib.SMTPSenderRefused(550, b"approver@example.com is on holiday", "x@example.com")

    monkeypatch.setattr(mail.EmailMessage, "send", refuse)
    rounds(clock)
    assert told(REQUESTED).told == "mail: SMTPSenderRefused 550"


def test_a_worker_that_breaks_while_telling_tells_later_and_not_for_ever(
    timed: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_addresses(timed)
    timed.policy(approve_within_minutes=10_000)
    timed.failed()
    (entry,) = timed.requested()

    def break_(message: mail.EmailMessage) -> int:
        raise RuntimeError("out of paper")

    with monkeypatch.context() as patch:
        patch.setattr(mail.EmailMessage, "send", break_)
        with pytest.raises(RuntimeError):
            rounds(clock)
        assert rounds(clock) == 0  # somebody may still be sending it
        clock.forward(minutes=5)
        for _ in range(4):
            with pytest.raises(RuntimeError):
                rounds(clock)
            clock.forward(minutes=5)
    assert rounds(clock) == 1
    assert mail.outbox == []
    assert [one.sentence for one in notices.told_about(entry)] == [
        "Nobody was told: whoever told it never came back"
    ]


def test_a_step_that_breaks_does_not_end_the_worker(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with_addresses(world)
    world.failed()
    world.requested()
    send = mail.EmailMessage.send

    def break_(message: mail.EmailMessage) -> int:
        raise RuntimeError("out of paper")

    monkeypatch.setattr(mail.EmailMessage, "send", break_)
    worker()
    monkeypatch.setattr(mail.EmailMessage, "send", send)
    later = Clock(told(REQUESTED).due_at)
    assert notices.tell(clock=later) == 1
    assert len(mail.outbox) == 1


@pytest.mark.parametrize(
    ("name", "value", "why"),
    (
        ("CAVRA_BASE_URL", "", "mail needs CAVRA_BASE_URL to link to"),
        ("CAVRA_SENDS_MAIL", False, "mail is not set up"),
    ),
)
def test_without_settings_nobody_is_told_and_the_page_says_why(
    world: World, settings: LazySettings, name: str, value: Any, why: str
) -> None:
    with_addresses(world)
    setattr(settings, name, value)
    world.failed()
    (entry,) = world.requested()
    worker()
    assert mail.outbox == []
    assert [one.sentence for one in notices.told_about(entry)] == [f"Nobody was told: {why}"]


def test_without_an_address_to_link_to_the_connector_is_not_used_either(
    world: World, chosen: Connector, chat: Receiver, settings: LazySettings
) -> None:
    settings.CAVRA_BASE_URL = ""
    world.failed("webhook")
    world.requested()
    worker()
    assert chat.log == []
    assert "connector ops_chat needs CAVRA_BASE_URL" in told(REQUESTED).told


@pytest.mark.parametrize(
    ("mails", "key", "base", "warned"),
    (
        (True, "", "", True),
        (False, "ops_chat", "", True),
        (False, "", "", False),
        (True, "ops_chat", BASE, False),
    ),
)
def test_a_check_warns_when_messages_would_lead_nowhere(
    settings: LazySettings, mails: bool, key: str, base: str, warned: bool
) -> None:
    settings.CAVRA_SENDS_MAIL, settings.CAVRA_NOTICE_CONNECTOR, settings.CAVRA_BASE_URL = mails, key, base
    out = StringIO()
    call_command("check", stderr=out)
    assert ("evidence.W003" in out.getvalue()) == warned


# --- workers at once, and as processes ----------------------------------------------------------------------------


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_workers_at_once_tell_everybody_once(committed_two: World, chosen: Connector, chat: Receiver) -> None:
    world = with_addresses(committed_two)
    for _ in range(3):
        world.failed("webhook", "backup")
    entries = world.requested()
    results = together(*[lambda: rounds(world.clock)] * 6)  # type: ignore[arg-type]
    assert [one for one in results if isinstance(one, Exception)] == []
    while rounds(world.clock):  # type: ignore[arg-type]
        pass
    linked = [link for message in mail.outbox for link in links(message)]
    assert sorted(linked) == sorted(f"{BASE}/console/cases/{entry.case.case_id}/" for entry in entries)
    assert len(chat.log) == len(mail.outbox)
    assert Notice.objects.filter(kind=REQUESTED, tries=1).exclude(told_at=None).count() == len(entries) == 6


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_a_worker_of_its_own_reads_where_to_tell_from_the_environment(
    committed: World, tmp_path: Path
) -> None:
    world = with_addresses(committed)
    (case,) = world.failed()
    world.requested()
    own = environment(
        EMAIL_URL=f"file:///{tmp_path / 'mail'}",
        CAVRA_BASE_URL=f"{BASE}/",
        CAVRA_MAIL_FROM="CAVRA <cavra@example.com>",
    )
    done = subprocess.run([sys.executable, "manage.py", "worker", "--once"], cwd=ROOT, env=own, check=False)
    assert done.returncode == 0
    (laid_down,) = (tmp_path / "mail").iterdir()
    text = laid_down.read_text()
    assert "From: CAVRA <cavra@example.com>\n" in text
    assert f"{BASE}/console/cases/{case.case_id}/" in text.replace("=\n", "")


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    (
        ("EMAIL_URL", "pigeon://loft.example", "EMAIL_URL begins with none of"),
        ("CAVRA_BASE_URL", "console.example", "CAVRA_BASE_URL is no address"),
    ),
)
def test_a_setting_that_cannot_work_stops_the_start_with_a_hint(name: str, value: str, hint: str) -> None:
    ended = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=ROOT,
        env={**os.environ, "DEBUG": "true", name: value},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode != 0
    assert hint in ended.stderr
