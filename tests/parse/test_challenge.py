r"""Challenges out of packets: replies as Asterisk sent them, and everything that a packet may be instead."""

import struct
import time
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st
from tests.parse.worst import is_linear_in, seconds

from ringfence.model import Challenge, Service
from ringfence.parse.challenge import parse_challenge

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
# As recorded from Asterisk 16.28 (chan_sip): CR and folds are gone, what they held stands in the line.
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
ADDRESSES = {4: ("198.18.0.1", "198.18.1.1"), 6: ("fd00:18::1", "fd00:18::a")}


def udp(message: bytes, *, length: int | None = None) -> bytes:
    """Give a datagram from port 5060 to port 5062."""
    return struct.pack(">HHHH", 5060, 5062, 8 + len(message) if length is None else length, 0) + message


def ipv4(
    payload: bytes, *, options: bytes = b"", fragment: int = 0, total: int | None = None, kind: int = 17
) -> bytes:
    """Give an IPv4 packet."""
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
    """Give an IPv6 packet."""
    first = struct.pack(">IHBB", 0x60000000, len(payload) if length is None else length, kind, 64)
    return first + b"".join(IPv6Address(text).packed for text in ADDRESSES[6]) + payload


def challenge(call_id: bytes, nonce: bytes, version: int = 4) -> Challenge:
    """Give what a packet of these must be read as."""
    here, there = map(ip_address, ADDRESSES[version])
    return Challenge(there, 5062, here, 5060, call_id, nonce, service=Service.SIP)


def headers(*lines: bytes, status: bytes = b"401") -> Challenge | None:
    """Read an answer with these header lines."""
    return parse_challenge(
        ipv4(udp(b"".join([b"SIP/2.0 " + status + b" X\r\n", *(line + b"\r\n" for line in lines), b"\r\n"])))
    )


def test_replies_of_real_asterisks() -> None:
    """Whatever the sender had echoed, in both IP versions: the true Call-ID and the true nonce."""
    pjsip = b"a\x1bb\xff\xfe ", b"1795163184/71a15bdda2226e05b39c7e947cf7c62a"

    for version, packet in ((4, ipv4(udp(PJSIP))), (6, ipv6(udp(PJSIP)))):
        plain = challenge(*pjsip, version=version)
        expected = evolve(
            plain, sender=ip_address("198.18.1.1"), veiled=True, account="alice", service=Service.PJSIP
        )
        assert parse_challenge(packet) == expected
    plain = challenge(b"aCall-ID: forged", b"2d734fc0")
    assert parse_challenge(ipv4(udp(CHAN_SIP))) == evolve(plain, sender=ip_address("198.18.1.1"))


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
            for other in (b"2.0 4010 ", b"2.0 200 ", b"2.0  401 ")
        ),
        ipv4(udp(PJSIP.replace(b"SIP", b"sip", 1))),
        ipv4(udp(b"\r\n" + PJSIP)),
    ],
)
def test_what_is_no_challenge(packet: bytes) -> None:
    """Other protocols and versions, later fragments, extension headers, false lengths, other answers."""
    assert parse_challenge(packet) is None


def test_ip_options_and_padding() -> None:
    """IPv4 options are stepped over, and what the lengths leave out is not read."""
    expected = headers(b"Call-ID: a")

    assert parse_challenge(ipv4(udp(b"SIP/2.0 401 X\r\nCall-ID: a\r\n\r\n"), options=b"\1" * 40)) == expected
    text = b"SIP/2.0 401 X\r\n"
    for packet in (
        ipv4(udp(text + b"Call-ID: a\r\n", length=8 + len(text))),
        ipv4(udp(text, length=8 + len(text))) + b"Call-ID: a\r\n",
    ):
        assert parse_challenge(packet) == challenge(b"", b"")


@pytest.mark.parametrize(
    ("size", "call_id"), [(60, b""), (300, b"a\x1bb\xff\xfe "), (len(PJSIP) - 150, b"a\x1bb\xff\xfe ")]
)
def test_a_packet_that_was_cut(size: int, call_id: bytes) -> None:
    """A cut packet or a first fragment gives what it holds whole; half a value is none."""
    whole = len(PJSIP) + 28

    for packet in (
        ipv4(udp(PJSIP))[: 28 + size],
        ipv4(udp(PJSIP)[: 8 + size], fragment=0x2000),
        ipv4(udp(PJSIP)[: 8 + size], total=whole),
    ):
        assert parse_challenge(packet) == challenge(call_id, b"")
    assert parse_challenge(ipv6(udp(PJSIP))[: 48 + size]) == challenge(call_id, b"", 6)


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
    """Names in any case, the compact form, folds; only what stands at a line's beginning in the head."""
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
    """Quoted or not, with escapes, behind other schemes and parameters, in the header of the status."""
    assert headers(line, status=status) == challenge(b"", nonce)


