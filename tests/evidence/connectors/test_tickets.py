"""Jira and ServiceNow: what they receive, what a yes is, and how they are asked (P3, P20, W29)."""

import json
import queue
from dataclasses import replace

import pytest

from evidence.connectors import asking
from evidence.connectors.credentials import Misconfigured
from evidence.connectors.prepare import prepare
from evidence.connectors.products import PRODUCTS, tickets
from evidence.connectors.sender import Sender
from evidence.connectors.specs import ConnectorSettings, SendSpec
from evidence.enums import Answer, Assurance, FailureClass, Product
from tests.evidence.connectors.fakes.jira import Jira
from tests.evidence.connectors.fakes.service import Reply, Service, units
from tests.evidence.connectors.fakes.servicenow import ServiceNow

ROUTES = [
    {"route_id": f"gordroute-{n}", "owner": "ops {code}", "acknowledgement_state": "outstanding"}
    for n in range(5)
]
EVENT = {
    "title": "Rollback drill\nacknowledgements: 5 of 5 outstanding",
    "event_type": "cavra.test",
    "alert_level": "critical",
    "session_id": "gordackdelivery-1",
    "audit_package_summary": {"audit_id": "gordackaudit-1", "route_count": 5},
    "routes": ROUTES,
}
FAKES = {
    Product.JIRA: Jira,
    Product.SERVICENOW: ServiceNow,
}
both = pytest.mark.parametrize("product", FAKES)


@pytest.fixture
def service(product, monkeypatch):
    made: Service = FAKES[product]()
    monkeypatch.setenv("TICKET_TOKEN", made.token)
    yield made
    made.stop()


def settings(service: Service, **changes) -> ConnectorSettings:
    product = Product.JIRA if isinstance(service, Jira) else Product.SERVICENOW
    options = {"project": "PAY"} if product is Product.JIRA else {}
    made = ConnectorSettings(
        key="tickets",
        product=product,
        url=service.url,
        token_ref="env:TICKET_TOKEN",
        allow_networks=("127.0.0.0/8",),
        options=tuple(sorted({**options, **changes.pop("options", {})}.items())),
    )
    return replace(made, **changes)


def send(sender: Sender, configured: ConnectorSettings, event=EVENT, about="case-1.tickets", timeout_s=30.0):
    prepared = prepare(configured, event, idempotency_key="k" * 32, message_id=about)
    return answered(
        sender,
        SendSpec(
            token="t",
            connector=configured.key,
            product=configured.product,
            url=prepared.url,
            headers=(*prepared.public_headers, *prepared.secret_headers),
            body=prepared.body,
            timeout_s=timeout_s,
            allow_networks=configured.allow_networks,
            options=configured.options,
            secrets=prepared.secrets,
        ),
    )


def ask(sender: Sender, configured: ConnectorSettings, about="case-1.tickets", timeout_s=30.0):
    return answered(sender, asking.order(configured, about, token="q", timeout_s=timeout_s, wait_s=30.0))


def answered(sender: Sender, spec: SendSpec):
    outcomes = queue.SimpleQueue()
    sender.submit(spec, outcomes)
    return outcomes.get(timeout=90)


# --- a ticket ---------------------------------------------------------------------------------------------------


@both
def test_a_ticket_is_made_and_confirmed(product, service, sender):
    receipt = send(sender, settings(service))
    assert (receipt.delivered, receipt.assurance, receipt.status_code) == (True, Assurance.CONFIRMED, 201)
    (asked,) = service.log
    (ticket,) = service.tickets
    said = ticket["fields"] if product is Product.JIRA else ticket
    text = said["description"]
    assert "gordackaudit-1" in text
    assert "gordroute-4, ops" in text
    label = tickets.stable_id("case-1.tickets")
    assert label in (said["labels"] if product is Product.JIRA else [said["correlation_id"]])
    assert asked.headers["idempotency-key"] == "k" * 32
    # What reads like markup is not: names cannot mention people or load images.
    if product is Product.JIRA:
        assert text.count("{") == 2
        assert text.startswith("{noformat}\n")
        assert text.endswith("\n{noformat}")


@both
def test_p20_every_try_of_a_message_has_the_same_id_and_another_message_another(product, service):
    configured, render = settings(service), PRODUCTS[product].render
    assert render(EVENT, configured, "case-1") == render(EVENT, configured, "case-1")
    assert tickets.stable_id("case-1") != tickets.stable_id("case-2")
    body, _ = render(EVENT, configured, "case-1")
    assert b"case-1" not in body
    assert len(tickets.stable_id("x" * 500)) == len("cavra-") + 24


