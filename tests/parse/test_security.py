"""The grammar of security events: accepted packets, refused packets, and linear time."""

import re
from collections.abc import Callable
from ipaddress import ip_address

import pytest
from tests.parse.packets import REQUIRED, SECONDS, SOURCE, head, packet, tail
from tests.parse.worst import is_linear_in, seconds

from ringfence.parse.ami import END
from ringfence.parse.security import KINDS, has_tail, parse_strict, parse_tampered, starts_security_event
from ringfence.values.event import Endpoint, EventKind, SecurityEvent, Service, Transport, short_account

SENDER = Endpoint(ip_address("192.0.2.7"), 5062, Transport.UDP)
EVENT = SecurityEvent(
    SOURCE, EventKind.INVALID_ACCOUNT_ID, Service.PJSIP, SENDER, SECONDS, "alice", b"call-1"
)


def bare(stream: bytes) -> bytes:
    """Return a packet as the decoder passes it on, without its closing empty line."""
    return stream.removesuffix(END)


GOOD = bare(packet())


@pytest.mark.parametrize("at", range(9))
def test_strict_parsing_requires_each_header_once_and_in_order(at: int) -> None:
    """With a header missing, repeated or before its neighbour, a packet is not Asterisk's."""
    lines = GOOD.split(b"\r\n")
    assert parse_strict(GOOD, SOURCE) == EVENT
    missing = lines[:at] + lines[at + 1 :]
    twice = lines[: at + 1] + lines[at:]
    swapped = [*lines[: at - 1], lines[at], lines[at - 1], *lines[at + 1 :]] if at else lines[::-1]
    for wrong in (missing, twice, swapped):
        assert parse_strict(b"\r\n".join(wrong), SOURCE) is None


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        (b"Event: ", b"event: "),
        (b"Event: InvalidAccountID", b"Event: Invalid_AccountID"),
        (b"security,all", b"security"),
        (b"Severity: Error", b"Severity: Warning"),
        (b"Service: PJSIP", b"Service: IAX2"),
        (b"EventVersion: 1", b"EventVersion: one"),
        (b"EventVersion: 1", b"EventVersion: 1000"),
        (b"+0000", b"Z"),
        (b".090", b""),
        (b"06:05:22", b"24:61:00"),
        (b"2026-11-20", b"0000-00-00"),
        (b"+0000", b"+9999"),
        (b"2026-11-20T06:05:22.090+0000", b"0001-01-01T00:00:00.1+2359"),
        (b"2026-11-20T06:05:22.090+0000", b"9999-12-31T23:59:59.1-2359"),
        (b"IPV4/UDP", b"IPV4/SCTP"),
        (b"\r\n", b"\n"),
        (b"\r\n", b"\r\n\r\n"),
    ],
)
def test_strict_parsing_refuses_other_forms(part: bytes, wrong: bytes) -> None:
    """A head, a time or an address of any other form is not Asterisk's."""
    assert part in GOOD
    assert parse_strict(GOOD.replace(part, wrong), SOURCE) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"2026-11-20T06:05:22.090+0000", SECONDS),
        (b"2026-11-20T08:05:22.090+0200", SECONDS),
        (b"2026-11-19T18:05:22.090-1200", SECONDS),
        (b"1970-01-01T00:00:00.1+0000", 0.1),
    ],
)
def test_times_are_seconds_since_the_epoch(text: bytes, seconds: float) -> None:
    """Local time with an offset gives the same moment as UTC, and any year from 1970 on is accepted."""
    event = parse_strict(GOOD.replace(b"2026-11-20T06:05:22.090+0000", text), SOURCE)
    assert event is not None
    assert event.time == seconds


