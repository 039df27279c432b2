"""Mail: the message, what a real server makes of it, and servers that are up to no good."""

import base64
import email
import email.policy
import hashlib
import logging
import queue
import re
import time
from datetime import UTC, datetime

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from evidence.connectors.credentials import Misconfigured
from evidence.connectors.prepare import prepare
from evidence.connectors.products import mail
from evidence.connectors.specs import ConnectorSettings
from evidence.connectors.transports import smtp
from evidence.enums import Answer, Assurance, FailureClass, Product
from tests.evidence.connectors.authority import DAY
from tests.evidence.connectors.listener import hold, reset
from tests.evidence.connectors.mailbox import PASSWORD, USER, Mailbox
from tests.evidence.connectors.receiver import send, spec, timed
from tests.processes import wait_until

AT = "2026-11-28T19:16:34.123456Z"
EVENT = {
    "event_type": "cavra.go_backend.rollback_drill.acknowledgement_audit_delivery",
    "session_id": "gordackdelivery-1",
    "title": "Rollback drill acknowledgements: 1 of 2 outstanding",
    "alert_level": "critical",
    "audit_package_summary": {"audit_id": "gordackaudit-1", "audit_hash": "ab" * 32, "route_count": 2},
    "delivery_plan": {"generated_at": AT},
    "routes": [{"owner": "Zoë, 東京", "note": "= . \u0000 \r\n.\r\nFrom me"}],
    "stream": {"case": "gordackdelivery-1.desk", "seq": 7},
}
SENDER = "cavra@console.example"
OPTIONS = (("recipients", "soc@desk.example, lead@desk.example"), ("sender", SENDER))
MESSAGE_ID = "gordackdelivery-1.desk"


def configured(url="smtp://mail.example", options=OPTIONS, **changes):
    return ConnectorSettings(key="desk", product=Product.EMAIL, url=url, options=options, **changes)


def prepared(event=EVENT, message_id=MESSAGE_ID, **changes):
    return prepare(configured(**changes), event, idempotency_key="", message_id=message_id)


def read(body):
    """What any mail program reads."""
    assert body.isascii()
    assert b"\r" not in body.replace(b"\r\n", b"")
    assert b"\n" not in body.replace(b"\r\n", b"")
    assert all(len(line) <= 78 for line in body.split(b"\r\n"))
    message = email.message_from_bytes(body, policy=email.policy.default)
    assert not message.defects
    text, attached = message.iter_parts()
    assert not (*text.defects, *attached.defects)
    return message, text.get_content(), attached


# --- the message ------------------------------------------------------------------------------------------------


def test_the_event_is_attached_byte_for_byte_and_told_in_words():
    result = prepared()
    message, text, attached = read(result.body)
    assert (result.content_type, result.public_headers, result.secret_headers) == ("message/rfc822", (), ())
    assert attached.get_payload(decode=True) == rfc8785.dumps(EVENT)
    assert (attached.get_content_type(), attached.get_filename()) == ("application/json", "event.json")
    assert message["From"] == SENDER
    assert [one.addr_spec for one in message["To"].addresses] == ["soc@desk.example", "lead@desk.example"]
    assert message["Subject"] == EVENT["title"]
    assert message["Date"].datetime == datetime(2026, 11, 28, 19, 16, 34, tzinfo=UTC)
    digest = hashlib.sha256(MESSAGE_ID.encode()).hexdigest()[:40]
    assert message["Message-ID"] == f"<{digest}@console.example>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert {name: message[f"Cavra-{name}"] for name in ("Message", "Delivery", "Case", "Seq", "Sha256")} == {
        "Message": MESSAGE_ID,
        "Delivery": "gordackdelivery-1",
        "Case": MESSAGE_ID,
        "Seq": "7",
        "Sha256": hashlib.sha256(rfc8785.dumps(EVENT)).hexdigest(),
    }
    for said in (
        "Alert level: critical",
        "Audit package: gordackaudit-1",
        "Routes: 2",
        message["Cavra-Sha256"],
    ):
        assert said in text


def test_a_try_later_sends_the_same_bytes():
    first = prepared().body
    time.sleep(1.1)
    assert prepared(dict(reversed(EVENT.items()))).body == first
    assert prepared(message_id="another").body != first


