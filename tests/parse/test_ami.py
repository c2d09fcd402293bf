"""The decoder of AMI: it returns what Asterisk wrote, whatever text a caller put into a name."""

import re
from ipaddress import ip_address
from typing import Any

import pytest
from attrs import evolve
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.parse.packets import (
    BANNER,
    LOCAL,
    OPTIONAL,
    POINTER,
    REQUIRED,
    SECONDS,
    SOURCE,
    SPEAKING,
    events,
    head,
    packet,
    read,
    run,
    tail,
)
from tests.support.captures import FORGED, capture

from ringfence.parse.ami import END, HOLD, MAX_FRAGMENTS, MAX_LOCAL, MAX_PACKET, AmiCounts, AmiDecoder
from ringfence.parse.ami_http import AmiItem, Banner, Reply
from ringfence.parse.roster import RosterEvent
from ringfence.parse.security import KINDS
from ringfence.values.event import Endpoint, EventKind, SecurityEvent, Service, Transport

SENDER = Endpoint(ip_address("192.0.2.7"), 5062, Transport.UDP)
EVENT = SecurityEvent(
    SOURCE, EventKind.INVALID_ACCOUNT_ID, Service.PJSIP, SENDER, SECONDS, "alice", b"call-1"
)
MANAGER = evolve(
    EVENT,
    service=Service.AMI,
    session=POINTER,
    remote=evolve(SENDER, transport=Transport.TCP),
    forgeable=True,
)
"""The result of a manager event if AMI over HTTP cannot be checked."""
GOOD = packet(account=b"next", session=b"next")
GOOD_EVENT = evolve(EVENT, account="next", session=b"next")
FORGED_TAIL = b"\r\n".join(
    [b"x", b"SessionID: 1", b"LocalAddress: l", b"RemoteAddress: IPV4/UDP/203.0.113.9/5060"]
)
STRANGER = Endpoint(FORGED, 5060, Transport.UDP)


def expected(kind: EventKind, service: Service, *, optional: bool) -> SecurityEvent:
    """Return the event of a kind from the builder's values, with its optional headers or without."""
    manager = service is Service.AMI
    event = evolve(MANAGER if manager else EVENT, kind=kind, service=service)
    if manager and kind is EventKind.SUCCESSFUL_AUTH:
        event = evolve(event, forgeable=False)
    always: dict[EventKind, dict[str, Any]] = {
        EventKind.CHALLENGE_RESPONSE_FAILED: {"challenge": b"C", "response": b"R"},
        EventKind.CHALLENGE_SENT: {"challenge": b"C"},
        EventKind.SUCCESSFUL_AUTH: {"password": True},
    }
    with_more: dict[EventKind, dict[str, Any]] = {
        EventKind.INVALID_PASSWORD: {"challenge": b"RC", "response": b"RH"},
        EventKind.FAILED_ACL: {"acl_name": "A"},
    }
    without: dict[EventKind, dict[str, Any]] = {EventKind.REQUEST_BAD_FORMAT: {"account": ""}}
    return evolve(event, **(always | (with_more if optional else without)).get(kind, {}))


def deadline(decoder: AmiDecoder) -> float | None:
    """Return the decoder's deadline, read again."""
    return decoder.deadline


@pytest.mark.parametrize("kind", KINDS.values())
@pytest.mark.parametrize("service", SPEAKING)
def test_each_kind_is_read_without_and_with_its_optional_headers(kind: EventKind, service: Service) -> None:
    """Each of the fifteen kinds, under each service, gives one untampered event with all its values."""
    plain, full = expected(kind, service, optional=False), expected(kind, service, optional=True)
    stream = packet(kind, service=service.encode())
    stream += packet(kind, service=service.encode(), rest=REQUIRED[kind] + OPTIONAL[kind])
    assert events(stream) == [plain, full]


@pytest.mark.parametrize(
    ("local", "recorded"),
    [
        (b"IPV4/UDP/172.17.0.2/5060", {"172.17.0.2"}),
        (b"IPV6/UDP/fd00:18::1/5060", {"fd00:18::1"}),
        (b"IPV4/UDP/127.0.0.1/5060", set()),
        (b"IPV4/TCP/0.0.0.0/5038", set()),
        (b"IPV6/TCP/::/5038", set()),
        (b"IPV4/UDP/nobody/5060", set()),
        (b"", set()),
    ],
)
def test_events_name_asterisks_own_addresses(local: bytes, recorded: set[str]) -> None:
    """The address at which Asterisk received a request is recorded, except for loopback and 0.0.0.0."""
    _, decoder = run([packet().replace(LOCAL, local)] * 2)
    assert decoder.local_addresses == {ip_address(text) for text in recorded}


