"""Syslog (RFC 5424): the event as the text of one message, what identifies it as structured data in front.

Sources: RFC 5424 §6 (message), §6.2.1 (priority), §6.3.3 (escapes), §6.4 (UTF-8 behind a byte order mark);
RFC 5612 (the enterprise number 32473, for documentation); RFC 5425 §4.3.1 (lengths).
"""

import re
from collections.abc import Mapping
from typing import Any

import rfc8785

from evidence.connectors.products.adapter import Adapter, Option
from evidence.connectors.products.identity import identity, planned_at
from evidence.connectors.specs import ConnectorSettings
from evidence.enums import AlertLevel, Assurance, FailureClass, Transport

APP_NAME = "cavra"
NIL = "-"
# A receiver SHOULD take 8192 bytes and may cut what is longer without a word (RFC 5425 §4.3.1). rsyslog, unless it is
# told otherwise (maxMessageSize), cuts behind these.
MAX_BYTES = "8096"
LOG_AUDIT = "13"
SD_ID = "cavra@32473"
# RFC 5424 §6.2.1: informational, warning, critical.
SEVERITIES = {AlertLevel.HEALTHY: 6, AlertLevel.WARNING: 4, AlertLevel.CRITICAL: 2}
NOTICE = 5
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_NOT_IN_A_VALUE, _ESCAPED = re.compile(r'(["\\\]])'), r"\\\1"
_NOT_IN_A_NAME = re.compile(r"[^!-~]+")

OPTIONS = {
    "facility": Option(
        label="facility, 0 to 23", help="13 is log audit.", pattern=r"1?[0-9]|2[0-3]", default=LOG_AUDIT
    ),
    "hostname": Option(
        label="host name to send as, of 1 to 255 visible characters",
        help="Without one the field stays empty (-).",
        pattern=r"[!-~]{1,255}",
        default=NIL,
    ),
    "structured_data_id": Option(
        label="name@number of the structured data, at most 32 characters",
        help="The number is a private enterprise number; 32473 is the one for examples.",
        pattern=r"(?=.{3,32}\Z)[!#-<>-?A-\\^-~]+@[0-9.]+",
        default=SD_ID,
    ),
    "max_bytes": Option(
        label="longest message that the receiver takes, 480 to 999999 bytes",
        help="Longer ones are refused here: a receiver cuts them without a word. "
        "Raise it together with the receiver's own limit.",
        pattern=r"4[89][0-9]|[5-9][0-9]{2}|[1-9][0-9]{3,5}",
        default=MAX_BYTES,
    ),
}


def render(event: dict[str, Any], settings: ConnectorSettings, message_id: str) -> tuple[bytes, str]:
    """One SYSLOG-MSG whose text is the event in canonical form (RFC 8785).

    Its time is the event's own, so that every try sends the same bytes. Structured data names what a receiver
    tells repetitions and gaps by: message, delivery, place in the connector's stream, digest of the text.
    """
    text = rfc8785.dumps(event)
    header = " ".join(
        (
            f"<{int(_option(settings, 'facility')) * 8 + _severity(event)}>1",
            planned_at(event) or NIL,
            _option(settings, "hostname"),
            APP_NAME,
            NIL,
            _message_type(event),
            _structured(_option(settings, "structured_data_id"), identity(event, message_id, text)),
        )
    )
    return header.encode() + b" " + BYTE_ORDER_MARK + text, "text/plain; charset=utf-8"


def _option(settings: ConnectorSettings, name: str) -> str:
    return settings.option(name) or OPTIONS[name].default


def _severity(event: dict[str, Any]) -> int:
    return SEVERITIES.get(event.get("alert_level", ""), NOTICE)


def _message_type(event: dict[str, Any]) -> str:
    """MSGID: the last word of the event's type, at most 32 visible characters."""
    name = str(event.get("event_type", "")).rpartition(".")[2]
    return _NOT_IN_A_NAME.sub("_", name)[:32] or NIL


def _structured(sd_id: str, parameters: Mapping[str, str]) -> str:
    """One SD-ELEMENT, with the three characters escaped that a value cannot hold (RFC 5424 §6.3.3)."""
    values = (_parameter(name, value) for name, value in parameters.items())
    return f"[{' '.join((sd_id, *values))}]"


def _parameter(name: str, value: str) -> str:
    return f'{name}="{_NOT_IN_A_VALUE.sub(_ESCAPED, value)}"'


def limit(settings: ConnectorSettings) -> int:
    """How long a message may be, in bytes. What the option may not say is refused elsewhere."""
    said = _option(settings, "max_bytes")
    return int(said if re.fullmatch(OPTIONS["max_bytes"].pattern, said) else MAX_BYTES)


def against(settings: ConnectorSettings) -> list[tuple[str, str]]:
    """What is not encrypted stays in networks that are named."""
    if settings.url.startswith("syslog://") and not settings.allow_networks:
        return [("url", "Must begin with syslog+tls://, or stay in private networks that are allowed.")]
    return []


def mark(_settings: ConnectorSettings, message_id: str) -> str:
    """The message's id as it stands in structured data."""
    return _parameter("message", message_id)


def recognise(_status: int, _body: bytes) -> Assurance | FailureClass:
    """It was written to its end: the transport raises for everything else."""
    return Assurance.WRITTEN


ADAPTER = Adapter(
    render=render,
    recognise=recognise,
    assurance=Assurance.WRITTEN,
    earned="The message was written whole, and the receiver ended the connection in order after it.",
    transport=Transport.SYSLOG,
    schemes=("syslog+tls", "syslog"),
    limit=limit,
    against=against,
    mark=mark,
    options=OPTIONS,
    credentials=(),
    authorization=None,
    against_asking=("syslog has no way to ask for a message",),
)
