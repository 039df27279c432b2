"""A connector's own proxy (P19): what it gets to see, what it is asked for, and how its refusals are told apart."""

import hashlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from evidence.connectors import wire
from evidence.connectors.probing import Stage, probe
from evidence.connectors.sender import Sender
from evidence.connectors.specs import Receipt, SendSpec
from evidence.connectors.transports import names
from evidence.domain import configuration_rules
from evidence.enums import Answer, FailureClass
from evidence.models import Connector
from tests.evidence.connectors.authority import Authority
from tests.evidence.connectors.proxy import Proxy
from tests.evidence.connectors.receiver import Receiver, answer, send, spec, timed

CREDENTIAL = "Basic czNjcjN0LXByb3h5"
BODY = b'{"evidence":"s3cr3t-body"}'
AWAY = "receiver.behind-the-proxy.example"


def one(sender: Sender, order: SendSpec) -> Receipt:
    (receipt,) = send(sender, order)
    return receipt


@pytest.fixture
def proxied() -> Iterator[Callable[..., Proxy]]:
    """``proxied(...)`` starts a proxy; all of them end with the test."""
    proxies: list[Proxy] = []

    def start(**given: Any) -> Proxy:
        proxies.append(Proxy(**given))
        return proxies[-1]

    yield start
    for each in proxies:
        each.close()


