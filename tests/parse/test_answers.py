r"""Challenges from packets: replies as Asterisk sent them, and everything else that a packet may hold."""

import re
import struct
import time
from ipaddress import IPv4Address, IPv6Address, ip_address
from unittest.mock import patch

import pytest
from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st
from tests.parse.worst import is_linear_in, seconds

from ringfence.parse.answer_stream import AnswerStreams
from ringfence.parse.answers import continues, parse_answers, parse_cut
from ringfence.parse.packet import segment_in
from ringfence.values.event import Service, Transport, short_session
from ringfence.values.packet import CopiedAnswer

# As recorded from Asterisk 22.10.1: To and Via hold a bare CR, the display name ESC and NUL.
PJSIP = (
    b"SIP/2.0 401 Unauthorized\r\n"
    b"Via: SIP/2.0/UDP 198.18.1.1:45418;rport=45418;received=198.18.1.1;branch=z9hG4bK2;"
    b'x="\rCall-ID: forged"\r\n'
    b'Record-Route: <sip:x>;a="b\rCall-ID: forged"\r\n'
    b"Call-ID: a\x1bb\xff\xfe \r\n"
    b'From: "a\x00\x1bb" <sip:alice@198.18.0.1>;tag=t1\r\n'
    b'To: <sip:alice@198.18.0.1>;tag=z9hG4bK2;x="\r\rCall-ID: forged"\r\n'
    b"CSeq: 1 REGISTER\r\n"
    b'WWW-Authenticate: Digest realm="asterisk",nonce="1795163184/71a15bdda2226e05b39c7e947cf7c62a",'
    b'opaque="5e7b972e2fe7ac11",algorithm=MD5,qop="auth"\r\n'
    b"Server: Asterisk PBX 22.10.1+dfsg+~cs6.17.60671434-1\r\nContent-Length:  0\r\n\r\n"
)
# As recorded from Asterisk 16.28 (chan_sip): CR and folds are gone, and their contents stand in the line.
CHAN_SIP = (
    b"SIP/2.0 401 Unauthorized\r\n"
    b"Via: SIP/2.0/UDP 198.18.1.1:47761;branch=z9hG4bK1;received=198.18.1.1;rport=47761\r\n"
    b'From: "aWWW-Authenticate: Digest realm="x",nonce="FORGED"Call-ID: forged" '
    b"<sip:alice@198.18.0.1>;tag=t1\r\n"
    b"To: <sip:alice@198.18.0.1>;tag=as1160a052\r\nCall-ID: aCall-ID: forged\r\nCSeq: 1 REGISTER\r\n"
    b"Server: Asterisk PBX 16.28.0~dfsg-0+deb11u4\r\nSupported: replaces, timer\r\n"
    b'WWW-Authenticate: Digest algorithm=MD5, realm="asterisk", nonce="2d734fc0"\r\n'
    b"Content-Length: 0\r\n\r\n"
)
ORDINARY = (
    b"SIP/2.0 401 Unauthorized\r\n"
    b"Via: SIP/2.0/UDP 198.18.1.1:5062;rport=5062;received=198.18.1.1;branch=z9hG4bK2\r\n"
    b"Call-ID: call-1\r\nFrom: <sip:alice@198.18.0.1>;tag=t1\r\n"
    b"To: <sip:alice@198.18.0.1>;tag=z9hG4bK2\r\nCSeq: 1 REGISTER\r\n"
    b'WWW-Authenticate: Digest realm="asterisk",nonce="1795163184/71a15bdda2226e05b39c7e947cf7c62a",'
    b'opaque="7ac4",algorithm=MD5,qop="auth"\r\nContent-Length:  0\r\n\r\n'
)
# As recorded from both: a 403 has no nonce.
PJSIP_403 = (
    b"SIP/2.0 403 Forbidden\r\n"
    b"Via: SIP/2.0/UDP 198.18.1.1:5099;rport=5099;received=198.18.1.1;branch=z9hG4bK55d1dc3ec2\r\n"
    b"Call-ID: cid\r\nFrom: <sip:noaor@198.18.0.1>;tag=t1\r\n"
    b"To: <sip:noaor@198.18.0.1>;tag=z9hG4bK55d1dc3ec2\r\nCSeq: 1 REGISTER\r\n"
    b"Server: Asterisk PBX 22.10.1+dfsg+~cs6.17.60671434-1\r\nContent-Length:  0\r\n\r\n"
)
CHAN_SIP_403 = (
    b"SIP/2.0 403 Forbidden\r\n"
    b"Via: SIP/2.0/UDP 198.18.1.1:5099;branch=z9hG4bK245884e8d7;received=198.18.1.1;rport=5099\r\n"
    b"From: <sip:bob@198.18.0.1>;tag=t1\r\nTo: <sip:100@198.18.0.1>;tag=as2d5f1d3e\r\n"
    b"Call-ID: mm\r\nCSeq: 2 MESSAGE\r\nServer: Asterisk PBX 16.28.0~dfsg-0+deb11u4\r\n"
    b"Supported: replaces, timer\r\nContent-Length: 0\r\n\r\n"
)
# As recorded from both: a guest's call to an unknown extension.
PJSIP_404 = (
    b"SIP/2.0 404 Not Found\r\n"
    b"Via: SIP/2.0/UDP 198.18.1.1:5099;rport=5099;received=198.18.1.1;branch=z9hG4bK379dabd1aea2\r\n"
    b"Call-ID: cid\r\nFrom: <sip:stranger@guests.example>;tag=1\r\n"
    b"To: <sip:nobody@198.18.0.1>;tag=f06e0991-f8ed-4052-a29a-293288b6eeeb\r\nCSeq: 1 INVITE\r\n"
    b"Server: Asterisk PBX 22.10.1+dfsg+~cs6.17.60671434-1\r\nContent-Length:  0\r\n\r\n"
)
CHAN_SIP_404 = (
    b"SIP/2.0 404 Not Found\r\n"
    b"Via: SIP/2.0/UDP 198.18.1.1:5099;branch=z9hG4bK8544041a45e6;received=198.18.1.1;rport=5099\r\n"
    b"From: <sip:stranger@guests.example>;tag=1\r\nTo: <sip:nobody@198.18.0.1>;tag=as7a712164\r\n"
    b"Call-ID: cid\r\nCSeq: 1 INVITE\r\nServer: Asterisk PBX 16.28.0~dfsg-0+deb11u4\r\n"
    b"Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, SUBSCRIBE, NOTIFY, INFO, PUBLISH, MESSAGE\r\n"
    b"Supported: replaces, timer\r\nContent-Length: 0\r\n\r\n"
)
ADDRESSES = {4: ("198.18.0.1", "198.18.1.1"), 6: ("fd00:18::1", "fd00:18::a")}


