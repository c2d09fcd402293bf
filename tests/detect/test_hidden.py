"""What the wire saw against what is told: what backs a line, and what nobody tells of."""

from ipaddress import ip_address

import pytest
from attrs import evolve
from tests.detect.events import NOTICES, SENDER, event

from ringfence.detect.hidden import LATE, LIFE, VOUCHED, WAIT, Hidden
from ringfence.model import Address, Challenge, EventKind, Service, Transport

HERE = ip_address("198.18.0.1")
BY: Address = ip_address(SENDER)
CALL = b"call-1"


def asked(call_id: bytes = CALL, *, port: int = 5060, veiled: bool = False) -> Challenge:
    """Give a challenge that SENDER asked for."""
    return Challenge(BY, 5062, HERE, port, call_id, b"n", BY, veiled)


def always(_: str) -> float:
    """Say that AMI was heard all the time."""
    return -1_000.0


@pytest.fixture
def hidden() -> Hidden:
    """AMI has just told of one challenge, so it can be missed."""
    made = Hidden()
    made.note(asked(b"before"), BY, 0.0)
    made.told(event(EventKind.CHALLENGE_SENT, session=b"before"), 0.0, 0.0)
    return made


def test_a_challenge_backs_what_is_told_of_its_call(hidden: Hidden) -> None:
    """Of the same address under the same Call-ID, for as long as a line may be late."""
    line = event(EventKind.CHALLENGE_RESPONSE_FAILED, source=NOTICES, session=CALL)
    hidden.note(asked(), BY, 0.0)

    assert hidden.backs(line, LIFE - 0.1)
    assert not hidden.backs(line, LIFE)
    assert not hidden.backs(evolve(line, session=b"another"), 0.0)
    assert not hidden.backs(event(EventKind.CHALLENGE_RESPONSE_FAILED, address="203.0.113.9"), 0.0)


@pytest.mark.parametrize(
    "kind",
    [EventKind.CHALLENGE_SENT, EventKind.INVALID_ACCOUNT_ID, EventKind.CHALLENGE_RESPONSE_FAILED],
)
def test_what_ami_tells_of_is_not_hidden(hidden: Hidden, kind: EventKind) -> None:
    """One event for each challenge, before it or after it within the wait."""
    hidden.note(asked(), BY, 0.0)
    hidden.told(event(kind, session=CALL), 4.0, 0.0)

    assert hidden.untold(WAIT, always) == []


def test_what_ami_does_not_tell_of_is_given_once(hidden: Hidden) -> None:
    """Three challenges of which one is told are two that are hidden, when their wait is over."""
    for _ in range(3):
        hidden.note(asked(), BY, 1.0)
    hidden.told(event(EventKind.CHALLENGE_SENT, session=CALL), 1.0, 0.0)

    assert hidden.untold(1.0 + WAIT - 0.1, always) == []
    assert hidden.untold(1.0 + WAIT, always) == [(asked(), "pbx")] * 2
    assert hidden.untold(100.0, always) == []


def test_what_is_veiled_does_not_wait(hidden: Hidden) -> None:
    """It has counted already."""
    hidden.note(asked(veiled=True), BY, 0.0)

    assert hidden.untold(WAIT, always) == []


@pytest.mark.parametrize("since", [None, 1.0, 2.0])
def test_nothing_is_concluded_while_ami_was_not_heard(hidden: Hidden, since: float | None) -> None:
    """Who did not listen before the challenge left cannot miss the event."""
    hidden.note(asked(), BY, 1.0)

    assert hidden.untold(1.0 + WAIT, lambda _: since) == []


def test_nothing_is_concluded_while_ami_comes_late(hidden: Hidden) -> None:
    """Under a flood Asterisk itself is behind: what it has not told of yet it may still tell."""
    hidden.note(asked(), BY, 1.0)
    hidden.told(event(EventKind.CHALLENGE_SENT, session=b"flood"), 2.0, LATE + 0.1)
    assert hidden.untold(1.0 + WAIT, always) == []

    hidden.note(asked(b"later"), BY, 10.0)
    hidden.told(event(EventKind.CHALLENGE_SENT, session=b"flood"), 11.0, LATE)
    assert hidden.untold(10.0 + WAIT, always) == [(asked(b"later"), "pbx")]