def test_asterisks_own_addresses_are_bounded() -> None:
    """A host that answers at any address of a network makes the decoder keep no more than its bound."""
    locals_ = [b"IPV4/UDP/198.51.100.%d/5060" % number for number in range(1, MAX_LOCAL + 9)]
    items, decoder = run([packet().replace(LOCAL, local) for local in locals_])
    assert len(decoder.local_addresses) == MAX_LOCAL
    assert decoder.counts.events == sum(isinstance(item, SecurityEvent) for item in items) > MAX_LOCAL


def test_headers_of_debug_and_system_name_are_ignored() -> None:
    """Timestamp, SequenceNumber, File, Line, Func and SystemName do not change the event."""
    extra = (
        b"Timestamp: 1795154722.1",
        b"SequenceNumber: 4",
        b"File: manager.c",
        b"Line: 7",
        b"Func: f",
        b"SystemName: pbx",
    )
    assert events(packet(extra=extra) + packet(extra=extra[5:])) == [EVENT, EVENT]


@pytest.mark.parametrize(
    ("remote", "endpoint"),
    [
        (b"IPV4/192.0.2.7/5062", Endpoint(ip_address("192.0.2.7"), 5062, Transport.UNKNOWN)),
        (b"IPV4/TLS/192.0.2.7/0", Endpoint(ip_address("192.0.2.7"), 0, Transport.TLS)),
        (b"IPV6/WSS/2001:db8::7/65535", Endpoint(ip_address("2001:db8::7"), 65535, Transport.WSS)),
        (b"IPV6/UDP/::ffff:192.0.2.7/1", Endpoint(ip_address("192.0.2.7"), 1, Transport.UDP)),
        (b"IPV6/UDP/fe80::7%eth0/1", Endpoint(ip_address("fe80::7"), 1, Transport.UDP)),
    ],
)
def test_every_form_of_an_address_is_read(remote: bytes, endpoint: Endpoint) -> None:
    """Three parts, IPv6, IPv4-mapped IPv6 and a zone all give the address that packets carry."""
    assert events(packet(remote=remote)) == [evolve(EVENT, remote=endpoint)]


@pytest.mark.parametrize("remote", [b"(null)", b"", b"IPV4/UDP/192.0.2.300/1", b"IPV4/UDP/192.0.2.7/65536"])
def test_an_event_without_an_address_is_counted_only(remote: bytes) -> None:
    """If the address is invalid, the event is garbled, and the next one is parsed."""
    returned, decoder = read(packet(remote=remote) + GOOD)
    assert returned == [GOOD_EVENT]
    assert decoder.counts == AmiCounts(events=1, garbled=1)


TAMPERED_ACCOUNTS = [
    b"x\r\nRemoteAddress: IPV4/UDP/203.0.113.9/5",
    b"x\r\nSessionID: 1",
    b"x\r\n\r\nEvent: SuccessfulAuth",
    b"x\r\n\r\nResponse: Success",
    b"x\r\n\r\n",
    b"x\r\n",
    b"\r\n",
    b"\r\n\r\n\r\n\r\n\r\nx",
    b"\r\r\n\n\r",
    b"x\r",
    b"AccountID: y\r\nAccountID: z",
    b"\r\n" * 18,
]


@pytest.mark.parametrize("account", TAMPERED_ACCOUNTS)
@pytest.mark.parametrize("service", SPEAKING)
def test_a_name_that_breaks_the_packet_counts_against_its_sender(account: bytes, service: Service) -> None:
    """CR and LF in the account give one event of the true address, marked as tampered, and lose nothing."""
    manager = service is Service.AMI
    tampered = evolve(MANAGER if manager else EVENT, service=service, account="", tampered=True)
    returned = events(packet(account=account, service=service.encode()) + GOOD)
    assert [evolve(returned[0], account=""), *returned[1:]] == [
        tampered,
        evolve(GOOD_EVENT, forgeable=manager),
    ]


@pytest.mark.parametrize("account", [b"x\ny", b"x\x00y", b"\x1b[31mx", b"\xe2\x98\x8e", b"", b"AccountID: x"])
def test_a_name_without_cr_keeps_the_grammar(account: bytes) -> None:
    """LF, NUL, ESC and any text are a name like others."""
    assert events(packet(account=account)) == [evolve(EVENT, account=account.decode())]