def test_what_has_no_time_is_given_none():
    message, text, _ = read(prepared({"text": "Two retries wait", "link": "https://console.example/x"}).body)
    assert message["Date"] is None
    assert message["Subject"] == "Two retries wait"
    assert "Link: https://console.example/x" in text


HEADERS = {"From", "To", "Subject", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type"}
HEADERS |= {"Cavra-Message", "Cavra-Delivery", "Cavra-Sha256"}


@settings(max_examples=200, deadline=None)
@given(title=st.text(), message_id=st.text(min_size=1), delivery=st.text(min_size=1), level=st.text())
def test_no_text_gets_out_of_its_header(title, message_id, delivery, level):
    event = {"title": title, "session_id": delivery, "alert_level": level}
    try:
        rfc8785.dumps(event)
        message_id.encode()
    except (rfc8785.CanonicalizationError, UnicodeEncodeError):
        return
    message, _, attached = read(prepared(event, message_id).body)
    assert set(message.keys()) <= HEADERS
    assert attached.get_payload(decode=True) == rfc8785.dumps(event)


@pytest.mark.parametrize(
    "title",
    (
        "a\r\nBcc: everybody@example.com",
        "a\nb\x0bc\x85d\u2028e",
        "x" * 300,
        "ü" * 300,
        "=?utf-8?q?trick?=",
        " ",
        "word " * 40,
    ),
)
def test_titles_that_try(title):
    message, _, _ = read(prepared({**EVENT, "title": title}).body)
    assert "Bcc" not in message
    expected = " ".join("".join(c if c.isprintable() else " " for c in title).split())[:120]
    assert message["Subject"].replace(" ", "") == (expected or "").replace(" ", "")


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    (
        (
            "sender",
            ("a@b", "a.b+c@desk.example"),
            ("", "a", "a@", "@b", "a@b>", "a b@c", "a@b\r\nx", "é@b", "<a@b>"),
        ),
        (
            "recipients",
            ("a@b", "a@b,c@d", "a@b, c@d", ",".join(["a@b"] * 20)),
            ("", "a@b,", ",a@b", "a@b;c@d", "a@b,,c@d", "a@b\nc@d", ",".join(["a@b"] * 21)),
        ),
    ),
)
def test_options_have_a_form(name, good, bad):
    pattern = mail.OPTIONS[name].pattern
    assert all(re.fullmatch(pattern, value) for value in good)
    assert not any(re.fullmatch(pattern, value) for value in bad)


@pytest.mark.parametrize(
    ("changes", "said"),
    (
        ({"options": (("recipients", "a@b"),)}, "options sender is needed: address that mail comes from"),
        (
            {"options": (*OPTIONS, ("username", "u"))},
            "token_ref must name the password of username, where there is one",
        ),
        ({"token_ref": "env:T"}, "options must hold the username that the password of token_ref belongs to"),
        ({"headers": (("a", "b"),)}, "headers is of HTTP, which email does not speak"),
        ({"authorization_ref": "env:T"}, "authorization_ref is nothing that this product has a use for"),
        ({"url": "http://mail.example"}, "url must begin with smtps:// or smtp://"),
        ({"url": "smtp://user:pass@mail.example"}, "url must not contain user information"),
        ({"url": "smtp://mail.example/x"}, "url must have nothing behind host and port"),
    ),
)
def test_what_mail_has_no_place_for_is_refused(changes, said):
    with pytest.raises(Misconfigured) as refused:
        prepared(**changes)
    assert str(refused.value) == said


def test_a_message_of_more_than_a_megabyte_is_refused_here():
    with pytest.raises(Misconfigured) as refused:
        prepared({"note": "x" * 2**20})
    assert refused.value.failure_class is FailureClass.REJECTED


# --- a real server ----------------------------------------------------------------------------------------------


@pytest.fixture
def mailbox(authority):
    """``mailbox(**settings)`` starts a mail server; all of them end with the test."""
    running = []

    def start(**changes):
        running.append(Mailbox(authority.context("localhost", "127.0.0.1"), **changes))
        return running[-1]

    yield start
    for one in running:
        one.stop()


BODY = prepared().body


def order(url, authority, token="t1", options=OPTIONS, **changes):
    values = {"body": BODY, "ca_pem": authority.pem, "headers": (), "product": Product.EMAIL}
    return spec(url, token, options=options, **(values | changes))


def one(sender, *args, **changes):
    (receipt,) = send(sender, order(*args, **changes))
    return receipt


