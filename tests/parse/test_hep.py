"""Asterisk's export of decrypted SIP messages: whole packets, cut ones, and hostile ones."""

import struct
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.features.hep.stage import SIZE
from ringfence.parse import hep as hep_module
from ringfence.parse.hep import MOST_CONNECTIONS, MOST_SHARED, Exported, Exports
from ringfence.parse.request_stream import heads_in
from ringfence.parse.requests import parse_request
from ringfence.values.event import Endpoint, Service, Transport, ambiguous_fingerprint, short_session
from ringfence.values.network import Address
from ringfence.values.packet import CopiedAnswer, CopiedRequest

PORTS = {5061: Transport.TLS, 8089: Transport.WSS}
HERE = {4: "198.51.100.1", 6: "2001:db8::1"}
THERE = {4: "192.0.2.7", 6: "2001:db8:7::7"}
FRIEND = ip_address("192.0.2.200")
REMOTE_PORT = 40_000
CALL_ID = b"call-1"
NONCE = b"1795163184/71a15bdda2226e05b39c7e947cf7c62a"
TYPICAL = (1, 2, 7, 8, 9, 10, 11, 12, 3, 4, 5, 6, 14, 17, 19, 15)
"""The types of the chunks in the order of Asterisk."""
KAMAILIO = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 17, 19, 15)
Chunk = tuple[int, bytes]


def register(call_id: bytes = CALL_ID, more: bytes = b"", body: bytes = b"") -> bytes:
    """Return a REGISTER."""
    return (
        b"REGISTER sip:a SIP/2.0\r\nVia: SIP/2.0/TLS 10.0.0.9:5061;rport;branch=z9hG4bK1\r\n"
        b"Call-ID: %b\r\nCSeq: 7 REGISTER\r\n%bContent-Length: %d\r\n\r\n%b"
        % (call_id, more, len(body), body)
    )


CREDENTIALS = b'Authorization: Digest username="alice", nonce="n1", uri="sip:a", response="0"\r\n'


def answer(status: int = 401, call_id: bytes = CALL_ID, version: int = 4, nonce: bytes = NONCE) -> bytes:
    """Return an answer of PJSIP by TLS; a 401 has a challenge."""
    shown = THERE[version].encode()
    challenge = (
        b'WWW-Authenticate: Digest realm="asterisk",nonce="%b",'
        b'opaque="5e7b972e2fe7ac11",algorithm=MD5,qop="auth"\r\n'
    )
    return (
        b"SIP/2.0 %d Unauthorized\r\n"
        b"Via: SIP/2.0/TLS 10.0.0.9:5061;rport=40000;received=%b;branch=z9hG4bK1\r\n"
        b"Call-ID: %b\r\nFrom: <sip:alice@a>;tag=1\r\nTo: <sip:alice@a>;tag=z9hG4bK1\r\n"
        b"CSeq: 7 REGISTER\r\n%bServer: Asterisk\r\nContent-Length:  0\r\n\r\n"
        % (status, shown, call_id, challenge % nonce if status == 401 else b"")
    )


def chunks(
    payload: bytes, *, outgoing: bool = True, version: int = 4, port: int = 5061, uuid: bytes = CALL_ID
) -> list[Chunk]:
    """Return the chunks of a message between Asterisk and the stranger, in Asterisk's order."""
    here, there = ((ip_address(text).packed, at) for text, at in ((HERE[version], port), stranger(version)))
    (source, source_port), (target, target_port) = (here, there) if outgoing else (there, here)
    values = {
        1: b"\x02" if version == 4 else b"\x0a",
        2: b"\x06",
        7: struct.pack(">H", source_port),
        8: struct.pack(">H", target_port),
        9: struct.pack(">I", 1_795_154_722),
        10: struct.pack(">I", 90_000),
        11: b"\x01",
        12: struct.pack(">I", 2_002),
        3 if version == 4 else 5: source,
        4 if version == 4 else 6: target,
        14: b"password",
        17: uuid,
        15: payload,
    }
    return [(kind, values[kind]) for kind in TYPICAL if kind in values]


def stranger(version: int) -> tuple[str, int]:
    """Return address and port of the stranger."""
    return THERE[version], REMOTE_PORT


