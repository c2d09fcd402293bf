"""Ineffective bans: evidence that confirms one, and evidence that does not."""

from ipaddress import IPv4Address, IPv6Address

from ringfence.guard.ban_effectiveness import ENOUGH, GRACE, MOST, Ineffective

ATTACKER = IPv4Address("203.0.113.9")
SINCE = 1_700_000_000.0
LATE = SINCE + GRACE + 1


def test_the_third_attempt_that_should_not_have_arrived_shows_it() -> None:
    """The third late attempt confirms it, and so does each later one."""
    bans = Ineffective()
    assert [bans.observe(ATTACKER, SINCE, LATE + n) for n in range(5)] == [False, False, True, True, True]


def test_asterisks_own_backlog_shows_nothing() -> None:
    """Asterisk's backlog within the grace period confirms nothing, whatever its size."""
    bans = Ineffective()
    told = [bans.observe(ATTACKER, SINCE, SINCE + n * GRACE / 60_000) for n in range(60_001)]
    assert not any(told)


def test_old_lines_that_are_read_late_show_nothing() -> None:
    """The event's own time counts, not the time at which it is read."""
    bans = Ineffective()
    assert not any(bans.observe(ATTACKER, SINCE, SINCE - 3_600) for _ in range(100))


def test_each_address_is_counted_by_itself() -> None:
    """Two late attempts of each of many addresses confirm nothing."""
    bans = Ineffective()
    for number in range(100):
        address = IPv6Address(f"2001:db8::{number:x}")
        assert not any(bans.observe(address, SINCE, LATE) for _ in range(ENOUGH - 1))


def test_late_attempts_of_an_earlier_ban_do_not_count() -> None:
    """Late attempts of an earlier ban do not count against a new ban."""
    bans = Ineffective()
    for _ in range(ENOUGH):
        bans.observe(ATTACKER, SINCE, LATE)
    assert not bans.observe(ATTACKER, SINCE + 60, LATE + 60)


def test_memory_is_bounded() -> None:
    """Beyond the limit, the address whose last report is oldest is forgotten, not an active one."""
    bans = Ineffective()
    bans.observe(ATTACKER, SINCE, LATE)
    for number in range(MOST - 1):
        bans.observe(IPv4Address(number), SINCE, LATE)
    bans.observe(ATTACKER, SINCE, LATE)
    for number in range(MOST - 1):
        bans.observe(IPv4Address(1_000_000 + number), SINCE, LATE)
    assert bans.observe(ATTACKER, SINCE, LATE)
    assert len(bans._late) == MOST
