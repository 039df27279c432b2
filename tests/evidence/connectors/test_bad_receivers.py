"""Bad receivers (P17, P19): each ends in its failure class within its time, whatever else goes on meanwhile.

``BAD`` is one table. All of its rows are sent to at once, with healthy connectors beside them, and then each is held
against what it has to come to.
"""

import asyncio
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from evidence.connectors.sender import Sender
from evidence.connectors.specs import Receipt
from evidence.connectors.transports import http
from evidence.enums import Answer, FailureClass, Product
from tests.evidence.connectors.authority import DAY, Authority
from tests.evidence.connectors.listener import Server, reset
from tests.evidence.connectors.receiver import Receiver, Request, answer, send, settle, spec

F = FailureClass
AUTHORITY = Authority()
TIMEOUT_S = 5.0
# What a busy machine may add to a time.
SLACK_S = 10.0
HEALTHY = ("alpha", "beta", "gamma")
ORDERS = 20

Script = Callable[[Request, socket.socket], bytes | None]


def silent(_request: Request, sock: socket.socket) -> None:
    """Never answers; ends when the other side goes."""
    with suppress(OSError):
        sock.recv(1)


def pouring(head: bytes, piece: bytes = b"", *, pause_s: float = 0.0) -> Script:
    """Answers without end."""

    def script(_request: Request, sock: socket.socket) -> None:
        sock.sendall(head)
        while True:
            sock.sendall(piece)
            if pause_s:
                time.sleep(pause_s)

    return script


def dribbling(data: bytes) -> Script:
    """One byte a second."""

    def script(_request: Request, sock: socket.socket) -> None:
        for place in range(len(data)):
            sock.sendall(data[place : place + 1])
            time.sleep(1.0)

    return script


def hanging_up(data: bytes = b"", *, reset: bool = False) -> Script:
    """Answers some bytes and is gone."""

    def script(_request: Request, sock: socket.socket) -> None:
        sock.sendall(data)
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()

    return script


def stuck(data: bytes) -> Script:
    """Answers some bytes and stays."""

    def script(request: Request, sock: socket.socket) -> None:
        sock.sendall(data)
        silent(request, sock)

    return script


def head(*lines: str) -> bytes:
    return "\r\n".join(("HTTP/1.1 200 OK", *lines, "", "")).encode()


@dataclass(frozen=True)
class Bad:
    """One receiver: how it behaves, over which kind of TLS, and what that has to come to.

    ``failure`` None: it is odd, and it is a success. ``status`` is what has to be read of it. ``or_else`` is a class
    that it may come to as well, when it is a matter of which of two things happens first.
    """

    name: str
    behaves: Script | bytes = b""
    failure: FailureClass | None = None
    status: int | None = None
    answers: Answer = Answer.NO_ANSWER
    tls: ssl.SSLContext | None = None
    scheme: str = ""
    listens: str = ""
    changes: dict[str, Any] = field(default_factory=dict)
    or_else: FailureClass | None = None

    @property
    def url_scheme(self) -> str:
        return self.scheme or ("https" if self.tls else "http")


def answered(
    name: str, behaves: Script | bytes, failure: FailureClass | None, status: int, **more: Any
) -> Bad:
    return Bad(name, behaves, failure, status, Answer.ANSWERED, **more)


def untouched(name: str, failure: FailureClass, **more: Any) -> Bad:
    """One that nothing is sent to."""
    return Bad(name, answer(), failure, None, Answer.NOT_SENT, **more)


