"""The friends of this PBX: addresses where its phones are, or its trunks, and which accounts work there.

Pure: whoever keeps them tells of each (:meth:`Friends.meet`), and lets time pass (:meth:`Friends.expire`).
An address that was a friend is remembered as *former*: when every phone fails at once, nobody can renew a
friendship, and former friends are spared too as long as :attr:`Friends.braked`.

Times are wall-clock seconds, since friends outlast restarts. Bounds: ``MOST`` reasons, those seen longest ago
go first; who is forgotten is a stranger.
"""

from collections import OrderedDict
from collections.abc import Iterable
from ipaddress import ip_network

from attrs import evolve

from ringfence.model import Address, Friend, Network, Tie

MOST = 65_536
FORMER_FOR = 30 * 86_400.0
"""So long (seconds) after the last reason is over, an address is remembered as a former friend."""

_HOST_BITS = {4: 8, 6: 64}  # what a network of a ban may be narrowed to, for a quick look

Key = tuple[str, Address, str, Tie]
"""What makes a reason one: the Asterisk, the address, the account and the tie."""


def key_of(friend: Friend) -> Key:
    """Give what makes two tellings the same reason."""
    return friend.asterisk, friend.address, friend.account, friend.tie


class Friends:
    """Every reason that was told and is not over, and who was a friend before."""

    def __init__(self, most: int = MOST) -> None:
        self.braked = False
        """Whether former friends count as friends, since no phone can log in now."""
        self.changes = 0
        """Grows whenever an address becomes a friend, or is none any more."""
        self._most = most
        self._reasons: OrderedDict[Key, Friend] = OrderedDict()
        self._at: dict[Address, dict[Key, Friend]] = {}
        self._former: OrderedDict[Address, float] = OrderedDict()
        self._accounts: dict[str, dict[Address, int]] = {}
        self._next = 0.0

    def __len__(self) -> int:
        """How many addresses are friends now."""
        return len(self._at)

    def meet(self, friend: Friend) -> bool:
        """Take a reason, or renew it; say whether it is a new one. The first ``since`` stays."""
        key = key_of(friend)
        known = self._reasons.pop(key, None)
        if known is not None:
            friend = evolve(friend, since=known.since, until=max(known.until, friend.until))
        self._reasons[key] = friend
        at = self._at.get(friend.address)
        if at is None:
            at = self._at[friend.address] = {}
            self._former.pop(friend.address, None)
            self.changes += 1
        at[key] = friend
        if known is None:
            places = self._accounts.setdefault(friend.account, {})
            places[friend.address] = places.get(friend.address, 0) + 1
        self._next = min(self._next, friend.until)
        if len(self._reasons) > self._most:
            self._drop(next(iter(self._reasons)))
        return known is None

    def part(self, key: Key, now: float) -> Friend | None:
        """Take a reason back; give it, where it was there."""
        friend = self._reasons.get(key)
        if friend is not None:
            self._drop(key)
            self._remember(friend.address, now)
        return friend

    def expire(self, now: float) -> list[Friend]:
        """Let go of the reasons whose time is over, and give them."""
        if now < self._next:
            return []
        over = [friend for friend in self._reasons.values() if friend.until <= now]
        for friend in over:
            self._drop(key_of(friend))
            self._remember(friend.address, friend.until)
        self._next = min((friend.until for friend in self._reasons.values()), default=now)
        while self._former and now - next(iter(self._former.values())) >= FORMER_FOR:
            self._former.popitem(last=False)
        return over

    def remember(self, address: Address, until: float) -> None:
        """Take that ``address`` was a friend until then, before this process began."""
        self._remember(address, until)

    def has(self, address: Address) -> bool:
        """Say whether ``address`` is a friend."""
        return address in self._at or (self.braked and address in self._former)

    def is_proven(self, address: Address) -> bool:
        """Say whether it is one by more than a phone's word. Former friends were."""
        at = self._at.get(address)
        if at is None:
            return self.braked and address in self._former
        return any(friend.proven for friend in at.values())

    def works_at(self, account: str, address: Address) -> bool:
        """Say whether ``account`` works at ``address``, as far as is known."""
        return address in self._accounts.get(account, ())

    def knows(self, account: str) -> bool:
        """Say whether ``account`` works anywhere."""
        return account in self._accounts

    def reasons(self, address: Address) -> tuple[Friend, ...]:
        """Give why ``address`` is a friend; nothing where it is none."""
        return tuple(self._at.get(address, {}).values())

    def former_until(self, address: Address) -> float | None:
        """Give until when ``address`` was a friend, if it was one."""
        return self._former.get(address)

    def live_in(self, network: Network) -> bool:
        """Say whether a friend lives in ``network``, or would while braked."""
        if network.prefixlen == network.max_prefixlen:
            return self.has(network.network_address)
        return any(ip_network(address).subnet_of(network) for address in self.addresses(network.version))  # type: ignore[arg-type]

    def addresses(self, version: int | None = None) -> Iterable[Address]:
        """Give every address that is a friend now, of one IP version or of both."""
        found = [*self._at, *(self._former if self.braked else ())]
        return [address for address in found if version is None or address.version == version]

    def all(self) -> tuple[Friend, ...]:
        """Give every reason, those seen longest ago first."""
        return tuple(self._reasons.values())

    def former(self) -> dict[Address, float]:
        """Give who was a friend, and until when."""
        return dict(self._former)

    def _drop(self, key: Key) -> None:
        friend = self._reasons.pop(key)
        at = self._at[friend.address]
        del at[key]
        if not at:
            del self._at[friend.address]
            self.changes += 1
        places = self._accounts[friend.account]
        places[friend.address] -= 1
        if not places[friend.address]:
            del places[friend.address]
        if not places:
            del self._accounts[friend.account]

    def _remember(self, address: Address, until: float) -> None:
        if address in self._at:
            return
        self._former[address] = until
        self._former.move_to_end(address)
        if len(self._former) > self._most:
            self._former.popitem(last=False)