def assert_nothing_left(receipt, failure_class, status=None):
    assert (receipt.answer, receipt.failure_class, receipt.status_code) == (
        Answer.NOT_SENT,
        failure_class,
        status,
    )
    assert (receipt.may_have_arrived, receipt.bytes_sent, receipt.delivered) == (False, 0, False)


SIGNED_IN = {"options": (*OPTIONS, ("username", USER)), "secrets": (("token", PASSWORD),)}


@pytest.mark.parametrize("implicit", (False, True), ids=("STARTTLS", "TLS"))
@pytest.mark.parametrize("with_password", (False, True), ids=("open", "password"))
def test_accepted(sender, mailbox, authority, implicit, with_password):
    server = mailbox(implicit=implicit, with_password=with_password)
    receipt = one(sender, server.url(), authority, **(SIGNED_IN if with_password else {}))
    assert receipt.delivered, receipt
    assert (receipt.answer, receipt.assurance, receipt.status_code) == (
        Answer.ANSWERED,
        Assurance.ACCEPTED,
        250,
    )
    assert receipt.answer_excerpt == "2.0.0 queued as 4711"
    (told,) = server.messages
    assert told.content == BODY
    assert (told.sender, told.recipients) == (SENDER, ["soc@desk.example", "lead@desk.example"])
    assert told.encrypted
    assert told.user == (USER if with_password else "")
    stuffed = BODY.replace(b"\r\n.", b"\r\n..") + b".\r\n"
    assert receipt.bytes_sent == len(stuffed)
    assert receipt.diagnostics.certificate_sha256
    assert receipt.diagnostics.tls_version.startswith("TLSv1.")


def test_dots_at_a_lines_start_arrive(sender, mailbox, authority):
    server = mailbox()
    body = b"Subject: dots\r\n\r\n.\r\n..\r\n.a\r\nb.\r\n"
    assert one(sender, server.url(), authority, body=body).delivered
    assert server.messages[0].content == body


def test_twenty_messages_arrive_once_each(sender, mailbox, authority):
    server = mailbox()
    bodies = [prepared({**EVENT, "number": number}).body for number in range(20)]
    orders = [order(server.url(), authority, f"t{n}", body=body) for n, body in enumerate(bodies)]
    assert all(receipt.delivered for receipt in send(sender, *orders))
    assert sorted(told.content for told in server.messages) == sorted(bodies)


@pytest.mark.parametrize(
    ("reply", "failure_class"),
    (
        ("550 5.1.1 no such user", FailureClass.REJECTED),
        ("450 4.2.1 mailbox busy", FailureClass.THROTTLED),
        ("451 4.3.0 later", FailureClass.UNAVAILABLE),
        ("452 4.5.3 too many", FailureClass.THROTTLED),
        ("530 5.7.0 sign in first", FailureClass.AUTH),
    ),
)
def test_one_refused_recipient_keeps_the_message_back(sender, mailbox, authority, reply, failure_class):
    server = mailbox(refused={"lead@desk.example": reply})
    receipt = one(sender, server.url(), authority, retries=5)
    assert_nothing_left(receipt, failure_class, int(reply[:3]))
    assert f"(SMTP {reply[:3]}, a recipient was refused)" in receipt.error
    assert receipt.answer_excerpt == reply[4:]
    assert server.messages == []


@pytest.mark.parametrize(
    ("reply", "failure_class", "may_have_arrived"),
    (
        ("554 5.7.1 looks like spam", FailureClass.REJECTED, False),
        ("552 5.3.4 too big", FailureClass.REJECTED, False),
        ("451 4.3.0 local error", FailureClass.UNAVAILABLE, True),
        ("421 4.3.2 shutting down", FailureClass.UNAVAILABLE, True),
        ("452 4.3.1 disk full", FailureClass.THROTTLED, False),
    ),
)
def test_refused_content(sender, mailbox, authority, reply, failure_class, may_have_arrived):
    receipt = one(sender, mailbox(answer=reply).url(), authority)
    assert (receipt.answer, receipt.failure_class) == (Answer.ANSWERED, failure_class)
    assert (receipt.status_code, receipt.answer_excerpt) == (int(reply[:3]), reply[4:])
    assert receipt.may_have_arrived is may_have_arrived
    assert not receipt.delivered


