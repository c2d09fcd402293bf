"""Unanswered challenges: which senders are no phones, and which could be behind a line."""

from ipaddress import ip_address

import pytest
from tests.detect.events import SENDER

from ringfence.detect.unanswered import (
    ANSWERED,
    ASKED,
    MANY,
    SETTLED,
    SURE_AFTER,
    TRUSTED,
    WITHIN,
    Unanswered,
)
from ringfence.model import Challenge

HERE = ip_address("198.18.0.1")
BY = ip_address(SENDER)


def asked(address: str = SENDER) -> Challenge:
    """Return a challenge that ``address`` asked for."""
    there = ip_address(address)
    return Challenge(there, 5062, HERE, 5060, b"call-1", b"n", there)


def often(unanswered: Unanswered, number: int, at: float = 1.0, address: str = SENDER) -> None:
    """Record ``number`` challenges that ``address`` asked for."""
    for _ in range(number):
        unanswered.record(asked(address), ip_address(address), "pbx", at)


def always(_: str) -> float:
    """Return a start time so early that AMI has been connected long enough."""
    return -SURE_AFTER


@pytest.fixture
def unanswered() -> Unanswered:
    """Return an Unanswered for which AMI has reported a success of another address."""
    made = Unanswered()
    made.succeeded(ip_address("203.0.113.200"), "pbx", 0.5)
    return made


def test_excess_challenges_are_returned_once(unanswered: Unanswered) -> None:
    """Each challenge beyond the number that no phone reaches is returned once, after time for a success."""
    often(unanswered, MANY)
    assert unanswered.too_many(1.0 + SETTLED, always) == []
    often(unanswered, 3)
    assert unanswered.too_many(1.0 + SETTLED - 0.1, always) == []

    assert unanswered.too_many(1.0 + SETTLED, always) == [(asked(), "pbx", 3)]
    assert unanswered.too_many(2.0 + SETTLED, always) == []
    often(unanswered, 1)
    assert unanswered.too_many(2.0 + SETTLED, always) == [(asked(), "pbx", 1)]


def test_rare_challenges_do_not_add_up(unanswered: Unanswered) -> None:
    """The number applies to a window, so earlier challenges of a phone that cannot log in do not add up."""
    often(unanswered, MANY)
    often(unanswered, MANY, 1.0 + WITHIN)

    assert unanswered.too_many(2.0 + WITHIN, always) == []


def test_a_sender_with_a_success_is_not_suspected(unanswered: Unanswered) -> None:
    """An office of phones may ask as often as it likes, before its first success and for a time after it."""
    often(unanswered, MANY + 1)
    unanswered.succeeded(BY, "pbx", 1.1)
    often(unanswered, MANY + 1, 1.2)
    assert unanswered.too_many(10.0, always) == []
    assert not unanswered.could_have_guessed(BY, 1.2 + ANSWERED, always)

    often(unanswered, MANY + 1, 1.1 + TRUSTED)
    assert len(unanswered.too_many(3.0 + TRUSTED, always)) == 1


def test_a_reported_sender_is_counted_again_from_zero(unanswered: Unanswered) -> None:
    """The count begins again for a sender whose attempts another source reports."""
    often(unanswered, MANY + 1)
    unanswered.reported_elsewhere(BY)
    often(unanswered, MANY)

    assert unanswered.too_many(10.0, always) == []


@pytest.mark.parametrize("since", [None, 1.0, 2.0, 0.0, 1.5 - SURE_AFTER])
def test_challenges_count_only_while_ami_is_connected(unanswered: Unanswered, since: float | None) -> None:
    """Challenges count only while AMI is connected all the time, since it may miss a phone's success."""
    often(unanswered, MANY + 1)
    assert not unanswered.could_have_guessed(BY, 1.0 + ANSWERED, lambda _: since)
    assert unanswered.too_many(10.0, lambda _: since) == []
    assert unanswered.too_many(10.0, always) == []


def test_challenges_count_only_if_ami_reports_successes() -> None:
    """Nothing is concluded if the manager user receives no successes."""
    deaf = Unanswered()
    often(deaf, MANY + 1)

    assert not deaf.could_have_guessed(BY, 1.0 + ANSWERED, always)
    assert deaf.too_many(10.0, always) == []


def test_a_recently_challenged_sender_could_guess(unanswered: Unanswered) -> None:
    """A sender could guess for as long as its nonce lives, after the time that a phone has to answer.

    This applies to that sender alone, however often it asks.
    """
    often(unanswered, 1)
    assert not unanswered.could_have_guessed(BY, 1.0 + ANSWERED - 0.1, always)
    assert unanswered.could_have_guessed(BY, 1.0 + ANSWERED, always)
    assert not unanswered.could_have_guessed(ip_address("203.0.113.9"), 1.0 + ANSWERED, always)

    often(unanswered, 1, 2.5)
    assert unanswered.could_have_guessed(BY, 2.5 + ASKED - 0.1, always)
    assert not unanswered.could_have_guessed(BY, 2.5 + ASKED, always)


def test_a_64_is_one_sender(unanswered: Unanswered) -> None:
    """A sender that asks with many addresses of its /64 is counted as one."""
    for last in range(MANY + 1):
        often(unanswered, 1, address=f"2001:db8::{last + 1:x}")

    assert len(unanswered.too_many(10.0, always)) == 1
    unanswered.succeeded(ip_address("2001:db8::ffff"), "pbx", 10.0)
    assert not unanswered.could_have_guessed(ip_address("2001:db8::1"), 10.0, always)


def test_what_is_kept_is_bounded() -> None:
    """The oldest senders are discarded when there are too many, and so are the oldest that succeeded."""
    unanswered = Unanswered(most=3)
    for last in range(1, 20):
        often(unanswered, 1, address=f"192.0.2.{last}")
    for last in range(1, 20):
        unanswered.succeeded(ip_address(f"198.51.100.{last}"), "pbx", 1.0)

    assert len(unanswered) == 6
