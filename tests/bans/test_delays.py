"""The histogram of the times until a ban."""

from ringfence.bans.delays import BOUNDS, OLD, BanDelays


def test_a_delay_counts_in_each_bucket_that_is_as_long() -> None:
    """A bucket contains the delays up to its bound, and the last one contains all."""
    delays = BanDelays()
    for seconds in (0.0, BOUNDS[0], 0.004, 30.0):
        delays.record(seconds)

    assert delays.cumulative() == [2, 2, *[3] * (len(BOUNDS) - 2), 4]
    assert delays.sum == BOUNDS[0] + 0.004 + 30.0


def test_old_evidence_is_not_counted() -> None:
    """A log that is read late has no delay of the daemon."""
    delays = BanDelays()
    delays.record(OLD)

    assert delays.cumulative()[-1] == 0
