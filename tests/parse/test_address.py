"""Addresses in Asterisk's forms: all of them, and nothing else."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.parse.address import parse_source, unmapped
from ringfence.parse.security import parse_endpoint
from ringfence.values.event import Endpoint, Transport
from ringfence.values.network import Address

TOKENS = [b"UDP", b"TCP", b"TLS", b"WS", b"WSS"]


@given(st.ip_addresses(), st.integers(0, 65535), st.sampled_from([*TOKENS, b""]))
@settings(deadline=None)
def test_every_end_that_asterisk_writes_is_read(address: Address, port: int, token: bytes) -> None:
    """Both families, every port, and every transport or none give the written value."""
    middle = token + b"/" if token else b""
    text = b"IPV%d/%s%s/%d" % (address.version, middle, str(address).encode(), port)
    transport = Transport(token.decode()) if token else Transport.UNKNOWN
    assert parse_endpoint(text) == Endpoint(unmapped(address), port, transport)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"(null)",
        b"/",
        b"////",
        b"IPV4",
        b"IPV4/UDP/192.0.2.7",
        b"IPV4/UDP/192.0.2.7/",
        b"IPV4/UDP/192.0.2.7/-1",
        b"IPV4/UDP/192.0.2.7/+1",
        b"IPV4/UDP/192.0.2.7/1_0",
        b"IPV4/UDP/192.0.2.7/65536",
        b"IPV4/UDP/192.0.2.7/000001",
        b"IPV4/UDP/192.0.2.7/5060/",
        b"IPV4/UDP/192.0.2.7/\xd9\xa1",
        b"IPV4/UDP/192.0.2.07/5060",
        b"IPV4/UDP/192.0.2/5060",
        b"IPV4/UDP/3221225991/5060",
        b"IPV4/UDP/192.0.2.7\n/5060",
        b" IPV4/UDP/192.0.2.7/5060",
        b"IPV4/UDP/192.0.2.7/5060 ",
        b"IPV4/UDP/192.0.2.0/24/5060",
        b"IPV4//192.0.2.7/5060",
        b"IPV4/unknown/192.0.2.7/5060",
        b"IPV4/udp/192.0.2.7/5060",
        b"ipv4/UDP/192.0.2.7/5060",
        b"IPV5/UDP/192.0.2.7/5060",
        b"IPV4/UDP/2001:db8::7/5060",
        b"IPV6/UDP/192.0.2.7/5060",
        b"IPV6/UDP/[2001:db8::7]/5060",
        b"IPV6/UDP/fe80::7%/5060",
        b"IPV6/UDP/fe80::7%a/b/5060",
        b"IPV6/UDP/fe80::7%\xff/5060",
        b"IPV6/UDP/fe80::7%" + b"a" * 60 + b"/5060",
        b"IPV6/UDP/" + b"0" * 1_000_000 + b"::1/5060",
    ],
)
def test_nothing_else_is_an_end(text: bytes) -> None:
    """Any other text gives no endpoint."""
    assert parse_endpoint(text) is None


PIECES = st.sampled_from(
    [b"IPV4", b"IPV6", b"/", b"UDP", b"192.0.2.7", b"2001:db8::7", b"%", b"5060", b"::ffff:"]
)


@given(st.binary(max_size=80) | st.lists(PIECES | st.binary(max_size=3), max_size=9).map(b"".join))
@settings(deadline=None)
def test_no_bytes_raise(text: bytes) -> None:
    """Any bytes give an endpoint or None, and an endpoint has a port and no zone."""
    end = parse_endpoint(text)
    if end is not None:
        assert 0 <= end.port <= 65535
        assert end.address == unmapped(end.address)


@pytest.mark.parametrize(
    ("written", "carried"),
    [
        ("192.0.2.7", IPv4Address("192.0.2.7")),
        ("2001:db8::7", IPv6Address("2001:db8::7")),
        ("::ffff:192.0.2.7", IPv4Address("192.0.2.7")),
        ("fe80::7%eth0", IPv6Address("fe80::7")),
        ("::192.0.2.7", IPv6Address("::192.0.2.7")),
    ],
)
def test_an_address_is_what_packets_carry(written: str, carried: Address) -> None:
    """An IPv4-mapped address becomes IPv4, and a zone is dropped."""
    assert unmapped(ip_address(written)) == carried


@pytest.mark.parametrize(
    "text", [b"[192.0.2.7", b"[192.0.2.7]5060", b"192.0.2.7:", b"192.0.2.7:65536", b"host"]
)
def test_a_source_with_a_false_end_is_none(text: bytes) -> None:
    """A bracket without its end, a port that no socket has and a name are no source."""
    assert parse_source(text) is None


def test_a_message_that_always_prints_a_port_has_one() -> None:
    """A source without the port that the message always prints is refused."""
    assert parse_source(b"2001:db8::7:5060", has_port=True) == Endpoint(
        ip_address("2001:db8::7"), 5060, Transport.UNKNOWN
    )
    assert parse_source(b"[2001:db8::7]", has_port=True) is None
    assert parse_source(b"192.0.2.7", has_port=True) is None
