"""The rules: what is counted, how many in how long, and what follows. A rule is a row, not a class.

A new rule is one more row in ``RULES``, a scenario and an example; the configuration offers its numbers under
its name by itself. How rows are read is the matter of ``judge``.

What the address of an attempt is worth (its proof) is no matter of rules: a ban is full where all but one of
the attempts that a rule asks for are proven. (The last one may be a request that has not been answered yet,
and whoever forges it bans only who made all the others.) Else it is *claimed*, and ``Claimed`` bounds what it
may do. One datagram alone bans nobody.
"""

import enum

from attrs import field, frozen

from ringfence.model import AttemptKind, Proof, Scope

MINUTE = 60.0
HOUR = 60 * MINUTE
DAY = 24 * HOUR

RETURN_WITHIN = 30 * DAY
"""A subject that is banned again within this time after a ban began gets the next longer ban."""


class By(enum.Enum):
    """Whose attempts are counted together."""

    SUBJECT = enum.auto()  # an IPv4 address, the /64 of an IPv6 one
    PREFIX = enum.auto()  # a /24 or a /48: proven attempts of strangers
    ACCOUNT = enum.auto()  # different subjects that fail on one account that exists


class Of(enum.Enum):
    """What is counted of them."""

    ATTEMPTS = enum.auto()
    UNKNOWN_ACCOUNTS = enum.auto()  # each account once, of those that do not exist


@frozen
class Rule:
    """``attempts`` attempts of the kinds ``counts`` by one subject within ``window`` seconds are a ban.

    ``ban`` holds the lengths in seconds: of the first ban, of the next on return, and so on; the last one
    stays. ``scope`` is what the ban covers at most. ``meaning`` is one sentence for an administrator.

    ``friends`` is the number that applies to friends of this PBX, 0 for none: what a phone does by itself
    must not reach it. ``addresses`` is how many subjects of a prefix must take part. ``accounts`` are the
    only ones that count, where any are named. ``strangers`` is how many failures of a stranger on an account
    that many try at once are a ban.
    """

    name: str
    meaning: str
    counts: frozenset[AttemptKind]
    attempts: int
    window: float
    ban: tuple[float, ...]
    by: By = By.SUBJECT
    of: Of = Of.ATTEMPTS
    friends: int = 0
    addresses: int = 0
    accounts: frozenset[str] | None = None
    strangers: int = 0
    scope: Scope = Scope.FULL
    enabled: bool = True

    def ban_for(self, bans_before: int) -> float:
        """Give the length of a ban of a subject that had ``bans_before`` bans within RETURN_WITHIN."""
        return self.ban[min(bans_before, len(self.ban) - 1)]

    def proven_for(self, number: int) -> int:
        """Give how many of ``number`` attempts must be proven for a full ban."""
        return max(1, number - 1)

    def claimed_for(self, number: int) -> int:
        """Give how many attempts it takes where none is proven."""
        return max(2, number)


@frozen
class Claimed:
    """What evidence may do that only claims its address: a datagram's source is easily forged.

    ``ban`` holds the lengths in seconds, of the first ban and of the next on return within a day;
    ``per_minute`` is how many new ones there may be.
    """

    ban: tuple[float, ...] = (10 * MINUTE, 30 * MINUTE, 2 * HOUR)
    per_minute: int = 600
    returns_within: float = field(default=DAY, init=False)


GUESSES = frozenset({AttemptKind.GUESS})
_LADDER = (HOUR, 6 * HOUR, DAY, 7 * DAY)

RULES: tuple[Rule, ...] = (
    # A phone that retries every second makes 600 in ten minutes: what is half as quick again is none. Nor is
    # what dials a wrong number every twelve seconds; and a program with a wrong password for the manager
    # interface, at an office, retries every few seconds too.
    Rule(
        name="guess",
        meaning="somebody tries passwords or accounts",
        counts=GUESSES,
        attempts=5,
        window=10 * MINUTE,
        ban=_LADDER,
        friends=900,
    ),
    Rule(
        name="decoy",
        meaning="somebody tries an account that exists for nobody",
        counts=frozenset({AttemptKind.GUESS, AttemptKind.MANAGER}),
        attempts=1,
        window=DAY,
        ban=(7 * DAY,),
        accounts=frozenset(),
    ),
    # Of a friend any account counts that never worked at its address.
    Rule(
        name="enumeration",
        meaning="somebody tries one account after the other, none of which exists",
        counts=GUESSES,
        attempts=3,
        window=10 * MINUTE,
        ban=_LADDER,
        of=Of.UNKNOWN_ACCOUNTS,
        friends=20,
    ),
    Rule(
        name="probe",
        meaning="a stranger calls extensions that do not exist",
        counts=frozenset({AttemptKind.PROBE}),
        attempts=3,
        window=HOUR,
        ban=_LADDER,
        friends=300,
    ),
    Rule(
        name="manager",
        meaning="somebody tries to log in to the manager interface",
        counts=frozenset({AttemptKind.MANAGER}),
        attempts=3,
        window=10 * MINUTE,
        ban=(DAY,),
        friends=300,
    ),
    Rule(
        name="slow",
        meaning="somebody tries again and again over a day, too seldom for the other rules",
        counts=frozenset({AttemptKind.GUESS, AttemptKind.PROBE}),
        attempts=20,
        window=DAY,
        ban=(DAY,),
    ),
    Rule(
        name="prefix",
        meaning="the attempts of a network rotate over its addresses",
        counts=frozenset({AttemptKind.GUESS, AttemptKind.PROBE, AttemptKind.MANAGER}),
        attempts=20,
        window=HOUR,
        ban=(DAY,),
        by=By.PREFIX,
        addresses=3,
    ),
    Rule(
        name="siege",
        meaning="many addresses try one account",
        counts=GUESSES,
        attempts=8,
        window=HOUR,
        ban=_LADDER,
        by=By.ACCOUNT,
        strangers=2,
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


def is_proven(proof: Proof) -> bool:
    """Say whether the address of an attempt is more than claimed."""
    return proof is not Proof.CLAIMED
