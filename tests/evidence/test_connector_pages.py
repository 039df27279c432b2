"""The pages of connectors: what holds one back, how it did, its test in place, for whom (P16, P17, P18, P22)."""

import re
from datetime import timedelta

import pytest
from django.test import Client

from evidence.console.connector_views import said_of
from evidence.domain import canaries, configuration, deliveries, troubles
from evidence.domain.clock import system_clock
from evidence.domain.deliveries import DeliveryRequest
from evidence.domain.packages import PackageFilters
from evidence.enums import Outcome, Role
from evidence.models import Canary, Case, Connector, Person, Record
from tests.builders import Clock, World, connector, person
from tests.evidence import breaking
from tests.receiver import Receiver

LIST = "/console/connectors/"
PAGE = f"{LIST}webhook/"
CANARY = f"{PAGE}canary/"


@pytest.fixture
def two(db: None, receiver: Receiver) -> World:
    return World(receiver, providers=("webhook", "backup"))


def signed_in(who: Person) -> Client:
    client = Client()
    client.force_login(who)
    return client


def text_of(who: Person, path: str = PAGE) -> str:
    """The page as words."""
    answer = signed_in(who).get(path)
    assert answer.status_code == 200
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", answer.content.decode()))


def parked(world: World, clock: Clock) -> Case:
    """A first delivery that waits for a connector whose breaker is open."""
    world.announced()
    world.acknowledged()
    breaking.opened("webhook", clock)
    request = DeliveryRequest(filters=PackageFilters(), providers=("webhook",), retries=0, timeout_s=5.0)
    (case,) = deliveries.deliver_audit(request, by=world.analyst, clock=world.clock).cases
    return case


def test_the_limit_of_a_connector_is_its_own(two: World) -> None:
    connector("log", "syslog://127.0.0.1:601", product="syslog", options={"max_bytes": "2048"})
    assert "2.0\xa0KB a message" in signed_in(two.analyst).get(f"{LIST}log/").content.decode()
    assert "1.0\xa0MB a message" in signed_in(two.analyst).get(PAGE).content.decode()


def test_the_list_shows_what_holds_a_connector_back(two: World) -> None:
    parked(two, Clock())
    words = text_of(two.analyst, LIST)
    assert "after 5 failures in a row: receiver is unavailable" in words
    assert "Deliveries are parked: none is dropped and no attempt is spent." in words
    assert "1 parked" in words
    assert words.index("webhook") < words.index("backup")
    assert "Send canary" not in words
    assert "Send canary to webhook" in text_of(two.operator, LIST)


def test_p16_what_is_parked_is_named_with_age_and_owner(two: World) -> None:
    case = parked(two, Clock())
    answer = signed_in(two.operator).get(PAGE).content.decode()
    assert f'href="/console/cases/{case.case_id}/"' in answer
    words = text_of(two.operator)
    assert f"1, oldest just now , {two.analyst.username}’s" in words
    assert "Check the destination's own health and capacity." in words.replace("&#x27;", "'")


def test_a_parked_case_says_until_when_in_words(two: World) -> None:
    case = parked(two, Clock())
    words = text_of(two.analyst, f"/console/cases/{case.case_id}/")
    assert re.search(r"the next canary goes at \d+ [A-Z][a-z]+ \d{4} \d\d:\d\d:\d\d UTC\.", words)


def test_a_window_is_planned_and_no_failure(two: World) -> None:
    clock = Clock()
    breaking.window("webhook", clock.at - timedelta(minutes=1), clock.at + timedelta(hours=1), clock)
    words = text_of(two.analyst)
    assert "Under maintenance until" in words
    assert "what is for it waits and does not fail" in words


def test_charts_have_a_title_a_description_and_a_table(two: World) -> None:
    two.failed("webhook")
    page = signed_in(two.analyst).get(PAGE).content.decode()
    labels = re.findall(r'role="img" aria-labelledby="([^"]*)"', page)
    assert labels == ["lat-t lat-d", "rate-text"]
    for name in " ".join(labels).split():
        assert f'id="{name}"' in page
    assert "In 1 of 48 half hours a try was not delivered." in page
    assert page.count("Numbers as a table") == 2
    assert "1 try, 0.0 % delivered." in page
    assert " style=" not in page


def test_a_chart_without_any_answer_says_so(two: World) -> None:
    connector("gone", "http://127.0.0.1:9/")
    two.delivered("gone")
    page = signed_in(two.analyst).get(f"{LIST}gone/").content.decode()
    assert "Nothing answered. In 1 of 48 half hours a try was not delivered." in page
    assert "no answer in 24 hours" in page
    assert "0 ms" not in page


