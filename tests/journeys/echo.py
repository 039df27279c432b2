"""Receivers of the worst kind: whatever they are told they say again, in every spelling, and never that it is well."""

import base64
import html
import json
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import socket
from typing import Any
from urllib.parse import quote

from tests.evidence.connectors.listener import Listener

# How a receiver may repeat what it read; the answer's first kilobyte is what is kept of it.
SPELLINGS: tuple[Callable[[str], str], ...] = (
    str,
    lambda said: quote(said, safe=""),
    json.dumps,
    lambda said: base64.b64encode(said.encode()).decode(),
    html.escape,
    lambda said: said.encode().hex(),
    lambda said: json.dumps({"error": json.dumps(said)}),
    lambda said: "\0".join(said),
)
STATUSES = (503, 302, 429, 500, 200)


class Echo:
    """Speaks HTTP under TLS. ``access_token`` is what its token endpoint gives out; ``count`` requests came."""

    def __init__(self, tls: ssl.SSLContext, access_token: str) -> None:
        self.count = 0
        echo = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                if self.path.endswith("/oauth2/token"):
                    token = {"token_type": "Bearer", "expires_in": 3599, "access_token": access_token}
                    self.say(200, json.dumps(token).encode())
                    return
                credentials = [
                    f"{name}: {value}" for name, value in self.headers.items() if name.lower() != "host"
                ]
                said = "\n".join([*credentials, self.path, self.headers["host"], body.decode("latin-1")])
                number, echo.count = echo.count, echo.count + 1
                spelled = SPELLINGS[number % len(SPELLINGS)](said)
                status = STATUSES[number % len(STATUSES)]
                if status == 200 and "webhook-id" in self.headers:
                    status = 500  # A webhook's 200 is success, whatever it says.
                self.say(status, spelled.encode())

            do_POST = do_GET = answer

            def say(self, status: int, body: bytes) -> None:
                self.send_response(status)
                if status == 302:
                    self.send_header("location", f"https://{self.headers['host']}{self.path}&again=1")
                if status == 429:
                    self.send_header("retry-after", "0")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Nobody listens."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that went away."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.socket = tls.wrap_socket(
            self.server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port = self.server.server_address[1]
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def mail(listener: Listener, sock: socket) -> None:
    """A mail server that repeats a sign-in when it refuses it."""
    sock.sendall(b"220 echo ready\r\n")
    with sock.makefile("rb") as lines:
        for line in lines:
            verb = line[:4].upper()
            if verb == b"EHLO":
                sock.sendall(b"250-echo\r\n250 AUTH PLAIN LOGIN\r\n")
            elif verb == b"AUTH":
                listener.heard.append(line)
                both = base64.b64decode(line.split()[-1])
                sock.sendall(
                    b"454 4.7.0 not now: " + line.strip() + b" " + both.replace(b"\0", b" ") + b"\r\n"
                )
            else:
                sock.sendall(b"421 " + line.strip() + b"\r\n")
                return


def syslog(listener: Listener, sock: socket) -> None:
    """A syslog receiver that talks back, which none does."""
    listener.heard.append(sock.recv(65_536))
    sock.sendall(listener.heard[-1])
