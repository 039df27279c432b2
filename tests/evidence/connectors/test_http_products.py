"""Sentinel, Datadog, Slack, Teams, PagerDuty and Splunk's acknowledgements against strict stand-ins, over TLS."""

import hashlib
import json
import time
from dataclasses import replace

import pytest
import rfc8785
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evidence.connectors.credentials import Misconfigured
from evidence.connectors.prepare import prepare
from evidence.connectors.products import PRODUCTS, brief, pagerduty, sentinel
from evidence.connectors.sender import Sender
from evidence.connectors.specs import ConnectorSettings
from evidence.enums import Answer, Assurance, FailureClass, Product
from tests.evidence.connectors.fakes import ingestion
from tests.evidence.connectors.fakes import slack as slack_rules
from tests.evidence.connectors.fakes import teams as teams_rules
from tests.evidence.connectors.fakes.datadog import Datadog
from tests.evidence.connectors.fakes.hec import Hec
from tests.evidence.connectors.fakes.ingestion import Entra, Ingestion
from tests.evidence.connectors.fakes.pagerduty import PagerDuty
from tests.evidence.connectors.fakes.slack import Slack
from tests.evidence.connectors.fakes.teams import Teams
from tests.evidence.connectors.ordering import KEY, MESSAGE_ID, configured, delivered, order, tls
from tests.evidence.connectors.receiver import answer, send
from tests.evidence.connectors.sample import event

SECRET = "s3cr3t-of-this-connector"
ROUTING_KEY = "R0UT1NGKEY0123456789abcdef012345"
CHANNEL = "FE0ECFAD-13D5-401B-847D-77833BD77131"
SENTINEL_OPTIONS = {"client_id": ingestion.CLIENT, "dcr": ingestion.RULE, "stream": ingestion.STREAM}


@pytest.fixture(autouse=True)
def _secrets(monkeypatch):
    monkeypatch.setenv("SECRET", SECRET)
    monkeypatch.setenv("WRONG", "another-value-altogether")
    monkeypatch.setenv("ROUTING_KEY", ROUTING_KEY)
    sentinel._tokens.clear()


@pytest.fixture
def serve(receive):
    """``serve(stand_in)`` is a receiver that speaks TLS."""
    return lambda script: receive(script, tls=tls())


def assert_accepted(receipt):
    assert receipt.delivered, receipt
    assert (receipt.assurance, receipt.failure_class, receipt.error) == (Assurance.ACCEPTED, None, "")


def assert_refused(receipt, failure_class, status):
    assert (receipt.failure_class, receipt.status_code) == (failure_class, status)
    assert not receipt.delivered


# --- Splunk ---------------------------------------------------------------------------------------------------


def splunk(receiver, path="/services/collector/event", token="env:SECRET", **options):
    return configured(Product.SPLUNK, receiver, path, token_ref=token, options=options)


def test_splunk_without_a_channel_is_accepted(sender, serve):
    hec = Hec(SECRET)
    assert_accepted(delivered(sender, splunk(serve(hec)), event()))
    assert hec.taken[0]["event"] == event()


@pytest.mark.parametrize(
    "path", ("/services/collector", "/services/collector/event", "/services/collector?a=1")
)
def test_splunk_with_a_channel_is_confirmed_when_it_is_indexed(sender, serve, path):
    hec = Hec(SECRET, acknowledges=True, polls=2)
    receipt = delivered(sender, splunk(serve(hec), path, channel=CHANNEL), event())
    assert (receipt.delivered, receipt.assurance) == (True, Assurance.CONFIRMED)
    assert hec.asked == [1, 1, 1]
    assert "x-splunk-request-channel" in receipt.header_names


def test_splunk_is_asked_through_what_stands_before_it(sender, serve, monkeypatch):
    monkeypatch.setenv("GATEWAY", "key-of-the-gateway")
    hec = Hec(SECRET, acknowledges=True)
    hec.override = lambda request: (
        None if request.headers.get("x-gateway") == "key-of-the-gateway" else answer(403)
    )
    behind = {"api_key_ref": "env:GATEWAY", "api_key_header": "X-Gateway"}
    receiver = serve(hec)
    receipt = delivered(sender, replace(splunk(receiver, channel=CHANNEL), **behind), event())
    assert receipt.assurance is Assurance.CONFIRMED
    sent, *asked = receiver.requests
    assert ["idempotency-key" in each.headers for each in (sent, asked[0])] == [True, False]


def test_splunk_stays_accepted_when_indexing_outlasts_the_time(sender, serve):
    hec = Hec(SECRET, acknowledges=True, polls=1_000)
    began = time.monotonic()
    receipt = delivered(sender, splunk(serve(hec), channel=CHANNEL), event(), timeout_s=3.0)
    assert_accepted(receipt)
    assert hec.asked
    assert time.monotonic() - began < 15


