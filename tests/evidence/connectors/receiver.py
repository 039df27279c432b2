"""A receiver on the loopback interface that is told, request by request, how to behave."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from evidence.connectors.sender import Sender
from evidence.connectors.specs import SendSpec
from evidence.enums import Product
from tests.evidence.connectors.listener import Server

LOOPBACK = ("127.0.0.0/8",)


def answer(status: int = 200, body: bytes = b"ok", *headers: str) -> bytes:
    """An HTTP answer as bytes."""
    head = [f"HTTP/1.1 {status} Status", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


@dataclass(frozen=True)
class Request:
    raw: bytes
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def key(self) -> str:
        return self.headers["idempotency-key"]


class Receiver(Server):
    """Records whole requests, and lets ``script(request, connection)`` return an answer or act itself.

    ``None`` closes the connection.
    """

    def __init__(
        self, script: Callable[[Request, socket.socket], bytes | None], tls: ssl.SSLContext | None = None
    ) -> None:
        self.script = script
        self.requests: list[Request] = []
        self.arrived = threading.Semaphore(0)
        super().__init__(tls)

    def url(self, host: str = "127.0.0.1", path: str = "/hook", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    def wait_for(self, count: int) -> None:
        """Wait until ``count`` further requests have arrived."""
        for _ in range(count):
            assert self.arrived.acquire(timeout=60), "a request did not arrive"

    def serve(self, sock: socket.socket, number: int) -> None:
        while (request := self._read(sock, number)) is not None:
            self.requests.append(request)
            self.arrived.release()
            response = self.script(request, sock)
            if response is None:
                break
            sock.sendall(response)

    @staticmethod
    def _read(sock: socket.socket, number: int) -> Request | None:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (chunk := sock.recv(65536)):
                return None
            data += chunk
        head, _, body = data.partition(b"\r\n\r\n")
        headers = {
            name.lower(): value
            for name, value in (line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        }
        while len(body) < int(headers["content-length"]):
            if not (chunk := sock.recv(65536)):
                return None
            body += chunk
        return Request(head + b"\r\n\r\n" + body, headers, body, number)


def spec(url: str, token: str = "t1", **changes: Any) -> SendSpec:
    """An order that a loopback receiver may get."""
    values: dict[str, Any] = {
        "token": token,
        "connector": "siem",
        "product": Product.WEBHOOK,
        "url": url,
        "headers": (("content-type", "application/json"), ("idempotency-key", f"key-{token}")),
        "body": b'{"a":1}',
        "timeout_s": 30.0,
        "allow_networks": LOOPBACK,
    }
    return SendSpec(**(values | changes))


def send(sender: Sender, *specs: SendSpec) -> list[Any]:
    """All receipts, in the order of the specs; fails when one is missing or comes twice."""
    receipts = list(sender.send_all(specs, deadline_s=60))
    by_token = {receipt.token: receipt for receipt in receipts}
    assert len(by_token) == len(receipts) == len(specs)
    return [by_token[each.token] for each in specs]


def settle(sender: Sender) -> None:
    """Let the sender's loop hear of everything that its connections have got until now, an end as well."""
    assert sender._loop is not None
    for _ in range(3):
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), sender._loop).result(60)


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """The result of a call and how many seconds it took."""
    begin = time.monotonic()
    return call(), time.monotonic() - begin
