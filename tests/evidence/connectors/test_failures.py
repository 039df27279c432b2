"""One table says what each failure class means; statuses and exceptions map to it."""

import errno
import socket
import ssl
from types import SimpleNamespace

import aiohttp
import pytest

from evidence.connectors.addresses import BlockedAddress
from evidence.connectors.failures import PROPERTIES, STEPS, classify_exception, classify_status, describe
from evidence.enums import FailureClass

KEY = SimpleNamespace(host="secret-host.example", port=443, ssl=True, is_ssl=True)


def test_every_class_has_properties_and_every_step_a_text():
    assert set(PROPERTIES) == set(FailureClass)
    used = {step for properties in PROPERTIES.values() for step in properties.steps}
    assert used == set(STEPS)
    assert all(properties.steps and properties.label for properties in PROPERTIES.values())


@pytest.mark.parametrize(
    ("status", "expected"),
    (
        (200, None),
        (202, None),
        (204, None),
        (299, None),
        (101, "bad_response"),
        (301, "bad_response"),
        (304, "bad_response"),
        (307, "bad_response"),
        (400, "rejected"),
        (401, "auth"),
        (403, "auth"),
        (404, "gone"),
        (408, "rejected"),
        (410, "gone"),
        (413, "rejected"),
        (422, "rejected"),
        (429, "throttled"),
        (500, "unavailable"),
        (503, "unavailable"),
        (599, "unavailable"),
        (600, "bad_response"),
        (0, "bad_response"),
    ),
)
def test_statuses(status, expected):
    assert classify_status(status) == expected


def wrapped(inner):
    return aiohttp.ClientConnectorError(KEY, inner)


EXCEPTIONS = (
    (wrapped(BlockedAddress("loopback")), "blocked_address", "connection_lost"),
    (aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(socket.EAI_NONAME, "x")), "dns", "connection_lost"),
    (aiohttp.ClientConnectorSSLError(KEY, ssl.SSLError(1, "x")), "tls", "connection_lost"),
    (
        aiohttp.ClientConnectorCertificateError(KEY, ssl.SSLCertVerificationError(1, "secret-host.example")),
        "tls",
        "connection_lost",
    ),
    (TimeoutError(), "connect_timeout", "response_timeout"),
    (wrapped(OSError(errno.ETIMEDOUT, "x")), "connect_timeout", "connection_lost"),
    (wrapped(OSError(errno.ECONNREFUSED, "secret-host.example")), "connect", "connection_lost"),
    (ConnectionResetError(errno.ECONNRESET, "x"), "connect", "connection_lost"),
    (aiohttp.ServerDisconnectedError(), "connect", "connection_lost"),
    (aiohttp.ClientPayloadError("secret-host.example"), "connect", "connection_lost"),
    (aiohttp.ClientResponseError(SimpleNamespace(real_url="x"), (), message="x"), "connect", "bad_response"),
    (aiohttp.InvalidURL("http://secret-host.example"), "misconfigured", "connection_lost"),
    (RuntimeError("secret-host.example"), "misconfigured", "connection_lost"),
)


@pytest.mark.parametrize(("exc", "before", "after"), EXCEPTIONS)
def test_exceptions(exc, before, after):
    assert classify_exception(exc, bytes_left=False) == before
    assert classify_exception(exc, bytes_left=True) == after
    assert PROPERTIES[FailureClass(after)].receiver_may_have_it
    assert not PROPERTIES[FailureClass(before)].receiver_may_have_it
    assert "secret" not in describe(FailureClass(before), exc)


@pytest.mark.parametrize(
    ("exc", "text"),
    (
        (wrapped(OSError(errno.ECONNREFUSED, "x")), "no connection (ECONNREFUSED)"),
        (wrapped(BlockedAddress("loopback")), "no connection (loopback)"),
        (
            aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(socket.EAI_NONAME, "x")),
            "no connection (EAI_NONAME)",
        ),
        (TimeoutError(), "no connection"),
    ),
)
def test_descriptions_name_the_constant_that_says_why(exc, text):
    assert describe(FailureClass.CONNECT, exc) == text


def test_descriptions_name_the_status():
    assert describe(FailureClass.AUTH, status=403) == "credential was refused (HTTP 403)"