@both
def test_a_large_event_is_shortened_and_says_how_much_is_left_out(product, service, sender):
    title = "🚧 " * 400
    routes = [
        {"route_id": f"r{n}", "owner": "🚧" * 300, "external_ref": "x\x00\u202ey"} for n in range(5_000)
    ]
    receipt = send(sender, settings(service), {**EVENT, "title": title, "routes": routes})
    assert receipt.delivered, receipt.error
    said = service.tickets[0].get("fields", service.tickets[0])
    text = said["description"]
    shown = text.count("\n- r")
    assert f"{5_000 - shown} more routes are not listed here." in text
    assert units(text) <= (32_767 if product is Product.JIRA else 4_000)
    assert not any(ord(c) < 32 and c != "\n" for c in text)


def test_nothing_is_cut_by_servicenow(sender, monkeypatch):
    """It cuts what is too long without a word: what we send fits."""
    fake = ServiceNow()
    monkeypatch.setenv("TICKET_TOKEN", fake.token)
    send(sender, settings(fake), {**EVENT, "title": "t" * 1000, "routes": ROUTES * 500})
    (asked,), (row,) = fake.asked("POST"), fake.tickets
    fake.stop()
    sent = json.loads(asked.body)
    assert {name: row[name] for name in sent} == sent
    assert (sent["urgency"], sent["impact"]) == ("1", "1")


@both
def test_a_user_name_makes_it_basic(product, service, sender):
    service.username = "svc@example.org"
    assert send(sender, settings(service)).failure_class is FailureClass.AUTH
    assert send(sender, settings(service, options={"username": "svc@example.org"})).delivered
    assert len(service.tickets) == 1


@both
@pytest.mark.parametrize(
    ("status", "expected"),
    (
        (400, FailureClass.REJECTED),
        (401, FailureClass.AUTH),
        (403, FailureClass.AUTH),
        (404, FailureClass.GONE),
        (413, FailureClass.REJECTED),
        (429, FailureClass.THROTTLED),
        (503, FailureClass.UNAVAILABLE),
        (200, FailureClass.BAD_RESPONSE),
    ),
)
def test_what_is_no_yes(product, service, sender, status, expected):
    service.override = Reply(status, {"key": "PAY-1", "result": {"sys_id": "a" * 32}}, {"retry-after": "7"})
    receipt = send(sender, settings(service))
    assert (receipt.failure_class, receipt.assurance) == (expected, None)
    assert receipt.retry_after_s == 7


@pytest.mark.parametrize(
    "body",
    (b"", b"[]", b"<html>", b'{"key":1}', b'{"key":"x y"}', b'{"result":[]}', b'{"result":{"sys_id":"1"}}'),
)
@both
def test_a_201_that_names_no_ticket_is_not_understood(product, service, sender, body):
    service.override = Reply(201, body)
    assert send(sender, settings(service)).failure_class is FailureClass.BAD_RESPONSE


def test_a_refused_field_is_rejected_before_anything_exists(sender, monkeypatch):
    fake = Jira()
    monkeypatch.setenv("TICKET_TOKEN", fake.token)
    fake.screen.remove("labels")
    receipt = send(sender, settings(fake))
    fake.stop()
    assert (receipt.failure_class, receipt.may_have_arrived) == (FailureClass.REJECTED, False)
    assert "not on the appropriate screen" in receipt.answer_excerpt
    assert fake.tickets == []


def test_a_record_that_cannot_be_found_again_is_accepted_no_more(sender, monkeypatch):
    fake = ServiceNow()
    monkeypatch.setenv("TICKET_TOKEN", fake.token)
    fake.unwritable.add("correlation_id")
    receipt = send(sender, settings(fake))
    fake.stop()
    assert (receipt.delivered, receipt.assurance) == (True, Assurance.ACCEPTED)


# --- the question -----------------------------------------------------------------------------------------------


@both
def test_p3_a_lost_answer_is_found_by_asking(product, service, sender):
    service.hang_up = True
    lost = send(sender, settings(service))
    assert (lost.failure_class, lost.may_have_arrived) == (FailureClass.CONNECTION_LOST, True)
    receipt = ask(sender, settings(service))
    reference = {"jira": "JIRA:PAY-1", "servicenow": "SERVICENOW:INC0000001"}[product]
    assert (receipt.found, receipt.reference, receipt.failure_class) == (True, reference, None)
    # A question is no delivery, whatever it found.
    assert (receipt.delivered, receipt.may_have_arrived, receipt.assurance) == (False, False, None)
    assert ask(sender, settings(service), about="case-2.tickets").found is False
    assert ask(sender, settings(service), about=asking.nobodys_id()).found is False
    assert len(service.tickets) == 1


