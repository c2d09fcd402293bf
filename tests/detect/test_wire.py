"""The wire: which lines its challenges confirm, and which attempts no other source reports."""

from ipaddress import ip_address

import pytest
from attrs import evolve
from tests.detect.events import NOTICES, PBX, SECURITY, SENDER, event
from tests.support.listening import connected

from ringfence.detect.confirmation import Answers
from ringfence.detect.sessions import Senders
from ringfence.detect.wire import (
    LATE,
    LIFE,
    MANY,
    SETTLED,
    SURE_AFTER,
    TRUSTED,
    VOUCHED,
    WAIT,
    WITHIN,
    Wire,
)
from ringfence.model import Address, Challenge, EventKind, Service, SourceId, Transport

HERE = ip_address("198.18.0.1")
BY: Address = ip_address(SENDER)
CALL = b"call-1"


def asked(call_id: bytes = CALL, *, port: int = 5060, evasive: bool = False) -> Challenge:
    """Return a challenge that SENDER asked for."""
    return Challenge(BY, 5062, HERE, port, call_id, b"n", BY, evasive)


always = connected(-1_000.0)
"""AMI has been connected all the time."""


def reported(wire: Wire, kind: EventKind, now: float, late: float = 0.0, **more: object) -> None:
    """Record an event that AMI reports at ``now``, ``late`` seconds after it happened."""
    wire.record_event(event(kind, now - late, **more), now)  # type: ignore[arg-type]  # values by name


@pytest.fixture
def wire() -> Wire:
    """Return a wire for which AMI has just reported one challenge, so that it can miss others."""
    made = Wire(Senders())
    made.record_challenge(asked(b"before"), BY, "pbx", 0.0)
    reported(made, EventKind.CHALLENGE_SENT, 0.0, session=b"before")
    return made


def test_a_challenge_confirms_a_line_of_its_call(wire: Wire) -> None:
    """A challenge confirms a line of its address and Call-ID for as long as a line may be late."""
    line = event(EventKind.CHALLENGE_RESPONSE_FAILED, source=NOTICES, session=CALL)
    wire.record_challenge(asked(), BY, "pbx", 0.0)

    assert wire.confirms(line, LIFE - 0.1)
    assert not wire.confirms(line, LIFE)
    assert not wire.confirms(evolve(line, session=b"another"), 0.0)
    assert not wire.confirms(event(EventKind.CHALLENGE_RESPONSE_FAILED, address="203.0.113.9"), 0.0)


@pytest.mark.parametrize(
    "kind",
    [EventKind.CHALLENGE_SENT, EventKind.INVALID_ACCOUNT_ID, EventKind.CHALLENGE_RESPONSE_FAILED],
)
def test_a_reported_challenge_is_not_hidden(wire: Wire, kind: EventKind) -> None:
    """One event of AMI for each challenge, before it or within the wait after it, is enough."""
    wire.record_challenge(asked(), BY, "pbx", 0.0)
    reported(wire, kind, 4.0, session=CALL)

    assert wire.unreported(WAIT, always) == []


def test_an_unreported_challenge_is_returned_once(wire: Wire) -> None:
    """Three challenges of which AMI reports one are two hidden ones, returned once after their wait."""
    for _ in range(3):
        wire.record_challenge(asked(), BY, "pbx", 1.0)
    reported(wire, EventKind.CHALLENGE_SENT, 1.0, session=CALL)

    assert wire.unreported(1.0 + WAIT - 0.1, always) == []
    assert wire.unreported(1.0 + WAIT, always) == [(asked(), "pbx")] * 2
    assert wire.unreported(100.0, always) == []


def test_what_is_evasive_does_not_wait(wire: Wire) -> None:
    """An evasive challenge does not wait, because it has counted already."""
    wire.record_challenge(asked(evasive=True), BY, "pbx", 0.0)

    assert wire.unreported(WAIT, always) == []


