"""What may go on the wire: addresses, headers and limits, checked before anything is opened.

Each function returns a rule that is broken, in words without the value, or None.
"""

import ipaddress
import math
import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from evidence.connectors.addresses import parse_networks
from evidence.connectors.products import PRODUCTS
from evidence.connectors.specs import SendSpec
from evidence.enums import Product

MAX_BODY = 2**20
MAX_URL = 2048
MAX_RETRIES = 5
MAX_TIMEOUT_S = 120.0
# Schemes of URLs that are never encrypted: what goes there stays in private networks.
PLAIN = frozenset({"http", "syslog"})

# RFC 3986 §2, without what clients and receivers read differently.
_URL_CHARACTERS = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")
_HTTP = re.compile("https?")
_HOST = re.compile(r"[A-Za-z0-9_\-]+(?:\.[A-Za-z0-9_\-]+)*\.?")
# Brackets hold an IPv6 address and nothing else: parsers also let through what no address is yet (IPvFuture).
_AUTHORITY = re.compile(r"(?:\[[0-9A-Fa-f]*:[0-9A-Fa-f:.]*\]|[^\[\]:]+)(?::[0-9]+)?")
_ENDS_IN_A_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9a-fA-F]*)\.?")
# RFC 9110 §5.6.2 (token) and §5.5 (field value), the latter in ASCII only.
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+")
_HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?")
# Framing and connection belong to the client alone (RFC 9110 §7.6, RFC 9112 §6).
CLIENT_HEADERS = frozenset(
    {
        *("accept-encoding", "connection", "content-encoding", "content-length", "cookie", "expect", "host"),
        *(
            "keep-alive",
            "proxy-authorization",
            "proxy-connection",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
        ),
    }
)


def url_problem(url: str, schemes: Sequence[str] = ("http", "https")) -> str | None:
    """Why ``url`` is no destination: one of ``schemes``, a plain host, no user information, no fragment."""
    if not _URL_CHARACTERS.fullmatch(url) or len(url) > MAX_URL:
        return f"must be a URL of at most {MAX_URL} plain ASCII characters"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "has a malformed host or port"
    if parts.scheme not in schemes:
        return f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}"
    if "@" in parts.netloc:
        return "must not contain user information"
    if "#" in url:
        return "must not contain a fragment"
    if not _HTTP.fullmatch(parts.scheme) and (parts.path.strip("/") or "?" in url):
        return "must have nothing behind host and port"
    if not host or port == 0 or not _AUTHORITY.fullmatch(parts.netloc):
        return "has a malformed host or port"
    return host_problem(host)


def proxy_problem(url: str) -> str | None:
    """Why ``url`` is no proxy: plain HTTP, a host, perhaps a port, and nothing behind.

    A proxy that wants TLS itself is refused: its certificate would be held against the destination's authorities.
    """
    if url.startswith("https:"):
        return (
            "must begin with http://; what goes through it to https:// destinations is encrypted all the same"
        )
    if problem := url_problem(url, ("http",)):
        return problem
    parts = urlsplit(url)
    if parts.path not in ("", "/") or "?" in url:
        return "must be a host and a port, with no path behind"
    return None


def host_problem(host: str) -> str | None:
    """Why ``host`` (without brackets) is neither a name nor an address in its usual form.

    Short, octal and hexadecimal forms of IPv4 are refused: resolvers disagree about them.
    """
    if ":" not in host and not _HOST.fullmatch(host):
        return "has a malformed host or port"
    if ":" in host or _ENDS_IN_A_NUMBER.fullmatch(host):
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return "has an address in an unusual form"
        if isinstance(address, ipaddress.IPv6Address) and address.scope_id:
            return "has an address in an unusual form"
    return None


def header_problem(name: str, value: str) -> str | None:
    """Why this header cannot be sent as it is."""
    if not _HEADER_NAME.fullmatch(name):
        return "has a header name with characters that a name cannot have"
    if name.lower() in CLIENT_HEADERS:
        return "has a header that belongs to the HTTP client"
    if not _HEADER_VALUE.fullmatch(value):
        return "has a header value that is empty or not printable ASCII"
    return None


def headers_problem(headers: tuple[tuple[str, str], ...]) -> str | None:
    """Why these headers cannot be sent together."""
    names = [name.lower() for name, _ in headers]
    if len(names) != len(set(names)):
        return "has a header twice"
    return next((problem for name, value in headers if (problem := header_problem(name, value))), None)


def options_problems(product: Product, options: Mapping[str, str]) -> list[str]:
    """What is wrong with a product's own settings: unknown ones, needed ones, those of another form."""
    known = PRODUCTS[product].options
    found = [f"{ascii(name)[1:-1][:80]} is no option of {product}" for name in options.keys() - known]
    for name, option in known.items():
        value = options.get(name, "")
        if not value:
            found += [f"{name} is needed: {option.label}"] if option.required else []
        elif not isinstance(value, str) or not re.fullmatch(option.pattern, value):
            found.append(f"{name} does not have the form of: {option.label}")
        elif option.is_url and (problem := url_problem(value, ("https",))):
            found.append(f"{name} {problem}")
    return found


def spec_problem(spec: SendSpec) -> str | None:
    """Why the sender does not even try: field and rule."""
    if spec.product not in PRODUCTS:
        return "product is unknown"
    if problem := url_problem(spec.url, PRODUCTS[spec.product].schemes):
        return f"url {problem}"
    if spec.proxy_url and (problem := proxy_problem(spec.proxy_url)):
        return f"proxy_url {problem}"
    if problem := headers_problem(spec.headers):
        return f"headers: {problem}"
    if len(spec.body) > MAX_BODY:
        return f"body is larger than {MAX_BODY} bytes"
    if not (math.isfinite(spec.timeout_s) and 0 < spec.timeout_s <= MAX_TIMEOUT_S):
        return f"timeout_s must be above 0 and at most {MAX_TIMEOUT_S:g}"
    if not 0 <= spec.retries <= MAX_RETRIES:
        return f"retries must be between 0 and {MAX_RETRIES}"
    try:
        parse_networks(spec.allow_networks)
    except ValueError:
        return "allow_networks has an entry that is no network"
    return None
