"""Observed friends: the kernel copies their packets, because Asterisk refuses them again and again.

Of a stranger the kernel copies the whole conversation, so each guess is seen (``conversation``). Of a friend
it copies only the refusals (401, 403, 407), because phones and trunks say much. A phone that works gets a
refusal for each success: the challenge that it answers. So the refusals to a friend are counted, and each
success that AMI reports takes away those with its Call-ID. (chan_sip's names none, and takes one away.) So
the logins of a phone pay for no guess of an attacker at its address. With more than ``MANY`` in ``WITHIN``,
the friend is *observed* for ``OBSERVED_FOR``: the kernel copies its conversation like that of a stranger, and
its guesses are seen.

A *new* friend, where an account has not worked before, is observed for ``NEW_FOR`` from the beginning
(:class:`FirstDay`): an attacker with one password may log in and hide its guesses at other accounts, also by
TLS and where no refusal is copied. So are the other addresses of a /64 that the account makes friends
meanwhile, by a login or a contact. A contact is what its sender writes: several in one REGISTER if
``max_contacts`` permits it, and any number one after the other if a new one replaces the last.

Nothing else follows from being observed, so it harms no phone. Some phones that work are observed too: PJSIP
challenges the OPTIONS by which a phone keeps its NAT mapping open, and chan_sip reports no success of a
SUBSCRIBE (the lamps of a phone). So the number may be small: at most ``MANY`` guesses a day that Asterisk
does not report remain uncounted. It is not smaller, because a phone that registers, calls and subscribes at
once gets some refusals before the first success.

Bounds: ``MOST_COUNTED`` friends and as many Call-IDs are counted, and ``MOST`` friends observed for each
reason. Those refused longest ago, and those that are new for longest, are discarded first. A new account
makes at most ``MOST_TOGETHER`` friends in a /64, so that all of them are observed. Times are monotonic
seconds, but those of the first day are wall-clock seconds, as those of all friends.
"""

from collections import Counter, OrderedDict
from collections.abc import Set as AbstractSet

from attrs import define

from ringfence.detect.sessions import remember
from ringfence.values.network import Address, Network

MANY = 20
WITHIN = 86_400.0
OBSERVED_FOR = 600.0
NEW_FOR = 86_400.0
MOST = 1_024
MOST_TOGETHER = 64
MOST_COUNTED = 16_384


class Observation:
    """Counts Asterisk's refusals to friends: the kernel copies the packets of those that get many."""

    def __init__(self) -> None:
        self._refused: OrderedDict[Address, tuple[float, int]] = OrderedDict()  # since when, and how many
        self._by_session: OrderedDict[tuple[Address, bytes], int] = OrderedDict()
        self._observed: OrderedDict[Address, float] = OrderedDict()  # by friend, its latest refusal

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

    def addresses(self, now: float) -> AbstractSet[Address]:
        """Return the friends that were refused often, and lately."""
        while self._observed and now - next(iter(self._observed.values())) >= OBSERVED_FOR:
            self._observed.popitem(last=False)
        return self._observed.keys()


@define
class _New:
    """Since when an account is new at an IPv4 address or /64 (epoch seconds), and its addresses there."""

    since: float
    addresses: list[Address]


class FirstDay:
    """The friends where some account began to work within ``NEW_FOR`` seconds."""

    def __init__(self) -> None:
        self._new: OrderedDict[tuple[str, Network], _New] = OrderedDict()  # by account, and address or /64
        self._accounts: Counter[Address] = Counter()  # by address, how many accounts are new there

    @property
    def addresses(self) -> AbstractSet[Address]:
        """The addresses of these friends, until :meth:`expire` ends their first day."""
        return self._accounts.keys()

    def begin(self, account: str, sender: Network, address: Address, since: float) -> None:
        """Record that ``account`` works at ``address`` since ``since``, and nowhere else in ``sender``."""
        key = account, sender
        self._forget(key)
        self._new[key] = _New(since, [address])
        self._accounts[address] += 1
        if len(self._new) > MOST:
            self._forget(next(iter(self._new)))

    def admits(self, account: str, sender: Network, address: Address) -> bool:
        """Record that ``account`` works at ``address`` too, in ``sender``, where it has worked before.

        Return False if the account is new there and has no room for another address.
        """
        new = self._new.get((account, sender))
        if new is None or address in new.addresses:
            return True
        if len(new.addresses) >= MOST_TOGETHER:
            return False
        new.addresses.append(address)
        self._accounts[address] += 1
        return True

    def move(self, seconds: float) -> None:
        """Add ``seconds`` to all times, because the wall clock was set by as much."""
        for new in self._new.values():
            new.since += seconds

    def expire(self, now: float) -> None:
        """Forget those whose first day is over at ``now`` (epoch), in any order: Asterisks' clocks differ."""
        for key in [key for key, new in self._new.items() if now - new.since >= NEW_FOR]:
            self._forget(key)

    def _forget(self, key: tuple[str, Network]) -> None:
        """Forget that an account is new at a sender, if it is known."""
        if key in self._new:
            for address in self._new.pop(key).addresses:
                self._accounts[address] -= 1
                if not self._accounts[address]:
                    del self._accounts[address]