@pytest.mark.parametrize("since", [None, 1.0, 2.0])
def test_no_challenge_is_hidden_while_ami_was_not_connected(wire: Wire, since: float | None) -> None:
    """A challenge is not hidden if AMI was not connected before the challenge left."""
    wire.record_challenge(asked(), BY, "pbx", 1.0)

    assert wire.unreported(1.0 + WAIT, connected(since)) == []


def test_nothing_is_concluded_while_ami_comes_late(wire: Wire) -> None:
    """A challenge is not hidden while AMI is late: under a flood Asterisk may still report it."""
    wire.record_challenge(asked(), BY, "pbx", 1.0)
    reported(wire, EventKind.CHALLENGE_SENT, 2.0, session=b"flood", late=LATE + 0.1)
    assert wire.unreported(1.0 + WAIT, always) == []

    wire.record_challenge(asked(b"later"), BY, "pbx", 10.0)
    reported(wire, EventKind.CHALLENGE_SENT, 11.0, session=b"flood", late=LATE)
    assert wire.unreported(10.0 + WAIT, always) == [(asked(b"later"), "pbx")]


@pytest.mark.parametrize("doubtful", [{"tampered": True}, {"forgeable": True}])
def test_no_sender_can_make_ami_look_late(wire: Wire, doubtful: dict[str, bool]) -> None:
    """The time in an event that a sender may have written is no sign of a delay."""
    wire.record_challenge(asked(), BY, "pbx", 1.0)
    old = evolve(event(EventKind.CHALLENGE_SENT, 2.0 - 3600.0, session=b"forged"), **doubtful)  # type: ignore[arg-type]  # fields by name
    wire.record_event(old, 2.0)

    assert wire.unreported(1.0 + WAIT, always) == [(asked(), "pbx")]


def test_no_challenge_is_hidden_if_ami_never_reported_its_port(wire: Wire) -> None:
    """A challenge is not hidden if AMI never reported one of its port, or none for long.

    Another port may be another PBX's, and long silence may mean that ChallengeSent is switched off.
    """
    wire.record_challenge(asked(port=5080), BY, "pbx", 0.0)
    assert wire.unreported(WAIT, always) == []

    reported(wire, EventKind.CHALLENGE_RESPONSE_FAILED, WAIT, session=CALL)
    wire.record_challenge(asked(b"later"), BY, "pbx", VOUCHED)
    assert wire.unreported(VOUCHED + WAIT, always) == []
    assert wire.asterisk_at(asked()) == "pbx"
    assert wire.asterisk_at(asked(port=5080)) is None


def test_a_call_that_comes_again_after_long_is_known_again() -> None:
    """A phone that registers each minute under its Call-ID takes one session, and each challenge confirms."""
    senders = Senders()
    wire = Wire(senders)
    line = event(EventKind.CHALLENGE_RESPONSE_FAILED, source=NOTICES, session=CALL)
    for at in (0.0, 60.0, 120.0):
        wire.record_challenge(asked(), BY, "pbx", at)
        assert wire.confirms(line, at)
    assert len(senders) == 1


@pytest.mark.parametrize(("later", "hidden"), [(14.9, 0), (15.0, 1)])
def test_a_surplus_of_events_hides_no_later_challenge(wire: Wire, later: float, hidden: int) -> None:
    """A session's challenges and events are counted from zero 15 s after its last challenge."""
    wire.record_challenge(asked(), BY, "pbx", 0.0)
    for _ in range(2):
        reported(wire, EventKind.CHALLENGE_SENT, 0.0, session=CALL)
    wire.record_challenge(asked(), BY, "pbx", later)
    assert len(wire.unreported(later + WAIT, always)) == hidden


