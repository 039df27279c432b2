"""Splunk's HTTP Event Collector: an envelope around the event, and an answer whose JSON ``code`` decides."""

import json
from typing import Any

import rfc8785

from evidence.connectors.failures import classify_status
from evidence.connectors.specs import ConnectorSettings
from evidence.enums import Assurance, FailureClass

SCHEME = "Splunk"
NEEDS_CREDENTIAL = True
# HEC takes events and gives none back; what was indexed is found by Splunk's search, under another account.
AGAINST_ASKING: tuple[str, ...] = ("its event collector has no lookup by idempotency key",)
SOURCETYPE = "cavra:rollback_drill_ack_audit"

# HEC's own codes, for the case that a 200 carries one (Splunk, "Troubleshoot HTTP Event Collector").
_CODES = {
    **dict.fromkeys((1, 2, 3, 4), FailureClass.AUTH),
    **dict.fromkeys((5, 6, 7, 10, 11, 12, 13, 14, 15, 16), FailureClass.REJECTED),
    **dict.fromkeys((8, 9, 18, 19, 20, 23), FailureClass.UNAVAILABLE),
}


def render(event: dict[str, Any], settings: ConnectorSettings) -> tuple[bytes, str]:
    """The event in HEC's JSON envelope, in canonical form (RFC 8785); ``index`` when one is configured."""
    envelope: dict[str, Any] = {"event": event, "sourcetype": SOURCETYPE}
    if settings.index:
        envelope["index"] = settings.index
    return rfc8785.dumps(envelope), "application/json"


def identify(message_id: str) -> tuple[tuple[str, str], ...]:
    """HEC knows no message id: ``x-splunk-request-channel`` means something else."""
    return ()


def recognise(status: int, body: bytes) -> Assurance | FailureClass:
    """Acceptance is a 2xx whose JSON says code 0; a 2xx that says anything else is not."""
    if failure := classify_status(status):
        return failure
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return FailureClass.BAD_RESPONSE
    code = answer.get("code") if isinstance(answer, dict) else None
    if type(code) is not int:  # JSON's true and false are ints to Python
        return FailureClass.BAD_RESPONSE
    return Assurance.ACCEPTED if code == 0 else _CODES.get(code, FailureClass.BAD_RESPONSE)
