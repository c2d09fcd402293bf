"""Copied requests: every nonce, Call-ID and CSeq that an Asterisk accepts from them, among any other text."""

import hashlib
import os
import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.parse.worst import is_linear_in, seconds
from tests.support.asterisk_files import PASSWORD, Kind
from tests.support.lab import Lab
from tests.support.network import PBX_IPV4, socket_in

from ringfence.parse.request_stream import RequestStreams
from ringfence.parse.requests import parse_requests
from ringfence.values.event import ambiguous_fingerprint, fingerprint, short_session
from ringfence.values.packet import CopiedRequest

NONCE = b"1795214124/e553aed184885575fe347bc9a8e5d70e"
REQUEST = (
    b"REGISTER sip:198.18.0.1 SIP/2.0\r\n"
    b"Via: SIP/2.0/UDP 198.18.1.1:5099;rport;branch=z9hG4bK1\r\nMax-Forwards: 70\r\n"
    b"From: <sip:alice@198.18.0.1>;tag=t1\r\nTo: <sip:alice@198.18.0.1>\r\nCall-ID: a@b\r\n"
    b"CSeq: 2 REGISTER\r\n"
    b'Authorization: Digest username="alice", realm="asterisk", nonce="' + NONCE + b'", '
    b'uri="sip:198.18.0.1", response="0", cnonce="c0", algorithm=MD5\r\nContent-Length: 0\r\n\r\n'
)


def packet(request: bytes, kind: int = 17) -> bytes:
    """Return an IPv4 packet from 198.18.1.1, port 5099."""
    udp = struct.pack(">HHHH", 5099, 5060, 8 + len(request), 0) + request
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, kind, 0)
    return header + ip_address("198.18.1.1").packed + ip_address("198.18.0.1").packed + udp


def parse(data: bytes, *, dropped: bool = False) -> CopiedRequest | None:
    """Parse the one request in a packet."""
    found = parse_requests(data, RequestStreams(), dropped=dropped)
    return found[0] if found is not None else None


def observed(request: bytes) -> CopiedRequest:
    """Parse a request."""
    read = parse(packet(request))
    assert read is not None
    return read


def with_nonce(text: bytes) -> tuple[bytes, ...]:
    """Return the nonces of a request with this text in its Authorization."""
    return observed(REQUEST.replace(b'nonce="' + NONCE + b'"', text)).nonces


def with_call_id(line: bytes) -> tuple[bytes, ...]:
    """Return the Call-IDs of a request with this text for its Call-ID line."""
    return observed(REQUEST.replace(b"Call-ID: a@b\r\n", line)).call_ids


def test_a_request() -> None:
    """Source, port, nonce, Call-ID and CSeq number are found; the cnonce is no nonce."""
    address = ip_address("198.18.1.1")
    read = observed(REQUEST)
    expected = CopiedRequest(
        *(address, 5099, (NONCE,), (b"a@b",), (2,)),
        credentials=True,
        digest=read.digest,
        account="alice",
        method="REGISTER",
        fingerprint=fingerprint(NONCE, b"0"),
    )
    assert read == expected
    nothing = observed(b"")
    assert nothing == CopiedRequest(address, 5099, (), (), digest=nothing.digest)


@pytest.mark.parametrize(
    ("start", "answerable"),
    [(b"ACK sip", False), (b"\r\n\r\nACK sip", False), (b"ack sip", True), (b"ACKs sip", True)],
)
def test_an_ack_waits_for_no_answer(start: bytes, answerable: bool) -> None:  # noqa: FBT001 - a parameter
    """An ACK repeats number and credentials of its INVITE, and nothing answers it; its nonce still counts."""
    read = observed(REQUEST.replace(b"REGISTER sip", start, 1))
    assert (bool(read.sequences), read.credentials, read.nonces) == (answerable, answerable, (NONCE,))


