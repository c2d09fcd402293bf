"""Texts of 60 kB: every source keeps little of them, and the same."""

from tests.parse.corpus import SOURCE as LINE
from tests.parse.packets import SOURCE, packet
from tests.parse.test_answers import ORDINARY, answers_in, ipv4, udp
from tests.parse.test_requests import REQUEST
from tests.parse.test_requests import packet as copy

from ringfence.parse.ami import END
from ringfence.parse.notices import parse_distributor
from ringfence.parse.request_stream import RequestStreams
from ringfence.parse.requests import parse_requests
from ringfence.parse.security import parse_strict, parse_tampered
from ringfence.values.event import (
    MOST_ACCOUNT,
    MOST_KEPT,
    MOST_SESSION,
    EventKind,
    SecurityEvent,
    short_account,
    short_session,
)

LONG = b"x" * 60_000


def events(session: bytes, account: bytes) -> list[SecurityEvent]:
    """Return what AMI, in both ways of parsing, and the log report of a request."""
    sent = packet(EventKind.INVALID_ACCOUNT_ID, session=session, account=account).removesuffix(END)
    line = b"Request 'REGISTER' from '<sip:%s@a>' failed for '192.0.2.7:5060' (callid: %s) - %s"
    said = line % (account, session, b"No matching endpoint found")
    found = [parse_strict(sent, SOURCE), parse_tampered(sent, SOURCE), parse_distributor(said, LINE, 0.0)]
    assert all(isinstance(one, SecurityEvent) for one in found)
    return [one for one in found if isinstance(one, SecurityEvent)]


def test_every_source_keeps_the_same_of_a_long_session() -> None:
    """An event, an answer and a request have a short digest, which is the same for all."""
    [answer] = answers_in(ipv4(udp(ORDINARY.replace(b"call-1", LONG))))
    [request] = parse_requests(copy(REQUEST.replace(b"a@b", LONG)), RequestStreams()) or []
    kept = {one.session for one in events(LONG, b"alice")} | {answer.call_id, *request.call_ids}
    assert kept == {short_session(LONG)}
    assert max(map(len, kept)) <= MOST_SESSION


def test_other_texts_are_cut() -> None:
    """Of an account and of a nonce the beginning is kept, of an account the same by every source."""
    user = b'username="alice"'
    for account in (b"x" * 60, b"\xc3\xa9" * 30):
        asked = copy(REQUEST.replace(user, b'username="%b"' % account))
        [request] = parse_requests(asked, RequestStreams()) or []
        kept = {one.account for one in events(b"c", account)} | {request.account}
        assert kept == {short_account(account.decode())}
    [answer] = answers_in(ipv4(udp(ORDINARY.replace(b"sip:alice@", b"sip:%b@" % (b"x" * 64)))))
    assert answer.account == "x" * MOST_ACCOUNT
    [event, *_] = events(b"c", b"\xff" * 20)
    assert event.account == r"\xff" * (MOST_ACCOUNT // 4)
    assert max(len(one.account) for one in events(b"c", LONG)) <= MOST_ACCOUNT
    nonce = b'nonce="' + LONG
    [answer] = answers_in(ipv4(udp(ORDINARY.replace(b'nonce="', nonce))))
    assert len(answer.nonce) <= MOST_KEPT


def test_a_short_session_is_its_own() -> None:
    """So it does not matter how often it is shortened, and two long ones differ."""
    for size in (0, 1, MOST_SESSION, MOST_SESSION + 1, len(LONG)):
        short = short_session(LONG[:size])
        assert len(short) <= MOST_SESSION
        assert short_session(short) == short
        assert (short == LONG[:size]) is (size <= MOST_SESSION)
    assert short_session(LONG) != short_session(LONG + b"y")