def udp(message: bytes, *, length: int | None = None) -> bytes:
    """Return a datagram from port 5060 to port 5062."""
    return struct.pack(">HHHH", 5060, 5062, 8 + len(message) if length is None else length, 0) + message


def answers_in(packet: bytes) -> list[CopiedAnswer]:
    """Return the answers in one packet, also an incomplete one."""
    alone = AnswerStreams()
    return parse_answers(packet, alone) + parse_cut(alone)


def ipv4(
    payload: bytes, *, options: bytes = b"", fragment: int = 0, total: int | None = None, kind: int = 17
) -> bytes:
    """Return an IPv4 packet."""
    header = 20 + len(options)
    first = struct.pack(
        ">BBHHHBBH",
        0x40 | header // 4,
        0,
        header + len(payload) if total is None else total,
        0,
        fragment,
        64,
        kind,
        0,
    )
    return first + b"".join(IPv4Address(text).packed for text in ADDRESSES[4]) + options + payload


def ipv6(payload: bytes, *, kind: int = 17, length: int | None = None) -> bytes:
    """Return an IPv6 packet."""
    first = struct.pack(">IHBB", 0x60000000, len(payload) if length is None else length, kind, 64)
    return first + b"".join(IPv6Address(text).packed for text in ADDRESSES[6]) + payload


def tcp(data: bytes, *, sequence: int = 1000, options: bytes = b"") -> bytes:
    """Return a segment from port 5060 to port 5062."""
    offset = (20 + len(options)) // 4 << 4
    return struct.pack(">HHIIBBHHH", 5060, 5062, sequence, 0, offset, 0x18, 0, 0, 0) + options + data


def challenge(call_id: bytes, nonce: bytes, version: int = 4) -> CopiedAnswer:
    """Return the expected challenge of a packet with these values and without a Via."""
    here, there = map(ip_address, ADDRESSES[version])
    return CopiedAnswer(there, 5062, here, 5060, call_id, nonce, service=Service.SIP, relayed=True)


def only(packet: bytes) -> CopiedAnswer | None:
    """Return the one answer of a packet without its digest, None if it has none."""
    answers = [evolve(answer, digest=b"") for answer in answers_in(packet)]
    assert len(answers) <= 1
    return answers[0] if answers else None


def headers(*lines: bytes, status: bytes = b"401") -> CopiedAnswer | None:
    """Parse an answer with these header lines."""
    found = only(
        ipv4(udp(b"".join([b"SIP/2.0 " + status + b" X\r\n", *(line + b"\r\n" for line in lines), b"\r\n"])))
    )
    return found if found is None else evolve(found, status=401)


def test_replies_of_real_asterisks() -> None:
    """They hold the true Call-ID and nonce, whatever text the sender had echoed, in both IP versions."""
    pjsip = b"a\x1bb\xff\xfe ", b"1795163184/71a15bdda2226e05b39c7e947cf7c62a"

    for version, packet in ((4, ipv4(udp(PJSIP))), (6, ipv6(udp(PJSIP)))):
        plain = challenge(*pjsip, version=version)
        expected = evolve(
            plain,
            sender=ip_address("198.18.1.1"),
            evasive=True,
            account="alice",
            service=Service.PJSIP,
            sequence=1,
        )  # and relayed: some parsers end a line at the CR in its Via
        assert only(packet) == expected
    plain = challenge(b"aCall-ID: forged", b"2d734fc0")
    expected = evolve(plain, sender=ip_address("198.18.1.1"), relayed=False, sequence=1)
    assert only(ipv4(udp(CHAN_SIP))) == expected


def test_the_order_of_lines_shows_the_author_of_a_403() -> None:
    """PJSIP writes Call-ID before From, chan_sip after it, and each writes the sender in its own way."""
    far, near = map(ip_address, ("198.18.1.1", "198.18.0.1"))
    plain = CopiedAnswer(far, 5062, near, 5060, b"cid", b"", far, account="noaor", status=403, sequence=1)
    assert only(ipv4(udp(PJSIP_403))) == plain
    other = evolve(plain, call_id=b"mm", account="", service=Service.SIP, sequence=2)
    assert only(ipv4(udp(CHAN_SIP_403))) == other


def test_the_order_of_lines_shows_the_author_of_a_404() -> None:
    """Sender, Call-ID and service are those of the request that it answers, as with a 403."""
    far, near = map(ip_address, ("198.18.1.1", "198.18.0.1"))
    plain = CopiedAnswer(far, 5062, near, 5060, b"cid", b"", far, account="stranger", status=404, sequence=1)
    assert only(ipv4(udp(PJSIP_404))) == plain
    assert only(ipv4(udp(CHAN_SIP_404))) == evolve(plain, account="", service=Service.SIP)


