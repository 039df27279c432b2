"""Sets on the console: one outage by few clicks, and nothing that the clicks did not see."""

import os
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.conf import settings
from django.test import Client

from evidence import signed_in
from evidence.domain import configuration, deliveries, heartbeats, people
from evidence.domain.clock import system_clock
from evidence.domain.deliveries import DeliveryRequest
from evidence.domain.packages import PackageFilters
from evidence.enums import CaseState, Role
from evidence.models import Case, Connector, Person, Record
from recovery.documents import APPROVAL_VOID
from recovery.domain import approvals, manifests, reconciliations, sets
from recovery.enums import ApprovalState, EntryState, ExecutionState, RunState
from recovery.execution import runs
from recovery.models import (
    ApprovalEntry,
    Attestation,
    Execution,
    RetryDecision,
    RetrySet,
    Vote,
    WorkerRun,
)
from tests.builders import Clock, World, connector, person
from tests.receiver import Receiver
from tests.recovery.checks import appended, assert_ledger_verifies, assert_receiver_agrees

FULL = os.environ.get("CAVRA_TORTURE") == "full"
LANES = tuple(f"lane_{n}" for n in range(10))
# Packages, each failing at every lane: 300 failures, or enough of them to be more than one page.
PACKAGES = 30 if FULL else 6
PASSWORD = "correct horse battery"


class Desk:
    """The console as one person uses it, without script; ``clicks`` counts what the person did."""

    def __init__(self, who: Person) -> None:
        self.client = Client()
        self.client.force_login(who)
        self.clicks = 0
        self.address = ""
        self.page = ""

    def open(self, address: str, expect: int = 200) -> str:
        """Follow a link or type an address."""
        self.clicks += 1
        return self._came(self.client.get(address, follow=True), address, expect)

    def press(self, act: str, expect: int = 200, **fields: Any) -> str:
        """Send the form whose address ends with ``act`` as the page shows it, with what is typed."""
        self.clicks += 1
        form = self.form(act)
        data = {**form.fields, **fields}
        return self._came(self.client.post(form.address, data, follow=True), form.address, expect)

    def form(self, act: str) -> "Form":
        """The form on the page whose address ends with ``act``; what a browser would send of it."""
        for tag in re.finditer(r'<form[^>]* action="([^"]+)".*?</form>', self.page, re.S):
            path = tag[1].partition("?")[0]
            if path.endswith(f"/{act}/"):
                return Form(tag[1].replace("&amp;", "&"), _fields(tag[0]))
        raise AssertionError(f"no form for {act}: {heading(self.page)}")

    def has_form(self, act: str) -> bool:
        """Whether the page has such a form with a button to press."""
        try:
            self.form(act)
        except AssertionError:
            return False
        return "btn-primary" in self.page

    def _came(self, answer: Any, address: str, expect: int) -> str:
        self.page = answer.content.decode()
        assert answer.status_code == expect, re.sub(r"\s*<[^>]+>\s*", " ", self.page)[:3000]
        self.address = answer.redirect_chain[-1][0] if answer.redirect_chain else address
        return self.page


class Form:
    """An address and the fields a browser would send to it."""

    def __init__(self, address: str, fields: dict[str, Any]) -> None:
        self.address = address
        self.fields = fields


def _fields(form: str) -> dict[str, Any]:
    """Hidden fields, ticked boxes and chosen radios."""
    found: dict[str, Any] = {}
    for tag in re.findall(r"<input [^>]*>", form):
        attributes = dict(re.findall(r'([a-z-]+)="([^"]*)"', tag))
        kind, name = attributes.get("type", "text"), attributes.get("name")
        if not name or name == "csrfmiddlewaretoken":
            continue
        if kind == "hidden" or (kind in ("checkbox", "radio") and re.search(r"\schecked\b", tag)):
            found.setdefault(name, []).append(attributes.get("value", "on"))
    return found


def heading(page: str) -> str:
    """The title of the action panel."""
    found = re.search(r'<h2 id="act-h">(.*?)</h2>', page)
    return found[1] if found else ""


def digest_on_button(page: str) -> str:
    """What the filled button says after its verb."""
    found = re.search(r"Approve (\d+, [0-9a-f]{4} [0-9a-f]{4})", page)
    return found[1] if found else ""


@pytest.fixture
def worker() -> Iterator[None]:
    """A worker that was heard of just now; what is left to it is done by ``execute_due``."""
    heartbeats.beat("worker", clock=system_clock)
    return


