"""From settings and an event to a receipt, the way deliveries go: prepare, order, send."""

import ssl
from functools import cache
from typing import Any

from evidence.connectors.prepare import prepare
from evidence.connectors.sender import Sender
from evidence.connectors.specs import ConnectorSettings, Receipt, SendSpec
from evidence.enums import Product
from tests.evidence.connectors.authority import Authority
from tests.evidence.connectors.receiver import LOOPBACK, Receiver, send

MESSAGE_ID = "gordackdelivery-0123456789abcdef.siem"
KEY = "0123456789abcdef0123456789abcdef"


@cache
def trusted() -> Authority:
    """Whom these connectors trust."""
    return Authority()


@cache
def tls() -> ssl.SSLContext:
    """What a loopback receiver needs to be trusted."""
    return trusted().context("localhost", "127.0.0.1")


def configured(
    product: Product, receiver: Receiver | None = None, path: str = "", **changes: Any
) -> ConnectorSettings:
    """A connector to a loopback receiver that speaks TLS; ``options`` may be a dict."""
    options = changes.pop("options", {})
    if receiver is not None and "url_ref" not in changes:
        changes.setdefault("url", receiver.url(path=path, scheme="https"))
    return ConnectorSettings(
        key="siem",
        product=product,
        options=tuple(sorted(options.items())),
        allow_networks=LOOPBACK,
        ca_pem=trusted().pem,
        **changes,
    )


def order(
    settings: ConnectorSettings, event: dict[str, Any], *, message_id: str = MESSAGE_ID, **changes: Any
) -> SendSpec:
    """What a delivery hands to the sender."""
    prepared = prepare(settings, event, idempotency_key=KEY, message_id=message_id)
    values: dict[str, Any] = {
        "token": "t1",
        "connector": settings.key,
        "product": settings.product,
        "url": prepared.url,
        "headers": (*prepared.public_headers, *prepared.secret_headers),
        "body": prepared.body,
        "timeout_s": 30.0,
        "allow_networks": settings.allow_networks,
        "options": settings.options,
        "secrets": prepared.secrets,
        "ca_pem": settings.ca_pem,
    }
    return SendSpec(**(values | changes))


def delivered(sender: Sender, settings: ConnectorSettings, event: dict[str, Any], **changes: Any) -> Receipt:
    """The receipt of one try."""
    (receipt,) = send(sender, order(settings, event, **changes))
    return receipt
