"""A ticket system on the loopback interface that keeps what was created, so that duplicates show."""

import base64
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Asked:
    """One request as it came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass
class Reply:
    """What a service answers."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)


class Service:
    """Starts on a free port. A subclass says in ``create`` and ``find`` what the vendor does.

    ``hang_up`` and ``mute`` do the work and end the connection, or never answer; ``hidden`` leaves what was
    created out of searches, as an index does that lags; ``lies`` answers every search with everything.
    ``override`` answers instead of the vendor.
    """

    def __init__(self) -> None:
        self.log: list[Asked] = []
        self.tickets: list[dict[str, Any]] = []
        self.lock = threading.RLock()
        self.hang_up = self.mute = self.hidden = self.lies = False
        self.override: Reply | None = None
        # Where posts are noted beside the own log, for who compares all that left with all that came.
        self.posts: list[Any] = []
        self.token = "t0ken-of-this-test"
        self.username = ""
        self.released = threading.Event()
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.answer("POST")

            def do_GET(self) -> None:
                self.answer("GET")

            def answer(self, method: str) -> None:
                parts = urlsplit(self.path)
                asked = Asked(
                    method,
                    parts.path,
                    {name: values[0] for name, values in parse_qs(parts.query).items()},
                    {name.lower(): value for name, value in self.headers.items()},
                    self.rfile.read(int(self.headers.get("content-length", 0))),
                )
                with service.lock:
                    service.log.append(asked)
                    if method == "POST":
                        service.posts.append(asked)
                    reply = service.override or service.reply(asked)
                if service.mute:
                    service.released.wait(60)
                if service.mute or (service.hang_up and method == "POST"):
                    self.close_connection = True
                    return
                data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                self.send_response(reply.status)
                for name, value in {"content-type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                """The log above is enough."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that went away is nothing to report."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self.thread.start()

    @property
    def url(self) -> str:
        """The base address."""
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def stop(self) -> None:
        """Close the port."""
        self.released.set()
        self.server.shutdown()
        self.server.server_close()

    def asked(self, method: str) -> list[Asked]:
        """Requests of one method."""
        with self.lock:
            return [one for one in self.log if one.method == method]

    def is_signed_in(self, asked: Asked) -> bool:
        """Basic (RFC 7617) with the service's user, or the token as a bearer (RFC 6750)."""
        wanted = f"Bearer {self.token}"
        if self.username:
            wanted = f"Basic {base64.b64encode(f'{self.username}:{self.token}'.encode()).decode()}"
        return asked.headers.get("authorization") == wanted

    def reply(self, asked: Asked) -> Reply:
        """What the vendor answers."""
        raise NotImplementedError


def json_object(asked: Asked) -> dict[str, Any] | None:
    """The body as a JSON object that says that it is one; None otherwise."""
    if asked.headers.get("content-type", "").partition(";")[0] != "application/json":
        return None
    try:
        found = json.loads(asked.body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def units(text: str) -> int:
    """Characters as a Java service counts them."""
    return len(text.encode("utf-16-le")) // 2