def test_splunk_stays_accepted_when_the_sender_stops_before_indexing_is_over(serve):
    hec, sender = Hec(SECRET, acknowledges=True, polls=1_000), Sender()
    receipts = sender.send_all([order(splunk(serve(hec), channel=CHANNEL), event())], deadline_s=10)
    while not hec.asked:
        time.sleep(0.01)
    sender.stop()
    assert_accepted(*receipts)


@pytest.mark.parametrize(
    "said",
    (
        answer(503, b"{}"),
        answer(200, b"<html>"),
        answer(200, b'{"acks":[true]}'),
        answer(200, b"[" * 60_000),
        answer(302, b"", "Location: https://127.0.0.1/"),
        answer(200, b"{}", *(f"X-{number}: {'x' * 4_000}" for number in range(30))),
        b"SSH-2.0-OpenSSH\r\n",
    ),
)
def test_splunk_stays_accepted_whatever_is_said_about_the_acknowledgement(sender, serve, said):
    hec = Hec(SECRET, acknowledges=True)
    hec.override = lambda request: said if b"/ack?" in request.raw[:200] else None
    assert_accepted(delivered(sender, splunk(serve(hec), channel=CHANNEL), event()))


def test_splunk_says_what_it_does_not_take(sender, serve):
    hec = Hec(SECRET, acknowledges=True)
    receiver = serve(hec)
    assert_refused(delivered(sender, splunk(receiver), event()), FailureClass.REJECTED, 400)
    wrong = splunk(receiver, token="env:WRONG", channel=CHANNEL)
    assert_refused(delivered(sender, wrong, event()), FailureClass.AUTH, 403)
    assert hec.taken == []


# --- Sentinel -------------------------------------------------------------------------------------------------


@pytest.fixture
def entra(serve):
    entra = Entra(SECRET)
    entra.receiver = serve(entra)
    return entra


@pytest.fixture
def azure(serve, entra):
    azure = Ingestion(entra)
    azure.receiver = serve(azure)
    return azure


def workspace(azure, entra, **changes):
    options = {
        **SENTINEL_OPTIONS,
        "token_url": entra.receiver.url(path=ingestion.TENANT_PATH, scheme="https"),
        **changes.pop("options", {}),
    }
    return configured(
        Product.SENTINEL, azure.receiver, **({"token_ref": "env:SECRET", "options": options} | changes)
    )


def test_sentinel_gets_rows_that_are_the_event(sender, azure, entra):
    told = event()
    receipt = delivered(sender, workspace(azure, entra), told)
    assert_accepted(receipt)
    (row,) = azure.taken
    text = rfc8785.dumps(told)
    assert row["EventText"].encode() == text
    assert row["EventSha256"] == hashlib.sha256(text).hexdigest()
    assert (row["Part"], row["Parts"], row["MessageId"]) == (1, 1, MESSAGE_ID)
    assert (row["SessionId"], row["AlertLevel"]) == (told["session_id"], "critical")
    # The token's header is on the receipt by name.
    assert "authorization" in receipt.header_names
    # Nothing but the content counts as sent.
    assert receipt.bytes_sent == len(azure.receiver.requests[0].raw)


def test_sentinel_gets_a_long_event_in_parts_that_are_not_cut(sender, azure, entra):
    told = event(200, text="ü" * 60)
    assert_accepted(delivered(sender, workspace(azure, entra), told))
    assert [row["Part"] for row in azure.taken] == list(range(1, azure.taken[0]["Parts"] + 1))
    assert len(azure.taken) > 2
    assert "".join(row["EventText"] for row in azure.taken).encode() == rfc8785.dumps(told)


def test_sentinel_keeps_its_token_until_shortly_before_it_ends(sender, azure, entra):
    for _ in range(3):
        assert_accepted(delivered(sender, workspace(azure, entra), event()))
    assert len(entra.tokens) == 1
    sentinel._tokens.clear()
    entra.expires_in = 30
    for _ in range(2):
        assert_accepted(delivered(sender, workspace(azure, entra), event()))
    assert len(entra.tokens) == 3


def test_sentinels_token_is_one_connectors_with_one_secret(sender, azure, entra, monkeypatch):
    assert_accepted(delivered(sender, workspace(azure, entra), event()))
    other = replace(workspace(azure, entra), key="other")
    assert_accepted(delivered(sender, other, event()))
    assert len(entra.tokens) == 2
    monkeypatch.setenv("SECRET", "rotated-secret-value")
    assert_refused(delivered(sender, workspace(azure, entra), event()), FailureClass.AUTH, None)
    entra.secret = "rotated-secret-value"
    assert_accepted(delivered(sender, workspace(azure, entra), event()))


