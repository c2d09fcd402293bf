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
is copied. So are the other addresses of a /64 at which the account logs in meanwhile.

Nothing else follows from being observed, so it harms no phone. Some phones that work are observed too: PJSIP
challenges the OPTIONS by which a phone keeps its NAT mapping open, and chan_sip reports no success of a
SUBSCRIBE (the lamps of a phone). So the number may be small: at most ``MANY`` guesses a day that Asterisk
does not report remain uncounted. It is not smaller, because a phone that registers, calls and subscribes at
once gets some refusals before the first success.

Bounds: ``MOST_COUNTED`` friends and as many Call-IDs are counted, and ``MOST`` friends observed for each
reason. Those refused longest ago, and those that are new for longest, are discarded first. The logins of a
new account make at most ``MOST_TOGETHER`` friends in a /64, so that all of them are observed. Times are
monotonic seconds.
"""

from collections import Counter, OrderedDict
from collections.abc import Set as AbstractSet

from attrs import define

from ringfence.detect.sessions import remember
from ringfence.values.network import Address, Network, sender_of

MANY = 20
WITHIN = 86_400.0
OBSERVED_FOR = 600.0
NEW_FOR = 86_400.0
MOST = 1_024
MOST_TOGETHER = 64
MOST_COUNTED = 16_384


@define
class _New:
    """Since when an account is new at an IPv4 address or /64 (monotonic seconds), and its addresses there."""

    since: float
    addresses: list[Address]


class Observation:
    """Counts Asterisk's refusals to friends; chooses those whose packets the kernel copies to ringfence."""

    def __init__(self) -> None:
        self._refused: OrderedDict[Address, tuple[float, int]] = OrderedDict()  # since when, and how many
        self._by_session: OrderedDict[tuple[Address, bytes], int] = OrderedDict()
        self._observed: OrderedDict[Address, float] = OrderedDict()  # by friend, its latest refusal
        # By account, and IPv4 address or /64: where the account is new. By address: how many accounts are.
        self._new: OrderedDict[tuple[str, Network], _New] = OrderedDict()
        self._new_at: Counter[Address] = Counter()

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

    def has_room(self, account: str, friend: Address, now: float) -> bool:
        """Whether a login of ``account`` at the address ``friend`` could be observed, if it is new there."""
        self._expire(now)
        new = self._new.get((account, sender_of(friend)))
        return new is None or friend in new.addresses or len(new.addresses) < MOST_TOGETHER

    def on_new_friend(self, account: str, friend: Address, now: float) -> None:
        """Record that ``account`` works at the address ``friend``, and has not worked in its /64 before."""
        key = account, sender_of(friend)
        self._forget(key)
        self._new[key] = _New(now, [friend])
        self._new_at[friend] += 1
        if len(self._new) > MOST:
            self._forget(next(iter(self._new)))

    def on_login(self, account: str, friend: Address, now: float) -> bool:
        """Record that ``account`` works at the address ``friend``, in whose /64 it has worked before.

        Return whether the address is a new friend too, because the account is new in this /64.
        """
        room = self.has_room(account, friend, now)
        new = self._new.get((account, sender_of(friend)))
        if not room or new is None or friend in new.addresses:
            return False
        new.addresses.append(friend)
        self._new_at[friend] += 1
        return True

    def is_new(self, friend: Address, now: float) -> bool:
        """Whether some account began to work at the address ``friend`` within ``NEW_FOR`` seconds."""
        self._expire(now)
        return friend in self._new_at

    def addresses(self, now: float) -> AbstractSet[Address]:
        """Return the friends whose packets the kernel must copy: new ones, and those refused often."""
        self._expire(now)
        return self._observed.keys() | self._new_at.keys()

    def _expire(self, now: float) -> None:
        while self._observed and now - next(iter(self._observed.values())) >= OBSERVED_FOR:
            self._observed.popitem(last=False)
        while self._new and now - next(iter(self._new.values())).since >= NEW_FOR:
            self._forget(next(iter(self._new)))

    def _forget(self, key: tuple[str, Network]) -> None:
        """Forget that an account is new at a sender, if it is known."""
        if key in self._new:
            for address in self._new.pop(key).addresses:
                self._leave(address)

    def _leave(self, address: Address) -> None:
        self._new_at[address] -= 1
        if not self._new_at[address]:
            del self._new_at[address]
