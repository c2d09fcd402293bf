"""Observed friends: the kernel copies their packets, because Asterisk refuses them again and again.

Of a stranger the kernel copies the whole conversation, so each guess is seen (``conversation``). Of a friend
it copies only the refusals (401, 403, 407), because phones and trunks say much. A phone that works gets a
refusal for each success: the challenge that it answers. So the refusals to a friend are counted, and each
success that AMI reports takes away those with its Call-ID. (chan_sip's names none, and takes one away.) So
the logins of a phone pay for no guess of an attacker at its address. With more than ``MANY`` in ``WITHIN``,
the friend is *observed* for ``OBSERVED_FOR``: the kernel copies its conversation like that of a stranger, and
its guesses are seen.

A *new* friend, where an account has not worked before, is observed for ``NEW_FOR`` from the beginning: an
attacker with one password may log in and hide its guesses at other accounts, also by TLS and where no refusal
is copied.

Nothing else follows from being observed, so it harms no phone. Some phones that work are observed too: PJSIP
challenges the OPTIONS by which a phone keeps its NAT mapping open, and chan_sip reports no success of a
SUBSCRIBE (the lamps of a phone). So the number may be small: at most ``MANY`` guesses a day that Asterisk
does not report remain uncounted. It is not smaller, because a phone that registers, calls and subscribes at
once gets some refusals before the first success.

Bounds: ``MOST_COUNTED`` friends and as many Call-IDs are counted, and ``MOST`` friends observed for each
reason. Those refused longest ago, and those that are new for longest, are discarded first. Times are
monotonic seconds.
"""

from collections import OrderedDict
from collections.abc import Set as AbstractSet
from math import inf

from ringfence.detect.sessions import remember
from ringfence.values.network import Address, Network, sender_of

MANY = 20
WITHIN = 86_400.0
OBSERVED_FOR = 600.0
NEW_FOR = 86_400.0
MOST = 1_024
MOST_COUNTED = 16_384


class Observation:
    """Counts Asterisk's refusals to friends; chooses those whose packets the kernel copies to ringfence."""

    def __init__(self) -> None:
        self._refused: OrderedDict[Address, tuple[float, int]] = OrderedDict()  # since when, and how many
        self._by_session: OrderedDict[tuple[Address, bytes], int] = OrderedDict()
        self._observed: OrderedDict[Address, float] = OrderedDict()  # by friend, its latest refusal
        self._new: OrderedDict[Address, float] = OrderedDict()  # by friend, since when it is new
        self._new_senders: OrderedDict[Network, float] = OrderedDict()  # the same by address or /64

    def on_refusal(self, friend: Address, session: bytes, now: float) -> bool:
        """Record that Asterisk refused a request of ``friend`` with the Call-ID ``session``.

        Return whether the kernel must copy the friend's packets from now on.
        """
        key = friend, session
        remember(self._by_session, key, self._by_session.get(key, 0) + 1, MOST_COUNTED)
        since, number = self._refused.get(friend, (now, 0))
        if now - since >= WITHIN:
            since, number = now, 0
        remember(self._refused, friend, (since, number + 1), MOST_COUNTED)
        if number < MANY:
            return False
        begins = friend not in self.addresses(now)
        remember(self._observed, friend, now, MOST)
        return begins

    def on_success(self, address: Address, session: bytes | None) -> None:
        """Record that AMI reported a login of ``address``: refusals with this Call-ID no longer count.

        They were challenges that the login answered. ``session`` is None if the report names no Call-ID. Then
        one refusal, whatever its Call-ID, counts no more.
        """
        since, number = self._refused.get(address, (0.0, 0))
        answered = 1 if session is None else self._by_session.pop((address, session), 0)
        if number and answered:
            self._refused[address] = since, max(0, number - answered)

    def on_new_friend(self, friend: Address, now: float) -> None:
        """Record that an account works at the address ``friend``, where it did not before."""
        remember(self._new, friend, now, MOST)
        remember(self._new_senders, sender_of(friend), now, MOST)

    def new_near(self, friend: Address, now: float) -> float | None:
        """Return since when another address in the /64 of ``friend`` is a new friend (monotonic seconds).

        Return None if there is none, or if the address itself is known as new.
        """
        since = self._new_senders.get(sender_of(friend), -inf)
        return since if friend not in self._new and now - since < NEW_FOR else None

    def is_new(self, friend: Address, now: float) -> bool:
        """Whether some account began to work at the address ``friend`` within ``NEW_FOR`` seconds."""
        return now - self._new.get(friend, -inf) < NEW_FOR

    def addresses(self, now: float) -> AbstractSet[Address]:
        """Return the friends whose packets the kernel must copy: new ones, and those refused often."""
        for table, seconds in ((self._observed, OBSERVED_FOR), (self._new, NEW_FOR)):
            while table and now - next(iter(table.values())) >= seconds:
                table.popitem(last=False)
        return self._observed.keys() | self._new.keys()