def test_sentinel_drops_a_token_that_is_refused(sender, azure, entra):
    assert_accepted(delivered(sender, workspace(azure, entra), event()))
    azure.revoked.update(entra.tokens)
    receipt = delivered(sender, workspace(azure, entra), event())
    assert_refused(receipt, FailureClass.AUTH, 401)
    # Not sent again by itself; the next try has a token of its own.
    assert len(azure.receiver.requests) == 2
    assert_accepted(delivered(sender, workspace(azure, entra), event()))
    assert len(entra.tokens) == 2


@pytest.mark.parametrize(
    ("changes", "failure_class"),
    (
        ({"token_ref": "env:WRONG"}, FailureClass.AUTH),
        ({"options": {"client_id": ingestion.CLIENT.replace("1", "9")}}, FailureClass.AUTH),
        ({"options": {"scope": "https://monitor.azure.us/.default"}}, FailureClass.MISCONFIGURED),
    ),
)
def test_sentinel_without_a_token_sends_nothing(sender, azure, entra, changes, failure_class):
    receipt = delivered(sender, workspace(azure, entra, **changes), event())
    assert receipt.failure_class is failure_class
    assert (receipt.answer, receipt.bytes_sent, receipt.may_have_arrived) == (Answer.NOT_SENT, 0, False)
    assert "token endpoint" in receipt.error
    assert azure.receiver.connections == 0


@pytest.mark.parametrize(
    ("reply", "failure_class"),
    (
        (answer(503, b"busy"), FailureClass.UNAVAILABLE),
        (answer(429, b"", "Retry-After: 7"), FailureClass.THROTTLED),
        (answer(302, b"", "Location: http://127.0.0.1/"), FailureClass.BAD_RESPONSE),
        (answer(200, b"<html>"), FailureClass.BAD_RESPONSE),
        (answer(200, b'{"token_type":"Bearer","access_token":"a b"}'), FailureClass.BAD_RESPONSE),
        (answer(200, b'{"token_type":"Bearer","access_token":"a\\r\\nx: y"}'), FailureClass.BAD_RESPONSE),
        (answer(200, b'{"token_type":"mac","access_token":"abc"}'), FailureClass.BAD_RESPONSE),
        (answer(200, b"[" * 60_000), FailureClass.BAD_RESPONSE),
        (answer(400, b'{"error":["invalid_client"]}'), FailureClass.REJECTED),
    ),
)
def test_sentinels_token_endpoint_may_say_anything(sender, azure, entra, reply, failure_class):
    entra.override = lambda _request: reply
    receipt = delivered(sender, workspace(azure, entra), event())
    assert (receipt.failure_class, receipt.bytes_sent) == (failure_class, 0)
    assert not receipt.may_have_arrived


def test_sentinels_token_endpoint_is_guarded_like_any_destination(sender, azure, entra):
    settings = workspace(azure, entra)
    closed = {"token_url": "https://127.0.0.1:1/token"}
    receipt = delivered(sender, workspace(azure, entra, options=closed), event())
    assert (receipt.failure_class, receipt.bytes_sent) == (FailureClass.CONNECT, 0)
    assert receipt.error == "no connection (token endpoint, ECONNREFUSED)"
    private = {"token_url": "https://169.254.169.254/token"}
    receipt = delivered(sender, workspace(azure, entra, options=private), event())
    assert (receipt.failure_class, receipt.bytes_sent) == (FailureClass.BLOCKED_ADDRESS, 0)
    # Without the authority that vouches for it.
    receipt = delivered(sender, replace(settings, ca_pem=""), event())
    assert (receipt.failure_class, receipt.bytes_sent) == (FailureClass.TLS, 0)
    assert entra.tokens == []


def test_the_time_for_the_token_counts(sender, azure, entra):
    entra.override = lambda _request: entra.receiver.released.wait(60) and None
    began = time.monotonic()
    receipt = delivered(sender, workspace(azure, entra), event(), timeout_s=2.0)
    assert time.monotonic() - began < 30
    assert (receipt.failure_class, receipt.bytes_sent) == (FailureClass.RESPONSE_TIMEOUT, 0)
    assert (receipt.answer, receipt.may_have_arrived) == (Answer.NOT_SENT, False)
    assert receipt.error == "no complete answer in time (token endpoint)"
    assert azure.receiver.connections == 0


@pytest.mark.parametrize(
    "options",
    (
        {"token_url": "http://login.example/token"},
        {"token_url": "https://user:pass@login.example/token"},
        {"token_url": "https://login.example:0/token"},
        {"token_url": "https://0x7f.1/token"},
        {"token_url": ""},
        {"dcr": "dcr-1/../../x"},
        {"stream": "Custom-x?y=z"},
        {"client_id": "me"},
        {"colour": "red"},
    ),
)
def test_sentinels_options_have_a_form(options):
    good = {**SENTINEL_OPTIONS, "token_url": "https://login.example/token"}
    settings = ConnectorSettings(
        key="siem",
        product=Product.SENTINEL,
        url="https://x.ingest.monitor.azure.com",
        token_ref="env:SECRET",
        options=tuple(sorted((good | options).items())),
    )
    with pytest.raises(Misconfigured) as refused:
        prepare(settings, event(), idempotency_key="k", message_id="m")
    assert refused.value.field == "options"
    assert "user:pass" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "failure_class", "status"),
    (
        ({"dcr": "dcr-" + "0" * 32}, FailureClass.GONE, 404),
        ({"stream": "Custom-Other_CL"}, FailureClass.REJECTED, 400),
    ),
)
def test_sentinel_says_what_it_does_not_take(sender, azure, entra, changes, failure_class, status):
    receipt = delivered(sender, workspace(azure, entra, options=changes), event())
    assert_refused(receipt, failure_class, status)


