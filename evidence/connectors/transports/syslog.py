"""Syslog over TCP and TLS: one message, one connection, octet counting (RFC 6587 §3.4.1, RFC 5425 §4.3).

A syslog receiver says nothing. What can be known is whether it took the message in: its process closes its side
after ours only when it has read everything up to our end, and a process that ends with unread bytes, or is sent
some after it closed, resets the connection. So the end of our side is sent, the end of the other side is waited
for, and our own end has to be acknowledged.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

from evidence.connectors.failures import Refused
from evidence.connectors.products.adapter import Fetch
from evidence.connectors.progress import Progress
from evidence.connectors.specs import SendSpec
from evidence.connectors.transports.dialling import dialled, tls_context
from evidence.connectors.transports.names import Names
from evidence.enums import FailureClass

# RFC 5425 §4.1; for plain TCP the port that is registered with syslog-conn (RFC 3195) and used by convention.
TLS_SCHEME, TLS_PORT, PLAIN_PORT = "syslog+tls", 6514, 601
MAX_SAID = 1024
CHUNK = 16 * 1024
# TCP_INFO's first byte is the state (Linux, include/net/tcp_states.h): our end is sent and not acknowledged.
_END_ON_ITS_WAY = frozenset({4, 9, 11})  # FIN_WAIT1, LAST_ACK, CLOSING
_LOOK_AGAIN_S = 0.01

Result = TypeVar("Result")


class Syslog:
    """Sends messages, each on a connection of its own: what a kept one held could be lost without a word."""

    def __init__(self, names: Names) -> None:
        self._names = names

    async def exchange(self, spec: SendSpec, progress: Progress) -> None:
        """Write the order's message and end the connection in order; raises what went wrong.

        ``bytes_sent`` counts the message and its length in front of it.
        """
        parts = urlsplit(spec.url)
        encrypted = parts.scheme == TLS_SCHEME
        port = TLS_PORT if encrypted else PLAIN_PORT
        sock = await dialled(spec, progress, self._names, port=port, encrypted=encrypted)
        with contextlib.closing(sock):
            wire: _Plain = _Plain(sock)
            if encrypted:
                wire = _Tls(sock, tls_context(spec.ca_pem), parts.hostname or "")
            await wire.begin(progress)
            frame = b"%d %b" % (len(spec.body), spec.body)
            progress.bytes_sent += len(frame)
            await wire.write(frame)
            await wire.end(progress)

    def fetcher(self, spec: SendSpec) -> Fetch:
        """There is nobody to ask."""
        raise NotImplementedError(f"{spec.product} cannot be asked anything")

    async def close(self) -> None:
        """Nothing is kept open."""


class _Plain:
    """A connected socket, without blocking."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.loop = asyncio.get_running_loop()

    async def begin(self, progress: Progress) -> None:
        """Nothing comes before the message."""

    async def write(self, data: bytes) -> None:
        await self.loop.sock_sendall(self.sock, data)

    async def end(self, progress: Progress) -> None:
        """Say that nothing follows, and wait until the receiver has read that far and ends its side too.

        Raises ``ConnectionError`` when it did not, ``Refused`` when it speaks.
        """
        self.sock.shutdown(socket.SHUT_WR)
        while data := await self.loop.sock_recv(self.sock, CHUNK):
            self._heard(data, progress)
        while _state(self.sock) in _END_ON_ITS_WAY:
            await asyncio.sleep(_LOOK_AGAIN_S)
        if error := self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, "the receiver reset the connection")

    def _heard(self, data: bytes, progress: Progress) -> None:
        _refuse(data, progress)


class _Tls(_Plain):
    """The same under TLS, in memory: its end is said (RFC 5425 §4.4) before the connection's own end is."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, host: str) -> None:
        super().__init__(sock)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=host)

    async def begin(self, progress: Progress) -> None:
        await self._driven(self.tls.do_handshake)
        progress.wire.secured(self.tls)

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), CHUNK):
            await self._driven(partial(self.tls.write, data[start : start + CHUNK]))

    async def end(self, progress: Progress) -> None:
        with contextlib.suppress(ssl.SSLError):  # it goes on to wait for the other side's; that is done below
            self.tls.unwrap()
        await self._flush()
        await super().end(progress)

    def _heard(self, data: bytes, progress: Progress) -> None:
        """Session tickets and the other side's goodbye are in order; words and complaints are not."""
        self.incoming.write(data)
        try:
            said = self.tls.read(MAX_SAID)
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            return
        if said:
            _refuse(said, progress)

    async def _driven(self, step: Callable[[], Result]) -> Result:
        """The result of a step of TLS, carrying bytes to and from the socket while it wants more."""
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                await self._flush()
                if data := await self.loop.sock_recv(self.sock, CHUNK):
                    self.incoming.write(data)
                else:
                    raise ConnectionResetError("the receiver ended the connection") from None
            except ssl.SSLError:
                # The other side may be told why (an alert); what counts is what went wrong.
                with contextlib.suppress(OSError):
                    await self._flush()
                raise
            else:
                await self._flush()
                return result

    async def _flush(self) -> None:
        if data := self.outgoing.read():
            await self.loop.sock_sendall(self.sock, data)


def _refuse(said: bytes, progress: Progress) -> None:
    """What speaks is something else, and did not take the message for one."""
    progress.body += said[:MAX_SAID]
    raise Refused(FailureClass.BAD_RESPONSE, "a syslog receiver says nothing, this one did")


def _state(sock: socket.socket) -> int:
    """The connection's state where the system tells it, else 0."""
    if not hasattr(socket, "TCP_INFO"):
        return 0
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