def test_a_request_that_was_cut_is_marked() -> None:
    """A first fragment may lack the credentials."""
    fragment = bytearray(packet(REQUEST))
    fragment[6] |= 0x20
    for data, partly in ((packet(REQUEST), False), (bytes(fragment), True), (packet(REQUEST)[:-1], True)):
        read = parse(data)
        assert read is not None
        assert read.unread is partly


def test_a_request_that_a_ban_drops_is_marked() -> None:
    """The caller knows it from the prefix of the copy."""
    read = parse(packet(REQUEST), dropped=True)
    assert read is not None
    assert read.dropped


@pytest.mark.parametrize(
    ("text", "account"),
    [
        (b'USERNAME = "Bob"', "Bob"),
        (b'username="b\xff"', "b\\xff"),
        (b"username=bob", ""),
        (b'username="' + b"x" * 129 + b'"', ""),
        (b'user="bob"', ""),
        (b'username\r\n = \t"bob"', "bob"),
        (b'username="bob", username=bob', ""),
        (b'username="bob", username\r\n ="carol"', ""),
        (b'username="bob", user\rname="carol"', ""),
        (b'username="bob", user%6eame="carol"', ""),
        (b'username="bob", %75%73%65%72%6e%61%6d%65 ="carol"', ""),
        (b'username="b%6fb", opaque="%3d"', "b%6fb"),
        (b'username="bob", ' * 512 + b'username="bob"', ""),
    ],
)
def test_the_user_name_of_the_credentials(text: bytes, account: str) -> None:
    """It is quoted, and the same in all places and ways to read them; without credentials there is none."""
    assert observed(REQUEST.replace(b'username="alice"', text)).account == account
    assert observed(REQUEST.replace(b"Authorization", b"X").replace(b'username="alice"', text)).account == ""


def test_of_several_user_names_none_is_chosen() -> None:
    """A sender can write another header of credentials before or behind those that Asterisk checks."""
    twice = REQUEST.replace(b'username="alice"', b'username="alice", username="alice"')
    assert observed(twice).account == "alice"
    assert observed(twice.replace(b'username="alice"', b'username="bob"', 1)).account == ""


def test_the_fingerprint_of_a_request_is_that_of_amis_event() -> None:
    """AMI shows the nonce and the response, whose case is ignored. Only credentials have a fingerprint."""
    read = observed(REQUEST.replace(b"nonce=", b"NONCE\r\n = ").replace(b'response="0"', b'Response="AF"'))
    assert read.fingerprint == fingerprint(NONCE.upper(), b"af")
    assert observed(REQUEST.replace(b"Authorization", b"X")).fingerprint == 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Authorization", b'Authorization: Digest nonce="\xff"\r\nAuthorization'),
        (b"Authorization", b'X: nonce="' + b"a" * 300 + b'"\r\nAuthorization'),
        (b"Authorization", b'Authorization: Digest response="1"\r\nAuthorization'),
        (b"Authorization", b'Authorization: Digest n%6fnce="\xff"\r\nAuthorization'),
        (b"Authorization", b'Authorization: Digest no\rnce="1"\r\nAuthorization'),
        (b'response="0"', b"response=0"),
        (b'nonce="' + NONCE, b'nonce="' + NONCE + b'", nonce="' + NONCE),
    ],
)
def test_a_request_that_may_have_several_nonces_or_responses_is_ambiguous(old: bytes, new: bytes) -> None:
    """AMI shows those of the first header, and is silent if they are not UTF-8. Asterisk checks another."""
    read = observed(REQUEST.replace(old, new, 1))
    assert read.credentials
    assert read.fingerprint == ambiguous_fingerprint(read.digest)


def test_a_head_that_is_cut_may_have_other_credentials() -> None:
    """A first fragment shows the user name and the fingerprint only if it has the whole head."""
    fragment = bytearray(packet(REQUEST + b"x"))
    fragment[6] |= 0x20
    for data, account in ((bytes(fragment), "alice"), (packet(REQUEST)[:-1], "")):
        read = parse(data)
        assert read is not None
        assert (read.unread, read.account) == (True, account)
        assert (read.fingerprint == ambiguous_fingerprint(read.digest)) == (not account)


