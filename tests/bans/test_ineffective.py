"""Bans that do not work: what shows it, and what does not."""

from ipaddress import IPv4Address, IPv6Address

from ringfence.bans.ineffective import ENOUGH, GRACE, MOST, Ineffective

ATTACKER = IPv4Address("203.0.113.9")
SINCE = 1_700_000_000.0
LATE = SINCE + GRACE + 1


def test_the_third_attempt_that_should_not_have_arrived_shows_it() -> None:
    """Once, however many follow; how many came is known."""
    bans = Ineffective()
    assert [bans.observe(ATTACKER, SINCE, LATE + n) for n in range(5)] == [False, False, True, False, False]
    assert bans.shown == {ATTACKER: 5}


def test_asterisks_own_backlog_shows_nothing() -> None:
    """However many were still to be worked off, and up to the last second of the grace."""
    bans = Ineffective()
    told = [bans.observe(ATTACKER, SINCE, SINCE + n * GRACE / 60_000) for n in range(60_001)]
    assert not any(told)
    assert bans.shown == {}


def test_old_lines_that_are_read_late_show_nothing() -> None:
    """The event's own time counts, not when it is told."""
    bans = Ineffective()
    assert not any(bans.observe(ATTACKER, SINCE, SINCE - 3_600) for _ in range(100))
    assert bans.shown == {}


def test_each_address_is_counted_by_itself() -> None:
    """Two late attempts of each of many addresses show nothing of any."""
    bans = Ineffective()
    for number in range(100):
        address = IPv6Address(f"2001:db8::{number:x}")
        assert not any(bans.observe(address, SINCE, LATE) for _ in range(ENOUGH - 1))
    assert bans.shown == {}


def test_a_ban_that_is_placed_again_begins_anew() -> None:
    """What was mended is not held against the new ban."""
    bans = Ineffective()
    for _ in range(ENOUGH):
        bans.observe(ATTACKER, SINCE, LATE)
    assert not bans.observe(ATTACKER, SINCE + 60, LATE + 60)
    assert bans.shown == {}


def test_who_is_forgotten_is_shown_no_more() -> None:
    """A ban that is over cannot fail; to forget somebody who is not known is nothing."""
    bans = Ineffective()
    for _ in range(ENOUGH):
        bans.observe(ATTACKER, SINCE, LATE)
    bans.forget(ATTACKER)
    bans.forget(ATTACKER)
    assert bans.shown == {}


def test_memory_is_bounded() -> None:
    """Beyond so many addresses the one that was told of longest ago is forgotten, not one that goes on."""
    bans = Ineffective()
    bans.observe(ATTACKER, SINCE, LATE)
    for number in range(MOST - 1):
        bans.observe(IPv4Address(number), SINCE, LATE)
    bans.observe(ATTACKER, SINCE, LATE)
    for number in range(MOST - 1):
        bans.observe(IPv4Address(1_000_000 + number), SINCE, LATE)
    assert bans.observe(ATTACKER, SINCE, LATE)
    assert len(bans._late) == MOST
