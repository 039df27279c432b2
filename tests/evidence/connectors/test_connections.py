"""Connections: whom they trust, how long they live, and what is noted about them (P17, P19)."""

import gc
import hashlib
import queue
import ssl
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from evidence.connectors.sender import Sender
from evidence.connectors.specs import Receipt, SendSpec
from evidence.connectors.transports import http
from evidence.connectors.transports.dialling import tls_context
from evidence.enums import Answer, FailureClass, Transport
from tests.evidence.connectors.authority import Authority
from tests.evidence.connectors.receiver import Receiver, answer, send, spec

Receive = Callable[..., Receiver]


def one(sender: Sender, order: SendSpec) -> Receipt:
    (receipt,) = send(sender, order)
    return receipt


def sessions(sender: Sender) -> dict[Any, Any]:
    return sender._transports[Transport.HTTP]._sessions  # type: ignore[attr-defined]


# --- whom they trust ------------------------------------------------------------------------------------------------


def test_a_private_authority_is_trusted_by_who_names_it(
    sender: Sender, receive: Receive, authority: Authority
) -> None:
    receiver = receive(tls=authority.context())
    url = receiver.url("localhost", scheme="https")
    assert one(sender, spec(url, ca_pem=authority.pem)).delivered
    # Another connector trusts the public ones, and the same one does as soon as it names nobody any more.
    for changes in ({"connector": "other"}, {}):
        receipt = one(sender, spec(url, **changes))
        assert (receipt.answer, receipt.failure_class) == (Answer.NOT_SENT, FailureClass.TLS)
    assert len(receiver.requests) == 1


def test_several_authorities_may_be_named(sender: Sender, receive: Receive, authority: Authority) -> None:
    second = Authority("another authority")
    for signer in (authority, second):
        url = receive(tls=signer.context()).url("localhost", scheme="https")
        assert one(sender, spec(url, ca_pem=authority.pem + second.pem)).delivered


def test_private_authorities_count_instead_of_the_public_ones(authority: Authority) -> None:
    assert len(tls_context("").get_ca_certs()) > 1 or not ssl.create_default_context().get_ca_certs()
    (only,) = tls_context(authority.pem).get_ca_certs()
    assert only["subject"] == ((("commonName", "test authority"),),)


@pytest.mark.parametrize("ca", ("", "private"))
def test_nothing_older_than_tls_12_and_nothing_unverified(authority: Authority, ca: str) -> None:
    context = tls_context(authority.pem if ca else "")
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_one_context_for_all_who_trust_the_same(authority: Authority) -> None:
    assert tls_context(authority.pem) is tls_context(authority.pem)
    assert tls_context(authority.pem) is not tls_context("")


def test_an_address_needs_a_certificate_for_it(
    sender: Sender, receive: Receive, authority: Authority
) -> None:
    named, numbered = receive(tls=authority.context()), receive(tls=authority.context("127.0.0.1"))
    order = spec(numbered.url(scheme="https"), ca_pem=authority.pem)
    assert one(sender, order).delivered
    receipt = one(sender, replace(order, url=named.url(scheme="https"), token="t2"))
    assert receipt.failure_class == FailureClass.TLS


