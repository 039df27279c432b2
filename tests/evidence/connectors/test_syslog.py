"""Syslog: what a message says, and what is known of it afterwards; against rsyslog, and against bad receivers."""

import hashlib
import json
import re
import socket
import ssl
import threading
import time
from datetime import datetime

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from evidence.connectors.credentials import Misconfigured
from evidence.connectors.prepare import prepare
from evidence.connectors.products import syslog
from evidence.connectors.specs import ConnectorSettings
from evidence.enums import Answer, Assurance, FailureClass, Product
from tests.evidence.connectors.authority import DAY
from tests.evidence.connectors.listener import hold, read_all, reset
from tests.evidence.connectors.receiver import LOOPBACK, send, spec, timed
from tests.evidence.connectors.rsyslog import Rsyslog
from tests.processes import wait_until

AT = "2026-11-28T19:16:34.123456Z"
EVENT = {
    "event_type": "cavra.go_backend.rollback_drill.acknowledgement_audit_delivery",
    "session_id": "gordackdelivery-1",
    "title": "Rollback drill acknowledgements: 1 of 2 outstanding",
    "alert_level": "critical",
    "delivery_plan": {"generated_at": AT},
    "routes": [{"owner": "Zoë, 東京"}],
    "stream": {"case": "gordackdelivery-1.siem", "seq": 7},
}
BOM = "\ufeff"


def configured(url="syslog+tls://siem.example", **changes):
    return ConnectorSettings(key="siem", product=Product.SYSLOG, url=url, **changes)


def body_of(event=EVENT, message_id="gordackdelivery-1.siem", **changes):
    prepared = prepare(configured(**changes), event, idempotency_key="", message_id=message_id)
    assert (prepared.public_headers, prepared.secret_headers, prepared.secrets) == ((), (), ())
    return prepared.body


# --- the message ------------------------------------------------------------------------------------------------

# RFC 5424 §6, its ABNF for the parts that are used here.
MESSAGE = re.compile(
    r"<(?P<pri>[0-9]{1,3})>1 (?P<time>-|[0-9TZ:.-]{20,27}) (?P<host>[!-~]{1,255}) (?P<app>[!-~]{1,48}) "
    r"(?P<proc>[!-~]{1,128}) (?P<type>[!-~]{1,32}) \[(?P<sd>[^ =\]\"]{1,32})"
    r"(?P<params>(?: [a-z0-9]{1,32}=\"(?:[^\"\\\]]|\\.)*\")+)\] " + BOM + r"(?P<text>.*)",
    re.DOTALL,
)
PARAMETER = re.compile(r" ([a-z0-9]+)=\"((?:[^\"\\\]]|\\.)*)\"", re.DOTALL)


def read(body):
    match = MESSAGE.fullmatch(body.decode())
    assert match, body[:400]
    fields = match.groupdict()
    fields["params"] = {
        name: re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL)
        for name, value in PARAMETER.findall(fields["params"])
    }
    return fields


def test_the_text_is_the_event_and_the_front_says_what_it_is():
    fields = read(body_of())
    assert fields["text"].encode() == rfc8785.dumps(EVENT)
    assert (fields["pri"], fields["time"]) == (str(13 * 8 + 2), AT)
    assert (fields["host"], fields["app"], fields["proc"]) == ("-", "cavra", "-")
    assert fields["type"] == "acknowledgement_audit_delivery"
    assert fields["sd"] == "cavra@32473"
    assert fields["params"] == {
        "message": "gordackdelivery-1.siem",
        "delivery": "gordackdelivery-1",
        "case": "gordackdelivery-1.siem",
        "seq": "7",
        "sha256": hashlib.sha256(rfc8785.dumps(EVENT)).hexdigest(),
    }


def test_options_fill_the_front():
    options = (("facility", "4"), ("hostname", "console.example"), ("structured_data_id", "audit@1.2"))
    fields = read(body_of(options=options))
    assert (fields["pri"], fields["host"], fields["sd"]) == ("34", "console.example", "audit@1.2")


@pytest.mark.parametrize(
    ("level", "severity"), (("healthy", 6), ("warning", 4), ("critical", 2), ("", 5), (None, 5))
)
def test_the_alert_level_is_the_severity(level, severity):
    assert int(read(body_of({**EVENT, "alert_level": level}))["pri"]) % 8 == severity


def test_a_try_later_sends_the_same_bytes():
    first = body_of()
    time.sleep(0.01)
    assert body_of(dict(reversed(EVENT.items()))) == first


