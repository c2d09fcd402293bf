"""The rules: what is counted, how many in how long, and what follows. A rule is a row, not a class.

A new rule is one more row in ``RULES``; the configuration offers its numbers under its name by itself.
"""

from attrs import frozen

from ringfence.model import AttemptKind, Scope

MINUTE = 60.0
HOUR = 60 * MINUTE
DAY = 24 * HOUR

RETURN_WITHIN = 30 * DAY
"""A subject that is banned again within this time after a ban began gets the next longer ban."""


@frozen
class Rule:
    """``attempts`` attempts of the kinds ``counts`` by one subject within ``window`` seconds are a ban.

    ``ban`` holds the lengths in seconds: of the first ban, of the next on return, and so on; the last one
    stays. ``scope`` is what the ban covers. ``meaning`` is one sentence for an administrator.
    """

    name: str
    meaning: str
    counts: frozenset[AttemptKind]
    attempts: int
    window: float
    ban: tuple[float, ...]
    scope: Scope = Scope.FULL

    def ban_for(self, bans_before: int) -> float:
        """Give the length of a ban of a subject that had ``bans_before`` bans within RETURN_WITHIN."""
        return self.ban[min(bans_before, len(self.ban) - 1)]


RULES: tuple[Rule, ...] = (
    Rule(
        name="guess",
        meaning="somebody tries passwords or accounts",
        counts=frozenset({AttemptKind.GUESS}),
        attempts=5,
        window=10 * MINUTE,
        ban=(HOUR, 6 * HOUR, DAY, 7 * DAY),
    ),
    # Ten seconds over the limit, and for ten minutes only the SIP ports are closed: the address of a datagram
    # may be anybody's.
    Rule(
        name="flood",
        meaning="somebody floods the SIP ports",
        counts=frozenset({AttemptKind.FLOOD}),
        attempts=10,
        window=15.0,
        ban=(10 * MINUTE,),
        scope=Scope.SIP_UDP,
    ),
)