def test_bytes_that_are_not_utf8_become_readable() -> None:
    r"""Bytes that are not UTF-8 become ``\xNN`` in text for people, and stay unchanged in the session."""
    event = evolve(EVENT, account=r"a\xff", session=b"\xfe\x00")
    assert events(packet(account=b"a\xff", session=b"\xfe\x00")) == [event]


def shuffled() -> dict[str, tuple[bytes, bool]]:
    """Return packets with disordered headers, each with whether it yields an address."""
    first, second = head(EventKind.INVALID_ACCOUNT_ID), tail()
    account = b"AccountID: a"

    def joined(*lines: bytes) -> bytes:
        return b"\r\n".join(lines) + END

    return {
        "the tail twice": (joined(*first, account, *tail(remote=b"IPV4/UDP/203.0.113.9/1"), *second), True),
        "the account twice": (joined(*first, account, account, *second), True),
        "an unknown header after the tail": (joined(*first, account, *second, b"X: y"), True),
        "a required header missing": (packet(EventKind.CHALLENGE_SENT, rest=()), True),
        "rest in another order": (
            packet(EventKind.FAILED_ACL, rest=(b"ACLName: A", b"Module: M")),
            True,
        ),
        "no event first": (joined(*first[1:], account, *second), False),
        "another privilege": (joined(first[0], b"Privilege: call,all", *first[2:], account, *second), False),
        "head out of order": (joined(first[0], *reversed(first[1:]), account, *second), False),
        "an unknown service": (packet(service=b"IAX2"), False),
        "no account": (joined(*first, *second), False),
        "no calendar's day": (GOOD.replace(b"2026-11-20", b"2026-02-30"), False),
        "an unknown kind": (GOOD.replace(b"InvalidAccountID", b"NoSuchKind"), False),
        "a tail out of order": (joined(*first[1:], account, *reversed(second)), False),
    }


@pytest.mark.parametrize("name", shuffled())
def test_an_event_outside_the_grammar_is_tampered_or_nothing(name: str) -> None:
    """Headers out of order, repeated or missing: the last tail counts or none; the next event is parsed."""
    broken, readable = shuffled()[name]
    returned = events(broken + GOOD)
    assert [(event.tampered, event.remote) for event in returned[:-1]] == (
        [(True, SENDER)] if readable else []
    )
    assert returned[-1] == GOOD_EVENT


@pytest.mark.parametrize("name", ["user-carries-crlf-header", "user-carries-crlf-event"])
def test_recorded_tampering_counts_against_its_sender(name: str) -> None:
    """Each recording gives eight events of its source; the four with CR LF in the name are tampered."""
    recording = capture("asterisk-22", name)
    returned = events(recording.ami.read_bytes())
    assert {event.remote.address for event in returned} == {recording.source}
    assert [event.tampered for event in returned] == [True, False, True, False] * 2


def sip(account: bytes) -> bytes:
    """Return a chan_sip event, whose account has room for a forged tail."""
    return packet(account=account, service=b"SIP")


LEFTOVERS = [
    b"",
    b"y",
    b"Event: SuccessfulAuth",
    b"Response: Error\r\nMessage: no" + END + b"y",
    b"Response: Goodbye" + END,
    END + END,
    b"\r\n".join(head(EventKind.CHALLENGE_SENT)),
    b"Event: Shutdown" + END + b"Event: Reload" + END,
]


@pytest.mark.parametrize("leftover", LEFTOVERS)
def test_a_forged_tail_is_corrected_by_the_remainder(leftover: bytes) -> None:
    """A whole forged tail in a chan_sip account yields only the sender, whatever comes after it."""
    returned = events(sip(FORGED_TAIL + END + leftover) + GOOD)
    assert [(event.service, event.remote, event.tampered) for event in returned] == [
        (Service.SIP, SENDER, True),
        (Service.PJSIP, SENDER, False),
    ]


BEHIND_AN_EMPTY_LINE = [
    END + FORGED_TAIL.removeprefix(b"x\r\n"),
    b"x" + END + FORGED_TAIL,
    b"\r\n" + END + FORGED_TAIL + END + b"y",
    b"x" + END + FORGED_TAIL + END + FORGED_TAIL,
]