# --- Datadog --------------------------------------------------------------------------------------------------


def datadog(receiver, path="", **changes):
    return configured(Product.DATADOG, receiver, path, **({"api_key_ref": "env:SECRET"} | changes))


@pytest.mark.parametrize("path", ("", "/", "/api/v2/logs"))
def test_datadog_gets_one_log_whose_message_is_the_event(sender, serve, path):
    intake = Datadog(SECRET)
    options = {"hostname": "console-1", "tags": "env:prod,team:soc"}
    settings = datadog(serve(intake), path, service="evidence", options=options)
    assert_accepted(delivered(sender, settings, event()))
    (log,) = intake.taken
    assert json.loads(log["message"]) == event()
    assert (log["ddsource"], log["service"], log["hostname"]) == ("cavra", "evidence", "console-1")
    assert (log["ddtags"], log["status"]) == ("alert_level:critical,env:prod,team:soc", "critical")
    assert log["cavra.message_id"] == MESSAGE_ID
    assert log["cavra.event_sha256"] == hashlib.sha256(rfc8785.dumps(event())).hexdigest()


@pytest.mark.parametrize(
    ("status", "failure_class"),
    (
        (408, FailureClass.UNAVAILABLE),
        (413, FailureClass.REJECTED),
        (429, FailureClass.THROTTLED),
        (500, FailureClass.UNAVAILABLE),
        (200, FailureClass.BAD_RESPONSE),
    ),
)
def test_datadogs_statuses(sender, serve, status, failure_class):
    assert_refused(delivered(sender, datadog(serve(answer(status, b"{}"))), event()), failure_class, status)


def test_datadog_refuses_another_key(sender, serve):
    settings = datadog(serve(Datadog(SECRET)), api_key_ref="env:WRONG")
    assert_refused(delivered(sender, settings, event()), FailureClass.AUTH, 403)


def test_datadog_has_no_use_for_a_token(serve):
    with pytest.raises(Misconfigured, match="token_ref is nothing that this product has a use for"):
        order(datadog(serve(Datadog(SECRET)), token_ref="env:SECRET"), event())
    with pytest.raises(Misconfigured, match="api_key_ref is needed"):
        order(datadog(serve(Datadog(SECRET)), api_key_ref=""), event())


# --- Slack ----------------------------------------------------------------------------------------------------


@pytest.fixture
def chat(serve, monkeypatch):
    """A stand-in of Slack and the settings of its webhook."""
    slack = Slack()
    receiver = serve(slack)
    monkeypatch.setenv("SLACK_URL", receiver.url(path=slack_rules.PATH, scheme="https"))
    return slack, configured(Product.SLACK, receiver, url_ref="env:SLACK_URL")


def texts(blocks):
    """Every text of a message's blocks."""
    for block in blocks:
        for said in filter(None, (block.get("text"), *block.get("fields", ()), *block.get("elements", ()))):
            yield said["text"]


def test_slack_gets_a_summary_that_says_what_it_leaves_out(sender, chat):
    slack, settings = chat
    told = event(100, text="team <!channel> *bold* & <https://evil.example|here>")
    assert_accepted(delivered(sender, settings, told))
    (message,) = slack.taken
    shown = list(texts(message["blocks"]))
    assert "Outstanding\n20" in shown
    assert any("and 21 more" in text for text in shown)
    assert any(hashlib.sha256(rfc8785.dumps(told)).hexdigest() in text for text in shown)
    assert (message["unfurl_links"], message["unfurl_media"], message["mrkdwn"]) == (False, False, False)
    # Nothing in an event becomes a mention, a link or formatting.
    everything = json.dumps(message)
    assert "<" not in everything
    assert ">" not in everything
    assert "team &lt;!channel&gt; *bold* &amp; &lt;https" in everything
    assert {said["type"] for block in message["blocks"] for said in block.get("fields", ())} == {"plain_text"}