@pytest.fixture
def outage(db: None, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Many connectors that are all about to fail, more often than their breakers would let them."""
    monkeypatch.setattr(settings, "CAVRA_BREAKER_FAILURES", 0)
    world = World(receiver, providers=LANES)
    yield world
    assert_receiver_agrees(world)
    assert_ledger_verifies()


def failed(world: World, count: int = 3, *providers: str) -> list[Case]:
    """Failures of ``count`` packages."""
    return [case for _ in range(count) for case in world.failed(*providers)]


def chosen(world: World, **filters: str) -> Desk:
    """The analyst's desk with the page of a set of everything that failed."""
    desk = Desk(world.analyst)
    desk.open(f"/console/cases/?{urlencode({'state': 'failed', **filters})}")
    desk.press("choose")
    return desk


def requested(world: World) -> Desk:
    """The analyst's desk with a set that was planned, acknowledged and asked for."""
    desk = chosen(world)
    desk.press("plan-retry", immediate="on")
    desk.press("ack-retry", state="accepted")
    desk.press("request-approval", reason="the receiver is back")
    return desk


def approved(world: World) -> Desk:
    """The operator's desk with a set that was approved."""
    asked = requested(world)
    approver = Desk(world.approver)
    approver.open(asked.address)
    approver.press("decide", state="approved")
    operator = Desk(world.operator)
    operator.open(asked.address)
    return operator


def execute(desk: Desk) -> None:
    """Hand the set to the worker, and the worker does it."""
    desk.press("execute")
    assert runs.execute_due(clock=system_clock) == 1
    desk.open(desk.address)


def states(row: RetrySet | None = None) -> list[str]:
    """States of the set's entries."""
    row = row or RetrySet.objects.get()
    found = ApprovalEntry.objects.filter(set_items__retry_set=row).order_by("pk")
    return list(found.values_list("state", flat=True))


# --- the whole way ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_outage_takes_two_people_at_most_fifteen_clicks(outage: World, worker: None) -> None:
    people.grant_role(outage.analyst, Role.OPERATOR, by=None, clock=system_clock)
    cases = failed(outage, PACKAGES)
    before = len(outage.receiver.log)
    analyst, approver = Desk(Person.objects.get(pk=outage.analyst.pk)), Desk(outage.approver)
    analyst.open("/console/cases/")
    analyst.open("/console/cases/?state=failed")
    assert f"all {len(cases)} failed cases as a set" in analyst.page
    analyst.press("choose")
    assert heading(analyst.page) == "Next: Plan Audit Retry"
    analyst.press("plan-retry", immediate="on")
    assert heading(analyst.page) == "Next: Ack Retry"
    analyst.press("ack-retry", state="accepted", external_ref="CHG-789", notes="read")
    assert heading(analyst.page) == "Next: Plan Retry Approval"
    analyst.press("request-approval", reason="the receivers are back")
    assert heading(analyst.page) == f"Next: decide on {len(cases)} of {len(cases)}"
    approver.open("/console/approvals/")
    address = re.search(r'href="(/console/sets/[^"]+-[^"]+/)"', approver.page)
    assert address
    approver.open(address[1])
    row = RetrySet.objects.get()
    assert digest_on_button(approver.page) == f"{len(cases)}, {row.digest[:4]} {row.digest[4:8]}"
    approver.press("decide", state="approved", reason_code="receiver_ready")
    analyst.open(analyst.address)
    assert heading(analyst.page) == "Next: Execute Retry"
    analyst.press("execute")
    assert 'hx-trigger="every 1s"' in analyst.page
    assert analyst.clicks + approver.clicks <= 15
    assert runs.execute_due(clock=system_clock) == 1
    analyst.open(analyst.address)
    assert heading(analyst.page) == "Nothing left to do"
    assert 'hx-trigger="every 1s"' not in analyst.page
    assert set(Case.objects.values_list("state", flat=True)) == {CaseState.DELIVERED}
    assert len(outage.receiver.log) - before == len(cases)
    votes = Vote.objects.all()
    assert len(votes) == len(cases)
    assert all(vote.digest_presented and vote.authenticated_by == "session" for vote in votes)


# --- choosing -----------------------------------------------------------------------------------------------------


@pytest.fixture
def unheld(monkeypatch: pytest.MonkeyPatch) -> None:
    """No breaker: connectors fail more often in a row than one would let them."""
    monkeypatch.setattr(settings, "CAVRA_BREAKER_FAILURES", 0)


@pytest.mark.usefixtures("unheld")
def test_a_set_takes_the_filter_and_not_the_page(two: World) -> None:
    failed(two, 14)
    desk = Desk(two.analyst)
    desk.open("/console/cases/?state=failed&provider=backup&page=1")
    assert "all 14 failed cases as a set" in desk.page
    # A failure that came after the page was shown fits the filter all the same.
    failed(two, 1)
    desk.press("choose")
    row = RetrySet.objects.get()
    assert row.items.count() == 15
    assert row.selection == {"state": "failed", "provider": "backup"}
    assert not RetryDecision.objects.exists()


def test_what_is_left_out_is_said(two: World) -> None:
    two.delivered()
    two.failed("webhook")
    desk = Desk(two.analyst)
    page = desk.open("/console/cases/")
    assert "Work on the 1 failed case as a set" in page
    assert "Left out: 2 that are not failed." in page


def test_more_than_a_set_holds_takes_the_oldest_and_says_how_many_are_left_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sets, "MAX_ITEMS", 2)
    oldest = failed(world, 3)[:2]
    desk = Desk(world.analyst)
    page = desk.open("/console/cases/?state=failed")
    assert "the oldest 2 failed cases as a set" in page
    assert "Left out: 1 newer failure" in page
    desk.press("choose")
    assert {item.case_id for item in RetrySet.objects.get().items.all()} == {case.pk for case in oldest}