@pytest.mark.parametrize("account", BEHIND_AN_EMPTY_LINE)
@pytest.mark.parametrize("cut", range(1, 4))
def test_a_forged_tail_after_an_empty_line_names_its_sender(account: bytes, cut: int) -> None:
    """The account of chan_sip holds an empty line, a whole forged tail and another empty line.

    The true tail comes with a later read, before the event is released.
    """
    decoder = AmiDecoder(SOURCE)
    decoder.receive(BANNER, 0.0)
    packets = (sip(account + END + b"rest") + GOOD).split(END)[:-1]
    returned = decoder.receive(END.join(packets[:cut]) + END, 1.0)
    returned += decoder.tick(1.0 + 0.049)
    returned += decoder.receive(END.join(packets[cut:]) + END, 1.049)
    returned += decoder.tick(2.0)
    assert [(one.service, one.remote) for one in returned if isinstance(one, SecurityEvent)] == [
        (Service.SIP, SENDER),
        (Service.PJSIP, SENDER),
    ]


def test_the_first_challenge_after_the_true_tail_counts() -> None:
    """A challenge within the account is the sender's text, and so is a second one after the tail."""
    account = b"a\r\nChallenge: forged\r\nResponse: forged"
    rest = (b"Challenge: C", b"Response: R", b"Challenge: D", b"Response: S")
    (event,) = events(packet(EventKind.CHALLENGE_RESPONSE_FAILED, account=account, rest=rest))
    assert (event.tampered, event.challenge, event.response) == (True, b"C", b"R")


def test_a_chan_sip_event_waits_for_a_remainder() -> None:
    """It is returned when the next security event begins, or after 50 ms; a remainder is joined before."""
    plain = evolve(EVENT, service=Service.SIP)
    decoder = AmiDecoder(SOURCE)
    assert decoder.receive(BANNER + sip(b"alice"), 10.0) == [Banner("11.0.0")]
    assert deadline(decoder) == 10.0 + HOLD
    assert decoder.tick(10.0 + HOLD / 2) == []
    assert decoder.tick(10.0 + HOLD) == [plain]
    assert deadline(decoder) is None
    assert decoder.receive(sip(b"alice"), 11.0) == []
    assert decoder.receive(GOOD, 11.01) == [plain, GOOD_EVENT]
    forged = sip(FORGED_TAIL + END)
    cut = forged.index(END) + len(END)
    assert decoder.receive(forged[:cut], 12.0) == []
    assert decoder.receive(forged[cut:], 12.01) == []
    (event,) = decoder.tick(12.01 + HOLD)
    assert isinstance(event, SecurityEvent)
    assert (event.remote, event.tampered) == (SENDER, True)


def test_replies_stay_in_order_after_a_held_event() -> None:
    """A reply that follows a chan_sip event is returned after it, in order."""
    stream = sip(b"alice") + b"Response: Success\r\nPing: Pong" + END + b"Event: Reload" + END
    returned, decoder = read(stream)
    assert returned == [evolve(EVENT, service=Service.SIP), Reply("Response: Success\r\nPing: Pong")]
    assert decoder.counts == AmiCounts(events=1, other=1)


def test_the_packets_after_a_held_event_are_bounded() -> None:
    """More packets than an account can hold release it before its time."""
    decoder = AmiDecoder(SOURCE)
    decoder.receive(BANNER, 0.0)
    returned = decoder.receive(sip(b"alice") + (b"Response: Success" + END) * MAX_FRAGMENTS, 0.0)
    assert returned == [evolve(EVENT, service=Service.SIP), *[Reply("Response: Success")] * MAX_FRAGMENTS]


def test_twenty_one_empty_lines_in_the_account_are_joined() -> None:
    """As many empty lines as 256 encoded bytes can hold leave one event, of its sender."""
    account = END * 21
    assert [event.tampered for event in events(sip(account) + GOOD)] == [True, False]


def test_an_event_without_a_tail_is_dropped() -> None:
    """After more fragments than an account can hold the decoder starts again, and counts it."""
    stream = b"\r\n".join([*head(EventKind.INVALID_ACCOUNT_ID), b"AccountID: x"]) + END
    returned, decoder = read(stream + (b"y" + END) * (MAX_FRAGMENTS - 1) + GOOD)
    assert returned == [GOOD_EVENT]
    assert decoder.counts.garbled == 1
    assert decoder.counts.dropped_bytes == len(stream) - len(END) + MAX_FRAGMENTS - 1


def held_bytes(decoder: AmiDecoder) -> int:
    """Return how many of the bytes that came a decoder keeps."""
    return len(decoder._packets._buffer) + sum(map(len, decoder._fragments)) + sum(map(len, decoder._held))


