"""E-mail: a few lines to read, and the event itself as an attachment. The frozen bytes are the whole message.

Sources: RFC 5322 (message), RFC 2045 to 2047 (MIME, quoted-printable, words in headers), RFC 3834 (mail that
nobody should answer by machine). Nothing in it comes from the clock or from chance: every try is the same message.
"""

import base64
import hashlib
import quopri
import re
import textwrap
from collections.abc import Iterator, Mapping
from datetime import datetime
from email.utils import format_datetime
from typing import Any

import rfc8785

from evidence.connectors.products.adapter import Adapter, Option
from evidence.connectors.products.identity import identity, planned_at
from evidence.connectors.specs import ConnectorSettings
from evidence.enums import Assurance, FailureClass, Transport

MAX_RECIPIENTS = 20
MAX_SUBJECT = 120
LINE = 78  # RFC 5322 §2.1.1
# An addr-spec as forms on the web take it: no quotes, comments or literals.
_ADDRESS = r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?"
# RFC 2047 §2: a line with an encoded word has at most 76 characters. Names here have at most 14.
_WORD_BYTES = 36
_PLAIN = re.compile(r"[ -~]*")

OPTIONS = {
    "sender": Option(label="address that mail comes from", pattern=_ADDRESS, required=True),
    "recipients": Option(
        label=f"one to {MAX_RECIPIENTS} addresses, separated by commas",
        help="All of them or none: one that is refused keeps the message back.",
        pattern=f"{_ADDRESS}(?: ?, ?{_ADDRESS}){{0,{MAX_RECIPIENTS - 1}}}",
        required=True,
    ),
    "username": Option(label="name to sign in with", help="Its password is what token_ref names."),
}
FACTS = (
    ("alert_level", "Alert level"),
    ("text", "Text"),
    ("link", "Link"),
)
SUMMARY = (
    ("audit_id", "Audit package"),
    ("audit_hash", "Its digest"),
    ("route_count", "Routes"),
    ("acknowledged_count", "Acknowledged"),
    ("resolved_count", "Resolved"),
    ("escalated_count", "Escalated"),
    ("dismissed_count", "Dismissed"),
    ("outstanding_count", "Outstanding"),
)


def render(event: dict[str, Any], settings: ConnectorSettings, message_id: str) -> tuple[bytes, str]:
    """One message: seven bits, lines within 78 characters, ended by CR and LF."""
    text = rfc8785.dumps(event)
    known = identity(event, message_id, text)
    boundary = f"=_cavra_{known['sha256'][:40]}"  # "=_" is in no quoted-printable text
    to = [address.strip() for address in settings.option("recipients").split(",")]
    lines = [
        *_date(event),
        f"From: {settings.option('sender')}",
        *("To: " + ",\n ".join(to)).split("\n"),
        *_folded("Subject", _title(event)),
        f"Message-ID: {mark(settings, message_id)}",
        "Auto-Submitted: auto-generated",
        *(line for name, value in known.items() for line in _folded(f"Cavra-{name.title()}", value)),
        "MIME-Version: 1.0",
        "Content-Type: multipart/mixed;",
        f' boundary="{boundary}"',
        "",
        f"--{boundary}",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: quoted-printable",
        "",
        *_quoted(_summary(event, known).encode()),
        f"--{boundary}",
        'Content-Type: application/json; name="event.json"',
        'Content-Disposition: attachment; filename="event.json"',
        "Content-Transfer-Encoding: quoted-printable",
        "",
        *_quoted(text),
        f"--{boundary}--",
        "",
    ]
    return "\r\n".join(lines).encode("ascii"), "message/rfc822"


def mark(settings: ConnectorSettings, message_id: str) -> str:
    """The Message-ID: made of the message's id here, under the sender's domain."""
    domain = settings.option("sender").rpartition("@")[2]
    return f"<{hashlib.sha256(message_id.encode()).hexdigest()[:40]}@{domain}>"


def _date(event: dict[str, Any]) -> list[str]:
    """When the delivery was planned; the server adds its own time to what has none (RFC 6409 §8.1)."""
    if not (at := planned_at(event)):
        return []
    return [f"Date: {format_datetime(datetime.fromisoformat(at))}"]


def _title(event: dict[str, Any]) -> str:
    title = str(event.get("title") or event.get("text") or "Message of the evidence console")
    # Words, so that no line can end in the middle of a header.
    return " ".join("".join(c if c.isprintable() else " " for c in title).split())[:MAX_SUBJECT]


def _folded(name: str, value: str) -> Iterator[str]:
    """A header in lines that fit; what is not plain, or too long a word, goes into encoded words (RFC 2047)."""
    head = f"{name}: "
    if _PLAIN.fullmatch(value) and "=?" not in value and max(map(len, value.split(" "))) <= LINE - len(head):
        how: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
        lines = textwrap.wrap(value, LINE, initial_indent=head, subsequent_indent=" ", **how)
        yield from lines or [head.rstrip()]
        return
    words = (f"=?utf-8?b?{base64.b64encode(part).decode()}?=" for part in _parts(value))
    yield from (f"{' ' if number else head}{word}" for number, word in enumerate(words))


def _parts(value: str) -> Iterator[bytes]:
    """UTF-8 in pieces for one word each; no character is cut in two."""
    piece = b""
    for character in value:
        encoded = character.encode("utf-8", "replace")
        if len(piece) + len(encoded) > _WORD_BYTES:
            yield piece
            piece = b""
        piece += encoded
    yield piece


def _quoted(data: bytes) -> list[str]:
    """Quoted-printable lines (RFC 2045 §6.7): what is plain stays readable."""
    return quopri.encodestring(data).decode("ascii").split("\n")


def _summary(event: dict[str, Any], known: Mapping[str, str]) -> str:
    """What a person reads; values are the event's own."""
    summary = event.get("audit_package_summary")
    summary = summary if isinstance(summary, dict) else {}
    facts = [(label, event[name]) for name, label in FACTS if event.get(name) not in (None, "")]
    facts += [(label, summary[name]) for name, label in SUMMARY if summary.get(name) not in (None, "")]
    facts += [(name.capitalize(), value) for name, value in known.items() if name != "sha256"]
    lines = [f"{label}: {' '.join(str(value).split())}" for label, value in facts]
    return "\n".join(
        (
            _title(event),
            "",
            *lines,
            "",
            "The attached event.json is the evidence, byte for byte; its SHA-256 is",
            known["sha256"],
            "",
        )
    )


def against(settings: ConnectorSettings) -> list[tuple[str, str]]:
    """A name and its password come together."""
    if settings.option("username") and not settings.token_ref:
        return [("token_ref", "Must name the password of username, where there is one.")]
    if settings.token_ref and not settings.option("username"):
        return [("options", "Must hold the username that the password of token_ref belongs to.")]
    return []


def recognise(status: int, _body: bytes) -> Assurance | FailureClass:
    """The server took the message over; the transport raises for every reply that says no."""
    return Assurance.ACCEPTED if status // 100 == 2 else FailureClass.BAD_RESPONSE


ADAPTER = Adapter(
    render=render,
    recognise=recognise,
    assurance=Assurance.ACCEPTED,
    earned="The mail server took the message over for every recipient; their mailboxes say nothing.",
    transport=Transport.SMTP,
    schemes=("smtps", "smtp"),
    options=OPTIONS,
    credentials=("token_ref",),
    authorization=None,
    against=against,
    mark=mark,
    against_asking=("a mail server does not tell what became of a message",),
)