def chunk(kind: int, data: bytes, *, vendor: int = 0, length: int | None = None) -> bytes:
    """Return a chunk; ``length`` replaces its true length."""
    return struct.pack(">HHH", vendor, kind, 6 + len(data) if length is None else length) + data


def hep(parts: Iterable[Chunk | bytes], *, total: int | None = None, magic: bytes = b"HEP3") -> bytes:
    """Return the datagram of these chunks; ``total`` replaces its true length."""
    data = b"".join(part if isinstance(part, bytes) else chunk(*part) for part in parts)
    return magic + struct.pack(">H", 6 + len(data) if total is None else total) + data


def packet(data: bytes, version: int = 4, kind: int = 17) -> bytes:
    """Return an IP packet over loopback with a UDP datagram."""
    datagram = struct.pack(">HHHH", 33_000, 9060, 8 + len(data), 0) + data
    if version == 4:
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(datagram), 0, 0, 64, kind, 0)
        return head + 2 * IPv4Address("127.0.0.1").packed + datagram
    return (
        struct.pack(">IHBB", 0x60000000, len(datagram), kind, 64) + 2 * IPv6Address("::1").packed + datagram
    )


def exports() -> Exports:
    """Return exports of a host with one address of each version."""
    own = {ip_address(text) for text in HERE.values()}
    return Exports(PORTS, own.__contains__, FRIEND.__eq__)


def read(data: bytes, reader: Exports | None = None, *, sure: bool = False) -> Exported | None:
    """Read a datagram."""
    return (reader or exports()).read(packet(data), sure=sure)


def asked(reader: Exports, payload: bytes, uuid: bytes = CALL_ID) -> CopiedRequest:
    """Read a request of the stranger."""
    found = read(hep(chunks(payload, outgoing=False, uuid=uuid)), reader)
    assert found is not None
    assert isinstance(found.message, CopiedRequest)
    return found.message


def answered(data: bytes, reader: Exports | None = None, *, sure: bool = False) -> CopiedAnswer:
    """Read an answer to the stranger."""
    found = read(data, reader, sure=sure)
    assert found is not None
    assert isinstance(found.message, CopiedAnswer)
    return found.message


REQUEST, ANSWER = chunks(register(more=CREDENTIALS), outgoing=False), chunks(answer())
each_version = pytest.mark.parametrize("version", [4, 6])
each_port = pytest.mark.parametrize("port", [*PORTS])


def orders(parts: list[Chunk]) -> list[list[Chunk]]:
    """Return the chunks in Asterisk's order, Kamailio's, backwards, and begun in the middle."""
    return [
        parts,
        sorted(parts, key=lambda part: KAMAILIO.index(part[0])),
        parts[::-1],
        *(parts[at:] + parts[:at] for at in range(1, len(parts))),
    ]


@each_port
@each_version
def test_a_request_is_read_in_any_order_of_the_chunks(version: int, port: int) -> None:
    """A request has the address, port and transport of its connection, and its own values."""
    payload = register(more=CREDENTIALS)
    remote = Endpoint(ip_address(THERE[version]), REMOTE_PORT, PORTS[port])
    expected = parse_request(remote.address, remote.port, payload, transport=remote.transport)
    for parts in orders(chunks(payload, outgoing=False, version=version, port=port)):
        found = exports().read(packet(hep(parts), version), sure=True)
        assert found == Exported(remote, expected)
    assert (expected.nonces, expected.call_ids, expected.sequences) == ((b"n1",), (CALL_ID,), (7,))
    assert expected.credentials
    assert expected.method == "REGISTER"
    assert expected.account == "alice"


@each_port
@each_version
def test_an_answer_is_read_in_any_order_of_the_chunks(version: int, port: int) -> None:
    """An answer has the address, port and transport of its connection, and the values of its challenge."""
    here, there = ip_address(HERE[version]), ip_address(THERE[version])
    remote = Endpoint(there, REMOTE_PORT, PORTS[port])
    for parts in orders(chunks(answer(version=version), version=version, port=port)):
        found = exports().read(packet(hep(parts), version), sure=False)
        expected = CopiedAnswer(
            *(there, REMOTE_PORT, here, port, CALL_ID, NONCE, there, False, "alice", Service.PJSIP, 401),
            transport=PORTS[port],
            sequence=7,
        )
        assert found == Exported(remote, expected)