@pytest.mark.parametrize(
    "start", [b"", GOOD[:-6], packet(account=b"x\r\n\r\n")[:200], sip(b"bob"), b"Response: "]
)
def test_a_line_of_a_hundred_megabytes_is_bounded_and_forgotten(start: bytes) -> None:
    """Memory stays bounded, every byte is counted, and the packet after it is parsed."""
    decoder = AmiDecoder(SOURCE)
    decoder.receive(BANNER + start, 0.0)
    block, blocks = b"x" * 500_000, 200
    for _ in range(blocks):
        decoder.receive(block, 0.0)
        assert held_bytes(decoder) < 3 * MAX_PACKET
    returned = decoder.receive(END + GOOD, 0.0)
    assert returned[-1] == GOOD_EVENT
    assert len(block) * blocks <= decoder.counts.dropped_bytes <= len(block) * blocks + len(start)
    assert decoder.counts.garbled == 1


@pytest.mark.parametrize("excess", [-1, 0, 1, 2])
def test_the_longest_packet_is_the_same_at_any_split(excess: int) -> None:
    """A packet of exactly the greatest length is kept, one byte more is not, at any split."""
    shell = packet(session=b"")
    long = packet(session=b"x" * (MAX_PACKET + excess - len(shell) + len(END)))
    fits = excess <= 0
    for cut in range(len(long) - 6, len(long)):
        returned, decoder = run([BANNER, long[:cut], long[cut:] + GOOD])
        assert len(returned) == (3 if fits else 2)
        assert returned[-1] == GOOD_EVENT
        assert decoder.counts.dropped_bytes == (0 if fits else MAX_PACKET + excess)


def test_a_reply_is_returned_as_text() -> None:
    """A packet that begins with Response is a reply; bytes that are not UTF-8 become readable."""
    returned, _ = read(b"Response: Success\r\nActionID: 7\r\nMessage: a\xffb" + END + GOOD)
    assert returned == [Reply("Response: Success\r\nActionID: 7\r\nMessage: a\\xffb"), GOOD_EVENT]


def test_other_events_are_counted_and_ignored() -> None:
    """An event of another class is no security event, even if its text names one."""
    stream = b"Event: Hangup\r\nPrivilege: call,all\r\nChannel: x" + END
    stream += b"Event: PeerStatus\r\nPrivilege: system,all\r\nPeer: x\r\nPrivilege: security,all" + END
    returned, decoder = read(stream + GOOD)
    assert returned == [GOOD_EVENT]
    assert decoder.counts == AmiCounts(events=1, other=2)


TOKEN = "5f1d9c20a7b3e846"
CONTACT_STATUS = (
    b"Event: ContactStatus\r\nPrivilege: system,all\r\nURI: sip:204@203.0.113.9:5060\r\n"
    b"ContactStatus: Reachable\r\nAOR: 204\r\nEndpointName: 204\r\nRoundtripUsec: 448"
)
LINES_OF_ANSWERS = st.sampled_from(
    [
        b"\r\n",
        b"\r\n\r\n",
        b"Response: Success",
        b"Event: PeerEntry\r\n",
        END + b"Event: AuthDetail\r\nActionID: %s-1\r\nPassword: trunk-secret" % TOKEN.encode() + END,
        b"\r\nActionID: %s-1" % TOKEN.encode(),
        CONTACT_STATUS,
        packet(service=b"SIP")[:-2],
        packet(account=b"x\r\n\r\ny")[:120],
    ]
)
CONTACT_ITEM = RosterEvent(
    "ContactStatus",
    "",
    {
        "Event": "ContactStatus",
        "Privilege": "system,all",
        "URI": "sip:204@203.0.113.9:5060",
        "ContactStatus": "Reachable",
        "AOR": "204",
        "EndpointName": "204",
        "RoundtripUsec": "448",
    },
)


def items(returned: list[AmiItem]) -> list[RosterEvent]:
    """Return the events about phones and trunks."""
    return [one for one in returned if isinstance(one, RosterEvent)]


def asked(stream: bytes, now: float = 0.0) -> tuple[list[AmiItem], AmiDecoder]:
    """Decode a connection over which actions with our token were sent, without waiting."""
    decoder = AmiDecoder(SOURCE, TOKEN)
    return decoder.receive(BANNER + stream, now)[1:], decoder


def test_phone_events_are_returned_with_their_headers() -> None:
    """An unrequested event about a phone, of class system, is returned at any split."""
    returned, decoder = read(CONTACT_STATUS + END + GOOD)

    assert returned == [CONTACT_ITEM, GOOD_EVENT]
    assert decoder.counts.other == 1


