"""Secrets: resolved from references, refused without being repeated, redacted wherever they come back (P18)."""

import pytest

from evidence.connectors.credentials import (
    REDACTED,
    Misconfigured,
    auth_headers,
    redact,
    resolve,
    secret_values,
)
from evidence.connectors.specs import ConnectorSettings
from evidence.enums import FailureClass, Product

SECRET = 's3cr3t-/+="value'


def settings(product=Product.WEBHOOK, **changes):
    return ConnectorSettings(key="siem", product=product, **changes)


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setenv("HOOK_TOKEN", f" {SECRET}\n")
    monkeypatch.setenv("HOOK_AUTH", "Basic dXNlcjpwYXNz")
    monkeypatch.setenv("HOOK_URL", "https://hooks.example/services/T000/B000?sig=abcdef")
    monkeypatch.setenv("EMPTY", "  ")
    monkeypatch.setenv("SPLIT", "a\r\nx-injected: 1")
    monkeypatch.delenv("MISSING", raising=False)


def test_a_reference_resolves_without_surrounding_space():
    assert resolve("env:HOOK_TOKEN") == SECRET


@pytest.mark.parametrize(
    "ref",
    ("", SECRET, "HOOK_TOKEN", "file:/etc/passwd", "env:", "env:A B", "env:HOOK_TOKEN\n", "ENV:HOOK_TOKEN"),
)
def test_other_references_are_refused_and_not_repeated(ref):
    with pytest.raises(Misconfigured) as refused:
        resolve(ref, field="token_ref")
    assert refused.value.field == "token_ref"
    assert str(refused.value) == "token_ref must have the form env:NAME"


@pytest.mark.parametrize("ref", ("env:MISSING", "env:EMPTY"))
def test_a_missing_secret_is_refused(ref):
    with pytest.raises(Misconfigured) as refused:
        resolve(ref, field="token_ref")
    assert refused.value.failure_class is FailureClass.AUTH_SETUP
    assert str(refused.value) == "token_ref names an environment variable that is not set"


@pytest.mark.parametrize("name", ("SECRET_KEY", "DATABASE_URL"))
def test_a_connector_cannot_carry_the_services_own_secrets(name, monkeypatch):
    monkeypatch.setenv(name, "the-value")
    with pytest.raises(Misconfigured) as refused:
        resolve(f"env:{name}", field="token_ref")
    assert "the-value" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    (
        ({}, ()),
        ({"token_ref": "env:HOOK_TOKEN"}, (("authorization", f"Bearer {SECRET}"),)),
        (
            {"token_ref": "env:HOOK_TOKEN", "product": Product.SPLUNK},
            (("authorization", f"Splunk {SECRET}"),),
        ),
        (
            {"token_ref": "env:HOOK_TOKEN", "product": Product.SPLUNK, "authorization_scheme": "Custom"},
            (("authorization", f"Custom {SECRET}"),),
        ),
        ({"authorization_ref": "env:HOOK_AUTH"}, (("authorization", "Basic dXNlcjpwYXNz"),)),
        ({"api_key_ref": "env:HOOK_TOKEN"}, (("x-api-key", SECRET),)),
        (
            {
                "api_key_ref": "env:HOOK_TOKEN",
                "api_key_header": "DD-Api-Key",
                "authorization_ref": "env:HOOK_AUTH",
            },
            (("authorization", "Basic dXNlcjpwYXNz"), ("dd-api-key", SECRET)),
        ),
    ),
)
def test_auth_headers(changes, expected):
    assert auth_headers(settings(**changes)) == expected


@pytest.mark.parametrize(
    ("changes", "field", "failure_class"),
    (
        ({"product": Product.SPLUNK}, "token_ref", FailureClass.AUTH_SETUP),
        ({"token_ref": "env:MISSING"}, "token_ref", FailureClass.AUTH_SETUP),
        ({"authorization_ref": "env:MISSING"}, "authorization_ref", FailureClass.AUTH_SETUP),
        ({"api_key_ref": "env:SPLIT"}, "api_key_ref", FailureClass.AUTH_SETUP),
        ({"token_ref": "env:SPLIT"}, "token_ref", FailureClass.AUTH_SETUP),
        ({"api_key_ref": "env:HOOK_TOKEN", "api_key_header": "a b"}, "api_key_ref", FailureClass.AUTH_SETUP),
        ({"api_key_ref": "env:HOOK_TOKEN", "api_key_header": "Host"}, "api_key_ref", FailureClass.AUTH_SETUP),
        (
            {"token_ref": "env:HOOK_TOKEN", "authorization_ref": "env:HOOK_AUTH"},
            "token_ref",
            FailureClass.MISCONFIGURED,
        ),
    ),
)
def test_broken_credentials_name_their_field(changes, field, failure_class):
    with pytest.raises(Misconfigured) as refused:
        auth_headers(settings(**changes))
    assert (refused.value.field, refused.value.failure_class) == (field, failure_class)
    assert SECRET not in str(refused.value)
    assert "injected" not in str(refused.value)


def test_secret_values_cover_what_receivers_repeat():
    found = secret_values(
        settings(
            url_ref="env:HOOK_URL",
            authorization_ref="env:HOOK_AUTH",
            token_ref="env:HOOK_TOKEN",
            api_key_ref="env:MISSING",
        )
    )
    assert {
        SECRET,
        "Basic dXNlcjpwYXNz",
        "dXNlcjpwYXNz",
        "https://hooks.example/services/T000/B000?sig=abcdef",
        "/services/T000/B000?sig=abcdef",
    } <= set(found)
    assert "" not in found
    assert secret_values(settings()) == ()


@pytest.mark.parametrize(
    "text",
    (SECRET, "s3cr3t-%2F%2B%3D%22value", 's3cr3t-/+=\\"value', f"a{SECRET}b{SECRET}", f'{{"t": "{SECRET}"}}'),
)
def test_redaction_finds_every_spelling(text):
    clean = redact(text, (SECRET, "", "s3cr3t"))
    assert "s3cr3t" not in clean
    assert REDACTED in clean


def test_redaction_leaves_other_text_alone():
    assert redact("plain [text]", ()) == "plain [text]"
    assert redact("a.c abc", ("a.c",)) == f"{REDACTED} abc"
    assert redact("xredacted", ("redacted", "x")) == REDACTED * 2