def test_an_answer_without_a_uuid_has_its_own_call_id() -> None:
    """A datagram without the chunk UUID is read; the Call-ID is then that of the message."""
    without = [part for part in ANSWER if part[0] != 17]
    assert answered(hep(without)).call_id == CALL_ID
    without = [part for part in REQUEST if part[0] != 17]
    found = read(hep(without))
    assert found is not None
    assert isinstance(found.message, CopiedRequest)
    assert found.message.call_ids == (CALL_ID,)


def test_the_uuid_is_the_call_id() -> None:
    """A UUID that differs from the Call-ID of the text replaces it, a long one by its digest."""
    for uuid in (b"another", b"x" * 500):
        assert answered(hep(chunks(answer(), uuid=uuid))).call_id == short_session(uuid)
        assert asked(exports(), register(), uuid).call_ids == (short_session(uuid),)


def addresses(found: Exported) -> set[Address]:
    """Return all addresses that a message shows for its stranger."""
    message = found.message
    own = {found.remote.address} | ({message.address} if message is not None else set())
    return own | ({message.local_address} if isinstance(message, CopiedAnswer) else set())


@each_version
@pytest.mark.parametrize("outgoing", [False, True])
def test_a_packet_cut_anywhere_shows_no_other_address(version: int, outgoing: bool) -> None:  # noqa: FBT001 - a parameter
    """Cut at each byte, in any order of the chunks: nothing is read, or the right address and port."""
    payload = answer(version=version) if outgoing else register(more=CREDENTIALS)
    right = {ip_address(HERE[version]), ip_address(THERE[version])}
    for parts in orders(chunks(payload, outgoing=outgoing, version=version)):
        whole = packet(hep(parts), version)
        for end in range(len(whole)):
            found = exports().read(whole[:end], sure=True)
            if found is not None:
                assert addresses(found) <= right
                assert found.remote.address == ip_address(THERE[version])
                assert found.remote.port == REMOTE_PORT


def test_a_datagram_without_its_end_is_no_message() -> None:
    """A datagram that is shorter or longer than its own length is not read, if the kernel did not cut it."""
    for parts in (REQUEST, ANSWER):
        data = hep(parts)
        assert read(data) is not None
        for more in (b"\0", b"HEP3", chunk(99, b""), bytes(6)):
            assert read(data + more) is None
        for end in range(len(data)):
            assert read(data[:end]) is None
        for end in range(6, len(data)):  # its length is right, but the last chunk is incomplete
            shorter = data[:4] + struct.pack(">H", end) + data[6:end]
            found = read(shorter)
            assert found is None or end in ends_of_chunks(parts)


def ends_of_chunks(parts: Sequence[Chunk]) -> list[int]:
    """Return where each chunk of a datagram ends."""
    return [len(hep(parts[:number])) for number in range(len(parts) + 1)]


def test_bytes_after_the_packet_change_nothing() -> None:
    """Bytes after the length of the IP packet are not read."""
    whole = packet(hep(ANSWER))
    assert exports().read(whole + b"x" * 50, sure=False) == exports().read(whole, sure=False)


