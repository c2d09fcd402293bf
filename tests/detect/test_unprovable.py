"""Friends whose guesses are unproven."""

from ipaddress import ip_address

import pytest
from attrs import evolve
from tests.detect.events import SENDER, attempt

from ringfence.detect.unprovable import MOST, PROVEN_WITHIN, Unprovable
from ringfence.model import Attempt, EventKind, Transport

GUESS = evolve(attempt(SENDER), event=EventKind.CHALLENGE_RESPONSE_FAILED, transport=Transport.UDP)


def test_guesses_wait_for_a_proof() -> None:
    """The first guess of an address decides when the address is due, and each address is due once."""
    waiting = Unprovable()
    waiting.record(GUESS, 0.0)
    waiting.record(GUESS, 1.0)

    assert list(waiting.due(PROVEN_WITHIN - 0.1)) == []
    assert list(waiting.due(PROVEN_WITHIN)) == [ip_address(SENDER)]
    assert list(waiting.due(PROVEN_WITHIN)) == []


@pytest.mark.parametrize(
    "other",
    [evolve(GUESS, event=EventKind.INVALID_ACCOUNT_ID), evolve(GUESS, transport=Transport.TLS)],
    ids=["unknown", "tls"],
)
def test_only_datagrams_with_a_password_are_looked_at(other: Attempt) -> None:
    """Only datagrams with a password are recorded.

    An unknown account has no password to find, and a connection proves its address.
    """
    waiting = Unprovable()
    waiting.record(other, 0.0)
    assert len(waiting) == 0


def test_the_tables_are_bounded() -> None:
    """A sender that forges the addresses of many friends pushes out the oldest ones."""
    waiting = Unprovable()
    for number in range(MOST + 10):
        waiting.record(evolve(GUESS, address=ip_address(number)), 0.0)
        waiting.unshield(ip_address(number), 0.0)
    assert len(waiting) == 2 * MOST