def test_a_filter_that_finds_no_failure_offers_no_set_and_is_refused(world: World) -> None:
    world.delivered()
    desk = Desk(world.analyst)
    assert "as a set" not in desk.open("/console/cases/")
    answer = desk.client.post("/console/sets/choose/?state=failed")
    assert answer.status_code == 400
    assert "A set holds 1 to 500 cases, not 0" in answer.content.decode()
    assert desk.client.post("/console/sets/choose/?state=nonsense").status_code == 400
    assert not RetrySet.objects.exists()


def test_cases_are_found_by_when_they_failed(world: World) -> None:
    (case,) = world.failed()
    at = case.last_outcome_at
    assert at
    desk = Desk(world.analyst)
    after, before = f"{at + timedelta(minutes=2):%Y-%m-%dT%H:%M}", f"{at:%Y-%m-%dT%H:%M}"
    assert "as a set" not in desk.open(f"/console/cases/?state=failed&since={after}")
    assert "as a set" not in desk.open(f"/console/cases/?state=failed&until={before}")
    assert "as a set" in desk.open(f"/console/cases/?state=failed&since={before}&until={after}")
    assert "Enter a valid date/time." in desk.open("/console/cases/?since=yesterday", 400)


def test_only_an_analyst_chooses(world: World) -> None:
    world.failed()
    desk = Desk(world.approver)
    assert "as a set" not in desk.open("/console/cases/?state=failed")
    assert desk.client.post("/console/sets/choose/?state=failed").status_code == 403
    assert not RetrySet.objects.exists()


def test_an_outsider_gets_nothing(world: World) -> None:
    world.failed()
    address = chosen(world).address
    for outsider in (person(), person(Role.VIEWER)):
        client = Client()
        client.force_login(outsider)
        assert client.get(address).status_code == 403
        assert client.get("/console/sets/").status_code == 403
        assert client.post(f"{address}plan-retry/").status_code == 403
        assert client.post("/console/reconcile/?state=outcome_unknown").status_code == 403
    assert not RetryDecision.objects.exists()


def test_there_is_no_such_set(world: World) -> None:
    desk = Desk(world.analyst)
    for address in ("gordackretryset-0000000000000000", "%00", "1"):
        desk.open(f"/console/sets/{address}/", 404)


# --- deciding -----------------------------------------------------------------------------------------------------


def test_who_asked_sees_why_they_do_not_decide(world: World) -> None:
    people.grant_role(world.analyst, Role.APPROVER, by=None, clock=system_clock)
    failed(world, 2)
    world.analyst = Person.objects.get(pk=world.analyst.pk)
    desk = requested(world)
    assert "Not decided: you acknowledged this retry." in desk.page
    assert "2 not yours to decide" in desk.page
    assert digest_on_button(desk.page) == ""
    fields = {"items": [entry.entry_id for entry in ApprovalEntry.objects.all()], "state": "approved"}
    fields["set_digest"] = RetrySet.objects.get().digest
    page = desk.client.post(f"{desk.address}decide/", fields)
    assert page.status_code == 403
    assert "data-refusal" in page.content.decode()
    assert not Vote.objects.exists()