@pytest.mark.parametrize("length", [0, 1, 5, 7_000, 65_535])
@pytest.mark.parametrize("at", range(len(REQUEST)))
def test_a_chunk_with_a_wrong_length_is_no_message(at: int, length: int) -> None:
    """A chunk that is shorter than its head, or ends beyond the datagram, makes it unreadable."""
    parts = [chunk(*part, length=length if number == at else None) for number, part in enumerate(REQUEST)]
    assert read(hep(parts)) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HEP3",
        hep([]),
        hep(REQUEST, magic=b"HEP2"),
        hep(REQUEST, total=0),
        hep(REQUEST, total=6),
        hep(REQUEST, total=65_535),
        hep([*REQUEST, b"\0"]),
        hep([*REQUEST, (2, b"\x06")]),
        hep([*REQUEST, (15, b"SIP/2.0 401 X")]),
        hep([*REQUEST, *((kind, b"") for kind in range(100, 120))]),
        *(hep([part for part in REQUEST if part[0] != kind]) for kind in (1, 2, 3, 4, 7, 8, 11, 15)),
        *(
            hep((one, wrong if one == kind else data) for one, data in REQUEST)
            for kind, wrong in (
                *((1, family) for family in (b"", b"\x01", b"\x0a", b"\x02\x02")),
                *((2, protocol) for protocol in (b"", b"\x11", b"\x06\x06")),
                *((11, capture) for capture in (b"", b"\x05", b"\x22")),
                *((3, address) for address in (b"", b"\xc0\0\2", bytes(5), bytes(16))),
                *((4, address) for address in (b"", b"\xc0\0\2", bytes(5), bytes(16))),
                *((kind, port) for kind in (7, 8) for port in (b"", b"\x13", b"\0\x13\xc5")),
                (15, b""),
            )
        ),
    ],
)
def test_other_datagrams_are_no_messages(data: bytes) -> None:
    """Not read: no HEP, another protocol or kind of capture, too many or double chunks, wrong fields."""
    assert read(data) is None


def test_other_packets_are_no_messages() -> None:
    """A packet that is not UDP, or that ends within the header of UDP, is not read."""
    assert exports().read(packet(hep(ANSWER), kind=6), sure=False) is None
    assert exports().read(b"", sure=False) is None
    short = packet(b"")[:-1]
    assert exports().read(short, sure=False) is None


def test_unknown_chunks_change_nothing() -> None:
    """Chunks of another vendor or of an unknown type are passed over, wherever they are.

    A vendor's type may have the number of one that is known.
    """
    others = [chunk(kind, data, vendor=1) for kind, data in ANSWER]
    others += [chunk(15, b"SIP/2.0 200 OK", vendor=0xFFFF), chunk(999, b"x"), chunk(0, b"")]
    expected = read(hep(ANSWER))
    assert expected is not None
    for other in others:
        for at in range(len(ANSWER) + 1):
            assert read(hep([*ANSWER[:at], other, *ANSWER[at:]])) == expected


def test_only_messages_of_this_host_on_its_ports_count() -> None:
    """Neither other ports, nor messages between others or within this host, are read."""
    for outgoing in (False, True):
        payload = answer() if outgoing else register()
        assert read(hep(chunks(payload, outgoing=outgoing, port=5060))) is None
        own = 3 if outgoing else 4
        parts = [
            (kind, FRIEND.packed if kind == own else data)
            for kind, data in chunks(payload, outgoing=outgoing)
        ]
        assert read(hep(parts)) is None
    inner = {4: ip_address(HERE[4]).packed, 8: struct.pack(">H", 8089)}
    assert read(hep((kind, inner.get(kind, data)) for kind, data in ANSWER)) is None


def test_an_answer_to_asterisk_is_not_one_of_asterisk() -> None:
    """A stranger's answer to Asterisk shows the connection alone, and so does Asterisk's own request."""
    remote = Endpoint(ip_address(THERE[4]), REMOTE_PORT, Transport.TLS)
    assert read(hep(chunks(answer(), outgoing=False)), sure=True) == Exported(remote)
    assert read(hep(chunks(register(more=CREDENTIALS))), sure=True) == Exported(remote)


@pytest.mark.parametrize("before", [b"", b"\r\n", b"\r\n\r\n"])
def test_an_answer_to_asterisk_hides_no_refusal(before: bytes) -> None:
    """Asterisk does not answer it, so it pays for no refusal whose request was suppressed."""
    reader = exports()
    read(hep(chunks(before + answer(200), outgoing=False)), reader)
    assert answered(hep(ANSWER), reader, sure=True).evasive


def test_messages_of_friends_show_the_connection_alone() -> None:
    """Messages from and to a friend are not returned, but a suppressed request is noticed."""
    remote = Endpoint(FRIEND, REMOTE_PORT, Transport.TLS)
    reader = exports()
    to_asterisk = [(kind, FRIEND.packed if kind == 3 else data) for kind, data in REQUEST]
    to_friend = [(kind, FRIEND.packed if kind == 4 else data) for kind, data in ANSWER]
    assert read(hep(to_asterisk), reader, sure=True) == Exported(remote)
    assert read(hep(to_friend), reader, sure=True) == Exported(remote)
    assert read(hep(to_friend), reader, sure=True) == Exported(remote, unasked=True)