@pytest.mark.parametrize("kind", KINDS.values())
def test_the_rest_of_another_kind_is_refused(kind: EventKind) -> None:
    """With the rest of another kind, a packet is accepted only if both rests are the same."""
    for other in KINDS.values():
        alike = {REQUIRED[kind], REQUIRED[other]}
        account = (kind is EventKind.REQUEST_BAD_FORMAT) == (other is EventKind.REQUEST_BAD_FORMAT)
        expected = len(alike) == 1 and account
        lines = packet(other).replace(b"Event: " + other.encode(), b"Event: " + kind.encode())
        optional = other is EventKind.CHALLENGE_SENT and kind is EventKind.INVALID_PASSWORD
        assert (parse_strict(bare(lines), SOURCE) is not None) == (expected or optional)


def test_no_packet_reports_a_hidden_attempt() -> None:
    """A packet of the kind Hidden, which Asterisk does not have, is no event."""
    assert parse_strict(GOOD.replace(b"InvalidAccountID", b"Hidden"), SOURCE) is None
    assert parse_tampered(GOOD.replace(b"InvalidAccountID", b"Hidden"), SOURCE) is None


@pytest.mark.parametrize("rest", [(b"Challenge: ours",), (b"Challenge: ours", b"ReceivedChallenge: ")])
def test_a_nonce_that_was_not_returned_proves_nothing(rest: tuple[bytes, ...]) -> None:
    """Asterisk's own value, which chan_sip may send to any host in a Via, does not prove the guesser."""
    lines = bare(packet(EventKind.INVALID_PASSWORD, service=b"SIP", rest=rest))
    for event in (parse_strict(lines, SOURCE), parse_tampered(lines, SOURCE)):
        assert event is not None
        assert (event.challenge, event.response) == (b"", b"")


def test_a_bad_format_has_its_account_late() -> None:
    """RequestBadFormat is the only kind whose account stands after the tail."""
    lines = bare(packet(EventKind.REQUEST_BAD_FORMAT, rest=(b"RequestType: R", b"AccountID: bob")))
    event = parse_strict(lines, SOURCE)
    assert event is not None
    assert (event.kind, event.account) == (EventKind.REQUEST_BAD_FORMAT, "bob")
    early = bare(packet(rest=(b"RequestType: R",))).replace(b"InvalidAccountID", b"RequestBadFormat")
    assert parse_strict(early, SOURCE) is None


def test_a_bad_format_of_the_manager_has_the_managers_addresses() -> None:
    """RequestBadFormat of AMI is an event only if its session and addresses are the manager's."""
    lines = bare(packet(EventKind.REQUEST_BAD_FORMAT, service=b"AMI", rest=(b"RequestType: R",)))
    event = parse_strict(lines, SOURCE)
    assert event is not None
    assert event.service is Service.AMI
    assert parse_strict(re.sub(rb"SessionID: [^\r]+", b"SessionID: forged", lines), SOURCE) is None


@pytest.mark.parametrize(
    ("text", "starts"),
    [
        (GOOD, True),
        (GOOD[: GOOD.index(b"alice")], True),
        (b"\r\n".join(head(EventKind.REQUEST_BAD_FORMAT)) + b"\r\n", True),
        (b"\r\n".join(head(EventKind.CHALLENGE_SENT)) + b"\r\n", False),
        (b"\r\n".join([*head(EventKind.CHALLENGE_SENT), *tail()]), False),
        (GOOD[1:], False),
        (b"x" + GOOD, False),
        (b"", False),
    ],
)
def test_a_security_event_starts_with_its_head_and_its_account(text: bytes, starts: bool) -> None:  # noqa: FBT001
    """A head without an account starts none: a sender can forge that much after a forged tail."""
    assert starts_security_event(text) is starts


