"""PagerDuty: an alert by the Events API, version 2.

Sources: PagerDuty, "Events API v2 Overview" (statuses, 512 KB) and "Send an Alert Event" (fields and their lengths).
"""

import hashlib
import re
from typing import Any

import rfc8785

from evidence.connectors.failures import classify_status
from evidence.connectors.products import brief
from evidence.connectors.products.adapter import Adapter, Option, below, json_object
from evidence.connectors.specs import ConnectorSettings, SendSpec
from evidence.enums import Assurance, FailureClass

# Stands in the body that is frozen, approved and hashed; as long as a key, so that limits hold for either.
PLACEHOLDER = "ROUTING-KEY-SET-AT-SENDING-ALONE"
CLIENT = "CAVRA Evidence Console"
_KEY = re.compile(r"[0-9A-Za-z]{32}")
_SUMMARY, _SOURCE, _TEXT, _LINES = 1_024, 255, 200, 50
_MAX_DEDUP_KEY = 255


def render(event: dict[str, Any], settings: ConnectorSettings, message_id: str) -> tuple[bytes, str]:
    """The alert with a placeholder where the routing key goes, the event in brief as its details.

    The deduplication key is made of the message id: every try of a case is the same alert.
    """
    seen = brief.of(event, message_id)
    payload: dict[str, Any] = {
        "summary": brief.clip(seen.title, _SUMMARY),
        "severity": brief.severity(seen),
        "source": settings.option("source") or CLIENT,
        "class": brief.clip(brief.line(event.get("event_type")), _SOURCE) or "evidence",
        "custom_details": {
            **{label: brief.clip(value, _TEXT) for label, value in (*seen.facts, *seen.ids)},
            "No answer yet": brief.listed(seen.waiting, most=_LINES, each=_TEXT),
            "How to check": brief.how_to_check(seen),
        },
    }
    if settings.service:
        payload["component"] = settings.service
    alert: dict[str, Any] = {
        "routing_key": PLACEHOLDER,
        "event_action": "trigger",
        "dedup_key": _dedup_key(message_id or seen.digest),
        "client": CLIENT,
        "payload": payload,
    }
    return rfc8785.dumps(alert), "application/json"


def complete(spec: SendSpec) -> bytes:
    """The approved body with the routing key in it. The receipt's digest stays that of the approved one."""
    alert = json_object(spec.body)
    if alert.get("routing_key") != PLACEHOLDER:
        raise ValueError("the body has no place for a routing key")
    return rfc8785.dumps({**alert, "routing_key": spec.secret("token")})


def recognise(status: int, body: bytes) -> Assurance | FailureClass:
    """202 with the status ``success`` is acceptance; a 400 about the routing key is one about the credential."""
    said = json_object(body)
    if status == 202:
        return Assurance.ACCEPTED if said.get("status") == "success" else FailureClass.BAD_RESPONSE
    if status == 400 and re.search(r"routing[_ ]key", str(said.get("errors")), re.IGNORECASE):
        return FailureClass.AUTH
    return classify_status(status) or FailureClass.BAD_RESPONSE


def secret_problem(name: str, value: str) -> str | None:
    """Why this value is no integration key."""
    if name == "token" and not _KEY.fullmatch(value):
        return "must be an integration key of 32 letters and digits"
    return None


def _dedup_key(message_id: str) -> str:
    fits = brief.width(message_id) <= _MAX_DEDUP_KEY
    return message_id if fits else hashlib.sha256(message_id.encode()).hexdigest()


def mark(_settings: ConnectorSettings, message_id: str) -> str:
    """The alert's key, as PagerDuty shows it."""
    return _dedup_key(message_id)


ADAPTER = Adapter(
    render=render,
    recognise=recognise,
    assurance=Assurance.ACCEPTED,
    earned="The events interface answered with 202 and success: the alert is queued. It says so of an unknown "
    "routing key too. The alert is a summary; the event itself is not there.",
    schemes=("https",),
    max_body=512 * 1024,
    target=below("/v2/enqueue"),
    options={"source": Option(label="the system that alerts are shown under", pattern=r"[ -~]{1,255}")},
    needs_credential=True,
    credentials=("token_ref",),
    authorization=None,
    complete=complete,
    secret_problem=secret_problem,
    mark=mark,
    against_asking=("its events interface takes alerts and gives none back",),
    # A test alert calls whoever is on duty.
    canary_sends=False,
)
