"""The friends of this PBX: addresses where its phones are, or its trunks, and which accounts work there.

Pure: whoever keeps them tells of each (:meth:`Friends.meet`), and lets time pass (:meth:`Friends.expire`).
A reason that is over is remembered as *former* for a month: a phone whose password is wrong cannot renew it,
and is a broken phone all the same; and when every phone fails at once, all former friends are spared as long
as :attr:`Friends.braked`.

Times are wall-clock seconds, since friends outlast restarts. Bounds: ``MOST`` reasons, and as many former
ones: those seen longest ago go first; who is forgotten is a stranger.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable
from ipaddress import ip_network
from typing import TypeVar

from attrs import evolve

from ringfence.model import Address, EventKind, Friend, Network, SecurityEvent, Service, Tie

MOST = 65_536
MOST_LEFT = 256
"""So many addresses are remembered where one account was: it must not push out everybody else's."""

FORMER_FOR = 30 * 86_400.0
"""So long (seconds) after a reason is over it is remembered."""

AUTHENTICATED_FOR = 7_200.0
"""For so long (seconds) a right password makes a friend; phones register at least once an hour."""

_ASKED = {4: (24,), 6: (64, 48)}  # the lengths of prefix for which it is asked who lives there

_T = TypeVar("_T")

Key = tuple[str, Address, str, Tie]
"""What makes a reason one: the Asterisk, the address, the account and the tie."""


def key_of(friend: Friend) -> Key:
    """Give what makes two tellings the same reason."""
    return friend.asterisk, friend.address, friend.account, friend.tie


def friend_from(event: SecurityEvent) -> Friend | None:
    """Give the friend that a security event makes: a right password, from an address that is proven by it.

    PJSIP's nonce is bound to the address that answers it. chan_sip believes a Via ``maddr``, so its success
    proves no address (``channels/chan_sip.c:check_via``); a manager's login makes no phone.
    """
    right = event.kind is EventKind.SUCCESSFUL_AUTH and event.service is Service.PJSIP
    if not right or not event.password or event.tampered or event.hearsay:
        return None
    address, time = event.remote.address, event.time
    return Friend(
        event.source.asterisk, address, event.account, Tie.AUTHENTICATED, time, time, time + AUTHENTICATED_FOR
    )


