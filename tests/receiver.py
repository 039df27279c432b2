"""A receiver on the loopback interface that keeps its own log: what really arrived, whatever we believe."""

import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Arrived:
    """One request as it came in."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Behaviour:
    """How a path answers: after ``delay_s``, and once ``until`` is set, with ``status`` and ``body``.

    ``hang_up`` closes without answer.
    """

    status: int = 200
    body: bytes = b'{"text":"Success","code":0}'
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    until: threading.Event | None = None
    hang_up: bool = False


class Receiver:
    """Starts on a free port; ``log`` holds every request, ``behave(path, …)`` says how a path answers."""

    def __init__(self) -> None:
        self.log: list[Arrived] = []
        self.behaviours: dict[str, Behaviour] = {}
        self.lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                with receiver.lock:
                    receiver.log.append(
                        Arrived(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                    )
                    behaviour = receiver.behaviours.get(self.path, Behaviour())
                time.sleep(behaviour.delay_s)
                if behaviour.until:
                    behaviour.until.wait(60)
                if behaviour.hang_up:
                    self.close_connection = True
                    return
                self.send_response(behaviour.status)
                for name, value in behaviour.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(behaviour.body)))
                self.end_headers()
                self.wfile.write(behaviour.body)

            def log_message(self, format: str, *args: Any) -> None:
                """The log above is enough."""

        class Server(ThreadingHTTPServer):
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that went away is nothing to report."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self.thread.start()

    def url(self, path: str) -> str:
        """Address of a path of this receiver."""
        return f"http://127.0.0.1:{self.server.server_address[1]}{path}"

    def behave(self, path: str, **behaviour: Any) -> None:
        """From now on ``path`` answers like this."""
        with self.lock:
            self.behaviours[path] = Behaviour(**behaviour)

    def arrived(self, path: str) -> list[Arrived]:
        """Requests that came to ``path``."""
        with self.lock:
            return [one for one in self.log if one.path == path]

    def forget(self) -> None:
        """Nothing came yet, and every path is well: a new receiver at the same address."""
        with self.lock:
            self.log.clear()
            self.behaviours.clear()

    def stop(self) -> None:
        """Close the port."""
        self.server.shutdown()
        self.server.server_close()
