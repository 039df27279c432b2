"""SMTP submission (RFC 5321, RFC 6409): always under TLS, one message a connection, to all recipients or to none.

Until the server has taken every recipient, nothing of the content leaves. From its 354 on it may have the message,
whatever happens; only its answer to the final dot says that it took it over.
"""

import asyncio
import base64
import contextlib
import ipaddress
import re
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from evidence.connectors.failures import Refused
from evidence.connectors.products.adapter import Fetch
from evidence.connectors.progress import Progress
from evidence.connectors.specs import SendSpec
from evidence.connectors.transports.dialling import dialled, tls_context
from evidence.enums import FailureClass

if TYPE_CHECKING:
    from aiosmtplib import SMTP, SMTPResponse

# TLS from the first byte (RFC 8314 §3.3), or STARTTLS on the submission port (RFC 6409 §3.1).
TLS_SCHEME, TLS_PORT, STARTTLS_PORT = "smtps", 465, 587
GOODBYE_S = 1.0

F = FailureClass
# Replies with a meaning of their own (RFC 5321 §4.2.3, RFC 4954 §6, RFC 7504); the rest goes by its first digit.
_CODES = {
    **dict.fromkeys((450, 452), F.THROTTLED),
    **dict.fromkeys((432, 530, 534, 535, 538), F.AUTH),
    521: F.GONE,
}
# There it is the whole service that says no (RFC 5321 §3.1).
_AT_THE_GREETING = {**_CODES, 554: F.GONE}
_HUNDREDS = {4: F.UNAVAILABLE, 5: F.REJECTED}
# To "Go ahead" after STARTTLS there is no alternative: what is no passing trouble is no secure connection.
_AT_STARTTLS = {421: F.UNAVAILABLE, 454: F.UNAVAILABLE}
_AT_A_LINES_START = re.compile(rb"^\.", re.MULTILINE)


class Smtp:
    """Submits messages. A session whose message was taken says goodbye by itself."""

    def __init__(self) -> None:
        self._leaving: set[asyncio.Task[None]] = set()

    async def exchange(self, spec: SendSpec, progress: Progress) -> None:
        """Submit the order's content, a whole message, and read the last reply into ``progress``.

        ``bytes_sent`` counts what follows the server's 354. Raises ``Refused`` for a reply that says no.
        """
        # Late: a service that does not mail does without it.
        from aiosmtplib import SMTP, SMTPResponseException

        parts = urlsplit(spec.url)
        implicit = parts.scheme == TLS_SCHEME
        sock = await dialled(spec, progress, port=TLS_PORT if implicit else STARTTLS_PORT, encrypted=True)
        client = SMTP(
            hostname=parts.hostname,
            sock=sock,
            use_tls=implicit,
            start_tls=False,  # done below, and never left out
            tls_context=tls_context(spec.ca_pem),
            local_hostname=_own_name(sock),
            timeout=None,  # the whole order has one
        )
        try:
            await _opened(client, progress, implicit=implicit)
            progress.wire.reached(client.transport)
            await _authenticated(client, spec, progress)
            await _submitted(client, spec, progress)
        except SMTPResponseException as error:  # what is no reply of SMTP
            _drop(client, sock)
            raise _no(error.code, error.message, progress, "the answer") from error
        except BaseException:
            _drop(client, sock)
            raise
        task = asyncio.get_running_loop().create_task(_leave(client, sock))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def fetcher(self, spec: SendSpec) -> Fetch:
        """A mail server is asked nothing."""
        raise NotImplementedError(f"{spec.product} cannot be asked anything")

    async def close(self) -> None:
        """Wait for the goodbyes; each has its limit."""
        await asyncio.gather(*self._leaving, return_exceptions=True)


async def _opened(client: "SMTP", progress: Progress, *, implicit: bool) -> None:
    """Greeting, EHLO and, unless it is there from the start, TLS; then EHLO again, for what was said before
    may have been anybody's (RFC 3207 §4.2).
    """
    from aiosmtplib import SMTPResponseException

    try:
        await client.connect()
    except SMTPResponseException as error:
        raise _no(error.code, error.message, progress, "the session", _AT_THE_GREETING) from error
    await client.ehlo()
    if implicit:
        return
    if not client.supports_extension("STARTTLS"):
        raise Refused(F.TLS, "STARTTLS is not offered")
    try:
        await client.starttls()
    except SMTPResponseException as error:
        failure = _AT_STARTTLS.get(error.code, F.TLS)
        raise Refused(failure, f"STARTTLS was refused with {error.code}") from error
    await client.ehlo()