@pytest.mark.parametrize("deployment", ("cloud", "data_center"))
def test_jira_is_asked_where_it_answers(sender, monkeypatch, deployment):
    fake = Jira(deployment)
    monkeypatch.setenv("TICKET_TOKEN", fake.token)
    configured = settings(fake, options={"deployment": deployment})
    assert send(sender, configured).delivered
    assert ask(sender, configured).found is True
    other = {"cloud": "data_center", "data_center": "cloud"}[deployment]
    assert ask(sender, settings(fake, options={"deployment": other})).failure_class is FailureClass.GONE
    with pytest.raises(Misconfigured, match="deployment"):
        ask(sender, settings(fake, options={"deployment": "moon"}))
    fake.stop()


@both
def test_p1_a_question_holds_an_id_and_nothing_of_the_content(product, service, sender):
    ask(sender, settings(service))
    (asked,) = service.log
    assert (asked.method, asked.body) == ("GET", b"")
    assert tickets.stable_id("case-1.tickets") in json.dumps(asked.query)
    assert "case-1" not in json.dumps([asked.path, asked.query, asked.headers])
    assert "idempotency-key" not in asked.headers


@both
def test_a_receiver_that_answers_with_everything_is_not_believed(product, service, sender):
    send(sender, settings(service), about="another-case")
    service.lies = True
    receipt = ask(sender, settings(service))
    assert receipt.found is not True
    assert receipt.reference == ""


def test_servicenow_ignores_a_query_it_does_not_understand(sender, monkeypatch):
    fake = ServiceNow()
    monkeypatch.setenv("TICKET_TOKEN", fake.token)
    send(sender, settings(fake), about="another-case")
    fake.unreadable.add("correlation_id")
    receipt = ask(sender, settings(fake))
    fake.stop()
    assert (receipt.found, receipt.failure_class) == (None, FailureClass.BAD_RESPONSE)


@both
@pytest.mark.parametrize(
    "body",
    (b"", b"[]", b"{}", b'{"issues":{},"result":{}}', b"<html>", b'{"issues":', b"[" * 70_000),
)
def test_an_answer_that_says_neither_is_a_failure(product, service, sender, body):
    service.override = Reply(200, body)
    receipt = ask(sender, settings(service))
    assert (receipt.found, receipt.failure_class) == (None, FailureClass.BAD_RESPONSE)


@both
@pytest.mark.parametrize(
    "reply",
    (
        {"issues": [None, 1, {"key": "PAY-1"}, {"key": "PAY-1", "fields": {"labels": "cavra-x"}}]},
        {"result": [None]},
        {"result": [{"correlation_id": 1, "sys_id": 2}]},
    ),
)
def test_a_malformed_ticket_is_none(product, service, sender, reply):
    service.override = Reply(200, reply)
    assert ask(sender, settings(service)).found is not True


@both
@pytest.mark.parametrize(
    ("status", "expected"),
    ((401, FailureClass.AUTH), (404, FailureClass.GONE), (429, FailureClass.THROTTLED)),
)
def test_a_refused_question_could_not_be_told(product, service, sender, status, expected):
    service.override = Reply(status, {})
    receipt = ask(sender, settings(service))
    assert (receipt.found, receipt.failure_class, receipt.may_have_arrived) == (None, expected, False)
    assert receipt.answer is Answer.ANSWERED


@both
def test_a_question_has_its_time_and_no_more(product, service, sender):
    service.mute = True
    receipt = ask(sender, settings(service), timeout_s=1.5)
    assert (receipt.found, receipt.failure_class) == (None, FailureClass.RESPONSE_TIMEOUT)
    assert receipt.duration_ms < 15_000


@both
def test_p19_a_question_goes_to_permitted_addresses_only(product, service, sender):
    receipt = ask(sender, settings(service, allow_networks=()))
    assert receipt.failure_class is FailureClass.BLOCKED_ADDRESS
    assert service.log == []


@both
def test_a_question_that_cannot_be_made_says_which_field(product, service, monkeypatch):
    monkeypatch.delenv("TICKET_TOKEN")
    with pytest.raises(Misconfigured, match="token_ref"):
        asking.order(settings(service), "m", token="q", timeout_s=1, wait_s=1)
    with pytest.raises(ValueError, match="cannot be asked"):
        asking.order(
            ConnectorSettings(key="c", product=Product.WEBHOOK, url="http://x"),
            "m",
            token="q",
            timeout_s=1,
            wait_s=1,
        )


@both
def test_no_secret_is_shown_by_an_order(product, service):
    assert service.token not in repr(asking.order(settings(service), "m", token="q", timeout_s=1, wait_s=1))