@pytest.mark.parametrize(
    "event", ({"text": "a", "link": "b"}, {"delivery_plan": {"generated_at": "yesterday"}}, {})
)
def test_what_has_no_time_or_type_is_given_none(event):
    fields = read(body_of(event))
    assert (fields["time"], fields["type"]) == ("-", "-")


@settings(max_examples=200, deadline=None)
@given(
    message_id=st.text(min_size=1),
    delivery=st.text(min_size=1),
    kind=st.text(),
    owner=st.text(),
)
def test_no_text_gets_out_of_its_place(message_id, delivery, kind, owner):
    try:
        event = {"session_id": delivery, "event_type": kind, "owner": owner}
        fields = read(body_of(event, message_id))
    except (Misconfigured, UnicodeEncodeError):
        assert any("\ud800" <= c <= "\udfff" for c in message_id + delivery + kind + owner)
        return
    assert (fields["params"]["message"], fields["params"]["delivery"]) == (message_id, delivery)
    assert json.loads(fields["text"]) == event


@pytest.mark.parametrize(
    ("most", "longer_by", "fits"),
    (("8096", 0, True), ("8096", 1, False), ("20000", 0, True), ("20000", 1, False)),
)
def test_a_message_that_the_receiver_would_cut_is_refused_here(most, longer_by, fits):
    options = () if most == "8096" else (("max_bytes", most),)
    event = {**EVENT, "note": ""}
    event["note"] = "x" * (int(most) - len(body_of(event, options=options)) + longer_by)
    if fits:
        assert len(body_of(event, options=options)) == int(most)
        return
    with pytest.raises(Misconfigured) as refused:
        body_of(event, options=options)
    assert refused.value.failure_class is FailureClass.REJECTED
    assert (
        str(refused.value) == f"the content of {int(most) + 1} bytes is larger than the {most} bytes it takes"
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    (
        (
            {"url": "syslog://siem.example"},
            "url must begin with syslog+tls://, or stay in private networks that are allowed",
        ),
        ({"token_ref": "env:T"}, "token_ref is nothing that this product has a use for"),
        ({"headers": (("a", "b"),)}, "headers is of HTTP, which syslog does not speak"),
        ({"api_key_ref": "env:T"}, "api_key_ref is nothing that this product has a use for"),
        ({"authorization_ref": "env:T"}, "authorization_ref is nothing that this product has a use for"),
        ({"proxy_url": "http://proxy.example"}, "proxy_url is of HTTP, which syslog does not speak"),
        ({"url": "https://siem.example"}, "url must begin with syslog+tls:// or syslog://"),
        ({"url": "syslog+tls://siem.example/path"}, "url must have nothing behind host and port"),
        ({"url": "syslog+tls://siem.example?a=b"}, "url must have nothing behind host and port"),
    ),
)
def test_what_syslog_has_no_place_for_is_refused(changes, said):
    with pytest.raises(Misconfigured) as refused:
        body_of(**changes)
    assert str(refused.value) == said


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    (
        ("facility", ("0", "9", "13", "19", "23"), ("24", "-1", "13 ", "x", "013")),
        ("hostname", ("-", "console.example", "x" * 255), ("", "a b", "é", "x" * 256)),
        (
            "structured_data_id",
            ("cavra@32473", "a@1.2.3"),
            ("cavra", "a b@1", 'a"@1', "a]@1", "a=@1", "a@b@1", "x" * 31 + "@1"),
        ),
        ("max_bytes", ("480", "8192", "999999"), ("0", "479", "1000000", "8k", "-1")),
    ),
)
def test_options_have_a_form(name, good, bad):
    pattern = syslog.OPTIONS[name].pattern
    assert all(re.fullmatch(pattern, value) for value in good)
    assert not any(re.fullmatch(pattern, value) for value in bad)


# --- against rsyslog --------------------------------------------------------------------------------------------


@pytest.fixture
def rsyslog(tmp_path, authority):
    """``rsyslog(driver)`` starts one, with TLS when a driver is named; they end with the test."""
    running = []

    def start(driver=""):
        folder = tmp_path / f"rsyslog{len(running)}"
        folder.mkdir()
        running.append(Rsyslog(folder, driver=driver, authority=authority))
        return running[-1]

    yield start
    for one in running:
        one.stop()


def order(url, body, token="t1", **changes):
    return spec(url, token, product=Product.SYSLOG, headers=(), body=body, **changes)


def one(sender, *args, **changes):
    (receipt,) = send(sender, order(*args, **changes))
    return receipt


def assert_written(receipt):
    assert (receipt.answer, receipt.assurance, receipt.status_code) == (
        Answer.NO_ANSWER,
        Assurance.WRITTEN,
        None,
    )
    assert (receipt.failure_class, receipt.error) == (None, "")
    assert receipt.delivered
    assert receipt.may_have_arrived


