"""Hidden: which lines the wire's challenges confirm, and which challenges no other source reports."""

from ipaddress import ip_address

import pytest
from attrs import evolve
from tests.detect.events import NOTICES, SENDER, event

from ringfence.detect.hidden import LATE, LIFE, VOUCHED, WAIT, Hidden
from ringfence.model import Address, Challenge, EventKind, Service, Transport

HERE = ip_address("198.18.0.1")
BY: Address = ip_address(SENDER)
CALL = b"call-1"


def asked(call_id: bytes = CALL, *, port: int = 5060, evasive: bool = False) -> Challenge:
    """Return a challenge that SENDER asked for."""
    return Challenge(BY, 5062, HERE, port, call_id, b"n", BY, evasive)


def always(_: str) -> float:
    """Return a start time since which AMI has been connected all the time."""
    return -1_000.0


@pytest.fixture
def hidden() -> Hidden:
    """Return a Hidden for which AMI has just reported one challenge, so that it can miss others."""
    made = Hidden()
    made.record(asked(b"before"), BY, 0.0)
    made.record_event(event(EventKind.CHALLENGE_SENT, session=b"before"), 0.0, 0.0)
    return made


def test_a_challenge_confirms_a_line_of_its_call(hidden: Hidden) -> None:
    """A challenge confirms a line of its address and Call-ID for as long as a line may be late."""
    line = event(EventKind.CHALLENGE_RESPONSE_FAILED, source=NOTICES, session=CALL)
    hidden.record(asked(), BY, 0.0)

    assert hidden.confirms(line, LIFE - 0.1)
    assert not hidden.confirms(line, LIFE)
    assert not hidden.confirms(evolve(line, session=b"another"), 0.0)
    assert not hidden.confirms(event(EventKind.CHALLENGE_RESPONSE_FAILED, address="203.0.113.9"), 0.0)


@pytest.mark.parametrize(
    "kind",
    [EventKind.CHALLENGE_SENT, EventKind.INVALID_ACCOUNT_ID, EventKind.CHALLENGE_RESPONSE_FAILED],
)
def test_a_reported_challenge_is_not_hidden(hidden: Hidden, kind: EventKind) -> None:
    """One event of AMI for each challenge, before it or within the wait after it, is enough."""
    hidden.record(asked(), BY, 0.0)
    hidden.record_event(event(kind, session=CALL), 4.0, 0.0)

    assert hidden.unreported(WAIT, always) == []


def test_an_unreported_challenge_is_returned_once(hidden: Hidden) -> None:
    """Three challenges of which AMI reports one are two hidden ones, returned once after their wait."""
    for _ in range(3):
        hidden.record(asked(), BY, 1.0)
    hidden.record_event(event(EventKind.CHALLENGE_SENT, session=CALL), 1.0, 0.0)

    assert hidden.unreported(1.0 + WAIT - 0.1, always) == []
    assert hidden.unreported(1.0 + WAIT, always) == [(asked(), "pbx")] * 2
    assert hidden.unreported(100.0, always) == []


def test_what_is_evasive_does_not_wait(hidden: Hidden) -> None:
    """An evasive challenge does not wait, because it has counted already."""
    hidden.record(asked(evasive=True), BY, 0.0)

    assert hidden.unreported(WAIT, always) == []


@pytest.mark.parametrize("since", [None, 1.0, 2.0])
def test_no_challenge_is_hidden_while_ami_was_not_connected(hidden: Hidden, since: float | None) -> None:
    """A challenge is not hidden if AMI was not connected before the challenge left."""
    hidden.record(asked(), BY, 1.0)

    assert hidden.unreported(1.0 + WAIT, lambda _: since) == []


def test_nothing_is_concluded_while_ami_comes_late(hidden: Hidden) -> None:
    """A challenge is not hidden while AMI is late: under a flood Asterisk may still report it."""
    hidden.record(asked(), BY, 1.0)
    hidden.record_event(event(EventKind.CHALLENGE_SENT, session=b"flood"), 2.0, LATE + 0.1)
    assert hidden.unreported(1.0 + WAIT, always) == []

    hidden.record(asked(b"later"), BY, 10.0)
    hidden.record_event(event(EventKind.CHALLENGE_SENT, session=b"flood"), 11.0, LATE)
    assert hidden.unreported(10.0 + WAIT, always) == [(asked(b"later"), "pbx")]


