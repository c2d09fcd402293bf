"""The clocks, the host's own by default; pauses after failures; durations as text."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.clock import Backoff, format_duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (-5.0, "0s"),
        (0.4, "0s"),
        (59.6, "1m"),
        (61.0, "1m 1s"),
        (3_600.0, "1h"),
        (3_601.0, "1h 1s"),
        (5_400.0, "1h 30m"),
        (86_399.0, "23h 59m"),
        (6 * 86_400 + 3 * 3_600 + 59.0, "6d 3h"),
        (315_360_000.0, "3650d"),
    ],
)
def test_durations_as_text(seconds: float, text: str) -> None:
    """A duration is shown in its two largest units that are not zero."""
    assert format_duration(seconds) == text


def test_pauses_double_up_to_the_longest() -> None:
    """Each pause is twice the one before, up to the longest; after a success the first one comes again."""
    backoff = Backoff(1.0, 5.0)
    pauses = [backoff.next() for _ in range(5)]
    backoff.reset()

    assert (pauses, backoff.next()) == ([1.0, 2.0, 4.0, 5.0, 5.0], 1.0)


def jitter(seed: int) -> random.Random:
    """Return a random generator with this seed."""
    return random.Random(seed)  # noqa: S311 - no secret


@given(st.integers(), st.integers(1, 200))
def test_every_pause_is_within_its_bounds(seed: int, number: int) -> None:
    """Each lies between the shortest and three times the one before, and never above the longest."""
    backoff = Backoff(chance=jitter(seed))
    pauses = [0.5, *(backoff.next() for _ in range(number))]

    for before, after in pairwise(pauses):
        assert 0.5 <= after <= min(30.0, before * 3)


def test_a_long_failure_leads_to_long_pauses() -> None:
    """After many tries the pauses are long on average, jittered, and still at most the longest."""
    backoff = Backoff(chance=jitter(1))
    late = [backoff.next() for _ in range(2_000)][200:]

    assert max(late) == 30.0
    assert sum(late) / len(late) > 10.0
    assert len(set(late)) > 100


def test_reset_starts_again() -> None:
    """After a good connection the first pause is short again."""
    backoff = Backoff(chance=jitter(1))
    for _ in range(100):
        backoff.next()
    backoff.reset()

    assert 0.5 <= backoff.next() <= 1.5


def test_two_daemons_do_not_connect_in_step() -> None:
    """Two daemons that were started together differ at once."""
    first, second = Backoff(chance=jitter(1)), Backoff(chance=jitter(2))

    assert [first.next() for _ in range(5)] != [second.next() for _ in range(5)]