@pytest.mark.parametrize(
    "broken",
    [
        CONTACT_STATUS.replace(b"system,all", b"call,all"),
        CONTACT_STATUS.replace(b"Privilege: system,all\r\n", b""),
        CONTACT_STATUS.replace(b"Event: ", b"event: "),
        CONTACT_STATUS + b"\r\nURI: sip:204@203.0.113.10",
        CONTACT_STATUS + b"\r\nof no grammar",
    ],
)
def test_malformed_phone_events_are_dropped(broken: bytes) -> None:
    """Another class, none, or a repeated header: nothing is returned, and the next event is parsed."""
    assert read(broken + END + GOOD)[0] == [GOOD_EVENT]


def test_a_reply_to_our_action_is_recognised_by_its_token() -> None:
    """Entries of lists with our ActionID are returned; without it, or with another, they are ignored."""
    entry = b"Event: PeerEntry\r\nActionID: %s\r\nObjectName: bob" + END
    returned, decoder = asked(entry % f"{TOKEN}-1".encode() + entry % b"action/1" + entry % b"5f1d" + GOOD)

    assert returned == [
        RosterEvent(
            "PeerEntry",
            f"{TOKEN}-1",
            {"Event": "PeerEntry", "ActionID": f"{TOKEN}-1", "ObjectName": "bob"},
        ),
        GOOD_EVENT,
    ]
    assert decoder.counts == AmiCounts(events=1, other=3)


def test_replies_to_our_actions_do_not_wait_for_a_remainder() -> None:
    """After a held chan_sip event they are returned at once, because only we know the token."""
    stream = b"Response: Success\r\nActionID: %s-1" + END + b"Event: A\r\nActionID: %s-1" + END
    returned, _ = asked(sip(b"alice") + stream % (TOKEN.encode(), TOKEN.encode()))

    assert [type(one) for one in returned] == [Reply, RosterEvent]


@given(st.lists(st.binary(max_size=12) | LINES_OF_ANSWERS, max_size=12).map(b"".join), st.integers(1, 40))
@settings(deadline=None, max_examples=3 * settings().max_examples)
def test_replies_are_equal_at_any_split(text: bytes, size: int) -> None:
    """Any text among our replies raises nothing, and a trunk's password is never returned."""
    stream = BANNER + text + END + GOOD
    whole, decoder = AmiDecoder(SOURCE, TOKEN).receive(stream, 0.0), AmiDecoder(SOURCE, TOKEN)
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]

    assert [one for piece in pieces for one in decoder.receive(piece, 0.0)] == whole
    assert "trunk-secret" not in repr(whole)


@pytest.mark.parametrize(
    "before",
    [
        b"",
        sip(b"alice"),
        b"\r\n".join([*head(EventKind.INVALID_ACCOUNT_ID), b"AccountID: x"]) + END,
    ],
)
def test_a_trunks_password_is_never_kept(before: bytes) -> None:
    """AuthDetail is dropped at once: it is never returned, and no later event holds it."""
    detail = b"Event: AuthDetail\r\nActionID: %s-4\r\nUsername: me\r\nPassword: trunk-secret" + END
    decoder = AmiDecoder(SOURCE, TOKEN)
    returned = decoder.receive(BANNER + before + detail % TOKEN.encode(), 0.0)

    kept = [bytes(decoder._packets._buffer), *decoder._fragments, *decoder._held]
    assert b"trunk-secret" not in b"".join(kept)
    returned += decoder.receive(GOOD, 0.0) + decoder.tick(1.0)
    assert "trunk-secret" not in repr(returned)
    assert items(returned) == []
    assert decoder.counts.other == 1


@pytest.mark.parametrize("remote", [b"IPV4/UDP/203.0.113.9/5060", b"x", b""])
@pytest.mark.parametrize("leftover", [b"", b"\r\n", END])
def test_a_forged_tail_invents_no_phone(remote: bytes, leftover: bytes) -> None:
    """Text after a forged tail of chan_sip, with an address or without, is the sender's text."""
    forged = FORGED_TAIL.replace(b"IPV4/UDP/203.0.113.9/5060", remote) + END + CONTACT_STATUS + leftover
    returned, _ = read(sip(forged) + GOOD)

    assert items(returned) == []
    assert [event.remote for event in returned if isinstance(event, SecurityEvent)] == [SENDER, SENDER]