@pytest.mark.parametrize(
    ("text", "has"),
    [
        (GOOD, True),
        (b"\r\n" + b"\r\n".join(tail()), True),
        (b"\r\n".join(tail()), False),
        (GOOD + b"\r\nSessionID: 1", True),
        (GOOD + b"\r\nSessionID: 1\r\nLocalAddress: 1", True),
        (GOOD.replace(b"LocalAddress", b"localaddress"), False),
        (GOOD.removesuffix(b"RemoteAddress: IPV4/UDP/192.0.2.7/5062"), False),
        (b"", False),
    ],
)
def test_a_tail_is_three_headers_in_a_row(text: bytes, has: bool) -> None:  # noqa: FBT001
    """The last SessionID must be followed by both addresses."""
    assert has_tail(text) is has


def test_tampered_parsing_uses_the_first_head_and_the_last_tail() -> None:
    """The first values before the account and the last values after it are Asterisk's own."""
    forged = b"\r\n".join(
        [
            b"x",
            b"Event: SuccessfulAuth",
            b"Service: AMI",
            *tail(b"forged", b"IPV4/TCP/203.0.113.9/1"),
            b"Challenge: forged",
            b"Response: forged",
        ]
    )
    real = packet(EventKind.CHALLENGE_RESPONSE_FAILED, account=forged, session=b"real")
    real = real.replace(b"\r\nResponse: R\r\n", b"\r\nResponse: R: \r\n")
    assert parse_tampered(bare(real), SOURCE) == SecurityEvent(
        SOURCE,
        EventKind.CHALLENGE_RESPONSE_FAILED,
        Service.PJSIP,
        SENDER,
        SECONDS,
        short_account(forged.decode()),
        b"real",
        "",
        b"C",
        b"R: ",
        tampered=True,
    )


def test_a_tampered_event_names_the_account_without_the_end_of_its_line() -> None:
    """An account with a newline keeps it, and nothing of what Asterisk writes around it."""
    event = parse_tampered(bare(packet(account=b"al\r\nice\r\n")), SOURCE)
    assert event is not None
    assert event.account == "al\r\nice\r\n"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"Event: InvalidAccountID",
        b"\r\n".join(tail()),
        GOOD.replace(b"192.0.2.7", b"192.0.2"),
        GOOD.replace(b"InvalidAccountID", b"Unheard"),
        bare(packet(account=GOOD[: GOOD.index(b"LocalAddress")])).replace(b"LocalAddress", b"L"),
    ],
)
def test_tampered_parsing_needs_head_kind_and_address(text: bytes) -> None:
    """If one of these is missing, there is no event."""
    assert parse_tampered(text, SOURCE) is None


WORST: dict[str, Callable[[int], bytes]] = {
    "a long account": lambda n: bare(packet(account=b"x" * n)),
    "many lines in the account": lambda n: bare(packet(account=b"\r\n" * (n // 2))),
    "many tails without an end": lambda n: bare(packet(account=b"\r\nSessionID: " * (n // 13))),
    "many whole tails": lambda n: bare(packet(account=b"\r\n".join(tail() * (n // 80)))),
    "many timestamps": lambda n: b"\r\n".join(
        [b"Event: X", b"Privilege: security,all", *[b"Timestamp: 1"] * (n // 14), b"EventTV: x"]
    ),
    "many lines after the tail": lambda n: GOOD + b"\r\nModule: x" * (n // 11),
    "carriage returns": lambda n: bare(packet(account=b"\r" * n)),
    "a session without an end": lambda n: (
        b"\r\n".join([*head(EventKind.SESSION_LIMIT), b"AccountID: "]) + b"\r\nSessionID: " * (n // 13)
    ),
}


def read_by_all(text: bytes) -> None:
    """Parse ``text`` with every function."""
    parse_strict(text, SOURCE)
    parse_tampered(text, SOURCE)
    starts_security_event(text)
    has_tail(text)


@pytest.mark.parametrize("name", WORST)
def test_parsing_takes_linear_time(name: str) -> None:
    """Four times as much of the worst text takes far less than the sixteen times of a quadratic parser."""
    assert is_linear_in(lambda size: seconds(read_by_all, WORST[name](size)), 250_000)