@given(st.binary(max_size=300), st.integers(0, 600), st.sampled_from([PJSIP, CHAN_SIP]))
def test_no_bytes_raise(noise: bytes, place: int, real: bytes) -> None:
    """Whatever the bytes, at any place of a packet: a challenge or none."""
    for packet in (
        noise,
        ipv4(udp(b"SIP/2.0 401 " + noise)),
        ipv4(udp(real[:place] + noise + real[place:])),
        ipv6(udp(real))[:place] + noise,
    ):
        parse_challenge(packet)


@given(
    st.text(alphabet=st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=50),
    st.sampled_from([b"Via: %s", b"From: %s", b"To: %s", b"Record-Route: %s"]),
)
def test_no_value_forges_a_header(text: str, header: bytes) -> None:
    """A header's value without CR LF changes neither the Call-ID nor the nonce behind it."""
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
    """The longest packets that repeat what is looked for take some milliseconds: nothing is quadratic."""
    size = 65_000 // len(piece)
    packets = [
        ipv4(udp(start + piece * size))
        for start in (b"SIP/2.0 401 X", b"SIP/2.0 401 X\r\nWWW-Authenticate: Digest ")
    ]
    began = time.process_time()
    for packet in packets:
        parse_challenge(packet)
    assert time.process_time() - began < 0.5


# What Asterisk 16.28 and 22.10.1 made of Vias that a sender at 198.19.200.7 wrote. In brackets a host may
# hold anything, and comes back without them; behind PJSIP's note only quoted strings come back as they are.
TRUE = b";rport=5062;received=198.19.200.7;branch=z9"
MAKINGS = [
    b"x.invalid:5099" + TRUE,
    b"[fd00::1%lan]" + TRUE,
    b"x;received=198.19.77.77;y" + TRUE,
    b'x;q="' + TRUE,
    b'x;received=198.19.77.77;q="' + TRUE + b';x="a"',
    b"x;q=\\" + TRUE,
    b"198.18.0.2:5;rport=5062;maddr=198.19.77.77;received=198.19.200.7;branch=z9",
    b"x;received=198.19.77.77;y;rport=5;maddr=198.19.77.77;received=198.19.200.7",
    b"a:5" + TRUE + b';x=";received=198.19.77.77;"',
    b"a:5" + TRUE + b';x="a;received=198.19.77.77;y="',
    b"a:5" + TRUE + b';x="a;received=198.19.77.77;y=";z=";c"',
    b"a:5" + TRUE + b';x="\\";received=198.19.77.77;y=\\\\"',
    b"a:5" + TRUE + b';x=";y=\\"b\\";received=198.19.77.77";q="";lr',
    b"a:5" + TRUE + b";rec%65ived=198.19.77.77;branch=%22;received",
]


def by_via(via: bytes, name: bytes = b"Via") -> Challenge:
    """Read PJSIP's answer to a request with this topmost Via."""
    end = PJSIP.index(b"\r\nRecord")
    message = PJSIP[: PJSIP.index(b"Via:")] + name + b": SIP/2.0/UDP " + via + PJSIP[end:]
    read = parse_challenge(ipv4(udp(message)))
    assert read is not None
    return read


@pytest.mark.parametrize("via", MAKINGS)
@pytest.mark.parametrize("name", [b"Via", b"v"])
def test_pjsip_tells_who_asked(name: bytes, via: bytes) -> None:
    """Whatever the sender wrote before PJSIP's own note and behind it."""
    assert by_via(via, name).sender == ip_address("198.19.200.7")


@pytest.mark.parametrize(
    "via", [b"", b"a", b"a;received=", b"a;received=x.invalid", b"a;received=\xb2", b'a;x="', b'"', b'\\"']
)
def test_a_via_without_an_address_names_nobody(via: bytes) -> None:
    """No version of PJSIP's is known to send one."""
    assert by_via(via).sender is None