@pytest.mark.parametrize("status", [100, 180, 200, 402, 405, 486, 699])
@pytest.mark.parametrize("text", [PJSIP_403, CHAN_SIP_403])
def test_any_answer_by_udp_names_its_request(text: bytes, status: int) -> None:
    """An answer that is no refusal has the sender, the Call-ID and the CSeq number of its request too."""
    refusal = only(ipv4(udp(text)))
    assert refusal is not None
    other = text.replace(b" 403 ", b" %d " % status)
    assert only(ipv4(udp(other))) == evolve(refusal, status=status)
    assert answers_in(ipv4(tcp(other))) == []


@pytest.mark.parametrize(
    ("line", "sequence"),
    [
        (b"CSeq: 12 REGISTER", 12),
        (b"CSeq: 4294967295 INVITE", 4_294_967_295),
        (b"cseq:7 INVITE", 7),
        (b"CSeq: x INVITE", None),
        (b"CSeq: -1 INVITE", None),
        (b"CSeq: 12345678901 INVITE", None),
        (b"X-CSeq: 1 INVITE", None),
    ],
)
def test_the_number_of_the_request(line: bytes, sequence: int | None) -> None:
    """The CSeq number is that of the answer's own header; None if it is no number of ten digits at most."""
    found = headers(line)
    assert found is not None
    assert found.sequence == sequence


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        (ORDINARY, False),
        (ORDINARY.replace(b'algorithm=MD5,qop="auth"', b'stale=true,algorithm=MD5,qop="auth"'), True),
        (CHAN_SIP, False),
        (CHAN_SIP.replace(b'nonce="2d734fc0"', b'nonce="2d734fc0", stale=true'), True),
        (CHAN_SIP.replace(b'"aWWW-', b'"stale=true'), False),
        (CHAN_SIP_403, False),
        (CHAN_SIP_403.replace(b"Forbidden", b"Forbidden (policy)"), True),
        (CHAN_SIP_403.replace(b"tag=t1", b"tag=SIP/2.0 403 Forbidden (policy)stale=true"), False),
    ],
)
def test_a_refusal_after_a_right_password(text: bytes, accepted: bool) -> None:  # noqa: FBT001 - a parameter
    """``stale=true`` after Asterisk's nonce, and chan_sip's policy; the same text elsewhere shows nothing."""
    found = only(ipv4(udp(text)))
    assert found is not None
    assert found.accepted is accepted


def test_a_refusal_has_a_digest_of_its_bytes() -> None:
    """A repeat has the same digest, the answer to another request another one; a challenge has none."""
    texts = [PJSIP_404, PJSIP_404, PJSIP_404.replace(b"CSeq: 1", b"CSeq: 2"), CHAN_SIP_403, PJSIP]
    first, repeat, other, refusal, challenged = [answers_in(ipv4(udp(text)))[0].digest for text in texts]
    assert first == repeat
    assert len({first, other, refusal, challenged}) == 4
    assert challenged == b""


@pytest.mark.parametrize("text", [CHAN_SIP_403, CHAN_SIP_404])
def test_no_via_makes_a_refusal_of_chan_sip_pjsips(text: bytes) -> None:
    """A Via that ends as PJSIP's does is still chan_sip's, and ``received`` before the comma counts."""
    note = b";received=198.18.1.1;rport=5099"
    assert note in text
    forged = note + b",SIP/2.0/UDP h;rport=5;received=203.0.113.9;branch=z"
    read = only(ipv4(udp(text.replace(note, forged))))
    assert read is not None
    assert (read.service, str(read.sender), read.relayed) == (Service.SIP, "198.18.1.1", True)


@pytest.mark.parametrize("text", [PJSIP_403, CHAN_SIP_403, PJSIP_404, CHAN_SIP_404])
def test_a_cut_refusal_names_no_sender_before_its_author_is_known(text: bytes) -> None:
    """Byte by byte: a part of it gives the same value, or an empty one, and is relayed."""
    whole = only(ipv4(udp(text)))
    assert whole is not None
    for size in range(12, len(text)):
        part = only(ipv4(udp(text))[: 28 + size])
        assert part is not None
        assert part.relayed
        assert part.sender in (None, whole.sender)
        assert part.call_id in (b"", whole.call_id)
        if part.sender is not None:
            assert part.service is whole.service


def test_a_407_has_its_status() -> None:
    """The status is the answer's own."""
    answer = CHAN_SIP.replace(b" 401 ", b" 407 ").replace(
        b"WWW-Authenticate: Digest alg", b"Proxy-Authenticate: Digest alg"
    )
    read = only(ipv4(udp(answer)))
    assert read is not None
    assert (read.status, read.nonce, read.transport) == (407, b"2d734fc0", Transport.UDP)


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\x45",
        b"\x60",
        ipv4(udp(PJSIP))[:19],
        ipv4(udp(PJSIP))[:27],
        b"\x55" + ipv4(udp(PJSIP))[1:],
        b"\x44" + ipv4(udp(PJSIP))[1:],
        b"\x4f" + ipv4(udp(b""), total=30)[1:],
        ipv4(udp(PJSIP), kind=132),
        ipv4(udp(PJSIP), kind=6),
        ipv4(udp(PJSIP), fragment=1),
        ipv4(udp(PJSIP), fragment=0x2001),
        ipv4(udp(PJSIP), total=19),
        ipv4(udp(PJSIP), total=40),
        ipv4(udp(PJSIP, length=7)),
        ipv4(udp(PJSIP, length=9 + len(PJSIP))),
        ipv6(udp(PJSIP))[:39],
        ipv6(udp(PJSIP), kind=44),
        ipv6(udp(PJSIP), kind=0),
        ipv6(udp(PJSIP), length=20),
        ipv6(udp(PJSIP, length=9 + len(PJSIP))),
        *(
            ipv4(udp(PJSIP.replace(b"2.0 401 ", other, 1)))
            for other in (b"2.0 4010 ", b"2.0  401 ", b"2.0 701 ", b"2.0 40 ", b"2.0 4x1 ")
        ),
        ipv4(udp(PJSIP.replace(b"SIP", b"sip", 1))),
        ipv4(udp(b"\r\n" + PJSIP)),
    ],
)
def test_other_packets_are_no_challenge(packet: bytes) -> None:
    """Other protocols and versions, later fragments, extension headers, false lengths, other answers."""
    assert answers_in(packet) == []


