"""The bypass list (P19): every form in which a refused address was ever written, through the whole way.

Each form is tried as a connector's URL: against the rules of its form, in ``prepare`` and with the sender itself,
which believes neither of them. A listener on the loopback interface sees no byte of it. Forms are those of the URL
standard's IPv4 parser, the IANA special-purpose registries and the tricks that public reports of server-side request
forgery have in common.
"""

import ipaddress
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence.connectors import prepare
from evidence.connectors.addresses import BY_ALLOW_LIST, NEVER, refusal
from evidence.connectors.credentials import Misconfigured
from evidence.connectors.sender import Sender
from evidence.connectors.specs import ConnectorSettings, Receipt
from evidence.domain import configuration_rules
from evidence.enums import Answer, FailureClass, Product
from evidence.models import Connector
from tests.evidence.connectors.receiver import Receiver, answer, send, spec

BLOCKED, MALFORMED = FailureClass.BLOCKED_ADDRESS, FailureClass.MISCONFIGURED

# Literals in their usual form: the configuration refuses them, and whatever gets past it is refused at the socket.
LITERALS = (
    # loopback, private, shared
    *("127.0.0.1", "127.0.0.2", "127.1.2.3", "127.255.255.255", "[::1]", "[0:0:0:0:0:0:0:1]"),
    *("10.0.0.1", "172.16.0.1", "172.31.255.254", "192.168.0.1", "100.64.0.1"),
    # this host, broadcast, multicast, reserved
    *("0.0.0.0", "0.0.0.1", "[::]", "255.255.255.255", "224.0.0.1", "239.255.255.250", "240.0.0.1"),
    *("[ff02::1]", "[ff0e::1]"),
    # cloud metadata and platform services: AWS, Azure and Google; AWS over IPv6; Azure's wire server; Alibaba
    *("169.254.169.254", "[fd00:ec2::254]", "168.63.129.16", "100.100.100.200", "169.254.170.2"),
    # link-local, unique local, site-local
    *("169.254.0.1", "[fe80::1]", "[febf::1]", "[fc00::1]", "[fdff::1]", "[fec0::1]"),
    # IPv4 in IPv6: mapped (dotted, hexadecimal, in full), compatible, translated
    *("[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:7f00:0001]", "[::FFFF:169.254.169.254]"),
    *("[::127.0.0.1]", "[::7f00:1]", "[::ffff:0:127.0.0.1]"),
    # NAT64, well-known and local, 6to4, Teredo, ISATAP
    *("[64:ff9b::7f00:1]", "[64:ff9b::169.254.169.254]", "[64:ff9b:1::a9fe:a9fe]"),
    *("[2002:7f00:1::]", "[2002:a9fe:a9fe::1]", "[2001:0:4136:e378:8000:63bf:80ff:fffe]"),
    *("[fe80::5efe:7f00:1]", "[fd00::200:5efe:10.0.0.1]"),
    # documentation, benchmarking, ORCHID, discard
    *("192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1", "192.0.0.1", "[2001:db8::1]", "[100::1]"),
    *("[2001:20::1]", "[4000::1]"),
)
# Forms that resolvers and URL parsers read differently: none of them is a host at all.
MALFORMED_HOSTS = (
    # decimal, octal, hexadecimal, short and mixed IPv4
    *("2130706433", "017700000001", "0x7f000001", "0177.0.0.1", "0x7f.0.0.1", "0X7F.0.0.1", "127.1"),
    *("127.0.1", "0", "0x0", "00", "127.0.0.1.", "127.0.0.01", "0127.0.0.1", "127.0.0.0x1", "3232235521"),
    *(
        "0xa9fea9fe",
        "169.254.43518",
        "0251.0376.0251.0376",
        "425.510.425.510",
        "1.1.1.1.1",
        "127.0.0.1..",
        "0x",
    ),
    # zones, and brackets that hold something else
    *("[fe80::1%25eth0]", "[fe80::1%eth0]", "[::1%251]", "[127.0.0.1]", "[::1", "::1", "[::1]]", "[v1.fe80]"),
    *("[localhost]", "[0:0:0:0:0:0:0:0:1]", "[::ffff:127.1]", "[::ffff:0177.0.0.1]"),
    # percent-encoding, full-width digits, circled digits, ideographic full stops, soft hyphen, homographs
    *("127%2e0%2e0%2e1", "%31%32%37.0.0.1", "127.0.0.1%00.example.com", "１２７.0.0.1", "①②⑦.⓪.⓪.①"),
    *("127。0。0。1", "127｡0｡0｡1", "loc\u00adalhost", "ⓛocalhost", "xn--\u0131", "０x7f.1"),
    # nothing, spaces, control characters, backslashes
    *("", " ", "127.0.0.1 ", " 127.0.0.1", "127.0.0.1\t", "127.0.0.1\n.example.com", "127.0.0.1\x00"),
    *("127.0.0.1\\@example.com", "example.com\\@127.0.0.1", "\\127.0.0.1", "127.0.0.1\\"),
    # user information
    *(
        "root@127.0.0.1",
        "root:s3cr3t@127.0.0.1",
        "example.com@127.0.0.1",
        "example.com:80@127.0.0.1",
        "@127.0.0.1",
    ),
    *("example.com%40@127.0.0.1", "127.0.0.1#@example.com", "a@b@127.0.0.1"),
)
# Whole addresses: schemes, ports and pieces in the wrong place. ``{port}`` is where somebody listens.
MALFORMED_URLS = (
    *(
        "file:///etc/passwd",
        "file://127.0.0.1:{port}/",
        "gopher://127.0.0.1:{port}/_POST",
        "ftp://127.0.0.1:{port}/",
    ),
    *(
        "unix:///var/run/docker.sock",
        "unix://127.0.0.1:{port}/",
        "http+unix://%2Fvar%2Frun/",
        "dict://127.0.0.1:{port}/",
    ),
    *(
        "ldap://127.0.0.1:{port}/",
        "jar:http://127.0.0.1:{port}/!/",
        "data:text/plain,hello",
        "ws://127.0.0.1:{port}/",
    ),
    *(
        "//127.0.0.1:{port}/",
        "127.0.0.1:{port}/",
        "http:127.0.0.1:{port}/",
        "http:/127.0.0.1:{port}/",
        "http://",
    ),
    *(
        "http:///127.0.0.1:{port}/",
        "http:////127.0.0.1:{port}/",
        "http:\\\\127.0.0.1:{port}\\",
        "http:/\\127.0.0.1/",
    ),
    *(
        "hTtP://root@127.0.0.1:{port}/",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:/",
        "http://127.0.0.1:{port}:80/",
    ),
    *("http://127.0.0.1:-1/", "http://127.0.0.1:65536/", "http://127.0.0.1:+80/", "http://127.0.0.1: 80/"),
    *(
        "http://127.0.0.1:８０/",
        "http://127.0.0.1:0x50/",
        "http://127.0.0.1:{port}/#fragment",
        "http://?@127.0.0.1/",
    ),
    *(
        "ht\ttp://127.0.0.1:{port}/",
        "http://127.0.0.1:{port}/\r\nX: y",
        "http ://127.0.0.1:{port}/",
        "\x01http://a/",
    ),
)
# Names that are the loopback everywhere, and names that only here have a refused address.
LOOPBACK_NAMES = ("localhost", "LOCALHOST", "LocalHost", "localhost.", "any.localhost", "a.b.LOCALHOST.")
NAMES = {
    "internal.example": ("10.1.2.3",),
    "metadata.google.internal": ("169.254.169.254",),
    "mapped.example": ("::ffff:127.0.0.1",),
    "translated.example": ("64:ff9b::7f00:1",),
    "six.example": ("fd00:ec2::254",),
    "here.example": ("127.0.0.1",),
    "trailing.example.": ("127.0.0.1",),
    "xn--lclhst-8ya.example": ("127.0.0.1",),
    "127.0.0.1.nip.example": ("127.0.0.1",),
    "unspecified.example": ("0.0.0.0",),
    "two.example": ("10.0.0.1", "127.0.0.1"),
    "many.example": ("fe80::1%1", "::1", "169.254.169.254", "224.0.0.1"),
}


