"""Microsoft Sentinel, by Azure Monitor's Logs Ingestion API and a client secret of Microsoft Entra.

Sources: Microsoft Learn, "Logs Ingestion API in Azure Monitor" (address, body, errors), "Azure Monitor service
limits" (1 MB a call, 64 KB a value) and "Microsoft identity platform and the OAuth 2.0 client credentials flow".
"""

import hashlib
import time
from typing import Any
from urllib.parse import urlencode

import rfc8785

from evidence.connectors.failures import Refused, classify_status
from evidence.connectors.products import brief
from evidence.connectors.products.adapter import Adapter, Fetch, Headers, Option, json_object
from evidence.connectors.specs import ConnectorSettings, SendSpec
from evidence.enums import Assurance, FailureClass

API_VERSION = "2023-01-01"
SCOPE = "https://monitor.azure.com/.default"
MAX_BODY = 1_000_000
# A value above 64 KB would be cut without a word. Half of that is safe however it is counted.
MAX_PART = 32_000
# A token this near its end is not used any more.
_SLACK_S = 60.0
_MAX_LIFE_S = 86_400.0

_Key = tuple[str, str, str, str, str]
# Access tokens and when they end (time.monotonic()), of this process alone.
_tokens: dict[_Key, tuple[str, float]] = {}

# RFC 6749 §5.2 and §4.4; whatever else the token endpoint says goes by its status.
_OAUTH_ERRORS = {
    "invalid_client": (FailureClass.AUTH, "the token endpoint does not take the client secret"),
    "unauthorized_client": (FailureClass.AUTH, "the token endpoint does not know the client"),
    "access_denied": (FailureClass.AUTH, "the token endpoint denies access"),
    "invalid_scope": (FailureClass.MISCONFIGURED, "the token endpoint does not know the scope"),
    "invalid_request": (FailureClass.MISCONFIGURED, "the token endpoint does not take the request"),
    "unsupported_grant_type": (FailureClass.MISCONFIGURED, "the token endpoint does not take the request"),
    "temporarily_unavailable": (FailureClass.UNAVAILABLE, "the token endpoint is unavailable"),
}


def target(settings: ConnectorSettings, url: str) -> str:
    """The stream of the data collection rule, below the data collection endpoint's address."""
    rule, stream = settings.option("dcr"), settings.option("stream")
    return f"{url.rstrip('/')}/dataCollectionRules/{rule}/streams/{stream}?api-version={API_VERSION}"


def render(event: dict[str, Any], _settings: ConnectorSettings, message_id: str) -> tuple[bytes, str]:
    """Rows for the stream: columns to search by, and the event's canonical text (RFC 8785) in ``EventText``.

    A long event is in several rows, ``Part`` 1 to ``Parts``: their texts put together are the event, and have
    ``EventSha256``.
    """
    text = rfc8785.dumps(event).decode()
    seen = brief.of(event, message_id)
    parts = _parts(text)
    common: dict[str, Any] = {
        "MessageId": message_id,
        "SessionId": brief.line(event.get("session_id"))[:200],
        "EventType": brief.line(event.get("event_type"))[:200],
        "Title": brief.clip(seen.title, 1_000),
        "AlertLevel": seen.level[:40],
        "EventSha256": seen.digest,
        "Parts": len(parts),
    }
    rows = [{**common, "Part": number, "EventText": part} for number, part in enumerate(parts, start=1)]
    return rfc8785.dumps(rows), "application/json"


def recognise(status: int, _body: bytes) -> Assurance | FailureClass:
    """204 is acceptance, the only success that is documented."""
    if status == 204:
        return Assurance.ACCEPTED
    return classify_status(status) or FailureClass.BAD_RESPONSE