@given(
    st.binary(max_size=40).map(lambda raw: raw.translate(None, b"]\r\n")),
    st.lists(st.text(st.sampled_from('ab;="\\ received=1.2'), max_size=20), max_size=4),
)
def test_nothing_a_sender_writes_changes_who_asked(host: bytes, values: list[str]) -> None:
    """A host in brackets is any bytes, and a quoted value any text with quotes and backslashes escaped."""
    escaped = (value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    others = "".join(f';x="{value}"' for value in escaped).encode()
    assert by_via(host + TRUE + others).sender == ip_address("198.19.200.7")


@pytest.mark.parametrize("unit", [b";received=1", b'"', b";", b'\\"', b'="', b'";x="'])
def test_the_worst_via_takes_linear_time(unit: bytes) -> None:
    """A datagram holds 64 kB of it, and each byte is looked at a few times at most."""

    def reading(size: int) -> float:
        return seconds(by_via, unit * (size // len(unit)))

    assert is_linear_in(reading, 60_000)


@pytest.mark.parametrize(
    ("call_id", "name", "veiled"),
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
def test_a_request_is_veiled_by_what_no_phone_sends(call_id: bytes, name: bytes, *, veiled: bool) -> None:
    """A Call-ID that is not UTF-8 or too long, a control character, a notice's words; no other alphabet."""
    message = PJSIP[: PJSIP.index(b";branch")] + PJSIP[PJSIP.index(b"\r\nCall-ID") :]
    message = message.replace(b"a\x1bb\xff\xfe ", call_id).replace(b'"a\x00\x1bb" ', name)
    message = message.replace(b';x="\r\rCall-ID: forged"', b"")
    read = parse_challenge(ipv4(udp(message)))

    assert read is not None
    assert (read.call_id, read.veiled) == (call_id, veiled)


_TEXT = st.one_of(
    st.text(st.sampled_from("a0.:,=ip"), min_size=1, max_size=8),
    st.text(st.sampled_from('a:;,@<>"\\= \r\nsip:é\x1b;tag=received'), max_size=12),
).map(str.encode)
_NAME = st.one_of(st.sampled_from([b"", b'"a b" ']), _TEXT)


@given(_TEXT, _TEXT, _NAME, _TEXT, _NAME, st.sampled_from([b"198.18.1.1", b"fd00::1", b"1.2", b""]))
@example(b"198.18.1.1:5062;rport=5062", b"a@b", b'"Al Ice" ', b"alice", b"", b"198.18.1.1")
@example(b"h:1;rport=2;received=203.0.113.9", b"a", b"", b"sip", b'"', b"198.18.1.1")
@example(b"h:1", b"a", b'"sip:x@y" ', b"alice", b"", b"198.18.1.1")
@example(b"h:1", b"a", b"", b"alice@sip:bob", b"", b"198.18.1.1")
@example(b"h:1", b"a", b'"' + b"b" * 500 + b'" ', b"a" * 60, b"", b"198.18.1.1")
def test_what_is_read_at_once_is_read_in_steps_alike(
    via: bytes, call_id: bytes, name: bytes, user: bytes, more: bytes, noted: bytes
) -> None:
    """Whatever a sender writes into an answer: the same challenge as with one more header."""
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

    assert parse_challenge(ipv4(udp(at_once))) == parse_challenge(ipv4(udp(in_steps)))


def test_only_pjsips_own_nonce_makes_it_pjsips() -> None:
    """Of chan_sip and of other servers its note is not believed: another grammar holds there."""
    for nonce in (b"1795163184/71A15BDDA2226E05B39C7E947CF7C62A", b"71a15bdd", b"x/y"):
        read = parse_challenge(
            ipv4(udp(PJSIP.replace(b"1795163184/71a15bdda2226e05b39c7e947cf7c62a", nonce)))
        )
        assert read is not None
        assert (read.nonce, read.sender, read.veiled, read.service) == (nonce, None, False, Service.SIP)


def by_chan_sip(via: bytes) -> Challenge:
    """Read chan_sip's answer with this topmost Via."""
    start, end = CHAN_SIP.index(b"Via: ") + len(b"Via: "), CHAN_SIP.index(b"\r\nFrom")
    read = parse_challenge(ipv4(udp(CHAN_SIP[:start] + via + CHAN_SIP[end:])))
    assert read is not None
    return read


# What chan_sip 16.28 made of Vias with every such trick in them: its own note stands before the first comma.
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
def test_chan_sip_tells_who_asked(via: bytes) -> None:
    """Whatever the sender wrote around its note."""
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
def test_a_via_of_chan_sips_that_may_be_cut_names_nobody(via: bytes) -> None:
    """It cuts at 511 bytes: there the note at the end may be the sender's own."""
    assert by_chan_sip(via).sender is None


def test_a_note_of_ipv4_in_ipv6_clothes_is_ipv4() -> None:
    """That is what the packets carry, and what is banned."""
    assert by_chan_sip(b"SIP/2.0/UDP h;received=::ffff:198.19.200.7").sender == ip_address("198.19.200.7")
    assert by_via(b"h;received=::ffff:198.19.200.7;branch=z").sender == ip_address("198.19.200.7")