@pytest.mark.parametrize("name", [b"maddr", b"MADDR", b"%6daddr", b"%4D%61d%44%72"])
def test_an_answer_is_diverted_by_a_maddr(name: bytes) -> None:
    """PJSIP resolves the escapes of the name. By TCP the answer uses the connection."""
    assert not observed(REQUEST).diverted
    assert observed(REQUEST.replace(b";rport", b";rport;" + name + b"=240.0.0.1")).diverted


@pytest.mark.parametrize(
    ("old", "new", "redirected"),
    [
        (b";rport", b";rport;maddr=255.255.255.255", True),
        (b";rport", b";rport\r\n ;M%61ddr\t= h.example", True),
        (b"\r\nVia:", b"\r\nv\t: SIP/2.0/UDP h;maddr=1\r\nVia:", True),
        (b";rport", b";rport;maddr=SENDER", False),
        (b";rport", b";rport;maddr=SENDER;maddr=h", True),
        (b"\r\nVia:", b"\r\nContact: <sip:a@b;maddr=198.18.0.9>\r\nVia:", False),
        (b"\r\nVia:", b"\r\nX-Via: maddr=1\r\n\t;maddr=1\r\nVia:", False),
    ],
)
def test_a_via_may_redirect_the_answer(old: bytes, new: bytes, *, redirected: bool) -> None:
    """A ``maddr`` of the sender's own address, or in another header, redirects nothing; nor does an ACK."""
    text = REQUEST.replace(old, new.replace(b"SENDER", b"198.18.1.1"), 1)
    assert observed(text).redirected is redirected
    _, _, behind = text.partition(b" ")
    assert not observed(b"ACK " + behind).redirected
    assert not observed(b"SIP/2.0 " + behind).redirected


def test_a_digest_shows_the_same_datagram() -> None:
    """The same bytes have the same digest, and other bytes another one."""
    digests = [observed(text).digest for text in (REQUEST, REQUEST, REQUEST + b" ", REQUEST[:-1])]
    assert digests[0] == digests[1]
    assert len({*digests}) == 3


@pytest.mark.parametrize(
    ("line", "sequences"),
    [
        (b"CSeq: 2 REGISTER", (2,)),
        (b"CSEQ \t:2\tREGISTER", (2,)),
        (b"CSeq:\r\n 3 REGISTER", (3,)),
        (b"CSeq: +4 REGISTER", (4,)),
        (b"CSeq: 0005 REGISTER", (5,)),
        (b"CSeq: 000000000006 REGISTER", (6,)),
        (b"CSeq: 00 REGISTER", (0,)),
        (b"CSeq: 1 X\r\nCSeq: 2 REGISTER", (1, 2)),
        (b"CSeq: 1 X\nCSeq: 2 REGISTER", (1, 2)),
        (b"CSeq: 1 X\rCSeq: 2 REGISTER", (1, 2)),
        (b"C\rSeq: 2 REGISTER", (2,)),
        (b"X-CSeq: 2 REGISTER", ()),
        (b"CSeq: x", ()),
    ],
)
def test_every_number_that_an_asterisk_may_read_is_found(line: bytes, sequences: tuple[int, ...]) -> None:
    """Each CSeq number is found that PJSIP or chan_sip may read."""
    assert observed(REQUEST.replace(b"CSeq: 2 REGISTER", line)).sequences == sequences


@pytest.mark.parametrize(
    ("header", "credentials"),
    [
        (b"Authorization: Digest", True),
        (b"AUTHORIZATION : Digest", True),
        (b"Proxy-Authorization: Digest", True),
        (b"Autho\rrization: Digest", True),
        (b"X: Digest", False),
    ],
)
def test_a_request_has_credentials_if_an_asterisk_may_read_some(header: bytes, credentials: bool) -> None:  # noqa: FBT001
    """The name of the header counts in any case, also if chan_sip alone reads it, which leaves out CR."""
    assert observed(REQUEST.replace(b"Authorization: Digest", header)).credentials is credentials


