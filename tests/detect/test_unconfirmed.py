"""Unconfirmed reports: they wait, are found by their session, and are bounded; and the reason of each."""

from ipaddress import ip_address
from math import inf

import pytest
from attrs import evolve
from tests.detect.events import NOTICES, SENDER, attempt, event
from tests.parse.worst import is_linear_in, seconds
from tests.support.attempts import attempts

from ringfence.detect.confirmation import PATIENCE, LateReports, UnconfirmedReports, why_unconfirmed
from ringfence.detect.sessions import SESSION_LIFE, Senders, UnconfirmedReport
from ringfence.values.event import EventKind, SecurityEvent, Service

_LOG = "log:/var/log/ringfence/ringfence#notice"


def report(at: float, session: bytes = b"call-1") -> UnconfirmedReport:
    """Return a report that arrived at ``at``."""
    told = event(EventKind.CHALLENGE_RESPONSE_FAILED, source=NOTICES, session=session)
    return UnconfirmedReport(at, attempt(trusted=False), told)


def test_each_ends_when_its_time_is_over() -> None:
    """Each report is due once, in the order of arrival."""
    reports = UnconfirmedReports(Senders())
    first, second = report(0.0), report(0.5)
    reports.add(first)
    reports.add(second)

    assert list(reports.due(PATIENCE - 0.1)) == []
    assert list(reports.due(PATIENCE)) == [first]
    assert list(reports.due(10.0)) == [second]
    assert (list(reports.due(20.0)), len(reports)) == ([], 0)


def test_settle_returns_the_reports_of_a_session() -> None:
    """``settle`` returns all reports of one address under one Call-ID, and no others."""
    reports = UnconfirmedReports(Senders())
    mine, too, other = report(0.0), report(0.1), report(0.2, b"call-2")
    for one in (mine, too, other):
        reports.add(one)

    assert reports.settle(ip_address(SENDER), b"call-1") == [mine, too]
    assert reports.settle(ip_address(SENDER), b"call-1") == []
    assert reports.settle(ip_address("203.0.113.9"), b"call-2") == []
    assert list(reports.due(10.0)) == [other]


def test_a_question_settles_no_report_about_a_password() -> None:
    """A question has no credentials. Such reports wait on, and the next settling returns all by arrival."""
    reports = UnconfirmedReports(Senders())
    asked = event(EventKind.INVALID_ACCOUNT_ID, source=NOTICES, session=b"call-1")
    unknown, too = (UnconfirmedReport(at, attempt(trusted=False), asked) for at in (0.1, 0.2))
    guess, other = report(0.0), report(0.3)
    reports.add(guess)
    reports.add(unknown)

    address = ip_address(SENDER)
    assert reports.settle(address, b"call-1", question=True) == [unknown]
    assert reports.settle(address, b"call-1", question=True) == []
    reports.add(too)
    reports.add(other)
    assert reports.settle(address, b"call-1") == [guess, too, other]


def test_questions_take_linear_time() -> None:
    """However many reports about passwords wait in their session."""

    def settle(number: int) -> None:
        reports = UnconfirmedReports(Senders())
        for each in [report(0.0)] * number:
            reports.add(each)
        for _ in range(4 * number):
            assert reports.settle(ip_address(SENDER), b"call-1", question=True) == []

    assert is_linear_in(lambda size: seconds(settle, size), 2_000)


def test_the_oldest_go_when_there_are_too_many() -> None:
    """The oldest reports are discarded when there are too many; discarded and ended ones are not found."""
    reports = UnconfirmedReports(Senders(), most=2)
    kept = [report(float(number)) for number in range(4)]
    for one in kept:
        reports.add(one)
    assert len(reports) == 2
    assert list(reports.due(2.0 + PATIENCE)) == [kept[2]]
    assert reports.settle(ip_address(SENDER), b"call-1") == [kept[3]]


