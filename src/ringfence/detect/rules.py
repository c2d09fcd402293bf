"""The rules as a table: which attempts a rule counts, their number and window, and the ban that follows.

A new rule needs a row in ``RULES``, a scenario for the tests (``tests/scenarios``) and an example
(``examples/full.toml``). The configuration then offers the numbers of the rule under its name. ``judge.py``
applies the rules.

A rule counts an attempt whether or not its address is proven. The proofs decide which ban follows. A ban is
*full* if all attempts that a rule needs are proven and had credentials, or all but one. (The challenge of the
latest attempt may not be answered yet. If that attempt is forged, the ban still hits only the sender of the
others.) Otherwise the ban is *claimed*, and ``Claimed`` limits it. A single datagram never leads to a ban.

A request without credentials shows no attacker: the calls of a carrier that no ``identify`` matches look the
same. So it leads to claimed bans only, of the transport by which it came, and counts for no prefix.

A person can have a wrong password. So rules about passwords close the SIP ports only, and no web page and no
SSH. Only an attacker tries several accounts that do not exist, or the manager interface: these rules
close everything.
"""

import enum

from attrs import field, frozen

from ringfence.values.attempt import AttemptKind, Proof
from ringfence.values.ban import Origin, Scope

MINUTE = 60.0
HOUR = 60 * MINUTE
DAY = 24 * HOUR

RETURN_WITHIN = 30 * DAY
"""Seconds after the begin of a ban within which the sender's next ban is longer."""


class By(enum.Enum):
    """The group whose attempts a rule counts together: one sender, one prefix, or one account."""

    SUBJECT = enum.auto()  # one sender: an IPv4 address, or the /64 of an IPv6 address
    PREFIX = enum.auto()  # an IPv4 /24 or IPv6 /48; only proven attempts count, and not those of friends
    ACCOUNT = enum.auto()  # an existing account; each stranger with a proven failure on it counts once


@frozen
class Of:
    """What a rule counts of a sender's attempts: each one, or the different values of one field.

    ``field`` is the name of a field of ``Attempt`` and ``history.Fact``, each value of which counts once; it
    is "" if each attempt counts. ``unknown``: only a stranger's attempts on accounts that do not exist count.
    ``one`` and ``several`` are the words for what is counted, and ``of_friend`` is the word for several if a
    friend made them. If these are "", the words for attempts are used.
    """

    field: str = ""
    unknown: bool = False
    one: str = ""
    several: str = ""
    of_friend: str = ""


ATTEMPTS = Of()
UNKNOWN_ACCOUNTS = Of(
    "account",
    unknown=True,
    one="account that does not exist",
    several="accounts that do not exist",
    of_friend="accounts that never worked there",
)


@frozen
class FriendLimit:
    """A limit for friends: ``number`` attempts in ``window`` seconds, and ``more`` for each further account.

    ``each``: an account counts at most so often (0: each attempt counts).
    """

    number: int
    window: float
    each: int = 0
    more: int = 0

    def needed(self, accounts: int) -> int:
        """Return how many attempts reach the limit if they are at this number of accounts."""
        return self.number + self.more * min(accounts, MOST_ADDING)


TWICE = 2
"""The maximum number of a friend's attempts at one account that count: phones repeat old passwords."""

MOST_ADDING = 10
"""The maximum number of accounts that raise a limit: an office has no more phones with old passwords."""


@frozen
class Rule:
    """``attempts`` attempts of the kinds ``counts`` within ``window`` seconds lead to a ban.

    ``by`` is whose attempts are counted together, and ``of`` what is counted of them.

    ``ban`` holds the durations in seconds: of the first ban, of the next one, and so on; the last one
    repeats. ``scope`` is the scope of a full ban (on proven attempts); with ``SIP_UDP`` every ban is a
    claimed one (on unproven attempts). With ``SIP``, a ban for failed manager logins has the scope of the
    rule ``manager``, if that is wider. ``meaning`` is one sentence for an administrator.

    ``friends`` replaces ``attempts`` for friends of this PBX (0: the rule does not apply). An account counts
    at most ``each_of_friend`` times for it (0: each attempt counts). ``limits`` are further limits for
    friends. A phone that retries by itself stays below all.
    ``addresses`` is the number of subjects of a prefix that must take part. ``accounts``: only attempts on
    these accounts count (None: on all accounts). ``strangers``: while an account is under a distributed
    attack, this number of failures of one stranger on it leads to a ban like that of any rule. The first
    proven one already leads to a narrow ban (``distributed``). ``insists``: the rule also counts
    attempts that have already led to a claimed ban by a rule without ``insists``. Its claimed bans last as
    long as its first full ban.
    """

    name: str
    meaning: str
    counts: frozenset[AttemptKind]
    attempts: int
    window: float
    ban: tuple[float, ...]
    by: By = By.SUBJECT
    of: Of = ATTEMPTS
    friends: int = 0
    each_of_friend: int = 0
    limits: tuple[FriendLimit, ...] = ()
    addresses: int = 0
    accounts: frozenset[str] | None = None
    strangers: int = 0
    scope: Scope = Scope.FULL
    insists: bool = False
    enabled: bool = True

    @property
    def one(self) -> str:
        """The words for one thing that the rule counts, such as ``guess`` or ``attempt``."""
        return self.of.one or (next(iter(self.counts)).one if len(self.counts) == 1 else "attempt")

    @property
    def several(self) -> str:
        """The words for several things that the rule counts, such as ``guesses`` or ``attempts``."""
        return self.of.several or (next(iter(self.counts)).several if len(self.counts) == 1 else "attempts")

    @property
    def for_friends(self) -> tuple[FriendLimit, ...]:
        """The limits of this rule for friends (known phones); () if it does not apply to them."""
        if not self.friends:
            return ()
        return FriendLimit(self.friends, self.window, self.each_of_friend), *self.limits

    def ban_for(self, bans_before: int) -> float:
        """Return the duration (seconds) of a ban after ``bans_before`` bans within ``RETURN_WITHIN``."""
        return self.ban[min(bans_before, len(self.ban) - 1)]