@pytest.mark.parametrize(
    ("text", "credentials"),
    [
        (b"I am waiting for your authorization.", False),
        (b"pre-authorization is 12:30", False),
        (b"authorization\n : Digest", True),
        (b"authorization\0:", True),
        (b"authorization or Authorization: Digest", True),
    ],
)
def test_the_word_in_a_chat_is_no_credentials(text: bytes, credentials: bool) -> None:  # noqa: FBT001
    """A header has a colon behind its name. A seeming body is searched too: its sender may hide one there."""
    message = REQUEST[: REQUEST.index(b"Authorization")].replace(b"REGISTER", b"MESSAGE")
    read = observed(message + b'Content-Type: text/plain\r\n\r\nusername="bob": ' + text)
    assert (read.credentials, read.account) == (credentials, "bob" if credentials else "")


def test_a_request_by_ipv6() -> None:
    """The same for IPv6."""
    addresses = ip_address("fd00:18::a").packed + ip_address("fd00:18::1").packed
    udp = packet(REQUEST)[20:]
    read = parse(struct.pack(">IHBB", 0x60000000, len(udp), 17, 64) + addresses + udp)
    assert read is not None
    assert (read.address, read.port) == (ip_address("fd00:18::a"), 5099)
    assert (read.nonces, read.call_ids, read.sequences) == ((NONCE,), (b"a@b",), (2,))
    jumbo = udp[:4] + bytes(2) + udp[6:]  # Linux reads it as a datagram of the whole length
    assert parse(struct.pack(">IHBB", 0x60000000, len(udp), 17, 64) + addresses + jumbo) == read


@pytest.mark.parametrize("other", [b"", b"\x45", packet(REQUEST)[:27], packet(REQUEST, kind=1)])
def test_other_packets_are_no_datagram(other: bytes) -> None:
    """Other protocols, and headers that are cut off."""
    assert parse(other) is None


# Asterisk 16.28 (chan_sip) or 22.10.1 (PJSIP) accepted each of these as its nonce: it answered 200.
@pytest.mark.parametrize(
    "text",
    [
        b'NONCE="%s"',
        b'nonce \t=\t "%s"',
        b'nonce\r\n =\r\n "%s"',
        b'nonce= "%s"',
        b'nonce="x", nonce="%s"',
        b"nonce=%s",
        b"nonce=%s,x",
        b'x=y nonce="%s"',
        b'x="y"nonce="%s"',
        b'no\rnce="%s"',
        b'nonce="\r%s"',
        b'nonce="%s\0x"',
        b'nonce="%s"x"',
        b'nonce="%s\r\nX: y',
        b'x="nonce=", nonce="%s"',
    ],
)
def test_every_nonce_that_asterisk_accepts_is_found(text: bytes) -> None:
    """In any case, with white space and folds, unquoted, without an end, and with a CR or NUL in it."""
    assert NONCE in with_nonce(text % NONCE)


def test_a_nonce_without_case() -> None:
    """chan_sip compares its own, which has small letters, without case."""
    assert with_nonce(b'nonce="0624803F"') == (b"0624803f",)


@pytest.mark.parametrize(
    "text", [b'xnonce="%s"', b'cnonce="%s"', b'-nonce="%s"', b'nonce"%s"', b'nonce=""%s"']
)
def test_other_text_is_no_nonce(text: bytes) -> None:
    """Other parameters, and values that are no nonce."""
    assert with_nonce(text % NONCE) == ()


