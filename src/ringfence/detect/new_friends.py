"""New friends of each account: how many addresses it makes friends, and the guesses that come from these.

A right password makes its address a friend. A person with one password and many addresses must not make each
of them a friend: friends have higher limits, and none in the kernel. So one account makes at most
``MOST_AN_HOUR`` and ``MOST_A_DAY`` new friends. A family that shares an account, with phones that change
between networks, stays below both. The login itself remains valid at Asterisk: the address only stays a
stranger.

What counts is the *sender*: an IPv4 address, or an IPv6 /64. A sender at which the account worked within a
month is not new (``Friends.worked_near``), so phones that come back have no limit.

Guesses at other accounts count against the account that made their sender a friend within ``YOUNG_FOR``: to
wait a day gains nothing. An account is *guilty* for ``GUILTY_FOR`` after ``MOST_GUESSES`` of them within an
hour, if they are *spread*. They come from more than one sender: a new phone with a wrong password, in an
office that is new, is at one. And they are at ``MANY_TRIED`` accounts, or the latest ``SWIFT`` come within
``SWIFT_WITHIN``: if the office has two uplinks, or IPv4 and IPv6, such a phone changes between two senders.
All senders together then guess at one account no faster than a single friend may.

Guesses from an *office* count against no account. It is an address that more than ``MOST_STOLEN`` accounts
made a friend. Some of its phones may have wrong passwords, and when the office changes its uplink, their
guesses come from two senders. This is a trade. A person with one stolen password is found, and with up to
``MOST_STOLEN``. With more, who logs in with all of them at each new address, has the limits of a friend
there, as with one password after a week.

An account is also guilty if a new friend that it alone made is banned for guesses, or is *hurried*: it makes
``HURRIED`` guesses at one account within ``HURRIED_WITHIN``. The ban comes some packets later than the guess
that leads to it. So a program at full speed must be found sooner than a phone that tries again twice a
second.

Whoever knows a password can make each address of a /64 a friend, and guess once from each, also after
``YOUNG_FOR``. So an account of any age is guilty if two addresses of one /64 that it made friends are banned
within an hour. It counts as new there from then on.

A guilty account makes no new friends, and those that only guilty accounts have made become strangers
(:attr:`NewFriends.tainted`).

After a restart the stored friends give the same senders (``Friends.restore_new``), and the alarms the guilty
accounts (``Friends.restore_guilt``).

Bounds: ``MOST`` accounts, of which those that made a friend longest ago are forgotten first, and as many
tainted senders. An account needs a right password to be here. Times are wall-clock seconds, as those of all
friends.
"""

from collections import OrderedDict, deque
from functools import partial
from itertools import islice

from attrs import Factory, define

from ringfence.detect.rules import DAY, HOUR
from ringfence.detect.sessions import remember
from ringfence.values.network import Network

MOST_AN_HOUR = 8
MOST_A_DAY = 20
MOST_GUESSES = 20
HURRIED, HURRIED_WITHIN = 12, 2.5
MANY_TRIED = 3
SWIFT, SWIFT_WITHIN = 10, 33.0  # the pace of 180 guesses in ten minutes, which are a ban of a friend
MOST_STOLEN = 3
"""The greatest number of accounts at an address that may be one person's, with stolen passwords.

An address with more accounts is an office's.
"""
GUILTY_FOR = HOUR
YOUNG_FOR = 7 * DAY
MOST = 4_096

AccountKey = tuple[str, str]
"""The name of an Asterisk, and an account there."""


@define(eq=False)
class _Account:
    """The addresses that an account's logins made friends lately, each since when, and guesses from them.

    Each guess is its time, its sender, and the account that it tried. Until the time ``guilty`` the account
    makes no friends. Times are seconds since the epoch.
    """

    senders: OrderedDict[Network, float] = Factory(OrderedDict)
    guesses: deque[tuple[float, Network, str]] = Factory(partial(deque, maxlen=MOST_GUESSES))
    guilty: float = 0.0