def test_a_refusal_without_its_request_is_evasive() -> None:
    """Each request allows one final answer; a further refusal is evasive, but only if nothing was lost."""
    reader = exports()
    asked(reader, register())
    assert not answered(hep(chunks(answer(100))), reader, sure=True).evasive
    assert not answered(hep(ANSWER), reader, sure=True).evasive
    for status in (401, 403, 407):
        found = read(hep(chunks(answer(status))), reader, sure=True)
        assert found is not None
        assert found.unasked
        assert isinstance(found.message, CopiedAnswer)
        assert found.message.evasive
        unsure = read(hep(chunks(answer(status))), reader)
        assert unsure is not None
        assert not unsure.unasked
    for status in (200, 404, 500):
        assert not answered(hep(chunks(answer(status))), reader, sure=True).evasive
    assert not answered(hep(chunks(answer())), exports(), sure=False).evasive


def test_an_ack_allows_no_answer() -> None:
    """Nothing answers an ACK, so a refusal after it is evasive."""
    reader = exports()
    ack = b"ACK sip:a SIP/2.0\r\nCall-ID: call-1\r\nCSeq: 7 ACK\r\nContent-Length: 0\r\n\r\n"
    assert asked(reader, b"\r\n" + ack).sequences == ()
    assert answered(hep(ANSWER), reader, sure=True).evasive


def test_an_answer_that_is_none_shows_the_connection_alone() -> None:
    """An outgoing text with an unknown status is no answer."""
    found = read(hep(chunks(b"SIP/2.0 x")))
    assert found == Exported(Endpoint(ip_address(THERE[4]), REMOTE_PORT, Transport.TLS))


def test_requests_that_share_a_read_are_told_by_their_call_ids() -> None:
    """Each datagram of one read stands for the request with its UUID, in the order of these requests."""
    first, second = register(b"a"), register(b"b", CREDENTIALS, b"body")
    both = first + second + register(b"a", b"X: 1\r\n")
    reader = exports()
    found = [asked(reader, both, uuid) for uuid in (b"a", b"b")]
    assert [(one.call_ids, one.credentials) for one in found] == [((b"a",), False), ((b"b",), True)]
    third = register(b"a") + register(b"a", CREDENTIALS)
    assert [asked(reader, third, b"a").credentials for _ in range(3)] == [False, True, False]
    assert heads_in(both)[1] == second[: -len(b"body")]


def test_requests_that_take_turns_in_a_read_are_told_apart() -> None:
    """Requests of two Call-IDs by turns, the harmless ones first, hide no guess."""
    mixed = register(b"a") + register(b"b") + (register(b"a", CREDENTIALS) + register(b"b", CREDENTIALS)) * 2
    reader = exports()
    found = [asked(reader, mixed, uuid).credentials for _ in range(3) for uuid in (b"a", b"b")]
    assert found == [False, False, True, True, True, True]


def test_many_call_ids_of_a_read_take_bounded_memory() -> None:
    """Beyond the bound, each datagram still counts as another request."""
    odd = register(b"a", b"X: 1\nY: 2\r\n" + CREDENTIALS)
    reader = exports()
    found = {asked(reader, odd, b"%d" % number).digest for number in range(3 * MOST_SHARED)}
    assert len(found) == 3 * MOST_SHARED
    [connection] = reader._connections.values()
    assert len(connection.numbers) == MOST_SHARED


def test_behind_many_call_ids_no_harmless_request_stands_for_a_guess() -> None:
    """Beyond the bound, each datagram stands for the whole read, which may be a guess."""
    many = b"".join(b"OPTIONS sip:a SIP/2.0\r\nCall-ID: %d\r\n\r\n" % number for number in range(MOST_SHARED))
    mixed = many + register(b"last") + register(b"last", CREDENTIALS)
    reader = exports()
    for number in range(MOST_SHARED):
        asked(reader, mixed, b"%d" % number)
    found = [asked(reader, mixed, b"last") for _ in range(2)]
    assert len({one.digest for one in found}) == 2
    assert all(one.credentials for one in found)


