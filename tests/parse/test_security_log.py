"""SECURITY messages: what stands between Asterisk's words is the sender's (the corpus has security.txt)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.parse.corpus import SOURCE
from tests.support.captures import FORGED

from ringfence.model import SecurityEvent
from ringfence.parse.security_log import read

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
    """Give what the log leaves of a line: an ESC takes all up to the next `m` with it."""
    before, esc, rest = line.partition(b"\x1b")
    _, m, behind = rest.partition(b"m")
    return before + swallowed(behind) if esc and m else line


@given(TEXT, TEXT, st.booleans())
@settings(deadline=None, max_examples=500)
def test_nobody_but_the_sender_is_named(account: bytes, session: bytes, escape: bool) -> None:  # noqa: FBT001
    """Whatever account and session hold, and whatever an ESC at their end swallows."""
    session += b"\x1b" if escape else b""
    said = read(swallowed(HEAD + account + b'",SessionID="' + session + TAIL), SOURCE, 0.0)
    assert not isinstance(said, SecurityEvent) or said.remote.address != FORGED


def test_an_account_and_a_session_of_any_text_are_kept() -> None:
    """Where nothing is forged both are what was sent."""
    said = read(HEAD + b'a"b' + b'",SessionID="c"d' + TAIL, SOURCE, 0.0)
    assert isinstance(said, SecurityEvent)
    assert (said.account, said.session, said.tampered) == ('a"b', b'c"d', False)


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
def test_a_success_says_whether_a_password_was_verified(
    account: bytes, session: bytes, used: bytes, *, password: bool
) -> None:
    """Asterisk's own word of it counts, of a line that nobody has tampered with."""
    said = read(
        SUCCESS + account + b'",SessionID="' + session + TAIL + b',UsingPassword="' + used + b'"', SOURCE, 0.0
    )
    assert isinstance(said, SecurityEvent)
    assert (said.password, said.tampered) == (password, session != b"c")
