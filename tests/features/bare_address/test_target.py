"""What a request asks for: the hosts in its request line and in its To header."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.parse.test_answers import ipv4, ipv6, tcp, udp

from ringfence.features.bare_address.target import Target, host_of, parse_copy, parse_target
from ringfence.values.event import Transport

BARE, NAME = b"sip:100@198.51.100.9", b"<sip:100@pbx.example>"


def request(line: bytes = BARE, to: bytes = NAME, method: bytes = b"OPTIONS", name: bytes = b"To") -> bytes:
    """Return a request with this request line, and this To header; its body looks like another one."""
    head = [
        *(method + b" " + line + b" SIP/2.0", b"Via: SIP/2.0/UDP 192.0.2.1"),
        *(b"From: <sip:a@192.0.2.1>;tag=1", name + b": " + to, b"Call-ID: 1"),
    ]
    return b"\r\n".join(head) + b"\r\n\r\nTo: <sip:other@other.example>\r\n"


@pytest.mark.parametrize(
    ("uri", "host"),
    [
        (b"sip:pbx.example", "pbx.example"),
        (b"sip:100@pbx.example:5060;transport=udp?x=y", "pbx.example"),
        (b"SIPS:alice:password@PBX.Example.", "pbx.example"),
        (b"sip:a;b=c?d/e&f@pbx.example", "pbx.example"),
        (b"sip:100@198.51.100.9:5060", "198.51.100.9"),
        (b"sip:[2001:DB8:0::1]:5060", "2001:db8::1"),
        (b"sip:[::ffff:198.51.100.9]", "198.51.100.9"),
        (b"sip:100@localhost", "localhost"),
        # unknown
        (b"sip:100@198.51.100.9:5060;transport=udp;line=ltbgbdu", ""),
        (b"sip:100@198.51.100.9;LINE=ltbgbdu?x=y", ""),
        (b"sip:100;line=x@198.51.100.9", "198.51.100.9"),
        (b"tel:+4930123456", ""),
        (b"sip:a@b@pbx.example", ""),
        (b"sip:100@pbx%2eexample", ""),
        (b"sip:100@pbx..example", ""),
        (b"sip:100@.", ""),
        (b"sip:100@198.51.100.300", ""),
        (b"sip:100@[pbx.example]", ""),
        (b"sip:100@[::1:x]", ""),
        (b"sip:100@[1:2]", ""),
        (b"sip:100@pbx.example:port", ""),
        (b"sip:100@p\xc3\xa4x.example", ""),
        (b"sip:", ""),
        (b"", ""),
        (b"sip:100@" + b"a" * 300, ""),
        (b"sip:" + b"1" * 300 + b"@pbx.example", ""),
    ],
)
def test_the_host_of_a_uri(uri: bytes, host: str) -> None:
    """Names are compared without case and the dot at their end; what is not surely a host is unknown."""
    assert host_of(uri) == host


@pytest.mark.parametrize("method", [b"REGISTER", b"INVITE", b"OPTIONS", b"SUBSCRIBE", b"options"])
def test_requests_that_count(method: bytes) -> None:
    """Both hosts are read, whatever the body looks like."""
    assert parse_target(b"\r\n\r\n" + request(method=method)) == Target("198.51.100.9", "pbx.example")


@pytest.mark.parametrize(
    "to",
    [
        NAME,
        b"sip:100@pbx.example",
        b"sip:100@pbx.example;x=tag",
        b'"a \\" <b>" <sip:100@pbx.example:5060;x=y>;z',
        b"Alice A <SIP:100@PBX.EXAMPLE.>",
    ],
)
@pytest.mark.parametrize("name", [b"To", b"t", b"TO "])
def test_forms_of_to(to: bytes, name: bytes) -> None:
    """A To has an address with or without brackets, and its short name is t."""
    assert parse_target(request(to=to, name=name)) == Target("198.51.100.9", "pbx.example")


@pytest.mark.parametrize(
    "text",
    [
        request(line=BARE + b":5060;line=ltbgbdu", to=b"<sip:100@198.51.100.9>"),
        request(method=b"ACK"),
        request(method=b"CANCEL"),
        request(method=b"MESSAGE"),
        request(to=b"<sip:100@pbx.example>;tag=1"),
        request(to=b"sip:100@pbx.example ; TAG =1"),
        request(to=b"<tel:+49301234>"),
        request(line=b"tel:+49301234"),
        request(to=b'"a <sip:100@pbx.example>'),
        request(to=b"<sip:100@pbx.example"),
        request(to=b"sip:100@pbx.example\r\n ;tag=1"),
        request(to=b"sip:100@pbx.exa\0mple"),
        request(to=b"sip:100@pbx.example\r\nt: <sip:100@198.51.100.9>"),
        request(to=b"a" * 2_000),
        request(line=b"sip:" + b"a" * 600),
        request(name=b"Too"),
        request().replace(b" SIP/2.0", b"  SIP/2.0", 1),
        request().partition(b"pbx")[0],
        request().partition(b"\r\nCall-ID")[0],
        b"SIP/2.0 200 OK\r\nTo: <sip:a@b.example>\r\n\r\n",
        b"\r\n\r\n",
        b"",
    ],
)
def test_what_does_not_count(text: bytes) -> None:
    """Other methods, requests within a dialog, and what is not surely read show nothing."""
    assert parse_target(text) is None


def test_a_cut_request_counts_if_its_to_is_whole() -> None:
    """The kernel copies only the beginning of a long request."""
    assert parse_target(request().partition(b"Call-ID")[0]) is not None


def test_naming() -> None:
    """One of the two hosts is enough."""
    asked = Target("198.51.100.9", "pbx.example")
    assert asked.names({"pbx.example"})
    assert asked.names({"198.51.100.9"})
    assert not asked.names({"example"})


def test_copies() -> None:
    """Datagrams and segments are read; a SYN, another protocol, and what is cut off show nothing."""
    datagram, segment = ipv4(udp(request())), ipv4(tcp(request()), kind=6)
    by_udp, by_tcp = parse_copy(datagram), parse_copy(segment)
    assert by_udp is not None
    assert by_tcp is not None
    assert by_udp.target == by_tcp.target == Target("198.51.100.9", "pbx.example")
    assert (by_udp.remote.transport, by_tcp.remote.transport) == (Transport.UDP, Transport.TCP)
    assert str(by_udp.remote.address) == "198.18.0.1"
    by_ipv6 = parse_copy(ipv6(udp(request())))
    assert by_ipv6 is not None
    assert str(by_ipv6.remote.address) == "fd00:18::1"
    for packet in (b"", datagram[:24], segment[:30], ipv4(udp(request()), kind=1), ipv4(udp(b""))):
        assert parse_copy(packet) is None


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_bytes(line: bytes, to: bytes) -> None:
    """Nothing that a stranger writes raises an exception."""
    parse_copy(ipv4(udp(request(line, to))))
    parse_target(to)


@pytest.mark.parametrize(
    "piece", [b'"', b"<", b" ", b'"\\', b"\r\nTo:", b"sip:", b"@", b"\r\n", b";tag", b"\n"]
)
def test_hostile_lengths(piece: bytes) -> None:
    """The time grows with the length, and no faster."""

    def spent(length: int) -> float:
        texts = [request(to=piece * length), request(line=piece * length), piece * length]
        best = []
        for _ in range(5):
            began = time.thread_time()
            for text in texts:
                parse_target(text)
            best.append(time.thread_time() - began)
        return min(best)

    assert spent(40_000) < 40 * spent(4_000) + 0.01
