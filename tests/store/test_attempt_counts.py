"""The counts of the attempts that led to a ban."""

from attrs import evolve
from tests.support.attempts import attempts

from ringfence.model import Proof
from ringfence.store.attempt_counts import AttemptCounts


def test_the_account_that_was_tried_most_often() -> None:
    """Attempts, proven ones and different accounts are counted; an empty account is none."""
    made = (*attempts(1, account=""), *attempts(1, account="205"), *attempts(2, account="204"))

    assert AttemptCounts.of(made) == AttemptCounts(4, 0, 2, "204")
    assert AttemptCounts.of([evolve(one, proof=Proof.NONCE) for one in made[:1]]) == AttemptCounts(
        1, 1, 0, ""
    )
    assert AttemptCounts.of(()) == AttemptCounts()
