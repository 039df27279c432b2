"""HTTP: content by POST, questions by a read, no redirects (P2, P19). One configuration has its own connections.

An answer is bounded in everything: its status line, each header, their number and sum, its body and its time. What
is not read to its end is dropped, never used again.

Through a proxy (RFC 9110 §9.3.6) an ``https`` destination is reached by CONNECT, so that the proxy sees its host and
port and nothing else; an ``http`` one by its whole address, so that the proxy sees everything. The proxy's own
address is held against the connector's allow-list where the socket is made. The destination's is, too, as far as it
can be known here: a literal, or every address that the name has here. A name that does not resolve here (in two
seconds) is the proxy's to resolve, and its rules decide alone.
"""

import re
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import SimpleNamespace
from typing import Any

import aiohttp
from yarl import URL

from evidence.connectors import references
from evidence.connectors.addresses import BlockedAddress
from evidence.connectors.failures import Refused
from evidence.connectors.products import PRODUCTS
from evidence.connectors.products.adapter import Fetch, Headers
from evidence.connectors.progress import Progress, Wire
from evidence.connectors.specs import SendSpec
from evidence.connectors.transports.dialling import current, guarded_socket, tls_context
from evidence.connectors.transports.names import Names
from evidence.enums import FailureClass

MAX_ANSWER = 64 * 1024
MAX_STATUS_LINE = 2 * 1024
MAX_FIELD = 8 * 1024
MAX_FIELDS = 100
MAX_HEAD = 32 * 1024
MAX_RETRY_AFTER_S = 86_400
# Short, because a receiver that drops an idle connection just as we write costs an approval; long enough for
# a run's requests to follow each other on one connection.
KEEPALIVE_S = 2.0
DNS_TTL_S = 10
MAX_SESSIONS = 256

PROXY_CREDENTIAL = "the proxy refused the credential that proxy_authorization_ref names, or wants one"
SPOKE_FIRST = "the receiver spoke before it was asked"
LONG_HEAD = f"the answer's head is longer than {MAX_HEAD} bytes"

_Key = tuple[str, tuple[str, ...], str, str, bool]


class _SpokeFirst(aiohttp.ClientError):
    """There is something to read on a connection on which nothing was asked."""


class _Request(aiohttp.ClientRequest):
    """A request that looks at its connection before it writes."""

    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        """Note who is at the other end; refuse a connection that holds an answer nobody asked for.

        Raises ``_SpokeFirst``: that answer would be taken for the one to this request.
        """
        if conn.protocol.should_close:
            if conn.transport is not None:
                conn.transport.abort()
            raise _SpokeFirst
        current.get().wire.reached(conn.transport)
        return await super().send(conn)


@dataclass(slots=True)
class _Held:
    """Connections under one configuration, how many requests use them, and whether a newer one took its place."""

    session: aiohttp.ClientSession
    busy: int = 0
    superseded: bool = False


