"""Ordinary lines: their parts, and the events that their formats would make of them."""

import pytest
from tests.parse.corpus import SOURCE
from tests.parse.worst import FILLERS, HEADS, is_linear

from ringfence.model import EventKind, SecurityEvent
from ringfence.parse.log import LogReader
from ringfence.parse.ordinary import FIELDS, OTHER, Ordinary, parts_of, values_of

NOW = 1795154722.0
P = b"[2026-11-20 06:05:22] "
SECURITY = (
    P + b'SECURITY[7][C-0000001f] res_security_log.c: SecurityEvent="%s",EventTV="%s",Severity="Error",'
    b'Service="%s",EventVersion="1",AccountID="alice",SessionID="s\xff",LocalAddress="IPV4/UDP/198.18.0.1/5060",'
    b'RemoteAddress="%s"%s\n'
)
TV = b"2026-11-20T06:05:22.461+0000"
SOMEWHERE = b"IPV4/UDP/192.0.2.7/5060"
REFUSED = (
    P + b"NOTICE[7] res_pjsip/pjsip_distributor.c: Request 'REGISTER' from '\"X\" <sip:100@h>' failed for "
    b"'%s' (callid: c) - %s\n"
)
UNREGISTERED = P + b"NOTICE[1] chan_sip.c: Registration from '<sip:bob@h>' failed for '%s' - %s\n"
LINES = [
    SECURITY % (b"ChallengeSent", TV, b"PJSIP", SOMEWHERE, b',Challenge="c"'),
    SECURITY
    % (
        b"ChallengeResponseFailed",
        TV,
        b"PJSIP",
        SOMEWHERE,
        b',Challenge="c",Response="r",ExpectedResponse=""',
    ),
    SECURITY
    % (b"InvalidPassword", TV, b"SIP", SOMEWHERE, b',Challenge="c",ReceivedChallenge="d",ReceivedHash="e"'),
    SECURITY % (b"FailedACL", TV, b"SIP", SOMEWHERE, b',ACLName="no_extension_match"'),
    SECURITY % (b"SuccessfulAuth", TV, b"AMI", b"IPV4/TCP/192.0.2.7/5038", b',UsingPassword="1"'),
    SECURITY % (b"SuccessfulAuth", TV, b"PJSIP", SOMEWHERE, b',UsingPassword="0"'),
    SECURITY % (b"InvalidAccountID", TV, b"PJSIP", SOMEWHERE, b',UsingPassword="1"'),
    SECURITY % (b"InvalidAccountID", b"1795154722-000461", b"PJSIP", b"IPV6/TLS/2001:db8::1/5061", b""),
    SECURITY % (b"InvalidAccountID", TV, b"PJSIP", SOMEWHERE, b',Challenge="of no meaning here"'),
    REFUSED % (b"192.0.2.7:5060", b"No matching endpoint found"),
    REFUSED % (b"[2001:db8::1]:5060", b"Not match Endpoint ACL"),
    REFUSED % (b"2001:db8::1:5060", b"Failed to authenticate"),
    UNREGISTERED % (b"192.0.2.7", b"Wrong password"),
    UNREGISTERED % (b"192.0.2.7:5060", b"ACL error (permit/deny)"),
    UNREGISTERED % (b"192.0.2.7:5060", b"Device does not match ACL"),
    (REFUSED % (b"192.0.2.7:5060", b"Failed to authenticate")).removeprefix(P),
]
NOBODY = [
    SECURITY % (b"NewKind", TV, b"PJSIP", SOMEWHERE, b""),
    SECURITY % (b"InvalidAccountID", b"yesterday", b"PJSIP", SOMEWHERE, b""),
    SECURITY % (b"InvalidAccountID", TV, b"PJSIP", b"(null)", b""),
    REFUSED % (b"pbx.example.org:5060", b"Failed to authenticate"),
    REFUSED % (b"192.0.2.7:5060", b"No luck"),
    UNREGISTERED % (b"192.0.2.7:99999", b"Wrong password"),
    UNREGISTERED % (b"192.0.2.7", b"Unknown failure"),
    P + b"VERBOSE[3] pbx.c: Executing something from 192.0.2.7\n",
    P + b"NOTICE[3] app_x.c:77 func: Registration from 'x' failed for '192.0.2.7' - Wrong password\n",
]
OTHERS = [
    b"\n",
    b"no prefix\n",
    P + b"NOTICE[3] chan_sip.c: Call from '' (192.0.2.7:5060) to extension '1\n",
    P + b"VERBOSE[3] chan_sip.c: <--- SIP read from UDP:192.0.2.7:5060 --->\n",
    P + b"ERROR[7] pjproject: \tx.c Error processing packet from 192.0.2.9:5060: x\n",
    (SECURITY % (b"InvalidAccountID", TV, b"PJSIP", SOMEWHERE, b"")).replace(b"alice", b'al"ice'),
    (SECURITY % (b"InvalidAccountID", TV, b"PJSIP", SOMEWHERE, b"")).replace(b"alice", b"a" * 2000),
    (SECURITY % (b"InvalidAccountID", TV, b"PJSIP", SOMEWHERE, b',Module="x"')),
    (REFUSED % (b"192.0.2.7:5060", b"Failed to authenticate")).replace(b"100", b"\x1b[0m"),
    P + b"NOTICE[3] Ext. 100: Rejecting unknown SIP connection from 192.0.2.7\n",
    P + b"NOTICE[3] x.c: " + b"x" * 8000 + b"\n",
]


