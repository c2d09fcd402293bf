"""Unconfirmed reports: they wait, and are bounded; and the reason of each."""

import pytest
from attrs import evolve
from tests.detect.events import NOTICES, attempt, event
from tests.support.attempts import attempts

from ringfence.detect.confirmation import PATIENCE, UnconfirmedReport, UnconfirmedReports, why_unconfirmed
from ringfence.model import EventKind, Service

_LOG = "log:/var/log/ringfence/ringfence#notice"


def report(at: float, session: bytes = b"call-1") -> UnconfirmedReport:
    """Return a report that arrived at ``at``."""
    told = event(EventKind.CHALLENGE_RESPONSE_FAILED, source=NOTICES, session=session)
    return UnconfirmedReport(at, attempt(trusted=False), told)


def test_each_ends_when_its_time_is_over() -> None:
    """Each report is due once, in the order of arrival."""
    reports = UnconfirmedReports()
    first, second = report(0.0), report(0.5)
    reports.add(first)
    reports.add(second)

    assert list(reports.due(PATIENCE - 0.1)) == []
    assert list(reports.due(PATIENCE)) == [first]
    assert list(reports.due(10.0)) == [second]
    assert (list(reports.due(20.0)), len(reports)) == ([], 0)


def test_the_oldest_go_when_there_are_too_many() -> None:
    """The oldest reports are discarded when there are too many."""
    reports = UnconfirmedReports(most=2)
    kept = [report(float(number)) for number in range(4)]
    for one in kept:
        reports.add(one)
    assert len(reports) == 2
    assert list(reports.due(10.0)) == kept[2:]


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
