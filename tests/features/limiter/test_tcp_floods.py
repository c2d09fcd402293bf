"""Seconds over the limit by TCP, counted."""

from ipaddress import ip_address, ip_network

from ringfence.detect.rules import RULES
from ringfence.features.limiter.floods import _MOST as MOST_SUBJECTS
from ringfence.features.limiter.floods import TcpFloods
from ringfence.values.attempt import Attempt, AttemptKind, Proof
from ringfence.values.event import EventKind, Service, Transport

ADDRESS, SUBJECT = ip_address("192.0.2.1"), ip_network("192.0.2.1")
RULE = next(rule for rule in RULES if rule.name == "flood")


def second(time: float) -> Attempt:
    """Return a second over the limit."""
    kind, event, service = AttemptKind.FLOOD, EventKind.LIMITED, Service.KERNEL
    return Attempt("", ADDRESS, kind, Proof.CLAIMED, service, Transport.TCP, "", event, time, trusted=True)


def test_as_many_seconds_as_the_rule_asks_for_fill_it() -> None:
    """The tenth second within fifteen returns all ten, and then counting begins again."""
    floods = TcpFloods()
    for _ in range(2):
        found = [floods.add(SUBJECT, second(time), RULE, time) for time in range(10)]
        assert found[:9] == [()] * 9
        assert [attempt.time for attempt in found[9]] == [*range(10)]


def test_seconds_outside_the_window_do_not_count() -> None:
    """A second of every two never fills ten within fifteen."""
    floods = TcpFloods()
    assert not any(floods.add(SUBJECT, second(2.0 * n), RULE, 2.0 * n) for n in range(100))


def test_the_number_of_subjects_is_bounded() -> None:
    """Of more subjects than are kept, the one seen longest ago begins again."""
    floods = TcpFloods()
    for number in range(MOST_SUBJECTS + 1):
        for time in range(9):
            assert floods.add(ip_network(number), second(time), RULE, time) == ()
    assert floods.add(ip_network(0), second(9.0), RULE, 9.0) == ()
    assert len(floods.add(ip_network(MOST_SUBJECTS), second(9.0), RULE, 9.0)) == 10
