"""Secrets by reference: resolved when something is sent, never stored, redacted where they surface (P18)."""

import json
import os
import re
from collections.abc import Iterable
from urllib.parse import quote, urlsplit

from django.conf import settings as service

from evidence.connectors.products import PRODUCTS
from evidence.connectors.specs import ConnectorSettings
from evidence.connectors.wire import header_problem
from evidence.enums import FailureClass

REDACTED = "[redacted]"
_REFERENCE = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")
# A connector must not carry the service's own secrets to a receiver.
_OWN_SECRETS = frozenset({"SECRET_KEY", "DATABASE_URL"})
_REFERENCES = ("url_ref", "authorization_ref", "token_ref", "api_key_ref")


class Misconfigured(Exception):
    """A connector cannot be used as configured: ``field`` and the rule it breaks, never the value."""

    def __init__(
        self, field: str, rule: str, failure_class: FailureClass = FailureClass.MISCONFIGURED
    ) -> None:
        super().__init__(f"{field} {rule}")
        self.field = field
        self.rule = rule
        self.failure_class = failure_class


def is_own_secret(variable: str) -> bool:
    """Whether an environment variable holds a secret of this service itself, a key of the log among them."""
    return variable in _OWN_SECRETS or f"env:{variable}" in service.CAVRA_LEDGER_KEYS


def resolve(ref: str, *, field: str = "reference") -> str:
    """The secret that ``ref`` (``env:NAME``) stands for, without surrounding white space.

    Raises ``Misconfigured`` naming ``field``, with class ``auth_setup``; the text repeats neither reference
    nor value, for the reference may be a secret typed into the wrong field.
    """
    match = _REFERENCE.fullmatch(ref)
    if match is None:
        raise Misconfigured(field, "must have the form env:NAME", FailureClass.AUTH_SETUP)
    if is_own_secret(match[1]):
        raise Misconfigured(field, "names a secret of this service itself", FailureClass.AUTH_SETUP)
    value = os.environ.get(match[1], "").strip()
    if not value:
        raise Misconfigured(field, "names an environment variable that is not set", FailureClass.AUTH_SETUP)
    return value


def auth_headers(settings: ConnectorSettings) -> tuple[tuple[str, str], ...]:
    """Secret headers of a connector, names in lower case, sorted; empty when the product needs none.

    ``authorization_ref`` is a whole ``Authorization`` value, ``token_ref`` a token to put behind the scheme,
    ``api_key_ref`` goes into its own header. Raises ``Misconfigured``.
    """
    product = PRODUCTS[settings.product]
    if settings.authorization_ref and settings.token_ref:
        raise Misconfigured("token_ref", "must be empty beside authorization_ref")
    headers = []
    if settings.authorization_ref:
        value = resolve(settings.authorization_ref, field="authorization_ref")
        headers.append(("authorization_ref", "authorization", value))
    if settings.token_ref:
        # "Bearer" is the form's default: it says nothing against a product's own scheme.
        own = settings.authorization_scheme not in ("", "Bearer")
        scheme = settings.authorization_scheme if own else product.SCHEME
        value = resolve(settings.token_ref, field="token_ref")
        headers.append(("token_ref", "authorization", f"{scheme} {value}"))
    if settings.api_key_ref:
        value = resolve(settings.api_key_ref, field="api_key_ref")
        headers.append(("api_key_ref", settings.api_key_header.lower(), value))
    if product.NEEDS_CREDENTIAL and not headers:
        raise Misconfigured(
            "token_ref", "is needed: this product takes nothing without a credential", FailureClass.AUTH_SETUP
        )
    for field, name, value in headers:
        if problem := header_problem(name, value):
            raise Misconfigured(field, problem, FailureClass.AUTH_SETUP)
    return tuple(sorted((name, value) for _, name, value in headers))


def secret_values(settings: ConnectorSettings) -> tuple[str, ...]:
    """Every configured secret that resolves now, longest first, for ``redact``.

    What does not resolve is left out.

    Of an ``Authorization`` value the part behind the scheme counts too, of a secret URL its host and its
    path with query: receivers repeat them alone.
    """
    found: set[str] = set()
    for field in _REFERENCES:
        if not (ref := getattr(settings, field)):
            continue
        try:
            value = resolve(ref, field=field)
        except Misconfigured:
            continue
        found.update((value, value.split()[-1]))
        if field == "url_ref":
            found.update(url_parts(value))
    return tuple(sorted(found, key=len, reverse=True))


def url_parts(url: str) -> tuple[str, ...]:
    """The parts of a URL that say where something goes: whole, host and port, path with query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return (url,)
    target = parts._replace(scheme="", netloc="", fragment="").geturl()
    return tuple(part for part in (url, parts.netloc, target) if len(part) > 3)


def redact(text: str, secrets: Iterable[str]) -> str:
    """``text`` with every secret replaced, also where it appears percent-encoded or as a JSON string."""
    plain = {secret for secret in secrets if secret}
    forms = (
        plain | {quote(secret, safe="") for secret in plain} | {json.dumps(secret)[1:-1] for secret in plain}
    )
    if not forms:
        return text
    # One pass, longest first: what was put in is not looked at again.
    return re.sub("|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True)), REDACTED, text)
