"""All bans that the daemon knows: look-ups among active and pending bans."""

from ipaddress import ip_network

import pytest
from tests.support.world import OTHER, START, SUBJECT

from ringfence.bans import kernel_bans
from ringfence.bans.kernel_bans import KnownBans
from ringfence.bans.ledger import Record, key_of
from ringfence.model import AttemptCounts, Ban, Network, Scope

KEY, PENDING = key_of(SUBJECT), key_of(OTHER)


def ban(network: Network, *, forced: bool = False) -> Ban:
    """Return a ban of a minute."""
    return Ban(network, START, START + 60.0, "admin", forced=forced)


def both() -> KnownBans:
    """Return one ban in the kernel, and a forced one that is pending."""
    bans = KnownBans()
    bans.confirm(KEY, Record.of(ban(SUBJECT), AttemptCounts()))
    bans.refuse(ban(OTHER, forced=True))
    return bans


def test_a_pending_ban_is_known_like_an_active_one() -> None:
    """Look-ups find both kinds; a subject with a pending ban counts as banned."""
    bans = both()
    assert bans.all_keys() == [KEY, PENDING]
    assert bans.overlapping(ip_network("192.0.2.0/24"), START) == [PENDING, KEY]
    assert (bans.is_forced(KEY), bans.is_forced(PENDING)) == (False, True)
    assert [bans.get(key) for key in (KEY, PENDING, 0)] == [ban(SUBJECT), ban(OTHER, forced=True), None]
    assert all(bans.drops(one, Scope.FULL, START, friend=False) for one in (SUBJECT, OTHER))
    assert not bans.drops(OTHER, Scope.SIP_UDP, START, friend=False)


def test_a_confirmed_ban_is_not_pending() -> None:
    """A pending ban that the kernel accepts is moved to the ledger; a discarded one is unknown."""
    bans = both()
    bans.confirm(PENDING, Record.of(ban(OTHER), AttemptCounts()))
    assert (bans.pending, len(bans.ledger)) == ([], 2)
    bans.discard(PENDING)
    assert bans.all_keys() == [KEY]


def test_pending_bans_are_limited_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit a refused ban is not pending; a pending ban ends with its time."""
    monkeypatch.setattr(kernel_bans, "MOST_PENDING", 1)
    bans = both()
    assert bans.refuse(ban(OTHER))
    assert not bans.refuse(ban(ip_network("192.0.2.3")))
    assert (bans.expire_pending(START), bans.expire_pending(START + 60.0), bans.pending) == (False, True, [])


def test_a_clock_that_is_set_moves_both_kinds() -> None:
    """If the clock is set, every ban keeps its time left."""
    bans = both()
    bans.shift(3_600.0)
    record = bans.ledger.get(KEY)
    assert record is not None
    assert [record.expires, bans.pending[0].expires] == [START + 3_660.0] * 2