def test_a_manager_login_over_http_invents_no_phone() -> None:
    """A user name of any length can hold a change of a phone, and it is dropped."""
    text = FORGED_TAIL + END + CONTACT_STATUS + END + packet(EventKind.INVALID_ACCOUNT_ID)[: -len(END)]
    returned, _ = read(packet(service=b"AMI", account=text) + GOOD)

    assert items(returned) == []


def test_counts_add_up_over_connections() -> None:
    """The sum of two decoders' counts is the sum of each."""
    assert AmiCounts(1, 2, 3, 4, 5).plus(AmiCounts(10, 20, 30, 40, 50)) == AmiCounts(11, 22, 33, 44, 55)


LINES = st.sampled_from(
    [
        b"\r\n",
        b"\r\n\r\n",
        b"\r",
        b"\n",
        b"\x00",
        b"Event: SuccessfulAuth",
        b"Response: Success",
        b"Privilege: security,all",
        b"EventTV: 2026-11-20T06:05:22.0+0000",
        b"Severity: Error",
        b"Service: PJSIP",
        b"EventVersion: 1",
        b"AccountID: ",
        b"SessionID: ",
        b"LocalAddress: ",
        b"RemoteAddress: IPV4/UDP/203.0.113.9/5060",
        b"UsingPassword: 1",
        b"Event: ContactStatus\r\nPrivilege: system,all\r\nURI: sip:a@9.9.9.9",
        FORGED_TAIL,
        b"\r\nSessionID: \r\nLocalAddress: \r\nRemoteAddress: \r\n\r\n",
    ]
)
TEXT = st.lists(LINES | st.binary(max_size=8), max_size=24).map(b"".join)
# The percent-encoding of text in a chan_sip header: a byte that is not allowed there takes three bytes.
UNSAFE = re.compile(rb"[\x00-\x1f:@<>\x7f-\xff]")


def encoded_size(text: bytes) -> int:
    """Return how many bytes of a SIP header a name takes."""
    return len(text) + 2 * len(UNSAFE.findall(text))


def checked_events(stream: bytes) -> list[SecurityEvent]:
    """Decode events at once and byte by byte, with equal results."""
    whole, _ = run([BANNER + stream])
    assert run([bytes([byte]) for byte in BANNER + stream])[0] == whole
    return [one for one in whole if isinstance(one, SecurityEvent)]


@given(TEXT, st.sampled_from(sorted(KINDS.values())))
@settings(deadline=None, max_examples=3 * settings().max_examples)
def test_no_name_under_pjsip_forges_an_address(name: bytes, kind: EventKind) -> None:
    """36 bytes of any name leave one event of the sender, no success if tampered, and the next event."""
    rest = REQUIRED[kind]
    returned = checked_events(packet(kind, account=name[:36], rest=rest) + GOOD)
    assert len(returned) == 2
    assert (returned[0].kind, returned[0].service, returned[0].remote) == (kind, Service.PJSIP, SENDER)
    assert returned[0].tampered == (b"\r" in name[:36] and kind is not EventKind.REQUEST_BAD_FORMAT)
    assert returned[1] == GOOD_EVENT
    assert items(run([BANNER + packet(kind, account=name[:36], rest=rest) + GOOD])[0]) == []


@given(TEXT, st.sampled_from([EventKind.INVALID_ACCOUNT_ID, EventKind.INVALID_PASSWORD]))
@example(
    b"\r\nSessionID: \r\nLocalAddress: \r\nRemoteAddress: \r\n\r\n"
    b"Event: ContactStatus\r\nPrivilege: system,all\r\nURI: sip:a@9.9.9.9\r\nContactStatus: Reachable",
    EventKind.INVALID_PASSWORD,
)
@settings(deadline=None, max_examples=3 * settings().max_examples)
def test_no_name_under_chan_sip_forges_an_address(name: bytes, kind: EventKind) -> None:
    """Any text within 256 encoded bytes leaves one event of the sender, and the next one.

    A forged tail together with a forged head would need 259 or more. The next test shows what an account of
    unlimited length can do.
    """
    while encoded_size(name) > 256:
        name = name[:-1]
    returned = checked_events(packet(kind, account=name, service=b"SIP") + GOOD)
    assert [event.remote for event in returned] == [SENDER, SENDER]
    assert (returned[0].kind, returned[0].service) == (kind, Service.SIP)
    assert returned[0].tampered == (b"\r" in name)
    assert returned[1] == GOOD_EVENT
    assert items(run([BANNER + packet(kind, account=name, service=b"SIP") + GOOD])[0]) == []