def test_an_unforgeable_report_of_the_session_is_found_until_it_is_settled() -> None:
    """A forgeable report finds an unforgeable one of its session that waits, and none that is settled."""
    reports = UnconfirmedReports(Senders())
    sure = report(0.0)
    forged = UnconfirmedReport(0.1, sure.attempt, evolve(sure.event, forgeable=True))
    reports.add(sure)
    reports.add(forged)
    assert (reports.has_unforgeable(forged), reports.has_unforgeable(sure)) == (True, False)
    sure.settled = True
    assert not reports.has_unforgeable(forged)


def test_the_lines_of_one_connection_are_found_in_order() -> None:
    """The oldest that waits is first; one that is settled or due is not found."""
    reports = UnconfirmedReports(Senders())
    first, second, third = report(0.0), report(0.1), report(0.2, b"call-2")
    for one in (first, second, third):
        reports.add(one)
    remote = first.event.remote

    assert reports.oldest_of(evolve(remote, port=remote.port + 1)) is None
    assert reports.oldest_of(remote) is first
    second.settled = True
    assert list(reports.due(PATIENCE)) == [first]
    assert reports.oldest_of(remote) is third
    assert list(reports.due(10.0)) == [third]
    assert reports.oldest_of(remote) is None


def test_a_line_waits_until_ami_has_been_read_up_to_its_arrival() -> None:
    """A line whose attempt AMI may report late waits until AMI has been read that far, or a minute."""
    late = LateReports()
    late.read = 4.0
    first, second = report(4.0), report(5.0)
    assert (late.add(first), late.add(second), len(late)) == (True, True, 2)
    assert list(late.due(6.0)) == []
    late.read = 4.5
    assert list(late.due(6.0)) == [first]
    assert list(late.due(4.5 + SESSION_LIFE)) == []
    assert list(late.due(5.0 + SESSION_LIFE)) == [second]
    assert len(late) == 0


@pytest.mark.parametrize(
    "other",
    [
        event(EventKind.CHALLENGE_RESPONSE_FAILED, tampered=True),
        event(EventKind.CHALLENGE_RESPONSE_FAILED, source=NOTICES, service=Service.SIP),
        event(EventKind.INVALID_PASSWORD, source=NOTICES, service=Service.IAX2),
        event(EventKind.FAILED_ACL, source=NOTICES, account="", acl_name="no_extension_match"),
    ],
    ids=["of AMI", "chan_sip", "IAX2", "a probe"],
)
def test_a_report_that_ami_cannot_confirm_does_not_wait_for_it(other: SecurityEvent) -> None:
    """AMI reports neither IAX2 nor unknown extensions of PJSIP, and no proven sender for chan_sip."""
    late = LateReports()
    late.read = -inf
    assert not late.add(UnconfirmedReport(0.0, attempt(trusted=False), other))


def test_no_line_waits_for_an_ami_that_cannot_be_asked_nor_beyond_the_bound() -> None:
    """While it is unknown how far AMI has been read, no line waits; nor does one line too many."""
    late = LateReports(most=1)
    assert not late.add(report(0.0))
    late.read = -inf
    assert (late.add(report(0.0)), late.add(report(0.0))) == (True, False)


@pytest.mark.parametrize(
    ("service", "sources", "words"),
    [
        (Service.PJSIP, (_LOG,), "only the log names this address"),
        (Service.SIP, (_LOG,), "only the log names this address"),
        (Service.SIP, ("ami",), "chan_sip's events name whatever address a Via header gives"),
        (Service.SIP, ("ami", _LOG), "chan_sip's events name whatever address a Via header gives"),
        (Service.IAX2, (_LOG,), "only the log reports IAX2"),
        (Service.DIALPLAN, (_LOG,), "only the log reports the dialplan"),
        (Service.AMI, ("ami",), "in an event that a sender can forge"),
        (Service.PJSIP, ("wire",), "what the wire sees by TCP"),
    ],
)
def test_the_reason_names_the_source_that_names_the_address(
    service: Service, sources: tuple[str, ...], words: str
) -> None:
    """Each source has its own way to be forged, and the sentence states that one."""
    [one] = attempts(1)

    assert words in why_unconfirmed(evolve(one, service=service, sources=sources, trusted=False))
