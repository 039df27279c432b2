"""Keepers of heads on the loopback interface: a strict C2SP witness and a time-stamp authority made of openssl."""

import base64
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from evidence.domain import merkle, notes
from evidence.domain.notes import Verifier
from evidence.errors import InvalidInput


@dataclass(frozen=True)
class Reply:
    """What a keeper answers."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain"
    headers: dict[str, str] = field(default_factory=dict)


Answering = Callable[[str, str, bytes], Reply]


class Served:
    """A server whose answers come from ``answering(path, content type, body)``; ``asked`` are the bodies it got."""

    def __init__(self, answering: Answering) -> None:
        self.answering, self.asked = answering, []  # type: ignore[var-annotated]
        served = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                served.asked.append(body)
                reply = served.answering(self.path, self.headers["Content-Type"], body)
                self.send_response(reply.status)
                self.send_header("Content-Type", reply.content_type)
                self.send_header("Content-Length", str(len(reply.body)))
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class Witness:
    """c2sp.org/tlog-witness, add-checkpoint, every MUST of it."""

    def __init__(self, log: Verifier, name: str = "witness.example/w1") -> None:
        self.log, self.name = log, name
        self.key = Ed25519PrivateKey.generate()
        self.size, self.root = 0, merkle.EMPTY_ROOT
        self.now = int(time.time())

    @property
    def vkey(self) -> str:
        return notes.vkey(self.name, self.key.public_key().public_bytes_raw(), notes.COSIGNATURE)

    def __call__(self, path: str, content_type: str, body: bytes) -> Reply:
        if path != "/add-checkpoint":
            return Reply(404)
        request, _, note = body.decode().partition("\n\n")
        first, *lines = request.split("\n")
        word, old = first.split(" ")
        if word != "old" or str(int(old)) != old or len(lines) > 63:
            return Reply(400)
        try:
            head = notes.parse_checkpoint(notes.parse(note)[0])
            if head.origin != self.log.name:
                return Reply(404)
            notes.opened(note, [self.log])
        except InvalidInput:
            return Reply(403)
        path_hashes = [base64.b64decode(line, validate=True) for line in lines]
        if int(old) > head.size:
            return Reply(400)
        if int(old) != self.size:
            return Reply(409, f"{self.size}\n".encode(), "text/x.tlog.size")
        if self.size == 0:
            fits = not path_hashes
        else:
            fits = merkle.verify_consistency(self.size, head.size, path_hashes, self.root, head.root)
        if not fits:
            return Reply(422)
        self.size, self.root = head.size, head.root
        return Reply(200, self.line(head.text).encode())

    def line(self, text: str) -> str:
        """Its cosignature over a head."""
        signature = self.now.to_bytes(8, "big") + self.key.sign(
            f"cosignature/v1\ntime {self.now}\n{text}".encode()
        )
        data = Verifier.from_vkey(self.vkey).key_id + signature
        return f"— {self.name} {base64.b64encode(data).decode()}\n"


TSA_SETTINGS = """
[req]
distinguished_name = name
x509_extensions = extensions
prompt = no
[name]
CN = Time-stamp authority of a test
[extensions]
extendedKeyUsage = critical, timeStamping
[tsa]
default_tsa = one
[one]
serial = {folder}/serial
crypto_device = builtin
signer_cert = {folder}/tsa.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
accuracy = secs:1, millisecs:500
clock_precision_digits = 3
ordering = yes
tsa_name = yes
"""


class Authority:
    """RFC 3161 as openssl answers it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tsa.cnf").write_text(TSA_SETTINGS.format(folder=folder))
        (folder / "serial").write_text("01")
        self.openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"),
            *("-config", "tsa.cnf", "-keyout", "tsa.key", "-out", "tsa.pem"),
        )

    def openssl(self, *arguments: str) -> bytes:
        done = subprocess.run(["openssl", *arguments], cwd=self.folder, capture_output=True, check=True)
        return done.stdout

    def __call__(self, path: str, content_type: str, body: bytes) -> Reply:
        if content_type != "application/timestamp-query":
            return Reply(415)
        (self.folder / "request").write_bytes(body)
        self.openssl("ts", "-reply", "-config", "tsa.cnf", "-queryfile", "request", "-out", "response")
        return Reply(200, (self.folder / "response").read_bytes(), "application/timestamp-reply")

    def accepts(self, response: bytes, data: bytes) -> bool:
        """Whether ``openssl ts -verify`` says that ``response`` stamps ``data``."""
        (self.folder / "kept").write_bytes(response)
        (self.folder / "data").write_bytes(data)
        try:
            self.openssl("ts", "-verify", "-in", "kept", "-data", "data", "-CAfile", "tsa.pem")
        except subprocess.CalledProcessError:
            return False
        return True