def test_no_challenge_is_hidden_if_ami_never_reported_its_port(hidden: Hidden) -> None:
    """A challenge is not hidden if AMI never reported one of its port, or none for long.

    Another port may be another PBX's, and long silence may mean that ChallengeSent is switched off.
    """
    hidden.record(asked(port=5080), BY, 0.0)
    assert hidden.unreported(WAIT, always) == []

    hidden.record_event(event(EventKind.CHALLENGE_RESPONSE_FAILED, session=CALL), WAIT, 0.0)
    hidden.record(asked(b"later"), BY, VOUCHED)
    assert hidden.unreported(VOUCHED + WAIT, always) == []
    assert hidden.asterisk_at(asked()) == "pbx"
    assert hidden.asterisk_at(asked(port=5080)) is None


def test_a_call_that_comes_again_after_long_is_known_again() -> None:
    """A phone that registers each minute under its Call-ID takes one entry, and each challenge confirms."""
    hidden = Hidden()
    line = event(EventKind.CHALLENGE_RESPONSE_FAILED, source=NOTICES, session=CALL)
    for at in (0.0, 60.0, 120.0):
        hidden.record(asked(), BY, at)
        assert hidden.confirms(line, at)
    assert len(hidden) == 1


def test_an_event_before_its_challenge_counts(hidden: Hidden) -> None:
    """AMI may be read before the wire: then the challenge is not hidden and the port is known.

    The event alone confirms no line.
    """
    early = Hidden()
    for made in (hidden, early):
        made.record_event(event(EventKind.CHALLENGE_SENT, session=CALL), 1.0, 0.0)
        assert not made.confirms(event(EventKind.CHALLENGE_RESPONSE_FAILED, session=CALL), 1.0)
        made.record(asked(), BY, 1.0)
        assert made.unreported(1.0 + WAIT, always) == []
    assert early.asterisk_at(asked()) == "pbx"


def test_events_of_tcp_hide_no_datagram(hidden: Hidden) -> None:
    """A sender that asks for challenges by TCP under the same Call-ID gains nothing."""
    hidden.record(asked(), BY, 0.0)
    hidden.record_event(event(EventKind.CHALLENGE_SENT, session=CALL, transport=Transport.TCP), 0.0, 0.0)

    assert hidden.unreported(WAIT, always) == [(asked(), "pbx")]


def test_events_of_other_services_do_not_count(hidden: Hidden) -> None:
    """An event of chan_sip under the same Call-ID does not report a challenge of PJSIP."""
    hidden.record(asked(), BY, 0.0)
    hidden.record_event(event(EventKind.CHALLENGE_SENT, service=Service.SIP, session=CALL), 0.0, 0.0)

    assert hidden.unreported(WAIT, always) == [(asked(), "pbx")]


def test_what_is_kept_is_bounded_by_number_and_age() -> None:
    """The oldest calls go when there are too many, and each expires when it has no more use."""
    hidden = Hidden(max_pairs=2)
    for number in range(5):
        hidden.record(asked(b"%d" % number), BY, 0.0)
    assert len(hidden) == 2
    hidden.record(asked(b"new"), BY, LIFE + WAIT)
    assert len(hidden) == 1
    assert hidden.unreported(100.0, always) == []


def test_places_are_bounded() -> None:
    """A sender that makes Asterisk answer from ever new ports fills no memory."""
    hidden = Hidden()
    for port in range(1, 1_000):
        hidden.record(asked(b"%d" % port, port=port), BY, 0.0)
        hidden.record_event(event(EventKind.CHALLENGE_SENT, session=b"%d" % port), 0.0, 0.0)
    assert hidden.asterisk_at(asked(port=1)) is None
    assert hidden.asterisk_at(asked(port=999)) == "pbx"