def test_a_message_larger_than_the_server_takes_does_not_leave(sender, mailbox, authority):
    server = mailbox(size=len(BODY) - 1)
    receipt = one(sender, server.url(), authority)
    assert_nothing_left(receipt, FailureClass.REJECTED)
    assert f"the server takes {len(BODY) - 1} bytes, the message has {len(BODY)}" in receipt.error
    assert one(sender, mailbox(size=len(BODY)).url(), authority).delivered


@pytest.mark.parametrize("password", ("wrong", ""))
def test_a_wrong_password_is_tried_once(sender, mailbox, authority, password, caplog):
    caplog.set_level(logging.DEBUG, "mail.log")
    server = mailbox(with_password=True)
    receipt = one(
        sender, server.url(), authority, options=SIGNED_IN["options"], secrets=(("token", password),)
    )
    assert_nothing_left(receipt, FailureClass.AUTH, 535)
    assert receipt.error == "credential was refused (SMTP 535, the credential was refused)"
    assert caplog.text.count(">> b'AUTH") == 1
    assert server.messages == []


def test_a_session_that_ends_at_signing_in_is_not_begun_again(sender, listen, authority, tls):
    """It may be how a wrong password is refused."""
    listener, receipt = scripted(
        sender, listen, authority, dialogue((b"AUTH", None), tls=tls), retries=5, **SIGNED_IN
    )
    assert_nothing_left(receipt, FailureClass.CONNECT)
    assert (receipt.tries, listener.connections) == (1, 1)


def test_a_password_is_asked_for(sender, mailbox, authority):
    receipt = one(sender, mailbox(with_password=True).url(), authority)
    assert_nothing_left(receipt, FailureClass.AUTH, 530)


# --- servers that are up to no good -----------------------------------------------------------------------------


def dialogue(*turns, tls=None, greeting=b"220 mail.example ESMTP\r\n"):
    """A server that answers each command by its first word; a function acts instead, None closes."""
    answers = dict(turns)

    def script(listener, sock):
        with sock, sock.makefile("rb") as lines:
            sock.sendall(greeting)
            while line := lines.readline():
                listener.heard.append(line)
                word = line.split()[0].upper() if line.split() else b""
                if word == b"STARTTLS" and tls is not None:
                    sock.sendall(b"220 go ahead\r\n")
                    return dialogue(*turns, greeting=b"")(listener, listener.secured(sock, tls))
                reply = answers.get(word, STANDARD.get(word, b"250 OK\r\n"))
                if isinstance(reply, bytes) and reply.startswith(b"354"):
                    sock.sendall(reply)
                    while (line := lines.readline()) not in (b".\r\n", b""):
                        listener.heard.append(line)
                    reply = answers.get(b".", b"250 OK\r\n")
                if not isinstance(reply, bytes):
                    return reply and reply(listener, sock)
                sock.sendall(reply)
            return None

    return script


STANDARD = {
    b"EHLO": b"250-mail.example\r\n250-STARTTLS\r\n250-SIZE 1000000\r\n250 AUTH PLAIN LOGIN\r\n",
    b"DATA": b"354 go on\r\n",
    b"AUTH": b"235 OK\r\n",
    b"QUIT": b"221 bye\r\n",
}


@pytest.fixture
def tls(authority):
    return authority.context("localhost")


def scripted(sender, listen, authority, script, **changes):
    listener = listen(script)
    return listener, one(sender, listener.url("smtp", "localhost"), authority, **changes)


def words(listener):
    return [line.split()[0].upper() for line in listener.heard if line.split()]


def test_the_scripted_server_itself_is_one(sender, listen, authority, tls):
    listener, receipt = scripted(sender, listen, authority, dialogue(tls=tls))
    assert receipt.delivered
    assert words(listener)[:3] == [b"EHLO", b"STARTTLS", b"EHLO"]
    assert listener.heard[3].strip() == f"MAIL FROM:<{SENDER}> SIZE={len(BODY)}".encode()


def tarpit(_listener, sock):
    for byte in b"250 OK, after a while\r\n":
        time.sleep(1)
        sock.sendall(bytes([byte]))


def slow_greeting(listener, sock):
    tarpit(listener, sock)


@pytest.mark.parametrize("script", (hold, slow_greeting))
def test_a_server_that_does_not_greet(sender, listen, authority, script):
    (_, receipt), seconds = timed(
        lambda: scripted(sender, listen, authority, script, timeout_s=0.5, retries=5)
    )
    assert_nothing_left(receipt, FailureClass.CONNECT_TIMEOUT)
    assert seconds < 15