def http_10(body: bytes) -> Script:
    def script(_request: Request, sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.0 200 OK\r\nServer: old\r\n\r\n" + body)

    return script


BAD = (
    # slow, or never
    Bad("never answers", silent, F.RESPONSE_TIMEOUT),
    Bad("one byte a second", dribbling(answer()), F.RESPONSE_TIMEOUT),
    answered(
        "one byte a second of its body", stuck(head("Content-Length: 9") + b"o"), F.RESPONSE_TIMEOUT, 200
    ),
    answered("a slow failure", stuck(answer(503)[:-1]), F.UNAVAILABLE, 503),
    # without end
    answered("a body of 1 GB", pouring(head(f"Content-Length: {2**30}"), b"x" * 65536), None, 200),
    answered("a body without end", pouring(head(), b"x" * 65536), None, 200),
    answered(
        "chunks without end", pouring(head("Transfer-Encoding: chunked"), b"5\r\nhello\r\n" * 500), None, 200
    ),
    Bad("headers without end", pouring(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n" * 10), F.BAD_RESPONSE),
    Bad("a header without end", pouring(b"HTTP/1.1 200 OK\r\nX-A: ", b"a" * 1024), F.BAD_RESPONSE),
    Bad("a status line without end", pouring(b"HTTP/1.1 200 ", b"a" * 1024), F.BAD_RESPONSE),
    Bad(
        "interim answers without end",
        pouring(b"", b"HTTP/1.1 100 Continue\r\n\r\n", pause_s=0.001),
        F.RESPONSE_TIMEOUT,
    ),
    answered(
        "a chunk's extension without end",
        pouring(head("Transfer-Encoding: chunked") + b"5;", b"x" * 1024, pause_s=0.001),
        F.RESPONSE_TIMEOUT,
        200,
        or_else=F.CONNECTION_LOST,
    ),
    # too much of it
    Bad("101 headers", head(*(f"X-{n}: a" for n in range(100)), "Content-Length: 0"), F.BAD_RESPONSE),
    answered("99 headers", head(*(f"X-{n}: a" for n in range(98)), "Content-Length: 0"), None, 200),
    Bad("a header of 9 KB", head(f"X-A: {'a' * 9_000}", "Content-Length: 0"), F.BAD_RESPONSE),
    Bad("a head of 33 KB", head(*(f"X-{n}: {'a' * 8_000}" for n in range(5))), F.BAD_RESPONSE),
    Bad("a status line of 3 KB", b"HTTP/1.1 200 " + b"a" * 3_000 + b"\r\n\r\n", F.BAD_RESPONSE),
    # gone
    Bad("closes without reading", failure=F.CONNECTION_LOST, or_else=F.CONNECT, listens="closes"),
    Bad("resets without reading", failure=F.CONNECTION_LOST, or_else=F.CONNECT, listens="resets"),
    Bad("closes after reading", hanging_up(), F.CONNECTION_LOST),
    Bad("resets after reading", hanging_up(reset=True), F.CONNECTION_LOST),
    Bad("closes inside the head", hanging_up(b"HTTP/1.1 200 OK\r\nConte"), F.CONNECTION_LOST),
    answered("closes inside the body", hanging_up(head("Content-Length: 9") + b"ok"), F.CONNECTION_LOST, 200),
    answered(
        "resets inside the body", hanging_up(head("Content-Length: 9"), reset=True), F.CONNECTION_LOST, 200
    ),
    answered(
        "closes inside a chunk",
        hanging_up(head("Transfer-Encoding: chunked") + b"5\r\nhel"),
        F.CONNECTION_LOST,
        200,
    ),
    # no HTTP, or wrong HTTP
    Bad("another protocol", b"SSH-2.0-OpenSSH_9.6\r\n\r\n", F.BAD_RESPONSE),
    Bad("HTTP/0.9", b"ok\n", F.BAD_RESPONSE),
    Bad("HTTP/9.9", b"HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n", F.BAD_RESPONSE),
    Bad("a status of letters", b"HTTP/1.1 abc\r\n\r\n", F.BAD_RESPONSE),
    Bad("a chunk that is none", head("Transfer-Encoding: chunked") + b"zz\r\nhello\r\n", F.BAD_RESPONSE),
    Bad(
        "a chunk larger than memory", head("Transfer-Encoding: chunked") + b"f" * 17 + b"\r\n", F.BAD_RESPONSE
    ),
    Bad("two lengths", head("Content-Length: 2", "Content-Length: 3") + b"ok", F.BAD_RESPONSE),
    Bad("a length below nothing", head("Content-Length: -1"), F.BAD_RESPONSE),
    Bad("a length in letters", head("Content-Length: two") + b"ok", F.BAD_RESPONSE),
    Bad("a length and chunks", head("Content-Length: 2", "Transfer-Encoding: chunked"), F.BAD_RESPONSE),
    Bad("more than its length", head("Content-Length: 1") + b"okokok", F.BAD_RESPONSE),
    answered("less than its length", stuck(head("Content-Length: 9") + b"ok"), F.RESPONSE_TIMEOUT, 200),
    Bad("a NUL in a header", head("X-A: a\x00b", "Content-Length: 0"), F.BAD_RESPONSE),
    # TLS
    untouched("a certificate for another name", F.TLS, tls=AUTHORITY.context("other.example")),
    untouched("a certificate for a name below", F.TLS, tls=AUTHORITY.context("*.localhost")),
    untouched("an expired certificate", F.TLS, tls=AUTHORITY.context(since=-2 * DAY, until=-DAY)),
    untouched("a certificate of tomorrow", F.TLS, tls=AUTHORITY.context(since=DAY, until=2 * DAY)),
    untouched("a self-signed certificate", F.TLS, tls=AUTHORITY.context(self_signed=True)),
    untouched("a certificate of somebody else's authority", F.TLS, tls=Authority().context()),
    untouched("TLS 1.0 and 1.1 only", F.TLS, tls=AUTHORITY.old_context()),
    untouched(
        "a private authority nobody configured", F.TLS, tls=AUTHORITY.context(), changes={"ca_pem": ""}
    ),
    untouched("plain HTTP on a port for TLS", F.CONNECT_TIMEOUT, scheme="https"),
    untouched("somebody who speaks plain HTTP first", F.TLS, scheme="https", listens="speaks"),
    untouched("a port for TLS that says nothing", F.CONNECT_TIMEOUT, scheme="https", listens="hangs"),
    Bad("TLS on a plain port", answer(), F.CONNECTION_LOST, tls=AUTHORITY.context(), scheme="http"),
    answered(
        "a good certificate, and no good content", answer(422), F.REJECTED, 422, tls=AUTHORITY.context()
    ),
    # answers that say no
    answered("429", answer(429), F.THROTTLED, 429),
    answered("429 with nonsense", answer(429, b"", "Retry-After: whenever"), F.THROTTLED, 429),
    answered("429 with seconds", answer(429, b"", "Retry-After: 30"), F.THROTTLED, 429),
    answered(
        "429 with a date",
        answer(
            429,
            b"",
            f"Retry-After: {format_datetime(datetime.now(UTC) + timedelta(hours=20), usegmt=True)}",
        ),
        F.THROTTLED,
        429,
    ),
    answered(
        "200 and a Splunk error",
        answer(200, b'{"text":"Server is busy","code":9}'),
        F.UNAVAILABLE,
        200,
        changes={"product": Product.SPLUNK},
    ),
    answered(
        "200 and a Splunk page",
        answer(200, b"<html>Log in</html>"),
        F.BAD_RESPONSE,
        200,
        changes={"product": Product.SPLUNK},
    ),
    answered(
        "200 and an error of Teams",
        answer(200, b"Webhook message delivery failed with error: HTTP error 429 returned"),
        F.THROTTLED,
        200,
        tls=AUTHORITY.context(),
        changes={"product": Product.TEAMS},
    ),
    answered(
        "200 and a sentence of Teams",
        answer(200, b"Summary or Text is required."),
        F.BAD_RESPONSE,
        200,
        tls=AUTHORITY.context(),
        changes={"product": Product.TEAMS},
    ),
    answered("a redirect", answer(302, b"", "Location: http://127.0.0.1:1/"), F.BAD_RESPONSE, 302),
    answered(
        "another protocol after 101",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        F.BAD_RESPONSE,
        101,
    ),
    answered("not modified", b"HTTP/1.1 304 Not Modified\r\n\r\n", F.BAD_RESPONSE, 304),
    answered("a status nobody knows", answer(999), F.BAD_RESPONSE, 999),
    # odd, and good
    answered("HTTP/1.0", http_10(b"fine"), None, 200),
    answered("HTTP/1.0 without a body", http_10(b""), None, 200),
    answered("no content", b"HTTP/1.1 204 No Content\r\n\r\n", None, 204),
    answered("100 and then 200", b"HTTP/1.1 100 Continue\r\n\r\n" + answer(), None, 200),
    answered("early hints", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + answer(), None, 200),
    answered("lines that end in LF", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", None, 200),
)


class Port(Server):
    """Behaves by the connection, not by the request."""

    requests: tuple[Request, ...] = ()
    url = Receiver.url

    def __init__(self, how: str) -> None:
        self.how = how
        super().__init__()

    def serve(self, sock: socket.socket, number: int) -> None:
        if self.how == "speaks":
            sock.sendall(answer())
        if self.how in ("speaks", "hangs"):
            self.released.wait()
        if self.how == "resets":
            reset(sock)


def started(bad: Bad) -> Receiver | Port:
    if bad.listens:
        return Port(bad.listens)
    behaves = bad.behaves
    script: Any = behaves if callable(behaves) else lambda _request, _sock: behaves
    return Receiver(script, bad.tls)


def order_for(bad: Bad, receiver: Receiver | Port) -> Any:
    values = {"connector": f"bad {bad.name}", "timeout_s": TIMEOUT_S, "ca_pem": AUTHORITY.pem, "retries": 1}
    return spec(receiver.url("localhost", scheme=bad.url_scheme), bad.name, **(values | bad.changes))


@dataclass(frozen=True)
class Outcome:
    """What all of them came to, and how the healthy connectors did beside them and alone."""

    receipts: dict[str, Receipt]
    requests: dict[str, int]
    beside: list[Receipt]
    alone: list[Receipt]
    seconds: float


@pytest.fixture(scope="module")
def outcome() -> Iterator[Outcome]:
    """Everything at once, and the healthy ones once more alone."""
    receivers = {bad.name: started(bad) for bad in BAD}
    healthy = {key: Receiver(lambda _request, _sock: answer()) for key in HEALTHY}
    sender = Sender(slots=2 * len(BAD))
    try:
        fine = [
            spec(healthy[key].url(), f"{key} {number}", connector=key, timeout_s=TIMEOUT_S)
            for number in range(ORDERS)
            for key in HEALTHY
        ]
        alone = send(sender, *fine)
        began = time.monotonic()
        together = send(sender, *(order_for(bad, receivers[bad.name]) for bad in BAD), *fine)
        seconds = time.monotonic() - began
        yield Outcome(
            receipts={receipt.token: receipt for receipt in together[: len(BAD)]},
            requests={name: len(receiver.requests) for name, receiver in receivers.items()},
            beside=together[len(BAD) :],
            alone=alone,
            seconds=seconds,
        )
    finally:
        for receiver in (*receivers.values(), *healthy.values()):
            receiver.close()
        sender.stop()


def test_every_name_is_its_own() -> None:
    assert len({bad.name for bad in BAD}) == len(BAD) >= 30


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_each_ends_in_its_class_within_its_time(outcome: Outcome, bad: Bad) -> None:
    receipt = outcome.receipts[bad.name]
    assert receipt.status_code == bad.status
    assert receipt.failure_class in (bad.failure, bad.or_else or bad.failure)
    if receipt.failure_class == F.CONNECT:
        assert receipt.answer == Answer.NOT_SENT
    else:
        assert receipt.answer == bad.answers
    assert receipt.delivered is (bad.failure is None)
    assert receipt.duration_ms <= (TIMEOUT_S + SLACK_S) * 1000
    # Whatever came of it: nothing that left is sent again. Where a reset meets the request sooner or later, a first
    # try may have ended before a byte left, and the next one behind it.
    assert outcome.requests[bad.name] <= 1
    assert receipt.tries == 1 or receipt.bytes_sent == 0 or bad.or_else
    if bad.answers is Answer.NOT_SENT:
        assert outcome.requests[bad.name] == receipt.bytes_sent == 0


@pytest.mark.parametrize(
    ("name", "low", "high"),
    (
        ("429", None, None),
        ("429 with nonsense", None, None),
        ("429 with seconds", 30, 30),
        ("429 with a date", 16 * 3600, 20 * 3600),  # of the time of collecting, perhaps an hour ago
    ),
)
def test_what_the_receiver_asks_for_is_kept(
    outcome: Outcome, name: str, low: int | None, high: int | None
) -> None:
    asked = outcome.receipts[name].retry_after_s
    assert asked is None if low is None else low <= asked <= high


def test_p17_healthy_connectors_go_on_beside_all_of_them(outcome: Outcome) -> None:
    """Each of their deliveries is what it is alone, and none waited for a slow neighbour's time to pass."""
    assert [receipt.delivered for receipt in outcome.alone] == [True] * len(outcome.alone)
    told = [
        (receipt.token, receipt.delivered, receipt.tries, receipt.sent_sha256) for receipt in outcome.beside
    ]
    assert told == [
        (receipt.token, receipt.delivered, receipt.tries, receipt.sent_sha256) for receipt in outcome.alone
    ]
    last = max(receipt.completed_at for receipt in outcome.beside)
    slowest = outcome.receipts["never answers"].completed_at
    assert last < slowest
    assert outcome.seconds < TIMEOUT_S + 2 * SLACK_S


def test_of_one_gigabyte_little_is_read(sender: Sender, receive: Callable[..., Receiver]) -> None:
    """And the connection is ended at once, over TLS too: nothing goes on reading what is poured out."""
    poured, gone = [0], threading.Event()

    def script(_request: Request, sock: socket.socket) -> None:
        try:
            sock.sendall(head(f"Content-Length: {2**30}"))
            while poured[0] < 2**30:
                sock.sendall(b"x" * 65536)
                poured[0] += 65536
        finally:
            gone.set()

    receiver = receive(script, tls=AUTHORITY.context())
    (receipt,) = send(sender, spec(receiver.url("localhost", scheme="https"), ca_pem=AUTHORITY.pem))
    assert receipt.delivered
    assert gone.wait(60)
    assert poured[0] < 16 * 2**20


@pytest.mark.parametrize(
    "size", (http.MAX_ANSWER - 1, http.MAX_ANSWER, http.MAX_ANSWER + 1, 3 * http.MAX_ANSWER)
)
def test_a_connection_with_something_left_to_read_is_not_used_again(
    sender: Sender, receive: Callable[..., Receiver], size: int
) -> None:
    receiver = receive(answer(200, b"x" * size))
    for number in range(3):
        (receipt,) = send(sender, spec(receiver.url(), f"t{number}"))
        assert (receipt.delivered, len(receipt.answer_excerpt)) == (True, 1024)
    assert receiver.connections == (1 if size <= http.MAX_ANSWER else 3)


def test_an_answer_nobody_asked_for_is_not_the_next_ones(
    sender: Sender, receive: Callable[..., Receiver]
) -> None:
    """A second answer on a kept connection, waiting for a request: a success that never was."""
    go_on, arrived = threading.Semaphore(0), threading.Semaphore(0)

    def script(request: Request, sock: socket.socket) -> bytes | None:
        if request.key == "key-refused":
            return answer(422, b"no")
        sock.sendall(answer(200, b"one"))
        assert go_on.acquire(timeout=60)
        sock.sendall(answer(200, b"two"))
        arrived.release()
        return b""

    receiver = receive(script)
    for number in range(3):
        (receipt,) = send(sender, spec(receiver.url(), f"t{number}"))
        assert receipt.answer_excerpt == "one"
        go_on.release()
        assert arrived.acquire(timeout=60)
        settle(sender)
    (receipt,) = send(sender, spec(receiver.url(), "refused"))
    assert (receipt.failure_class, receipt.answer_excerpt) == (FailureClass.REJECTED, "no")
    assert receipt.tries == 1


def test_somebody_who_speaks_first_is_not_believed(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there before the request is no answer to it, and no reason to ask on one connection after another."""
    send_request = http._Request.send

    async def later(self: Any, conn: Any) -> Any:
        await asyncio.sleep(0.1)  # so that it is there
        return await send_request(self, conn)

    monkeypatch.setattr(http._Request, "send", later)
    listener = Port("speaks")
    try:
        (receipt,) = send(sender, spec(listener.url(), timeout_s=TIMEOUT_S))
    finally:
        listener.close()
    assert (receipt.answer, receipt.failure_class) == (Answer.NOT_SENT, FailureClass.BAD_RESPONSE)
    assert receipt.error == f"answer was not understood ({http.SPOKE_FIRST})"
