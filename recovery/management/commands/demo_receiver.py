"""``manage.py demo_receiver``: what the demo's connectors post to. It is down until it is told to recover."""

import hashlib
import json
import signal
import threading
from argparse import ArgumentParser
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from recovery.management import demo

WELL = (200, {"text": "Success", "code": 0})
DOWN = (503, {"text": "Server is busy", "code": 9})
CONTROLS = {"/recover": True, "/fail": False}
LARGEST = 4 * 1024 * 1024


class Receiver(ThreadingHTTPServer):
    """Answers 503 to evidence until POST /recover, again after POST /fail; writes down what arrived."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, log: Path) -> None:
        super().__init__((demo.LOOPBACK, port), Handler)
        self.well = False
        self.lock = threading.Lock()
        self.log = log

    def note(self, **line: Any) -> None:
        """Append one line of JSON to the log."""
        text = json.dumps({"at": datetime.now(UTC).isoformat(), **line})
        with self.lock, self.log.open("a") as file:
            file.write(text + "\n")

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Somebody hung up: nothing to report."""


class Handler(BaseHTTPRequestHandler):
    """One request; the log keeps digests and ids, never bodies or credentials."""

    protocol_version = "HTTP/1.1"
    server: Receiver

    def do_GET(self) -> None:
        self.answer(200, {"well": self.server.well})

    def do_POST(self) -> None:
        body = self.rfile.read(min(int(self.headers.get("content-length") or 0), LARGEST))
        if self.path in CONTROLS:
            self.server.well = CONTROLS[self.path]
            self.server.note(control=self.path)
            self.answer(200, {"well": self.server.well})
            return
        status, answer = DOWN if self.path in demo.FAILING and not self.server.well else WELL
        self.server.note(
            path=self.path,
            status=status,
            size=len(body),
            sha256=hashlib.sha256(body).hexdigest(),
            idempotency_key=self.headers.get("idempotency-key", ""),
        )
        self.answer(status, answer)

    def answer(self, status: int, content: dict[str, Any]) -> None:
        """Send a small JSON answer."""
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """The log file says it all."""


class Command(BaseCommand):
    """Listens on 127.0.0.1 on the port that was used before, the first time on a free one."""

    help = __doc__
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--recovered", action="store_true", help="start well instead of down")

    def handle(self, *args: Any, recovered: bool, **options: Any) -> None:
        kept = demo.port_file()
        port = int(kept.read_text()) if kept.exists() else 0
        settings.CAVRA_DATA.mkdir(parents=True, exist_ok=True)
        try:
            receiver = Receiver(port, settings.CAVRA_DATA / "demo-receiver.log")
        except OSError as error:
            raise CommandError(
                f"The demo's receiver cannot listen on port {port}, which its connectors point at: "
                f"{error.strerror}. Is it running already?"
            ) from error
        if not port:
            demo.keep(kept, f"{receiver.server_address[1]}\n")
        receiver.well = recovered
        for number in (signal.SIGTERM, signal.SIGINT):
            # shutdown() waits for serve_forever() to end, which runs in this very thread.
            signal.signal(number, lambda *_: threading.Thread(target=receiver.shutdown).start())
        receiver.serve_forever(poll_interval=0.1)
        receiver.server_close()