@frozen
class Claimed:
    """The limits of bans on unproven evidence: the source of a datagram is easily forged.

    ``ban`` holds the durations of the first ban and of the next ones (seconds). A ban is a next one if the
    previous one began less than ``returns_within`` seconds ago. ``per_minute`` is the number of new bans a
    minute beyond which bans are refused, with exceptions (``judge``).
    """

    ban: tuple[float, ...] = (10 * MINUTE, 30 * MINUTE, 2 * HOUR)
    per_minute: int = 600
    returns_within: float = field(default=DAY, init=False)


GUESSES = frozenset({AttemptKind.GUESS})
_LADDER = (HOUR, 6 * HOUR, DAY, 7 * DAY)

RULES: tuple[Rule, ...] = (
    # For a friend, only attempts on accounts that never worked at its address count. A new phone with a wrong
    # password retries every few seconds, and nothing shows that it repeats the same one: the response of a
    # digest differs with each nonce. So friends have higher limits: a guess every three seconds, at one
    # account or at some. A program is faster (three guesses in four seconds), and an attacker tries many
    # accounts: ten accounts twice, or twenty once. Nine phones of several offices behind one address (CGNAT)
    # with old passwords stay below, and gain an attacker no guess in ten minutes that one account would not.
    # ``probe`` allows a friend a wrong number every twelve seconds, ``manager`` a failed login every two
    # seconds.
    Rule(
        name="guess",
        meaning="somebody tries passwords or accounts",
        counts=GUESSES,
        attempts=5,
        window=10 * MINUTE,
        ban=_LADDER,
        friends=180,
        limits=(FriendLimit(20, 30.0, more=2), FriendLimit(20, 10 * MINUTE, each=TWICE)),
        scope=Scope.SIP,
    ),
    Rule(
        name="decoy",
        meaning="somebody tries an account that no phone uses",
        counts=frozenset({AttemptKind.GUESS, AttemptKind.MANAGER}),
        attempts=1,
        window=DAY,
        ban=(7 * DAY,),
        accounts=frozenset(),
        scope=Scope.SIP,
    ),
    # For a friend, each account that never worked at its address counts.
    Rule(
        name="enumeration",
        meaning="somebody tries one account after another that does not exist",
        counts=GUESSES,
        attempts=3,
        window=10 * MINUTE,
        ban=_LADDER,
        of=UNKNOWN_ACCOUNTS,
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
        scope=Scope.SIP,
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
        insists=True,
        friends=60,
        each_of_friend=TWICE,
        scope=Scope.SIP,
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
        scope=Scope.SIP,
    ),
    Rule(
        name="distributed",
        meaning="many addresses try one account",
        counts=GUESSES,
        attempts=8,
        window=HOUR,
        ban=_LADDER,
        by=By.ACCOUNT,
        strangers=2,
        scope=Scope.SIP,
    ),
    # An attempt is an unreadable request, such as by TLS, that no event explains. This is weak evidence:
    # Asterisk reports nothing of the calls of guests. So the rule needs many, and it closes only what was
    # misused. The handshake proves the address, so the ban lasts as long as for guesses. Asterisk does not
    # report an OPTIONS by TLS at chan_sip, or of a carrier with an identify: pings each 29 s stay below the
    # limit. For a friend, its own requests are excused (``unexplained``), so fewer are enough.
    Rule(
        name="unexplained",
        meaning="Asterisk answers a stranger by TLS and reports nothing about it",
        counts=frozenset({AttemptKind.UNEXPLAINED}),
        attempts=20,
        window=9 * MINUTE,
        ban=_LADDER,
        scope=Scope.SIP_TCP,
        friends=12,
    ),
    # One attempt is one second in which a sender sends more packets than the kernel's limit allows. The ban
    # covers only the SIP ports, for ten minutes, because the address of a datagram may be forged.
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
    """Whether ``proof`` proves an address: the sender is known to receive packets there."""
    return proof is not Proof.CLAIMED


# -- the names under which bans are counted


OTHER_RULE = "other"
"""The name under which a new ban is counted if this version of ringfence does not have its rule.

Example: an earlier version banned a network by a rule that has been removed since. Now a part of the network
is unbanned. The other parts then get new bans by the old rule.
"""
FEATURE_RULES = ("elsewhere", "bare_address")
"""The names of the rules by which features ban: ``features/account`` and ``features/bare_address``."""

BANNED_BY = frozenset({*(rule.name for rule in RULES), *FEATURE_RULES, str(Origin.ADMIN)})
"""The names under which new bans are counted, besides ``OTHER_RULE``.

These are the names of the rules, and one name for the bans by administrators.
"""


def counted_rule(rule: str) -> str:
    """Return the name under which the bans of ``rule`` are counted."""
    return rule if rule in BANNED_BY else OTHER_RULE
