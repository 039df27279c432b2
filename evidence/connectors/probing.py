"""How far a connection to a receiver gets, step by step: name, permitted address, TCP, certificate. No content is sent.

Sockets are made as for orders (``dialling``), and a proxy is asked for what it would be asked for, so what is refused
there is refused here (P19).
"""

import asyncio
import re
import ssl
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from evidence.connectors import wire
from evidence.connectors.addresses import BlockedAddress
from evidence.connectors.failures import Refused, classify_exception, describe
from evidence.connectors.progress import Progress
from evidence.connectors.specs import SendSpec
from evidence.connectors.transports import smtp, syslog
from evidence.connectors.transports.dialling import dialled, tls_context
from evidence.connectors.transports.http import PROXY_CREDENTIAL
from evidence.connectors.transports.names import Names
from evidence.enums import FailureClass

# Schemes: whether TLS begins at once, and the port without a number.
SCHEMES: Mapping[str, tuple[bool, int]] = {
    "https": (True, 443),
    "http": (False, 80),
    syslog.TLS_SCHEME: (True, syslog.TLS_PORT),
    "syslog": (False, syslog.PLAIN_PORT),
    smtp.TLS_SCHEME: (True, smtp.TLS_PORT),
    "smtp": (False, smtp.STARTTLS_PORT),
}
# OpenSSL's reasons (``X509_V_ERR_…``) that an administrator can do something about.
_VERIFY = {
    9: "it is not valid yet",
    10: "it has expired",
    18: "it is signed by itself alone",
    19: "its authority is not among those that are trusted",
    20: "its authority is not among those that are trusted",
    21: "its authority is not among those that are trusted",
    62: "it is for another name",
    64: "it is for another address",
}
MAX_PROXY_HEAD = 16 * 1024


class Stage(StrEnum):
    """Parts of making a connection, in order."""

    DESTINATION = "destination"
    NAME = "name"
    ADDRESS = "address"
    CONNECTION = "connection"
    PROXY = "proxy"
    CERTIFICATE = "certificate"


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the receiver showed: the names it is for, and until when."""

    names: tuple[str, ...] = field(repr=False)
    until: datetime
    version: str


@dataclass(frozen=True, slots=True)
class Probe:
    """How far it got. ``stages`` are those of this connector; ``failed`` the one that ended it, with class and why."""

    stages: tuple[Stage, ...]
    failed: Stage | None = None
    failure_class: FailureClass | None = None
    why: str = ""
    address: str = field(default="", repr=False)
    certificate: Certificate | None = None


def probe(spec: SendSpec) -> Probe:
    """Connect to where ``spec`` would be sent, through its proxy if it has one, and hang up.

    Takes at most ``spec.timeout_s``; every failure is a result. Belongs into a thread without an event loop.
    """
    loop = asyncio.new_event_loop()
    # Of its own, and left alone afterwards: a look-up that hangs does not hold up its caller. Two, for the name of a
    # destination that hangs must not hold up its proxy's.
    loop.set_default_executor(ThreadPoolExecutor(2, thread_name_prefix="evidence-probe-dns"))
    try:
        return loop.run_until_complete(_probe(spec))
    finally:
        loop.close()


async def _probe(spec: SendSpec) -> Probe:
    encrypted, port = SCHEMES[urlsplit(spec.url).scheme]
    stages = [Stage.DESTINATION] if spec.proxy_url else []
    stages += [Stage.NAME, Stage.ADDRESS, Stage.CONNECTION]
    stages += [Stage.PROXY] if spec.proxy_url and encrypted else []
    stages += [Stage.CERTIFICATE] if encrypted else []
    progress, at = Progress.begin(), stages[:1]
    certificate = None
    failure: FailureClass | None = None
    why = ""
    try:
        async with asyncio.timeout(spec.timeout_s):
            certificate = await _connect(spec, progress, at, encrypted=encrypted, port=port)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong is the result
        failure = FailureClass.DNS if progress.resolving else _class(error)
        why = _certificate_problem(error) or describe(failure, error, proxied=bool(spec.proxy_url))
        if at[0] is Stage.NAME and not progress.resolving:
            at[0] = Stage.ADDRESS if isinstance(error, BlockedAddress) else Stage.CONNECTION
    return Probe(
        stages=tuple(stages),
        failed=at[0] if failure else None,
        failure_class=failure,
        why=why,
        address=progress.wire.address if progress.wire.dialled else "",
        certificate=certificate,
    )


async def _connect(
    spec: SendSpec, progress: Progress, at: list[Stage], *, encrypted: bool, port: int
) -> Certificate | None:
    """Everything in order; ``at`` says what is tried. The certificate, when there was one."""
    parts = urlsplit(spec.url)
    host, plain = parts.hostname or "", parts.scheme in wire.PLAIN
    proxied = bool(spec.proxy_url)
    names = Names()
    if proxied:
        await names.require_permitted(host, spec.allow_networks, encrypted=not plain)
        at[0] = Stage.NAME
    sock = await dialled(
        replace(spec, url=spec.proxy_url) if proxied else spec,
        progress,
        names,
        port=80 if proxied else port,
        encrypted=proxied or not plain,
    )
    writer: asyncio.StreamWriter | None = None
    try:
        at[0] = Stage.PROXY if proxied else Stage.CERTIFICATE
        if not encrypted:
            return None
        reader, writer = await asyncio.open_connection(sock=sock)
        if proxied:
            await _tunnel(spec, reader, writer, host, parts.port or port)
        at[0] = Stage.CERTIFICATE
        await writer.start_tls(tls_context(spec.ca_pem), server_hostname=host)
        return _shown(writer.get_extra_info("ssl_object"))
    finally:
        if writer is not None:
            writer.transport.abort()
        sock.close()


async def _tunnel(
    spec: SendSpec, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int
) -> None:
    """Have the proxy connect to the receiver (RFC 9110 §9.3.6); raises ``Refused`` when it does not."""
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if authorization := spec.secret("proxy_authorization"):
        lines.append(f"Proxy-Authorization: {authorization}")
    writer.write("\r\n".join([*lines, "", ""]).encode("ascii"))
    head = b""
    while b"\r\n\r\n" not in head and len(head) < MAX_PROXY_HEAD:
        if not (more := await reader.read(1024)):
            break
        head += more
    match = re.match(rb"HTTP/1\.[01] ([0-9]{3})[ \r]", head)
    if match is None:
        raise Refused(FailureClass.CONNECT, "the proxy answered no HTTP")
    if (status := int(match[1])) == 407:
        raise Refused(FailureClass.AUTH_SETUP, PROXY_CREDENTIAL)
    if status // 100 != 2:
        raise Refused(FailureClass.CONNECT, f"the proxy answered {status}")


def _shown(tls: Any) -> Certificate:
    shown = tls.getpeercert()
    named = [value for kind, value in shown.get("subjectAltName", ()) if kind in ("DNS", "IP Address")]
    until = datetime.fromtimestamp(ssl.cert_time_to_seconds(shown["notAfter"]), UTC)
    return Certificate(tuple(named), until, tls.version() or "")


def _class(error: Exception) -> FailureClass:
    return error.failure_class if isinstance(error, Refused) else classify_exception(error, bytes_left=False)


def _certificate_problem(error: Exception) -> str:
    """What is wrong with a certificate, in words; OpenSSL's own message may name the host."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFY.get(error.verify_code, f"it does not verify (code {error.verify_code})")
    return ""