def test_ip_options_and_padding() -> None:
    """IPv4 options are skipped, and bytes outside of the lengths are not read."""
    expected = headers(b"Call-ID: a")

    assert only(ipv4(udp(b"SIP/2.0 401 X\r\nCall-ID: a\r\n\r\n"), options=b"\1" * 40)) == expected
    text = b"SIP/2.0 401 X\r\n"
    for packet in (
        ipv4(udp(text + b"Call-ID: a\r\n", length=8 + len(text))),
        ipv4(udp(text, length=8 + len(text))) + b"Call-ID: a\r\n",
    ):
        assert only(packet) == challenge(b"", b"")


@pytest.mark.parametrize(
    ("size", "call_id", "sequence"),
    [(60, b"", None), (300, b"a\x1bb\xff\xfe ", None), (len(PJSIP) - 150, b"a\x1bb\xff\xfe ", 1)],
)
def test_a_packet_that_was_cut(size: int, call_id: bytes, sequence: int | None) -> None:
    """A cut packet or a first fragment gives its complete values; half a value is missing."""
    whole = len(PJSIP) + 28

    for packet in (
        ipv4(udp(PJSIP))[: 28 + size],
        ipv4(udp(PJSIP)[: 8 + size], fragment=0x2000),
        ipv4(udp(PJSIP)[: 8 + size], total=whole),
    ):
        assert only(packet) == evolve(challenge(call_id, b""), sequence=sequence)
    assert only(ipv6(udp(PJSIP))[: 48 + size]) == evolve(challenge(call_id, b"", 6), sequence=sequence)


@pytest.mark.parametrize(
    ("line", "call_id"),
    [
        (b"Call-ID: a", b"a"),
        (b"CALL-id \t :\t a b", b"a b"),
        (b"i:a", b"a"),
        (b"I : a", b"a"),
        (b"Call-ID:", b""),
        (b"Call-ID: a\r\n b\r\n\t  c", b"a b c"),
        (b"Call-ID: one\r\ni: two", b"one"),
        (b"i: one\r\nCall-ID: two", b"one"),
        (b"Call-IDs: a\r\nIn: b\r\nX-Call-ID: c", b""),
        (b"Subject: x\r\n Call-ID: a", b""),
        (b"Subject: x\nCall-ID: a\rCall-ID: b", b""),
        (b"\r\nCall-ID: body", b""),
    ],
)
def test_the_first_call_id(line: bytes, call_id: bytes) -> None:
    """Names in any case, the compact form, folds; only at the beginning of a line in the head."""
    assert headers(line) == challenge(call_id, b"")


@pytest.mark.parametrize(
    ("status", "line", "nonce"),
    [
        (b"401", b'WWW-Authenticate: Digest nonce="a"', b"a"),
        (b"407", b'Proxy-Authenticate: Digest nonce="a"', b"a"),
        (b"407", b'WWW-Authenticate: Digest nonce="a"', b""),
        (b"401", b'www-authenticate : digest realm="r" , NONCE = "a b"', b"a b"),
        (b"401", b"WWW-Authenticate: Digest nonce=a,qop=b", b"a"),
        (b"401", rb'WWW-Authenticate: Digest realm="\",nonce=\"x",nonce="a\"\\b"', rb'a"\b'),
        (b"401", b'WWW-Authenticate: Digest realm="r",\r\n nonce="a"', b"a"),
        (b"401", b'WWW-Authenticate: Basic nonce="x", Digest nonce="a", Digest nonce="b"', b"a"),
        (b"401", b'WWW-Authenticate: Basic realm="x"\r\nWWW-Authenticate: Digest nonce="a"', b"a"),
        (b"401", b'WWW-Authenticate: Digest realm="r"\r\nWWW-Authenticate: Digest nonce="a"', b"a"),
        (b"401", b'WWW-Authenticate: Digest xnonce="a", cnonce="b"', b""),
        (b"401", b'WWW-Authenticate: Digest nonce="a', b""),
        (b"401", b'WWW-Authenticate: nonce="a"', b""),
        (b"401", b"WWW-Authenticate:", b""),
    ],
)
def test_the_nonce_of_the_first_digest(status: bytes, line: bytes, nonce: bytes) -> None:
    """Quoted or not, with escapes, after other schemes and parameters, in the header of the status."""
    assert headers(line, status=status) == challenge(b"", nonce)


@given(st.binary(max_size=300), st.integers(0, 600), st.sampled_from([PJSIP, CHAN_SIP]))
def test_no_bytes_raise(noise: bytes, position: int, real: bytes) -> None:
    """Any bytes, at any position of a packet, give a challenge or none."""
    for packet in (
        noise,
        ipv4(udp(b"SIP/2.0 401 " + noise)),
        ipv4(udp(real[:position] + noise + real[position:])),
        ipv6(udp(real))[:position] + noise,
    ):
        answers_in(packet)


@given(
    st.text(alphabet=st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=50),
    st.sampled_from([b"Via: %s", b"From: %s", b"To: %s", b"Record-Route: %s"]),
)
def test_no_value_forges_a_header(text: str, header: bytes) -> None:
    """A header's value without CR LF changes neither the Call-ID nor the nonce after it."""
    value = text.encode("latin-1") + b'\rCall-ID: f\nCall-ID: g\rWWW-Authenticate: Digest nonce="f"'
    told = headers(header % value, b"Call-ID: true", b'WWW-Authenticate: Digest nonce="n"')
    assert told == challenge(b"true", b"n")


