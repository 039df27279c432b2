"""What a connector sends as credentials, and what is refused without being repeated (P18)."""

import pytest

from evidence.connectors.credentials import auth_headers
from evidence.connectors.references import Misconfigured
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
