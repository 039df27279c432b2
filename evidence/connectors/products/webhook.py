"""Any HTTP receiver: the event itself is the body, any 2xx is acceptance, signed the Standard Webhooks way.

Source: the Standard Webhooks specification 1.0.0, "Signature scheme" and "Key rotation".
"""

import base64
import binascii
import hashlib
import hmac
from datetime import datetime
from typing import Any

import rfc8785

from evidence.connectors.failures import Refused, classify_status
from evidence.connectors.products.adapter import Adapter, Headers
from evidence.connectors.specs import ConnectorSettings, SendSpec
from evidence.enums import Assurance, FailureClass

_PREFIX = "whsec_"
_MIN_KEY, _MAX_KEY = 24, 64


def render(event: dict[str, Any], _settings: ConnectorSettings, _message_id: str) -> tuple[bytes, str]:
    """The event in canonical form (RFC 8785)."""
    return rfc8785.dumps(event), "application/json"


def identify(_settings: ConnectorSettings, message_id: str) -> Headers:
    """The message's id, under the name that Standard Webhooks gives it."""
    return (("webhook-id", message_id),) if message_id else ()


def recognise(status: int, _body: bytes) -> Assurance | FailureClass:
    """2xx is acceptance; what the body says is the receiver's own business."""
    return classify_status(status) or Assurance.ACCEPTED


def sign(spec: SendSpec, now: datetime) -> Headers:
    """Timestamp and signatures of this try, the newest key's first; nothing without a signing secret.

    Body, message id and idempotency key are the same at every try; the timestamp is not, so that a receiver can
    refuse what was recorded and played again.
    """
    secrets = [secret for name in ("signing", "previous_signing") if (secret := spec.secret(name))]
    if not secrets:
        return ()
    message_id = spec.header("webhook-id")
    if not message_id:
        raise Refused(FailureClass.MISCONFIGURED, "a signature needs a message id")
    timestamp = str(int(now.timestamp()))
    signed = f"{message_id}.{timestamp}.".encode() + spec.body
    return (
        ("webhook-timestamp", timestamp),
        ("webhook-signature", " ".join(_signature(_key(secret), signed) for secret in secrets)),
    )


def secret_problem(name: str, value: str) -> str | None:
    """Why this value cannot sign: ``whsec_`` and base64 of 24 to 64 bytes, or a text of at least 24 bytes."""
    if name not in ("signing", "previous_signing"):
        return None
    try:
        size = len(_key(value))
    except (binascii.Error, ValueError):
        return f"must be base64 behind {_PREFIX}"
    if value.startswith(_PREFIX):
        return None if _MIN_KEY <= size <= _MAX_KEY else f"must hold {_MIN_KEY} to {_MAX_KEY} bytes"
    return None if size >= _MIN_KEY else f"must have at least {_MIN_KEY} bytes"


def _key(secret: str) -> bytes:
    if not secret.startswith(_PREFIX):
        return secret.encode()
    encoded = secret.removeprefix(_PREFIX)
    # The padding may be missing; anything else that is no base64 is a mistake.
    return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)


def _signature(key: bytes, signed: bytes) -> str:
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


ADAPTER = Adapter(
    render=render,
    recognise=recognise,
    assurance=Assurance.ACCEPTED,
    earned="The receiver answered with a status of 2xx.",
    headers=identify,
    signs=True,
    sign=sign,
    secret_problem=secret_problem,
    against_asking=("its interface has no lookup by idempotency key",),
)
