"""What never answers, and what says no before anything left: the whole chain over syslog and mail."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from evidence.domain import canaries, events, records
from evidence.domain.clock import system_clock
from evidence.domain.stream_comparison import Comparison, What
from evidence.enums import Answer, Assurance, CaseState, FailureClass, Outcome
from evidence.models import Attempt, Case, Connector, Person, Record
from recovery.enums import ExecutionState
from recovery.models import Execution
from tests.builders import World, connector
from tests.evidence.connectors.authority import Authority
from tests.evidence.connectors.listener import Listener, read_all, reset
from tests.evidence.connectors.mailbox import Mailbox
from tests.recovery.checks import assert_ledger_verifies

OPTIONS = {"sender": "cavra@console.example", "recipients": "soc@desk.example,lead@desk.example"}


class Log:
    """A syslog receiver that takes messages, or resets the connection behind them."""

    def __init__(self) -> None:
        self.well = True
        self.messages: list[bytes] = []
        self.listener = Listener(self._serve)

    def _serve(self, _listener: Listener, sock: Any) -> None:
        message = read_all(sock)
        if not self.well:
            return reset(sock)
        self.messages.append(message)
        return None


@pytest.fixture
def log(world: World) -> Iterator[Log]:
    """A receiver with its connector, ``log``."""
    made = Log()
    connector("log", made.listener.url("syslog"), product="syslog", by=world.administrator)
    yield made
    made.listener.close()


@pytest.fixture
def desk(world: World) -> Iterator[Mailbox]:
    """A mail server with its connector, ``desk``."""
    authority = Authority()
    made = Mailbox(authority.context("localhost"))
    connector(
        "desk",
        made.url(),
        product="email",
        by=world.administrator,
        options=OPTIONS,
        ca_pem=authority.pem,
    )
    yield made
    made.stop()


def last(case: Case) -> Attempt:
    return case.attempts.order_by("-number")[0]


def page(person: Person, address: str) -> str:
    client = Client()
    client.force_login(person)
    answer = client.get(address)
    assert answer.status_code == 200
    return answer.content.decode()


def page_of(person: Person, case: Case) -> str:
    return page(person, f"/console/cases/{case.case_id}/")


def test_what_was_only_written_settles_the_case_and_says_so(world: World, log: Log) -> None:
    (case,) = world.delivered("log")
    attempt = last(case)
    assert (attempt.outcome, attempt.answer, attempt.assurance) == (
        Outcome.DELIVERED,
        Answer.NO_ANSWER,
        Assurance.WRITTEN,
    )
    assert (attempt.status_code, attempt.failure_class, attempt.may_have_arrived) == (None, "", True)
    assert case.state == CaseState.DELIVERED
    (message,) = log.messages
    assert message.endswith(records.canonical(events.event_for(case)))
    said = records.payload_of(Record.objects.get(record_id=attempt.record_id))
    assert said is not None
    (entry,) = said["deliveries"]
    assert (entry["success"], entry["status_code"], entry["assurance"]) == (True, None, "written")
    assert entry["request"]["headers"] == {}
    assert "written" in page(world.auditor, f"/console/cases/{case.case_id}/")
    assert_ledger_verifies()


def test_an_approved_retry_of_what_was_lost_on_the_way(world: World, log: Log) -> None:
    log.well = False
    (case,) = world.delivered("log")
    first = last(case)
    assert (first.answer, first.failure_class, first.may_have_arrived) == (
        Answer.NO_ANSWER,
        FailureClass.CONNECTION_LOST,
        True,
    )
    (entry,) = world.requested()
    # Who decides reads the message as it will be sent.
    assert f"[cavra@32473 message=&quot;{case.case_id}&quot;" in page_of(world.approver, case)
    world.vote(entry)
    log.well = True
    world.ran()
    execution = Execution.objects.get(entry=entry)
    assert execution.state == ExecutionState.DELIVERED
    second = last(case)
    assert (second.number, second.answer, second.assurance) == (2, Answer.NO_ANSWER, Assurance.WRITTEN)
    assert second.body_sha256 == first.body_sha256
    case.refresh_from_db()
    assert case.state == CaseState.DELIVERED
    assert len(log.messages) == 1
    assert_ledger_verifies()
    for address in (f"/console/cases/{case.case_id}/", "/console/connectors/", "/console/"):
        page(world.auditor, address)


def test_mail_that_was_refused_before_it_left_costs_no_approval(world: World, desk: Mailbox) -> None:
    desk.refused["lead@desk.example"] = "550 5.1.1 no such user"
    (case,) = world.delivered("desk")
    first = last(case)
    assert (first.answer, first.failure_class, first.status_code) == (
        Answer.NOT_SENT,
        FailureClass.REJECTED,
        550,
    )
    case.refresh_from_db()
    assert case.counted_attempts == 0
    (entry,) = world.approved()
    world.ran()
    assert [one.state for one in Execution.objects.filter(entry=entry)] == [ExecutionState.NOT_SENT]
    assert_ledger_verifies()
    desk.refused.clear()
    world.ran()
    assert Execution.objects.filter(entry=entry, state=ExecutionState.DELIVERED).count() == 1
    (told,) = desk.messages
    assert told.recipients == ["soc@desk.example", "lead@desk.example"]
    second = last(case)
    assert (second.status_code, second.assurance) == (250, Assurance.ACCEPTED)
    assert_ledger_verifies()


def test_a_lost_try_is_looked_for_by_what_the_receiver_knows_it_by(
    world: World, log: Log, desk: Mailbox
) -> None:
    """There is no idempotency key in a header; the page still says what to look for."""
    log.well = False
    desk.refused["lead@desk.example"] = "450 4.2.1 later"
    cases = {case.connector.key: case for case in world.delivered("log", "desk")}
    for entry in world.approved():
        world.unheard(world.taken(entry))
    looked_for = {
        "log": f"message=&quot;{cases['log'].case_id}&quot;",
        "desk": "@console.example&gt;",
    }
    for key, words in looked_for.items():
        assert words in page_of(world.approver, cases[key])


@pytest.mark.parametrize("form", ("message", "text", "in Splunk"))
def test_a_syslog_receivers_file_is_compared_with_the_stream(world: World, log: Log, form: str) -> None:
    for _ in range(3):
        world.delivered("log")
    # Without the length in front of each, one a line: as rsyslog writes %rawmsg% or %msg%.
    lines = [message.partition(b" ")[2] for message in log.messages]
    if form == "text":
        lines = [line[line.index(b"\xef\xbb\xbf") :] for line in lines]
    elif form == "in Splunk":
        lines = [json.dumps({"result": {"_raw": line.decode()}}).encode() for line in lines]
    compared = Comparison(Connector.objects.get(key="log"), lines)
    assert list(compared.findings()) == []
    assert compared.summary.complete
    missing = Comparison(Connector.objects.get(key="log"), [lines[0], lines[2]])
    assert [(one.what, one.seq) for one in missing.findings()] == [(What.MISSING, 2)]


def test_canaries_go_the_same_ways(world: World, log: Log, desk: Mailbox) -> None:
    for key in ("log", "desk"):
        canary = canaries.send(Connector.objects.get(key=key), by=world.administrator, clock=system_clock)
        assert (canary.outcome, canary.failure_class) == (Outcome.DELIVERED, "")
    assert b"a test message, nothing to do" in log.messages[0]
    assert b"Subject: CAVRA canary: a test message, nothing to do\r\n" in desk.messages[0].content
    log.well = False
    desk.answer = "451 4.3.0 later"
    later = lambda: system_clock() + timedelta(minutes=1)  # noqa: E731 - a clock
    for key, failure in (("log", FailureClass.CONNECTION_LOST), ("desk", FailureClass.UNAVAILABLE)):
        canary = canaries.send(Connector.objects.get(key=key), by=world.administrator, clock=later)
        assert (canary.outcome, canary.failure_class) == (Outcome.FAILED, failure)
    assert_ledger_verifies()
