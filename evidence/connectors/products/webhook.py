"""Any HTTP receiver: the event itself is the body, any 2xx is acceptance."""

from typing import Any

import rfc8785

from evidence.connectors.failures import classify_status
from evidence.connectors.products.adapter import Adapter, Headers
from evidence.connectors.specs import ConnectorSettings
from evidence.enums import Assurance, FailureClass


def render(event: dict[str, Any], _settings: ConnectorSettings, _message_id: str) -> tuple[bytes, str]:
    """The event in canonical form (RFC 8785)."""
    return rfc8785.dumps(event), "application/json"


def identify(_settings: ConnectorSettings, message_id: str) -> Headers:
    """The message's id, under the name that Standard Webhooks gives it."""
    return (("webhook-id", message_id),) if message_id else ()


def recognise(status: int, _body: bytes) -> Assurance | FailureClass:
    """2xx is acceptance; what the body says is the receiver's own business."""
    return classify_status(status) or Assurance.ACCEPTED


ADAPTER = Adapter(
    render=render,
    recognise=recognise,
    assurance=Assurance.ACCEPTED,
    earned="The receiver answered with a status of 2xx.",
    headers=identify,
    against_asking=("its interface has no lookup by idempotency key",),
)