@pytest.mark.parametrize(
    "piece",
    [
        b"\r\ni",
        b"\r\nCall-ID ",
        b"\r\n ",
        b"\r\nWWW-Authenticate: Digest ",
        b"\r\nWWW-Authenticate:",
        b'\r\nWWW-Authenticate: Digest nonce="',
        b' a="\\',
        b",=",
        b"a ",
        b" ",
        b'"',
    ],
)
def test_no_packet_takes_long(piece: bytes) -> None:
    """The longest packets of repeated patterns take some milliseconds: nothing is quadratic."""
    size = 65_000 // len(piece)
    packets = [
        ipv4(udp(start + piece * size))
        for start in (b"SIP/2.0 401 X", b"SIP/2.0 401 X\r\nWWW-Authenticate: Digest ")
    ]
    began = time.process_time()
    for packet in packets:
        answers_in(packet)
    assert time.process_time() - began < 0.5


# The output of Asterisk 16.28 and 22.10.1 for Vias of a sender at 198.19.200.7. In brackets a host may hold
# anything, and returns without them; after PJSIP's ``received`` only quoted strings return unchanged.
TRUE = b";rport=5062;received=198.19.200.7;branch=z9"
MAKINGS = [
    b"x.invalid:5099" + TRUE,
    b"[fd00::1%lan]" + TRUE,
    b"x;received=198.19.77.77;y" + TRUE,
    b'x;q="' + TRUE,
    b'x;received=198.19.77.77;q="' + TRUE + b';x="a"',
    b"x;q=\\" + TRUE,
    b'x"y' + TRUE + b';x="a\\"b"',
    b"198.18.0.2:5;rport=5062;maddr=198.19.77.77;received=198.19.200.7;branch=z9",
    b"x;received=198.19.77.77;y;rport=5;maddr=198.19.77.77;received=198.19.200.7",
    b"a:5" + TRUE + b';x=";received=198.19.77.77;"',
    b"a:5" + TRUE + b';x="a;received=198.19.77.77;y="',
    b"a:5" + TRUE + b';x="a;received=198.19.77.77;y=";z=";c"',
    b"a:5" + TRUE + b';x="\\";received=198.19.77.77;y=\\\\"',
    b"a:5" + TRUE + b';x=";y=\\"b\\";received=198.19.77.77";q="";lr',
    b"a:5" + TRUE + b";rec%65ived=198.19.77.77;branch=%22;received",
]


def by_via(via: bytes, name: bytes = b"Via") -> CopiedAnswer:
    """Parse PJSIP's answer to a request with this topmost Via."""
    end = PJSIP.index(b"\r\nRecord")
    message = PJSIP[: PJSIP.index(b"Via:")] + name + b": SIP/2.0/UDP " + via + PJSIP[end:]
    read = only(ipv4(udp(message)))
    assert read is not None
    return read


@pytest.mark.parametrize("via", MAKINGS)
@pytest.mark.parametrize("name", [b"Via", b"v"])
def test_pjsip_writes_the_sender(name: bytes, via: bytes) -> None:
    """PJSIP's own ``received`` counts, whatever the sender wrote before it and after it."""
    assert by_via(via, name).sender == ip_address("198.19.200.7")


@pytest.mark.parametrize(
    "via", [b"", b"a", b"a;received=", b"a;received=x.invalid", b"a;received=\xb2", b'a;x="', b'"', b'\\"']
)
def test_a_via_without_an_address_gives_no_sender(via: bytes) -> None:
    """No version of PJSIP is known to send one."""
    assert by_via(via).sender is None


