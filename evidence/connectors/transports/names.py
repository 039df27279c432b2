"""Names and their addresses. A look-up hangs in a thread for as long as the system waits, whatever an order's time is:
so one at a time for a name, whoever asks, or one connector's would take every thread there is (P17).
"""

import asyncio
import socket
import time
from collections import OrderedDict
from functools import partial
from typing import Any

from evidence.connectors.addresses import BlockedAddress, refusal

# How long it is remembered what a proxied destination's name has here.
KEPT_S = 10.0
# What that name may take to resolve, before it is the proxy's to resolve.
LOOK_UP_S = 2.0
MAX_KEPT = 256


class Names:
    """The look-ups of one loop."""

    def __init__(self) -> None:
        self._under_way: dict[tuple[str, int], asyncio.Future[list[Any]]] = {}
        self._kept: OrderedDict[str, tuple[float, tuple[str, ...]]] = OrderedDict()

    async def look_up(self, host: str, port: int = 0) -> list[Any]:
        """What ``socket.getaddrinfo`` finds for streams; raises what it raises. The caller bounds the time."""
        key = (host, port)
        if (asked := self._under_way.get(key)) is None:
            ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
            asked = self._under_way[key] = asyncio.get_running_loop().run_in_executor(None, ask)
            asked.add_done_callback(partial(self._over, key))
        return await asyncio.shield(asked)

    def _over(self, key: tuple[str, int], asked: asyncio.Future[list[Any]]) -> None:
        del self._under_way[key]
        if not asked.cancelled():
            asked.exception()  # perhaps nobody waits for it any more

    async def require_permitted(
        self, host: str, allow_networks: tuple[str, ...], *, encrypted: bool = True
    ) -> None:
        """Raise ``BlockedAddress`` for what a proxy must not be asked for, as far as it can be known here."""
        for address in await self._addresses(host):
            if reason := refusal(address, allow_networks, encrypted=encrypted):
                raise BlockedAddress(reason)

    async def _addresses(self, host: str) -> tuple[str, ...]:
        """Every address that ``host`` has here; none when it does not resolve, or not soon."""
        if ":" in host or host.replace(".", "").isdecimal():
            return (host,)
        if ("." + host.rstrip(".")).lower().endswith(".localhost"):  # loopback everywhere (RFC 6761 §6.3)
            return ("127.0.0.1",)
        at, addresses = self._kept.get(host, (float("-inf"), ()))
        if time.monotonic() - at <= KEPT_S:
            return addresses
        try:
            async with asyncio.timeout(LOOK_UP_S):
                found = await self.look_up(host)
        except TimeoutError:
            return ()
        except (OSError, UnicodeError):
            found = []
        addresses = tuple(dict.fromkeys(str(address[0]) for *_, address in found))
        self._kept[host] = (time.monotonic(), addresses)
        self._kept.move_to_end(host)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return addresses