def test_an_empty_page_says_so(two: World) -> None:
    words = text_of(two.analyst)
    for sentence in (
        "Nothing stands against sending to webhook.",
        "Nothing was sent in 24 hours.",
        "Nothing was sent in 14 days.",
        "No canary was sent yet.",
        "No evidence was sent through webhook yet.",
        "Nobody is told.",
    ):
        assert sentence in words
    assert signed_in(two.analyst).get(f"{LIST}nothing/").status_code == 404


def test_the_button_sends_one_and_the_page_says_what_came_of_it(two: World) -> None:
    client = signed_in(two.operator)
    done = client.post(CANARY)
    assert (done.status_code, done["location"]) == (302, f"{PAGE}#canary")
    (canary,) = Canary.objects.all()
    words = re.sub(r"<[^>]*>", " ", client.get(PAGE).content.decode())
    assert f"Canary: webhook took the message in {canary.duration_ms} ms (HTTP 200)." in words
    assert canary.canary_id[-16:][:8] in words


def test_a_refusal_is_shown_in_place_and_is_the_buttons_reason(
    two: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canaries, "PAUSE", timedelta(minutes=10))
    client = signed_in(two.operator)
    client.post(CANARY)
    refused = client.post(CANARY)
    assert refused.status_code == 409
    page = refused.content.decode()
    assert "data-refusal" in page
    assert "No canary was sent. webhook was tested just now; the next canary may go in" in page
    assert "<title>Error: webhook" in page
    assert 'aria-disabled="true" aria-describedby="why-not"' in page
    assert client.post(f"{LIST}nothing/canary/").status_code == 404
    assert len(two.receiver.arrived("/webhook")) == 1


def test_what_the_receiver_says_no_to_is_a_result(two: World) -> None:
    two.receiver.behave("/webhook", status=403)
    client = signed_in(two.administrator)
    client.post(CANARY)
    words = re.sub(r"<[^>]*>", " ", client.get(PAGE).content.decode())
    assert "Canary: webhook did not take it: credential was refused (HTTP 403)." in words


def test_a_status_is_named_by_its_protocol() -> None:
    mail = Connector(key="mail", product="email")
    refused = Canary(connector=mail, outcome=Outcome.FAILED, failure_class="auth", status_code=535)
    assert said_of(refused) == "Canary: mail did not take it: credential was refused (SMTP 535)."


def test_p22_who_may_not_is_told_and_the_form_is_not_there(two: World) -> None:
    words = text_of(two.analyst)
    assert "This needs a role that may send canary." in words
    assert signed_in(two.analyst).post(CANARY).status_code == 403
    viewer = person(Role.VIEWER)
    assert signed_in(viewer).post(CANARY).status_code == 403
    assert not two.receiver.log
    assert not Record.objects.filter(kind="connector-canary").exists()


def test_p18_a_viewer_sees_numbers_and_no_case(two: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAVRA_TEST_TOKEN", "a-token-value")
    connector("chat", two.receiver.url("/chat-path"), token_ref="env:CAVRA_TEST_TOKEN", product="webhook")
    case = parked(two, Clock())
    viewer = person(Role.VIEWER)
    for path in (LIST, PAGE, f"{LIST}chat/"):
        page = signed_in(viewer).get(path).content.decode()
        for word in (case.case_id, case.plan.delivery_id, "127.0.0.1", "chat-path", "CAVRA_TEST_TOKEN"):
            assert word not in page, (path, word)
    assert "receiver is unavailable" in text_of(viewer)


def test_who_is_told_of_trouble_is_shown(two: World) -> None:
    two.failed("webhook")
    clock = Clock()
    clock.forward(hours=2)
    row = Connector.objects.get(key="webhook")
    row.announce_through = "backup"
    configuration.save(row, by=None, clock=system_clock)
    assert "backup is told after an hour" in text_of(two.analyst)
    assert troubles.announce(clock=clock) == 1
    words = text_of(two.analyst)
    assert "backup was told" in words
    assert "Announced trouble" in words
    assert "not yet" in words


def test_the_recovery_that_goes_on_is_linked(two: World) -> None:
    assert "Open recovery" not in text_of(two.analyst)
    two.failed("webhook")
    two.playbook()
    page = signed_in(two.analyst).get(PAGE).content.decode()
    assert 'href="/console/recoveries/webhook/"' in page
    assert "Open recovery" not in text_of(person(Role.VIEWER))


def test_a_lost_canary_is_shown_as_unknown(two: World) -> None:
    clock = Clock()
    canaries._begin(Connector.objects.get(key="webhook"), by=two.operator, clock=clock)
    assert "A canary to webhook is under way." in text_of(two.operator)
    clock.forward(minutes=5)
    canaries.give_up(clock=clock)
    assert "Outcome unknown" in text_of(two.operator)
