"""One POST and its whole answer, for who keeps heads of the log: no redirect, no proxy, no second try (P19).

Deliveries go through ``sender``, which keeps only the start of an answer. Here the answer is what counts; it is
bounded in size and time, and the socket is made for the address that was checked.
"""

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from evidence.connectors.addresses import refusal

MAX_ANSWER = 256 * 1024


class ExchangeFailed(Exception):
    """No answer came: its text says why, without the address."""


@dataclass(frozen=True)
class Answer:
    """What came back; ``content_type`` is without parameters and in lower case."""

    status: int
    content_type: str
    body: bytes


def exchange(
    url: str, body: bytes, content_type: str, *, allow_networks: tuple[str, ...] = (), timeout_s: float = 30.0
) -> Answer:
    """POST ``body`` to an ``http`` or ``https`` URL and read the answer, whatever its status.

    ``allow_networks`` opens private networks, as a connector's does. ``timeout_s`` bounds everything. Raises
    ``ExchangeFailed``.
    """
    parts = urlsplit(url)
    target = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
    connection = _connection(parts.scheme, parts.hostname or "", parts.port, allow_networks, timeout_s)
    try:
        with contextlib.closing(connection), _alarm(connection, timeout_s) as late:
            try:
                headers = {"Content-Type": content_type, "User-Agent": "CAVRA", "Accept-Encoding": "identity"}
                connection.connect()
                if late.is_set():  # before there was anything to shut
                    raise TimeoutError
                connection.request("POST", target, body=body, headers=headers)
                response = connection.getresponse()
                data = response.read(MAX_ANSWER + 1)
            except (OSError, http.client.HTTPException) as error:
                raise ExchangeFailed("no answer came in time" if late.is_set() else _why(error)) from error
    except ValueError as error:  # a header or target that cannot be sent
        raise ExchangeFailed("the address cannot be used") from error
    if late.is_set():
        raise ExchangeFailed("no answer came in time")
    if len(data) > MAX_ANSWER:
        raise ExchangeFailed(f"the answer is longer than {MAX_ANSWER} bytes")
    kind = (response.headers.get("Content-Type") or "").partition(";")[0].strip().lower()
    return Answer(response.status, kind, data)


def _connection(
    scheme: str, host: str, port: int | None, allow_networks: tuple[str, ...], timeout_s: float
) -> http.client.HTTPConnection:
    if scheme == "https":
        return _GuardedTLS(host, port, timeout=timeout_s, allow_networks=allow_networks)
    return _Guarded(host, port, timeout=timeout_s, allow_networks=allow_networks)


class _Guarded(http.client.HTTPConnection):
    """Connects to the first permitted address of its host, and to exactly that one."""

    def __init__(
        self, host: str, port: int | None, *, timeout: float, allow_networks: tuple[str, ...]
    ) -> None:
        super().__init__(host, port, timeout=timeout)
        self.allow_networks = allow_networks
        self.until = time.monotonic() + timeout

    def connect(self) -> None:
        self.sock = self._dial()

    def _dial(self) -> socket.socket:
        reason = "the name has no address"
        for family, kind, protocol, _, address in socket.getaddrinfo(
            self.host, self.port, type=socket.SOCK_STREAM
        ):
            if refused := refusal(str(address[0]), self.allow_networks):
                reason = f"address is not allowed: {refused}"
                continue
            if (left := self.until - time.monotonic()) <= 0:
                raise TimeoutError
            dialled = socket.socket(family, kind, protocol)
            try:
                dialled.settimeout(left)
                dialled.connect(address)
            except OSError as error:
                dialled.close()
                reason = error.strerror or "the connection failed"
                continue
            return dialled
        raise OSError(None, reason)


class _GuardedTLS(_Guarded):
    """The same over TLS, the certificate checked for the host's name."""

    default_port = http.client.HTTPS_PORT

    def connect(self) -> None:
        dialled = self._dial()
        try:
            self.sock = ssl.create_default_context().wrap_socket(dialled, server_hostname=self.host)
        except BaseException:
            dialled.close()
            raise


@contextlib.contextmanager
def _alarm(connection: http.client.HTTPConnection, seconds: float) -> Iterator[threading.Event]:
    """Shuts the connection when the time is up: a timeout of the socket starts anew with every byte."""
    late = threading.Event()

    def shut() -> None:
        late.set()
        with contextlib.suppress(OSError):
            if (sock := connection.sock) is not None:
                # The connection alone: TLS would lose its state while the other thread is in it.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, shut)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer came in time"
    if isinstance(error, ssl.SSLError):
        return "the certificate or the TLS connection was refused"
    if isinstance(error, OSError):
        return error.strerror or "the connection failed"
    return "the answer is no HTTP"
