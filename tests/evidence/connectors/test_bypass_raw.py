"""The bypass list (P19) for protocols beside HTTP: every refused form as an address of syslog and of mail."""

from collections.abc import Callable
from typing import Any

import pytest

from evidence.connectors.sender import Sender
from evidence.enums import Answer, FailureClass, Product
from tests.evidence.connectors.listener import Listener, hold
from tests.evidence.connectors.receiver import LOOPBACK, send, spec
from tests.evidence.connectors.test_bypass import LITERALS, LOOPBACK_NAMES, MALFORMED_HOSTS, NAMES, resolves

__all__ = ["resolves"]  # a fixture

PRODUCTS = {
    "syslog": Product.SYSLOG,
    "syslog+tls": Product.SYSLOG,
    "smtp": Product.EMAIL,
    "smtps": Product.EMAIL,
}
OPTIONS = (("recipients", "a@b.example"), ("sender", "c@d.example"))


@pytest.mark.parametrize("scheme", PRODUCTS)
@pytest.mark.parametrize(
    ("hosts", "failure_class"),
    (
        (LITERALS, FailureClass.BLOCKED_ADDRESS),
        (MALFORMED_HOSTS, FailureClass.MISCONFIGURED),
        ((*LOOPBACK_NAMES, *NAMES), FailureClass.BLOCKED_ADDRESS),
    ),
    ids=("literals", "malformed", "names"),
)
def test_p19_no_form_of_a_refused_address_is_dialled(
    sender: Sender,
    listen: Callable[..., Listener],
    resolves: Callable[[str, tuple[str, ...]], None],
    scheme: str,
    hosts: tuple[str, ...],
    failure_class: FailureClass,
) -> None:
    listener = listen(hold)
    for name in (*LOOPBACK_NAMES, *NAMES):
        resolves(name.lower(), NAMES.get(name, ("127.0.0.1", "::1")))
    orders = [
        order(f"{scheme}://{host}:{listener.port}", scheme, token=str(number))
        for number, host in enumerate(hosts)
    ]
    for host, receipt in zip(hosts, send(sender, *orders), strict=True):
        assert receipt.failure_class == failure_class, host
        assert (receipt.answer, receipt.bytes_sent, receipt.tries <= 1) == (Answer.NOT_SENT, 0, True), host
    assert listener.connections == 0


@pytest.mark.parametrize("scheme", PRODUCTS)
def test_p19_an_allow_list_admits_exactly_its_networks(
    sender: Sender,
    listen: Callable[..., Listener],
    resolves: Callable[[str, tuple[str, ...]], None],
    scheme: str,
) -> None:
    listener = listen(lambda _self, _sock: None)
    resolves("both.example", ("10.1.2.3", "127.0.0.1"))
    url = f"{scheme}://both.example:{listener.port}"
    (receipt,) = send(sender, order(url, scheme, allow_networks=("192.168.0.0/16",)))
    assert (receipt.failure_class, listener.connections) == (FailureClass.BLOCKED_ADDRESS, 0)
    (receipt,) = send(sender, order(url, scheme, allow_networks=LOOPBACK))
    assert receipt.failure_class is not FailureClass.BLOCKED_ADDRESS
    assert listener.connections == 1


def order(url: str, scheme: str, **changes: Any) -> Any:
    values = {
        "allow_networks": (),
        "max_concurrency": 16,
        "headers": (),
        "options": OPTIONS,
        "timeout_s": 5.0,
    }
    return spec(url, product=PRODUCTS[scheme], **(values | changes))