def test_p4_a_part_in_some_items_takes_only_those_out(two: World) -> None:
    """Who changed one connector after it failed votes on the other connector's items."""
    people.grant_role(two.approver, Role.ADMINISTRATOR, by=None, clock=system_clock)
    two.approver = Person.objects.get(pk=two.approver.pk)
    failed(two, 2)
    changed = Connector.objects.get(key="backup")
    changed.timeout_ms = 9_000
    configuration.save(changed, by=two.approver, clock=two.clock)
    address = requested(two).address
    approver = Desk(two.approver)
    approver.open(address)
    assert "2 not yours to decide" in approver.page
    assert "you changed the connector after it failed" in approver.page
    approver.press("decide", state="approved")
    found = ApprovalEntry.objects.values_list("connector__key", "state").distinct()
    assert set(found) == {("webhook", "approved"), ("backup", "pending")}


def test_items_are_taken_out_without_script(world: World) -> None:
    failed(world, 3)
    address = requested(world).address
    approver = Desk(world.approver)
    approver.open(address)
    whole = digest_on_button(approver.page)
    shown = approver.form("decide").fields["items"]
    approver.press("decide", 409, state="approved", items=shown[1:])
    assert "the items you were shown are not these" in approver.page
    # The page now shows what was selected, with the digest of that.
    assert "1 taken out: 2 left" in approver.page
    assert digest_on_button(approver.page) not in ("", whole)
    assert not Vote.objects.exists()
    approver.press("decide", state="approved")
    assert sorted(states()) == ["approved", "approved", "pending"]
    assert ApprovalEntry.objects.get(state=EntryState.PENDING).entry_id == shown[0]


def test_the_selection_is_shown_again_before_anything_is_recorded(world: World) -> None:
    failed(world, 3)
    address = requested(world).address
    approver = Desk(world.approver)
    approver.open(address)
    form = approver.form("decide")
    with appended() as kinds:
        answer = approver.client.post(
            f"{address}select/", {**form.fields, "items": form.fields["items"][:1], "notes": "half typed"}
        )
    assert (answer.status_code, kinds) == (200, [])
    approver.page = answer.content.decode()
    (entry,) = ApprovalEntry.objects.filter(entry_id=form.fields["items"][0])
    assert (
        digest_on_button(approver.page)
        == f"1, {manifests.digest_of([entry])[:4]} {manifests.digest_of([entry])[4:8]}"
    )
    assert "half typed" in approver.page
    assert "Say why" not in approver.page
    approver.press("decide", state="approved")
    assert Vote.objects.count() == 1


def test_nothing_left_in_is_nothing_to_vote_on(world: World) -> None:
    failed(world, 2)
    approver = Desk(world.approver)
    approver.open(requested(world).address)
    form = approver.form("decide")
    answer = approver.client.post(f"{approver.address}select/", {**form.fields, "items": []})
    assert "Nothing is selected." in answer.content.decode()
    approver.press("decide", 400, state="approved", items=[])
    assert "put at least one item back in" in approver.page
    assert not Vote.objects.exists()


def test_a_whole_part_is_taken_out_at_once(two: World) -> None:
    failed(two, 2)
    address = requested(two).address
    approver = Desk(two.approver)
    approver.open(address)
    parts = re.findall(r'name="without" value="([^"]+)"', approver.page)
    assert len(parts) == 2
    out = ApprovalEntry.objects.get(entry_id=parts[0]).connector.key
    form = approver.form("decide")
    answer = approver.client.post(f"{address}select/", {**form.fields, "without": parts[:1]})
    approver.page = answer.content.decode()
    assert "2 taken out: 2 left" in approver.page
    approver.press("decide", state="approved")
    assert set(ApprovalEntry.objects.filter(connector__key=out).values_list("state", flat=True)) == {
        "pending"
    }
    assert sorted(states()) == ["approved", "approved", "pending", "pending"]


def test_an_outlier_comes_first_and_says_why(two: World) -> None:
    failed(two, 3, "webhook")
    two.announced()
    two.receiver.behave("/backup", hang_up=True)
    two.acknowledged()
    request = DeliveryRequest(filters=PackageFilters(), providers=("backup",), retries=0, timeout_s=5.0)
    deliveries.deliver_audit(request, by=two.analyst, clock=two.clock)
    two.receiver.behave("/backup", status=200)
    approver = Desk(two.approver)
    approver.open(requested(two).address)
    rows = re.findall(r"<summary>(\d+ to \w+)</summary>", approver.page)
    assert rows == ["1 to backup", "3 to webhook"]
    assert approver.page.index("May have arrived") < approver.page.index("3 to webhook")


def test_a_stale_page_is_refused_and_shows_what_is_there_now(world: World) -> None:
    failed(world, 3)
    address = requested(world).address
    late, early = Desk(world.second_approver), Desk(world.approver)
    late.open(address)
    early.open(address)
    early.press(
        "decide", 409, state="denied", notes="not this one", items=early.form("decide").fields["items"][:1]
    )
    early.press("decide", state="denied", notes="not this one")
    page = late.press("decide", 409, state="approved")
    assert f"{world.approver.username} denied this" in page
    assert Vote.objects.count() == 1
    late.press("decide", state="approved")
    assert sorted(states()) == ["approved", "approved", "denied"]


