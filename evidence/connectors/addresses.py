"""Which addresses a connector may reach (P19): an explicit list, judged on the address really connected to.

Sources: the IANA special-purpose address registries for IPv4 and IPv6 (RFC 6890 and updates), RFC 6052
(NAT64), RFC 4291 (IPv4-mapped). ``ipaddress.is_global`` is not used: Python 3.11 has several of these wrong.
"""

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Private in the everyday sense: refused unless the connector's allow-list names them.
BY_ALLOW_LIST = (
    ("10.0.0.0/8", "private network"),
    ("172.16.0.0/12", "private network"),
    ("192.168.0.0/16", "private network"),
    ("100.64.0.0/10", "carrier-grade NAT"),
    ("127.0.0.0/8", "loopback"),
    ("::1/128", "loopback"),
    ("fc00::/7", "unique local network"),
)
# What clouds keep for themselves within such networks: an allow-list of a whole network does not mean these.
OF_THE_CLOUD = (
    ("100.100.100.200/32", "cloud platform service"),  # Alibaba Cloud
    ("fd00:ec2::/64", "cloud platform service"),  # AWS
    ("fd20:ce::/64", "cloud platform service"),  # Google Cloud
)
# Never a destination of evidence, whatever an allow-list says. The first match names the reason.
NEVER = (
    ("0.0.0.0/8", "this network"),
    ("169.254.0.0/16", "link-local"),
    ("168.63.129.16/32", "cloud platform service"),
    ("192.0.0.0/24", "protocol assignments"),
    ("192.0.2.0/24", "documentation"),
    ("192.31.196.0/24", "AS112"),
    ("192.52.193.0/24", "AMT relay"),
    ("192.88.99.0/24", "6to4 relay"),
    ("192.175.48.0/24", "AS112"),
    ("198.18.0.0/15", "benchmarking"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("224.0.0.0/4", "multicast"),
    ("255.255.255.255/32", "broadcast"),
    ("240.0.0.0/4", "reserved"),
    ("::/128", "unspecified"),
    ("::/96", "IPv4-compatible"),
    ("64:ff9b:1::/48", "local NAT64"),
    ("100::/64", "discard only"),
    ("2001::/32", "Teredo tunnel"),
    ("2001:2::/48", "benchmarking"),
    ("2001:10::/28", "ORCHID"),
    ("2001:20::/28", "ORCHID"),
    ("2001::/23", "protocol assignments"),
    ("2001:db8::/32", "documentation"),
    ("2002::/16", "6to4 tunnel"),
    ("2620:4f:8000::/48", "AS112"),
    ("3fff::/20", "documentation"),
    ("5f00::/16", "segment routing"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local"),
    ("ff00::/8", "multicast"),
)
# These only carry an IPv4 address in their last 32 bits; what it says decides.
CARRIERS = (
    ("::ffff:0:0/96", "IPv4-mapped"),
    ("64:ff9b::/96", "NAT64"),
)
GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")


def _table(rows: Iterable[tuple[str, str]]) -> tuple[tuple[Network, str], ...]:
    return tuple((ipaddress.ip_network(cidr), name) for cidr, name in rows)


_BY_ALLOW_LIST, _NEVER, _CARRIERS = _table(BY_ALLOW_LIST), _table(NEVER), _table(CARRIERS)
_OF_THE_CLOUD = _table(OF_THE_CLOUD)


PUBLIC_AND_PLAIN = "public, and nothing would be encrypted"


class BlockedAddress(OSError):
    """No socket is made for this address. ``reason`` names the kind of address, never the address."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"address is not allowed: {reason}")
        self.reason = reason


@lru_cache(maxsize=256)
def parse_networks(cidrs: tuple[str, ...]) -> tuple[Network, ...]:
    """An allow-list as networks. Raises ``ValueError`` for what is no CIDR (host bits set included)."""
    return tuple(ipaddress.ip_network(cidr) for cidr in cidrs)


def refusal(ip: str | Address, allow_networks: Iterable[str] = (), *, encrypted: bool = True) -> str | None:
    """Why ``ip`` may not be connected to, in words; None when it may.

    ``allow_networks`` (CIDR strings) opens private and loopback ranges only; what is not ``encrypted`` stays in
    these. An address that carries an IPv4 address is judged by that one; a tunnel is refused.
    """
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return "not an address"
    if reason := _refusal(address, parse_networks(tuple(allow_networks))):
        return reason
    # A private address is one that an empty allow-list refuses.
    return None if encrypted or _refusal(address, ()) else PUBLIC_AND_PLAIN


def _refusal(address: Address, allowed: tuple[Network, ...]) -> str | None:
    if carrier := _first(address, _CARRIERS):
        reason = _refusal(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF), allowed)
        return reason and f"{carrier}, {reason}"
    if reason := _first(address, _OF_THE_CLOUD):
        return reason
    if reason := _first(address, _BY_ALLOW_LIST):
        return None if any(address in network for network in allowed) else reason
    if reason := _first(address, _NEVER):
        return reason
    if address.version == 6 and address not in GLOBAL_UNICAST:
        return "not global unicast"
    return None


def _first(address: Address, table: tuple[tuple[Network, str], ...]) -> str | None:
    return next((name for network, name in table if address in network), None)