@given(
    st.binary(max_size=40).map(lambda raw: raw.translate(None, b"]\r\n")),
    st.lists(st.text(st.sampled_from('ab;="\\ received=1.2'), max_size=20), max_size=4),
)
def test_no_text_of_a_sender_changes_its_address(host: bytes, values: list[str]) -> None:
    """A host in brackets is any bytes, and a quoted value any text with quotes and backslashes escaped."""
    escaped = (value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    others = "".join(f';x="{value}"' for value in escaped).encode()
    assert by_via(host + TRUE + others).sender == ip_address("198.19.200.7")


@pytest.mark.parametrize("unit", [b";received=1", b'"', b";", b'\\"', b'="', b'";x="'])
def test_the_worst_via_takes_linear_time(unit: bytes) -> None:
    """A datagram holds 64 kB of it, and each byte is read a few times at most."""

    def measure(size: int) -> float:
        return seconds(by_via, unit * (size // len(unit)))

    assert is_linear_in(measure, 60_000)


@pytest.mark.parametrize(
    ("call_id", "name", "evasive"),
    [
        (b"abc@192.0.2.7", b'"M\xc3\xbcller" ', False),
        (b"abc@192.0.2.7", b'"M\xfcller" ', False),
        ("größe".encode(), b"", False),
        (b"a\xff", b"", True),
        (b"a\x1b", b"", True),
        (b"a\x00", b"", True),
        (b"a", b'"x\x1b" ', True),
        (b"a", b'"x\ry" ', True),
        (b"a", b'"x\x7f" ', True),
        (b"a", b'"x\ty" ', False),
        (b"a", b"\"x' failed for '203.0.113.9:5' (callid: y\" ", True),
        (b"x' failed for '203.0.113.9:5' (callid: y", b"", True),
        (b"a" * 512, b"", False),
        (b"a" * 513, b"", True),
    ],
)
def test_a_request_with_text_that_no_phone_sends_is_evasive(
    call_id: bytes, name: bytes, *, evasive: bool
) -> None:
    """A Call-ID that is not UTF-8 or too long, a control character, a notice's words; no other alphabet."""
    message = PJSIP[: PJSIP.index(b";branch")] + PJSIP[PJSIP.index(b"\r\nCall-ID") :]
    message = message.replace(b"a\x1bb\xff\xfe ", call_id).replace(b'"a\x00\x1bb" ', name)
    message = message.replace(b';x="\r\rCall-ID: forged"', b"")
    read = only(ipv4(udp(message)))

    assert read is not None
    assert (read.call_id, read.evasive) == (short_session(call_id), evasive)


_TEXT = st.one_of(
    st.text(st.sampled_from("a0.:,=ip"), min_size=1, max_size=8),
    st.text(st.sampled_from('a:;,@<>"\\= \r\nsip:é\x1b;tag=received'), max_size=12),
).map(str.encode)
_NAME = st.one_of(st.sampled_from([b"", b'"a b" ']), _TEXT)


@given(_TEXT, _TEXT, _NAME, _TEXT, _NAME, st.sampled_from([b"198.18.1.1", b"fd00::1", b"1.2", b""]))
@example(b"198.18.1.1:5062;rport=5062", b"a@b", b'"Al Ice" ', b"alice", b"", b"198.18.1.1")
@example(b"h:1;rport=2;received=203.0.113.9", b"a", b"", b"sip", b'"', b"198.18.1.1")
@example(b"h\\", b"a", b"", b"alice", b"", b"198.18.1.1")
@example(b"h,h", b"a", b"", b"alice", b",b", b"198.18.1.1")
@example(b"h:1", b"a", b'"sip:x@y" ', b"alice", b"", b"198.18.1.1")
@example(b"h:1", b"a", b"", b"alice@sip:bob", b"", b"198.18.1.1")
@example(b"h:1", b"a", b'"' + b"b" * 500 + b'" ', b"a" * 60, b"", b"198.18.1.1")
def test_the_fast_pattern_and_the_steps_agree(
    via: bytes, call_id: bytes, name: bytes, user: bytes, more: bytes, noted: bytes
) -> None:
    """Any text of a sender in an answer gives the same challenge as with one more header."""
    headers = (
        b"SIP/2.0 401 Unauthorized\r\nVia: SIP/2.0/UDP " + via + b";received=" + noted + b";branch=z9" + more,
        b"Call-ID: " + call_id,
        b"From: " + name + b"<sip:" + user + b"@h>;tag=1",
        b"To: <sip:a@b>",
        b"CSeq: 1 REGISTER",
        b'WWW-Authenticate: Digest realm="a",nonce="1795163184/71a15bdda2226e05b39c7e947cf7c62a",qop="auth"',
        b"Server: Asterisk PBX 22.10.1",
    )
    end = b"Content-Length:  0\r\n\r\n"
    at_once = b"\r\n".join((*headers, end))
    in_steps = b"\r\n".join((*headers, b"Supported: path", end))

    assert only(ipv4(udp(at_once))) == only(ipv4(udp(in_steps)))


@given(
    st.sampled_from([b"100 Trying", b"200 OK", b"403 Forbidden (policy)", b"404 ", b"481 x", b"999 y"]),
    st.sampled_from([b"h:1", b"h:1;rport=2;received=203.0.113.9", b'h;x="', b"h,h"]),
    _TEXT,
    _NAME,
    st.sampled_from([b"a", b"' failed for '", b"\xff", b""]),
    st.lists(
        st.sampled_from(
            [b"Server: x", b"Contact: <sip:a@b>", b"v: SIP/2.0/UDP h", b"Via: x", b" fold", b"I: y",
             b"cseq: 9 z", b"X: ' failed for '", b"From: <sip:x@y>", b"U: \x7f", b""]
        ),
        max_size=4,
    ),
)  # fmt: skip
@example(b"200 OK", b"h:1", b"a", b"", b"' failed for '", [])
def test_an_ordinary_answer_is_read_as_any_other(
    status: bytes, via: bytes, call_id: bytes, name: bytes, to: bytes, more: list[bytes]
) -> None:
    """What is read of an answer without a challenge does not depend on its form."""
    headers = (
        b"SIP/2.0 " + status,
        b"Via: SIP/2.0/UDP " + via + b";received=198.18.1.1;branch=z9",
        b"Call-ID: " + call_id,
        b"From: " + name + b"<sip:alice@h>;tag=1",
        b"To: " + to,
        b"CSeq: 1 REGISTER",
    )
    packet = ipv4(udp(b"\r\n".join((*headers, *more, b"", b"v=0"))))
    read = only(packet)
    with patch("ringfence.parse.answers._UNCHALLENGED", re.compile(b"(?!)")):
        assert only(packet) == read


def test_only_pjsips_own_nonce_makes_it_pjsips() -> None:
    """In answers of chan_sip and other servers, ``received`` follows another grammar."""
    for nonce in (b"1795163184/71A15BDDA2226E05B39C7E947CF7C62A", b"71a15bdd", b"x/y"):
        read = only(ipv4(udp(PJSIP.replace(b"1795163184/71a15bdda2226e05b39c7e947cf7c62a", nonce))))
        assert read is not None
        assert (read.nonce, read.sender, read.evasive, read.service) == (nonce, None, False, Service.SIP)


def by_chan_sip(via: bytes) -> CopiedAnswer:
    """Parse chan_sip's answer with this topmost Via."""
    start, end = CHAN_SIP.index(b"Via: ") + len(b"Via: "), CHAN_SIP.index(b"\r\nFrom")
    read = only(ipv4(udp(CHAN_SIP[:start] + via + CHAN_SIP[end:])))
    assert read is not None
    return read


# The output of chan_sip 16.28 for Vias with all such tricks: its own ``received`` is before the first comma.
@pytest.mark.parametrize(
    "via",
    [
        b"SIP/2.0/UDP h;maddr=203.0.113.9;branch=z;received=198.19.200.7",
        b"SIP/2.0/UDP h;rport=;received=203.0.113.9;received=198.19.200.7;rport=5062",
        b"SIP/2.0/UDP [x;received=203.0.113.9];received=198.19.200.7,SIP/2.0/UDP a;received=203.0.113.9",
        b'SIP/2.0/UDP h;maddr=x;y;x="a;received=198.19.200.7;rport=48475,b"',
        b'SIP / 2.0 / UDP h;x=<;received=203.0.113.9>;x="\\";received=198.19.200.7,;received=203.0.113.9"',
        b"SIP/2.0/UDP h;received=198.19.200.7," + b"x" * 600,
    ],
)
def test_chan_sip_writes_the_sender(via: bytes) -> None:
    """Its own ``received`` counts, whatever the sender wrote around it."""
    assert by_chan_sip(via).sender == ip_address("198.19.200.7")


@pytest.mark.parametrize(
    "via",
    [
        b"",
        b"SIP/2.0/UDP h",
        b"SIP/2.0/UDP h;received=x.invalid",
        b"SIP/2.0/UDP h;received=198.19.200.7;more=1",
        b"SIP/2.0/UDP h,;received=198.19.200.7",
        (b"SIP/2.0/UDP h;x=" + b"x" * 511)[: 511 - len(b";received=203.0.113.9")] + b";received=203.0.113.9",
    ],
)
def test_a_via_of_chan_sip_that_may_be_cut_gives_no_sender(via: bytes) -> None:
    """It cuts at 511 bytes: the ``received`` at the end may then be the sender's own."""
    assert by_chan_sip(via).sender is None


def test_a_mapped_ipv4_address_becomes_ipv4() -> None:
    """The packets carry that address, and it is banned."""
    assert by_chan_sip(b"SIP/2.0/UDP h;received=::ffff:198.19.200.7").sender == ip_address("198.19.200.7")
    assert by_via(b"h;received=::ffff:198.19.200.7;branch=z").sender == ip_address("198.19.200.7")


def framed(message: bytes) -> bytes:
    """Return a server's text frame of a WebSocket."""
    size = bytes([len(message)]) if len(message) < 126 else b"\x7e" + len(message).to_bytes(2, "big")
    return b"\x81" + size + message


TWO = PJSIP.replace(b"/UDP", b"/TCP") + CHAN_SIP_403


@pytest.mark.parametrize(
    "data", [TWO, framed(PJSIP.replace(b"/UDP", b"/WS")) + framed(CHAN_SIP_403)], ids=["TCP", "WebSocket"]
)
@pytest.mark.parametrize("options", [b"", b"\1" * 40])
def test_each_answer_of_a_segment_is_read(data: bytes, options: bytes) -> None:
    """Both IP versions, with options of TCP: the answers of the datagrams, in order, with their transport."""
    alone = [only(ipv4(udp(text))) for text in (PJSIP, CHAN_SIP_403)]
    expected = [evolve(one, transport=Transport.TCP) for one in alone if one is not None]
    by_ipv4 = answers_in(ipv4(tcp(data, options=options), kind=6))
    assert [evolve(one, digest=b"") for one in by_ipv4] == expected
    by_ipv6 = answers_in(ipv6(tcp(data, options=options), kind=6))
    assert [one.call_id for one in by_ipv6] == [one.call_id for one in expected]
    assert {str(one.address) for one in by_ipv6} == {"fd00:18::a"}


@pytest.mark.parametrize("text", [PJSIP, CHAN_SIP], ids=["PJSIP", "chan_sip"])
def test_a_segment_that_ends_within_an_answer(text: bytes) -> None:
    """Byte by byte: earlier answers are whole, and missing values of the last one are empty.

    Without its Call-ID, an answer is evasive: its receiver keeps it from leaving.
    """
    data = text.replace(b"/UDP", b"/TCP") * 2
    half = len(data) // 2
    [alone] = answers_in(ipv4(tcp(data[:half]), kind=6))
    assert alone.nonce
    for size in range(half, len(data)):
        first, *rest = answers_in(ipv4(tcp(data[:size]), kind=6))
        assert first == alone
        assert len(rest) == (size >= half + len(b"SIP/2.0 4"))
        for one in rest:
            assert (one.relayed, one.status) == (True, 401)
            assert one.nonce in (b"", first.nonce)
            assert one.evasive or one.call_id
            assert not one.call_id or one.service is first.service


def test_an_answer_that_tcp_transmits_again_is_left_out() -> None:
    """Each answer counts once, at any split of segments; other connections have others."""
    streams = AnswerStreams()

    def count(data: bytes, sequence: int) -> int:
        return len(parse_answers(ipv4(tcp(data, sequence=sequence), kind=6), streams))

    near_the_end = (1 << 32) - 100
    assert count(CHAN_SIP, near_the_end) == 1
    assert count(CHAN_SIP * 2, near_the_end) == 1
    assert count(CHAN_SIP, len(CHAN_SIP) - 100) == 0
    assert len(parse_answers(ipv6(tcp(CHAN_SIP, sequence=near_the_end), kind=6), streams)) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SIP/2.1" + CHAN_SIP[7:],
        b"SIP/2.0 404" + CHAN_SIP[11:],
        b"OPTIONS sip:x SIP/2.0\r\nContent-Length: 0\r\n\r\n",
        b"\x81\x05" + b"SIP/2.0 401",
    ],
)
def test_other_data_in_a_segment_is_no_answer(data: bytes) -> None:
    """Other messages, and a 404, which the connection proves."""
    assert answers_in(ipv4(tcp(data), kind=6)) == []


@pytest.mark.parametrize("cut", [0, 19, 20])
def test_a_segment_without_a_whole_header(cut: int) -> None:
    """A header that is cut off or shorter than any is no segment."""
    assert answers_in(ipv4(tcp(CHAN_SIP)[:cut], kind=6)) == []
    wrong = bytearray(tcp(CHAN_SIP))
    wrong[12] = 0x40
    assert answers_in(ipv4(bytes(wrong), kind=6)) == []


@given(st.binary(max_size=200), st.integers(0, 1000), st.integers(0, 1000))
def test_no_segment_raises(noise: bytes, position: int, cut: int) -> None:
    """Any bytes give answers or none."""
    for data in (noise, TWO[:position] + noise + TWO[position:], framed(TWO[:position])[:cut] + noise):
        assert len(answers_in(ipv4(tcp(data), kind=6))) <= 4


SYN = struct.pack(">HHIIBBHHH", 5060, 5062, 999, 0, 5 << 4, 0x02, 0, 0, 0)


def test_a_connection_is_followed_from_its_first_segment() -> None:
    """An answer over two segments comes with the second one, and only from a connection that began."""
    streams = AnswerStreams()
    assert parse_answers(ipv4(SYN, kind=6), streams) == []
    cut = len(CHAN_SIP_403) - 50
    first = ipv4(tcp(CHAN_SIP_403[:cut]), kind=6)
    assert not continues(first, streams)
    assert parse_answers(first, streams) == []
    second = ipv4(tcp(CHAN_SIP_403[cut:], sequence=1000 + cut), kind=6)
    assert continues(second, streams)
    [answer] = parse_answers(second, streams)
    assert (answer.call_id, answer.transport) == (b"mm", Transport.TCP)


def test_a_success_counts_in_a_connection_that_was_copied_from_its_syn() -> None:
    """Without the SYN, the text may be a sender's, which Asterisk forwards in the middle of a message."""
    success = ipv4(tcp(CHAN_SIP_403.replace(b"403 Forbidden", b"200 OK")), kind=6)
    streams = AnswerStreams()
    assert parse_answers(success, streams) == []
    assert parse_answers(ipv4(SYN, kind=6), streams) == []
    assert [answer.status for answer in parse_answers(success, streams)] == [200]


@pytest.mark.parametrize("packet", [b"", ipv4(udp(b"x")), ipv4(SYN[:19], kind=6)])
def test_a_packet_without_a_segment_begins_no_connection(packet: bytes) -> None:
    """No packet, a datagram and half a header are no segment; a whole one is."""
    assert segment_in(packet) is None
    assert not continues(packet, AnswerStreams())
    assert parse_answers(packet, AnswerStreams()) == []
    assert segment_in(ipv4(SYN, kind=6)) is not None
    assert continues(ipv4(SYN, kind=6), AnswerStreams())


def test_an_ordinary_challenge_of_pjsip() -> None:
    """The answer to an ordinary REGISTER is read with its sender, account and nonce."""
    nonce = b"1795163184/71a15bdda2226e05b39c7e947cf7c62a"
    found = only(ipv4(udp(ORDINARY)))
    assert found is not None
    assert (found.call_id, found.nonce, found.account) == (b"call-1", nonce, "alice")
    assert (found.sender, found.sequence) == (ip_address("198.18.1.1"), 1)


@pytest.mark.parametrize(
    ("caller", "account"),
    [
        (b'"M\xc3\xbcller" <sip:alice@pbx>;tag=1', "alice"),
        (b'"a \\" <sip:bob@b>" <sip:alice@pbx>;tag=1', "alice"),
        (b'<sip:alice@pbx>;x="sip:bob@b";tag=1', "alice"),
        (b"<sip:pbx>;x=sip:bob@b;tag=1", "<sip:pbx>;x=sip:bob@b;tag=1"),
    ],
)
def test_the_account_of_an_answer_is_the_user_that_pjsip_looks_up(caller: bytes, account: str) -> None:
    """No other text of the From can name another user, in any form of the header that PJSIP writes."""
    line = next(one for one in ORDINARY.split(b"\r\n") if one.startswith(b"From"))
    found = only(ipv4(udp(ORDINARY.replace(line, b"From: " + caller))))
    assert found is not None
    assert found.account == account


def test_ordinary_answers_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One match reads a 401 with one challenge or several, and an answer without any."""
    line = next(one for one in ORDINARY.split(b"\r\n") if one.startswith(b"WWW"))
    head = ORDINARY.replace(line + b"\r\n", b"")
    monkeypatch.setattr("ringfence.parse.answers._read_head", None)
    for answer in (
        ORDINARY,
        ORDINARY.replace(line, b"\r\n".join((line.replace(b"MD5", b"SHA-256"), line))),
        head.replace(b"401 Unauthorized", b"200 OK").replace(b"\r\n\r\n", b"\r\nX: y\r\n\r\nv=0"),
    ):
        found = only(ipv4(udp(answer)))
        assert found is not None
        assert (found.call_id, found.status) == (b"call-1", int(answer[8:11]))
        assert bool(found.nonce) is (found.status == 401)


def test_several_challenges_in_one_answer() -> None:
    """Newer Asterisks offer several algorithms with one nonce; the answer is read as one with MD5 alone."""
    line = next(one for one in ORDINARY.split(b"\r\n") if one.startswith(b"WWW"))
    several = [line.replace(b"MD5", name) for name in (b"SHA-512-256", b"SHA-256", b"MD5")]
    one = only(ipv4(udp(ORDINARY)))
    assert one is not None
    assert only(ipv4(udp(ORDINARY.replace(line, b"\r\n".join(several))))) == one
    stale = [each + b",stale=true" for each in several]
    assert only(ipv4(udp(ORDINARY.replace(line, b"\r\n".join(stale))))) == evolve(one, accepted=True)