def test_p5_a_connector_that_changed_voids_only_its_items(two: World) -> None:
    failed(two, 2)
    address = requested(two).address
    approver = Desk(two.approver)
    approver.open(address)
    changed = Connector.objects.get(key="backup")
    changed.headers = {"x-lane": "blue"}
    configuration.save(changed, by=two.administrator, clock=system_clock)
    page = approver.press("decide", state="approved")
    assert "2 cases approved" in page
    assert "2 cases changed since and are void for good" in page
    assert Record.objects.filter(kind=APPROVAL_VOID.name).count() == 2
    found = ApprovalEntry.objects.values_list("connector__key", "state").distinct()
    assert set(found) == {("webhook", "approved"), ("backup", "manifest_changed")}


def test_what_changed_before_the_page_was_shown_is_out_and_says_so(two: World) -> None:
    failed(two, 2)
    address = requested(two).address
    changed = Connector.objects.get(key="backup")
    changed.headers = {"x-lane": "blue"}
    configuration.save(changed, by=two.administrator, clock=system_clock)
    approver = Desk(two.approver)
    approver.open(address)
    assert "Changed since: configuration of the connector, headers" in approver.page
    assert "2 taken out: 2 left" in approver.page
    approver.press("decide", state="approved")
    assert set(ApprovalEntry.objects.values_list("connector__key", "state").distinct()) == {
        ("webhook", "approved"),
        ("backup", "pending"),
    }
    # Nobody can approve them any more: they are ended as void, and the analyst asks again.
    assert "2 cannot be approved any more" in approver.page
    assert digest_on_button(approver.page) == ""
    changed_form = re.findall(r"<form[^>]*>(?:(?!</form>).)*End 2 as void.*?</form>", approver.page, re.S)
    answer = approver.client.post(
        f"{address}decide/", {**_fields(changed_form[0]), "state": "approved"}, follow=True
    )
    assert "2 cases changed since and are void for good" in answer.content.decode()
    assert Record.objects.filter(kind=APPROVAL_VOID.name).count() == 2
    analyst = Desk(two.analyst)
    analyst.open(address)
    assert "2 failed again or came to nothing" in analyst.page
    analyst.press("begin-again")
    analyst.press("request-approval")
    assert states(RetrySet.objects.latest("pk")) == ["pending", "pending"]


def test_a_denial_needs_words_and_ends_every_request(world: World) -> None:
    failed(world, 2)
    approver = Desk(world.approver)
    approver.open(requested(world).address)
    page = approver.press("decide", 400, state="denied", external_ref="CHG-1")
    assert "Say why you deny it" in page
    assert "CHG-1" in page
    assert states() == ["pending", "pending"]
    approver.press("decide", state="denied", notes="fix the receiver first")
    assert states() == ["denied", "denied"]
    analyst = Desk(world.analyst)
    analyst.open(approver.address)
    assert heading(analyst.page) == "What is left"
    analyst.press("begin-again")
    assert RetrySet.objects.count() == 2
    # Plan and acknowledgement stand; only the approval is asked for again.
    assert heading(analyst.page) == "Next: Plan Retry Approval"
    analyst.press("request-approval")
    assert states(RetrySet.objects.latest("pk")) == ["pending", "pending"]


def test_an_old_sign_in_needs_the_password(world: World) -> None:
    failed(world, 2)
    approver = Desk(world.approver)
    session = approver.client.session
    old = system_clock() - timedelta(minutes=16)
    session[signed_in.KEY] = {"by": "session", "at": old.isoformat()}
    session.save()
    approver.open(requested(world).address)
    assert 'type="password"' in approver.page
    approver.press("decide", 403, state="approved", notes="typed")
    assert "typed" in approver.page
    assert not Vote.objects.exists()
    page = approver.press("decide", 403, state="approved", password="wrong")
    assert "This is not your password." in page
    approver.press("decide", state="approved", password=PASSWORD)
    assert set(Vote.objects.values_list("authenticated_by", flat=True)) == {"password"}
    assert PASSWORD not in approver.page


def test_two_approvers_are_two_acts_on_the_same_page(world: World) -> None:
    Connector.objects.update(required_approvals=2)
    failed(world, 2)
    address = requested(world).address
    first, second = Desk(world.approver), Desk(world.second_approver)
    first.open(address)
    first.press("decide", state="approved")
    assert "You approved this already" in first.page
    assert states() == ["pending", "pending"]
    second.open(address)
    second.press("decide", state="approved")
    assert states() == ["approved", "approved"]