@pytest.fixture
def nobody_knows(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names resolve here as ever, but for those of the world behind the proxy; returns what was asked for."""
    real, asked = socket.getaddrinfo, []

    def look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(host)
        if host == AWAY:
            raise socket.gaierror(socket.EAI_NONAME, "nobody knows")
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


def through(proxy: Proxy, url: str, token: str = "t1", **changes: Any) -> SendSpec:
    return spec(url, token, **({"proxy_url": proxy.url, "body": BODY} | changes))


def assert_nothing_left(receipt: Receipt, failure: FailureClass, error: str) -> None:
    assert (receipt.answer, receipt.failure_class) == (Answer.NOT_SENT, failure)
    assert (receipt.bytes_sent, receipt.may_have_arrived, receipt.error) == (0, False, error)


# --- what it sees ------------------------------------------------------------------------------------------------


def test_https_is_a_tunnel_that_shows_host_and_port_alone(
    sender: Sender, receive: Any, proxied: Any, authority: Authority
) -> None:
    receiver: Receiver = receive(tls=authority.context())
    proxy = proxied(wants=CREDENTIAL)
    secrets = (("proxy_authorization", CREDENTIAL),)
    headers = (("authorization", "Bearer s3cr3t-token"), ("user-agent", "cavra"))
    receipt = one(
        sender,
        through(
            proxy,
            receiver.url("localhost", path="/s3cr3t-path", scheme="https"),
            ca_pem=authority.pem,
            secrets=secrets,
            headers=headers,
        ),
    )
    assert receipt.delivered
    (request,) = receiver.requests
    assert (request.body, receipt.bytes_sent) == (BODY, len(request.raw))
    assert "proxy-authorization" not in request.headers
    assert proxy.requests == [f"CONNECT localhost:{receiver.port}"]
    (seen,) = proxy.seen
    head = seen[: seen.index(b"\r\n\r\n")].decode()
    assert f"proxy-authorization: {CREDENTIAL}" in head.lower().replace(CREDENTIAL.lower(), CREDENTIAL)
    assert b"s3cr3t" not in seen
    assert b"evidence" not in seen.lower().replace(b"cavra", b"")


def test_a_tunnel_is_used_again(sender: Sender, receive: Any, proxied: Any, authority: Authority) -> None:
    receiver, proxy = receive(tls=authority.context()), proxied()
    url = receiver.url("localhost", scheme="https")
    for number in range(3):
        receipt = one(sender, through(proxy, url, f"t{number}", ca_pem=authority.pem))
        assert receipt.delivered
    assert (len(proxy.requests), receiver.connections, len(receiver.requests)) == (1, 1, 3)
    diagnostics = receipt.diagnostics
    assert (diagnostics.connect_ms, diagnostics.tls_ms, diagnostics.port) == (None, None, proxy.port)


def test_http_goes_by_its_whole_address(sender: Sender, receive: Any, proxied: Any) -> None:
    receiver, proxy = receive(), proxied(wants=CREDENTIAL)
    url = receiver.url(path="/hook?a=%20b")
    receipt = one(sender, through(proxy, url, secrets=(("proxy_authorization", CREDENTIAL),)))
    assert receipt.delivered
    assert proxy.requests == [f"POST {url}"]
    (request,) = receiver.requests
    assert request.raw.startswith(b"POST /hook?a=%20b HTTP/1.1")
    assert "proxy-authorization" not in request.headers
    assert receipt.bytes_sent == len(proxy.seen[0])


def test_diagnostics_tell_the_proxy_from_the_destination(
    sender: Sender, receive: Any, proxied: Any, authority: Authority
) -> None:
    context = authority.context()
    receiver, proxy = receive(tls=context), proxied()
    receipt = one(sender, through(proxy, receiver.url("localhost", scheme="https"), ca_pem=authority.pem))
    found = receipt.diagnostics
    assert (found.host, found.through_proxy) == ("localhost", True)
    assert (found.address, found.port) == ("127.0.0.1", proxy.port)
    shown = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", receiver.port)))
    assert found.certificate_sha256 == hashlib.sha256(shown).hexdigest()
    assert found.tls_version == "TLSv1.3"
    assert all(part is not None for part in (found.connect_ms, found.tls_ms, found.first_byte_ms))


def test_the_destinations_certificate_is_checked_through_the_tunnel(
    sender: Sender, receive: Any, proxied: Any, authority: Authority
) -> None:
    proxy = proxied()
    for context, code in ((authority.context("other.example"), "62"), (Authority().context(), "")):
        receiver = receive(tls=context)
        receipt = one(sender, through(proxy, receiver.url("localhost", scheme="https"), ca_pem=authority.pem))
        assert_nothing_left(receipt, FailureClass.TLS, receipt.error)
        assert code in receipt.error
        assert receiver.requests == []


@pytest.mark.parametrize("name", ("http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY"))
def test_the_environment_names_no_proxy(
    receive: Any, proxied: Any, authority: Authority, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    proxy = proxied()
    monkeypatch.setenv(name, proxy.url)
    sender = Sender()
    try:
        secure = receive(tls=authority.context())
        orders = (
            spec(receive().url()),
            spec(secure.url("localhost", scheme="https"), "t2", ca_pem=authority.pem),
        )
        assert [receipt.delivered for receipt in send(sender, *orders)] == [True, True]
    finally:
        sender.stop()
    assert proxy.seen == []


# --- where it may stand, and what it is asked for ----------------------------------------------------------------


def test_p19_its_own_address_is_checked(sender: Sender, proxied: Any, nobody_knows: Any) -> None:
    proxy = proxied()
    receipt = one(sender, through(proxy, f"https://{AWAY}/", allow_networks=()))
    assert_nothing_left(receipt, FailureClass.BLOCKED_ADDRESS, "address is not allowed (proxy, loopback)")
    assert proxy.seen == []


@pytest.mark.parametrize("scheme", ("http", "https"))
@pytest.mark.parametrize(
    ("host", "reason"),
    (
        ("10.1.2.3", "private network"),
        ("169.254.169.254", "link-local"),
        ("[fd00:ec2::254]", "cloud platform service"),
        ("[::ffff:10.0.0.1]", "IPv4-mapped, private network"),
        ("[64:ff9b::a9fe:a9fe]", "NAT64, link-local"),
    ),
)
def test_p19_it_is_not_asked_for_a_refused_address(
    sender: Sender, proxied: Any, scheme: str, host: str, reason: str
) -> None:
    proxy = proxied()
    receipt = one(sender, through(proxy, f"{scheme}://{host}/"))
    assert_nothing_left(receipt, FailureClass.BLOCKED_ADDRESS, f"address is not allowed ({reason})")
    assert proxy.seen == []


@pytest.mark.parametrize("addresses", (("10.1.2.3",), ("93.184.216.34", "169.254.169.254")))
def test_p19_it_is_not_asked_for_a_name_that_has_a_refused_address_here(
    sender: Sender, proxied: Any, monkeypatch: pytest.MonkeyPatch, addresses: tuple[str, ...]
) -> None:
    def resolve(_host: Any, port: Any, *_args: Any, **_kwargs: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port or 0)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    proxy = proxied()
    receipt = one(sender, through(proxy, "https://hooks.example/"))
    assert (receipt.answer, receipt.failure_class) == (Answer.NOT_SENT, FailureClass.BLOCKED_ADDRESS)
    assert proxy.seen == []


def test_p19_it_takes_nothing_to_a_public_address_in_the_clear(sender: Sender, proxied: Any) -> None:
    proxy = proxied()
    order = through(proxy, "http://8.8.8.8/")
    why = "address is not allowed (public, and nothing would be encrypted)"
    assert_nothing_left(one(sender, order), FailureClass.BLOCKED_ADDRESS, why)
    assert (probe(order).failed, probe(order).why) == (Stage.DESTINATION, why)
    assert proxy.seen == []


@pytest.mark.parametrize("host", ("localhost", "LOCALHOST", "localhost.", "anything.localhost"))
def test_p19_names_of_the_loopback_are_refused_wherever_they_resolve(
    sender: Sender, proxied: Any, host: str
) -> None:
    proxy = proxied()
    # The proxy's own address is allowed, the rest of the loopback network is not.
    receipt = one(sender, through(proxy, f"https://{host}/", allow_networks=("127.0.0.2/32",)))
    assert_nothing_left(receipt, FailureClass.BLOCKED_ADDRESS, "address is not allowed (loopback)")
    assert proxy.seen == []


def test_a_name_that_ends_like_a_loopback_name_is_none(
    sender: Sender, receive: Any, proxied: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "notlocalhost"
    receiver, proxy, real = receive(), proxied(names={name: "127.0.0.1"}), socket.getaddrinfo

    def look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host == name:
            raise socket.gaierror(socket.EAI_NONAME, "nobody knows")
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert one(sender, through(proxy, receiver.url(name))).delivered


def test_a_name_that_does_not_resolve_here_is_the_proxys_to_resolve(
    sender: Sender, receive: Any, proxied: Any, nobody_knows: list[str]
) -> None:
    receiver, proxy = receive(), proxied(names={AWAY: "127.0.0.1"})
    for number in range(3):
        assert one(sender, through(proxy, receiver.url(AWAY), f"t{number}")).delivered
    assert nobody_knows.count(AWAY) == 1


def test_a_look_up_that_hangs_is_asked_once_and_not_waited_for(
    sender: Sender, receive: Any, proxied: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, asked, real = threading.Event(), [], socket.getaddrinfo

    def hanging(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host == AWAY:
            asked.append(host)
            go_on.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "late")
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    monkeypatch.setattr(names, "LOOK_UP_S", 0.1)
    receiver, proxy = receive(), proxied(names={AWAY: "127.0.0.1"})
    try:
        orders = [through(proxy, receiver.url(AWAY), f"t{number}", timeout_s=20) for number in range(8)]
        assert all(receipt.delivered for receipt in send(sender, *orders))
        assert asked == [AWAY]
        assert probe(through(proxy, receiver.url(AWAY), timeout_s=20)).failed is None
    finally:
        go_on.set()


# --- its refusals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ("http", "https"))
@pytest.mark.parametrize("given", ("", "Basic d3Jvbmc6d3Jvbmc="))
def test_a_refused_credential_is_a_matter_of_set_up(
    sender: Sender, receive: Any, proxied: Any, scheme: str, given: str
) -> None:
    receiver, proxy = receive(), proxied(wants=CREDENTIAL)
    secrets = (("proxy_authorization", given),) if given else ()
    receipt = one(
        sender, through(proxy, receiver.url("localhost", scheme=scheme), secrets=secrets, retries=5)
    )
    assert receipt.failure_class == FailureClass.AUTH_SETUP
    assert "the proxy refused the credential" in receipt.error
    assert given not in receipt.error or not given
    assert (receipt.may_have_arrived, receipt.tries, receiver.connections) == (False, 1, 0)
    # The content of an http request has left; of an https one the proxy saw the host.
    assert receipt.answer == (Answer.ANSWERED if scheme == "http" else Answer.NOT_SENT)
    assert scheme == "http" or BODY not in b"".join(map(bytes, proxy.seen))


@pytest.mark.parametrize("status", (400, 403, 404, 500, 502, 503, 504))
def test_a_refused_connect_is_no_connection(
    sender: Sender, proxied: Any, nobody_knows: Any, status: int
) -> None:
    proxy = proxied(answers=answer(status, b"s3cr3t reasons"))
    receipt = one(sender, through(proxy, f"https://{AWAY}/", retries=1))
    assert_nothing_left(receipt, FailureClass.CONNECT, f"no connection (the proxy answered {status})")
    assert receipt.tries == 2


@pytest.mark.parametrize(
    "answers",
    (
        b"",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 Fine\r\n" + b"x-a: b\r\n" * 5000,
        b"HTTP/1.1 200 Fine\r\n\r\nthis is no TLS at all, and it is long enough to be a record",
    ),
    ids=("nothing", "no HTTP", "endless head", "no TLS behind"),
)
def test_a_proxy_that_makes_no_sense(sender: Sender, proxied: Any, answers: bytes, nobody_knows: Any) -> None:
    receipt, seconds = timed(
        lambda: one(sender, through(proxied(answers=answers), f"https://{AWAY}/", timeout_s=30))
    )
    assert receipt.answer == Answer.NOT_SENT
    assert receipt.failure_class in (FailureClass.CONNECT, FailureClass.TLS)
    assert seconds < 15


def test_an_http_answer_of_the_proxy_itself_is_an_answer(sender: Sender, proxied: Any) -> None:
    receipt = one(sender, through(proxied(answers=answer(503)), "http://127.0.0.1/hook"))
    assert (receipt.failure_class, receipt.status_code) == (FailureClass.UNAVAILABLE, 503)
    assert receipt.may_have_arrived


def test_a_proxy_that_is_not_there(sender: Sender, closed_port: int, nobody_knows: Any) -> None:
    receipt = one(sender, spec(f"https://{AWAY}/", proxy_url=f"http://127.0.0.1:{closed_port}"))
    assert_nothing_left(receipt, FailureClass.CONNECT, "no connection (proxy, ECONNREFUSED)")
    receipt = one(sender, spec(f"https://{AWAY}/", proxy_url=f"http://{AWAY}:3128"))
    assert_nothing_left(receipt, FailureClass.DNS, "host name does not resolve (proxy, EAI_NONAME)")


def test_a_proxy_that_never_answers(sender: Sender, receive: Any, nobody_knows: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        order = spec(
            f"https://{AWAY}/", proxy_url=f"http://127.0.0.1:{server.getsockname()[1]}", timeout_s=0.3
        )
        receipt, seconds = timed(lambda: one(sender, order))
    assert_nothing_left(receipt, FailureClass.CONNECT_TIMEOUT, "no connection in time")
    assert seconds < 15


def test_what_a_proxy_says_is_redacted(sender: Sender, proxied: Any) -> None:
    proxy = proxied()
    said = f"squid at 127.0.0.1:{proxy.port} does not like {CREDENTIAL}".encode()
    proxy.answers = answer(403, said)
    secrets = (("proxy_authorization", CREDENTIAL),)
    receipt = one(sender, through(proxy, "http://127.0.0.1/hook", secrets=secrets))
    assert receipt.answer_excerpt == "squid at [redacted] does not like [redacted]"


# --- how it may be configured ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("proxy_url", "rule"),
    (
        ("https://proxy.example:3128", "must begin with http://"),
        ("socks5://proxy.example", "must begin with http://"),
        ("proxy.example:3128", "must begin with http://"),
        ("http://user:s3cr3t@proxy.example", "must not contain user information"),
        ("http://proxy.example/path", "must be a host and a port"),
        ("http://proxy.example?x=1", "must be a host and a port"),
        ("http://0x7f.1:3128", "has an address in an unusual form"),
        ("http://proxy.example:0", "has a malformed host or port"),
        ("http://proxy example", "must be a URL"),
    ),
)
def test_a_proxy_is_a_host_and_a_port(sender: Sender, proxy_url: str, rule: str) -> None:
    row = Connector(key="siem", product="webhook", url="https://siem.example", proxy_url=proxy_url)
    *_, sentence = configuration_rules.problems(row)["proxy_url"]  # a password in it is a credential besides
    assert sentence.startswith(f"The proxy {rule}")
    receipt = one(sender, spec("http://127.0.0.1:1/", proxy_url=proxy_url))
    assert receipt.failure_class == FailureClass.MISCONFIGURED
    assert receipt.error.startswith(f"connector is misconfigured: proxy_url {rule}")
    assert "s3cr3t" not in sentence + receipt.error


@pytest.mark.parametrize(
    "proxy_url", ("http://proxy.example", "http://proxy.example:3128/", "http://[2001:db8::1]:80")
)
def test_good_proxies(proxy_url: str) -> None:
    assert wire.proxy_problem(proxy_url) is None


def test_changing_the_proxy_leaves_old_connections_behind(sender: Sender, receive: Any, proxied: Any) -> None:
    receiver, first, second = receive(), proxied(), proxied()
    url = receiver.url()
    for number, proxy_url in enumerate((first.url, second.url, "", first.url)):
        assert one(sender, spec(url, f"t{number}", proxy_url=proxy_url)).delivered
    time.sleep(0.01)
    carrier = sender._transports["http"]
    assert [key[3] for key in carrier._sessions] == [first.url]
    assert (len(first.requests), len(second.requests), len(receiver.requests)) == (2, 1, 4)


# --- a test that stops before any content ------------------------------------------------------------------------


def test_a_probe_goes_through_the_tunnel_to_the_certificate(
    receive: Any, proxied: Any, authority: Authority
) -> None:
    receiver, proxy = receive(tls=authority.context()), proxied(wants=CREDENTIAL)
    secrets = (("proxy_authorization", CREDENTIAL),)
    found = probe(
        through(proxy, receiver.url("localhost", scheme="https"), ca_pem=authority.pem, secrets=secrets)
    )
    assert found.failed is None, found
    assert found.stages == (
        *(Stage.DESTINATION, Stage.NAME, Stage.ADDRESS, Stage.CONNECTION),
        *(Stage.PROXY, Stage.CERTIFICATE),
    )
    assert found.certificate is not None
    assert "localhost" in found.certificate.names
    assert proxy.requests == [f"CONNECT localhost:{receiver.port}"]
    assert receiver.requests == []


@pytest.mark.parametrize("scheme", ("http", "https"))
@pytest.mark.parametrize("host", ("10.1.2.3", "inside.example"))
def test_p19_a_probe_asks_the_proxy_for_no_refused_address(
    proxied: Any, monkeypatch: pytest.MonkeyPatch, scheme: str, host: str
) -> None:
    real = socket.getaddrinfo

    def look_up(name: Any, *args: Any, **kwargs: Any) -> Any:
        return real("10.1.2.3" if name == "inside.example" else name, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    proxy = proxied()
    found = probe(through(proxy, f"{scheme}://{host}/"))
    assert (found.failed, found.failure_class) == (Stage.DESTINATION, FailureClass.BLOCKED_ADDRESS)
    assert found.why == "address is not allowed (private network)"
    assert proxy.seen == []


@pytest.mark.parametrize("status", (403, 404, 407, 502))
def test_a_probe_says_of_a_proxy_what_a_send_says(
    sender: Sender, proxied: Any, nobody_knows: Any, status: int
) -> None:
    order = through(proxied(answers=answer(status)), f"https://{AWAY}/")
    found, sent = probe(order), one(sender, order)
    assert found.failed is Stage.PROXY
    assert (found.failure_class, found.why) == (sent.failure_class, sent.error)
    assert sent.answer == Answer.NOT_SENT


def test_a_probe_finds_no_proxy(closed_port: int, nobody_knows: Any) -> None:
    found = probe(spec(f"https://{AWAY}/", proxy_url=f"http://127.0.0.1:{closed_port}"))
    assert (found.failed, found.failure_class) == (Stage.CONNECTION, FailureClass.CONNECT)
    found = probe(spec(f"https://{AWAY}/", proxy_url=f"http://{AWAY}:3128"))
    assert (found.failed, found.failure_class) == (Stage.NAME, FailureClass.DNS)
