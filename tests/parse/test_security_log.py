"""SECURITY messages: text between Asterisk's fields is the sender's (the corpus has security.txt)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.parse.corpus import SOURCE
from tests.support.captures import FORGED

from ringfence.parse.line_result import Reason
from ringfence.parse.security import ends_message, is_whole, parse_line, time_of
from ringfence.values.event import SecurityEvent

HEAD = (
    b'SecurityEvent="InvalidAccountID",EventTV="2026-11-20T06:05:22.090+0000",Severity="Error",'
    b'Service="PJSIP",EventVersion="1",AccountID="'
)
TAIL = b'",LocalAddress="IPV4/UDP/198.51.100.1/5060",RemoteAddress="IPV4/UDP/192.0.2.7/5062"'
FORGERY = b'",LocalAddress="l",RemoteAddress="IPV4/UDP/203.0.113.9/5060"'
TEXT = st.lists(
    st.binary(max_size=3)
    | st.sampled_from([FORGERY, b'",SessionID="', b'oteAddress="', b'"', b",Module=", HEAD, b"\n", b"\\"]),
    max_size=6,
).map(b"".join)


def swallowed(line: bytes) -> bytes:
    """Return what the log leaves of a line: an ESC removes all text up to the next `m`."""
    before, esc, rest = line.partition(b"\x1b")
    _, m, behind = rest.partition(b"m")
    return before + swallowed(behind) if esc and m else line


@given(TEXT, TEXT, st.booleans())
@settings(deadline=None, max_examples=5 * settings().max_examples)
def test_only_the_senders_address_is_found(account: bytes, session: bytes, escape: bool) -> None:  # noqa: FBT001
    """Only the sender's address is found, for any account and session, also if they end with an ESC."""
    session += b"\x1b" if escape else b""
    result = parse_line(swallowed(HEAD + account + b'",SessionID="' + session + TAIL), SOURCE, 0.0)
    assert not isinstance(result, SecurityEvent) or result.remote.address != FORGED


def test_an_account_and_a_session_of_any_text_are_kept() -> None:
    """Without a forgery both are unchanged."""
    result = parse_line(HEAD + b'a"b' + b'",SessionID="c"d' + TAIL, SOURCE, 0.0)
    assert isinstance(result, SecurityEvent)
    assert (result.account, result.session, result.tampered) == ('a"b', b'c"d', False)


@pytest.mark.parametrize("account", [b"bob", b'b"ob'])
def test_a_nonce_that_was_not_returned_proves_nothing(account: bytes) -> None:
    """Asterisk's own value is not the client's, also in a line that can be read from its ends only."""
    line = HEAD.replace(b"InvalidAccountID", b"InvalidPassword").replace(b"PJSIP", b"SIP")
    line += account + b'",SessionID="c' + TAIL + b',Challenge="ours"'
    returned = b',ReceivedChallenge="theirs",ReceivedHash="hash"'
    for more, expected in ((b"", (b"", b"")), (returned, (b"theirs", b"hash"))):
        event = parse_line(line + more, SOURCE, 0.0)
        assert isinstance(event, SecurityEvent)
        assert (event.challenge, event.response) == expected


SUCCESS = HEAD.replace(b"InvalidAccountID", b"SuccessfulAuth")


@pytest.mark.parametrize(
    ("account", "session", "used", "password"),
    [
        (b"alice", b"c", b"1", True),
        (b"alice", b"c", b"0", False),
        (b'a"b', b"c", b"1", True),
        (b'a",UsingPassword="1', b"c", b"0", False),
        (b"alice", b'c",RemoteAddress="x', b"1", False),
    ],
)
def test_a_success_shows_whether_a_password_was_verified(
    account: bytes, session: bytes, used: bytes, *, password: bool
) -> None:
    """Asterisk's own field counts, in a line without tampering."""
    result = parse_line(
        SUCCESS + account + b'",SessionID="' + session + TAIL + b',UsingPassword="' + used + b'"', SOURCE, 0.0
    )
    assert isinstance(result, SecurityEvent)
    assert (result.password, result.tampered) == (password, session != b"c")


PREFIX = b"[2026-11-20 06:05:22] SECURITY[1] res_security_log.c: "
WHOLE = PREFIX + HEAD + b'a",SessionID="c' + TAIL


@pytest.mark.parametrize(
    ("line", "whole"),
    [
        (WHOLE, True),
        (b"Nov 20 06:05:22 pbx asterisk[7]: " + WHOLE.partition(b"] ")[2], True),
        (WHOLE[:-1], False),
        (PREFIX + HEAD + b'a"', False),
        (WHOLE.replace(b"SECURITY[", b"NOTICE["), False),
        (WHOLE.replace(b"res_security_log.c", b"chan_sip.c"), False),
        (WHOLE.partition(b": ")[2], False),
        (b"x" + WHOLE, False),
    ],
)
def test_a_line_is_whole_with_its_head_an_address_and_its_last_quote(line: bytes, *, whole: bool) -> None:
    """Any other line is parsed completely to find the end of its message."""
    assert is_whole(line) is whole
    assert ends_message(line) is (line.endswith(b'"') and b'oteAddress="' in line)


def test_the_time_of_a_line_is_that_of_a_sip_event() -> None:
    """An eventfilter may hide those of the manager interface from AMI."""
    result = parse_line(WHOLE.partition(b": ")[2], SOURCE, 0.0)
    assert isinstance(result, SecurityEvent)
    service = b'Service="%b"' % result.service.encode()
    assert time_of(WHOLE) == time_of(WHOLE.partition(b": ")[2]) == result.time
    assert time_of(WHOLE.replace(service, b'Service="AMI"')) is None
    assert time_of(b"x") is None


def test_a_line_of_another_kind_in_another_form_is_unknown() -> None:
    """A kind that Asterisk does not have is no event, also if the fields after it are not Asterisk's."""
    line = HEAD.replace(b"InvalidAccountID", b"InvalidWeather") + b"a" + TAIL
    assert parse_line(line, SOURCE, 0.0) is Reason.UNKNOWN_WORDING
    assert parse_line(line.replace(b"LocalAddress", b"Elsewhere"), SOURCE, 0.0) is Reason.UNKNOWN_WORDING


def test_a_line_in_another_form_without_an_address_is_no_event() -> None:
    """A host name where Asterisk writes an address gives no event, also behind a line feed in the account."""
    named = TAIL.replace(b"192.0.2.7", b"pbx.example")
    assert parse_line(HEAD + b"a\nb" + named, SOURCE, 0.0) is Reason.NOT_AN_ADDRESS
