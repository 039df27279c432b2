"""Splunk's HTTP Event Collector: an envelope around the event, and an answer whose JSON ``code`` decides.

With a data channel the collector is asked, while the order's time lasts, whether the event was indexed. Source:
Splunk, "About HTTP Event Collector Indexer Acknowledgment" and "HTTP Event Collector REST API endpoints".
"""

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

import rfc8785

from evidence.connectors.failures import classify_status
from evidence.connectors.products.adapter import Adapter, Fetch, Headers, Option, json_object
from evidence.connectors.specs import ConnectorSettings, SendSpec
from evidence.enums import Assurance, FailureClass

CHANNEL_HEADER = "x-splunk-request-channel"
_COLLECTOR = "/services/collector"
_PAUSES_S = (0.1, 0.2, 0.5, 1.0, 2.0)
SOURCETYPE = "cavra:rollback_drill_ack_audit"

# HEC's own codes, for the case that a 200 carries one (Splunk, "Troubleshoot HTTP Event Collector").
_CODES = {
    **dict.fromkeys((1, 2, 3, 4), FailureClass.AUTH),
    **dict.fromkeys((5, 6, 7, 10, 11, 12, 13, 14, 15, 16), FailureClass.REJECTED),
    **dict.fromkeys((8, 9, 18, 19, 20, 23), FailureClass.UNAVAILABLE),
}


def render(event: dict[str, Any], settings: ConnectorSettings, _message_id: str) -> tuple[bytes, str]:
    """The event in HEC's JSON envelope, in canonical form (RFC 8785); ``index`` when one is configured."""
    envelope: dict[str, Any] = {"event": event, "sourcetype": SOURCETYPE}
    if settings.index:
        envelope["index"] = settings.index
    return rfc8785.dumps(envelope), "application/json"


def authorization(settings: ConnectorSettings, token: str) -> str:
    """HEC's own scheme, unless the connector names another one than the form's default."""
    scheme = settings.authorization_scheme
    return f"{scheme if scheme not in ('', 'Bearer') else 'Splunk'} {token}"


def recognise(status: int, body: bytes) -> Assurance | FailureClass:
    """Acceptance is a 2xx whose JSON says code 0; a 2xx that says anything else is not."""
    if failure := classify_status(status):
        return failure
    code = json_object(body).get("code")
    if type(code) is not int:  # JSON's true and false are ints to Python
        return FailureClass.BAD_RESPONSE
    return Assurance.ACCEPTED if code == 0 else _CODES.get(code, FailureClass.BAD_RESPONSE)


def channel(settings: ConnectorSettings, _message_id: str) -> Headers:
    """The data channel, which a token with indexer acknowledgement demands."""
    return ((CHANNEL_HEADER, found),) if (found := settings.option("channel")) else ()


async def confirm(spec: SendSpec, _status: int, body: bytes, fetch: Fetch) -> Assurance | None:
    """Ask until the event is indexed, or until the collector does not know: then it stays accepted.

    The caller bounds the time. A collector tells an acknowledgement once, so the first yes is final.
    """
    ack = json_object(body).get("ackId")
    if not spec.option("channel") or type(ack) is not int:
        return None
    parts = urlsplit(spec.url)
    # The collector may stand behind a path of a proxy's.
    path = parts.path.partition(_COLLECTOR)[0] + f"{_COLLECTOR}/ack"
    url = parts._replace(path=path, query=f"channel={spec.option('channel')}").geturl()
    # Whatever stands before the collector wants its headers here too; the key is the event's alone.
    headers = tuple((name, value) for name, value in spec.headers if name != "idempotency-key")
    for number in range(1_000):
        await asyncio.sleep(_PAUSES_S[min(number, len(_PAUSES_S) - 1)])
        status, answered = await fetch(url, json.dumps({"acks": [ack]}).encode(), headers)
        acks = json_object(answered).get("acks")
        if status != 200 or not isinstance(acks, dict):
            return None
        if acks.get(str(ack)) is True:
            return Assurance.CONFIRMED
    return None


ADAPTER = Adapter(
    render=render,
    recognise=recognise,
    assurance=Assurance.ACCEPTED,
    earned="The event collector answered with code 0: it is queued for the indexers. With a data channel it is "
    "asked again, and confirmed once it says that the event is indexed.",
    needs_credential=True,
    authorization=authorization,
    options={
        "channel": Option(
            label="a data channel, a GUID",
            help="For a token with indexer acknowledgement; a try then waits for it, up to the timeout.",
            pattern=r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}",
        )
    },
    headers=channel,
    confirm=confirm,
    # HEC takes events and gives none back; what was indexed is found by Splunk's search, under another account.
    against_asking=("its event collector has no lookup by idempotency key",),
)