@pytest.mark.parametrize("at", (b"EHLO", b"MAIL", b"RCPT", b"DATA"))
@pytest.mark.parametrize("act", (hold, tarpit, None), ids=("silent", "tarpit", "closes"))
def test_a_server_that_stops_before_the_content(sender, listen, authority, tls, at, act):
    timeout_s = 30 if act is None else 1
    (_, receipt), seconds = timed(
        lambda: scripted(sender, listen, authority, dialogue((at, act), tls=tls), timeout_s=timeout_s)
    )
    assert_nothing_left(receipt, FailureClass.CONNECT if act is None else FailureClass.CONNECT_TIMEOUT)
    assert seconds < 15


@pytest.mark.parametrize(
    ("act", "timeout_s", "failure_class"),
    (
        (hold, 3, FailureClass.RESPONSE_TIMEOUT),
        (tarpit, 3, FailureClass.RESPONSE_TIMEOUT),
        (None, 30, FailureClass.CONNECTION_LOST),
        (lambda _listener, sock: reset(sock), 30, FailureClass.CONNECTION_LOST),
    ),
    ids=("silent", "tarpit", "closes", "resets"),
)
def test_no_answer_to_the_final_dot(sender, listen, authority, tls, act, timeout_s, failure_class):
    script = dialogue((b".", act), tls=tls)
    (_, receipt), seconds = timed(
        lambda: scripted(sender, listen, authority, script, timeout_s=timeout_s, retries=5)
    )
    assert (receipt.answer, receipt.failure_class) == (Answer.NO_ANSWER, failure_class)
    assert receipt.may_have_arrived
    assert receipt.bytes_sent > len(BODY)
    assert not receipt.delivered
    assert (receipt.tries, seconds < 15) == (1, True)


def test_a_server_that_goes_away_in_the_middle_of_the_content(sender, listen, authority, tls):
    def go(_listener, sock):
        sock.sendall(b"354 go on\r\n")
        sock.recv(10)

    _, receipt = scripted(sender, listen, authority, dialogue((b"DATA", go), tls=tls), body=BODY * 400)
    assert (receipt.answer, receipt.failure_class) == (Answer.NO_ANSWER, FailureClass.CONNECTION_LOST)
    assert receipt.may_have_arrived


@pytest.mark.parametrize(
    ("greeting", "failure_class", "status"),
    (
        (b"421 too busy\r\n", FailureClass.UNAVAILABLE, 421),
        (b"450 slow down\r\n", FailureClass.THROTTLED, 450),
        (b"554 no mail here\r\n", FailureClass.GONE, 554),
        (b"521 no mail here\r\n", FailureClass.GONE, 521),
        (b"550 not you\r\n", FailureClass.REJECTED, 550),
        (b"HTTP/1.1 400 Bad Request\r\n", FailureClass.BAD_RESPONSE, None),
        (b"SSH-2.0-OpenSSH_9.6\r\n", FailureClass.BAD_RESPONSE, None),
        (b"\x00\xff\xfe garbage\r\n", FailureClass.BAD_RESPONSE, None),
        (b"x" * 100_000, FailureClass.BAD_RESPONSE, None),
    ),
)
def test_greetings(sender, listen, authority, greeting, failure_class, status):
    _, receipt = scripted(sender, listen, authority, dialogue(greeting=greeting), retries=5)
    assert_nothing_left(receipt, failure_class, status)
    assert receipt.tries == 1


@pytest.mark.parametrize("at", (b"EHLO", b"MAIL", b"RCPT", b"DATA", b"."))
def test_garbage_in_between(sender, listen, authority, tls, at):
    _, receipt = scripted(sender, listen, authority, dialogue((at, b"OK\r\n"), tls=tls))
    assert receipt.failure_class is FailureClass.BAD_RESPONSE
    assert receipt.may_have_arrived is (at == b".")
    assert not receipt.delivered


def test_an_intermediate_answer_is_no_success(sender, listen, authority, tls):
    _, receipt = scripted(sender, listen, authority, dialogue((b".", b"354 and?\r\n"), tls=tls))
    assert (receipt.failure_class, receipt.delivered) == (FailureClass.BAD_RESPONSE, False)
    assert receipt.may_have_arrived


