"""Servers on the loopback interface that do to a connection what a test wants done to it."""

import socket
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

SocketT = TypeVar("SocketT", bound=socket.socket)


class Server:
    """Listens; each connection gets a thread in which ``serve`` does what is to happen to it, within TLS with ``tls``.

    ``released`` is for who holds something back: it is set at the end of the test.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        self.connections = 0
        self.released = threading.Event()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        self.run(self._accept)

    def serve(self, sock: socket.socket, number: int) -> None:
        """What happens to the connection of this number, counted from 1; it is closed afterwards."""
        raise NotImplementedError

    def close(self) -> None:
        """End it, with every connection."""
        self.released.set()
        self._end(self._listener)
        self._threads[0].join(5)  # no further connection is kept from here on
        for sock in self._sockets:
            self._end(sock)
        for thread in self._threads:
            thread.join(5)

    def kept(self, sock: SocketT) -> SocketT:
        """A socket that ends with the server."""
        self._sockets.append(sock)
        return sock

    def secured(self, sock: socket.socket, tls: ssl.SSLContext) -> ssl.SSLSocket:
        """The server's side of TLS on a connection that began without."""
        return self.kept(tls.wrap_socket(sock, server_side=True))

    def run(self, target: Callable[..., None], *args: Any) -> None:
        """Call in a thread that ends with the server."""
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    @staticmethod
    def _end(sock: socket.socket) -> None:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self.run(self._begin, self.kept(sock), self.connections)

    def _begin(self, sock: socket.socket, number: int) -> None:
        with suppress(OSError):
            if self.tls is not None:
                sock = self.secured(sock, self.tls)
            self.serve(sock, number)
        sock.close()


class Listener(Server):
    """Lets ``script(listener, connection)`` act; ``heard`` is what the script noted down."""

    def __init__(self, script: "Script", tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self.heard: list[bytes] = []
        super().__init__(tls)

    def url(self, scheme: str, host: str = "127.0.0.1") -> str:
        return f"{scheme}://{host}:{self.port}"

    def serve(self, sock: socket.socket, number: int) -> None:
        self.script(self, sock)


Script = Callable[[Listener, socket.socket], None]


def read_all(sock: socket.socket) -> bytes:
    """What comes until the other side ends."""
    data = b""
    while chunk := sock.recv(65536):
        data += chunk
    return data


def hold(listener: Listener, _sock: socket.socket) -> None:
    """Neither read nor say anything."""
    listener.released.wait(60)


def reset(sock: socket.socket) -> None:
    """End a connection the hard way."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