def events(data: bytes) -> list[SecurityEvent]:
    """Return the events of ordinary lines."""
    return [SecurityEvent(*values) for values in Ordinary(SOURCE, None).events(parts_of(data), NOW)]


def line_by_line(data: bytes) -> list[SecurityEvent]:
    """Return the events from the reader of single lines."""
    reader = LogReader(SOURCE)
    results = reader.feed(data, NOW) + reader.end(NOW)
    return [result.event for result in results if result.event is not None]


@pytest.mark.parametrize("line", LINES)
def test_an_ordinary_line_is_an_event(line: bytes) -> None:
    """It is the event from the reader of single lines."""
    assert not parts_of(line)[0][OTHER]
    assert len(events(line)) == 1
    assert events(line) == line_by_line(line)


def test_a_success_shows_whether_a_password_was_verified() -> None:
    """Among other lines only the success with UsingPassword 1 has it."""
    told = [event.password for event in events(b"".join(LINES))]
    assert [line for line, password in zip(LINES, told, strict=True) if password] == [
        SECURITY % (b"SuccessfulAuth", TV, b"AMI", b"IPV4/TCP/192.0.2.7/5038", b',UsingPassword="1"')
    ]


@pytest.mark.parametrize("line", NOBODY)
def test_an_ordinary_line_without_an_address(line: bytes) -> None:
    """It is no event, also for the reader of single lines; the lines around it are events."""
    assert not parts_of(line)[0][OTHER]
    assert events(line) == line_by_line(line) == []
    around = LINES[0] + line + LINES[7] + line + LINES[10]
    assert events(around) == line_by_line(around)


def test_ordinary_lines_keep_their_order() -> None:
    """For any mix of kinds, events come in the order of their lines."""
    data = b"".join(LINES + NOBODY + LINES[::-1])
    assert [event.kind for event in events(data)][:3] == [
        EventKind.CHALLENGE_SENT,
        EventKind.CHALLENGE_RESPONSE_FAILED,
        EventKind.INVALID_PASSWORD,
    ]
    assert events(data) == line_by_line(data)


@pytest.mark.parametrize("line", OTHERS)
def test_a_line_that_may_belong_to_others_is_not_ordinary(line: bytes) -> None:
    """It is returned whole in place of the parts, and the next line is found."""
    parts = parts_of(line + LINES[0])
    assert [one[OTHER] for one in parts] == [line, b""]


def test_values_are_those_of_an_event() -> None:
    """They are in the order of its fields."""
    (event,) = events(LINES[0])
    assert dict(zip(FIELDS, values_of(event), strict=True))["session"] == b"s\xff"
    assert SecurityEvent(*values_of(event)) == event


@pytest.mark.parametrize("filler", FILLERS)
@pytest.mark.parametrize("head", HEADS)
def test_the_worst_text_takes_linear_time(head: bytes, filler: bytes) -> None:
    """For any text of a caller, each byte is read a bounded number of times."""
    for file in (
        b"SECURITY[1] res_security_log.c: ",
        b"NOTICE[1] res_pjsip/pjsip_distributor.c: ",
        b"NOTICE[1] chan_sip.c: ",
    ):
        assert is_linear(parts_of, P + file + head, filler, most=200_000)
