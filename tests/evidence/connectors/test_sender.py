"""The sender against real receivers: every way a try can end, and what never happens (P2, P17, P18, P19)."""

import gc
import hashlib
import logging
import os
import queue
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from evidence.connectors import sender as module
from evidence.connectors.sender import Sender
from evidence.connectors.transports import http
from evidence.connectors.transports.http import parse_retry_after
from evidence.enums import Answer, Assurance, FailureClass, Product
from tests.evidence.connectors.receiver import answer, send, settle, spec, timed
from tests.processes import wait_until

SECRET = "s3cr3t-hec-token"


def one(sender, order):
    (receipt,) = send(sender, order)
    return receipt


def assert_nothing_left(receipt, failure_class):
    assert (receipt.answer, receipt.failure_class) == (Answer.NOT_SENT, failure_class)
    assert (receipt.may_have_arrived, receipt.bytes_sent, receipt.status_code) == (False, 0, None)
    assert not receipt.delivered


def assert_may_have_arrived(receipt, failure_class):
    assert (receipt.answer, receipt.failure_class) == (Answer.NO_ANSWER, failure_class)
    assert receipt.may_have_arrived
    assert receipt.bytes_sent > 0
    assert not receipt.delivered


# --- answers ------------------------------------------------------------------------------------------------


def test_delivered(sender, receive):
    receiver = receive(answer(200, b"thank you"))
    before = datetime.now(UTC)
    receipt = one(sender, spec(receiver.url(path="/a/b?c=%20d")))
    (request,) = receiver.requests
    assert receipt.delivered
    assert (receipt.answer, receipt.assurance, receipt.status_code) == (
        Answer.ANSWERED,
        Assurance.ACCEPTED,
        200,
    )
    assert (receipt.failure_class, receipt.error, receipt.tries) == (None, "", 1)
    assert receipt.may_have_arrived
    assert receipt.bytes_sent == len(request.raw)
    assert request.raw.startswith(b"POST /a/b?c=%20d HTTP/1.1\r\n")
    assert request.body == b'{"a":1}'
    assert receipt.sent_sha256 == hashlib.sha256(request.body).hexdigest()
    assert (receipt.answer_excerpt, receipt.answer_sha256) == (
        "thank you",
        hashlib.sha256(b"thank you").hexdigest(),
    )
    assert (
        before <= receipt.started_at <= receipt.completed_at <= datetime.now(UTC) + timedelta(milliseconds=1)
    )
    assert receipt.completed_at - receipt.started_at == timedelta(milliseconds=receipt.duration_ms)
    assert receipt.started_at.tzinfo is UTC


def test_only_the_headers_of_the_order_and_of_http_itself_are_sent(sender, receive):
    receiver = receive()
    one(sender, spec(receiver.url()))
    assert set(receiver.requests[0].headers) == {
        *("content-type", "idempotency-key"),
        *("host", "accept", "accept-encoding", "content-length"),
    }


def test_an_empty_body_is_sent_too(sender, receive):
    receiver = receive()
    receipt = one(sender, spec(receiver.url(), body=b""))
    assert receipt.delivered
    assert receipt.bytes_sent == len(receiver.requests[0].raw)


@pytest.mark.parametrize(
    ("status", "failure_class", "may_have_arrived"),
    (
        (301, "bad_response", True),
        (400, "rejected", False),
        (401, "auth", False),
        (403, "auth", False),
        (404, "gone", False),
        (410, "gone", False),
        (413, "rejected", False),
        (422, "rejected", False),
        (429, "throttled", False),
        (500, "unavailable", True),
        (503, "unavailable", True),
    ),
)
def test_statuses(sender, receive, status, failure_class, may_have_arrived):
    receiver = receive(answer(status, b"why"))
    receipt = one(sender, spec(receiver.url(), retries=5))
    assert (receipt.answer, receipt.status_code) == (Answer.ANSWERED, status)
    assert (receipt.failure_class, receipt.assurance, receipt.delivered) == (failure_class, None, False)
    assert receipt.may_have_arrived is may_have_arrived
    assert f"HTTP {status}" in receipt.error
    assert receipt.answer_excerpt == "why"
    # Retries are for what never left: an answered request is never repeated.
    assert (receipt.tries, len(receiver.requests)) == (1, 1)