TRANSPORTS = ("", "gtls", "ossl")


@pytest.mark.parametrize("driver", TRANSPORTS)
def test_rsyslog_gets_every_byte(sender, rsyslog, authority, driver):
    receiver = rsyslog(driver)
    url = f"syslog+tls://localhost:{receiver.port}" if driver else f"syslog://127.0.0.1:{receiver.port}"
    whole = body_of({**EVENT, "note": "x" * (8096 - len(body_of({**EVENT, "note": ""})))})
    assert len(whole) == 8096  # the longest that is sent, unless the connector says otherwise
    bodies = [
        body_of(),
        whole,
        '<110>1 - - cavra - - - \ufeffline one\nline two\n\tünï, 東京 \\ " ]'.encode(),
        b"<110>1 - - cavra - - - 12 <13>looks like a frame\n17 another",
    ]
    for body in bodies:
        receipt = one(sender, url, body, ca_pem=authority.pem if driver else "")
        assert_written(receipt)
        assert receipt.bytes_sent == len(b"%d " % len(body)) + len(body)
        assert bool(receipt.diagnostics.certificate_sha256) is bool(driver)
    assert receiver.raw(len(bodies)) == bodies


def test_rsyslog_understands_what_it_gets(sender, rsyslog):
    receiver = rsyslog()
    options = (("hostname", "console.example"),)
    message_id = 'quote " backslash \\ bracket ] é'
    assert_written(
        one(sender, f"syslog://127.0.0.1:{receiver.port}", body_of(EVENT, message_id, options=options))
    )
    (fields,) = receiver.parsed(1)
    assert fields["protocol-version"] == "1"
    assert (fields["pri"], fields["hostname"], fields["app-name"]) == ("106", "console.example", "cavra")
    assert datetime.fromisoformat(fields["timestamp"]) == datetime.fromisoformat(AT)
    assert fields["msgid"] == "acknowledgement_audit_delivery"
    assert fields["structured-data"].startswith(
        r'[cavra@32473 message="quote \" backslash \\ bracket \] é" delivery='
    )
    assert fields["msg"].encode() == BOM.encode() + rfc8785.dumps(EVENT)


@pytest.mark.parametrize("driver", TRANSPORTS)
def test_a_hundred_messages_arrive_once_each(sender, rsyslog, authority, driver):
    receiver = rsyslog(driver)
    url = f"syslog+tls://localhost:{receiver.port}" if driver else f"syslog://127.0.0.1:{receiver.port}"
    bodies = [body_of({**EVENT, "number": number}) for number in range(100)]
    orders = [
        order(url, body, f"t{number}", ca_pem=authority.pem if driver else "", max_concurrency=8)
        for number, body in enumerate(bodies)
    ]
    for receipt in send(sender, *orders):
        assert_written(receipt)
    assert sorted(receiver.raw(100)) == sorted(bodies)


# --- against receivers that are up to no good -------------------------------------------------------------------

SMALL = b"<110>1 - - cavra - - - hello"
LARGE = SMALL + b"x" * 900_000


def assert_nothing_left(receipt, failure_class):
    assert (receipt.answer, receipt.failure_class) == (Answer.NOT_SENT, failure_class)
    assert (receipt.may_have_arrived, receipt.bytes_sent, receipt.delivered) == (False, 0, False)


def assert_may_have_arrived(receipt, failure_class):
    assert (receipt.answer, receipt.failure_class) == (Answer.NO_ANSWER, failure_class)
    assert receipt.may_have_arrived
    assert not receipt.delivered


def takes_it(listener, sock):
    listener.heard.append(read_all(sock))


def test_a_receiver_that_takes_everything_has_it(sender, listen):
    listener = listen(takes_it)
    assert_written(one(sender, listener.url("syslog"), LARGE, max_concurrency=1))
    assert listener.heard == [b"%d %b" % (len(LARGE), LARGE)]


def keeps_open(listener, sock):
    listener.heard.append(read_all(sock))
    listener.released.wait(60)


def reads_a_byte_a_second(listener, sock):
    while not listener.released.wait(1):
        listener.heard.append(sock.recv(1))


@pytest.mark.parametrize("script", (hold, keeps_open, reads_a_byte_a_second))
@pytest.mark.parametrize("body", (SMALL, LARGE), ids=("small", "large"))
def test_a_receiver_that_does_not_come_to_an_end(sender, listen, script, body):
    receipt, seconds = timed(
        lambda: one(sender, listen(script).url("syslog"), body, timeout_s=1.5, retries=5)
    )
    assert_may_have_arrived(receipt, FailureClass.RESPONSE_TIMEOUT)
    assert seconds < 15
    assert receipt.tries == 1


