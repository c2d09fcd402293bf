"""Logins: each of AMI's reports excuses one request of which the wire has seen no answer."""

from ipaddress import ip_address

from ringfence.detect.conversation import LIFE, MOST, MOST_REQUESTS
from ringfence.detect.logins import LoginKey, Logins

ONE: LoginKey = (ip_address("192.0.2.7"), 0, b"c")
OTHER: LoginKey = (ip_address("192.0.2.7"), 0, b"d")


def test_a_login_excuses_one_request_that_came_before_it() -> None:
    """The next request needs a login of its own, and so does one of another Call-ID."""
    logins = Logins()
    logins.report(ONE, 1.0)
    assert not logins.take(ONE, 1.1)
    assert not logins.take(OTHER, 0.9)
    assert logins.take(ONE, 0.9)
    assert not logins.take(ONE, 0.9)


def test_of_several_requests_each_may_be_the_login() -> None:
    """A request is excused only if there are logins for all that wait."""
    logins = Logins()
    logins.report(ONE, 1.0)
    assert not logins.take(ONE, 0.5, others=1)
    logins.report(ONE, 1.0)
    assert logins.take(ONE, 0.5, others=1)
    assert logins.take(ONE, 0.5)
    assert not logins.take(ONE, 0.5)


def test_a_login_that_the_wire_saw_excuses_nothing() -> None:
    """AMI and the wire report it in any order; two such logins have two reports of each."""
    logins = Logins()
    for steps in ("ra", "ar", "rraa", "aarr", "arra"):
        for step in steps:
            if step == "r":
                logins.report(ONE, 1.0)
            else:
                logins.accept(ONE, 0.9, 1.0)
        assert not logins.take(ONE, 0.5)
    logins.report(ONE, 2.0)
    assert logins.take(ONE, 0.5)


def test_an_answer_belongs_to_no_login_before_its_request() -> None:
    """The login of a request that was not copied does not pay for a later one."""
    logins = Logins()
    logins.report(ONE, 1.0)
    logins.accept(ONE, 2.0, 2.1)
    logins.report(ONE, 2.2)
    assert not logins.take(ONE, 1.5)
    assert logins.take(ONE, 1.0)


def test_logins_are_forgotten() -> None:
    """Reports and answers are kept for 64 s, and of one Call-ID only the latest reports."""
    logins = Logins()
    for time in (0.0, 1.0):
        logins.report(ONE, time)
        logins.accept(OTHER, time, time)
        logins.expire(LIFE)
    assert logins.take(ONE, 0.0)
    logins.expire(1.0 + LIFE)
    assert not logins.take(ONE, 0.0)
    logins.report(OTHER, LIFE)
    assert logins.take(OTHER, 0.0)
    for _ in range(MOST_REQUESTS + 1):
        logins.report(ONE, LIFE)
    assert logins.take(ONE, 0.0, others=MOST_REQUESTS - 1)
    assert not logins.take(ONE, 0.0, others=MOST_REQUESTS - 1)


def test_memory_is_bounded() -> None:
    """The oldest report is forgotten first."""
    logins = Logins()
    for number in range(MOST + 1):
        logins.report((ONE[0], number, b"c"), 0.0)
    assert not logins.take((ONE[0], 0, b"c"), 0.0)
    assert logins.take((ONE[0], 1, b"c"), 0.0)
