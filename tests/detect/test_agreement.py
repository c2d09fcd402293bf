"""Agreement of chan_sip's events and notices."""

from attrs import evolve
from tests.detect.events import NOTICES, SENDER, event

from ringfence.detect.attribution import Agreement
from ringfence.detect.sessions import HORIZON
from ringfence.model import EventKind, SecurityEvent, Service, SourceId

STRANGER = "203.0.113.9"
SIP = Service.SIP


def reported(address: str = SENDER, account: str = "alice") -> SecurityEvent:
    """Return an event of chan_sip, which names the address of a Via."""
    return event(EventKind.INVALID_PASSWORD, service=SIP, address=address, account=account)


def noticed(address: str = SENDER, account: str = "alice") -> SecurityEvent:
    """Return a notice of chan_sip, which names the true source."""
    return evolve(reported(address, account), source=NOTICES, session=b"")


def test_an_event_and_a_notice_agree_in_either_order() -> None:
    """A report agrees with one of the other sort that names the same address, whichever comes first."""
    for first, second in ((reported(), noticed()), (noticed(), reported())):
        agreement = Agreement()
        one = agreement.record(first, 0.0)
        assert not one.agrees
        assert agreement.record(second, 1.0).agrees
        assert one.agrees


def test_a_notice_confirms_one_event() -> None:
    """A notice agrees with one event only, so it cannot confirm the forged events that follow."""
    agreement = Agreement()
    agreement.record(noticed(), 0.0)
    assert [agreement.record(reported(), 0.1).agrees for _ in range(3)] == [True, False, False]


def test_other_failures_do_not_agree() -> None:
    """Reports of another address, account, kind or Asterisk, and two events, do not agree."""
    others = (
        noticed(STRANGER),
        noticed(account="bob"),
        evolve(noticed(), kind=EventKind.INVALID_ACCOUNT_ID),
        evolve(noticed(), source=SourceId("other", NOTICES.name)),
        reported(),
    )
    for other in others:
        agreement = Agreement()
        agreement.record(other, 0.0)
        assert not agreement.record(reported(), 0.0).agrees


def test_reports_agree_within_the_horizon() -> None:
    """A notice confirms no event that comes ten seconds later, and it says nothing of its address."""
    for later, agrees in ((HORIZON - 0.1, True), (HORIZON, False)):
        agreement = Agreement()
        agreement.record(noticed(), 0.0)
        assert agreement.record(reported(), later).agrees is agrees
        assert agreement.otherwise_named(reported(STRANGER), HORIZON) is None


def test_a_notice_that_agrees_with_no_event_names_the_sender_of_a_forged_one() -> None:
    """The notice of a forged event has no event of its own address; that of an honest one has."""
    agreement = Agreement()
    agreement.record(reported(STRANGER), 0.0)
    own = noticed()
    agreement.record(own, 0.1)
    assert agreement.otherwise_named(reported(STRANGER), 0.0) == own.remote.address

    agreement.record(reported(), 0.2)
    assert agreement.otherwise_named(reported(STRANGER), 0.0) is None


def test_reports_are_remembered_up_to_a_bound() -> None:
    """A sender that fails with ever new accounts fills no memory: the oldest reports are discarded."""
    agreement = Agreement(most=100)
    for number in range(1_000):
        agreement.record(noticed(account=str(number)), 0.0)
        agreement.record(reported(account="bob"), 0.0)
    assert len(agreement) == 100
    assert len(agreement._single) + len(agreement._notices) <= 200
    agreement.record(noticed(), 2 * HORIZON)
    assert len(agreement) == 1
    assert len(agreement._single) == len(agreement._notices) == 1