class NewFriends:
    """The senders that became friends (known phones) within ``YOUNG_FOR`` seconds, by their account."""

    def __init__(self) -> None:
        self._accounts: OrderedDict[AccountKey, _Account] = OrderedDict()
        self._refused: dict[AccountKey, None] = {}
        self.tainted: OrderedDict[Network, float] = OrderedDict()
        """The senders whose accounts guessed at others (guilty ones), each with the time when this ends."""

    # -- how many friends an account makes ---------------------------------------------------------------

    def admit(self, account: AccountKey, sender: Network, now: float, *, known: bool = False) -> bool:
        """Record a login of ``account`` at ``sender``; return whether the sender may become a friend.

        ``now`` is in seconds since the epoch. ``known``: the account worked there within a month. A new
        sender that is admitted stays so for ``YOUNG_FOR`` seconds.
        """
        mine = self._accounts.get(account)
        if mine is None:
            if known:
                return True
            mine = _Account()
        senders = _pruned(mine, now)
        if now < mine.guilty and (sender in senders or not known):
            self.taint(sender, mine.guilty)
            return False
        if known or sender in senders:
            return True
        ages = [now - since for since in senders.values()]
        if sum(age < DAY for age in ages) >= MOST_A_DAY or sum(age < HOUR for age in ages) >= MOST_AN_HOUR:
            if len(self._refused) < MOST:
                self._refused[account] = None
            return False
        senders[sender] = now
        remember(self._accounts, account, mine, MOST)
        return True

    def restore(self, account: AccountKey, sender: Network, since: float) -> None:
        """Record that ``account`` works at ``sender`` since ``since`` (epoch seconds), and is new there.

        Call this for the sender of the longest-known friend first, with the stored friends at the start.
        """
        mine = self._accounts.get(account) or _Account()
        mine.senders[sender] = since
        remember(self._accounts, account, mine, MOST)

    def move(self, seconds: float) -> None:
        """Add ``seconds`` to all times, because the wall clock was set by as much."""
        for mine in self._accounts.values():
            for sender in mine.senders:
                mine.senders[sender] += seconds
            guesses = [(time + seconds, sender, tried) for time, sender, tried in mine.guesses]
            mine.guesses.clear()
            mine.guesses.extend(guesses)
            mine.guilty += seconds
        for sender in self.tainted:
            self.tainted[sender] += seconds

    def take_refused(self) -> list[AccountKey]:
        """Return the accounts that tried to make too many new friends since the last call, each once."""
        refused, self._refused = self._refused, {}
        return [*refused]

    # -- guesses that come from new friends --------------------------------------------------------------

    def is_new(self, account: AccountKey, sender: Network, now: float) -> bool:
        """Whether a login of ``account`` made ``sender`` a friend ``YOUNG_FOR`` s before ``now`` or later.

        ``now`` is in seconds since the epoch.
        """
        mine = self._accounts.get(account)
        return mine is not None and sender in _pruned(mine, now)

    def blame(
        self, account: AccountKey, sender: Network, now: float, tried: str, *, alone: bool = False
    ) -> bool:
        """Record a guess at the account ``tried``, at ``now`` (epoch), by a friend that ``account`` made.

        ``alone``: no other account made this sender a friend. Return whether the account becomes guilty:
        too many guesses are spread over several senders, or came too fast from this one.
        """
        mine = self._accounts.get(account)
        if mine is None or now < mine.guilty:
            return False
        mine.guesses.append((now, sender, tried))
        many = len(mine.guesses) == MOST_GUESSES and now - mine.guesses[0][0] < HOUR
        return (many and _are_spread(mine.guesses)) or (alone and _is_hurried(mine.guesses))

    def take_back(self, account: AccountKey, sender: Network, tried: str) -> None:
        """Blame ``account`` no more for the latest guess at ``tried`` by ``sender``."""
        mine = self._accounts.get(account)
        if mine is None:
            return
        found = [one for one in mine.guesses if one[1:] == (sender, tried)]
        if found:
            mine.guesses.remove(found[-1])

    def is_guilty(self, account: AccountKey, now: float) -> bool:
        """Whether ``account`` is guilty at ``now`` (epoch seconds)."""
        mine = self._accounts.get(account)
        return mine is not None and now < mine.guilty

    def convict(self, account: AccountKey, now: float) -> list[Network]:
        """Mark ``account`` as one that guesses from ``now`` (epoch) on; return its latest new friends."""
        mine = self._accounts.get(account)
        if mine is None:
            return []
        mine.guilty = now + GUILTY_FOR
        mine.guesses.clear()
        return [*_pruned(mine, now)]

    def taint(self, sender: Network, until: float) -> None:
        """Record that an account that guesses works at ``sender``.

        One guess from there is a ban until ``until`` (seconds since the epoch).
        """
        remember(self.tainted, sender, until, MOST)

    def is_tainted(self, sender: Network, now: float) -> bool:
        """Whether an account that guessed works at ``sender``, so that one guess from there is a ban.

        ``now`` is in seconds since the epoch.
        """
        return now < self.tainted.get(sender, 0.0)


def _are_spread(guesses: deque[tuple[float, Network, str]]) -> bool:
    """Whether guesses (time, sender, account) came from several senders, and not from one phone there."""
    senders = {sender for _, sender, _ in guesses}
    tried = {account for _, _, account in guesses}
    swift = abs(guesses[-1][0] - guesses[-SWIFT][0]) < SWIFT_WITHIN
    return len(senders) > 1 and (swift or len(tried) >= MANY_TRIED)


def _is_hurried(guesses: deque[tuple[float, Network, str]]) -> bool:
    """Whether the latest guesses (time, sender, account) came from one sender at one account, very fast."""
    latest = [*islice(reversed(guesses), HURRIED)]
    fast = len(latest) == HURRIED and abs(latest[0][0] - latest[-1][0]) < HURRIED_WITHIN
    return fast and len({(sender, tried) for _, sender, tried in latest}) == 1


def _pruned(account: _Account, now: float) -> OrderedDict[Network, float]:
    """Forget the senders that an account made friends before ``YOUNG_FOR`` seconds ago; return the others."""
    senders = account.senders
    while senders and now - next(iter(senders.values())) >= YOUNG_FOR:
        senders.popitem(last=False)
    return senders