def test_a_read_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work for a datagram does not grow with the number of requests that share its read."""
    calls: list[bytes] = []

    def parse(*arguments: Any, **options: Any) -> CopiedRequest:  # noqa: ANN401 - those of parse_request
        calls.append(arguments[2])
        return parse_request(*arguments, **options)

    monkeypatch.setattr(hep_module, "parse_request", parse)
    reader = exports()
    for _ in range(50):
        asked(reader, register(b"a") * 50, b"a")
    assert len(calls) == 100


def test_the_same_request_has_the_same_digest_wherever_it_is_read() -> None:
    """A request alone in its read, a second time, or with others in one read, has one digest."""
    request = register(more=CREDENTIALS)
    reader = exports()
    reads = [request, request, request + request, request + register(b"other")]
    assert len({asked(reader, payload).digest for payload in reads}) == 1


def test_each_datagram_of_a_read_that_is_not_plain_is_another_request() -> None:
    """Of text that can be read in several ways, each datagram counts, and all of it stands for each."""
    odd = register(b"a", b"X: 1\nY: 2\r\n" + CREDENTIALS) + register(b"b")
    reader = exports()
    found = [asked(reader, odd, b"a") for _ in range(3)]
    assert len({one.digest for one in found}) == 3
    assert asked(reader, odd, b"b").digest not in {one.digest for one in found}
    assert all(one.credentials and not one.unread and one.call_ids == (b"a",) for one in found)
    assert heads_in(odd) == []


def cut(parts: Iterable[Chunk]) -> bytes:
    """Return the packet of these chunks as far as the kernel copies it."""
    return packet(hep(parts))[:SIZE]


@pytest.mark.parametrize("more", [b"X: " + b"x" * 9_000 + b"\r\n", (b"X: " + b"x" * 50 + b"\r\n") * 400])
def test_a_request_whose_head_is_cut_off_may_have_credentials(more: bytes) -> None:
    """A cut head is unread, and counts as one with credentials; a cut body is not."""
    for text, unread in ((register(more=more), True), (register(body=b"x" * 9_000), False)):
        found = exports().read(cut(chunks(text, outgoing=False)), sure=True)
        assert found is not None
        assert isinstance(found.message, CopiedRequest)
        assert (found.message.unread, found.message.credentials) == (unread, unread)
        assert found.message.call_ids == (CALL_ID,)


def test_a_head_that_is_cut_off_may_have_other_credentials() -> None:
    """The user name and the nonce in its copied part may be others than Asterisk checks."""
    text = register(more=CREDENTIALS + b"X: " + b"x" * 9_000 + b"\r\n")
    found = exports().read(cut(chunks(text, outgoing=False)), sure=True)
    assert found is not None
    assert isinstance(found.message, CopiedRequest)
    assert found.message.credentials
    assert found.message.account == ""
    assert found.message.fingerprint == ambiguous_fingerprint(found.message.digest)


def test_a_second_request_behind_the_copy_may_have_credentials() -> None:
    """Of two requests with one Call-ID, the copy of their read has the harmless one alone."""
    reader = exports()
    filler = (SIZE - 1_000) // 2 - len(register(b"other"))
    text = register(b"other", body=b"x" * filler) * 2 + register()
    text += register(more=b"X: " + b"x" * 2_000 + b"\r\n" + CREDENTIALS)
    found = [reader.read(cut(chunks(text, outgoing=False)), sure=True) for _ in range(2)]
    messages = [one.message for one in found if one is not None and isinstance(one.message, CopiedRequest)]
    assert [(one.unread, one.credentials) for one in messages] == [(False, False), (True, True)]


def test_a_request_behind_the_copy_may_have_credentials() -> None:
    """A long harmless request fills the copy of a read; what follows it may be a guess."""
    text = register(b"other", body=b"x" * 9_000) + register(more=CREDENTIALS)
    found = exports().read(cut(chunks(text, outgoing=False)), sure=True)
    assert found is not None
    assert isinstance(found.message, CopiedRequest)
    assert (found.message.unread, found.message.credentials, found.message.call_ids) == (
        True,
        True,
        (CALL_ID,),
    )


def test_an_answer_cut_off_is_still_a_challenge() -> None:
    """An answer that is cut off after its status is a challenge with the Call-ID of the UUID."""
    long = b"c" * 5_000
    found = exports().read(cut(chunks(answer(call_id=long), uuid=long)), sure=False)
    assert found is not None
    assert isinstance(found.message, CopiedAnswer)
    assert found.message.call_id == short_session(long)
    assert found.message.status == 401
    assert found.message.evasive


def test_a_call_id_that_fills_the_copy_is_evasive() -> None:
    """If the Call-ID leaves no room for the message, an answer is evasive, and a request shows nothing."""
    long = b"c" * 9_000
    found = exports().read(cut(chunks(answer(call_id=long), uuid=long)), sure=False)
    remote = Endpoint(ip_address(THERE[4]), REMOTE_PORT, Transport.TLS)
    assert found is not None
    assert isinstance(found.message, CopiedAnswer)
    assert found.remote == remote
    assert found.message.evasive
    assert found.message.transport is Transport.TLS
    reader = exports()
    assert reader.read(cut(chunks(register(long), outgoing=False, uuid=long)), sure=True) == Exported(remote)
    assert not answered(hep(ANSWER), reader, sure=True).evasive


def test_an_answer_without_its_text_answers_a_request() -> None:
    """A request whose Call-ID fills the copy pays for no other refusal than its own."""
    long = b"c" * 9_000
    reader = exports()
    reader.read(cut(chunks(register(long), outgoing=False, uuid=long)), sure=True)
    reader.read(cut(chunks(answer(call_id=long), uuid=long)), sure=True)
    assert answered(hep(ANSWER), reader, sure=True).evasive


def test_the_least_recently_used_connection_is_forgotten() -> None:
    """At most MOST_CONNECTIONS connections are kept."""
    reader = exports()
    asked(reader, register())
    other = dict(REQUEST)
    for number in range(MOST_CONNECTIONS):
        other[7] = struct.pack(">H", number)
        read(hep(other.items()), reader)
    assert answered(hep(ANSWER), reader, sure=True).evasive
    last = dict(ANSWER) | {8: other[7]}
    assert not answered(hep(last.items()), reader, sure=True).evasive


@given(st.binary(max_size=300), st.booleans())
def test_random_bytes_are_never_an_error(data: bytes, sure: bool) -> None:  # noqa: FBT001 - a parameter
    """Random packets, datagrams and payloads are read or not, without an exception."""
    reader = exports()
    reader.read(data, sure=sure)
    read(data, reader, sure=sure)
    read(hep([data]), reader, sure=sure)
    for outgoing in (False, True):
        for payload in (data, b"SIP/2.0 401 X\r\n" + data, register(more=data)):
            found = read(hep(chunks(payload, outgoing=outgoing, uuid=data[:9])), reader, sure=sure)
            assert found is None if not payload else addresses_are_right(found)


def addresses_are_right(found: Exported | None) -> bool:
    """Whether a message shows the addresses of its chunks, whatever its text is."""
    right = {ip_address(HERE[4]), ip_address(THERE[4])}
    return found is not None and addresses(found) <= right and found.remote.address == ip_address(THERE[4])


@given(
    st.sampled_from([REQUEST, ANSWER]),
    st.lists(st.tuples(st.integers(0, 700), st.binary(max_size=4)), min_size=1, max_size=5),
    st.integers(0, 800),
)
def test_changed_packets_are_never_an_error(
    parts: list[Chunk], changes: list[tuple[int, bytes]], end: int
) -> None:
    """Packets with changed bytes, whole or cut off, are read or not, without an exception."""
    whole = bytearray(packet(hep(parts)))
    for at, data in changes:
        whole[at : at + len(data)] = data
    reader = exports()
    for one in (bytes(whole), bytes(whole[:end])):
        found = reader.read(one, sure=True)
        assert found is None or found.remote.transport in PORTS.values()