@pytest.mark.parametrize(
    "ca_pem",
    ("nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "é", "\x00"),
)
def test_w27_authorities_that_cannot_be_read_are_that_connectors_trouble_alone(
    sender: Sender, receive: Receive, ca_pem: str
) -> None:
    receiver = receive()
    broken = spec(receiver.url(), "broken", connector="broken", ca_pem=ca_pem)
    receipts = send(sender, broken, spec(receiver.url()))
    assert [receipt.delivered for receipt in receipts] == [False, True]
    assert (receipts[0].answer, receipts[0].failure_class) == (Answer.NOT_SENT, FailureClass.MISCONFIGURED)
    assert "authorities cannot be read" in receipts[0].error


# --- what is noted --------------------------------------------------------------------------------------------------


def test_diagnostics_of_a_tls_connection_and_of_the_same_one_later(
    sender: Sender, receive: Receive, authority: Authority
) -> None:
    receiver = receive(tls=authority.context())
    order = spec(receiver.url("localhost", scheme="https"), ca_pem=authority.pem)
    first, second = (one(sender, replace(order, token=f"t{n}")).diagnostics for n in range(2))
    shown = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", receiver.port)))
    for found in (first, second):
        assert (found.host, found.address, found.port) == ("localhost", "127.0.0.1", receiver.port)
        assert found.certificate_sha256 == hashlib.sha256(shown).hexdigest()
        assert (found.tls_version, found.through_proxy) == ("TLSv1.3", False)
        assert found.first_byte_ms is not None
    parts = ("resolve_ms", "connect_ms", "tls_ms")
    assert all(getattr(first, part) is not None for part in parts)
    # Kept: nothing was resolved, dialled or shaken.
    assert [getattr(second, part) for part in parts] == [None, None, None]


def test_diagnostics_of_what_failed(sender: Sender, receive: Receive, authority: Authority) -> None:
    receiver = receive(tls=authority.context("other.example"))
    found = one(sender, spec(receiver.url("localhost", scheme="https"), ca_pem=authority.pem)).diagnostics
    assert (found.address, found.port, found.tls_version) == ("127.0.0.1", receiver.port, "")
    assert found.connect_ms is not None
    assert (found.tls_ms, found.first_byte_ms) == (None, None)
    assert one(sender, spec("http://nothing and nobody/")).diagnostics is None


def test_diagnostics_are_in_no_repr(sender: Sender, receive: Receive) -> None:
    receipt = one(sender, spec(receive().url()))
    assert "127.0.0.1" not in repr(receipt) + repr(receipt.diagnostics)


def test_durations_are_of_the_parts(sender: Sender, receive: Receive) -> None:
    def script(_request: Any, _sock: Any) -> bytes:
        time.sleep(0.5)
        return answer()

    found = one(sender, spec(receive(script).url())).diagnostics
    assert 490 <= found.first_byte_ms <= found.total_ms < 30_000
    # The receiver's time is no part of the connection's.
    assert found.connect_ms + found.first_byte_ms <= found.total_ms + 2


# --- how long they live ---------------------------------------------------------------------------------------------


def test_connections_of_an_old_configuration_are_closed(sender: Sender, receive: Receive) -> None:
    receiver = receive()
    for number, networks in enumerate((("127.0.0.0/8",), ("127.0.0.0/9",), ("127.0.0.0/10",))):
        assert one(sender, spec(receiver.url(), f"t{number}", allow_networks=networks)).delivered
    assert [key[1] for key in sessions(sender)] == [("127.0.0.0/10",)]
    assert receiver.connections == 3


def test_what_still_sends_under_an_old_configuration_finishes(sender: Sender, receive: Receive) -> None:
    slow, quick = receive(lambda _request, _sock: time.sleep(0.3) or answer()), receive()
    old = spec(slow.url(), "old", allow_networks=("127.0.0.0/8",))
    new = spec(quick.url(), "new", allow_networks=("127.0.0.0/9",))
    assert [receipt.delivered for receipt in send(sender, old, new)] == [True, True]
    assert one(sender, replace(new, token="later")).delivered
    assert [key[1] for key in sessions(sender)] == [("127.0.0.0/9",)]


def test_the_number_of_idle_configurations_is_bounded(
    sender: Sender, receive: Receive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "MAX_SESSIONS", 3)
    receiver = receive()
    for number in range(8):
        assert one(sender, spec(receiver.url(), f"t{number}", connector=f"c{number}")).delivered
    assert [key[0] for key in sessions(sender)] == ["c5", "c6", "c7"]


def test_a_kept_connection_ends_with_its_time(
    sender: Sender, receive: Receive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "KEEPALIVE_S", 0.05)
    receiver = receive()
    for number in range(2):
        assert one(sender, spec(receiver.url(), f"t{number}")).delivered
        time.sleep(0.2)
    assert receiver.connections == 2


@pytest.mark.parametrize("stops", (True, False), ids=("the sender stops", "the time is over"))
def test_a_connection_under_way_ends_with_its_order(
    receive: Receive, authority: Authority, stops: bool
) -> None:
    """Over TLS, too: nothing waits for the goodbye of a receiver that says nothing."""
    holder: list[Receiver] = []
    holder.append(receive(lambda _request, _sock: holder[0].released.wait(60) and None, authority.context()))
    url = holder[0].url("localhost", scheme="https")
    sender, outcomes = Sender(), queue.SimpleQueue[Receipt]()
    gc.collect()
    with warnings.catch_warnings(record=True) as left:
        warnings.simplefilter("always", ResourceWarning)
        sender.submit(spec(url, ca_pem=authority.pem, timeout_s=60 if stops else 3), outcomes)
        holder[0].wait_for(1)
        if not stops:
            assert outcomes.get(timeout=60).failure_class == FailureClass.RESPONSE_TIMEOUT
        sender.stop()
        del sender
        gc.collect()
    assert [str(one.message) for one in left] == []