SHORTEST_TAIL = b"\r\nSessionID: \r\nLocalAddress: \r\nRemoteAddress: IPV4/9.9.9.9/5" + END
SHORTEST_HEAD = b"\r\n".join(
    [
        b"Event: X",
        b"Privilege: security,all",
        b"EventTV: 2026-11-20T06:05:22.0+0000",
        b"Severity: Error",
        b"Service: SIP",
        b"EventVersion: 1",
    ]
)


def test_a_forged_tail_and_a_head_without_account_are_corrected() -> None:
    """The shortest of both need 244 bytes of a chan_sip header: one event, of its sender."""
    assert encoded_size(SHORTEST_TAIL + SHORTEST_HEAD) == 244
    returned = checked_events(sip(SHORTEST_TAIL + SHORTEST_HEAD) + GOOD)
    assert [(event.remote, event.tampered) for event in returned] == [(SENDER, True), (SENDER, False)]


@pytest.mark.parametrize(
    "second", [SHORTEST_HEAD + b"\r\nAccountID: ", SHORTEST_HEAD.replace(b": X", b": RequestBadFormat")]
)
def test_a_forged_tail_and_a_whole_forged_head_do_not_fit(second: bytes) -> None:
    """They would name another address, and need more than the 255 bytes of a chan_sip header."""
    forged = SHORTEST_TAIL + second
    assert checked_events(sip(forged) + GOOD)[0].remote.address == ip_address("9.9.9.9")
    assert encoded_size(forged) > 255


@given(st.lists(TEXT | st.binary(max_size=200) | st.just(END) | st.just(GOOD), max_size=12))
@settings(deadline=None, max_examples=3 * settings().max_examples)
def test_any_bytes_are_equal_at_any_split_and_bounded(pieces: list[bytes]) -> None:
    """Nothing raises, nothing grows, and the split of the bytes makes no difference."""
    stream = b"".join(pieces)
    whole, one = run([stream])
    parts, other = run(pieces)
    assert (parts, other.counts) == (whole, one.counts)
    assert run([bytes([byte]) for byte in stream])[0] == whole
    assert held_bytes(other) <= len(stream)


@given(TEXT)
@settings(deadline=None)
def test_the_packet_after_any_text_is_read(text: bytes) -> None:
    """Text that is no packet, ended by an empty line, does not lose the security event right after it."""
    returned, _ = run([BANNER, text + END + GOOD])
    assert returned[-1] == GOOD_EVENT


@given(TEXT, st.sampled_from([EventKind.REQUEST_NOT_ALLOWED, EventKind.REQUEST_BAD_FORMAT]))
@example(b"x\r\nSessionID: ", EventKind.REQUEST_NOT_ALLOWED)
@example(b"x\r\n", EventKind.REQUEST_NOT_ALLOWED)
@example(FORGED_TAIL, EventKind.REQUEST_NOT_ALLOWED)
@settings(deadline=None, max_examples=3 * settings().max_examples)
def test_no_action_of_a_manager_forges_an_address(text: bytes, kind: EventKind) -> None:
    """AMI over HTTP lets CR LF into the 55 bytes of an action's name, after the tail."""
    returned = checked_events(
        packet(kind, service=b"AMI", rest=(b"RequestType: Action: " + text[:55],)) + GOOD
    )
    assert [(event.service, event.remote) for event in returned] == [
        (Service.AMI, MANAGER.remote),
        (Service.PJSIP, SENDER),
    ]
    assert returned[-1] == evolve(GOOD_EVENT, forgeable=True)


def test_whole_packets_forged_by_an_account_are_forgeable() -> None:
    """AMI over HTTP accepts a user name of any length; everything that may be in it is marked."""
    forged = FORGED_TAIL + END + packet(remote=b"IPV4/TCP/203.0.113.9/5060")
    last = b"\r\n".join([*head(EventKind.INVALID_ACCOUNT_ID, b"AMI"), b"AccountID: y"])
    returned = checked_events(packet(service=b"AMI", account=forged + last))
    assert {event.forgeable for event in returned} == {True}
    assert {event.remote.address for event in returned} == {FORGED, SENDER.address}


def test_a_tail_does_not_fit_into_an_actions_name() -> None:
    """The shortest tail needs 60 bytes, and would name another address."""
    action = SHORTEST_TAIL.removesuffix(END)
    assert len(action) == 60
    returned = checked_events(
        packet(EventKind.REQUEST_NOT_ALLOWED, service=b"AMI", rest=(b"RequestType: Action: " + action,))
    )
    assert returned[0].remote.address == ip_address("9.9.9.9")
