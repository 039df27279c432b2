"""Failure classes (DESIGN §5): one table of properties, and how statuses and exceptions map to a class."""

import errno
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

import aiohttp

from evidence.connectors.addresses import BlockedAddress
from evidence.enums import FailureClass

# Steps of a recovery playbook that a failure points at.
STEPS = {
    "check_owner": "Check the destination's owner and whether it is under maintenance.",
    "check_name": "Check that the destination's host name resolves from this network.",
    "check_network": "Check the network path: firewall, port, proxy and routing.",
    "check_allow_list": "Check the connector's address against its allowed networks.",
    "check_certificate": "Check the destination's certificate: name, issuer and expiry.",
    "check_configuration": "Check the connector's configuration with an administrator.",
    "set_credential": "Set the secret that the connector's reference names, in the private secret store.",
    "rotate_credential": "Reissue the credential in the private secret store.",
    "check_endpoint": "Check that the destination's endpoint still exists at the configured address.",
    "check_content": "Compare the refused content with what the destination accepts.",
    "check_receiver": "Check the destination's own health and capacity.",
    "check_arrival": "Look for the content at the destination before asking for another try.",
    "wait": "Wait as long as the destination asked for.",
    "enable": "Have an administrator enable the connector again.",
}


@dataclass(frozen=True, slots=True)
class Properties:
    """What is known about a failure class.

    ``retryable``: it may pass by itself, without anybody changing anything. ``receiver_may_have_it``: once
    bytes left, the receiver may hold the content in spite of this failure. ``counts_for_breaker``: the next
    send would meet the same, whatever it holds, so that too many of them in a row hold the connector back.
    ``steps``: keys of ``STEPS``.
    """

    retryable: bool
    receiver_may_have_it: bool
    counts_for_breaker: bool
    steps: tuple[str, ...]
    label: str


F = FailureClass
PROPERTIES: dict[FailureClass, Properties] = {
    failure: Properties(retryable, may_have_it, counts, steps, label)
    for failure, retryable, may_have_it, counts, steps, label in (
        (F.DNS, True, False, True, ("check_owner", "check_name"), "host name does not resolve"),
        (F.CONNECT, True, False, True, ("check_owner", "check_network"), "no connection"),
        (F.CONNECT_TIMEOUT, True, False, True, ("check_owner", "check_network"), "no connection in time"),
        (F.TLS, False, False, True, ("check_certificate",), "no secure connection"),
        # Refused by us: no receiver was asked.
        (F.BLOCKED_ADDRESS, False, False, False, ("check_allow_list",), "address is not allowed"),
        (F.AUTH_SETUP, False, False, False, ("set_credential",), "credential is not set up"),
        # Counts: a refused credential tried on and on locks the account at many a receiver.
        (F.AUTH, False, False, True, ("rotate_credential",), "credential was refused"),
        (F.GONE, False, False, True, ("check_owner", "check_endpoint"), "endpoint does not exist"),
        (F.THROTTLED, True, False, True, ("wait", "check_receiver"), "receiver asks to slow down"),
        # Does not count: the receiver answers, and the next content may please it.
        (
            F.REJECTED,
            False,
            False,
            False,
            ("check_content", "check_configuration"),
            "receiver refused the content",
        ),
        (
            F.UNAVAILABLE,
            True,
            True,
            True,
            ("check_owner", "check_receiver", "check_arrival"),
            "receiver is unavailable",
        ),
        (
            F.RESPONSE_TIMEOUT,
            True,
            True,
            True,
            ("check_arrival", "check_receiver"),
            "no complete answer in time",
        ),
        (F.CONNECTION_LOST, True, True, True, ("check_arrival", "check_network"), "connection ended early"),
        # Counts: a page of somebody else's answers whatever is sent, and each try may have arrived.
        (
            F.BAD_RESPONSE,
            False,
            True,
            True,
            ("check_arrival", "check_endpoint"),
            "answer was not understood",
        ),
        (F.MISCONFIGURED, False, False, False, ("check_configuration",), "connector is misconfigured"),
        (F.DISABLED, False, False, False, ("enable",), "connector is disabled"),
        (
            F.BREAKER_OPEN,
            True,
            False,
            False,
            ("check_owner", "check_receiver"),
            "held back after repeated failures",
        ),
    )
}

# Statuses with a meaning of their own; the rest goes by the hundred.
_STATUSES = {401: F.AUTH, 403: F.AUTH, 404: F.GONE, 410: F.GONE, 429: F.THROTTLED}
_HUNDREDS = {2: None, 4: F.REJECTED, 5: F.UNAVAILABLE}