@pytest.mark.parametrize(
    "fields",
    (
        {"set_digest": "abc"},
        {"set_digest": "g" * 64},
        {"items": ["x" * 51]},
        {"items": ["gordackretryentry-nothing"]},
        {"state": "expired"},
        {"items": [f"gordackretryentry-{n}" for n in range(501)]},
        {"external_ref": "https://tickets.example/1"},
    ),
)
def test_bad_input_is_refused(world: World, fields: dict[str, Any]) -> None:
    failed(world, 1)
    approver = Desk(world.approver)
    approver.open(requested(world).address)
    form = approver.form("decide")
    answer = approver.client.post(form.address, {**form.fields, "state": "approved", **fields})
    assert answer.status_code in (400, 404), answer.status_code
    assert "data-refusal" in answer.content.decode() or 'role="alert"' in answer.content.decode()
    assert not Vote.objects.exists()


def test_answers_are_to_what_was_read(world: World) -> None:
    failed(world, 2)
    desk = chosen(world)
    desk.press("plan-retry")
    stale = desk.form("ack-retry")
    other = Desk(world.second_analyst)
    other.open(f"{desk.address}?act=plan-retry")
    other.press("plan-retry", immediate="on")
    answer = desk.client.post(stale.address, {**stale.fields, "state": "accepted"})
    assert answer.status_code == 409
    assert "planned again since you read it" in answer.content.decode()
    assert set(RetryDecision.objects.values_list("ack_state", flat=True)) == {""}


# --- executing ----------------------------------------------------------------------------------------------------


def test_the_canary_stops_its_connector_and_the_page_says_why(two: World, worker: None) -> None:
    failed(two, 4)
    operator = approved(two)
    two.receiver.behave("/webhook", status=500)
    execute(operator)
    two.receiver.behave("/webhook", status=200)
    assert Execution.objects.filter(case__connector__key="webhook").count() == 1
    assert Execution.objects.filter(state=ExecutionState.DELIVERED).count() == 4
    assert heading(operator.page) == "Next: Execute Retry"
    assert "<b>3</b> requests" in operator.page
    run = WorkerRun.objects.get()
    page = operator.open(f"/console/runs/{run.run_id}/")
    assert "Stopped" in page
    assert "500" in page
    assert "3 not tried, their approvals stand." in page
    # Another press is another person's word about the rest.
    operator.open(f"/console/sets/{RetrySet.objects.get().set_id}/")
    execute(operator)
    assert Case.objects.filter(state=CaseState.DELIVERED).count() == 7
    analyst = Desk(two.analyst)
    analyst.open(operator.address)
    assert heading(analyst.page) == "What is left"
    analyst.press("begin-again")
    (row,) = RetrySet.objects.filter(digest="")
    assert row.items.count() == 1
    assert row.selection["set"] in operator.address


def test_nothing_is_handed_to_a_worker_that_is_not_there(world: World) -> None:
    failed(world, 2)
    operator = approved(world)
    assert "The worker is not running" in operator.page
    assert "btn-primary" not in operator.page
    answer = operator.client.post(f"{operator.address}execute/", operator.form("execute").fields)
    assert answer.status_code == 409
    assert not WorkerRun.objects.exists()


def test_only_an_operator_executes(world: World, worker: None) -> None:
    failed(world, 2)
    address = approved(world).address
    analyst = Desk(world.analyst)
    analyst.open(address)
    assert "An operator’s turn" in analyst.page
    answer = analyst.client.post(f"{address}execute/", analyst.form("execute").fields)
    assert answer.status_code == 403
    assert not WorkerRun.objects.exists()


def test_only_what_was_shown_is_executed(world: World, worker: None) -> None:
    failed(world, 3)
    operator = approved(world)
    entry = ApprovalEntry.objects.first()
    assert entry
    world.vote(entry, ApprovalState.DENIED, by=world.second_approver)
    page = operator.press("execute", 409)
    assert "other approvals stand than those you were shown" in page
    assert not WorkerRun.objects.exists()
    execute(operator)
    assert Execution.objects.count() == 2