@pytest.mark.parametrize(
    ("reply", "failure_class"),
    (
        (answer(400, b"invalid_payload"), FailureClass.REJECTED),
        (answer(400, b"user_not_found"), FailureClass.GONE),
        (answer(403, b"action_prohibited"), FailureClass.AUTH),
        (answer(403, b"invalid_token"), FailureClass.AUTH),
        (answer(404, b"no_service"), FailureClass.GONE),
        (answer(404, b"channel_not_found"), FailureClass.GONE),
        (answer(410, b"channel_is_archived"), FailureClass.GONE),
        (answer(429, b"rate_limited", "Retry-After: 30"), FailureClass.THROTTLED),
        (answer(500, b"rollup_error"), FailureClass.UNAVAILABLE),
        (answer(200, b"no_service"), FailureClass.GONE),
        (answer(200, b"<html>ok</html>"), FailureClass.BAD_RESPONSE),
        (answer(200, b""), FailureClass.BAD_RESPONSE),
    ),
)
def test_slacks_errors(sender, chat, reply, failure_class):
    slack, settings = chat
    slack.override = lambda _request: reply
    receipt = delivered(sender, settings, event())
    assert receipt.failure_class is failure_class
    assert receipt.retry_after_s == (30 if failure_class is FailureClass.THROTTLED else None)


def test_slack_that_was_archived_is_gone(sender, chat):
    slack, settings = chat
    slack.archived = True
    assert_refused(delivered(sender, settings, event()), FailureClass.GONE, 410)


# --- Teams ----------------------------------------------------------------------------------------------------


@pytest.fixture
def workflow(serve, monkeypatch):
    """A stand-in of a Teams workflow and the settings of its webhook."""
    teams = Teams()
    receiver = serve(teams)
    monkeypatch.setenv(
        "TEAMS_URL", receiver.url(path=f"{teams_rules.PATH}?{teams_rules.QUERY}", scheme="https")
    )
    return teams, configured(Product.TEAMS, receiver, url_ref="env:TEAMS_URL")


def runs(message):
    """Every text of a message's card."""
    (attachment,) = message["attachments"]
    return ["".join(run["text"] for run in block["inlines"]) for block in attachment["content"]["body"]]


def test_teams_gets_a_card_that_says_what_it_leaves_out(sender, workflow):
    teams, settings = workflow
    told = event(100, text="[click](https://evil.example) {{DATE(2026-01-01T00:00:00Z)}}")
    assert_accepted(delivered(sender, settings, told))
    (message,) = teams.taken
    shown = runs(message)
    assert "Outstanding: 20" in shown
    assert "and 26 more" in shown
    assert any(hashlib.sha256(rfc8785.dumps(told)).hexdigest() in text for text in shown)
    # Runs know no Markdown, and nothing is computed by the card.
    assert "{{" not in json.dumps(message)


@pytest.mark.parametrize(
    ("reply", "failure_class"),
    (
        (answer(202, b""), None),
        (answer(200, b"1"), None),
        (answer(200, b""), None),
        (
            answer(200, b"Webhook message delivery failed with error: x HTTP error 429 with ContextId y"),
            "throttled",
        ),
        (
            answer(200, b"Webhook message delivery failed with error: x HTTP error 413 with ContextId y"),
            "rejected",
        ),
        (answer(200, b"Webhook message delivery failed with error: x HTTP error 200"), "bad_response"),
        (answer(200, b"Summary or Text is required."), "bad_response"),
        (answer(200, b"<html>"), "bad_response"),
        (answer(201, b""), "bad_response"),
        (answer(400, b"Bad payload received by generic incoming webhook."), "rejected"),
        (answer(401, b'{"error":{"code":"DirectApiAuthorizationRequired"}}'), "auth"),
        (answer(404, b'{"error":{"code":"WorkflowNotFound"}}'), "gone"),
        (answer(429, b"", "Retry-After: 5"), "throttled"),
        (answer(502, b""), "unavailable"),
    ),
)
def test_teams_answers(sender, workflow, reply, failure_class):
    teams, settings = workflow
    teams.override = lambda _request: reply
    receipt = delivered(sender, settings, event())
    assert receipt.failure_class == failure_class
    assert receipt.delivered is (failure_class is None)


# --- PagerDuty ------------------------------------------------------------------------------------------------


def pager(receiver, path="", token="env:ROUTING_KEY", **changes):
    return configured(Product.PAGERDUTY, receiver, path, token_ref=token, **changes)


def test_pagerduty_gets_an_alert_with_the_key_put_in_last(sender, serve):
    duty = PagerDuty(ROUTING_KEY)
    sent = order(pager(serve(duty), service="drills"), event())
    # What is frozen, approved and hashed holds no secret.
    assert ROUTING_KEY.encode() not in sent.body
    assert pagerduty.PLACEHOLDER.encode() in sent.body
    (receipt,) = send(sender, sent)
    assert_accepted(receipt)
    assert receipt.sent_sha256 == hashlib.sha256(sent.body).hexdigest()
    (alert,) = duty.taken
    assert alert == {**json.loads(sent.body), "routing_key": ROUTING_KEY}
    assert (alert["event_action"], alert["dedup_key"]) == ("trigger", MESSAGE_ID)
    assert (alert["payload"]["severity"], alert["payload"]["component"]) == ("critical", "drills")
    assert alert["payload"]["custom_details"]["Outstanding"] == "1"


