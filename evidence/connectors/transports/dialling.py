"""From an address to a connected socket, and to TLS: to permitted addresses only, checked where it is made (P19)."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import aiohappyeyeballs

from evidence.connectors.addresses import BlockedAddress, refusal
from evidence.connectors.failures import Refused
from evidence.connectors.progress import Progress
from evidence.connectors.specs import SendSpec
from evidence.connectors.transports.names import Names
from evidence.enums import FailureClass

# Before the next address is tried beside one that does not answer (RFC 8305 §5), as the HTTP client does.
NEXT_ADDRESS_S = 0.25
UNREADABLE_CA = "its certificates of authorities cannot be read"

# The try that opens a socket; set in the sending task, seen by the tasks that a client dials in.
current: ContextVar[Progress] = ContextVar("current")


class _Watched(ssl.SSLObject):
    """Notes when a handshake began and when it was over."""

    def do_handshake(self) -> None:
        """Called again whenever more was read."""
        progress = current.get(None)
        if progress is not None:
            progress.wire.mark("handshake")
        super().do_handshake()
        if progress is not None:
            progress.wire.mark("secured")


@lru_cache(maxsize=64)
def tls_context(ca_pem: str) -> ssl.SSLContext:
    """TLS as it is always checked: 1.2 or newer, name and chain, against ``ca_pem`` alone or the public authorities.

    One for everybody who trusts the same. Raises ``Refused`` for certificates that cannot be read.
    """
    try:
        context = ssl.create_default_context(cadata=ca_pem or None)
    except (ssl.SSLError, ValueError, TypeError):
        raise Refused(FailureClass.MISCONFIGURED, UNREADABLE_CA) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslobject_class = _Watched
    return context


def guarded_socket(
    allow_networks: tuple[str, ...], *, encrypted: bool = True
) -> Callable[[Any], socket.socket]:
    """Makes sockets, for permitted addresses only; raises ``BlockedAddress`` for others.

    Whoever uses it connects each socket to exactly the address it was made for, whether that came from a name,
    a literal or a cache. What is not ``encrypted`` stays in private networks.
    """

    def make(addr_info: Any) -> socket.socket:
        family, kind, protocol, _, address = addr_info
        progress = current.get()
        progress.resolving = False
        progress.wire.address, progress.wire.port = address[:2]
        if reason := refusal(address[0], allow_networks, encrypted=encrypted):
            progress.wire.refused = reason
            raise BlockedAddress(reason)
        progress.wire.mark("dialled")
        return socket.socket(family, kind, protocol)

    return make


async def dialled(
    spec: SendSpec, progress: Progress, names: Names, *, port: int, encrypted: bool
) -> socket.socket:
    """A socket connected to the host of the order's URL, on its port or else ``port``.

    Raises what ``failures.classify_exception`` knows: ``socket.gaierror``, ``BlockedAddress`` when no address is
    permitted, ``OSError``. The caller bounds the time.
    """
    current.set(progress)
    parts = urlsplit(spec.url)
    loop = asyncio.get_running_loop()
    progress.wire.host = parts.hostname or ""
    progress.resolving = True
    progress.wire.mark("resolving")
    found = await names.look_up(parts.hostname or "", parts.port or port)
    progress.resolving = False
    progress.wire.mark("resolved")
    sock = await aiohappyeyeballs.start_connection(
        _permitted(found, spec.allow_networks, encrypted=encrypted),
        happy_eyeballs_delay=NEXT_ADDRESS_S,
        loop=loop,
        socket_factory=guarded_socket(spec.allow_networks, encrypted=encrypted),
    )
    progress.wire.mark("connected")
    progress.wire.address, progress.wire.port = sock.getpeername()[:2]
    return sock


def _permitted(found: Sequence[Any], allow_networks: tuple[str, ...], *, encrypted: bool) -> list[Any]:
    """Those that may be dialled: a refused address besides a permitted one is passed over."""
    reasons = [refusal(str(info[4][0]), allow_networks, encrypted=encrypted) for info in found]
    permitted = [info for info, reason in zip(found, reasons, strict=True) if reason is None]
    if not permitted:
        raise BlockedAddress(next((reason for reason in reasons if reason), "there is none"))
    return permitted
