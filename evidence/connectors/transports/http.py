"""HTTP: POST only, no redirects, kept connections of one connector under one configuration (P2, P19)."""

import re
import socket
import ssl
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import SimpleNamespace
from typing import Any

import aiohttp
from yarl import URL

from evidence.connectors.addresses import BlockedAddress, refusal
from evidence.connectors.products import PRODUCTS
from evidence.connectors.products.adapter import Fetch, Headers
from evidence.connectors.progress import Progress
from evidence.connectors.specs import SendSpec

MAX_ANSWER = 64 * 1024
MAX_RETRY_AFTER_S = 86_400
# Short, because a receiver that drops an idle connection just as we write costs an approval; long enough for
# a run's requests to follow each other on one connection.
KEEPALIVE_S = 2.0
DNS_TTL_S = 10

# The try that opens a socket; set in the sending task, seen by the tasks that the client dials in.
_current: ContextVar[Progress] = ContextVar("_current")
_Key = tuple[str, tuple[str, ...], str, str]


class Http:
    """The sessions of one sender."""

    def __init__(self) -> None:
        self._sessions: dict[_Key, aiohttp.ClientSession] = {}

    async def exchange(self, spec: SendSpec, progress: Progress) -> None:
        """POST the order's content and read the answer's first 64 KiB."""
        _current.set(progress)
        adapter = PRODUCTS[spec.product]
        late: Headers = ()
        if adapter.authorize is not None:
            late += await adapter.authorize(spec, self.fetcher(spec))
        if adapter.sign is not None:
            late += adapter.sign(spec, datetime.now(UTC))
        progress.late_names = tuple(name for name, _ in late)
        body = spec.body if adapter.complete is None else adapter.complete(spec)
        request = self._request(spec, "POST", spec.url, (*spec.headers, *late), body, progress)
        async with request as response:
            progress.status = response.status
            progress.retry_after_s = parse_retry_after(response.headers.get("retry-after"), datetime.now(UTC))
            await _read(response, progress.body)

    def fetcher(self, spec: SendSpec) -> Fetch:
        """POST on the order's own connections; nothing of it counts as sent content."""

        async def fetch(url: str, body: bytes, headers: Headers) -> tuple[int, bytes]:
            answer = bytearray()
            async with self._request(spec, "POST", url, headers, body, None) as response:
                await _read(response, answer)
                return response.status, bytes(answer)

        return fetch

    async def close(self) -> None:
        """Close every session."""
        for session in self._sessions.values():
            await session.close()

    def _request(
        self, spec: SendSpec, method: str, url: str, headers: Headers, body: bytes, progress: Progress | None
    ) -> Any:
        proxy: dict[str, Any] = {}
        if spec.proxy_url:
            proxy["proxy"] = URL(spec.proxy_url, encoded=True)
            if authorization := spec.secret("proxy_authorization"):
                proxy["proxy_headers"] = {"proxy-authorization": authorization}
        return self._session(spec).request(
            method,
            URL(url, encoded=True),
            data=body,
            headers=[*headers, ("accept-encoding", "identity")],
            allow_redirects=False,
            trace_request_ctx=progress,
            **proxy,
        )

    def _session(self, spec: SendSpec) -> aiohttp.ClientSession:
        """Connections of one connector under one configuration: what one may reach, another never inherits."""
        key = (spec.connector, spec.allow_networks, spec.ca_pem, spec.proxy_url)
        session = self._sessions.get(key)
        if session is None:
            session = self._sessions[key] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0,  # lanes limit
                    keepalive_timeout=KEEPALIVE_S,
                    ttl_dns_cache=DNS_TTL_S,
                    socket_factory=_guarded_socket(spec.allow_networks),
                    ssl=tls_context(spec.ca_pem),
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),  # the whole order has one
                skip_auto_headers=("user-agent", "content-type"),
                auto_decompress=False,
                trust_env=False,
                trace_configs=[_tracing()],
            )
        return session


def tls_context(ca_pem: str) -> ssl.SSLContext:
    """TLS as it is always checked: name and chain, against ``ca_pem`` alone or the public authorities."""
    return ssl.create_default_context(cadata=ca_pem or None)


async def _read(response: aiohttp.ClientResponse, into: bytearray) -> None:
    while room := MAX_ANSWER - len(into):
        chunk = await response.content.read(room)
        if not chunk:
            break
        into += chunk


def _guarded_socket(allow_networks: tuple[str, ...]) -> Callable[[Any], socket.socket]:
    """Makes the sockets of one session, for permitted addresses only.

    The client connects each socket to exactly the address it was made for, whether that came from a name,
    a literal or the cache.
    """

    def make(addr_info: Any) -> socket.socket:
        family, kind, protocol, _, address = addr_info
        progress = _current.get()
        if reason := refusal(address[0], allow_networks):
            raise BlockedAddress(reason)
        progress.dialled = True
        return socket.socket(family, kind, protocol)

    return make


def _tracing() -> aiohttp.TraceConfig:
    """Notes what leaves. The client calls these right before it writes, so no written byte goes unnoticed.

    A question that is no content has no context: nothing of it counts.
    """

    async def on_headers(_session: Any, context: SimpleNamespace, params: Any) -> None:
        head = sum(len(name) + len(value) + 4 for name, value in params.headers.items())
        if (progress := context.trace_request_ctx) is not None:
            progress.bytes_sent += head + len(f"POST {params.url.raw_path_qs} HTTP/1.1\r\n\r\n")

    async def on_chunk(_session: Any, context: SimpleNamespace, params: Any) -> None:
        if (progress := context.trace_request_ctx) is not None:
            progress.bytes_sent += len(params.chunk)

    async def on_resolving(_session: Any, _context: SimpleNamespace, _params: Any) -> None:
        _current.get().resolving = True

    async def on_resolved(_session: Any, _context: SimpleNamespace, _params: Any) -> None:
        _current.get().resolving = False

    config = aiohttp.TraceConfig()
    config.on_request_headers_sent.append(on_headers)
    config.on_request_chunk_sent.append(on_chunk)
    config.on_dns_resolvehost_start.append(on_resolving)
    config.on_dns_resolvehost_end.append(on_resolved)
    return config


def parse_retry_after(value: str | None, now: datetime) -> int | None:
    """Whole seconds of a ``Retry-After`` (RFC 9110 §10.2.3: seconds or a date), at most a day; None if neither."""
    if value is None:
        return None
    if re.fullmatch(r"[0-9]+", value):
        # A number of more digits is above the limit, and int() refuses very long ones.
        return min(int(value.lstrip("0")[:9] or "0"), MAX_RETRY_AFTER_S)
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max(0, round((at - now).total_seconds())), MAX_RETRY_AFTER_S)
