"""The pauses between tries: jittered, growing and bounded."""

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ringfence.sources.backoff import Backoff


def jitter(seed: int) -> random.Random:
    """Return a random generator with this seed."""
    return random.Random(seed)  # noqa: S311 - no secret


@given(st.integers(), st.integers(1, 200))
def test_every_pause_is_within_its_bounds(seed: int, number: int) -> None:
    """Each lies between the shortest and three times the one before, and never above the longest."""
    backoff = Backoff(generator=jitter(seed))
    pauses = [0.5, *(backoff.next() for _ in range(number))]

    for before, after in pairwise(pauses):
        assert 0.5 <= after <= min(30.0, before * 3)


def test_a_long_failure_leads_to_long_pauses() -> None:
    """After many tries the pauses are long on average, jittered, and still at most the longest."""
    backoff = Backoff(generator=jitter(1))
    late = [backoff.next() for _ in range(2_000)][200:]

    assert max(late) == 30.0
    assert sum(late) / len(late) > 10.0
    assert len(set(late)) > 100


def test_reset_starts_again() -> None:
    """After a good connection the first pause is short again."""
    backoff = Backoff(generator=jitter(1))
    for _ in range(100):
        backoff.next()
    backoff.reset()

    assert 0.5 <= backoff.next() <= 1.5


def test_two_daemons_do_not_connect_in_step() -> None:
    """Two daemons that were started together differ at once."""
    first, second = Backoff(), Backoff()

    assert [first.next() for _ in range(5)] != [second.next() for _ in range(5)]