def test_without_starttls_nothing_is_said(sender, listen, authority):
    """Somebody in between took the offer away."""
    listener, receipt = scripted(
        sender, listen, authority, dialogue((b"EHLO", b"250-mail.example\r\n250 AUTH PLAIN\r\n")), **SIGNED_IN
    )
    assert_nothing_left(receipt, FailureClass.TLS)
    assert receipt.error == "no secure connection (STARTTLS is not offered)"
    assert words(listener) == [b"EHLO"]


@pytest.mark.parametrize(
    ("reply", "failure_class"),
    (
        (b"454 not now\r\n", FailureClass.UNAVAILABLE),
        (b"502 not here\r\n", FailureClass.TLS),
        (b"250 fine\r\n", FailureClass.TLS),
        (b"what?\r\n", FailureClass.TLS),
    ),
)
def test_refused_starttls(sender, listen, authority, reply, failure_class):
    listener, receipt = scripted(sender, listen, authority, dialogue((b"STARTTLS", reply)), **SIGNED_IN)
    assert_nothing_left(receipt, failure_class)
    assert words(listener) == [b"EHLO", b"STARTTLS"]


def test_what_was_said_before_tls_counts_for_nothing(sender, listen, authority, tls):
    """Plain bytes behind the 220 could be an attacker's (RFC 3207 §6); so could the first list of extensions."""

    def inject(listener, sock):
        sock.sendall(b"220 go ahead\r\n250-evil\r\n250 SIZE 1\r\n250 OK\r\n250 OK\r\n")
        secure = listener.secured(sock, tls)
        dialogue(greeting=b"")(listener, secure)

    _, receipt = scripted(sender, listen, authority, dialogue((b"STARTTLS", inject)))
    assert receipt.delivered or receipt.failure_class is FailureClass.TLS


@pytest.mark.parametrize("implicit", (False, True), ids=("STARTTLS", "TLS"))
@pytest.mark.parametrize(
    ("names", "until", "code"),
    ((("other.example",), DAY, 62), (("localhost",), -DAY, 10)),
    ids=("name", "expired"),
)
def test_certificates_are_verified(sender, listen, authority, implicit, names, until, code):
    context = authority.context(*names, since=-2 * DAY, until=until)
    listener = listen(dialogue(tls=None if implicit else context), context if implicit else None)
    url = listener.url("smtps" if implicit else "smtp", "localhost")
    receipt = one(sender, url, authority, retries=5, **SIGNED_IN)
    assert_nothing_left(receipt, FailureClass.TLS)
    assert receipt.error == f"no secure connection (CERTIFICATE_VERIFY_FAILED {code})"
    assert receipt.tries == 1
    assert not any(b"AUTH" in line for line in listener.heard)


@pytest.mark.parametrize(
    ("script", "timeout_s", "failure_class"),
    ((hold, 0.5, FailureClass.CONNECT_TIMEOUT), (lambda *_: None, 30, FailureClass.CONNECT)),
    ids=("silent", "closes"),
)
def test_no_handshake(sender, listen, authority, script, timeout_s, failure_class):
    url = listen(script).url("smtps", "localhost")
    receipt, seconds = timed(lambda: one(sender, url, authority, timeout_s=timeout_s))
    assert_nothing_left(receipt, failure_class)
    assert seconds < 15


def test_a_handshake_that_does_not_come_to_an_end(sender, listen, authority):
    script = dialogue((b"STARTTLS", lambda self, sock: (sock.sendall(b"220 go\r\n"), hold(self, sock))))
    (_, receipt), seconds = timed(lambda: scripted(sender, listen, authority, script, timeout_s=0.5))
    assert_nothing_left(receipt, FailureClass.CONNECT_TIMEOUT)
    assert seconds < 15


@pytest.mark.parametrize(
    ("offered", "expected"),
    ((b"PLAIN LOGIN CRAM-MD5", [b"AUTH"]), (b"LOGIN", [b"AUTH"]), (b"CRAM-MD5", []), (b"", [])),
)
def test_ways_to_sign_in(sender, listen, authority, tls, offered, expected):
    said = []

    def login(listener, sock):
        sock.sendall(b"334 VXNlcm5hbWU6\r\n")
        lines = sock.makefile("rb")
        said.append(lines.readline().strip())
        sock.sendall(b"334 UGFzc3dvcmQ6\r\n")
        said.append(lines.readline().strip())
        sock.sendall(b"535 no\r\n")

    auth = b"250 AUTH " + offered if offered else b"250 HELP"
    turns = [(b"EHLO", b"250-mail.example\r\n250-STARTTLS\r\n" + auth + b"\r\n")]
    turns.append((b"AUTH", login if offered == b"LOGIN" else b"535 no\r\n"))
    listener, receipt = scripted(sender, listen, authority, dialogue(*turns, tls=tls), **SIGNED_IN)
    assert receipt.failure_class is FailureClass.AUTH
    assert receipt.bytes_sent == 0
    assert [word for word in words(listener) if word == b"AUTH"] == expected
    if offered == b"LOGIN":
        assert [base64.b64decode(one).decode() for one in said] == [USER, PASSWORD]


