"""Whether a receiver can be reached at all: name, permitted address, TCP, TLS. Nothing is written to it.

For products whose test message would open a ticket or wake somebody, and that cannot be asked anything.
"""

import asyncio
import hashlib
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from evidence.connectors.addresses import BlockedAddress, refusal
from evidence.connectors.failures import classify_exception, describe
from evidence.connectors.specs import Receipt, SendSpec
from evidence.connectors.transports.http import tls_context
from evidence.enums import Answer, Assurance

PORTS = {"http": 80, "https": 443}


def reach(spec: SendSpec) -> Receipt:
    """Open a connection to where ``spec`` would be sent, and close it; with a proxy, one to the proxy.

    The receipt of a success has the assurance ``written`` and no byte sent. Takes at most ``spec.timeout_s``
    seconds; every way out is a receipt.
    """
    started_at, started = datetime.now(UTC), time.monotonic()
    # Of its own, and left alone afterwards: a look-up that hangs does not hold up its caller.
    resolver = ThreadPoolExecutor(1, thread_name_prefix="evidence-reach-dns")
    failure, error = None, ""
    try:
        asyncio.run(_within(spec, resolver))
    except Exception as exc:  # noqa: BLE001 - a receipt is owed for any failure, foreseen or not
        failure = classify_exception(exc, bytes_left=False)
        error = describe(failure, exc)
    finally:
        resolver.shutdown(wait=False, cancel_futures=True)
    duration_ms = round((time.monotonic() - started) * 1000)
    return Receipt(
        token=spec.token,
        connector=spec.connector,
        answer=Answer.NOT_SENT,
        assurance=None if failure else Assurance.WRITTEN,
        may_have_arrived=False,
        failure_class=failure,
        status_code=None,
        error=error,
        tries=1,
        started_at=started_at,
        completed_at=started_at + timedelta(milliseconds=duration_ms),
        bytes_sent=0,
        sent_sha256=hashlib.sha256(b"").hexdigest(),
        answer_excerpt="",
        answer_sha256="",
        retry_after_s=None,
        duration_ms=duration_ms,
    )


async def _within(spec: SendSpec, resolver: ThreadPoolExecutor) -> None:
    async with asyncio.timeout(spec.timeout_s):
        await _open(spec, resolver)


async def _open(spec: SendSpec, resolver: ThreadPoolExecutor) -> None:
    """Connect to the first permitted address that answers; raises what went wrong with the last one."""
    parts = urlsplit(spec.proxy_url or spec.url)
    host, port = parts.hostname or "", parts.port or PORTS.get(parts.scheme, 443)
    loop = asyncio.get_running_loop()
    found = await loop.run_in_executor(
        resolver, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    )
    wrong: Exception = OSError("the name has no address")
    for family, kind, protocol, _, address in found:
        # On the very address that the socket connects to (P19).
        if reason := refusal(str(address[0]), spec.allow_networks):
            wrong = BlockedAddress(reason)
            continue
        dialled = socket.socket(family, kind, protocol)
        try:
            dialled.setblocking(False)
            await loop.sock_connect(dialled, address)
            secure = {"ssl": tls_context(spec.ca_pem), "server_hostname": host}
            _, writer = await asyncio.open_connection(
                sock=dialled, **(secure if parts.scheme == "https" else {})
            )
            writer.transport.abort()
        except OSError as error:
            dialled.close()
            wrong = error
            continue
        except BaseException:
            dialled.close()
            raise
        return
    raise wrong
