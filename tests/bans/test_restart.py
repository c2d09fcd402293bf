"""Bans in the kernel at a restart: which ones were unbanned before."""

from ipaddress import ip_network

import pytest

from ringfence.bans.ledger import key_of
from ringfence.bans.restart import unbanned_keys
from ringfence.model import Scope

NETWORK = ip_network("192.0.2.1")
DAY = 86_400.0


@pytest.mark.parametrize(
    ("left", "expires", "same"),
    [
        (600.0, 1_600.0, True),
        (600.0, 1_599.2, True),  # ipset rounds up
        (600.0, 1_600.9, True),
        (600.0, 1_602.5, False),  # a shorter ban than the one that was unbanned
        (600.0, 1_597.5, False),  # a later ban
        (1_000_000.0, 1_000.0 + 30 * DAY, True),  # not renewed yet
        (31 * DAY, 1_000.0 + 30 * DAY, False),
    ],
)
def test_an_element_with_the_same_end_was_unbanned(left: float, expires: float, same: bool) -> None:  # noqa: FBT001 - a column
    """An element belongs to the unbanned ban if both have the same end, within a second or two."""
    ended = [(NETWORK, Scope.FULL, expires), (NETWORK, Scope.SIP_UDP, 1_600.0)]
    assert unbanned_keys({key_of(NETWORK): left}, ended, 1_000.0, 1_000.0) == (
        {key_of(NETWORK)} if same else set()
    )


def test_the_time_that_a_listing_takes_counts() -> None:
    """Elements at the end of a long listing have less time left than at its beginning."""
    ended = [(NETWORK, Scope.FULL, 1_600.0)]
    assert unbanned_keys({key_of(NETWORK): 595.0}, ended, 1_000.0, 1_005.0) == {key_of(NETWORK)}