@pytest.mark.parametrize(
    ("body", "failure_class"),
    (
        (b'{"code":0}', None),
        (b'{"code":9}', "unavailable"),
        (b'{"code":4}', "auth"),
        (b"<html>", "bad_response"),
    ),
)
def test_splunk_answers_in_its_body(sender, receive, body, failure_class):
    receipt = one(sender, spec(receive(answer(200, body)).url(), product=Product.SPLUNK))
    assert receipt.status_code == 200
    assert receipt.failure_class == failure_class
    assert receipt.delivered is (failure_class is None)


@pytest.mark.parametrize("status", (301, 302, 303, 307, 308))
def test_redirects_are_not_followed(sender, receive, status):
    target = receive()
    receiver = receive(answer(status, b"", f"Location: {target.url()}"))
    receipt = one(sender, spec(receiver.url()))
    assert (receipt.failure_class, receipt.status_code) == (FailureClass.BAD_RESPONSE, status)
    assert target.connections == 0


@pytest.mark.parametrize("status", (429, 503))
def test_retry_after_is_kept(sender, receive, status):
    assert one(sender, spec(receive(answer(status, b"", "Retry-After: 120")).url())).retry_after_s == 120


NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    (
        (None, None),
        ("", None),
        ("0", 0),
        ("30", 30),
        ("0000000000030", 30),
        ("86401", 86400),
        ("9" * 5000, 86400),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("٣", None),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90),
        (format_datetime(NOW - timedelta(days=1), usegmt=True), 0),
        (format_datetime(NOW + timedelta(days=30), usegmt=True), 86400),
        ("Mon, 23 Nov 2026 12:00:10 -0000", 10),
        ("Mon, 99 Nov 2026 99:00:00 GMT", None),
    ),
)
def test_retry_after(value, seconds):
    assert parse_retry_after(value, NOW) == seconds


def test_a_large_answer_is_read_up_to_the_bound(sender, receive):
    def endless(_request, sock):
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * http.MAX_ANSWER)
        while True:
            sock.sendall(b"y" * 65536)

    # Read without end it would be no answer in time.
    receipt = one(sender, spec(receive(endless).url(), timeout_s=10))
    assert receipt.delivered
    assert receipt.answer_excerpt == "x" * 1024
    assert receipt.answer_sha256 == hashlib.sha256(b"x" * 65536).hexdigest()


def test_compressed_answers_are_not_unpacked(sender, receive):
    receipt = one(sender, spec(receive(answer(200, b"\x1f\x8b\x08\x00" * 8, "Content-Encoding: gzip")).url()))
    assert receipt.delivered
    assert receipt.answer_sha256 == hashlib.sha256(b"\x1f\x8b\x08\x00" * 8).hexdigest()


def test_excerpts_can_be_stored_anywhere(sender, receive):
    receipt = one(sender, spec(receive(answer(500, b"a\x00b\x1b[31m\xff\xed\xa0\x80 \xc3\xa9\n")).url()))
    assert receipt.answer_excerpt.startswith("a\ufffdb\ufffd[31m\ufffd")
    assert receipt.answer_excerpt.endswith(" é\n")
    receipt.answer_excerpt.encode("utf-8")


@pytest.mark.parametrize(
    "garbage",
    (
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    ),
)
def test_what_is_not_http_is_a_bad_response(sender, receive, garbage):
    assert_may_have_arrived(one(sender, spec(receive(garbage).url())), FailureClass.BAD_RESPONSE)


# --- no answer, after bytes left ----------------------------------------------------------------------------


def silent(request_receiver):
    """A script that never answers."""

    def script(_request, _sock):
        request_receiver[0].released.wait(60)

    return script


def silent_receiver(receive):
    holder = []
    holder.append(receive(silent(holder)))
    return holder[0]


def test_no_answer_in_time(sender, receive):
    receiver = silent_receiver(receive)
    receipt, seconds = timed(lambda: one(sender, spec(receiver.url(), timeout_s=1.5, retries=5)))
    assert_may_have_arrived(receipt, FailureClass.RESPONSE_TIMEOUT)
    assert 1.4 < seconds < 15
    assert (receipt.tries, len(receiver.requests)) == (1, 1)


