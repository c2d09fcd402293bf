"""The clocks: the host's own, where nobody says another."""

import time

from ringfence.clock import Clock


def test_the_clocks_are_the_hosts() -> None:
    """Wall time for people and the database, and one that never goes back for windows."""
    assert Clock() == Clock(wall=time.time, mono=time.monotonic)


def test_a_test_says_what_time_it_is() -> None:
    """Each clock may be another."""
    clock = Clock(wall=lambda: 5.0, mono=lambda: 7.0)

    assert (clock.wall(), clock.mono()) == (5.0, 7.0)