def test_nothing_is_concluded_of_whom_ami_never_told(hidden: Hidden) -> None:
    """Another port may be another PBX's, and long silence may mean that ChallengeSent is switched off."""
    hidden.note(asked(port=5080), BY, 0.0)
    assert hidden.untold(WAIT, always) == []

    hidden.told(event(EventKind.CHALLENGE_RESPONSE_FAILED, session=CALL), WAIT, 0.0)
    hidden.note(asked(b"later"), BY, VOUCHED)
    assert hidden.untold(VOUCHED + WAIT, always) == []
    assert hidden.asterisk_at(asked()) == "pbx"
    assert hidden.asterisk_at(asked(port=5080)) is None


def test_a_call_that_comes_again_after_long_is_known_again() -> None:
    """A phone registers each minute under its Call-ID, and nobody else does."""
    hidden = Hidden()
    line = event(EventKind.CHALLENGE_RESPONSE_FAILED, source=NOTICES, session=CALL)
    for at in (0.0, 60.0, 120.0):
        hidden.note(asked(), BY, at)
        assert hidden.backs(line, at)
    assert len(hidden) == 1


def test_what_was_told_before_it_was_seen_is_told(hidden: Hidden) -> None:
    """AMI may be read before the wire: no phone hides for it, nothing is backed by it, and it vouches too."""
    early = Hidden()
    for made in (hidden, early):
        made.told(event(EventKind.CHALLENGE_SENT, session=CALL), 1.0, 0.0)
        assert not made.backs(event(EventKind.CHALLENGE_RESPONSE_FAILED, session=CALL), 1.0)
        made.note(asked(), BY, 1.0)
        assert made.untold(1.0 + WAIT, always) == []
    assert early.asterisk_at(asked()) == "pbx"


def test_what_is_told_of_tcp_hides_no_datagram(hidden: Hidden) -> None:
    """A sender who asks for challenges by TCP under the same Call-ID gains nothing."""
    hidden.note(asked(), BY, 0.0)
    hidden.told(event(EventKind.CHALLENGE_SENT, session=CALL, transport=Transport.TCP), 0.0, 0.0)

    assert hidden.untold(WAIT, always) == [(asked(), "pbx")]


def test_other_services_tell_nothing_of_it(hidden: Hidden) -> None:
    """An event of chan_sip's under the same name is no telling."""
    hidden.note(asked(), BY, 0.0)
    hidden.told(event(EventKind.CHALLENGE_SENT, service=Service.SIP, session=CALL), 0.0, 0.0)

    assert hidden.untold(WAIT, always) == [(asked(), "pbx")]


def test_what_is_kept_is_bounded_by_number_and_age() -> None:
    """The oldest calls go when there are too many, and each when it backs nothing and waits for nothing."""
    hidden = Hidden(max_pairs=2)
    for number in range(5):
        hidden.note(asked(b"%d" % number), BY, 0.0)
    assert len(hidden) == 2
    hidden.note(asked(b"new"), BY, LIFE + WAIT)
    assert len(hidden) == 1
    assert hidden.untold(100.0, always) == []


def test_places_are_bounded() -> None:
    """Whoever makes Asterisk answer from ever new ports fills no memory."""
    hidden = Hidden()
    for port in range(1, 1_000):
        hidden.note(asked(b"%d" % port, port=port), BY, 0.0)
        hidden.told(event(EventKind.CHALLENGE_SENT, session=b"%d" % port), 0.0, 0.0)
    assert hidden.asterisk_at(asked(port=1)) is None
    assert hidden.asterisk_at(asked(port=999)) == "pbx"