def test_the_placeholder_in_an_event_stays_where_it_is(sender, serve):
    duty = PagerDuty(ROUTING_KEY)
    told = {**event(), "title": f'"routing_key":"{pagerduty.PLACEHOLDER}"'}
    assert_accepted(delivered(sender, pager(serve(duty)), told))
    assert ROUTING_KEY not in duty.taken[0]["payload"]["summary"]


@pytest.mark.parametrize("level", ("healthy", "warning", "critical", "", "unheard-of", 7))
def test_pagerduty_knows_four_severities(level):
    seen = brief.of({"alert_level": level}, "m")
    known = {"healthy": "info", "warning": "warning", "critical": "critical"}
    assert brief.severity(seen) == known.get(level, "warning")


@pytest.mark.parametrize(
    ("reply", "failure_class"),
    (
        (answer(202, b'{"status":"success"}'), None),
        (answer(202, b"{}"), "bad_response"),
        (answer(202, b"[" * 60_000), "bad_response"),
        (answer(200, b'{"status":"success"}'), "bad_response"),
        (PagerDuty.invalid("Length of 'routing_key' is incorrect (should be 32 characters)"), "auth"),
        (PagerDuty.invalid("Invalid routing key"), "auth"),
        (PagerDuty.invalid("'payload.severity' is missing or blank"), "rejected"),
        (answer(413, b""), "rejected"),
        (answer(429, b"", "Retry-After: 60"), "throttled"),
        (answer(500, b""), "unavailable"),
    ),
)
def test_pagerdutys_answers(sender, serve, reply, failure_class):
    receipt = delivered(sender, pager(serve(reply)), event())
    assert receipt.failure_class == failure_class


@pytest.mark.parametrize("value", ("short", "R0UT1NGKEY0123456789abcdef01234é", ROUTING_KEY + "0"))
def test_a_routing_key_that_is_none_is_noticed_before_anything_is_sent(monkeypatch, serve, value):
    monkeypatch.setenv("ROUTING_KEY", value)
    with pytest.raises(Misconfigured) as refused:
        order(pager(serve(answer())), event())
    assert (refused.value.field, refused.value.failure_class) == ("token_ref", FailureClass.AUTH_SETUP)
    assert value not in str(refused.value)


def test_a_canary_wakes_nobody():
    assert [
        product for product, adapter in PRODUCTS.items() if not adapter.canary_sends and not adapter.question
    ] == [Product.PAGERDUTY]


# --- one rule for all -----------------------------------------------------------------------------------------


def connectors(serve, monkeypatch):
    """Every product here with its stand-in and settings."""
    entra = Entra(SECRET)
    entra.receiver = serve(entra)
    azure = Ingestion(entra)
    azure.receiver = serve(azure)
    slack, teams, duty = Slack(), Teams(), PagerDuty(ROUTING_KEY)
    intake, hec = Datadog(SECRET), Hec(SECRET)
    slack_at, teams_at = serve(slack), serve(teams)
    monkeypatch.setenv("SLACK_URL", slack_at.url(path=slack_rules.PATH, scheme="https"))
    monkeypatch.setenv(
        "TEAMS_URL", teams_at.url(path=f"{teams_rules.PATH}?{teams_rules.QUERY}", scheme="https")
    )
    return {
        Product.SENTINEL: (azure, azure.receiver, workspace(azure, entra)),
        Product.SLACK: (slack, slack_at, configured(Product.SLACK, slack_at, url_ref="env:SLACK_URL")),
        Product.TEAMS: (teams, teams_at, configured(Product.TEAMS, teams_at, url_ref="env:TEAMS_URL")),
        Product.PAGERDUTY: (duty, at := serve(duty), pager(at)),
        Product.DATADOG: (intake, at := serve(intake), datadog(at)),
        Product.SPLUNK: (hec, at := serve(hec), splunk(at)),
    }


HTTP_PRODUCTS = ("sentinel", "slack", "teams", "pagerduty", "datadog", "splunk")


@pytest.mark.parametrize("product", HTTP_PRODUCTS)
def test_w29_every_try_of_a_case_says_that_it_is_the_same(sender, serve, monkeypatch, product):
    _, receiver, settings = connectors(serve, monkeypatch)[Product(product)]
    for _ in range(2):
        assert_accepted(delivered(sender, settings, event()))
    first, second = receiver.requests
    assert first.body == second.body
    assert first.key == second.key == KEY
    # Notes on routes stay here.
    assert b"never sent" not in first.body