# The first match counts. A certificate error is a ValueError too, and a timeout an OSError: order matters.
_BEFORE_BYTES: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], FailureClass], ...] = (
    (BlockedAddress, F.BLOCKED_ADDRESS),
    ((aiohttp.ClientConnectorDNSError, socket.gaierror), F.DNS),
    (ssl.SSLError, F.TLS),
    (TimeoutError, F.CONNECT_TIMEOUT),
    (ValueError, F.MISCONFIGURED),
    ((aiohttp.ClientError, OSError), F.CONNECT),
)
_AFTER_BYTES: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], FailureClass], ...] = (
    (TimeoutError, F.RESPONSE_TIMEOUT),
    (aiohttp.ClientResponseError, F.BAD_RESPONSE),
)
# Of an order that goes through a proxy these are about the proxy.
_AT_THE_PROXY = (aiohttp.ClientConnectorDNSError, aiohttp.ClientProxyConnectionError)
_GAI_NAMES = {value: name for name, value in vars(socket).items() if name.startswith("EAI_")}


class Refused(Exception):
    """A try that a product or transport ends itself, with the class it knows; the text is shown, so no secrets."""

    def __init__(self, failure_class: FailureClass, why: str) -> None:
        super().__init__(why)
        self.failure_class = failure_class


def classify_status(status: int) -> FailureClass | None:
    """Class of an HTTP status (RFC 9110 §15); None for 2xx. A redirect is no answer: it is not followed."""
    if status in _STATUSES:
        return _STATUSES[status]
    return _HUNDREDS.get(status // 100, F.BAD_RESPONSE)


def classify_exception(exc: BaseException, *, bytes_left: bool) -> FailureClass:
    """Class of what ended a try. ``bytes_left``: some of the request was handed to a connection.

    Once bytes left the class is one that says the receiver may have it, whatever the exception: a reset or a
    TLS alert does not show that nothing was read.
    """
    if bytes_left:
        return next((found for types, found in _AFTER_BYTES if isinstance(exc, types)), F.CONNECTION_LOST)
    links = tuple(_chain(exc))
    for types, found in _BEFORE_BYTES:
        if any(isinstance(link, types) for link in links):
            return found
    return F.MISCONFIGURED


def describe(
    failure: FailureClass,
    exc: BaseException | None = None,
    *,
    status: int | None = None,
    protocol: str = "HTTP",
    proxied: bool = False,
    authorizing: bool = False,
) -> str:
    """The failure in a few words: fixed ones, a constant's name, the protocol's status. No address, host or header.

    ``proxied``: the order went through a proxy, so that a name that did not resolve was the proxy's. ``authorizing``:
    it came as far as asking for an access token, so that it is about who gives one.
    """
    notes = [f"{protocol} {status}"] if status is not None else []
    if exc is not None:
        links = tuple(_chain(exc))
        if authorizing and not isinstance(exc, Refused):
            notes.append("token endpoint")
        if proxied and any(isinstance(link, _AT_THE_PROXY) for link in links):
            notes.append("proxy")
        notes += [note for link in links if (note := _constant(link))][:1]
    label = PROPERTIES[failure].label
    return f"{label} ({', '.join(notes)})" if notes else label


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """An exception and what it wraps, outermost first."""
    link: BaseException | None = exc
    for _ in range(8):
        if link is None:
            return
        yield link
        link = getattr(link, "os_error", None) or link.__cause__


def _constant(exc: BaseException) -> str:
    """Name of the constant that says why, when the exception has one."""
    if isinstance(exc, BlockedAddress):
        return exc.reason
    if isinstance(exc, Refused):
        return str(exc)
    if isinstance(exc, aiohttp.ClientHttpProxyError):
        return f"the proxy answered {exc.status}"
    if isinstance(exc, ssl.SSLError):
        # The message may name the host; the number says expired (10), self-signed (18), wrong name (62)…
        code = getattr(exc, "verify_code", None)
        return f"{getattr(exc, 'reason', None) or ''}{f' {code}' if code else ''}"
    if isinstance(exc, socket.gaierror):
        return _GAI_NAMES.get(exc.errno or 0, "")
    if isinstance(exc, OSError) and not isinstance(exc, aiohttp.ClientConnectorError):
        return errno.errorcode.get(exc.errno or 0, "")
    return ""
