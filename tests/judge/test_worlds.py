"""Worlds of random senders: no invariant fails."""

import pytest
from tests.judge.asterisk import Act
from tests.judge.guard import guarding
from tests.judge.worlds import AMI_FIRST, ATTACKERS, CAST, INSIDER, play, shrunk, world

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


@pytest.mark.parametrize("transport", ["UDP", "TLS"])
@pytest.mark.parametrize("order", [AMI_FIRST, *range(6)])
def test_a_friend_covers_no_guess_by_failures_of_its_own(transport: str, order: int) -> None:
    """In any order of the reports, each guess counts once, and the friend is banned at its limit."""
    covers = [Act("covers a guess", INSIDER, transport=transport, order=order) for _ in range(24)]

    assert play([Act("logs in", INSIDER), *covers], guarding) is None