class Http:
    """The sessions of one sender."""

    def __init__(self, names: Names) -> None:
        self._sessions: OrderedDict[_Key, _Held] = OrderedDict()
        self._names = names

    async def exchange(self, spec: SendSpec, progress: Progress) -> None:
        """POST the order's content, or ask its question, and read the answer's first 64 KiB."""
        current.set(progress)
        try:
            await self._exchange(spec, progress)
        finally:
            # What is asked afterwards is no part of the try.
            current.set(Progress.begin())

    async def _exchange(self, spec: SendSpec, progress: Progress) -> None:
        adapter = PRODUCTS[spec.product]
        late: Headers = ()
        if adapter.authorize is not None:
            progress.authorizing = True
            late += await adapter.authorize(spec, self.fetcher(spec))
            progress.authorizing = False
            for _, value in late:
                references.hold(value)  # a token that no reference stands for
        if adapter.sign is not None and spec.question is None:
            late += adapter.sign(spec, datetime.now(UTC))
        progress.late = late
        body = spec.body if adapter.complete is None or spec.question else adapter.complete(spec)
        async with self._asked(spec, spec.url, (*spec.headers, *late), body, content=True) as response:
            progress.status = response.status
            progress.retry_after_s = parse_retry_after(response.headers.get("retry-after"), datetime.now(UTC))
            if response.status == 401 and adapter.forget is not None:
                adapter.forget(spec)
            await _read(response, progress.body)
        if progress.status == 407 and spec.proxy_url:
            raise Refused(FailureClass.AUTH_SETUP, PROXY_CREDENTIAL)

    def fetcher(self, spec: SendSpec) -> Fetch:
        """POST on the order's own connections; nothing of it counts as sent content."""

        async def fetch(url: str, body: bytes, headers: Headers) -> tuple[int, bytes]:
            answer = bytearray()
            async with self._asked(spec, url, headers, body, content=False) as response:
                await _read(response, answer)
                return response.status, bytes(answer)

        return fetch

    async def close(self) -> None:
        """Close every session."""
        for held in self._sessions.values():
            await held.session.close()

    @asynccontextmanager
    async def _asked(
        self, spec: SendSpec, url: str, headers: Headers, body: bytes, *, content: bool
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to a POST, whose body is to be read inside; its connection is kept only when all was read."""
        target = URL(url, encoded=True)
        encrypted = target.scheme == "https"
        if spec.proxy_url:
            await self._names.require_permitted(
                target.raw_host or "", spec.allow_networks, encrypted=encrypted
            )
            encrypted = True  # as far as the proxy, which may be anywhere
        async with self._borrowed(spec, encrypted=encrypted) as session:
            try:
                response = await self._posted(session, spec, url, headers, body, content=content)
            except BaseException:
                # The client closed it in good order: over TLS that waits for a goodbye, and nobody ends it any more.
                if (begun := current.get().wire.transport) is not None:
                    begun.abort()
                raise
            transport, complete = current.get().wire.transport, False
            try:
                yield response
                complete = response.content.at_eof()
            finally:
                if not complete:
                    # Not closed in good order: over TLS that would go on reading what a receiver pours out.
                    transport.abort()
                response.release()

    async def _posted(
        self,
        session: aiohttp.ClientSession,
        spec: SendSpec,
        url: str,
        headers: Headers,
        body: bytes,
        *,
        content: bool,
    ) -> aiohttp.ClientResponse:
        """The head of the answer. A kept connection on which the receiver spoke unasked is left for another one."""
        progress, address = current.get(), URL(url, encoded=True)
        through, headers = _through_proxy(spec, address, headers)
        # The client may repeat a GET by itself on a connection that was dropped: asked twice is asked once.
        method = spec.question.method if content and spec.question else "POST"
        while True:
            progress.wire = Wire(host=address.raw_host or "", through_proxy=bool(spec.proxy_url))
            try:
                response = await session.request(
                    method,
                    address,
                    data=body,
                    headers=[*headers, ("accept-encoding", "identity")],
                    allow_redirects=False,
                    trace_request_ctx=_Sent(progress, whole_address=bool(spec.proxy_url))
                    if content
                    else None,
                    **through,
                )
            except _SpokeFirst:
                if progress.wire.dialled:
                    raise Refused(FailureClass.BAD_RESPONSE, SPOKE_FIRST) from None
                continue
            except aiohttp.ClientHttpProxyError as error:
                if error.status == 407:
                    raise Refused(FailureClass.AUTH_SETUP, PROXY_CREDENTIAL) from error
                raise
            except aiohttp.ClientConnectorError as error:
                if progress.wire.refused and not progress.wire.dialled:
                    # Of several addresses that were refused for different reasons the client keeps none.
                    raise BlockedAddress(progress.wire.refused) from error
                raise
            progress.wire.mark("answered")
            if sum(len(name) + len(value) + 4 for name, value in response.raw_headers) > MAX_HEAD:
                response.close()
                raise Refused(FailureClass.BAD_RESPONSE, LONG_HEAD)
            return response

    @asynccontextmanager
    async def _borrowed(self, spec: SendSpec, *, encrypted: bool) -> AsyncIterator[aiohttp.ClientSession]:
        """Connections of one connector under one configuration: what one may reach, another never inherits."""
        key = (spec.connector, spec.allow_networks, spec.ca_pem, spec.proxy_url, encrypted)
        held = self._sessions.get(key) or _Held(_session(spec, encrypted=encrypted), superseded=True)
        self._sessions[key] = held
        self._sessions.move_to_end(key)
        held.busy += 1
        try:
            if held.superseded:  # new, or configured as before once more
                for (connector, *_), other in self._sessions.items():
                    if connector == spec.connector:
                        other.superseded = other is not held
                await self._tidy()
            yield held.session
        finally:
            held.busy -= 1
            if held.superseded and not held.busy:
                await self._tidy()

    async def _tidy(self) -> None:
        """Close what nobody uses: older configurations of a connector, and the longest unused beyond the limit."""
        idle = [key for key, held in self._sessions.items() if not held.busy]
        surplus = len(self._sessions) - MAX_SESSIONS
        gone = [key for place, key in enumerate(idle) if self._sessions[key].superseded or place < surplus]
        for session in [self._sessions.pop(key).session for key in gone]:
            await session.close()


def _through_proxy(spec: SendSpec, url: URL, headers: Headers) -> tuple[dict[str, Any], Headers]:
    """What the client has to be told of the order's proxy, and the headers that go with the request itself.

    The proxy's credential goes to the proxy alone: with CONNECT, or with the request that the proxy passes on.
    """
    if not spec.proxy_url:
        return {}, headers
    credential = spec.secret("proxy_authorization")
    ours = {"proxy-authorization": credential} if credential else {}
    if url.scheme == "https":
        agent = {"user-agent": spec.header("user-agent")} if spec.header("user-agent") else {}
        return {"proxy": URL(spec.proxy_url, encoded=True), "proxy_headers": agent | ours}, headers
    return {"proxy": URL(spec.proxy_url, encoded=True)}, (*headers, *ours.items())


def _session(spec: SendSpec, *, encrypted: bool) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0,  # lanes limit
            keepalive_timeout=KEEPALIVE_S,
            ttl_dns_cache=DNS_TTL_S,
            socket_factory=guarded_socket(spec.allow_networks, encrypted=encrypted),
            ssl=tls_context(spec.ca_pem),
        ),
        request_class=_Request,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),  # the whole order has one
        skip_auto_headers=("user-agent", "content-type"),
        auto_decompress=False,
        trust_env=False,
        trace_configs=[_tracing()],
        max_line_size=MAX_STATUS_LINE,
        max_field_size=MAX_FIELD,
        max_headers=MAX_FIELDS,
    )


async def _read(response: aiohttp.ClientResponse, into: bytearray) -> None:
    while room := MAX_ANSWER - len(into):
        chunk = await response.content.read(room)
        if not chunk:
            break
        into += chunk


@dataclass(frozen=True, slots=True)
class _Sent:
    """Whose bytes a request's are, and how its target is written."""

    progress: Progress
    whole_address: bool

    def target(self, url: URL) -> str:
        """The request line's target: a proxy gets the whole address of what it may read anyway."""
        return str(url) if self.whole_address and url.scheme == "http" else url.raw_path_qs


def _tracing() -> aiohttp.TraceConfig:
    """Notes what leaves. The client calls these right before it writes, so no written byte goes unnoticed.

    A question that is no content has no context: nothing of it counts.
    """

    async def on_headers(_session: Any, context: SimpleNamespace, params: Any) -> None:
        current.get().wire.mark("asked")
        head = sum(len(name) + len(value) + 4 for name, value in params.headers.items())
        if (sent := context.trace_request_ctx) is not None:
            sent.progress.bytes_sent += head + len(
                f"{params.method} {sent.target(params.url)} HTTP/1.1\r\n\r\n"
            )

    async def on_chunk(_session: Any, context: SimpleNamespace, params: Any) -> None:
        if (sent := context.trace_request_ctx) is not None:
            sent.progress.bytes_sent += len(params.chunk)

    async def on_resolving(_session: Any, _context: SimpleNamespace, _params: Any) -> None:
        current.get().resolving = True
        current.get().wire.mark("resolving")

    async def on_resolved(_session: Any, _context: SimpleNamespace, _params: Any) -> None:
        current.get().resolving = False
        current.get().wire.mark("resolved")

    async def on_connected(_session: Any, _context: SimpleNamespace, _params: Any) -> None:
        current.get().wire.mark("connected")

    config = aiohttp.TraceConfig()
    config.on_request_headers_sent.append(on_headers)
    config.on_request_chunk_sent.append(on_chunk)
    config.on_dns_resolvehost_start.append(on_resolving)
    # Another order's look-up of the same name is waited for.
    config.on_dns_cache_hit.append(on_resolving)
    config.on_dns_resolvehost_end.append(on_resolved)
    config.on_connection_create_end.append(on_connected)
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
