"""From a connector's settings and an event to what would go on the wire. Nothing is opened here."""

from typing import Any

import rfc8785

from evidence.connectors import wire
from evidence.connectors.credentials import Misconfigured, auth_headers, resolve
from evidence.connectors.products import PRODUCTS
from evidence.connectors.specs import ConnectorSettings, Prepared

USER_AGENT = "cavra-evidence-console"
# Set here or by a reference; a fixed public header of these names would contradict them or hold a secret.
OUR_HEADERS = frozenset({"authorization", "content-type", "idempotency-key", "user-agent", "webhook-id"})


def prepare(
    settings: ConnectorSettings, event: dict[str, Any], *, idempotency_key: str, message_id: str
) -> Prepared:
    """Render ``event`` for the connector's product and put address and headers beside it.

    Raises ``Misconfigured`` for whatever an administrator has to change; the same input gives the same bytes.
    """
    try:
        body, content_type = PRODUCTS[settings.product].render(event, settings)
    except (rfc8785.CanonicalizationError, RecursionError) as error:
        raise Misconfigured("event", "has no canonical form") from error
    return address(settings, body, content_type, idempotency_key=idempotency_key, message_id=message_id)


def address(
    settings: ConnectorSettings, body: bytes, content_type: str, *, idempotency_key: str, message_id: str
) -> Prepared:
    """Put today's address, headers and credentials around a body that was rendered before.

    Empty ``idempotency_key`` or ``message_id`` leave their headers out. Raises ``Misconfigured``.
    """
    ours = [("content-type", content_type), ("user-agent", USER_AGENT)]
    if idempotency_key:
        ours.append(("idempotency-key", idempotency_key))
    if message_id:
        ours += PRODUCTS[settings.product].identify(message_id)
    public = tuple(sorted([*ours, *_fixed_headers(settings)]))
    secret = auth_headers(settings)
    if problem := wire.headers_problem(public + secret):
        raise Misconfigured("headers", problem)
    return Prepared(
        url=_url(settings), public_headers=public, secret_headers=secret, body=body, content_type=content_type
    )


def _url(settings: ConnectorSettings) -> str:
    if bool(settings.url) == bool(settings.url_ref):
        raise Misconfigured("url", "or url_ref must be set, and only one of them")
    field = "url" if settings.url else "url_ref"
    url = settings.url or resolve(settings.url_ref, field=field)
    if problem := wire.url_problem(url):
        raise Misconfigured(field, problem)
    return url


def _fixed_headers(settings: ConnectorSettings) -> list[tuple[str, str]]:
    headers = [(str(name).lower(), str(value)) for name, value in settings.headers]
    if OUR_HEADERS & {name for name, _ in headers}:
        raise Misconfigured("headers", "has a header that is set by the product or by a reference")
    return headers