@pytest.mark.parametrize(
    ("reply", "failure_class"),
    (
        (b"535 no\r\n", FailureClass.AUTH),
        (b"534 too weak\r\n", FailureClass.AUTH),
        (b"504 unknown\r\n", FailureClass.AUTH),
        (b"432 change it\r\n", FailureClass.AUTH),
        (b"454 later\r\n", FailureClass.UNAVAILABLE),
        (b"334 more?\r\n", FailureClass.BAD_RESPONSE),
    ),
)
def test_refused_credentials(sender, listen, authority, tls, reply, failure_class):
    _, receipt = scripted(sender, listen, authority, dialogue((b"AUTH", reply), tls=tls), **SIGNED_IN)
    assert_nothing_left(receipt, failure_class, int(reply[:3]))


def test_passwords_never_surface(sender, listen, authority, tls, caplog):
    """Not even when a server repeats what it was sent, in whatever form."""
    caplog.set_level(logging.DEBUG)
    both = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode())
    repeat = b"535 " + both + b" is " + PASSWORD.encode() + b"\r\n"
    orders, receipts = [], []
    for turn in ((b"AUTH", repeat), (b"MAIL", b"550 after " + PASSWORD.encode() + b"\r\n")):
        listener = listen(dialogue(turn, tls=tls))
        orders.append(order(listener.url("smtp", "localhost"), authority, **SIGNED_IN))
        receipts += send(sender, orders[-1])
    shown = "\n".join([*map(repr, orders), *map(repr, receipts), caplog.text])
    assert PASSWORD not in shown
    assert both.decode() not in shown
    assert receipts[1].answer_excerpt == "after [redacted]"


# --- where it may go --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ("smtp", "smtps"))
def test_loopback_is_refused_without_allow_list(sender, listen, authority, scheme):
    listener = listen(hold)
    receipt = one(sender, listener.url(scheme), authority, allow_networks=(), retries=5)
    assert_nothing_left(receipt, FailureClass.BLOCKED_ADDRESS)
    assert receipt.error == "address is not allowed (loopback)"
    assert (receipt.tries, listener.connections) == (1, 0)


def test_no_connection(sender, authority, closed_port):
    receipt = one(sender, f"smtp://127.0.0.1:{closed_port}", authority, retries=1)
    assert_nothing_left(receipt, FailureClass.CONNECT)
    assert (receipt.error, receipt.tries) == ("no connection (ECONNREFUSED)", 2)


def test_a_name_that_does_not_resolve(sender, authority):
    assert_nothing_left(one(sender, "smtps://mail.invalid", authority), FailureClass.DNS)


def test_a_goodbye_that_is_not_answered_holds_nobody_up(sender, listen, authority, tls, monkeypatch):
    monkeypatch.setattr(smtp, "GOODBYE_S", 60.0)
    (_, receipt), seconds = timed(
        lambda: scripted(sender, listen, authority, dialogue((b"QUIT", hold), tls=tls))
    )
    assert receipt.delivered
    assert seconds < 30


@pytest.mark.parametrize("product", (Product.SYSLOG, Product.EMAIL))
def test_other_connectors_go_on_while_one_is_slow(sender, listen, mailbox, authority, product):
    scheme = "syslog" if product is Product.SYSLOG else "smtp"
    slow, outcomes = listen(hold), queue.SimpleQueue()
    for number in range(8):
        late = order(
            slow.url(scheme), authority, f"slow{number}", connector="slow", product=product, timeout_s=60
        )
        sender.submit(late, outcomes)
    quick = [order(mailbox().url(), authority, f"quick{n}", connector="quick") for n in range(5)]
    assert all(receipt.delivered for receipt in send(sender, *quick))
    wait_until(lambda: slow.connections == 4)
    assert outcomes.empty()