def test_the_cost_of_a_packet_is_bounded() -> None:
    """Of thousands of occurrences some hundred are examined, beginning with the first."""
    for filler in (b"nonce=", b'nonce="', b'nonce="a",', b"\r\ni:"):
        request = REQUEST + filler * (60_000 // len(filler))
        assert (NONCE in observed(request).nonces, b"a@b" in observed(request).call_ids) == (True, True)
        assert NONCE not in observed(filler * 600 + REQUEST).nonces or filler == b"\r\ni:"


def test_no_escape_is_undone() -> None:
    """No Asterisk accepts an escaped nonce, so it proves nothing."""
    for text in (b'nonce="\\%s"', b'nonce="%s tail"'):
        assert NONCE not in with_nonce(text % NONCE)


def test_at_most_so_many_nonces() -> None:
    """The first sixty-four distinct ones of at most 256 bytes."""
    many = b", ".join(b'nonce="%d"' % (number // 2) for number in range(160))
    assert with_nonce(many) == tuple(b"%d" % number for number in range(64))
    for size, number in ((256, 1), (257, 0)):
        assert len(with_nonce(b'nonce="' + b"a" * size + b'"')) == number
        assert len(with_nonce(b"nonce=" + b"a" * size)) == number


# Values that both Asterisks, or one of them, returned in their answers.
@pytest.mark.parametrize(
    ("line", "call_id"),
    [
        (b"Call-ID: one\r\nCall-ID: two\r\n", b"one"),
        (b"i: one\r\nCall-ID: two\r\n", b"one"),
        (b"Call-ID :  a  b\tc  \r\n", b"a  b\tc  "),
        (b"Call-ID :  a  b\tc  \r\n", b"a b\tc "),
        (b"Call-ID: ab \r\n", b"ab "),
        (b"Call-ID: a\r\n b\r\n", b"a b"),
        (b"Call-ID:\r\n\ta\r\n", b"a"),
        (b"Subject: x\nCall-ID: lf\r\n", b"lf"),
        (b"Call-ID: a\nX: b\r\n", b"a"),
        (b"Subject: x\rCall-ID: cr\r\n", b"cr"),
        (b"Call-ID: a\rb\r\n", b"ab"),
        (b"Cal\rl-ID: crn\r\n", b"crn"),
        (b"Expires: 0&Call-ID: amp\r\n", b"amp"),
        (b"Call-ID: a\0b\r\n", b"a"),
        (b"CALL-id:x\r\n", b"x"),
        (b"I:x\r\n", b"x"),
        (b"Call-ID: \xff\x1b\x7f\r\n", b"\xff\x1b\x7f"),
        (b'Call-ID: "a;b" <c>\r\n', b'"a;b" <c>'),
        (b"Call-ID:\x0ba\r\n", b"\x0ba"),
        (b"Call-ID:\x0ba\r\n", b"a"),
        (b"Call-ID\r\n : x\r\n", b"x"),
        (b"Call-ID: " + b"l" * 3000 + b"\r\n", b"l" * 3000),
        (b"Subject: x\n\rCall-ID: y\r\n", b"y"),
    ],
)
def test_the_call_id_that_asterisk_uses_is_found(line: bytes, call_id: bytes) -> None:
    """The Call-ID is found for any beginning, folding and end of the line."""
    assert short_session(call_id) in with_call_id(line)


def test_white_space_in_a_long_call_id_stays() -> None:
    """chan_sip shortens it; the parser does not in a line of more than 1024 bytes, which bounds the time."""
    for size, shortened in ((1023, True), (1024, False)):
        call_id = b"  a" * 341 + b"b" * (size - 3 * 341)
        found = with_call_id(b"Call-ID:x" + call_id + b"\r\n")
        by_chan_sip = b"x" + call_id.replace(b"  ", b" ")
        assert found == tuple(map(short_session, ([by_chan_sip] * shortened) + [b"x" + call_id]))


def test_only_call_id_lines_are_read() -> None:
    """A name must begin a line and end at its colon; at most four values are returned."""
    assert with_call_id(b"X-Call-ID: a\r\nCall-IDs: b\r\nIn: c\r\nSubject: Call-ID: d\r\n") == ()
    assert with_call_id(b"i: a\r\n" * 3 + b"".join(b"i: %d\r\n" % n for n in range(9))) == (
        b"a",
        b"0",
        b"1",
        b"2",
    )


@pytest.mark.parametrize(
    ("line", "most"),
    [(b"CSeq: %d x\r\n", 4), (b"i: %d\r\n", 3), (b'X: nonce="%d"\r\n', 63), (b"X: nonce=,%d\r\n", 511)],
)
def test_a_request_with_more_than_is_kept_is_crowded(line: bytes, most: int) -> None:
    """The true nonce, Call-ID or number may be missing in what is kept."""
    head = REQUEST.replace(b"CSeq: 2 REGISTER\r\n", b"")
    for number, crowded in ((most, False), (most + 1, True)):
        lines = b"".join(line % (9000 + n,) for n in range(number))
        assert observed(head.replace(b"Max-F", lines + b"Max-F")).crowded is crowded
    assert observed(head.replace(b"Max-F", line % (1,) * 600 + b"Max-F")).crowded


def test_a_request_that_was_cut() -> None:
    """Byte by byte, and with bytes after it: only values that the whole holds or begins with."""
    whole = observed(REQUEST)
    for size in range(len(REQUEST)):
        for part in (observed(REQUEST[:size]), parse(packet(REQUEST)[: 28 + size])):
            assert part is not None
            assert all(NONCE.startswith(nonce) for nonce in part.nonces)
            assert all(b"a@b".startswith(call_id) for call_id in part.call_ids)
    assert parse(packet(REQUEST) + b'\r\nnonce="x"') == whole


@given(
    st.binary(max_size=100), st.integers(0, 600), st.sampled_from([b"nonce=", b"\r\ni:", b'"', b"\r", b""])
)
def test_no_bytes_raise(noise: bytes, position: int, piece: bytes) -> None:
    """Any bytes at any position give bounded parts of the request."""
    for text in (noise, REQUEST[:position] + piece + noise + REQUEST[position:]):
        read = observed(text)
        assert len(read.nonces) <= 8
        assert len(read.call_ids) <= 4
        assert all(len(nonce) <= 256 for nonce in read.nonces)


@given(st.binary(max_size=60).map(lambda raw: raw.translate(None, b"\0\r\n")))
def test_a_call_id_is_returned_unchanged(raw: bytes) -> None:
    """Any bytes of a line are returned, without the white space before them."""
    assert raw.lstrip(b" \t") in with_call_id(b"Call-ID: " + raw + b"\r\n")


@given(
    st.lists(
        st.sampled_from(
            [
                b"Call-ID: a@b", b"i:x", b"I :  y z", b"call-id:", b"Call-ID: a\x0b", b"\xffcall-id: \xfe",
                b"CSeq: 2 REGISTER", b"cseq:", b"CSeq : +007 x", b"9 x", b'A: Digest nonce="1/2"',
                b"xnonce=1", b"X: %6daddr=1", b"v: maddr=198.18.1.9", b"T: &i: z", b" folded", b"\ti: t", b"",
                b'Authorization: Digest username="bob"', b"authori", b"zation: x", b"a\rb", b"a\nb", b"\0",
            ]
        ),
        max_size=8,
    ),
    st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\r\n"]),
    st.sampled_from([b"INVITE", b"ACK", b"\r\nBYE"]),
)  # fmt: skip
def test_a_plain_request_is_read_as_any_other(lines: list[bytes], end: bytes, method: bytes) -> None:
    """What is read of a request does not depend on whether it is plain."""
    request = end.join([method + b" sip:100@198.18.0.1 SIP/2.0", *lines, b"", b""])
    read = observed(request)
    with patch("ringfence.parse.requests._plain_call_id", lambda *_: None):
        assert observed(request) == read


@pytest.mark.parametrize(
    "unit",
    [
        b"nonce=",
        b'nonce="',
        b"nonce",
        b"nonce ",
        b"\r\n",
        b"\n",
        b"\ni",
        b"\ni ",
        b"\ni:",
        b"\r\n ",
        b"  a",
        b" ",
        b"&i",
        b'"',
        b"\nv",
        b"maddr",
        b"maddr=",
        b"authorization",
        b"authorization ",
        b"username",
        b"username\r\n ",
        b'username=""',
        b"response",
        b"%41",
        b"%41a=",
    ],
)
@pytest.mark.parametrize(
    "start",
    [
        *(b"x\r\ni", b"x\r\ni:", b"x nonce=", b'x nonce="', b"x\r\nv:maddr", b"authorization "),
        b'authorization: username="',
    ],
)
def test_the_worst_request_takes_linear_time(start: bytes, unit: bytes) -> None:
    """A datagram holds 64 kB of it."""

    def measure(size: int) -> float:
        return seconds(parse, packet(start + unit * (size // len(unit))))

    assert is_linear_in(measure, 65_000)


NONCES = (
    b'nonce="%s"',
    b'NONCE="%s"',
    b"nonce=%s",
    b'nonce \t=\t "%s"',
    b'nonce\r\n =\r\n "%s"',
    b'n%%6Fnce="%s"',
    b"nonce=[%s]",
    b"nonce='%s'",
    b"nonce=<%s>",
    b'nonce="\\%s"',
    b'nonce="\r%s"',
    b'no\rnce="%s"',
    b'nonce="\r\n %s"',
    b'nonce="x", nonce="%s"',
    b'x="y";nonce="%s"',
    b'x="y"nonce="%s"',
    b'x="nonce=", nonce="%s"',
    b'x="nonce=",nonce=%s',
    b'x="nonce = ",nonce= "%s"',
    b'x="\rnonce=",nonce="%s"',
    b'x=nonce=y,nonce="%s"',
    b'x="nonce=\\", nonce="%s"',
    b'x=y nonce="%s"',
    b'x=y,,nonce="%s"',
    b'x\x01nonce="%s"',
    b'x/nonce="%s"',
    b'nonce="%s "',
    b'nonce=" %s"',
    b'nonce="%s\0x"',
    b'nonce="%s',
    b"nonce=%s;x",
    b"nonce=%s x",
    b'nonce="%s"x"',
    b'-nonce="%s"',
    b'xnonce="%s"',
    b'cnonce="%s"',
    b'"nonce"="%s"',
    b'nonce:"%s"',
)
CALL_IDS = (
    b"Call-ID: one%d\r\nCall-ID: two\r\n",
    b"i: one%d\r\nCall-ID: two\r\n",
    b"Call-ID :  a  b\tc%d  \r\n",
    b"Call-ID: a\r\n b%d\r\n",
    b"Call-ID:\r\n\ta%d\r\n",
    b"Subject: x\nCall-ID: lf%d\r\n",
    b"Call-ID: a%d\nX: b\r\n",
    b"Subject: x\rCall-ID: cr%d\r\n",
    b"Subject: x\n\rCall-ID: cr%d\r\n",
    b"Call-ID: a\rb%d\r\n",
    b"Cal\rl-ID: crn%d\r\n",
    b"Expires: 0&Call-ID: amp%d\r\n",
    b"Call-ID: a%d\0b\r\n",
    b"CALL-id:x%d\r\n",
    b"Call-ID: \xff\x1b\x7f%d\r\n",
    b'Call-ID: "a;b" <c%d>, d&e\r\n',
    b"Call-ID:\x0b\x1ba%d\r\n",
    b"Call-ID\x0b:a%d\r\n",
    b"Call-ID\r\n : x%d\r\n",
    b" Call-ID: x%d\r\n",
    b"X-Call-ID: x%d\r\n",
    b'Subject: "\rCall-ID: decoy\rCall-ID: decoy2"\r\nCall-ID: x%d\r\n',
    b"Call-ID: l%d" + b"l" * 3000 + b"\r\n",
)


class Phone:
    """A phone at a real Asterisk, whose requests are parsed as if the kernel had copied them."""

    def __init__(self, lab: Lab) -> None:
        self.account = b"bob" if lab.asterisk.kind is Kind.CHAN_SIP else b"alice"
        self._socket = socket_in(lab.network.attacker, kind=socket.SOCK_DGRAM)
        self._socket.bind(("198.18.1.1", 0))
        self._socket.connect((PBX_IPV4, 5060))
        self._number = 0

    def ask(self, call_id: bytes, extra: bytes = b"") -> tuple[bytes, CopiedRequest]:
        """Return the answer to a REGISTER, and the parsed request.

        The answer is empty if none comes by 0.2 s after the answer to an ordinary request sent after it.
        """
        branch, request = self._request(call_id, extra)
        behind, ordinary = self._request(b"Call-ID: behind%d\r\n" % self._number, b"")
        self._socket.send(request)
        self._socket.send(ordinary)
        self._socket.settimeout(10.0)
        while True:
            try:
                answer = self._socket.recv(1 << 16)
            except TimeoutError:
                return b"", observed(request)
            if branch in answer:
                return answer, observed(request)
            if behind in answer:
                self._socket.settimeout(0.2)

    def _request(self, call_id: bytes, extra: bytes) -> tuple[bytes, bytes]:
        self._number += 1
        branch = b"branch=z9hG4bK%d-%d." % (os.getpid(), self._number)
        request = REQUEST[: REQUEST.index(b"Authorization")].replace(b"alice", self.account)
        request = request.replace(b"branch=z9hG4bK1", branch).replace(b"Call-ID: a@b\r\n", call_id)
        request = request.replace(b"CSeq: 2", b"CSeq: %d" % self._number) + extra
        return branch, request + b"Contact: <sip:x@198.18.1.1>\r\nExpires: 0\r\nContent-Length: 0\r\n\r\n"

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


@pytest.fixture
def phone(each_asterisk: Lab) -> Iterator[Phone]:
    """A phone at each of the two Asterisks."""
    made = Phone(each_asterisk)
    yield made
    made.close()


@pytest.mark.asterisk
def test_no_asterisk_accepts_a_nonce_that_is_not_found(phone: Phone) -> None:
    """Each text is found that gets a 200 with a right password, and a plain one does."""
    taken = []
    for number, text in enumerate(NONCES):
        call_id = b"Call-ID: n%d-%d\r\n" % (os.getpid(), number)
        challenge, _ = phone.ask(call_id)
        nonce = challenge.split(b'nonce="')[1].split(b'"')[0]
        ha1 = md5(phone.account + b":asterisk:" + PASSWORD.encode())
        response = md5(ha1 + b":" + nonce + b":" + md5(b"REGISTER:sip:198.18.0.1"))
        digest = b'Authorization: Digest username="%s",realm="asterisk",uri="sip:198.18.0.1",response="%s",'
        answer, read = phone.ask(call_id, digest % (phone.account, response) + text % nonce + b"\r\n")
        if answer.startswith(b"SIP/2.0 200 "):
            taken.append(text)
            assert nonce in read.nonces, text

    assert {b'nonce="%s"', b'NONCE="%s"', b'nonce="x", nonce="%s"'} <= set(taken)


@pytest.mark.asterisk
def test_no_asterisk_uses_a_call_id_that_is_not_found(phone: Phone) -> None:
    """Each Call-ID that returns in an answer is found."""
    back = 0
    for number, line in enumerate(CALL_IDS):
        answer, read = phone.ask(line % (1000 * os.getpid() + number))
        if answer.startswith(b"SIP/2.0 401 "):
            back += 1
            call_id = answer.split(b"\r\nCall-ID: ")[1].split(b"\r\n")[0]
            assert short_session(call_id) in read.call_ids, line

    assert back >= 12


def md5(text: bytes) -> bytes:
    """Return a digest as SIP writes it."""
    return hashlib.md5(text, usedforsecurity=False).hexdigest().encode()