async def authorize(spec: SendSpec, fetch: Fetch) -> Headers:
    """The access token as a header, from the cache or from the token endpoint.

    Raises ``Refused`` with the class of what the endpoint said; nothing of the content has left then.
    """
    key = _key(spec)
    token, ends = _tokens.get(key, ("", 0.0))
    if time.monotonic() >= ends:
        token, life_s = await _fetch_token(spec, fetch)
        now = time.monotonic()
        for old in [old for old, (_, end) in list(_tokens.items()) if end <= now]:
            _tokens.pop(old, None)
        _tokens[key] = (token, now + min(life_s, _MAX_LIFE_S) - _SLACK_S)
    return (("authorization", f"Bearer {token}"),)


def forget(spec: SendSpec) -> None:
    """Drop the token of this order's credentials."""
    _tokens.pop(_key(spec), None)


async def _fetch_token(spec: SendSpec, fetch: Fetch) -> tuple[str, float]:
    form = {
        "grant_type": "client_credentials",
        "client_id": spec.option("client_id"),
        "client_secret": spec.secret("token"),
        "scope": spec.option("scope") or SCOPE,
    }
    headers = (("content-type", "application/x-www-form-urlencoded"), ("accept", "application/json"))
    status, body = await fetch(spec.option("token_url"), urlencode(form).encode(), headers)
    answer = json_object(body)
    if known := _OAUTH_ERRORS.get(str(answer.get("error"))):
        raise Refused(*known)
    if failure := classify_status(status):
        raise Refused(failure, f"the token endpoint answered HTTP {status}")
    token, life = answer.get("access_token"), str(answer.get("expires_in"))
    # RFC 6750 §2.1: what a bearer token is made of.
    fits = isinstance(token, str) and token.isascii() and token.isprintable() and " " not in token
    if not token or not fits or str(answer.get("token_type")).lower() != "bearer":
        raise Refused(FailureClass.BAD_RESPONSE, "the token endpoint's answer was not understood")
    return token, float(life) if life.isascii() and life.isdigit() and len(life) < 10 else 0.0


def _key(spec: SendSpec) -> _Key:
    secret = hashlib.sha256(spec.secret("token").encode()).hexdigest()
    return (spec.connector, spec.option("token_url"), spec.option("client_id"), spec.option("scope"), secret)


def _parts(text: str) -> list[str]:
    """The text in pieces of at most ``MAX_PART`` bytes of UTF-8, cut between characters."""
    data = text.encode()
    parts, begin = [], 0
    while begin < len(data):
        end = min(begin + MAX_PART, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1
        parts.append(data[begin:end].decode())
        begin = end
    return parts


def mark(_settings: ConnectorSettings, message_id: str) -> str:
    """What to search the table for (KQL)."""
    return f'MessageId == "{message_id}"'


ADAPTER = Adapter(
    render=render,
    recognise=recognise,
    assurance=Assurance.ACCEPTED,
    earned="The ingestion endpoint answered with 204: the rows are taken for the data collection rule. Rows that "
    "its transformation drops, or columns that the stream does not declare, are not reported.",
    schemes=("https",),
    max_body=MAX_BODY,
    target=target,
    options={
        "token_url": Option(
            label="the token endpoint's URL",
            help="https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token, or that of a sovereign cloud.",
            pattern=r"https://[!-~]{1,400}",
            required=True,
            is_url=True,
        ),
        "client_id": Option(
            label="the application's client id, a GUID",
            pattern=r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}",
            required=True,
        ),
        "dcr": Option(
            label="the immutable id of the data collection rule",
            pattern=r"dcr-[0-9a-f]{32}",
            required=True,
        ),
        "stream": Option(
            label="the stream's name in the rule",
            pattern=r"(Custom|Microsoft)-[A-Za-z0-9_-]{1,100}",
            required=True,
        ),
        "scope": Option(
            label="the scope that a token is asked for",
            help="Of a sovereign cloud, for example https://monitor.azure.us/.default.",
            pattern=r"https://[A-Za-z0-9./_-]{1,200}/\.default",
            default=SCOPE,
        ),
    },
    needs_credential=True,
    credentials=("token_ref",),
    authorization=None,
    authorize=authorize,
    forget=forget,
    mark=mark,
    # Reading the table is another interface with another permission, and rows appear minutes later.
    against_asking=("its ingestion interface takes rows and gives none back",),
)
