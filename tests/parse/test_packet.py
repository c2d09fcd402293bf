"""IP, UDP and TCP headers byte by byte; the readers' tests have the odd ones."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.parse.packet import (
    ends_of,
    ip_payload,
    other_way,
    packed_address,
    source_of,
    tcp_segment,
    udp_datagram,
)

IPV4 = bytes.fromhex("4500001f60d8400040114ccfc6120001c6120101") + bytes.fromhex("13c413c6000b8d43534950")
TCP = bytes.fromhex("13c4ec1000001000000020006018020000000000") + b"\1\1\1\0"


def test_an_ipv4_packet_with_udp() -> None:
    """Protocol, addresses and payload, then ports and data."""
    source, target = bytes([198, 18, 0, 1]), bytes([198, 18, 1, 1])
    assert ip_payload(IPV4) == (17, source, target, IPV4[20:], False)
    assert ip_payload(IPV4[:-1]) == (17, source, target, IPV4[20:-1], True)
    assert udp_datagram(IPV4[20:], may_be_cut=False) == (5060, 5062, b"SIP")
    assert udp_datagram(IPV4[20:-1], may_be_cut=True) == (5060, 5062, b"SI")
    assert udp_datagram(IPV4[20:-1], may_be_cut=False) is None
    assert packed_address(source) == ip_address("198.18.0.1")


def test_an_ipv6_packet() -> None:
    """The same for IPv6, whose length excludes its header."""
    source, target = ip_address("fd00:18::1").packed, ip_address("fd00:18::a").packed
    packet = bytes.fromhex("60000000000b1140") + source + target + IPV4[20:]
    assert ip_payload(packet) == (17, source, target, IPV4[20:], False)
    assert ip_payload(packet[:39]) is None
    assert packed_address(target) == ip_address("fd00:18::a")


def test_a_first_fragment_of_ipv6() -> None:
    """It may be incomplete; a later one is not parsed, nor one without its header."""
    source, target = ip_address("fd00:18::1").packed, ip_address("fd00:18::a").packed
    header = bytes.fromhex("6000000000132c40") + source + target
    first, later = bytes.fromhex("1100000100000001"), bytes.fromhex("1100000900000001")
    assert ip_payload(header + first + IPV4[20:]) == (17, source, target, IPV4[20:], True)
    assert ip_payload(header + later + IPV4[20:]) is None
    assert ip_payload(header + first[:7]) is None
    whole = bytes.fromhex("1100000000000001")
    assert ip_payload(header + whole + IPV4[20:]) == (17, source, target, IPV4[20:], False)


def test_extension_headers_of_ipv6_hide_nothing() -> None:
    """Any sender may add them, several times; without a whole header nothing is known of the packet."""
    addresses = ip_address("fd00:18::1").packed + ip_address("fd00:18::a").packed
    longer = bytes([60, 1]) + bytes(14)  # the next header is one with destination options
    last = bytes([17, 0]) + bytes(6)
    for kind in (0, 43, 60):
        payload = longer + last + IPV4[20:]
        header = b"\x60\0\0\0" + len(payload).to_bytes(2, "big") + bytes([kind, 64]) + addresses
        found = ip_payload(header + payload)
        assert found is not None
        assert (found[0], found[3], found[4]) == (17, IPV4[20:], False)
        for size in range(len(longer + last)):
            assert ip_payload(header + payload[:size]) is None
    many = bytes([60, 0, *bytes(6)]) * 8_000
    assert ip_payload(b"\x60\0\0\0\xfa\0" + bytes([60, 64]) + addresses + many) is None


def test_a_tcp_segment() -> None:
    """The ends of its connection, sequence number, flags, and the data after the options."""
    source, target = bytes((198, 18, 0, 1)), bytes((198, 18, 0, 9))
    segment = tcp_segment(source, target, TCP + b"SIP")
    assert segment is not None
    assert (segment.port, segment.target_port, segment.sequence, segment.data) == (5060, 60432, 4096, b"SIP")
    assert (segment.begins, segment.is_reset, segment.is_urgent) == (False, False, False)
    assert ends_of(segment.connection) == (source, target, TCP[:2], TCP[2:4])
    assert ends_of(other_way(segment.connection)) == (target, source, TCP[2:4], TCP[:2])
    assert tcp_segment(source, target, TCP[:23]) is None


@pytest.mark.parametrize("packet", [b"", b"\x45", b"\x55" + IPV4[1:], b"\x44" + IPV4[1:], IPV4[:19]])
def test_other_bytes_are_no_ip_packet(packet: bytes) -> None:
    """Other versions, and headers that are too short."""
    assert ip_payload(packet) is None


@given(st.binary(max_size=80))
def test_no_bytes_raise(noise: bytes) -> None:
    """Any bytes give parts of them, or None."""
    for packet in (noise, b"\x45" + noise, b"\x60" + noise):
        whole = ip_payload(packet)
        if whole is not None:
            udp_datagram(whole[3], may_be_cut=whole[4])
            tcp_segment(*whole[1:4])
            assert whole[3] in packet


def test_the_source_of_a_packet() -> None:
    """A whole header names the source in both versions of IP; any other bytes name none."""
    ipv6 = bytes.fromhex("60000000000b1140") + ip_address("fd00:18::1").packed + bytes(16)
    assert source_of(IPV4[:20]) == ip_address("198.18.0.1")
    assert source_of(ipv6) == ip_address("fd00:18::1")
    assert [source_of(packet) for packet in (b"", IPV4[:19], ipv6[:39], b"\x55" + IPV4[1:])] == [None] * 4


@pytest.mark.parametrize(
    ("options", "scale"),
    [
        (b"", 0),
        (b"\x02\x04\x05\xb4\x01\x03\x03\x07", 7),
        (b"\x01\x01\x00\x03\x03\x07\x01\x01", 0),
        (b"\x03\x03\xff\x00", 14),
        (b"\x01\x01\x01\x03", 0),
        (b"\x01\x01\x03\x03", 0),
        (b"\x08\x00\x03\x03\x07\x00\x00\x00", 7),
    ],
)
def test_the_window_of_a_segment(options: bytes, scale: int) -> None:
    """A SYN may name a scale; options that are cut off or have no length end or are skipped."""
    words = 5 + len(options) // 4
    head = bytes(12) + bytes((words << 4, 2)) + b"\x12\x34" + bytes(4)
    segment = tcp_segment(b"from", b"to", head + options + b"\x03\x03\x09")
    assert segment is not None
    assert (segment.window, segment.scale) == (0x1234, scale)
