"""Secrets of a connector by reference: resolved when something is sent, never stored (P18)."""

from evidence.connectors.products import PRODUCTS
from evidence.connectors.products.adapter import CREDENTIALS
from evidence.connectors.references import Misconfigured, resolve
from evidence.connectors.specs import ConnectorSettings
from evidence.connectors.wire import header_problem
from evidence.enums import FailureClass

REFERENCES = (
    *("url_ref", "authorization_ref", "token_ref", "api_key_ref"),
    *("signing_ref", "previous_signing_ref", "proxy_authorization_ref"),
)


def auth_headers(settings: ConnectorSettings) -> tuple[tuple[str, str], ...]:
    """Secret headers of a connector, names in lower case, sorted; empty when the product needs none.

    ``authorization_ref`` is a whole ``Authorization`` value, ``token_ref`` a token to put behind the scheme,
    ``api_key_ref`` goes into its own header. Raises ``Misconfigured``.
    """
    adapter = PRODUCTS[settings.product]
    if settings.authorization_ref and settings.token_ref:
        raise Misconfigured("token_ref", "must be empty beside authorization_ref")
    for unused in CREDENTIALS:
        if getattr(settings, unused) and unused not in adapter.credentials:
            raise Misconfigured(unused, "is nothing that this product has a use for")
    headers = []
    if settings.authorization_ref:
        value = resolve(settings.authorization_ref, field="authorization_ref")
        headers.append(("authorization_ref", "authorization", value))
    if settings.token_ref and adapter.authorization:
        value = adapter.authorization(settings, resolve(settings.token_ref, field="token_ref"))
        headers.append(("token_ref", "authorization", value))
    if settings.api_key_ref:
        # "x-api-key" is the form's default: it says nothing against a product's own header.
        own = settings.api_key_header.lower() not in ("", "x-api-key")
        name = settings.api_key_header.lower() if own else adapter.api_key_header
        headers.append(("api_key_ref", name, resolve(settings.api_key_ref, field="api_key_ref")))
    if adapter.needs_credential and not headers and not settings.token_ref:
        raise Misconfigured(
            adapter.credential_field,
            "is needed: this product takes nothing without a credential",
            FailureClass.AUTH_SETUP,
        )
    for field, name, value in headers:
        if problem := header_problem(name, value):
            raise Misconfigured(field, problem, FailureClass.AUTH_SETUP)
    return tuple(sorted((name, value) for _, name, value in headers))


def late_secrets(settings: ConnectorSettings) -> tuple[tuple[str, str], ...]:
    """Secrets that the sender itself needs, by name: a token that is no header, signing keys, the proxy's.

    Raises ``Misconfigured``, with class ``auth_setup`` also for one that the product could not use.
    """
    adapter = PRODUCTS[settings.product]
    wanted = {
        "token": "" if adapter.authorization else settings.token_ref,
        "signing": settings.signing_ref if adapter.signs else "",
        "previous_signing": settings.previous_signing_ref if adapter.signs else "",
        "proxy_authorization": settings.proxy_authorization_ref,
    }
    found = tuple((name, resolve(ref, field=f"{name}_ref")) for name, ref in wanted.items() if ref)
    for name, value in found:
        if problem := adapter.secret_problem(name, value):
            raise Misconfigured(f"{name}_ref", problem, FailureClass.AUTH_SETUP)
    return found