async def _authenticated(client: "SMTP", spec: SendSpec, progress: Progress) -> None:
    """AUTH PLAIN or LOGIN (RFC 4954, RFC 4616), once: a wrong password tried twice locks accounts.

    Replies are not kept: a server may repeat what it was sent.
    """
    username, password = spec.option("username"), spec.secret("token")
    if not username:
        return
    if "plain" in client.server_auth_methods:
        both = base64.b64encode(f"\0{username}\0{password}".encode())
        reply = await client.execute_command(b"AUTH", b"PLAIN", both)
    elif "login" in client.server_auth_methods:
        reply = await client.execute_command(b"AUTH", b"LOGIN")
        for said in (username, password):
            if reply.code == 334:
                reply = await client.execute_command(base64.b64encode(said.encode()))
    else:
        raise Refused(F.AUTH, "neither AUTH PLAIN nor AUTH LOGIN is offered")
    if reply.code != 235:
        codes = {**dict.fromkeys(range(500, 600), F.AUTH), **_CODES}
        raise _no(reply.code, "", progress, "the credential", codes)


async def _submitted(client: "SMTP", spec: SendSpec, progress: Progress) -> None:
    """Envelope and content."""
    body = spec.body
    room = client.esmtp_extensions.get("size", "")
    if room.isdecimal() and len(room) < 12 and 0 < int(room) < len(body):
        raise Refused(F.REJECTED, f"the server takes {int(room)} bytes, the message has {len(body)}")
    size = [f"SIZE={len(body)}".encode()] if client.supports_extension("SIZE") else []
    sender = f"FROM:<{spec.option('sender')}>".encode()
    await _yes(client, progress, "the sender", b"MAIL", sender, *size)
    for recipient in recipients(spec.option("recipients")):
        await _yes(client, progress, "a recipient", b"RCPT", f"TO:<{recipient}>".encode())
    await _yes(client, progress, "the content", b"DATA", hundred=3)
    # A line that is a dot ends the message (RFC 5321 §4.5.2).
    frame = _AT_A_LINES_START.sub(b"..", body) + b".\r\n"
    if (session := client.protocol) is None:
        raise ConnectionResetError("the server ended the session")
    progress.bytes_sent += len(frame)
    session.write(frame)
    reply = _checked(await session.read_response(), progress, "the content", 2)
    progress.status = reply.code
    progress.body += reply.message.encode("utf-8", "replace")


async def _yes(client: "SMTP", progress: Progress, what: str, *command: bytes, hundred: int = 2) -> None:
    """Say a command and go on if the reply is of this hundred."""
    _checked(await client.execute_command(*command), progress, what, hundred)


def _checked(reply: "SMTPResponse", progress: Progress, what: str, hundred: int) -> "SMTPResponse":
    if reply.code // 100 != hundred:
        raise _no(reply.code, reply.message, progress, what)
    return reply


def _no(
    code: int, said: str, progress: Progress, what: str, codes: Mapping[int, FailureClass] = _CODES
) -> Refused:
    """A reply that says no, noted, as the class it stands for; what is no reply at all was not understood."""
    if 100 <= code <= 599:
        progress.status = code
    progress.body += said.encode("utf-8", "replace")
    return Refused(codes.get(code) or _HUNDREDS.get(code // 100, F.BAD_RESPONSE), f"{what} was refused")


def recipients(option: str) -> list[str]:
    """The addresses of a comma-separated list."""
    return [address.strip() for address in option.split(",") if address.strip()]


def _own_name(sock: socket.socket) -> str:
    """How to introduce ourselves: by address, for a name of ours need not be known outside (RFC 5321 §4.1.4)."""
    own = ipaddress.ip_address(str(sock.getsockname()[0]).partition("%")[0])
    return f"[IPv6:{own}]" if own.version == 6 else f"[{own}]"


def _drop(client: "SMTP", sock: socket.socket) -> None:
    """End at once: what goes wrong is not talked about for longer."""
    transport = client.transport
    client.close()
    if transport is not None:
        transport.abort()  # type: ignore[attr-defined]
    sock.close()


async def _leave(client: "SMTP", sock: socket.socket) -> None:
    """QUIT; the message is taken, whatever the server says to that."""
    from aiosmtplib import SMTPException

    with contextlib.suppress(SMTPException, OSError, TimeoutError):
        async with asyncio.timeout(GOODBYE_S):
            await client.quit()
    _drop(client, sock)
