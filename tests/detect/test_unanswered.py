"""Challenges without end: who is no phone, whom nothing is concluded of, and who may be behind a line."""

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
    """Give a challenge that ``address`` asked for."""
    there = ip_address(address)
    return Challenge(there, 5062, HERE, 5060, b"call-1", b"n", there)


def often(unanswered: Unanswered, number: int, at: float = 1.0, address: str = SENDER) -> None:
    """Let ``address`` ask so often."""
    for _ in range(number):
        unanswered.note(asked(address), ip_address(address), "pbx", at)


def always(_: str) -> float:
    """Say that AMI was heard all the time."""
    return -SURE_AFTER


@pytest.fixture
def unanswered() -> Unanswered:
    """AMI has told of a success, somebody else's."""
    made = Unanswered()
    made.succeeded(ip_address("203.0.113.200"), "pbx", 0.5)
    return made


def test_who_asks_without_end_is_given_with_what_is_new(unanswered: Unanswered) -> None:
    """Each challenge beyond the number that no phone reaches, once, when a success had its time."""
    often(unanswered, MANY)
    assert unanswered.too_many(1.0 + SETTLED, always) == []
    often(unanswered, 3)
    assert unanswered.too_many(1.0 + SETTLED - 0.1, always) == []

    assert unanswered.too_many(1.0 + SETTLED, always) == [(asked(), "pbx", 3)]
    assert unanswered.too_many(2.0 + SETTLED, always) == []
    often(unanswered, 1)
    assert unanswered.too_many(2.0 + SETTLED, always) == [(asked(), "pbx", 1)]


def test_who_asks_seldom_is_a_phone_that_is_not_let_in(unanswered: Unanswered) -> None:
    """The number is that of a time: what was before does not add up."""
    often(unanswered, MANY)
    often(unanswered, MANY, 1.0 + WITHIN)

    assert unanswered.too_many(2.0 + WITHIN, always) == []


def test_nothing_is_concluded_of_who_succeeds(unanswered: Unanswered) -> None:
    """An office of phones asks as often as it likes, before its first success and after it, for a time."""
    often(unanswered, MANY + 1)
    unanswered.succeeded(BY, "pbx", 1.1)
    often(unanswered, MANY + 1, 1.2)
    assert unanswered.too_many(10.0, always) == []
    assert not unanswered.asked(BY, 1.2 + ANSWERED, always)

    often(unanswered, MANY + 1, 1.1 + TRUSTED)
    assert len(unanswered.too_many(3.0 + TRUSTED, always)) == 1


def test_who_is_told_of_by_others_does_not_hide(unanswered: Unanswered) -> None:
    """His attempts are counted, and his challenges begin anew."""
    often(unanswered, MANY + 1)
    unanswered.told(BY)
    often(unanswered, MANY)

    assert unanswered.too_many(10.0, always) == []


@pytest.mark.parametrize("since", [None, 1.0, 2.0, 0.0, 1.5 - SURE_AFTER])
def test_nothing_is_concluded_while_no_success_could_be_heard(
    unanswered: Unanswered, since: float | None
) -> None:
    """Without AMI all the time a phone's success may have been missed; then it begins anew."""
    often(unanswered, MANY + 1)
    assert not unanswered.asked(BY, 1.0 + ANSWERED, lambda _: since)
    assert unanswered.too_many(10.0, lambda _: since) == []
    assert unanswered.too_many(10.0, always) == []


def test_nothing_is_concluded_where_ami_tells_of_no_success() -> None:
    """Whose manager user is not told of successes hears no phone succeed."""
    deaf = Unanswered()
    often(deaf, MANY + 1)

    assert not deaf.asked(BY, 1.0 + ANSWERED, always)
    assert deaf.too_many(10.0, always) == []


def test_who_was_challenged_lately_could_guess(unanswered: Unanswered) -> None:
    """For as long as a nonce lives, and he alone; a phone has a while to answer, however often it asks."""
    often(unanswered, 1)
    assert not unanswered.asked(BY, 1.0 + ANSWERED - 0.1, always)
    assert unanswered.asked(BY, 1.0 + ANSWERED, always)
    assert not unanswered.asked(ip_address("203.0.113.9"), 1.0 + ANSWERED, always)

    often(unanswered, 1, 2.5)
    assert unanswered.asked(BY, 2.5 + ASKED - 0.1, always)
    assert not unanswered.asked(BY, 2.5 + ASKED, always)


def test_a_64_is_one_sender(unanswered: Unanswered) -> None:
    """Who has no end of addresses asks with each of them."""
    for last in range(MANY + 1):
        often(unanswered, 1, address=f"2001:db8::{last + 1:x}")

    assert len(unanswered.too_many(10.0, always)) == 1
    unanswered.succeeded(ip_address("2001:db8::ffff"), "pbx", 10.0)
    assert not unanswered.asked(ip_address("2001:db8::1"), 10.0, always)


def test_what_is_kept_is_bounded() -> None:
    """The oldest senders go when there are too many, and so do those who succeeded."""
    unanswered = Unanswered(most=3)
    for last in range(1, 20):
        often(unanswered, 1, address=f"192.0.2.{last}")
    for last in range(1, 20):
        unanswered.succeeded(ip_address(f"198.51.100.{last}"), "pbx", 1.0)

    assert len(unanswered) == 6
