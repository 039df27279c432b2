"""P19: which addresses may be reached. The forms are those by which internal networks are reached in the wild."""

import ipaddress

import pytest

from evidence.connectors.addresses import parse_networks, refusal

REFUSED = {
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "::1": "loopback",
    "::ffff:127.0.0.1": "IPv4-mapped, loopback",
    "::ffff:7f00:1": "IPv4-mapped, loopback",
    "64:ff9b::127.0.0.1": "NAT64, loopback",
    "10.0.0.1": "private network",
    "10.255.255.255": "private network",
    "172.16.0.1": "private network",
    "172.31.255.255": "private network",
    "192.168.1.1": "private network",
    "::ffff:10.0.0.1": "IPv4-mapped, private network",
    "64:ff9b::a00:1": "NAT64, private network",
    "100.64.0.1": "carrier-grade NAT",
    "100.127.255.255": "carrier-grade NAT",
    "169.254.169.254": "link-local",
    "::ffff:169.254.169.254": "IPv4-mapped, link-local",
    "64:ff9b::169.254.169.254": "NAT64, link-local",
    "168.63.129.16": "cloud platform service",
    "0.0.0.0": "this network",
    "0.1.2.3": "this network",
    "::ffff:0.0.0.0": "IPv4-mapped, this network",
    "192.0.0.1": "protocol assignments",
    "192.0.0.170": "protocol assignments",
    "192.0.2.1": "documentation",
    "198.51.100.7": "documentation",
    "203.0.113.9": "documentation",
    "192.31.196.1": "AS112",
    "192.52.193.1": "AMT relay",
    "192.88.99.1": "6to4 relay",
    "192.175.48.1": "AS112",
    "198.18.0.1": "benchmarking",
    "198.19.255.255": "benchmarking",
    "224.0.0.1": "multicast",
    "239.255.255.250": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "broadcast",
    "::": "unspecified",
    "::127.0.0.1": "IPv4-compatible",
    "::8.8.8.8": "IPv4-compatible",
    "::ffff:0:127.0.0.1": "not global unicast",
    "64:ff9b:1::7f00:1": "local NAT64",
    "100::1": "discard only",
    "2001::1": "Teredo tunnel",
    "2001:0:4136:e378:8000:63bf:80ff:fffe": "Teredo tunnel",
    "2001:2::1": "benchmarking",
    "2001:10::1": "ORCHID",
    "2001:20::1": "ORCHID",
    "2001:1::1": "protocol assignments",
    "2001:db8::1": "documentation",
    "2002:7f00:1::": "6to4 tunnel",
    "2002:a00:1::1": "6to4 tunnel",
    "2002:808:808::1": "6to4 tunnel",
    "2620:4f:8000::1": "AS112",
    "3fff::1": "documentation",
    "5f00::1": "segment routing",
    "fc00::1": "unique local network",
    "fd00:ec2::254": "cloud platform service",
    "fd20:ce::254": "cloud platform service",
    "100.100.100.200": "cloud platform service",
    "64:ff9b::100.100.100.200": "NAT64, cloud platform service",
    "fe80::1": "link-local",
    "fe80::1%eth0": "link-local",
    "fec0::1": "site-local",
    "ff02::1": "multicast",
    "ff0e::1": "multicast",
    "200::1": "not global unicast",
    "4000::1": "not global unicast",
    "e000::1": "not global unicast",
    "127.1": "not an address",
    "0177.0.0.1": "not an address",
    "localhost": "not an address",
    "": "not an address",
}
PUBLIC = ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "11.0.0.1", "223.255.255.255", "192.0.1.1"]
PUBLIC += ["2606:4700:4700::1111", "2a00:1450:4001:800::200e", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"]


@pytest.mark.parametrize(("ip", "reason"), REFUSED.items())
def test_refused_without_allow_list(ip, reason):
    assert refusal(ip) == reason


@pytest.mark.parametrize("ip", PUBLIC)
def test_public_addresses_are_reachable(ip):
    assert refusal(ip) is None


@pytest.mark.parametrize("ip", PUBLIC)
def test_p19_nothing_goes_to_a_public_address_in_the_clear(ip):
    assert refusal(ip, ("127.0.0.0/8",), encrypted=False) == "public, and nothing would be encrypted"


def test_what_is_not_encrypted_may_stay_in_allowed_networks():
    assert refusal("10.1.2.3", ("10.0.0.0/8",), encrypted=False) is None
    assert refusal("10.1.2.3", encrypted=False) == "private network"


def test_takes_address_objects():
    assert refusal(ipaddress.ip_address("10.0.0.1")) == "private network"


@pytest.mark.parametrize(
    ("ip", "network"),
    (
        ("127.0.0.1", "127.0.0.0/8"),
        ("::1", "::1/128"),
        ("10.1.2.3", "10.1.2.0/24"),
        ("192.168.7.7", "192.168.7.7/32"),
        ("100.100.1.1", "100.64.0.0/10"),
        ("fd12::1", "fd00::/8"),
        ("::ffff:127.0.0.1", "127.0.0.0/8"),
        ("64:ff9b::10.1.2.3", "10.1.2.0/24"),
    ),
)
def test_an_allow_list_opens_private_networks(ip, network):
    assert refusal(ip) is not None
    assert refusal(ip, ("198.51.100.0/24", network)) is None


def test_an_allow_list_opens_no_more_than_it_says():
    assert refusal("10.1.3.1", ("10.1.2.0/24",)) == "private network"
    assert refusal("::1", ("127.0.0.0/8",)) == "loopback"


@pytest.mark.parametrize(
    "ip",
    (
        "169.254.169.254",
        "fe80::1",
        "224.0.0.1",
        "0.0.0.0",
        "::",
        "255.255.255.255",
        "2002:a00:1::1",
        "168.63.129.16",
        "100.100.100.200",
        "::ffff:100.100.100.200",
        "fd00:ec2::254",
        "fd20:ce::254",
    ),
)
def test_some_addresses_are_never_reachable(ip):
    assert refusal(ip, ("0.0.0.0/0", "::/0", "100.64.0.0/10", "fd00::/8", "fd00:ec2::254/128")) is not None


@pytest.mark.parametrize("cidr", ("10.0.0.1/8", "10.0.0.0/33", "host", "", "10.0.0.0/8 "))
def test_a_malformed_allow_list_is_an_error(cidr):
    with pytest.raises(ValueError):
        parse_networks((cidr,))
