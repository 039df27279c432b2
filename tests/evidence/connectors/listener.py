"""A server on the loopback interface whose whole behaviour is a function of the connection."""

import socket
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

Script = Callable[["Listener", socket.socket], None]


class Listener:
    """Listens and lets ``script(listener, connection)`` act; ``heard`` is what the script noted down.

    ``released`` is for scripts that hold something back: it is set at the end of the test.
    """

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        self.script, self.tls = script, tls
        self.heard: list[bytes] = []
        self.connections = 0
        self.released = threading.Event()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        self._run(self._accept)

    def url(self, scheme: str, host: str = "127.0.0.1") -> str:
        return f"{scheme}://{host}:{self.port}"

    def close(self) -> None:
        self.released.set()
        for sock in (self._listener, *self._sockets):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(5)

    def secured(self, sock: socket.socket, tls: ssl.SSLContext) -> ssl.SSLSocket:
        """The server's side of TLS on a connection that began without."""
        secure = tls.wrap_socket(sock, server_side=True)
        self._sockets.append(secure)
        return secure

    def _run(self, target: Callable[..., None], *args: socket.socket) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._sockets.append(sock)
            self._run(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        with suppress(OSError):
            if self.tls is not None:
                sock = self.secured(sock, self.tls)
            self.script(self, sock)
        sock.close()


def read_all(sock: socket.socket) -> bytes:
    """What comes until the other side ends."""
    data = b""
    while chunk := sock.recv(65536):
        data += chunk
    return data


def hold(listener: Listener, _sock: socket.socket) -> None:
    """Neither read nor say anything."""
    listener.released.wait(20)


def reset(sock: socket.socket) -> None:
    """End a connection the hard way."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
