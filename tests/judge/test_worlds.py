"""Worlds of random senders: no invariant fails."""

import pytest
from tests.judge.asterisk import Act
from tests.judge.guard import guarding
from tests.judge.worlds import ATTACKERS, CAST, play, shrunk, world

SEEDS = range(12)


@pytest.mark.parametrize("sender", CAST)
def test_no_invariant_fails_with_one_kind_of_sender(sender: str) -> None:
    """Worlds of fixed seeds hold, for each kind of sender."""
    for seed in range(3):
        failure = play(world(seed, (sender,)), guarding)

        assert failure is None, f"seed {seed}:\n{shrunk(failure, guarding)}"


def test_no_invariant_fails_in_mixed_worlds() -> None:
    """Worlds of fixed seeds hold, with several kinds of senders at once."""
    for seed in SEEDS:
        failure = play(world(seed), guarding)

        assert failure is None, f"seed {seed}:\n{shrunk(failure, guarding)}"


@pytest.mark.parametrize("order", range(8))
def test_one_guess_counts_once_in_any_order(order: int) -> None:
    """In any order of the reports of all sources, five guesses are five, and the sixth is dropped."""
    acts = [Act("guesses", ATTACKERS[0], order=order + number) for number in range(6)]

    assert play(acts, guarding) is None