@pytest.fixture
def listener(receive: Callable[..., Receiver]) -> Iterator[Receiver]:
    """Somebody who would answer, were he asked; nobody asks him."""
    receiver = receive()
    yield receiver
    assert receiver.connections == 0


@pytest.fixture
def resolves(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, tuple[str, ...]], None]:
    """``resolves(name, addresses)``: what a name server would say."""
    known: dict[str, tuple[str, ...]] = {}
    real = socket.getaddrinfo

    def look_up(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in known:
            return real(host, port, *args, **kwargs)
        return [_info(address, int(port or 0)) for address in known[host]]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known.__setitem__


def _info(address: str, port: int) -> tuple[Any, ...]:
    plain, _, zone = address.partition("%")
    six = ":" in plain
    where = (plain, port, 0, int(zone or 0)) if six else (plain, port)
    return (socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM, 6, "", where)


def at(host: str, listener: Receiver) -> str:
    return f"http://{host}:{listener.port}/hook"


def refused_by_the_form(url: str, *networks: str) -> list[str]:
    """What the rules of a connector's configuration say of its URL."""
    row = Connector(key="siem", product="webhook", url=url, allow_networks=list(networks))
    return configuration_rules.problems(row).get("url", [])


def refused_in_prepare(url: str) -> bool:
    settings = ConnectorSettings(key="siem", product=Product.WEBHOOK, url=url)
    try:
        prepare.address(settings, b"{}", "application/json", idempotency_key="k", message_id="m")
    except Misconfigured:
        return True
    return False


def tried(sender: Sender, url: str, **changes: Any) -> Receipt:
    (receipt,) = send(sender, spec(url, **({"allow_networks": (), "retries": 3} | changes)))
    assert (receipt.answer, receipt.bytes_sent, receipt.delivered) == (Answer.NOT_SENT, 0, False)
    return receipt


def test_the_list_is_as_long_as_promised() -> None:
    forms = (*LITERALS, *MALFORMED_HOSTS, *MALFORMED_URLS, *LOOPBACK_NAMES, *NAMES)
    assert len(set(forms)) == len(forms) >= 60


@pytest.mark.parametrize("host", LITERALS)
def test_addresses_in_their_usual_form(sender: Sender, listener: Receiver, host: str) -> None:
    url = at(host, listener)
    (sentence,) = refused_by_the_form(url)
    assert sentence.startswith("No connection is made to its address: ")
    assert not refused_in_prepare(url)  # a form that is right: where it leads is the socket's question
    receipt = tried(sender, url)
    assert receipt.failure_class == BLOCKED
    assert receipt.error.removeprefix("address is not allowed (").removesuffix(")") in sentence
    assert receipt.tries == 1


@pytest.mark.parametrize("host", MALFORMED_HOSTS)
def test_addresses_in_no_usual_form(sender: Sender, listener: Receiver, host: str) -> None:
    url = at(host, listener)
    # Also with every private network allowed: it is the form that is refused.
    networks = tuple(cidr for cidr, _ in BY_ALLOW_LIST)
    assert refused_by_the_form(url, *networks)
    assert refused_in_prepare(url)
    assert tried(sender, url, allow_networks=networks).failure_class == MALFORMED


@pytest.mark.parametrize("form", MALFORMED_URLS)
def test_addresses_that_are_none(sender: Sender, listener: Receiver, form: str) -> None:
    url = form.replace("{port}", str(listener.port))
    networks = tuple(cidr for cidr, _ in BY_ALLOW_LIST)
    assert refused_by_the_form(url, *networks)
    assert refused_in_prepare(url)
    assert tried(sender, url, allow_networks=networks).failure_class == MALFORMED


@pytest.mark.parametrize("host", LOOPBACK_NAMES)
def test_names_of_the_loopback(
    sender: Sender, listener: Receiver, resolves: Callable[..., None], host: str
) -> None:
    resolves(host, ("::1", "127.0.0.1"))
    assert tried(sender, at(host, listener)).error == "address is not allowed (loopback)"


@pytest.mark.parametrize(("host", "addresses"), NAMES.items())
def test_names_that_have_refused_addresses(
    sender: Sender,
    listener: Receiver,
    resolves: Callable[..., None],
    host: str,
    addresses: tuple[str, ...],
) -> None:
    resolves(host, addresses)
    url = at(host, listener)
    assert not refused_by_the_form(url)
    assert not refused_in_prepare(url)
    assert tried(sender, url).failure_class == BLOCKED


# --- what changes on the way ---------------------------------------------------------------------------------------


def test_an_answer_that_changes_between_two_look_ups(
    sender: Sender, listener: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name server that says one thing to who checks and another to who connects: nobody asks it twice."""
    answers = [("10.9.9.9",), ("127.0.0.1",)]
    asked = []

    def look_up(host: Any, port: Any, *_args: Any, **_kwargs: Any) -> Any:
        asked.append(host)
        return [_info(address, port) for address in answers[min(len(asked), 2) - 1]]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    url = at("rebinding.example", listener)
    receipts = [tried(sender, url) for _ in range(3)]
    assert {receipt.failure_class for receipt in receipts} == {BLOCKED}
    assert len(asked) == 1  # the answer is kept, and judged anew each time a socket is made


def test_an_answer_that_changes_after_the_first_delivery(
    sender: Sender, receive: Callable[..., Receiver], listener: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rebinding across sends: a good address now, a refused one when the name is asked for again."""
    from evidence.connectors.transports import http

    monkeypatch.setattr(http, "DNS_TTL_S", 0)
    monkeypatch.setattr(http, "KEEPALIVE_S", 0.01)
    good, asked = receive(answer(200, b"ok", "Connection: close")), []

    def look_up(_host: Any, port: Any, *_args: Any, **_kwargs: Any) -> Any:
        asked.append(port)
        return [_info("127.0.0.1" if len(asked) == 1 else "127.0.0.9", port)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    order = spec(at("moving.example", good), allow_networks=("127.0.0.1/32",))
    (first,) = send(sender, order)
    assert first.delivered
    (second,) = send(sender, replace(order, token="t2"))
    assert second.failure_class == BLOCKED
    assert len(asked) == 2


def test_two_answers_are_two_questions(
    sender: Sender, receive: Callable[..., Receiver], resolves: Callable[..., None]
) -> None:
    """Of a public and a private address the private one is never dialled, not even when the other one fails."""
    quiet, loud = receive(), receive()
    resolves("both.example", ("127.0.0.5", "127.0.0.1"))
    order = spec(f"http://both.example:{loud.port}/", allow_networks=("127.0.0.5/32",))
    (receipt,) = send(sender, order)
    assert receipt.failure_class == FailureClass.CONNECT
    assert (quiet.connections, loud.connections) == (0, 0)


REDIRECTS = (
    *((status, "Location: http://{host}:{port}/") for status in (300, 301, 302, 303, 305, 307, 308)),
    (301, "Location: //{host}:{port}/"),
    (302, "Location: /hook"),
    (302, "URI: http://{host}:{port}/"),
    (307, "Location: https://{host}:{port}/"),
    (302, "Location: file:///etc/passwd"),
    (302, "Location: gopher://{host}:{port}/_"),
    (200, "Refresh: 0; url=http://{host}:{port}/"),
    (201, "Content-Location: http://{host}:{port}/"),
)


@pytest.mark.parametrize("host", ("127.0.0.1", "169.254.169.254", "localhost", "[::1]"))
@pytest.mark.parametrize(("status", "header"), REDIRECTS)
def test_nobody_follows_a_redirect(
    sender: Sender,
    receive: Callable[..., Receiver],
    listener: Receiver,
    status: int,
    header: str,
    host: str,
) -> None:
    target = f'<meta http-equiv="refresh" content="0; url=http://{host}:{listener.port}/">'
    said = header.format(host=host, port=listener.port)
    receiver = receive(answer(status, target.encode(), said, "Content-Type: text/html"))
    (receipt,) = send(sender, spec(receiver.url(), allow_networks=("127.0.0.0/8", "::1/128")))
    assert receipt.failure_class == (FailureClass.BAD_RESPONSE if status // 100 == 3 else None)
    assert (receipt.status_code, len(receiver.requests)) == (status, 1)


@pytest.mark.parametrize("host", (*LITERALS, *LOOPBACK_NAMES))
def test_a_proxy_is_not_asked_for_it_either(sender: Sender, listener: Receiver, host: str) -> None:
    for scheme in ("http", "https"):
        url = f"{scheme}://{host}:{listener.port}/"
        receipt = tried(sender, url, proxy_url=f"http://127.0.0.1:{listener.port}")
        assert receipt.failure_class == BLOCKED
        assert (
            "proxy" not in receipt.error
        )  # it is the destination that was refused, before the proxy's address


# --- what an allow-list opens --------------------------------------------------------------------------------------

PRIVATE = [ipaddress.ip_network(cidr) for cidr, _ in BY_ALLOW_LIST]
REFUSED_FOR_GOOD = [ipaddress.ip_network(cidr) for cidr, _ in NEVER]


@st.composite
def networks_inside(draw: st.DrawFn) -> Any:
    """A network inside one of the private ones."""
    outer = draw(st.sampled_from(PRIVATE))
    prefix = draw(st.integers(outer.prefixlen, outer.max_prefixlen))
    offset = draw(st.integers(0, 2 ** (prefix - outer.prefixlen) - 1))
    first = int(outer.network_address) + offset * 2 ** (outer.max_prefixlen - prefix)
    return ipaddress.ip_network((first, prefix))


@given(network=networks_inside(), data=st.data())
def test_an_allow_list_admits_exactly_its_networks(network: Any, data: st.DataObject) -> None:
    allowed = (str(network),)
    kind = type(network.network_address)
    first, last = int(network.network_address), int(network.broadcast_address)
    inside = data.draw(st.integers(first, last))
    for number in (first, inside, last):
        assert refusal(kind(number)) is not None
        assert refusal(kind(number), allowed) is None
    for number in (first - 1, last + 1):
        if 0 <= number < 2**network.max_prefixlen:
            beside = kind(number)
            assert refusal(beside, allowed) == refusal(beside)
    if network.version == 4:
        for carrier in (0xFFFF << 32, 0x64FF9B << 96):
            assert refusal(ipaddress.IPv6Address(carrier | inside), allowed) is None
            if first:
                outside = ipaddress.IPv6Address(carrier | (first - 1))
                assert refusal(outside, allowed) == refusal(outside)


@given(
    never=st.sampled_from(REFUSED_FOR_GOOD).flatmap(
        lambda network: st.integers(int(network.network_address), int(network.broadcast_address)).map(
            type(network.network_address)
        )
    )
)
def test_what_is_refused_for_good_no_list_opens(never: Any) -> None:
    assert refusal(never, ("0.0.0.0/0", "::/0", f"{never}/{never.max_prefixlen}")) is not None


@pytest.mark.parametrize(
    ("network", "inside", "outside"),
    (
        ("127.0.0.4/30", ("127.0.0.4", "127.0.0.7"), ("127.0.0.3", "127.0.0.8")),
        ("127.0.0.1/32", ("127.0.0.1",), ("127.0.0.2", "127.0.0.0")),
    ),
)
def test_the_sender_reaches_exactly_those(
    sender: Sender, network: str, inside: tuple[str, ...], outside: tuple[str, ...]
) -> None:
    """With real sockets, at the edges of the network."""
    for address in (*inside, *outside):
        receipt = tried(sender, f"http://{address}:1/", allow_networks=(network,), retries=0)
        assert receipt.failure_class == (FailureClass.CONNECT if address in inside else BLOCKED), address
