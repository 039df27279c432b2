"""What the stand-ins of HTTP interfaces share: a request taken apart, an answer put together."""

import json
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.evidence.connectors.receiver import Request, answer


class Web:
    """A script of the receiver. A subclass says in ``reply`` what its vendor does.

    ``taken`` is what was accepted, in order; ``override`` answers a request instead of the vendor, None: it does not.
    """

    def __init__(self) -> None:
        self.taken: list[Any] = []
        self.override: Callable[[Request], bytes | None] = lambda _request: None

    def __call__(self, request: Request, _sock: socket.socket) -> bytes:
        return self.override(request) or self.reply(request)

    def reply(self, request: Request) -> bytes:
        raise NotImplementedError


def line(request: Request) -> tuple[str, str, dict[str, str]]:
    """Method, path and query of a request."""
    method, target, _ = request.raw.split(b"\r\n", 1)[0].decode().split(" ")
    parts = urlsplit(target)
    return method, parts.path, {name: values[0] for name, values in parse_qs(parts.query).items()}


def is_json(request: Request) -> bool:
    """Whether the request says that its body is JSON."""
    return request.headers.get("content-type", "").partition(";")[0].strip() == "application/json"


def parsed(body: bytes) -> Any:
    """The body as JSON in UTF-8; None when it is none."""
    try:
        return json.loads(body.decode())
    except ValueError:
        return None


def reply_json(status: int, body: Any, *headers: str) -> bytes:
    """An answer in JSON."""
    return answer(status, json.dumps(body).encode(), "Content-Type: application/json", *headers)


def units(text: str) -> int:
    """Characters in the way of counting that gives most: UTF-16 units."""
    return len(text.encode("utf-16-le")) // 2