def test_w29_two_tries_are_one_alert(sender, serve):
    duty = PagerDuty(ROUTING_KEY)
    receiver = serve(duty)
    for _ in range(2):
        assert_accepted(delivered(sender, pager(receiver), event()))
    assert_accepted(delivered(sender, pager(receiver), event(), message_id="another-case.siem"))
    assert (len(duty.taken), set(duty.alerts)) == (3, {MESSAGE_ID, "another-case.siem"})


@pytest.mark.parametrize("product", ("slack", "teams"))
@pytest.mark.parametrize("status", (200, 404, 500))
def test_w28_a_secret_address_never_comes_back(sender, serve, monkeypatch, product, status):
    stand_in, _, settings = connectors(serve, monkeypatch)[Product(product)]
    url = order(settings, event()).url
    secret = slack_rules.PATH.rsplit("/", 1)[1] if product == "slack" else teams_rules.SIGNATURE

    def repeats(request):
        target = request.raw.split(b" ", 2)[1]
        pieces = b" ".join((url.encode(), target, secret.encode(), f"sig={secret}&x".encode()))
        return answer(status, pieces + json.dumps({"u": url}).encode())

    stand_in.override = repeats
    receipt = delivered(sender, settings, event())
    assert receipt.answer_excerpt
    for shown in (
        repr(receipt),
        receipt.error,
        receipt.answer_excerpt,
        repr(settings),
        repr(order(settings, event())),
    ):
        assert secret not in shown
        assert url not in shown


@pytest.mark.parametrize("product", ("slack", "teams"))
def test_w28_a_secret_address_is_not_written_down(product):
    settings = ConnectorSettings(key="chat", product=Product(product), url="https://hooks.example/s3cr3t")
    with pytest.raises(Misconfigured) as refused:
        order(settings, event())
    assert refused.value.field == "url"
    assert "s3cr3t" not in str(refused.value)


@pytest.mark.parametrize("product", ("sentinel", "pagerduty", "datadog"))
def test_w28_late_secrets_never_come_back(sender, serve, monkeypatch, product):
    stand_in, _, settings = connectors(serve, monkeypatch)[Product(product)]
    stand_in.override = lambda request: answer(400, request.raw[-3_000:][:900] + request.raw[:900])
    receipt = delivered(sender, settings, event())
    bearer = stand_in.entra.tokens[0] if product == "sentinel" else SECRET
    for secret in (SECRET, ROUTING_KEY, bearer):
        assert secret not in receipt.answer_excerpt
        assert secret not in repr(receipt)


@pytest.mark.parametrize("product", HTTP_PRODUCTS[:-1])
def test_without_tls_nothing_is_prepared(serve, monkeypatch, product):
    _, receiver, settings = connectors(serve, monkeypatch)[Product(product)]
    monkeypatch.setenv("PLAIN", receiver.url())
    with pytest.raises(Misconfigured, match="must begin with https://"):
        order(replace(settings, url="", url_ref="env:PLAIN"), event())


@pytest.mark.parametrize("product", HTTP_PRODUCTS[:-1])
def test_a_message_can_be_found_by_its_mark(sender, serve, monkeypatch, product):
    stand_in, _, settings = connectors(serve, monkeypatch)[Product(product)]
    delivered(sender, settings, event())
    mark = PRODUCTS[Product(product)].mark(settings, MESSAGE_ID)
    (taken,) = stand_in.taken
    shown = {
        "sentinel": lambda: f'MessageId == "{taken["MessageId"]}"',
        "datadog": lambda: f'@cavra.message_id:"{taken["cavra.message_id"]}"',
        "slack": lambda: list(texts(taken["blocks"])),
        "teams": lambda: runs(taken),
        "pagerduty": lambda: taken["dedup_key"],
    }[product]()
    assert mark in shown


# --- any event ------------------------------------------------------------------------------------------------

LONG = st.builds(
    lambda piece, times, most: (piece * times)[:most],
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=12),
    st.integers(1, 600),
    st.integers(1, 3_000),
)
EVENTS = st.builds(
    lambda count, text, title, level: {**event(count, text=text), "title": title, "alert_level": level},
    st.integers(0, 200),
    LONG,
    LONG,
    st.one_of(st.sampled_from(("healthy", "warning", "critical")), LONG),
)
ATOM = st.one_of(st.none(), st.booleans(), st.integers(-(2**53) + 1, 2**53 - 1), LONG)
FLAT = st.one_of(ATOM, st.lists(ATOM, max_size=4), st.dictionaries(LONG, ATOM, max_size=4))
ODD = st.one_of(FLAT, st.lists(FLAT, max_size=4), st.dictionaries(LONG, FLAT, max_size=4))
FIELDS = (
    "title",
    "alert_level",
    "session_id",
    "event_type",
    "routes",
    "stream",
    "audit_package_summary",
    "next_due_at",
)
# What no delivery builds, yet nothing may fall over.
ODD_EVENTS = st.dictionaries(st.sampled_from(FIELDS), ODD, max_size=len(FIELDS))


