"""A small HTTP proxy on the loopback interface: it keeps every byte it gets to see."""

import socket
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlsplit

from tests.evidence.connectors.listener import Server


class Proxy(Server):
    """CONNECT and absolute addresses. ``seen`` holds, per connection, what it could read of it.

    ``answers`` instead of doing anything, ``names`` are the addresses that names have where it stands, ``wants``
    the credential it asks for.
    """

    def __init__(
        self, *, answers: bytes | None = None, names: Mapping[str, str] | None = None, wants: str = ""
    ) -> None:
        self.answers, self.names, self.wants = answers, dict(names or {}), wants
        self.seen: list[bytearray] = []
        self.requests: list[str] = []
        super().__init__()

    @property
    def url(self) -> str:
        """What a connector is configured with."""
        return f"http://127.0.0.1:{self.port}"

    def serve(self, sock: socket.socket, number: int) -> None:
        seen = bytearray()
        self.seen.append(seen)
        while head := self._head(sock, seen):
            method, target, _ = head.split("\r\n")[0].split(" ")
            self.requests.append(f"{method} {target}")
            named = [line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line]
            credential = [value for name, value in named if name.lower() == "proxy-authorization"]
            if self.answers is not None:
                sock.sendall(self.answers)
                break
            if self.wants and credential != [self.wants]:
                sock.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            elif method == "CONNECT":
                self._tunnel(sock, seen, target)
                break
            else:
                self._forward(sock, seen, head, target)

    @staticmethod
    def _head(sock: socket.socket, seen: bytearray) -> str:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (chunk := sock.recv(1)):
                return ""
            data += chunk
        seen += data
        return data.decode()

    def _reach(self, host: str, port: int) -> socket.socket:
        return self.kept(socket.create_connection((self.names.get(host, host), port), timeout=60))

    def _tunnel(self, sock: socket.socket, seen: bytearray, target: str) -> None:
        host, _, port = target.rpartition(":")
        upstream = self._reach(host, int(port))
        sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        self.run(self._copy, upstream, sock, bytearray())
        self._copy(sock, upstream, seen)

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket, seen: bytearray) -> None:
        with suppress(OSError):
            while chunk := source.recv(65536):
                seen += chunk
                sink.sendall(chunk)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _forward(self, sock: socket.socket, seen: bytearray, head: str, target: str) -> None:
        parts = urlsplit(target)
        lines = head.split("\r\n")
        length = int(next(line for line in lines if line.lower().startswith("content-length")).split(":")[1])
        body = b""
        while len(body) < length:
            if not (chunk := sock.recv(65536)):
                return
            body += chunk
        seen += body
        kept = [line for line in lines[1:] if line and not line.lower().startswith("proxy-")]
        path = parts._replace(scheme="", netloc="").geturl()
        with self._reach(parts.hostname or "", parts.port or 80) as upstream:
            request = [f"POST {path} HTTP/1.1", *kept, "Connection: close"]
            upstream.sendall("\r\n".join(request).encode() + b"\r\n\r\n" + body)
            answer = b""
            while chunk := upstream.recv(65536):
                answer += chunk
                if b"\r\n\r\n" in answer:  # the receivers of these tests keep their connections
                    break
            sock.sendall(answer)
