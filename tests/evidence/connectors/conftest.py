"""Fixtures of the sending tests: a sender of their own and loopback receivers that end with the test."""

import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from evidence.connectors.sender import Sender
from evidence.connectors.transports import http
from tests import processes
from tests.evidence.connectors.authority import Authority
from tests.evidence.connectors.listener import Listener, Script
from tests.evidence.connectors.receiver import Receiver, answer


@pytest.fixture(autouse=True)
def _connections_are_kept_on_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two orders of a test more than the usual two seconds may pass."""
    monkeypatch.setattr(http, "KEEPALIVE_S", 60.0)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that refuses connections."""
    with processes.closed_port() as port:
        yield port


@pytest.fixture
def receive() -> Iterator[Callable[..., Receiver]]:
    """``receive(script_or_bytes)`` starts a receiver; all of them end with the test."""
    receivers: list[Receiver] = []

    def start(script: Any = None, tls: ssl.SSLContext | None = None) -> Receiver:
        fixed = answer() if script is None else script
        receivers.append(Receiver(fixed if callable(fixed) else lambda _request, _sock: fixed, tls))
        return receivers[-1]

    yield start
    for receiver in receivers:
        receiver.close()


@pytest.fixture
def listen() -> Iterator[Callable[..., Listener]]:
    """``listen(script)`` starts a server that does what the script does; all of them end with the test."""
    listeners: list[Listener] = []

    def start(script: Script, tls: ssl.SSLContext | None = None) -> Listener:
        listeners.append(Listener(script, tls))
        return listeners[-1]

    yield start
    for listener in listeners:
        listener.close()


@pytest.fixture(scope="module")
def authority() -> Authority:
    """Whom connectors of this module trust when they are told so."""
    return Authority()


@pytest.fixture
def sender() -> Iterator[Sender]:
    sender = Sender()
    yield sender
    sender.stop()
    assert not any(thread.is_alive() for thread in threading.enumerate() if thread is sender._thread)
