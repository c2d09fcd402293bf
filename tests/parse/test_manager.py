"""Failed logins: which line repeats which (the corpus has manager.txt)."""

from ipaddress import IPv4Address

from attrs import evolve
from tests.parse.corpus import SOURCE

from ringfence.parse.line_result import Reason
from ringfence.parse.notices import LoginDeduplicator, parse_manager
from ringfence.values.event import EventKind, SecurityEvent


def event(text: bytes, time: float = 0.0) -> SecurityEvent:
    """Return the event of a line."""
    result = parse_manager(text, SOURCE, time)
    assert isinstance(result, SecurityEvent)
    return result


UNKNOWN = event(b"192.0.2.7 tried to authenticate with nonexistent user 'x'")
FAILED = event(b"192.0.2.7 failed to authenticate as 'x'")


def test_a_repetition_is_reported_once() -> None:
    """The second line of one login does not count, and the second login does."""
    logins = LoginDeduplicator()
    assert [logins.deduplicate(one) for one in (UNKNOWN, FAILED, FAILED)] == [
        UNKNOWN,
        Reason.DUPLICATE,
        FAILED,
    ]


def test_only_the_same_login_is_repeated() -> None:
    """Another user, another address, or another time is another login."""
    logins = LoginDeduplicator()
    logins.deduplicate(UNKNOWN)
    for other in (
        event(b"192.0.2.7 failed to authenticate as 'y'"),
        event(b"192.0.2.8 failed to authenticate as 'x'"),
        event(b"192.0.2.7 failed to authenticate as 'x'", 60.0),
    ):
        assert logins.deduplicate(other) is other


def test_memory_is_bounded_and_forgetting_counts() -> None:
    """A forgotten login is counted once more, never once less."""
    logins = LoginDeduplicator()
    logins.deduplicate(UNKNOWN)
    for number in range(1000):
        remote = evolve(UNKNOWN.remote, address=IPv4Address(number))
        logins.deduplicate(evolve(UNKNOWN, remote=remote))
    assert len(logins._reported) == 256
    assert logins.deduplicate(FAILED) is FAILED
    assert FAILED.kind is EventKind.INVALID_PASSWORD
