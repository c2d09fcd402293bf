"""Doubts: they wait their time, are found by their call, and are bounded."""

from ipaddress import ip_address

from tests.detect.events import NOTICES, SENDER, attempt, event

from ringfence.detect.doubts import PATIENCE, Doubt, Doubts
from ringfence.model import EventKind


def doubt(at: float, session: bytes = b"call-1") -> Doubt:
    """Give a doubt that came at ``at``."""
    told = event(EventKind.CHALLENGE_RESPONSE_FAILED, source=NOTICES, session=session)
    return Doubt(at, attempt(trusted=False), told)


def test_each_ends_when_its_time_is_over() -> None:
    """In the order in which they came, each once."""
    doubts = Doubts()
    first, second = doubt(0.0), doubt(0.5)
    doubts.add(first)
    doubts.add(second)

    assert list(doubts.due(PATIENCE - 0.1)) == []
    assert list(doubts.due(PATIENCE)) == [first]
    assert list(doubts.due(10.0)) == [second]
    assert (list(doubts.due(20.0)), len(doubts)) == ([], 0)


def test_who_is_settled_waits_no_longer() -> None:
    """All of one address under one Call-ID, and nobody else."""
    doubts = Doubts()
    mine, too, other = doubt(0.0), doubt(0.1), doubt(0.2, b"call-2")
    for one in (mine, too, other):
        doubts.add(one)

    assert doubts.settle(ip_address(SENDER), b"call-1") == [mine, too]
    assert doubts.settle(ip_address(SENDER), b"call-1") == []
    assert doubts.settle(ip_address("203.0.113.9"), b"call-2") == []
    assert list(doubts.due(10.0)) == [other]


def test_the_oldest_go_when_there_are_too_many() -> None:
    """And are found no more; what ended before is not found either."""
    doubts = Doubts(most=2)
    kept = [doubt(float(number)) for number in range(4)]
    for one in kept:
        doubts.add(one)
    assert len(doubts) == 2
    assert list(doubts.due(2.0 + PATIENCE)) == [kept[2]]
    assert doubts.settle(ip_address(SENDER), b"call-1") == [kept[3]]
