"""New friends of each account: how many addresses an account may make friends in an hour and in a day.

A right password makes its address a friend. A person with one password and many addresses must not make each
of them a friend: friends have higher limits, no ration and no limiter. So one account makes at most
``MOST_AN_HOUR`` and ``MOST_A_DAY`` new friends. A family that shares an account, with phones that change
between networks, stays below both. The login itself remains valid at Asterisk: the address only stays a
stranger.

What counts is the *sender*: an IPv4 address, or an IPv6 /64. A sender at which the account worked within a
month is not new (``Friends.worked_near``), so phones that come back have no limit.

Bounds: ``MOST`` accounts, of which those that made a friend longest ago are forgotten first. An account needs
a right password to be here. Times are wall-clock seconds, as those of all friends.
"""

from collections import OrderedDict

from ringfence.model import Network

HOUR = 3_600.0
DAY = 86_400.0
MOST_AN_HOUR = 8
MOST_A_DAY = 20
MOST = 4_096

AccountKey = tuple[str, str]
"""The name of an Asterisk, and an account there."""


class NewFriends:
    """The senders that became friends within a day, by the account that made them friends."""

    def __init__(self) -> None:
        self._since: OrderedDict[AccountKey, OrderedDict[Network, float]] = OrderedDict()
        self._refused: dict[AccountKey, None] = {}

    def admits(self, account: AccountKey, sender: Network, now: float) -> bool:
        """Record that ``account`` works at a new sender; return whether it is admitted.

        A sender that was admitted stays so for a day.
        """
        senders = self._senders(account, now)
        if sender in senders:
            return True
        if (
            len(senders) >= MOST_A_DAY
            or sum(now - since < HOUR for since in senders.values()) >= MOST_AN_HOUR
        ):
            if len(self._refused) < MOST:
                self._refused[account] = None
            return False
        senders[sender] = now
        self._since[account] = senders
        self._since.move_to_end(account)
        if len(self._since) > MOST:
            self._since.popitem(last=False)
        return True

    def take_refused(self) -> list[AccountKey]:
        """Return the accounts that made too many friends since the last call, each once."""
        refused, self._refused = self._refused, {}
        return [*refused]

    def _senders(self, account: AccountKey, now: float) -> OrderedDict[Network, float]:
        senders = self._since.get(account, OrderedDict())
        while senders and now - next(iter(senders.values())) >= DAY:
            senders.popitem(last=False)
        return senders
