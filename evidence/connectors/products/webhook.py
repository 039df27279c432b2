"""Any HTTP receiver: the event itself is the body, any 2xx is acceptance."""

from typing import Any

import rfc8785

from evidence.connectors.failures import classify_status
from evidence.connectors.specs import ConnectorSettings
from evidence.enums import Assurance, FailureClass

SCHEME = "Bearer"
NEEDS_CREDENTIAL = False
AGAINST_ASKING: tuple[str, ...] = ("its interface has no lookup by idempotency key",)


def render(event: dict[str, Any], settings: ConnectorSettings) -> tuple[bytes, str]:
    """The event in canonical form (RFC 8785)."""
    return rfc8785.dumps(event), "application/json"


def identify(message_id: str) -> tuple[tuple[str, str], ...]:
    """The message's id, under the name that Standard Webhooks gives it."""
    return (("webhook-id", message_id),)


def recognise(status: int, body: bytes) -> Assurance | FailureClass:
    """2xx is acceptance; what the body says is the receiver's own business."""
    return classify_status(status) or Assurance.ACCEPTED