def resets_at_the_end(_listener, sock):
    read_all(sock)
    reset(sock)


def closes_midway(_listener, sock):
    sock.recv(10)


def closes_at_once(_listener, _sock):
    pass


@pytest.mark.parametrize("script", (closes_at_once, closes_midway, resets_at_the_end))
@pytest.mark.parametrize("body", (SMALL, LARGE), ids=("small", "large"))
def test_a_receiver_that_ends_the_connection_too_early(sender, listen, script, body):
    """However its goodbye and our bytes cross on their way: never a success."""
    listener = listen(script)
    orders = [order(listener.url("syslog"), body, f"t{number}", retries=5) for number in range(20)]
    for receipt in send(sender, *orders):
        assert_may_have_arrived(receipt, FailureClass.CONNECTION_LOST)
    assert listener.connections == 20


@pytest.mark.parametrize(
    "said", (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"220 mail.example ESMTP\r\n", b"\x00\xff garbage")
)
def test_what_speaks_is_no_syslog_receiver(sender, listen, authority, said):
    def script(_listener, sock):
        sock.sendall(said)
        read_all(sock)

    for tls in (None, authority.context("localhost")):
        listener = listen(script, tls)
        url = listener.url("syslog+tls" if tls else "syslog", "localhost")
        receipt = one(sender, url, SMALL, ca_pem=authority.pem if tls else "")
        assert_may_have_arrived(receipt, FailureClass.BAD_RESPONSE)
        assert receipt.error == "answer was not understood (a syslog receiver says nothing, this one did)"
        assert receipt.answer_excerpt


def test_no_connection(sender, closed_port):
    receipt = one(sender, f"syslog://127.0.0.1:{closed_port}", SMALL)
    assert_nothing_left(receipt, FailureClass.CONNECT)
    assert receipt.error == "no connection (ECONNREFUSED)"


def test_the_name_has_to_be_on_the_certificate(sender, listen, authority):
    listener = listen(takes_it, authority.context("other.example"))
    receipt = one(sender, listener.url("syslog+tls", "localhost"), SMALL, ca_pem=authority.pem, retries=5)
    assert_nothing_left(receipt, FailureClass.TLS)
    assert receipt.error == "no secure connection (CERTIFICATE_VERIFY_FAILED 62)"
    assert (listener.heard, receipt.tries) == ([], 1)


def test_an_expired_certificate(sender, listen, authority):
    tls = authority.context("localhost", since=-2 * DAY, until=-DAY)
    receipt = one(sender, listen(hold, tls).url("syslog+tls", "localhost"), SMALL, ca_pem=authority.pem)
    assert_nothing_left(receipt, FailureClass.TLS)
    assert receipt.error == "no secure connection (CERTIFICATE_VERIFY_FAILED 10)"


def test_an_authority_nobody_named(sender, listen, authority):
    receipt = one(sender, listen(hold, authority.context("localhost")).url("syslog+tls", "localhost"), SMALL)
    assert_nothing_left(receipt, FailureClass.TLS)


@pytest.mark.parametrize(
    ("script", "timeout_s", "failure_class"),
    (
        (hold, 0.5, FailureClass.CONNECT_TIMEOUT),
        (closes_at_once, 30, FailureClass.CONNECT),
        (lambda _self, sock: (sock.sendall(b"220 mail.example\r\n"), read_all(sock)), 30, FailureClass.TLS),
    ),
    ids=("silent", "closed", "plain"),
)
def test_no_handshake(sender, listen, authority, script, timeout_s, failure_class):
    url = listen(script).url("syslog+tls", "localhost")
    receipt, seconds = timed(lambda: one(sender, url, SMALL, ca_pem=authority.pem, timeout_s=timeout_s))
    assert_nothing_left(receipt, failure_class)
    assert seconds < 15


def test_a_receiver_that_wants_a_certificate_of_ours_has_nothing(sender, listen, authority):
    """In TLS 1.3 it says so after we have written (RFC 8446 §4.4.2)."""
    tls = authority.context("localhost")
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(cadata=authority.pem)
    listener = listen(takes_it, tls)
    orders = [
        order(listener.url("syslog+tls", "localhost"), SMALL, f"t{number}", ca_pem=authority.pem)
        for number in range(10)
    ]
    for receipt in send(sender, *orders):
        assert_may_have_arrived(receipt, FailureClass.CONNECTION_LOST)
    assert listener.heard == []


def says_goodbye_first(_listener, sock):
    sock.unwrap().close()


