"""The friends of this PBX: addresses of its phones and trunks, and the accounts that work there.

(A friend is not chan_sip's ``type=friend``.) This module performs no I/O: its caller adds each friend
(:meth:`Friends.add`) and expires them (:meth:`Friends.expire`). A reason that has expired is *former* for a
month: a phone with a wrong password cannot renew it, but is still a broken phone. When all phones fail at
once, former friends count as friends during :attr:`Friends.outage_mode`.

Times are wall-clock seconds, because friends persist across restarts. Bounds: ``MOST`` reasons, and as many
former ones; those seen longest ago are discarded first, and their addresses become strangers.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable
from ipaddress import ip_network
from typing import TypeVar

from attrs import evolve

from ringfence.model import Address, EventKind, Friend, FriendReason, Network, SecurityEvent, Service

MOST = 65_536
MOST_FORMER = 256
"""The number of former addresses of one account: it must not displace all other accounts."""

FORMER_FOR = 30 * 86_400.0
"""How long a former reason is remembered (seconds)."""

AUTHENTICATED_FOR = 7_200.0
"""How long an address is a friend after a login (seconds). Phones register at least once an hour."""

_PREFIX_LENGTHS = {4: (24,), 6: (64, 48)}  # the prefix lengths that :meth:`Friends.any_in` looks up

_T = TypeVar("_T")

Key = tuple[str, Address, str, FriendReason]
"""The identity of a reason: the Asterisk, the address, the account and the kind of reason."""


def key_of(friend: Friend) -> Key:
    """Return the identity of a reason: a renewal has the same one."""
    return friend.asterisk, friend.address, friend.account, friend.reason


def friend_from(event: SecurityEvent) -> Friend | None:
    """Return the friend that a login creates; None if the login verified no password or proves no address.

    PJSIP's nonce is bound to the address that answers it. chan_sip believes a Via ``maddr``, so its success
    proves no address (``channels/chan_sip.c:check_via``). A login at the manager interface is not a phone.
    """
    right = event.kind is EventKind.SUCCESSFUL_AUTH and event.service is Service.PJSIP
    if not right or not event.password or event.tampered or event.forgeable:
        return None
    address, time = event.remote.address, event.time
    return Friend(
        event.source.asterisk,
        address,
        event.account,
        FriendReason.AUTHENTICATED,
        time,
        time,
        time + AUTHENTICATED_FOR,
    )


class Friends:
    """The current reasons of all friends, and former friends."""

    def __init__(self, most: int = MOST) -> None:
        self._outage_mode = False
        self.changes = 0
        """Increases whenever an address becomes a friend or stops being one."""
        self.changed: Address | None = None
        """The address of the last change; None if it affects any address."""
        self._most = most
        self._reasons: OrderedDict[Key, Friend] = OrderedDict()
        self._at: dict[Address, dict[Key, Friend]] = {}
        self._former: OrderedDict[tuple[Address, str], Friend] = OrderedDict()
        self._former_addresses: Counter[Address] = Counter()  # the number of former reasons of each address
        self._former_accounts: Counter[str] = Counter()
        self._accounts: dict[str, dict[Address, int]] = {}
        self._neighbours: Counter[Network] = Counter()
        self._former_neighbours: Counter[Network] = Counter()
        self._next = 0.0

    def __len__(self) -> int:
        """Return the number of addresses that are friends now."""
        return len(self._at)

    @property
    def outage_mode(self) -> bool:
        """Whether former friends count as friends, because no phone can log in now."""
        return self._outage_mode

    @outage_mode.setter
    def outage_mode(self, outage_mode: bool) -> None:
        self._outage_mode = outage_mode
        self._change(None)

    def add(self, friend: Friend) -> bool:
        """Add or renew a reason; return whether it is new. A renewal keeps the first ``since``."""
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
            addresses = self._accounts.setdefault(friend.account, {})
            addresses[friend.address] = addresses.get(friend.address, 0) + 1
        self._next = min(self._next, friend.until)
        if len(self._reasons) > self._most:
            self._drop(next(iter(self._reasons)))
        return known is None

    def remove(self, key: Key, now: float) -> Friend | None:
        """Remove a reason; return it if it existed."""
        friend = self._reasons.get(key)
        if friend is not None:
            self._drop(key)
            self._remember(friend, now)
        return friend

    def expire(self, now: float) -> list[Friend]:
        """Remove and return the reasons that have expired."""
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
        """Add a former reason, from before this process began."""
        self._remember(friend, friend.until)

    def has(self, address: Address) -> bool:
        """Whether ``address`` is a friend."""
        return address in self._at or (self.outage_mode and address in self._former_addresses)

    def is_proven(self, address: Address) -> bool:
        """Whether ``address`` is a friend by a proven reason. Former reasons count as proven."""
        at = self._at.get(address)
        if at is None:
            return self.outage_mode and address in self._former_addresses
        return any(friend.proven for friend in at.values())

    def works_at(self, account: str, address: Address) -> bool:
        """Whether ``account`` is known to work at ``address``."""
        return address in self._accounts.get(account, ())

    def worked_at(self, account: str, address: Address) -> bool:
        """Whether ``account`` works at ``address``, or did within a month."""
        if account in self._accounts and self.works_at(account, address):
            return True
        return account in self._former_accounts and (address, account) in self._former

    def knows_account(self, account: str) -> bool:
        """Whether ``account`` works at any address, or did within a month."""
        return account in self._accounts or account in self._former_accounts

    def reasons(self, address: Address) -> tuple[Friend, ...]:
        """Return the reasons why ``address`` is a friend, or an empty tuple."""
        return tuple(self._at.get(address, {}).values())

    @property
    def known_accounts(self) -> int:
        """The number of accounts that work, or worked within a month, at any address."""
        return len(self._accounts) + len(self._former_accounts)

    @property
    def accounts(self) -> int:
        """The number of accounts that work at any address."""
        return len(self._accounts)

    def any_in(self, network: Network) -> bool:
        """Whether ``network`` contains a friend, or would in outage mode."""
        if network.prefixlen == network.max_prefixlen:
            return self.has(network.network_address)
        if network.prefixlen in _PREFIX_LENGTHS[network.version]:
            return network in self._neighbours or (self.outage_mode and network in self._former_neighbours)
        bits = network.max_prefixlen - network.prefixlen
        prefix = int(network.network_address) >> bits
        return any(int(address) >> bits == prefix for address in self.addresses(network.version))

    def addresses(self, version: int | None = None) -> Iterable[Address]:
        """Return the addresses that are friends now, of one IP version or of both."""
        found = [*self._at, *(self._former_addresses if self.outage_mode else ())]
        return [address for address in found if version is None or address.version == version]

    def all(self) -> tuple[Friend, ...]:
        """Return all reasons, those seen longest ago first."""
        return tuple(self._reasons.values())

    def former(self) -> tuple[Friend, ...]:
        """Return the latest former reason of each address and account, with its end."""
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
        addresses = self._accounts[friend.account]
        addresses[friend.address] -= 1
        if not addresses[friend.address]:
            del addresses[friend.address]
        if not addresses:
            del self._accounts[friend.account]

    def _remember(self, friend: Friend, until: float) -> None:
        key = friend.address, friend.account
        if key in self._former:
            self._forget_former(key)
        elif self._former_accounts[friend.account] >= MOST_FORMER:
            return
        self._former[key] = evolve(friend, until=until)
        self._former_addresses[friend.address] += 1
        self._former_neighbours.update(_around(friend.address))
        self._former_accounts[friend.account] += 1
        if len(self._former) > self._most:
            self._forget_former(next(iter(self._former)))

    def _forget_former(self, key: tuple[Address, str]) -> None:
        del self._former[key]
        _count_down(self._former_addresses, key[0])
        for network in _around(key[0]):
            _count_down(self._former_neighbours, network)
        _count_down(self._former_accounts, key[1])


def _count_down(counter: Counter[_T], what: _T) -> None:
    counter[what] -= 1
    if not counter[what]:
        del counter[what]


def _around(address: Address) -> list[Network]:
    return [ip_network((address, length), strict=False) for length in _PREFIX_LENGTHS[address.version]]
