"""Failed logins: which line repeats which (the corpus has manager.txt)."""

from ipaddress import IPv4Address

from attrs import evolve
from tests.parse.corpus import SOURCE

from ringfence.model import EventKind, SecurityEvent
from ringfence.parse.manager import Twins, read
from ringfence.parse.reading import Why


def event(text: bytes, time: float = 0.0) -> SecurityEvent:
    """Give the event of a line."""
    said = read(text, SOURCE, time)
    assert isinstance(said, SecurityEvent)
    return said


UNKNOWN = event(b"192.0.2.7 tried to authenticate with nonexistent user 'x'")
FAILED = event(b"192.0.2.7 failed to authenticate as 'x'")


def test_a_repetition_is_told_once() -> None:
    """The second line of one login counts not, the second login does."""
    twins = Twins()
    assert [twins.once(one) for one in (UNKNOWN, FAILED, FAILED)] == [UNKNOWN, Why.TOLD_TWICE, FAILED]


def test_only_the_same_login_is_repeated() -> None:
    """Another user, another address, or another time is another login."""
    twins = Twins()
    twins.once(UNKNOWN)
    for other in (
        event(b"192.0.2.7 failed to authenticate as 'y'"),
        event(b"192.0.2.8 failed to authenticate as 'x'"),
        event(b"192.0.2.7 failed to authenticate as 'x'", 60.0),
    ):
        assert twins.once(other) is other


def test_memory_is_bounded_and_forgetting_counts() -> None:
    """What was forgotten is counted once more, never once less."""
    twins = Twins()
    twins.once(UNKNOWN)
    for number in range(1000):
        remote = evolve(UNKNOWN.remote, address=IPv4Address(number))
        twins.once(evolve(UNKNOWN, remote=remote))
    assert len(twins._told) == 256
    assert twins.once(FAILED) is FAILED
    assert FAILED.kind is EventKind.INVALID_PASSWORD