@pytest.mark.parametrize(
    ("part", "failure_class"),
    (
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "response_timeout"),
        (answer(503)[:-1], "unavailable"),
    ),
)
def test_time_includes_the_body(sender, receive, part, failure_class):
    holder = []

    def script(_request, sock):
        sock.sendall(part)
        holder[0].released.wait(60)

    holder.append(receive(script))
    receipt, seconds = timed(lambda: one(sender, spec(holder[0].url(), timeout_s=1.5)))
    # The status was read, so the receiver answered; a 2xx that never became complete is no success.
    assert (receipt.answer, receipt.failure_class) == (Answer.ANSWERED, failure_class)
    assert receipt.may_have_arrived
    assert not receipt.delivered
    assert seconds < 15


def reset(_request, sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.parametrize(
    "script",
    (
        lambda _request, _sock: None,
        reset,
        lambda _request, sock: sock.sendall(b"HTTP/1.1 200 OK\r\nConte"),
    ),
    ids=("closed", "reset", "closed inside the head"),
)
def test_a_connection_that_ends_without_answer(sender, receive, script):
    receiver = receive(script)
    receipt = one(sender, spec(receiver.url(), retries=5))
    assert_may_have_arrived(receipt, FailureClass.CONNECTION_LOST)
    assert (receipt.tries, len(receiver.requests)) == (1, 1)


def test_a_success_that_breaks_off_is_none(sender, receive):
    receiver = receive(lambda _request, sock: sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"))
    receipt = one(sender, spec(receiver.url()))
    assert (receipt.status_code, receipt.failure_class) == (200, FailureClass.CONNECTION_LOST)
    assert receipt.may_have_arrived
    assert not receipt.delivered


# --- before any byte left -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("retries", "tries"), ((0, 1), (2, 3)))
def test_connection_refused(sender, closed_port, retries, tries):
    receipt = one(sender, spec(f"http://127.0.0.1:{closed_port}/", retries=retries))
    assert_nothing_left(receipt, FailureClass.CONNECT)
    assert receipt.tries == tries
    assert receipt.error == "no connection (ECONNREFUSED)"


def test_retries_stay_within_the_time(sender, closed_port, monkeypatch):
    monkeypatch.setattr(module, "BACKOFF_S", (0.01, 0.01, 60.0))
    order = spec(f"http://127.0.0.1:{closed_port}/", retries=5, timeout_s=50)
    receipt, seconds = timed(lambda: one(sender, order))
    # A pause that would end behind the time is not begun.
    assert_nothing_left(receipt, FailureClass.CONNECT)
    assert receipt.tries == 3
    assert seconds < 30


def test_a_retry_before_bytes_left_can_succeed(sender, receive, monkeypatch):
    receiver = receive()
    real, calls = socket.getaddrinfo, []

    def flaky(*args, **kwargs):
        calls.append(args)
        if len(calls) == 1:
            raise socket.gaierror(socket.EAI_AGAIN, "again")
        return real("127.0.0.1", *args[1:], **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", flaky)
    receipt = one(sender, spec(receiver.url("flaky.example"), retries=2))
    assert receipt.delivered
    assert (receipt.tries, len(receiver.requests)) == (2, 1)


def test_a_name_that_does_not_resolve(sender, monkeypatch):
    def unknown(*_args, **_kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "nobody knows hooks.example")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    receipt = one(sender, spec("http://hooks.example/"))
    assert_nothing_left(receipt, FailureClass.DNS)
    assert receipt.error == "host name does not resolve (EAI_NONAME)"


def test_a_name_server_that_does_not_answer(sender, receive, monkeypatch):
    asked, go_on, real = threading.Event(), threading.Event(), socket.getaddrinfo

    def hanging(host, *args, **kwargs):
        if host == "hooks.example":
            asked.set()
            go_on.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "late")
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    try:
        receipt = one(sender, spec("http://hooks.example/", timeout_s=0.2))
        assert_nothing_left(receipt, FailureClass.DNS)
        assert asked.wait(30)
        # The look-up still hangs in its thread; another connector's does not wait for it.
        assert one(sender, spec(receive().url("localhost"), connector="chat", timeout_s=20)).delivered
    finally:
        go_on.set()


def test_no_connection_in_time(sender, receive):
    # A port that takes the connection and never says hello to TLS.
    receipt = one(sender, spec(silent_receiver(receive).url(scheme="https"), timeout_s=0.2))
    assert_nothing_left(receipt, FailureClass.CONNECT_TIMEOUT)


@pytest.fixture(scope="module")
def self_signed(tmp_path_factory):
    """A TLS server context whose certificate nobody vouches for."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


def test_certificates_are_verified(sender, receive, self_signed):
    receiver = receive(answer(), tls=self_signed)
    receipt = one(sender, spec(receiver.url("localhost", scheme="https"), retries=5))
    assert_nothing_left(receipt, FailureClass.TLS)
    assert receipt.error == "no secure connection (CERTIFICATE_VERIFY_FAILED 18)"
    assert (receipt.tries, receiver.requests) == (1, [])


@pytest.mark.parametrize(
    ("host", "reason"),
    (("127.0.0.1", "loopback"), ("[::ffff:127.0.0.1]", "IPv4-mapped, loopback"), ("localhost", "loopback")),
)
def test_loopback_is_refused_without_allow_list(sender, receive, host, reason):
    receiver = receive()
    receipt = one(sender, spec(receiver.url(host), allow_networks=(), retries=5))
    assert_nothing_left(receipt, FailureClass.BLOCKED_ADDRESS)
    assert receipt.error == f"address is not allowed ({reason})"
    assert (receipt.tries, receiver.connections) == (1, 0)


@pytest.mark.parametrize(
    ("addresses", "failure_class"),
    (
        (("10.1.2.3", "169.254.169.254"), FailureClass.BLOCKED_ADDRESS),
        # One address was allowed and tried: what happened there is the news.
        (("10.1.2.3", "127.0.0.1"), FailureClass.CONNECT),
        (("127.0.0.1", "10.1.2.3"), FailureClass.CONNECT),
    ),
)
def test_a_name_is_judged_by_what_it_resolves_to(sender, closed_port, monkeypatch, addresses, failure_class):
    def resolve(_host, port, *_args, **_kwargs):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert_nothing_left(one(sender, spec(f"http://hooks.example:{closed_port}/")), failure_class)


@pytest.mark.parametrize("host", ("8.8.8.8", "[2606:4700:4700::1111]", "hooks.example"))
def test_p19_nothing_goes_to_a_public_address_in_the_clear(sender, monkeypatch, host):
    real = socket.getaddrinfo
    names = {"hooks.example": "8.8.8.8"}
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda name, *rest, **more: real(names.get(name, name), *rest, **more)
    )
    receipt = one(sender, spec(f"http://{host}/"))
    assert_nothing_left(receipt, FailureClass.BLOCKED_ADDRESS)
    assert receipt.error == "address is not allowed (public, and nothing would be encrypted)"


def test_a_refused_address_does_not_hide_an_allowed_one(sender, receive, monkeypatch):
    def resolve(_host, port, *_args, **_kwargs):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ("10.1.2.3", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert one(sender, spec(receive().url("hooks.example"))).delivered


@pytest.mark.parametrize(
    ("changes", "rule"),
    (
        ({"url": "ftp://127.0.0.1/"}, "url must begin with http"),
        ({"url": "http://s3cr3t@127.0.0.1/"}, "url must not contain user information"),
        ({"url": "http://127.0.0.1/#x"}, "url must not contain a fragment"),
        ({"url": "http://127.1/"}, "url has an address in an unusual form"),
        ({"url": ""}, "url must be a URL"),
        ({"headers": (("a", "s3cr3t\r\nb: c"),)}, "headers: has a header value"),
        ({"headers": (("a", "1"), ("A", "2"))}, "headers: has a header twice"),
        ({"headers": (("Content-Length", "3"),)}, "headers: has a header that belongs to the HTTP client"),
        ({"body": b"x" * (2**20 + 1)}, "body is larger"),
        ({"timeout_s": 0}, "timeout_s must be"),
        ({"timeout_s": float("nan")}, "timeout_s must be"),
        ({"timeout_s": 1e9}, "timeout_s must be"),
        ({"retries": 6}, "retries must be"),
        ({"retries": -1}, "retries must be"),
        ({"allow_networks": ("10.0.0.1/8",)}, "allow_networks has an entry"),
        ({"product": "fax"}, "product is unknown"),
    ),
)
def test_a_broken_order_is_answered_without_a_socket(sender, receive, changes, rule):
    receiver = receive()
    receipt = one(sender, spec(**({"url": receiver.url()} | changes)))
    assert_nothing_left(receipt, FailureClass.MISCONFIGURED)
    assert receipt.error.startswith(f"connector is misconfigured: {rule}")
    assert "s3cr3t" not in receipt.error
    assert (receipt.tries, receiver.connections) == (0, 0)


def test_an_order_of_wrong_types_is_answered_too(sender):
    assert_nothing_left(one(sender, spec(None)), FailureClass.MISCONFIGURED)


def test_proxies_of_the_environment_are_ignored(receive, monkeypatch):
    proxy, receiver = receive(), receive()
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url(path=""))
    sender = Sender()
    try:
        assert one(sender, spec(receiver.url())).delivered
    finally:
        sender.stop()
    assert proxy.connections == 0


# --- connections --------------------------------------------------------------------------------------------


def test_connections_are_used_again(sender, receive):
    receiver = receive(answer(200, b"ok", "Set-Cookie: id=1"))
    for number in range(5):
        assert one(sender, spec(receiver.url(), f"t{number}")).delivered
    assert (len(receiver.requests), receiver.connections) == (5, 1)
    assert not any("cookie" in request.headers for request in receiver.requests)


def test_a_dropped_kept_alive_connection_is_not_silently_sent_again(sender, receive):
    """The receiver answers the first request of each connection and drops it on reading the second."""

    def script(request, _sock):
        seen = sum(other.connection == request.connection for other in receiver.requests)
        return answer() if seen == 1 else None

    receiver = receive(script)
    receipts = [one(sender, spec(receiver.url(), f"t{number}", retries=5)) for number in range(6)]
    assert [receipt.delivered for receipt in receipts] == [True, False] * 3
    for receipt in receipts[1::2]:
        assert_may_have_arrived(receipt, FailureClass.CONNECTION_LOST)
    assert Counter(request.key for request in receiver.requests) == {
        f"key-t{number}": 1 for number in range(6)
    }


def test_a_connection_closed_while_idle_costs_nothing(sender, receive):
    def script(_request, sock):
        sock.sendall(answer())  # and close, without saying so in the answer

    receiver = receive(script)
    for number in range(3):
        assert one(sender, spec(receiver.url(), f"t{number}")).delivered
        wait_until(lambda: not receiver._threads[-1].is_alive())
        settle(sender)  # the receiver's goodbye arrived
    assert receiver.connections == 3


def test_connections_are_not_shared_between_connectors(sender, receive):
    receiver = receive()
    allowed, refused = spec(receiver.url()), spec(receiver.url(), "t2", connector="other", allow_networks=())
    assert one(sender, allowed).delivered
    assert_nothing_left(one(sender, refused), FailureClass.BLOCKED_ADDRESS)
    # Nor with the same connector's own past: taking a network off the list counts at once.
    assert_nothing_left(
        one(sender, spec(receiver.url(), "t3", allow_networks=())), FailureClass.BLOCKED_ADDRESS
    )
    assert len(receiver.requests) == 1


# --- islands ------------------------------------------------------------------------------------------------


def test_a_slow_connector_does_not_hold_up_another(sender, receive):
    slow, quick = silent_receiver(receive), receive()
    outcomes = queue.SimpleQueue()
    for number in range(20):
        sender.submit(spec(slow.url(), f"slow{number}", connector="slow", timeout_s=60), outcomes)
    slow.wait_for(4)
    orders = [spec(quick.url(), f"quick{number}", connector="quick") for number in range(50)]
    receipts, seconds = timed(lambda: send(sender, *orders))
    assert all(receipt.delivered for receipt in receipts)
    assert seconds < 30
    assert (outcomes.empty(), len(slow.requests)) == (True, 4)


def test_no_connector_holds_more_than_half_of_the_slots(receive):
    greedy, modest = silent_receiver(receive), receive()
    sender, outcomes = Sender(slots=6), queue.SimpleQueue()
    try:
        assert sender.free_slots("greedy", 64) == 3
        assert sender.free_slots("greedy", 2) == 2
        for number in range(10):
            sender.submit(spec(greedy.url(), f"g{number}", connector="greedy", max_concurrency=64), outcomes)
        greedy.wait_for(3)
        assert sender.free_slots("greedy", 64) == 0
        assert one(sender, spec(modest.url(), connector="modest")).delivered
        assert len(greedy.requests) == 3
    finally:
        sender.stop()
    assert len([outcomes.get(timeout=60) for _ in range(10)]) == 10


def test_free_slots_come_back(sender, receive):
    receiver = receive()
    assert sender.free_slots("siem", 4) == 4
    send(sender, *(spec(receiver.url(), f"t{number}") for number in range(8)))
    assert sender.free_slots("siem", 4) == 4


def test_lanes_take_turns(receive):
    """While two connectors with long queues fill every slot, a third one's only order comes next all the same."""
    go = threading.Semaphore(0)

    def script(_request, _sock):
        go.acquire(timeout=60)
        return answer()

    receiver, sender, outcomes = receive(script), Sender(slots=4), queue.SimpleQueue()
    try:
        for number in range(10):
            for connector in ("a", "b"):
                sender.submit(spec(receiver.url(), f"{connector}{number}", connector=connector), outcomes)
        receiver.wait_for(4)
        sender.submit(spec(receiver.url(), "c", connector="c"), outcomes)
        for _ in range(3):
            go.release()
            receiver.wait_for(1)
        assert "key-c" in [request.key for request in receiver.requests]
    finally:
        go.release(30)
        sender.stop()


def test_waiting_for_a_slot_does_not_count_as_sending(sender, receive):
    def script(_request, _sock):
        time.sleep(0.25)
        return answer()

    receiver = receive(script)
    receipts = send(
        sender, *(spec(receiver.url(), f"t{number}", max_concurrency=1, timeout_s=1.9) for number in range(8))
    )
    assert all(receipt.delivered for receipt in receipts)


def test_what_could_not_start_in_time_is_not_sent(sender, receive):
    receiver, outcomes = silent_receiver(receive), queue.SimpleQueue()
    sender.submit(spec(receiver.url(), "first", max_concurrency=1), outcomes)
    receiver.wait_for(1)
    late = spec(receiver.url(), "late", max_concurrency=1, not_after=time.monotonic() + 0.1)
    too_late = spec(receiver.url(), "too late", connector="idle", not_after=time.monotonic() - 1)
    receipts, seconds = timed(lambda: send(sender, late, too_late))
    for receipt in receipts:
        assert_nothing_left(receipt, None)
        assert receipt.error == "no slot was free in time"
    assert seconds < 15
    assert (len(receiver.requests), sender.free_slots("siem", 2)) == (1, 1)


def test_a_deadline_bounds_the_start(sender, receive):
    receiver = silent_receiver(receive)
    orders = [spec(receiver.url(), f"t{number}", max_concurrency=1, timeout_s=2.0) for number in range(5)]
    receipts, seconds = timed(lambda: list(sender.send_all(orders, deadline_s=1.0)))
    assert Counter(receipt.answer for receipt in receipts) == {Answer.NO_ANSWER: 1, Answer.NOT_SENT: 4}
    assert seconds < 7  # of one try, not of five


@pytest.mark.race
def test_many_threads_get_every_receipt_once(sender, receive):
    receiver = receive()

    def work(thread):
        orders = [
            spec(receiver.url(), f"{thread}.{number}", connector=f"c{thread % 3}") for number in range(25)
        ]
        return send(sender, *orders)

    with ThreadPoolExecutor(8) as pool:
        receipts = [receipt for batch in pool.map(work, range(8)) for receipt in batch]
    assert len(receipts) == 200
    assert all(receipt.delivered for receipt in receipts)
    assert Counter(Counter(request.key for request in receiver.requests).values()) == {1: 200}


# --- stopping and forking -----------------------------------------------------------------------------------


def test_stopping_answers_everything(receive):
    receiver, sender, outcomes = silent_receiver(receive), Sender(), queue.SimpleQueue()
    for number in range(10):
        sender.submit(spec(receiver.url(), f"t{number}", max_concurrency=2), outcomes)
    receiver.wait_for(2)
    sender.stop()
    receipts = {receipt.token: receipt for receipt in (outcomes.get(timeout=60) for _ in range(10))}
    for token in ("t0", "t1"):
        assert_may_have_arrived(receipts[token], FailureClass.CONNECTION_LOST)
    for number in range(2, 10):
        assert_nothing_left(receipts[f"t{number}"], None)
    assert_nothing_left(one(sender, spec(receiver.url(), "afterwards")), None)
    assert (outcomes.empty(), len(receiver.requests)) == (True, 2)
    sender.stop()


def test_a_sender_that_never_sent_can_stop():
    sender = Sender()
    sender.stop()
    assert_nothing_left(one(sender, spec("http://127.0.0.1/")), None)


def test_an_unforeseen_fault_is_answered(sender, receive, monkeypatch):
    def broken(*_args):
        raise RuntimeError("s3cr3t")

    monkeypatch.setattr(http, "guarded_socket", broken)
    receipt = one(sender, spec(receive().url()))
    assert_nothing_left(receipt, FailureClass.MISCONFIGURED)
    assert "s3cr3t" not in receipt.error


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_loop_that_dies_answers_what_is_open(receive):
    receiver, sender, outcomes = silent_receiver(receive), Sender(), queue.SimpleQueue()
    sender.submit(spec(receiver.url()), outcomes)
    receiver.wait_for(1)
    sender._loop.call_soon_threadsafe(sender._loop.stop)
    assert_may_have_arrived(outcomes.get(timeout=60), FailureClass.CONNECTION_LOST)
    sender._thread.join(60)
    assert_nothing_left(one(sender, spec(receiver.url())), None)


def test_one_shared_sender_for_a_process():
    assert module.shared() is module.shared()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_gets_a_sender_of_its_own(receive):
    receiver = receive()

    def order(token):
        return spec(receiver.url(), token, connector="forking")  # no other test's connections

    assert one(module.shared(), order("parent")).delivered
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        verdict = b"failed"
        try:
            inherited = module._parents[-1]
            assert module.shared() is not inherited
            assert one(module.shared(), order("child")).delivered
            assert_nothing_left(one(inherited, order("inherited")), None)
            inherited.stop()
            del inherited
            gc.collect()
            verdict = b"passed"
        finally:
            os.write(writing, verdict)
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b"passed"
    os.waitpid(child, 0)
    # The parent's connection survived, and each order was sent by exactly one process.
    assert one(module.shared(), order("again")).delivered
    assert Counter(request.connection for request in receiver.requests) == {1: 2, 2: 1}
    assert sorted(request.key for request in receiver.requests) == ["key-again", "key-child", "key-parent"]


# --- secrets ------------------------------------------------------------------------------------------------


def echo(request, _sock):
    return answer(400, b"cannot read " + request.raw + b" at hooks.internal.example")


def secret_spec(url, **changes):
    headers = (
        ("content-type", "application/json"),
        ("authorization", f"Splunk {SECRET}"),
        ("x-key", "k3y-" + SECRET),
    )
    return spec(url, headers=headers, body=b"s3cr3t-body", **changes)


def test_secrets_and_addresses_never_surface(sender, receive, closed_port, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    host, real = "hooks.internal.example", socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda name, *args, **kw: real(name.replace(host, "127.0.0.1"), *args, **kw)
    )
    paths = {"path": "/s3cr3t-path?sig=s3cr3t-sig"}
    urls = (
        receive(echo).url(host, **paths),
        receive(lambda *_: None).url(host, **paths),
        receive(b"\x00 s3cr3t-sig\r\n\r\n").url(host, **paths),
        receive().url(host, scheme="https", **paths),
        f"http://{host}:{closed_port}/s3cr3t-path",
        f"http://user:{SECRET}@{host}/",
        f"http://{host}:s3cr3t/",
    )
    specs = [
        # The one that never says hello to TLS takes its whole time.
        secret_spec(url, token=f"t{number}", timeout_s=2 if url.startswith("https") else 30)
        for number, url in enumerate(urls)
    ]
    receipts = send(sender, *specs)
    assert not any(receipt.delivered for receipt in receipts)
    assert receipts[0].answer_excerpt.startswith("cannot read POST [redacted] HTTP/1.1")
    shown = "\n".join([*map(repr, specs), *map(repr, receipts), caplog.text]).replace("s3cr3t-body", "")
    assert "s3cr3t" not in shown
    assert host not in shown
    assert "127.0.0.1" not in shown


def test_the_loop_reports_types_only(sender, receive, caplog):
    def fault(_secret):
        raise ValueError(SECRET)

    receiver = receive()
    assert one(sender, spec(receiver.url())).delivered
    sender._loop.call_soon_threadsafe(fault, SECRET)
    assert one(sender, spec(receiver.url())).delivered
    assert "ValueError" in caplog.text
    assert SECRET not in caplog.text
