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
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from evidence.connectors.failures import Refused
from evidence.connectors.products.adapter import Fetch
from evidence.connectors.progress import Progress
from evidence.connectors.specs import SendSpec
from evidence.connectors.transports.dialling import dialled, tls_context
from evidence.connectors.transports.names import Names
from evidence.enums import FailureClass

if TYPE_CHECKING:
    from aiosmtplib import SMTPResponse

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

    def __init__(self, names: Names) -> None:
        self._names = names
        self._leaving: set[asyncio.Task[None]] = set()

    async def exchange(self, spec: SendSpec, progress: Progress) -> None:
        """Submit the order's content, a whole message, and read the last reply into ``progress``.

        ``bytes_sent`` counts what follows the server's 354. Raises ``Refused`` for a reply that says no.
        """
        # Late: a service that does not mail does without the library.
        from aiosmtplib import SMTPResponseException

        session = _Session(spec, progress, self._names)
        try:
            await session.open()
            try:
                await _authenticated(session, spec, progress)
            except ConnectionError as error:  # some servers say no that way: it is not tried again
                raise Refused(F.CONNECT, "the server ended the session at signing in") from error
            await _submitted(session, spec, progress)
        except SMTPResponseException as error:  # what is no reply of SMTP
            session.drop()
            raise _no(error.code, error.message, progress, "the answer") from error
        except BaseException:
            session.drop()
            raise
        task = asyncio.get_running_loop().create_task(session.leave())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def fetcher(self, spec: SendSpec) -> Fetch:
        """A mail server is asked nothing."""
        raise NotImplementedError(f"{spec.product} cannot be asked anything")

    async def close(self) -> None:
        """Wait for the goodbyes; each has its limit."""
        await asyncio.gather(*self._leaving, return_exceptions=True)


class _Session:
    """One connection to a mail server. ``extensions`` are what it offers under TLS, names in lower case."""

    def __init__(self, spec: SendSpec, progress: Progress, names: Names) -> None:
        self.spec, self.progress, self.names = spec, progress, names
        self.host = urlsplit(spec.url).hostname or ""
        self.extensions: dict[str, str] = {}
        self.sign_in: list[str] = []
        self.name = ""
        self._transports: list[asyncio.Transport] = []

    async def open(self) -> None:
        """Greeting, EHLO and, unless it is there from the start, TLS; then EHLO again, for whatever was said
        before may have been anybody's (RFC 3207 §4.2).
        """
        from aiosmtplib import SMTPResponseException
        from aiosmtplib.protocol import SMTPProtocol

        implicit = urlsplit(self.spec.url).scheme == TLS_SCHEME
        context = tls_context(self.spec.ca_pem)
        port = TLS_PORT if implicit else STARTTLS_PORT
        sock = await dialled(self.spec, self.progress, self.names, port=port, encrypted=True)
        self.name = _own_name(sock)
        loop = asyncio.get_running_loop()
        transport, self.protocol = await loop.create_connection(
            lambda: SMTPProtocol(loop=loop),
            sock=sock,
            ssl=context if implicit else None,
            server_hostname=self.host if implicit else None,
        )
        self._transports.append(transport)
        greeting = await self.protocol.read_response()
        if greeting.code != 220:
            raise _no(greeting.code, greeting.message, self.progress, "the session", _AT_THE_GREETING)
        await self._introduce()
        if not implicit:
            if "starttls" not in self.extensions:
                raise Refused(F.TLS, "STARTTLS is not offered")
            try:
                await self.protocol.start_tls(context, server_hostname=self.host)
            except SMTPResponseException as error:
                failure = _AT_STARTTLS.get(error.code, F.TLS)
                raise Refused(failure, f"STARTTLS was refused with {error.code}") from error
            transport = cast(asyncio.Transport, self.protocol.transport)
            self._transports.append(transport)
            await self._introduce()
        self.progress.wire.reached(transport)

    async def say(self, *command: bytes) -> "SMTPResponse":
        """The reply to a command."""
        return await self.protocol.execute_command(*command)

    async def yes(self, what: str, *command: bytes, hundred: int = 2) -> None:
        """Say a command and go on if the reply is of this hundred; ``what`` was refused otherwise."""
        self.checked(await self.say(*command), what, hundred)

    def checked(self, reply: "SMTPResponse", what: str, hundred: int) -> None:
        """Go on if a reply is of this hundred; raise ``Refused`` otherwise."""
        if reply.code // 100 != hundred:
            raise _no(reply.code, reply.message, self.progress, what)

    def drop(self) -> None:
        """End at once: what goes wrong is not talked about for longer."""
        for transport in reversed(self._transports):
            transport.abort()

    async def leave(self) -> None:
        """QUIT; the message is taken, whatever the server says to that."""
        from aiosmtplib import SMTPException

        with contextlib.suppress(SMTPException, OSError, TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                await self.say(b"QUIT")
        self.drop()

    async def _introduce(self) -> None:
        from aiosmtplib.esmtp import parse_esmtp_extensions

        reply = await self.say(b"EHLO", self.name.encode())
        self.checked(reply, "the greeting", 2)
        self.extensions, self.sign_in = parse_esmtp_extensions(reply.message)


async def _authenticated(session: _Session, spec: SendSpec, progress: Progress) -> None:
    """AUTH PLAIN or LOGIN (RFC 4954, RFC 4616), once: a wrong password tried twice locks accounts.

    Replies are not kept: a server may repeat what it was sent.
    """
    username, password = spec.option("username"), spec.secret("token")
    if not username:
        return
    if "plain" in session.sign_in:
        both = base64.b64encode(f"\0{username}\0{password}".encode())
        reply = await session.say(b"AUTH", b"PLAIN", both)
    elif "login" in session.sign_in:
        reply = await session.say(b"AUTH", b"LOGIN")
        for said in (username, password):
            if reply.code == 334:
                reply = await session.say(base64.b64encode(said.encode()))
    else:
        raise Refused(F.AUTH, "neither AUTH PLAIN nor AUTH LOGIN is offered")
    if reply.code != 235:
        codes = {**dict.fromkeys(range(500, 600), F.AUTH), **_CODES}
        raise _no(reply.code, "", progress, "the credential", codes)


async def _submitted(session: _Session, spec: SendSpec, progress: Progress) -> None:
    """Envelope and content."""
    body = spec.body
    room = session.extensions.get("size", "")
    if room.isdecimal() and len(room) < 12 and 0 < int(room) < len(body):
        raise Refused(F.REJECTED, f"the server takes {int(room)} bytes, the message has {len(body)}")
    size = [f"SIZE={len(body)}".encode()] if "size" in session.extensions else []
    await session.yes("the sender", b"MAIL", f"FROM:<{spec.option('sender')}>".encode(), *size)
    for recipient in recipients(spec.option("recipients")):
        await session.yes("a recipient", b"RCPT", f"TO:<{recipient}>".encode())
    await session.yes("the content", b"DATA", hundred=3)
    # A line that is a dot ends the message (RFC 5321 §4.5.2).
    frame = _AT_A_LINES_START.sub(b"..", body) + b".\r\n"
    progress.bytes_sent += len(frame)
    session.protocol.write(frame)
    reply = await session.protocol.read_response()
    session.checked(reply, "the content", 2)
    progress.status = reply.code
    progress.body += reply.message.encode("utf-8", "replace")


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