def test_what_is_approved_while_it_is_handed_over_does_not_go_with_it(
    world: World, worker: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed(world, 3)
    asked = requested(world)
    *shown, late = ApprovalEntry.objects.order_by("pk")
    for entry in shown:
        world.vote(entry)
    operator = Desk(world.operator)
    operator.open(f"{asked.address}?act=execute")
    start = runs.start

    def approved_meanwhile(*args: Any, **kwargs: Any) -> runs.Started:
        world.vote(late)
        return start(*args, **kwargs)

    monkeypatch.setattr(runs, "start", approved_meanwhile)
    page = operator.press("execute")
    assert "2 cases handed to the worker" in page
    late.refresh_from_db()
    assert late.state == EntryState.APPROVED
    assert WorkerRun.objects.get().request["entries"] == [entry.pk for entry in shown]


def test_what_is_queued_can_still_be_denied_as_a_whole(world: World, worker: None) -> None:
    failed(world, 3)
    operator = approved(world)
    operator.press("execute")
    approver = Desk(world.second_approver)
    approver.open(operator.address)
    assert 'hx-trigger="every 1s"' in approver.page
    assert 'name="set_digest"' not in approver.page, "a page that replaces itself holds no form"
    approver.open(f"{operator.address}?act=decide")
    assert 'hx-trigger="every 1s"' not in approver.page
    approver.press("decide", state="denied", notes="the receiver is down again")
    assert states() == ["denied"] * 3
    before = len(world.receiver.log)
    assert runs.execute_due(clock=system_clock) == 1
    assert len(world.receiver.log) == before


def test_the_retry_window_is_said_and_may_be_lifted(world: World, worker: None) -> None:
    failed(world, 2)
    desk = chosen(world)
    desk.press("plan-retry")
    desk.press("ack-retry", state="accepted")
    desk.press("request-approval")
    approver = Desk(world.approver)
    approver.open(desk.address)
    approver.press("decide", state="approved")
    operator = Desk(world.operator)
    operator.open(desk.address)
    assert "2 retry windows; the first opens at" in operator.page
    assert "no retry window is open" in operator.press("execute", 409)
    assert not WorkerRun.objects.exists()
    operator.press("execute", immediate="on")
    assert runs.execute_due(clock=system_clock) == 1
    assert set(Case.objects.values_list("state", flat=True)) == {CaseState.DELIVERED}


def test_the_run_page_shows_what_came_of_each_after_any_restart(two: World, worker: None) -> None:
    failed(two, 3)
    operator = approved(two)
    operator.press("execute")
    run = WorkerRun.objects.get()
    page = operator.open(f"/console/runs/{run.run_id}/")
    assert 'max="6"' in page
    assert 'value="0"' in page
    assert "The first goes alone." in page
    assert 'hx-trigger="every 1s"' in page
    assert runs.execute_due(clock=system_clock) == 1
    page = operator.open(f"/console/runs/{run.run_id}/")
    assert 'value="6"' in page
    assert "6 of 6 recorded" in page
    assert 'hx-trigger="every 1s"' not in page
    run.refresh_from_db()
    assert run.state == RunState.FINISHED


# --- renewing -----------------------------------------------------------------------------------------------------


def test_p6_what_lapsed_is_renewed_with_one_click(world: World) -> None:
    failed(world, 3)
    address = approved(world).address
    _all_run_out()
    later = Desk(world.second_approver)
    later.open(address)
    assert heading(later.page) == "Next: Renew and approve"
    later.press("renew", reason_code="receiver_ready")
    assert states() == ["approved"] * 3
    assert ApprovalEntry.objects.count() == 6
    assert "3 cases renewed, with your approval" in later.page
    assert heading(later.page) == "Next: Execute Retry"


def test_what_cannot_be_renewed_is_out_and_does_not_stop_the_others(two: World) -> None:
    failed(two, 2)
    address = approved(two).address
    _all_run_out()
    changed = Connector.objects.get(key="backup")
    changed.headers = {"x-lane": "blue"}
    configuration.save(changed, by=two.administrator, clock=system_clock)
    later = Desk(two.second_approver)
    later.open(address)
    assert "2 not to be renewed by you" in later.page
    assert "what would be sent has changed since" in later.page
    later.press("renew")
    assert sorted(states()) == ["approved", "approved", "expired", "expired"]


def test_a_renewal_is_of_what_was_shown(world: World) -> None:
    failed(world, 2)
    address = approved(world).address
    _all_run_out()
    later = Desk(world.second_approver)
    later.open(address)
    fields = later.form("renew").fields
    answer = later.client.post(f"{address}renew/", {**fields, "items": fields["items"][:1]})
    assert answer.status_code == 409
    assert set(states()) == {"expired"}


def _all_run_out() -> None:
    """Five hours later by the worker's clock."""
    later = Clock()
    later.forward(hours=5)
    assert approvals.expire(clock=later) > 1


# --- lists --------------------------------------------------------------------------------------------------------


def test_the_list_says_where_each_set_stands(world: World, worker: None) -> None:
    failed(world, 2)
    desk = requested(world)
    address = desk.address
    page = desk.open("/console/sets/")
    assert "2 wait for approval" in page
    approver = Desk(world.approver)
    page = approver.open("/console/approvals/")
    assert "2 wait for approval" in page
    assert "Read and decide" not in page, "a set is decided on as a set"
    approver.open(address)
    approver.press("decide", state="approved")
    assert "2 approved" in approver.open("/console/sets/")
    operator = Desk(world.operator)
    operator.open(address)
    execute(operator)
    assert "2 delivered" in operator.open("/console/sets/")
    assert 'id="sets-h"' not in operator.open("/console/approvals/"), "nothing of it waits"


@pytest.mark.usefixtures("unheld")
def test_items_are_shown_by_where_they_stand(two: World) -> None:
    failed(two, 15)
    desk = chosen(two)
    address = desk.address
    assert "Items 1 to 25 of 30" in desk.page
    assert "Items 26 to 30 of 30" in desk.open(f"{address}?page=2")
    assert "Items 1 to 25 of 30" in desk.open(f"{address}?stand=to_plan")
    desk.open(f"{address}?stand=delivered")
    assert "Items 1 to" not in desk.page
    assert "Items 1 to 25 of 30" in desk.open(f"{address}?stand=nonsense&page=x")


# --- saying the same about many -----------------------------------------------------------------------------------


def unknown(world: World, count: int) -> list[Case]:
    """Cases of retries that nobody heard of again; the operator sent them."""
    return [world.unknown().execution.case for _ in range(count)]


def test_the_same_is_said_about_all_that_fit(world: World) -> None:
    unknown(world, 3)
    first, second = Desk(world.second_analyst), Desk(world.approver)
    page = first.open("/console/cases/?state=outcome_unknown")
    assert "Say the same about all 3 whose outcome is unknown" in page
    page = first.press(
        "reconcile", seen="not_delivered", external_ref="INC-4471", notes="nothing in their log"
    )
    assert "What you saw of 3 cases is recorded; 0 are settled by it." in page
    assert "state=outcome_unknown" in first.address
    second.open("/console/cases/?state=outcome_unknown")
    page = second.press("reconcile", seen="not_delivered", external_ref="INC-4471")
    assert "3 are settled by it." in page
    assert set(Case.objects.values_list("state", flat=True)) == {CaseState.FAILED}
    assert Attestation.objects.count() == 6


def test_what_you_sent_yourself_is_left_out_and_said(world: World) -> None:
    people.grant_role(world.operator, Role.ANALYST, by=None, clock=system_clock)
    unknown(world, 2)
    operator = Desk(Person.objects.get(pk=world.operator.pk))
    operator.open("/console/cases/?state=outcome_unknown")
    page = operator.press("reconcile", 403, seen="delivered", external_ref="INC-1")
    assert "you sent the last attempt of each of these cases" in page
    assert not Attestation.objects.exists()


def test_nobody_speaks_of_cases_they_were_not_shown(world: World) -> None:
    unknown(world, 2)
    desk = Desk(world.second_analyst)
    desk.open("/console/cases/?state=outcome_unknown")
    unknown(world, 1)
    page = desk.press("reconcile", 409, seen="delivered", external_ref="INC-1", notes="typed")
    assert "other cases fit the filter than those you were shown; now it is 3" in page
    assert "typed" in page
    assert not Attestation.objects.exists()
    desk.press("reconcile", seen="delivered", external_ref="INC-1")
    assert Attestation.objects.count() == 3


def test_a_statement_needs_a_reference_and_an_answer(world: World) -> None:
    unknown(world, 2)
    desk = Desk(world.second_analyst)
    desk.open("/console/cases/")
    page = desk.press("reconcile", 400, notes="typed")
    assert "typed" in page
    assert page.count("This field is required.") >= 2
    assert not Attestation.objects.exists()


def test_too_many_at_once_are_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown(world, 2)
    monkeypatch.setattr(reconciliations, "MAX_AT_ONCE", 1)
    desk = Desk(world.second_analyst)
    page = desk.open("/console/cases/?state=outcome_unknown")
    assert "One statement is about at most 1 cases; narrow the filter." in page
    assert not desk.has_form("reconcile")


def test_connectors_of_a_set_keep_their_names(outage: World) -> None:
    """Nothing of a filter or a set is taken for markup."""
    connector("a_b", outage.receiver.url("/a_b"), title="<b>bold</b>")
    failed(outage, 1, "a_b")
    assert "<b>bold</b>" not in chosen(outage, provider="a_b").page