# A busy machine is no fault.
PATIENT = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def rendered(product, told, message_id=MESSAGE_ID):
    """Body of an event for a product; None when it is rejected before sending."""
    adapter = PRODUCTS[product]
    settings = ConnectorSettings(
        key="c",
        product=product,
        url="" if adapter.secret_url else "https://receiver.example",
        url_ref="env:URL" if adapter.secret_url else "",
        token_ref={Product.SENTINEL: "env:SECRET", Product.PAGERDUTY: "env:ROUTING_KEY"}.get(product, ""),
        api_key_ref="env:SECRET" if product is Product.DATADOG else "",
        options=tuple(sorted({**SENTINEL_OPTIONS, "token_url": "https://login.example/t"}.items()))
        if product is Product.SENTINEL
        else (),
    )
    try:
        first = prepare(settings, told, idempotency_key="k", message_id=message_id)
    except Misconfigured as refused:
        if (refused.field, refused.failure_class) != ("the content", FailureClass.REJECTED):
            raise
        return None
    assert prepare(settings, told, idempotency_key="k", message_id=message_id) == first
    assert len(first.body) <= adapter.max_body
    return first.body


@pytest.fixture
def _chat_url(monkeypatch):
    monkeypatch.setenv("URL", "https://hooks.example/services/x")


def check_chat(product, told):
    body = rendered(product, told)
    if product is Product.SLACK:
        assert slack_rules.problems(json.loads(body)) == []
    elif product is Product.TEAMS:
        assert teams_rules.problems(json.loads(body)) == []
        # By construction, not by being refused.
        assert len(body) <= 28 * 1024
    else:
        assert (
            PagerDuty(ROUTING_KEY)
            .reply(_request("/v2/enqueue", pagerduty_body(body)))
            .startswith(b"HTTP/1.1 202")
        )


def pagerduty_body(body):
    return rfc8785.dumps({**json.loads(body), "routing_key": ROUTING_KEY})


def _request(path, body):
    from tests.evidence.connectors.receiver import Request

    return Request(f"POST {path} HTTP/1.1\r\n".encode(), {"content-type": "application/json"}, body, 1)


@pytest.mark.usefixtures("_chat_url")
@pytest.mark.parametrize("product", (Product.SLACK, Product.TEAMS, Product.PAGERDUTY))
@given(told=st.one_of(EVENTS, ODD_EVENTS))
@PATIENT
def test_any_event_fits_what_people_are_shown(product, told):
    check_chat(product, told)


@pytest.mark.parametrize("product", (Product.SENTINEL, Product.DATADOG))
@given(told=st.one_of(EVENTS, ODD_EVENTS))
@PATIENT
def test_any_event_is_whole_or_rejected_before_it_is_sent(product, told):
    body = rendered(product, told)
    text = rfc8785.dumps(told)
    if body is None:
        assert len(text) > 300_000
    elif product is Product.SENTINEL:
        rows = json.loads(body)
        assert "".join(row["EventText"] for row in rows).encode() == text
        assert all(len(row["EventText"].encode()) <= sentinel.MAX_PART for row in rows)
        assert all({name: type(value) for name, value in row.items()} == ingestion.COLUMNS for row in rows)
    else:
        (log,) = json.loads(body)
        assert log["message"].encode() == text


@pytest.mark.usefixtures("_chat_url")
@pytest.mark.parametrize("product", (Product.SENTINEL, Product.DATADOG, Product.SPLUNK, Product.WEBHOOK))
def test_an_event_above_the_limit_is_rejected_before_anything_is_opened(product):
    told = event(200, text="x" * 5_000)
    options = tuple(sorted({**SENTINEL_OPTIONS, "token_url": "https://login.example/t"}.items()))
    settings_ = ConnectorSettings(
        key="c",
        product=product,
        url="https://receiver.example",
        token_ref="" if product is Product.DATADOG else "env:SECRET",
        api_key_ref="env:SECRET" if product is Product.DATADOG else "",
        options=options if product is Product.SENTINEL else (),
    )
    with pytest.raises(Misconfigured) as refused:
        prepare(settings_, told, idempotency_key="k", message_id="m")
    assert refused.value.failure_class is FailureClass.REJECTED


@pytest.mark.parametrize("product", PRODUCTS)
def test_what_a_success_is_worth_is_said_in_a_sentence(product):
    adapter = PRODUCTS[product]
    assert adapter.earned.endswith(".")
    assert adapter.against_asking or adapter.question


@given(text=LONG, limit=st.integers(1, 300))
@settings(max_examples=200, deadline=None)
def test_texts_are_cut_between_characters(text, limit):
    cut = brief.clip(text, limit)
    assert brief.width(cut) <= limit
    assert cut == text or (cut.endswith("…") and text.startswith(cut[:-1]))
