"""The console's pages about drills, deliveries, connectors and the ledger: what they show, record and refuse."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.messages import get_messages
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from evidence.domain import verifications
from evidence.domain.clock import system_clock
from evidence.enums import CaseState, Role, RouteState
from evidence.models import Case, LedgerHead, Record, Route, Schedule, Verification
from tests.builders import World, connector, person
from tests.builders import schedule as scheduled
from tests.evidence.test_console import Plain, signed_in
from tests.receiver import Receiver

PAGES = (
    "/console/routes/",
    "/console/deliver/",
    "/console/ledger/",
    "/console/connectors/",
    "/console/find/",
)
ACTS = (
    "/console/routes/answer/",
    "/console/deliver/notify/",
    "/console/deliver/audit/",
    "/console/ledger/verify/",
    "/console/ledger/sign/",
)


@pytest.fixture
def analyst(world: World) -> Client:
    return signed_in(world.analyst)


def keys(client: Client, query: str = "") -> list[str]:
    """Rows of the list of routes that can be picked."""
    return re.findall(
        r'name="routes" value="([^"]+)"', client.get(f"/console/routes/{query}").content.decode()
    )


def said(answer: Any) -> list[str]:
    """What the next page says about what was done."""
    return [str(message) for message in get_messages(answer.wsgi_request)]


def addresses(case: Case) -> list[str]:
    """Every page here, filled, empty and refused."""
    return [
        *PAGES,
        "/console/routes/?owner=nobody",
        "/console/routes/?action=nonsense",
        "/console/find/?q=%00",
    ]


# --- who -------------------------------------------------------------------------------------------------------


def test_only_people_with_a_role_come_in(world: World) -> None:
    for address in (*PAGES, *ACTS):
        assert Client().get(address).status_code == 302
        assert signed_in(person()).get(address).status_code == 403


def test_viewers_see_how_connectors_do_and_no_case(world: World) -> None:
    (case,) = world.failed()
    viewer = signed_in(person(Role.VIEWER))
    shown = viewer.get("/console/connectors/")
    assert shown.status_code == 200
    assert "webhook" in shown.content.decode()
    for private in (case.case_id, "/console/cases/", world.receiver.url("")):
        assert private not in shown.content.decode()
    others = [page for page in PAGES if "connectors" not in page]
    assert {viewer.get(page).status_code for page in others} == {403}
    assert {viewer.post(act).status_code for act in ACTS} == {403}


def test_pages_are_read_and_acts_are_sent(analyst: Client) -> None:
    assert {analyst.post(page).status_code for page in PAGES} == {405}
    assert {analyst.get(act).status_code for act in ACTS} == {405}


def test_pages_have_no_code_of_their_own(world: World, analyst: Client) -> None:
    (case,) = world.failed()
    for address in addresses(case):
        page = Plain()
        answer = analyst.get(address)
        assert answer.status_code == (400 if "nonsense" in address or "%00" in address else 200), address
        page.feed(answer.content.decode())
        assert page.inline == [], address


def test_who_may_not_act_is_told_why_and_gets_no_button(world: World) -> None:
    world.announced()
    auditor = signed_in(world.auditor)
    for address, button in (("routes", "Record the answer"), ("deliver", "Deliver audit")):
        content = auditor.get(f"/console/{address}/").content.decode()
        assert f'aria-disabled="true" aria-describedby="why-not">{button}</button>' in content
        assert f"You are signed in as {world.auditor.username} with auditor." in content
    assert keys(auditor) == []


# --- routes ----------------------------------------------------------------------------------------------------


def test_one_answer_is_recorded_for_all_owners_of_every_picked_row(world: World, analyst: Client) -> None:
    plans = [world.announced(), world.announced()]
    picked = keys(analyst)
    assert picked == [f"payments-monthly/{plan}/webhook" for plan in reversed(plans)]
    answer = analyst.post(
        "/console/routes/answer/?provider=webhook",
        {"routes": picked, "state": "escalated", "external_ref": "INC-7", "notes": "two lines\nhere"},
    )
    assert (answer.status_code, answer["Location"]) == (302, "/console/routes/?provider=webhook")
    assert said(answer) == ["Escalated: 2 announcements recorded."]
    assert set(Route.objects.values_list("acknowledgement_state", "external_ref", "notes")) == {
        ("escalated", "INC-7", "two lines\nhere")
    }
    (row, *_) = analyst.get("/console/routes/").context["parts"]
    assert [route.owner for route in row.told] == ["release-governance", "payments-platform"]
    assert Record.objects.filter(record_id=row.answer.acknowledgement_id).exists()
    assert row.answer_by is None


@pytest.mark.parametrize(
    ("sent", "status", "sentence"),
    (
        ({"state": "acknowledged"}, 400, "Pick at least one row of the list."),
        ({"routes": ["all"], "state": "acknowledged"}, 400, "names no row of the list"),
        ({"routes": ["a/b/c"] * 101, "state": "resolved"}, 400, "at most 100 rows"),
        ({"routes": ["a/b/c"], "state": "outstanding"}, 400, "Select a valid choice"),
        ({"routes": ["payments-monthly/{plan}/webhook", "a/b/c"], "state": "resolved"}, 404, "No route of a"),
        (
            {
                "routes": ["payments-monthly/{plan}/webhook"],
                "state": "resolved",
                "external_ref": "https://x/1",
            },
            400,
            "not as a URL",
        ),
    ),
)
def test_an_answer_that_cannot_be_one_is_refused_whole(
    world: World, analyst: Client, sent: dict[str, Any], status: int, sentence: str
) -> None:
    plan = world.announced()
    sent = {**sent, "routes": [key.format(plan=plan) for key in sent.get("routes", ())]}
    before = LedgerHead.objects.get().size
    answer = analyst.post("/console/routes/answer/", sent)
    assert answer.status_code == status
    content = answer.content.decode()
    assert sentence in content
    assert "<title>Error: Routes" in content
    assert re.search(r'class="(errors|note is-bad)" role="alert"', content)
    assert LedgerHead.objects.get().size == before
    assert set(Route.objects.values_list("acknowledgement_state", flat=True)) == {RouteState.OUTSTANDING}
    # What was picked is still picked.
    assert (f'value="payments-monthly/{plan}/webhook" checked' in content) == any(
        plan in r for r in sent["routes"]
    )


def test_an_answer_without_the_role_is_refused(world: World) -> None:
    plan = world.announced()
    sent = {"routes": [f"payments-monthly/{plan}/webhook"], "state": "resolved"}
    answer = signed_in(world.operator).post("/console/routes/answer/", sent)
    assert answer.status_code == 403
    assert b"This needs a role that may acknowledge." in answer.content


def test_routes_are_found_by_filter_and_by_answer(db: None, receiver: Receiver) -> None:
    world = World(receiver, providers=("webhook", "other"))
    scheduled("other-drill", providers=("webhook", "other"))
    client = signed_in(world.analyst)
    for name in ("payments-monthly", "other-drill"):
        assert client.post("/console/deliver/notify/", {"schedule_id": name}).status_code == 302
    world.acknowledged()

    def found(query: str) -> list[str]:
        return [re.sub("/.*/", " ", key) for key in keys(client, query)]

    rows = ["other-drill other", "other-drill webhook", "payments-monthly webhook"]
    assert found("") == rows
    assert found("?acknowledgement_state=outstanding") == rows[:2]
    assert found("?acknowledgement_state=acknowledged") == rows[2:]
    assert found("?schedule_id=other-drill&provider=other") == rows[:1]
    assert found("?owner=HEAD-OF&action=deliver") == rows
    assert found("?action=suppress") == []


def test_owners_who_were_held_back_are_shown_with_the_reason(world: World, analyst: Client) -> None:
    world.schedule.owners.filter(name="payments-platform").update(
        available=False, unavailable_reason="on leave"
    )
    world.announced()
    (part,) = analyst.get("/console/routes/").context["parts"]
    assert ([r.owner for r in part.told], [r.owner for r in part.held]) == (
        ["release-governance"],
        ["payments-platform"],
    )
    assert "payments-platform was not told: " in analyst.get("/console/routes/").content.decode()


def test_routes_cost_the_same_however_many_there_are(world: World, analyst: Client) -> None:
    world.announced()

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert analyst.get("/console/routes/").status_code == 200
        return len(captured)

    before = queries()
    for _ in range(4):
        world.announced()
    # Breakers, windows, canaries, troubles and parked cases among them.
    assert queries() == before <= 14


# --- deliver ---------------------------------------------------------------------------------------------------


def test_owners_are_notified_and_the_package_delivered(world: World, analyst: Client) -> None:
    told = analyst.post("/console/deliver/notify/", {"schedule_id": "payments-monthly"})
    assert (told.status_code, told["Location"]) == (302, "/console/routes/?schedule_id=payments-monthly")
    assert said(told) == ["2 routes announced through webhook."]
    sent = analyst.post("/console/deliver/audit/", {"delivery_providers": ["webhook"], "owner": "PAYMENTS"})
    case = Case.objects.get()
    assert (sent.status_code, sent["Location"]) == (302, f"/console/cases/{case.case_id}/")
    assert said(sent)[-1] == "Sent: webhook delivered."
    assert case.state == CaseState.DELIVERED
    assert [arrived.path for arrived in world.receiver.log] == ["/webhook", "/webhook"]


def test_what_was_not_taken_is_said(db: None, receiver: Receiver) -> None:
    world = World(receiver, providers=("webhook", "other"))
    client = signed_in(world.analyst)
    receiver.behave("/webhook", status=400)
    told = client.post(
        "/console/deliver/notify/", {"schedule_id": "payments-monthly", "providers": ["webhook"]}
    )
    assert said(told) == [
        "2 routes announced through webhook. webhook did not take it; a notice is not sent again by itself."
    ]
    sent = client.post("/console/deliver/audit/", {})
    assert sent["Location"] == "/console/cases/"
    assert said(sent)[-1:] == ["Sent: other delivered, webhook failed."]
    again = client.post("/console/deliver/audit/", {})
    unsettled = Case.objects.get(connector__key="webhook").case_id
    assert said(again)[-2:] == [
        "Sent: other delivered.",
        f"Not sent to webhook: the same content is already an unsettled case, {unsettled}. "
        "Work that case instead.",
    ]


def test_unsettled_content_is_not_sent_again_and_leads_to_its_case(world: World, analyst: Client) -> None:
    (case,) = world.failed()
    requests = len(world.receiver.log)
    answer = analyst.post("/console/deliver/audit/", {})
    content = answer.content.decode()
    assert answer.status_code == 409
    assert "Not sent: the same content is already an unsettled case" in content
    assert f'href="/console/cases/{case.case_id}/">{case.case_id}</a>' in content
    assert len(world.receiver.log) == requests
    assert Case.objects.count() == 1


@pytest.mark.parametrize(
    ("act", "sent", "sentence"),
    (
        ("notify", {}, "This field is required."),
        ("notify", {"schedule_id": "nothing"}, "nothing is not one of the available choices"),
        ("audit", {"delivery_providers": ["nothing"]}, "nothing is not one of the available choices"),
        ("audit", {"owner": "x" * 121}, "Owner"),
    ),
)
def test_what_cannot_be_sent_is_refused_at_its_field(
    world: World, analyst: Client, act: str, sent: dict[str, Any], sentence: str
) -> None:
    before = LedgerHead.objects.get().size
    answer = analyst.post(f"/console/deliver/{act}/", sent)
    assert answer.status_code == 400
    assert "Nothing was sent or recorded" in answer.content.decode()
    assert sentence in answer.content.decode()
    assert LedgerHead.objects.get().size == before
    assert world.receiver.log == []


def test_a_drill_that_is_not_due_tells_nobody_unless_asked_to(world: World, analyst: Client) -> None:
    Schedule.objects.update(next_due_at=system_clock() + timedelta(days=365))
    assert "not due" in analyst.get("/console/deliver/").content.decode()
    quiet = analyst.post("/console/deliver/notify/", {"schedule_id": "payments-monthly"})
    assert said(quiet) == ["Nobody was told; that is recorded. The drill is not due yet."]
    assert world.receiver.log == []
    analyst.post("/console/deliver/notify/", {"schedule_id": "payments-monthly", "force": "on"})
    assert len(world.receiver.log) == 1


def test_an_empty_installation_says_what_is_missing(db: None) -> None:
    client = signed_in(person(Role.ANALYST))
    assert "No drill is scheduled" in client.get("/console/deliver/").content.decode()
    assert "Nobody was told yet" in client.get("/console/routes/").content.decode()
    assert "No connector is configured" in client.get("/console/connectors/").content.decode()
    refused = client.post("/console/deliver/audit/", {})
    assert refused.status_code == 400
    assert "No connector is configured." in refused.content.decode()


# --- ledger ----------------------------------------------------------------------------------------------------


def test_the_ledger_is_verified_on_request(world: World, analyst: Client) -> None:
    world.failed()
    head = LedgerHead.objects.get()
    before = analyst.get("/console/ledger/").content.decode()
    assert "Never verified" in before
    assert "hx-trigger" not in before
    asked = analyst.post("/console/ledger/verify/")
    assert (asked.status_code, asked["Location"]) == (302, "/console/ledger/#verify")
    waiting = analyst.get("/console/ledger/").content.decode()
    assert 'hx-trigger="every 1s"' in waiting
    assert "Verify now" not in waiting
    # Nobody is there to take it, and the panel says so rather than turn for ever.
    assert "Verifying begins as soon as one does" in waiting
    Verification.objects.update(requested_at=system_clock() - timedelta(minutes=1))
    assert 'hx-trigger="every 5s"' in analyst.get("/console/ledger/verification/").content.decode()
    # Somebody else who asks gets the same pass.
    signed_in(world.auditor).post("/console/ledger/verify/")
    assert Verification.objects.count() == 1
    assert verifications.run_due(clock=system_clock) == 1
    panel = analyst.get("/console/ledger/verification/").content.decode()
    assert "No difference, checked" in panel
    assert "hx-trigger" not in panel
    assert f"{head.size} entries and bodies recomputed" in panel
    assert world.analyst.username in panel


def test_the_ledger_shows_its_head_and_growth(world: World, analyst: Client) -> None:
    verifications.ask(by=None, clock=system_clock)
    verifications.run_due(clock=system_clock)
    shown = analyst.get("/console/ledger/")
    head = LedgerHead.objects.get()
    assert shown.context["root"] == verifications.latest().root  # type: ignore[union-attr]
    assert shown.context["root"] in shown.content.decode()
    assert (len(shown.context["sizes"]), shown.context["sizes"][-1]) == (30, head.size)
    assert shown.context["added"] == head.size


def test_a_difference_is_shown_with_its_entry(world: World, analyst: Client) -> None:
    found = "entry 1 (gord-1): body digest: expected aa, found bb"
    Verification.objects.create(
        state="finished", requested_at=system_clock(), finished_at=system_clock(), size=1300, checked=1300,
        differences=1200, first_difference=found, first_index=1,
    )  # fmt: skip
    content = analyst.get("/console/ledger/").content.decode()
    assert "1,200 differences, checked" in content
    assert f"at entry 1: <code>{found}</code>" in content
    assert "Change nothing in the database" in content


# --- connectors and find ---------------------------------------------------------------------------------------


def test_connectors_stand_with_their_cases_and_the_worst_first(db: None, receiver: Receiver) -> None:
    world = World(receiver, providers=("other", "webhook"))
    world.failed("webhook")
    shown = signed_in(world.analyst).get("/console/connectors/")
    first = shown.context["connectors"][0]
    assert (first.key, first.unsettled) == ("webhook", 1)
    content = shown.content.decode()
    assert 'href="/console/cases/?provider=webhook"' in content
    assert content.index('id="connector-webhook"') < content.index('id="connector-other"')
    assert 'hx-trigger="every 30s"' in content


def test_connectors_cost_the_same_however_many_there_are(db: None, receiver: Receiver) -> None:
    client = signed_in(World(receiver).analyst)

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert client.get("/console/connectors/").status_code == 200
        return len(captured)

    before = queries()
    for n in range(20):
        connector(f"more_{n}", receiver.url("/"))
    assert queries() == before <= 14


def test_one_hit_leads_on_several_are_listed_and_none_says_so(world: World, analyst: Client) -> None:
    (case,) = world.failed()
    there = analyst.get("/console/find/", {"q": f"  {case.case_id} "})
    assert (there.status_code, there["Location"]) == (302, f"/console/cases/{case.case_id}/")
    health = analyst.get("/console/find/", {"q": "webhook"})
    assert health["Location"] == "/console/connectors/#connector-webhook"
    person_record = Record.objects.filter(kind="person").latest("index")
    record = analyst.get("/console/find/", {"q": person_record.digest[:16]})
    assert record["Location"] == f"/console/records/{person_record.record_id}/"
    nothing = analyst.get("/console/find/", {"q": "<nothing>"})
    assert nothing.status_code == 200
    assert "Nothing bears the name “&lt;nothing&gt;”" in nothing.content.decode()
    assert "What do you have in hand?" in analyst.get("/console/find/").content.decode()


def test_a_reference_of_several_records_lists_them(world: World, analyst: Client) -> None:
    world.announced()
    world.announced()
    answer = {"routes": keys(analyst), "state": "resolved", "external_ref": "CHG-77"}
    analyst.post("/console/routes/answer/", answer)
    listed = analyst.get("/console/find/", {"q": "chg-77"})
    assert listed.status_code == 200
    stored = Record.objects.filter(kind__endswith="acknowledgement").order_by("-index")[:2]
    for record in stored:
        assert f'href="/console/records/{record.record_id}/"' in listed.content.decode()
    assert "2 bear this name" in listed.content.decode()


@pytest.mark.parametrize("sought", ("\x00", "x" * 201))
def test_what_no_name_can_hold_is_refused(analyst: Client, sought: str) -> None:
    answer = analyst.get("/console/find/", {"q": sought})
    assert answer.status_code == 400
    assert b"Not looked for: " in answer.content