def test_a_phone_that_asks_every_fifteen_seconds_is_not_suspected(wire: Wire) -> None:
    """A challenge and its event belong together, in either order, although the last ones are 15 s old."""
    for number in range(8):
        event_at, challenge_at = (15.0 * number + late for late in (0.01 * (-1) ** number, 0.0))
        if event_at < challenge_at:
            reported(wire, EventKind.CHALLENGE_SENT, event_at, session=CALL)
        wire.record_challenge(asked(), BY, "pbx", challenge_at)
        if event_at >= challenge_at:
            reported(wire, EventKind.CHALLENGE_SENT, event_at, session=CALL)
        assert wire.unreported(challenge_at + WAIT, always) == []


def test_an_event_before_its_challenge_counts(wire: Wire) -> None:
    """AMI may be read before the wire: then the challenge is not hidden and the port is known.

    The event alone confirms no line.
    """
    early = Wire(Senders())
    for made in (wire, early):
        reported(made, EventKind.CHALLENGE_SENT, 1.0, session=CALL)
        assert not made.confirms(event(EventKind.CHALLENGE_RESPONSE_FAILED, session=CALL), 1.0)
        made.record_challenge(asked(), BY, "pbx", 1.0)
        assert made.unreported(1.0 + WAIT, always) == []
    assert early.asterisk_at(asked()) == "pbx"


def test_events_of_tcp_hide_no_datagram(wire: Wire) -> None:
    """A sender that asks for challenges by TCP under the same Call-ID gains nothing."""
    wire.record_challenge(asked(), BY, "pbx", 0.0)
    reported(wire, EventKind.CHALLENGE_SENT, 0.0, session=CALL, transport=Transport.TCP)

    assert wire.unreported(WAIT, always) == [(asked(), "pbx")]


def test_events_of_other_services_do_not_count(wire: Wire) -> None:
    """An event of chan_sip under the same Call-ID does not report a challenge of PJSIP."""
    wire.record_challenge(asked(), BY, "pbx", 0.0)
    reported(wire, EventKind.CHALLENGE_SENT, 0.0, service=Service.SIP, session=CALL)

    assert wire.unreported(WAIT, always) == [(asked(), "pbx")]


def test_a_discarded_session_is_no_evidence() -> None:
    """Nothing is concluded of a session that was discarded early, because AMI's events no longer find it."""
    wire = Wire(Senders(max_sessions=2))
    reported(wire, EventKind.CHALLENGE_SENT, 0.0, session=b"0")
    for number in range(5):
        wire.record_challenge(asked(b"%d" % number), BY, "pbx", 0.0)
    assert wire.unreported(WAIT, always) == [(asked(b"4"), "pbx")]


def test_places_are_bounded() -> None:
    """A sender that makes Asterisk answer from ever new ports fills no memory."""
    wire = Wire(Senders())
    for port in range(1, 1_000):
        wire.record_challenge(asked(b"%d" % port, port=port), BY, "pbx", 0.0)
        reported(wire, EventKind.CHALLENGE_SENT, 0.0, session=b"%d" % port)
    assert wire.asterisk_at(asked(port=1)) is None
    assert wire.asterisk_at(asked(port=999)) == "pbx"


# -- abandoned challenges --------------------------------------------------------------------------------


def asked_by(address: str) -> Challenge:
    """Return a challenge that ``address`` asked for."""
    there = ip_address(address)
    return Challenge(there, 5062, HERE, 5060, CALL, b"n", there)


def often(wire: Wire, number: int, at: float = 1.0, address: str = SENDER) -> None:
    """Record ``number`` challenges that ``address`` asked for."""
    for _ in range(number):
        wire.record_challenge(asked_by(address), ip_address(address), "pbx", at)


for_long = connected(-SURE_AFTER)
"""AMI has been connected for long."""


@pytest.fixture
def sure() -> Wire:
    """Return a wire for which AMI has reported a success of another address."""
    made = Wire(Senders())
    succeeded(made, "203.0.113.200", 0.5)
    return made


def succeeded(wire: Wire, address: str, now: float) -> None:
    """Record a login that AMI reports."""
    reported(wire, EventKind.SUCCESSFUL_AUTH, now, address=address)


