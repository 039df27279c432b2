"""What would go on the wire: complete, the same for the same input, and refused before anything is opened."""

import pytest

from evidence.connectors.credentials import Misconfigured
from evidence.connectors.prepare import address, prepare
from evidence.connectors.specs import ConnectorSettings
from evidence.connectors.wire import host_problem, url_problem
from evidence.enums import Product

EVENT = {"session_id": "d1", "a": 1}


def settings(product=Product.WEBHOOK, url="https://hooks.example/in", **changes):
    return ConnectorSettings(key="siem", product=product, url=url, **changes)


def prepared(event=EVENT, **changes):
    return prepare(settings(**changes), event, idempotency_key="k1", message_id="m1")


def test_webhook():
    result = prepared(headers=(("X-Team", "soc"),))
    assert result.url == "https://hooks.example/in"
    assert result.body == b'{"a":1,"session_id":"d1"}'
    assert result.public_headers == (
        ("content-type", "application/json"),
        ("idempotency-key", "k1"),
        ("user-agent", "cavra-evidence-console"),
        ("webhook-id", "m1"),
        ("x-team", "soc"),
    )
    assert result.secret_headers == ()


def test_splunk_with_secrets_apart_from_the_public_part(monkeypatch):
    monkeypatch.setenv("HEC_TOKEN", "hec-token")
    monkeypatch.setenv("HEC_URL", "https://hec.example:8088/services/collector")
    result = prepared(product=Product.SPLUNK, url="", url_ref="env:HEC_URL", token_ref="env:HEC_TOKEN")
    assert result.url == "https://hec.example:8088/services/collector"
    assert result.secret_headers == (("authorization", "Splunk hec-token"),)
    assert "hec-token" not in str(result.public_headers)


def test_the_same_input_gives_the_same_bytes():
    headers = (("b", "2"), ("a", "1"))
    first = prepared(headers=headers)
    assert first == prepared(headers=headers[::-1], event=dict(reversed(EVENT.items())))


def test_a_frozen_body_gets_an_address_without_being_rendered():
    result = address(settings(), b"frozen", "text/plain", idempotency_key="k", message_id="m")
    assert (result.body, result.content_type) == (b"frozen", "text/plain")
    assert ("content-type", "text/plain") in result.public_headers


def test_empty_keys_leave_their_headers_out():
    result = prepare(settings(), EVENT, idempotency_key="", message_id="")
    assert [name for name, _ in result.public_headers] == ["content-type", "user-agent"]


@pytest.mark.parametrize(
    ("changes", "field"),
    (
        ({"url": ""}, "url"),
        ({"url_ref": "env:HEC_URL"}, "url"),
        ({"url": "", "url_ref": "env:MISSING_URL"}, "url_ref"),
        ({"url": "", "url_ref": "https://hooks.example/s3cr3t"}, "url_ref"),
        ({"url": "ftp://hooks.example/s3cr3t"}, "url"),
        ({"product": Product.SPLUNK}, "token_ref"),
        ({"headers": (("Authorization", "Bearer s3cr3t"),)}, "headers"),
        ({"headers": (("Content-Type", "text/s3cr3t"),)}, "headers"),
        ({"headers": (("Host", "s3cr3t"),)}, "headers"),
        ({"headers": (("Transfer-Encoding", "s3cr3t"),)}, "headers"),
        ({"headers": (("Expect", "100-continue"),)}, "headers"),
        ({"headers": (("a", "1"), ("A", "2"))}, "headers"),
        ({"headers": (("a", "x\r\ny: s3cr3t"),)}, "headers"),
        ({"headers": (("a", ""),)}, "headers"),
        ({"headers": (("a", "é"),)}, "headers"),
        ({"headers": (("a b", "1"),)}, "headers"),
        ({"event": {"a": float("nan")}}, "event"),
        ({"event": {"a": 2**60}}, "event"),
        ({"event": {"a": object()}}, "event"),
    ),
)
def test_refusals_name_field_and_rule_but_no_value(changes, field):
    with pytest.raises(Misconfigured) as refused:
        prepared(**changes)
    assert refused.value.field == field
    assert refused.value.rule
    assert "s3cr3t" not in str(refused.value)
    assert "hooks.example" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    (
        "",
        "hooks.example/in",
        "//hooks.example/in",
        "ftp://hooks.example",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "http://",
        "http:///path",
        "http://user@hooks.example/",
        "http://user:pass@hooks.example/",
        "http://hooks.example@127.0.0.1/",
        "http://hooks.example/#fragment",
        "http://hooks.example/#",
        "http://hooks.example:0/",
        "http://hooks.example:/",
        "http://hooks.example:99999/",
        "http://hooks.example:http/",
        "http://hooks.example/a b",
        "http://hooks.example/\r\nx: y",
        "http://hooks.example\\@127.0.0.1/",
        "http://hooks.exämple/",
        "http://[::1",
        "http://[hooks.example]/",
        "http://[fe80::1%25eth0]/",
        "http://hooks%2eexample/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.0.0.1/",
        "http://0177.0.0.1/",
        "http://127.0.0.1./",
        "http://127.0.0.256/",
        "http://hooks.example/" + "a" * 2048,
    ),
)
def test_destinations_are_plain_http_urls(url):
    assert url_problem(url)


@pytest.mark.parametrize(
    "url",
    (
        "http://hooks.example",
        "https://hooks.example:8443/a/b?c=d&e=%20",
        "HTTPS://Hooks.Example./",
        "http://127.0.0.1:8080/",
        "http://[::1]:8080/",
        "http://internal_host/x",
        "http://3com.example/",
        "http://0x.example/",
    ),
)
def test_usual_urls_pass(url):
    assert url_problem(url) is None


def test_hosts_are_checked_alone_too():
    assert host_problem("hooks.example") is None
    assert host_problem("10.0.0.1") is None
    assert host_problem("10.1") == "has an address in an unusual form"


def test_reprs_hide_address_headers_and_body(monkeypatch):
    monkeypatch.setenv("HOOK_TOKEN", "s3cr3t-token")
    configured = settings(url="https://hooks.example/s3cr3t-path", token_ref="env:HOOK_TOKEN")
    result = prepare(configured, {"a": "s3cr3t-body"}, idempotency_key="k", message_id="m")
    for shown in (repr(configured), repr(result)):
        assert "s3cr3t" not in shown
        assert "hooks.example" not in shown
