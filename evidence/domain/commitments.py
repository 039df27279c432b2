"""Keyed commitments: a changed value shows, the value itself does not (P18)."""

import hashlib
import hmac

from django.conf import settings


def commit(purpose: str, value: bytes) -> str:
    """HMAC-SHA-256 of ``value`` as 64 hex digits, under a key of this service and ``purpose``.

    Equal values give equal commitments as long as SECRET_KEY stays; without the key nobody can try
    values against a commitment.
    """
    key = hashlib.sha256(b"cavra-commit\0" + purpose.encode() + b"\0" + settings.SECRET_KEY.encode()).digest()
    return hmac.new(key, value, hashlib.sha256).hexdigest()
