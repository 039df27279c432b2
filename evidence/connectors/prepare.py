"""From a connector's settings and an event to what would go on the wire. Nothing is opened here."""

from typing import Any

import rfc8785

from evidence.connectors import wire
from evidence.connectors.credentials import Misconfigured, auth_headers, late_secrets, resolve
from evidence.connectors.failures import Refused
from evidence.connectors.products import PRODUCTS
from evidence.connectors.products.adapter import Headers
from evidence.connectors.specs import ConnectorSettings, Prepared
from evidence.enums import FailureClass, Transport

# What a connector may say that speaks HTTP, and no other.
HTTP_ONLY = ("headers", "proxy_url")
USER_AGENT = "cavra-evidence-console"
# Set here or by a reference; a fixed public header of these names would contradict them or hold a secret.
OUR_HEADERS = frozenset(
    {
        *("authorization", "content-type", "idempotency-key", "user-agent"),
        *("webhook-id", "webhook-timestamp", "webhook-signature"),
    }
)


def prepare(
    settings: ConnectorSettings, event: dict[str, Any], *, idempotency_key: str, message_id: str
) -> Prepared:
    """Render ``event`` for the connector's product and put address and headers beside it.

    Raises ``Misconfigured`` for whatever an administrator has to change; the same input gives the same bytes.
    """
    require_options(settings)
    try:
        body, content_type = PRODUCTS[settings.product].render(event, settings, message_id)
    except Refused as error:
        raise Misconfigured("the content", str(error), error.failure_class) from error
    except (rfc8785.CanonicalizationError, RecursionError) as error:
        raise Misconfigured("event", "has no canonical form") from error
    return address(settings, body, content_type, idempotency_key=idempotency_key, message_id=message_id)


def require_options(settings: ConnectorSettings) -> None:
    """Raise ``Misconfigured`` for options that the product's own code could not read."""
    if problem := next(iter(wire.options_problems(settings.product, dict(settings.options))), None):
        raise Misconfigured("options", problem)


def address(
    settings: ConnectorSettings, body: bytes, content_type: str, *, idempotency_key: str, message_id: str
) -> Prepared:
    """Put today's address, headers and credentials around a body that was rendered before.

    Empty ``idempotency_key`` or ``message_id`` leave their headers out. Raises ``Misconfigured``, with class
    ``rejected`` for a body that the product would not take.
    """
    require_options(settings)
    adapter = PRODUCTS[settings.product]
    if len(body) > (most := adapter.most(settings)):
        raise Misconfigured(
            "the content",
            f"of {len(body)} bytes is larger than the {most} bytes it takes",
            FailureClass.REJECTED,
        )
    for field, sentence in adapter.against(settings):
        raise Misconfigured(field, sentence[0].lower() + sentence[1:].removesuffix("."))
    if adapter.transport is Transport.HTTP:
        public, secret = _headers(settings, content_type, idempotency_key, message_id)
    else:
        public, secret = (), auth_headers(settings)
        if name := next((name for name in HTTP_ONLY if getattr(settings, name)), None):
            raise Misconfigured(name, f"is of HTTP, which {settings.product} does not speak")
    if settings.proxy_url and (problem := wire.proxy_problem(settings.proxy_url)):
        raise Misconfigured("proxy_url", problem)
    return Prepared(
        url=_url(settings),
        public_headers=public,
        secret_headers=secret,
        body=body,
        content_type=content_type,
        secrets=late_secrets(settings),
    )


def _headers(
    settings: ConnectorSettings, content_type: str, idempotency_key: str, message_id: str
) -> tuple[Headers, Headers]:
    """Public headers and secret ones."""
    ours = [("content-type", content_type), ("user-agent", USER_AGENT)]
    if idempotency_key:
        ours.append(("idempotency-key", idempotency_key))
    ours += PRODUCTS[settings.product].headers(settings, message_id)
    public = tuple(sorted([*ours, *_fixed_headers(settings)]))
    secret = auth_headers(settings)
    if problem := wire.headers_problem(public + secret):
        raise Misconfigured("headers", problem)
    return public, secret


def _url(settings: ConnectorSettings) -> str:
    if bool(settings.url) == bool(settings.url_ref):
        raise Misconfigured("url", "or url_ref must be set, and only one of them")
    adapter = PRODUCTS[settings.product]
    if adapter.secret_url and settings.url:
        raise Misconfigured("url", "is a secret of this product: it must be a reference (url_ref)")
    field = "url" if settings.url else "url_ref"
    configured = settings.url or resolve(settings.url_ref, field=field)
    if problem := wire.url_problem(configured, adapter.schemes):
        raise Misconfigured(field, problem)
    # What the product makes of it is longer.
    url = adapter.target(settings, configured)
    if problem := wire.url_problem(url, adapter.schemes):
        raise Misconfigured(field, problem)
    return url


def _fixed_headers(settings: ConnectorSettings) -> list[tuple[str, str]]:
    headers = [(str(name).lower(), str(value)) for name, value in settings.headers]
    if OUR_HEADERS & {name for name, _ in headers}:
        raise Misconfigured("headers", "has a header that is set by the product or by a reference")
    return headers