class Friends:
    """Every reason that was told and is not over, and who was a friend before."""

    def __init__(self, most: int = MOST) -> None:
        self._braked = False
        self.changes = 0
        """Grows whenever an address becomes a friend, or is none any more."""
        self.changed: Address | None = None
        """Whose change was the last one; None where it may be anybody's."""
        self._most = most
        self._reasons: OrderedDict[Key, Friend] = OrderedDict()
        self._at: dict[Address, dict[Key, Friend]] = {}
        self._former: OrderedDict[tuple[Address, str], Friend] = OrderedDict()
        self._left: Counter[Address] = Counter()  # how often each address is among the former
        self._left_accounts: Counter[str] = Counter()
        self._accounts: dict[str, dict[Address, int]] = {}
        self._neighbours: Counter[Network] = Counter()
        self._former_neighbours: Counter[Network] = Counter()
        self._next = 0.0

    def __len__(self) -> int:
        """How many addresses are friends now."""
        return len(self._at)

    @property
    def braked(self) -> bool:
        """Whether former friends count as friends, since no phone can log in now."""
        return self._braked

    @braked.setter
    def braked(self, braked: bool) -> None:
        self._braked = braked
        self._change(None)

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
            self._neighbours.update(_around(friend.address))
            self._change(friend.address)
        elif known is None:
            self._change(friend.address)
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
            self._remember(friend, now)
        return friend

    def expire(self, now: float) -> list[Friend]:
        """Let go of the reasons whose time is over, and give them."""
        if now < self._next:
            return []
        over = [friend for friend in self._reasons.values() if friend.until <= now]
        for friend in over:
            self._drop(key_of(friend))
            self._remember(friend, friend.until)
        self._next = min((friend.until for friend in self._reasons.values()), default=now)
        while self._former and now - next(iter(self._former.values())).until >= FORMER_FOR:
            self._forget_former(next(iter(self._former)))
        return over

    def remember(self, friend: Friend) -> None:
        """Take a reason that was over before this process began."""
        self._remember(friend, friend.until)

    def has(self, address: Address) -> bool:
        """Say whether ``address`` is a friend."""
        return address in self._at or (self.braked and address in self._left)

    def is_proven(self, address: Address) -> bool:
        """Say whether it is one by more than a phone's word. Former friends were."""
        at = self._at.get(address)
        if at is None:
            return self.braked and address in self._left
        return any(friend.proven for friend in at.values())

    def works_at(self, account: str, address: Address) -> bool:
        """Say whether ``account`` works at ``address``, as far as is known."""
        return address in self._accounts.get(account, ())

    def worked_at(self, account: str, address: Address) -> bool:
        """Say whether ``account`` works at ``address``, or did within a month."""
        if account in self._accounts and self.works_at(account, address):
            return True
        return account in self._left_accounts and (address, account) in self._former

    def knew(self, account: str) -> bool:
        """Say whether ``account`` works anywhere, or did within a month."""
        return account in self._accounts or account in self._left_accounts

    def reasons(self, address: Address) -> tuple[Friend, ...]:
        """Give why ``address`` is a friend; nothing where it is none."""
        return tuple(self._at.get(address, {}).values())

    @property
    def accounts(self) -> int:
        """How many accounts work anywhere."""
        return len(self._accounts)

    def live_in(self, network: Network) -> bool:
        """Say whether a friend lives in ``network``, or would while braked."""
        if network.prefixlen == network.max_prefixlen:
            return self.has(network.network_address)
        if network.prefixlen in _ASKED[network.version]:
            return network in self._neighbours or (self.braked and network in self._former_neighbours)
        bits = network.max_prefixlen - network.prefixlen
        prefix = int(network.network_address) >> bits
        return any(int(address) >> bits == prefix for address in self.addresses(network.version))

    def addresses(self, version: int | None = None) -> Iterable[Address]:
        """Give every address that is a friend now, of one IP version or of both."""
        found = [*self._at, *(self._left if self.braked else ())]
        return [address for address in found if version is None or address.version == version]

    def all(self) -> tuple[Friend, ...]:
        """Give every reason, those seen longest ago first."""
        return tuple(self._reasons.values())

    def former(self) -> tuple[Friend, ...]:
        """Give the reasons that are over, each until when it held; of an address and account the last one."""
        return tuple(self._former.values())

    def _change(self, address: Address | None) -> None:
        self.changes += 1
        self.changed = address

    def _drop(self, key: Key) -> None:
        friend = self._reasons.pop(key)
        at = self._at[friend.address]
        del at[key]
        if not at:
            del self._at[friend.address]
            for network in _around(friend.address):
                _count_down(self._neighbours, network)
        self._change(friend.address)
        places = self._accounts[friend.account]
        places[friend.address] -= 1
        if not places[friend.address]:
            del places[friend.address]
        if not places:
            del self._accounts[friend.account]

    def _remember(self, friend: Friend, until: float) -> None:
        key = friend.address, friend.account
        if key in self._former:
            self._forget_former(key)
        elif self._left_accounts[friend.account] >= MOST_LEFT:
            return
        self._former[key] = evolve(friend, until=until)
        self._left[friend.address] += 1
        self._former_neighbours.update(_around(friend.address))
        self._left_accounts[friend.account] += 1
        if len(self._former) > self._most:
            self._forget_former(next(iter(self._former)))

    def _forget_former(self, key: tuple[Address, str]) -> None:
        del self._former[key]
        _count_down(self._left, key[0])
        for network in _around(key[0]):
            _count_down(self._former_neighbours, network)
        _count_down(self._left_accounts, key[1])


def _count_down(counter: Counter[_T], what: _T) -> None:
    counter[what] -= 1
    if not counter[what]:
        del counter[what]


def _around(address: Address) -> list[Network]:
    return [ip_network((address, length), strict=False) for length in _ASKED[address.version]]
