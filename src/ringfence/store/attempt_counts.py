"""A summary of the attempts that led to a ban, small enough to keep one in memory for each ban."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from ringfence.model import Attempt, Proof


class AttemptCounts(NamedTuple):
    """The number of attempts that led to a ban, and the number of them with a proven address.

    ``accounts`` is the number of different accounts. ``account`` is the one that was tried most often, "" if
    no attempt names an account.
    """

    attempts: int = 0
    proven: int = 0
    accounts: int = 0
    account: str = ""

    @classmethod
    def of(cls, attempts: Sequence[Attempt]) -> "AttemptCounts":
        """Return the counts of ``attempts``."""
        accounts = Counter(attempt.account for attempt in attempts if attempt.account)
        account = accounts.most_common(1)[0][0] if accounts else ""
        proven = sum(attempt.proof is not Proof.CLAIMED for attempt in attempts)
        return cls(len(attempts), proven, len(accounts), account)