def takes_it_and_says_goodbye(listener, sock):
    listener.heard.append(read_all(sock))
    sock.unwrap()


@pytest.mark.parametrize(
    ("script", "taken"),
    ((says_goodbye_first, False), (takes_it_and_says_goodbye, True), (takes_it, True)),
)
def test_the_end_of_tls(sender, listen, authority, script, taken):
    listener = listen(script, authority.context("localhost"))
    url = listener.url("syslog+tls", "localhost")
    orders = [order(url, LARGE, f"t{number}", ca_pem=authority.pem) for number in range(5)]
    for receipt in send(sender, *orders):
        assert receipt.delivered is taken
        assert receipt.failure_class == (None if taken else FailureClass.CONNECTION_LOST)
        assert receipt.diagnostics.tls_version == "TLSv1.3"
    assert len(listener.heard) == (5 if taken else 0)


# --- where it may go --------------------------------------------------------------------------------------------


def resolving_to(monkeypatch, *addresses):
    def resolve(_host, port, *_args, **_kwargs):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@pytest.mark.parametrize("scheme", ("syslog", "syslog+tls"))
def test_loopback_is_refused_without_allow_list(sender, listen, scheme):
    listener = listen(hold)
    receipt = one(sender, listener.url(scheme), SMALL, allow_networks=(), retries=5)
    assert_nothing_left(receipt, FailureClass.BLOCKED_ADDRESS)
    assert receipt.error == "address is not allowed (loopback)"
    assert (receipt.tries, listener.connections) == (1, 0)


def test_a_refused_address_does_not_hide_an_allowed_one(sender, listen, monkeypatch):
    listener = listen(takes_it)
    resolving_to(monkeypatch, "10.1.2.3", "169.254.169.254", "127.0.0.1")
    assert_written(one(sender, listener.url("syslog", "siem.example"), SMALL))


def test_every_answer_of_a_name_may_be_refused(sender, monkeypatch):
    resolving_to(monkeypatch, "10.1.2.3", "169.254.169.254")
    receipt = one(sender, "syslog+tls://siem.example", SMALL)
    assert_nothing_left(receipt, FailureClass.BLOCKED_ADDRESS)
    assert receipt.error == "address is not allowed (private network)"


def test_nothing_goes_to_a_public_address_in_the_clear(sender, monkeypatch):
    resolving_to(monkeypatch, "8.8.8.8")
    receipt = one(sender, "syslog://siem.example", SMALL, allow_networks=LOOPBACK)
    assert_nothing_left(receipt, FailureClass.BLOCKED_ADDRESS)
    assert receipt.error == "address is not allowed (public, and nothing would be encrypted)"


def test_a_name_that_does_not_resolve(sender):
    receipt = one(sender, "syslog+tls://siem.invalid", SMALL)
    assert_nothing_left(receipt, FailureClass.DNS)
    assert receipt.error == "host name does not resolve (EAI_NONAME)"


def test_a_name_server_that_does_not_answer(sender, monkeypatch):
    go_on = threading.Event()

    def hanging(*_args, **_kwargs):
        go_on.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "late")

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    try:
        assert_nothing_left(one(sender, "syslog+tls://siem.example", SMALL, timeout_s=0.2), FailureClass.DNS)
    finally:
        go_on.set()


def test_p17_names_that_hang_leave_threads_for_the_names_of_others(receive, monkeypatch):
    from evidence.connectors.sender import Sender

    go_on, asked, real = threading.Event(), [], socket.getaddrinfo

    def hanging(host, *args, **kwargs):
        if host == "siem.example":
            asked.append(host)
            go_on.wait(60)
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    sender, receiver = Sender(slots=4), receive()
    try:
        for _ in range(4):  # one after the other: an order whose time is over holds no slot any more
            receipt = one(sender, "syslog+tls://siem.example", SMALL, timeout_s=0.05)
            assert_nothing_left(receipt, FailureClass.DNS)
        wait_until(lambda: bool(asked))
        assert len(asked) == 1
        (receipt,) = send(sender, spec(receiver.url("localhost"), timeout_s=20))
        assert receipt.delivered
    finally:
        go_on.set()
        sender.stop()


def test_stopping_answers_what_is_open(listen):
    from evidence.connectors.sender import Sender

    listener, sender = listen(keeps_open), Sender()
    receipts = sender.send_all([order(listener.url("syslog"), SMALL, timeout_s=60)], deadline_s=60)
    while not listener.heard:
        time.sleep(0.01)
    sender.stop()
    (receipt,) = receipts
    assert_may_have_arrived(receipt, FailureClass.CONNECTION_LOST)