def test_excess_challenges_are_returned_once(sure: Wire) -> None:
    """Each challenge beyond the number that no phone reaches is returned once, after time for a success."""
    often(sure, MANY)
    assert sure.abandoned(1.0 + SETTLED, for_long) == []
    often(sure, 3)
    assert sure.abandoned(1.0 + SETTLED - 0.1, for_long) == []

    assert sure.abandoned(1.0 + SETTLED, for_long) == [(asked_by(SENDER), "pbx", 3)]
    assert sure.abandoned(2.0 + SETTLED, for_long) == []
    often(sure, 1)
    assert sure.abandoned(2.0 + SETTLED, for_long) == [(asked_by(SENDER), "pbx", 1)]


def test_rare_challenges_do_not_add_up(sure: Wire) -> None:
    """The number applies to a window, so earlier challenges of a phone that cannot log in do not add up."""
    often(sure, MANY)
    often(sure, MANY, 1.0 + WITHIN)

    assert sure.abandoned(2.0 + WITHIN, for_long) == []


def test_a_sender_with_a_success_is_not_suspected(sure: Wire) -> None:
    """An office of phones may ask as often as it likes, before its first success and for a time after it."""
    often(sure, MANY + 1)
    succeeded(sure, SENDER, 1.1)
    often(sure, MANY + 1, 1.2)
    assert sure.abandoned(10.0, for_long) == []

    often(sure, MANY + 1, 1.1 + TRUSTED)
    assert len(sure.abandoned(3.0 + TRUSTED, for_long)) == 1


def test_a_reported_sender_is_counted_again_from_zero(sure: Wire) -> None:
    """The count begins again for a sender whose attempts another source reports."""
    often(sure, MANY + 1)
    sure.record_reported(BY)
    often(sure, MANY)

    assert sure.abandoned(10.0, for_long) == []


@pytest.mark.parametrize("since", [None, 1.0, 2.0, 0.0, 1.5 - SURE_AFTER])
def test_challenges_count_only_while_ami_is_connected(sure: Wire, since: float | None) -> None:
    """Challenges count only while AMI is connected all the time, since it may miss a phone's success."""
    often(sure, MANY + 1)
    assert sure.abandoned(10.0, connected(since)) == []
    assert sure.abandoned(10.0, for_long) == []


def test_challenges_count_only_if_ami_reports_successes() -> None:
    """Nothing is concluded if the manager user receives no successes."""
    deaf = Wire(Senders())
    often(deaf, MANY + 1)

    assert deaf.abandoned(10.0, for_long) == []


def test_a_64_is_one_sender(sure: Wire) -> None:
    """A sender that asks with many addresses of its /64 is counted as one."""
    for last in range(MANY + 1):
        often(sure, 1, address=f"2001:db8::{last + 1:x}")

    assert len(sure.abandoned(10.0, for_long)) == 1
    succeeded(sure, "2001:db8::ffff", 10.0)


OF_CHAN_SIP = Challenge(BY, 5062, HERE, 5060, b"call-1", b"n", BY, service=Service.SIP)


@pytest.mark.parametrize(("source", "believed"), [(PBX, True), (SECURITY, False), (NOTICES, False)])
def test_only_ami_reports_a_login(source: SourceId, *, believed: bool) -> None:
    """A line that its sender wrote must not hide a guess, and neither must a packet outside the grammar."""
    for tampered in (False, True):
        senders = Senders()
        wire, answers = Wire(senders), Answers(senders)
        answers.record(OF_CHAN_SIP, BY, 0.0)
        login = event(EventKind.SUCCESSFUL_AUTH, service=Service.SIP, source=source, tampered=tampered)
        wire.record_event(login, 0.0)
        refused = answers.record(evolve(OF_CHAN_SIP, status=403, nonce=b""), BY, 0.0)
        assert refused is not (believed and not tampered)
