"""The friends of this PBX: addresses of its phones and trunks, and the accounts that work there.

(A friend is not chan_sip's ``type=friend``.) An address may have several *reasons* to be a friend, such as a
login and a contact. Each :class:`~ringfence.values.friend.Friend` object is one reason. This module performs
no I/O: its caller adds the reasons (:meth:`Friends.add`) and expires them (:meth:`Friends.expire`). A reason
that has expired is *former* for a month: a phone with a wrong password cannot renew it, but is still a broken
phone. When all phones fail at once, former friends count as friends (:attr:`Friends.outage_mode`).

A login or a contact makes a friend only if :meth:`Friends.admit` returns true. One account may make only some
new friends (``new_friends``), and the kernel must copy their packets on their first day (``observation``).

Times are wall-clock seconds, because friends persist across restarts. Bounds: ``MOST`` reasons, and as many
former ones; those seen longest ago are discarded first, and their addresses become strangers.
"""

from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Iterator
from ipaddress import ip_network
from itertools import islice
from operator import attrgetter
from typing import Generic, TypeVar

from ringfence.detect.new_friends import GUILTY_FOR, MOST_STOLEN, YOUNG_FOR, AccountKey, NewFriends
from ringfence.detect.observation import FirstDay
from ringfence.detect.rules import DAY
from ringfence.detect.sessions import remember
from ringfence.values.event import EventKind, SecurityEvent, Service, short_account
from ringfence.values.fast import evolve
from ringfence.values.friend import Friend, FriendReason
from ringfence.values.network import (
    Address,
    Network,
    is_one_host,
    is_single,
    prefix_of,
    sender_key,
    sender_of,
)

MOST = 65_536
MOST_FORMER = 256
"""The maximum number of former addresses of one account, so that it cannot displace those of others."""

FORMER_FOR = 30 * DAY
"""How long an address is remembered after it has ceased to be a friend (seconds)."""

AUTHENTICATED_FOR = 7_200.0
"""How long an address is a friend after a login (seconds). Phones register at least once an hour."""

_NOT_LEARNED = (FriendReason.TRUNK, FriendReason.IMPORTED)
_PREFIX_LENGTHS = {
    4: (24,),
    6: (64, 60, 56, 52, 48),
}  # the prefix lengths that :meth:`_Table.any_in` looks up

_T = TypeVar("_T")
_K = TypeVar("_K")

Key = tuple[str, Address, str, FriendReason]
"""The identity of a reason: the Asterisk, the address, the account and the kind of reason."""


def identity_of(friend: Friend) -> Key:
    """Return the key of a reason to be a friend. It stays the same when the reason is renewed."""
    return friend.asterisk, friend.address, friend.account, friend.reason


def account_of(friend: Friend) -> AccountKey:
    """Return the Asterisk, and the account there, by which an address is a friend."""
    return friend.asterisk, short_account(friend.account)


def friend_from(event: SecurityEvent, *, seen: bool = False) -> Friend | None:
    """Return the friend that a login of a phone creates; None for any other event.

    Return None also for a login that verified no password, or whose event may be forged. PJSIP's nonce is
    bound to the address that answers it. chan_sip believes a Via ``maddr``, so a success there proves no
    address (``channels/chan_sip.c:check_via``), unless the kernel has copied this registration (``seen``). A
    login at the manager interface comes from no phone.
    """
    phone = event.service is Service.PJSIP or (seen and event.service is Service.SIP)
    right = event.kind is EventKind.SUCCESSFUL_AUTH and phone
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


class _Table(Generic[_K]):
    """A table of reasons why addresses are friends, the latest last; found by key, address or account.

    ``senders`` has by account the number of reasons for each sender (an address or /64). Tables share it.
    """

    def __init__(self, senders: dict[str, Counter[Network]]) -> None:
        self.entries: OrderedDict[_K, Friend] = OrderedDict()
        self.at: dict[Address, dict[_K, Friend]] = {}
        self.accounts: dict[str, Counter[Address]] = {}  # by account, the number of entries for each address
        self._senders = senders
        self._networks: Counter[Network] = Counter()

    def put(self, key: _K, friend: Friend) -> None:
        """Store ``friend`` at the end of the table; replace the one under the same key."""
        known = self.entries.pop(key, None)
        self.entries[key] = friend
        if friend.address not in self.at:
            self._networks.update(_around(friend.address))
        self.at.setdefault(friend.address, {})[key] = friend
        if known is None:
            account = short_account(friend.account)
            self.accounts.setdefault(account, Counter())[friend.address] += 1
            self._senders.setdefault(account, Counter())[sender_of(friend.address)] += 1

    def drop(self, key: _K) -> Friend:
        """Remove and return the friend under ``key``; raise KeyError if there is none."""
        friend = self.entries.pop(key)
        address, account = friend.address, short_account(friend.account)
        del self.at[address][key]
        if not self.at[address]:
            del self.at[address]
            for network in _around(address):
                _count_down(self._networks, network)
        _count_down(self.accounts[account], address)
        _count_down(self._senders[account], sender_of(address))
        for table in (self.accounts, self._senders):
            if not table[account]:
                del table[account]
        return friend

    def move(self, seconds: float) -> None:
        """Add ``seconds`` to all times."""
        for reasons in self.at.values():
            for key, friend in reasons.items():
                reasons[key] = self.entries[key] = friend.moved(seconds)

    def of_account(self, account: str) -> tuple[Friend, ...]:
        """Return the reasons why addresses are friends that name ``account``."""
        addresses = self.accounts.get(short_account(account), ())
        here = (friend for address in addresses for friend in self.at[address].values())
        return tuple(friend for friend in here if friend.account == account)

    def any_in(self, network: Network) -> bool:
        """Whether a friend is in ``network``."""
        if is_single(network):
            return network.network_address in self.at
        if network.prefixlen in _PREFIX_LENGTHS[network.version]:
            return network in self._networks
        return any(address.version == network.version and address in network for address in self.at)


class Friends:
    """The reasons why addresses are friends (known phones and trunks) now, and those of the last month.

    It has more than twenty methods because all parts of ringfence look up friends, each by another key.
    """

    def __init__(self, most: int = MOST) -> None:
        self.outage_mode = False
        """Whether former friends count as friends, because no phone can log in now."""
        self.changes = 0
        """How often a reason to be a friend began, ended or was forgotten, or outage mode was set."""
        self.barred: OrderedDict[tuple[AccountKey, Network], None] = OrderedDict()
        """The accounts that make no friends in a prefix, because somebody else may have their password."""
        self.new = NewFriends()
        """The addresses that became friends lately, by account."""
        self.first_day = FirstDay()
        """The friends whose packets the kernel copies, because some account is new there."""
        self._most = most
        self.worked: dict[str, Counter[Network]] = {}
        """By account, the senders (addresses or /64s) where it works, or did within a month."""
        self._current: _Table[Key] = _Table(self.worked)
        self._former: _Table[tuple[Address, str]] = _Table(self.worked)
        self._next = 0.0

    def __len__(self) -> int:
        """Return the number of addresses that are friends now."""
        return len(self._current.at)

    def set_outage_mode(self, *, on: bool) -> None:
        """Switch outage mode on or off: in outage mode, former friends count as friends."""
        self.outage_mode = on
        self.changes += 1

    def admit(self, friend: Friend) -> bool:
        """Record a login or contact; return whether it may make its address a friend.

        It may if the account worked there before, or has made few new friends, and is not :attr:`barred`
        there. On its first day in a /64, it may only make as many friends there as can be observed. Trunks
        and imported friends come from the configuration, and have no limit.
        """
        if friend.reason in _NOT_LEARNED:
            return True
        if self.barred and (account_of(friend), prefix_of(friend.address)) in self.barred:
            return False
        account, sender = account_of(friend), sender_of(friend.address)
        known = self.worked_near(friend.account, friend.address)
        if not self.new.admit(account, sender, friend.seen, known=known):
            return False
        if known:
            return self.first_day.admit(account[1], sender, friend.address)
        self.first_day.begin(account[1], sender, friend.address, friend.seen)
        return True

    def accounts_at(self, address: Address) -> set[AccountKey]:
        """Return the accounts that made ``address`` a friend by a login or a contact."""
        return {account_of(one) for one in self.reasons(address) if one.reason not in _NOT_LEARNED}

    def is_office(self, address: Address) -> bool:
        """Whether more than ``MOST_STOLEN`` accounts made ``address`` a friend.

        A name counts once, because one password may be valid at several Asterisks.
        """
        return len({name for _, name in self.accounts_at(address)}) > MOST_STOLEN

    def settled_at(self, address: Address) -> set[str]:
        """Return the accounts of ``address`` whose logins are those of its phones, and not of an attacker.

        They have worked there for more than a day. Of an office (:meth:`is_office`), all accounts are
        returned: its address may change each day. So an attacker with four passwords, or with one at the
        address of an office, need not wait for a day until ``unexplained`` no longer counts its requests.
        """
        names, sender = {name for _, name in self.accounts_at(address)}, sender_of(address)
        if self.is_office(address):
            return names
        return {name for name in names if not self.first_day.is_new(name, sender)}

    def all_settled(self, address: Address, logins: Collection[str | None]) -> bool:
        """Whether all ``logins`` on a connection are of accounts that have settled at ``address``.

        Then it is one of a phone. An unseen login (None) may be of any of these accounts, if there are some.
        """
        if not logins:
            return False
        settled = self.settled_at(address)
        return bool(settled) and all(account is None or account in settled for account in logins)

    def estrange(self, account: AccountKey, now: float) -> Iterator[tuple[Friend, ...]]:
        """Hold ``account`` responsible for guesses: end each friendship that it has made lately.

        A friend stays one if another account made it too, and that account is not guilty. Yield the reasons
        of each friend that ends. They are former reasons from ``now`` (epoch) on.
        """
        for sender in self.new.convict(account, now):
            mine = self._current.accounts.get(account[1], ())
            for address in [one for one in mine if sender_of(one) == sender]:
                reasons = self.reasons(address)
                if all(self.new.is_guilty(account_of(one), now) for one in reasons):
                    self.new.taint(sender, now + GUILTY_FOR)
                    for one in reasons:
                        self.remove(identity_of(one), now)
                    yield reasons

    def bar(self, account: AccountKey, prefix: Network) -> list[Friend]:
        """Let ``account`` make no friends in ``prefix``; forget and return the reasons that it made there.

        These are the current reasons, which end, and the former ones.
        """
        remember(self.barred, (account, prefix), None, self._most)

        def is_meant(one: Friend) -> bool:
            learned = account_of(one) == account and one.reason not in _NOT_LEARNED
            return learned and prefix_of(one.address) == prefix

        current, former = (list(filter(is_meant, reasons)) for reasons in self.of_account(account[1]))
        for one in current:
            self.revoke(identity_of(one))
        for one in former:
            self._former.drop((one.address, one.account))
        self.changes += len(former)
        return [*current, *former]

    def restore_new(self, now: float) -> list[Friend]:
        """At the start, find which friends are new; return the first reason of each, the oldest first.

        An account is new at a sender (an IPv4 address or IPv6 /64) if its first reason there began within
        ``YOUNG_FOR`` seconds of ``now`` (epoch), and is none of the configuration. The oldest of these
        reasons comes first.
        """
        every = [*self._former.entries.values(), *self._current.entries.values()]
        young = {short_account(one.account) for one in every if now - one.since < YOUNG_FOR}
        first: dict[tuple[str, Network], Friend] = {}
        for one in every:
            account = short_account(one.account)
            if account in young:
                key = account, sender_of(one.address)
                if key not in first or one.since < first[key].since:
                    first[key] = one
        new = [one for one in first.values() if now - one.since < YOUNG_FOR]
        new = sorted((one for one in new if one.reason not in _NOT_LEARNED), key=attrgetter("since"))
        for one in new:
            who, sender = account_of(one), sender_of(one.address)
            self.new.restore(who, sender, one.since)
            self.first_day.begin(who[1], sender, one.address, one.since)
        self.first_day.expire(now)
        for one in self._current.entries.values():
            self.first_day.admit(short_account(one.account), sender_of(one.address), one.address)
        return new

    def restore_guilt(self, account: AccountKey, now: float) -> None:
        """At the start, hold ``account`` responsible for guesses again: one more is then a ban.

        An old account became guilty in a /64, where its friendships ended then. So it counts as new in each
        /64 where one ended lately. ``now`` is in seconds since the epoch.
        """
        for one in self._former.of_account(account[1]):
            sender = sender_of(one.address)
            ended = account_of(one) == account and now - one.until < GUILTY_FOR
            if ended and not is_one_host(one.address) and not self.new.is_new(account, sender, now):
                self.new.restore(account, sender, now)
        for sender in self.new.convict(account, now):
            if not self.any_in(sender):
                self.new.taint(sender, now + GUILTY_FOR)

    def began(self, friend: Friend) -> float:
        """Return when the account of ``friend`` began to work at its address in the last month (epoch)."""
        former = self._former.entries.get((friend.address, friend.account))
        return friend.since if former is None else min(friend.since, former.since)

    def add(self, friend: Friend) -> bool:
        """Add or renew a reason to be a friend; return whether it is new.

        A renewed reason keeps its first ``since``. Its ``until`` is never set to an earlier time.
        """
        key = identity_of(friend)
        known = self._current.entries.get(key)
        if known is not None:
            friend = evolve(friend, since=known.since, until=max(known.until, friend.until))
        self._current.put(key, friend)
        self._next = min(self._next, friend.until)
        if known is None:
            self.changes += 1
        if len(self._current.entries) > self._most:
            self._drop(next(iter(self._current.entries)))
        return known is None

    def remove(self, key: Key, now: float) -> Friend | None:
        """End a reason to be a friend at ``now`` (epoch), and remember it; return it, None if unknown."""
        if key not in self._current.entries:
            return None
        friend = self._drop(key)
        self.remember(evolve(friend, until=now))
        return friend

    def revoke(self, key: Key) -> None:
        """Remove a reason to be a friend that was wrong, so that it is no former one either."""
        if key in self._current.entries:
            self._drop(key)

    def forget(self, address: Address) -> list[Friend]:
        """Remove every reason why ``address`` is or was a friend, and return them; none is remembered."""
        now = [self._drop(key) for key in [*self._current.at.get(address, {})]]
        former = [self._former.drop(key) for key in [*self._former.at.get(address, {})]]
        self.changes += len(former)
        return [*now, *former]

    def expire(self, now: float) -> list[Friend]:
        """End the reasons to be a friend that have expired by ``now`` (epoch seconds), and return them.

        They are former reasons from now on. Forget the former reasons that ended ``FORMER_FOR`` seconds ago.
        """
        self.first_day.expire(now)
        if now < self._next:
            return []
        entries, former = self._current.entries, self._former.entries
        over = [friend for friend in entries.values() if friend.until <= now]
        for friend in over:
            self.remember(self._drop(identity_of(friend)))
        self._next = min((friend.until for friend in entries.values()), default=now)
        while former and now - next(iter(former.values())).until >= FORMER_FOR:
            self._former.drop(next(iter(former)))
        return over

    def move(self, seconds: float) -> None:
        """Add ``seconds`` to all times, because the wall clock was set by as much: nothing ends by that."""
        for table in (self._current, self._former):
            table.move(seconds)
        self.new.move(seconds)
        self.first_day.move(seconds)
        self._next += seconds

    def remember(self, friend: Friend) -> None:
        """Add a former reason to be a friend, which ended at its ``until``; keep an earlier ``since``.

        Ignore the reason if its address is new and the account already has ``MOST_FORMER`` former addresses.
        """
        key, former = (friend.address, friend.account), self._former
        if (
            key not in former.entries
            and len(former.accounts.get(short_account(friend.account), ())) >= MOST_FORMER
        ):
            return
        former.put(key, evolve(friend, since=self.began(friend)))
        if len(former.entries) > self._most:
            former.drop(next(iter(former.entries)))

    def has(self, address: Address) -> bool:
        """Whether ``address`` is a friend."""
        return address in self._current.at or (self.outage_mode and address in self._former.at)

    def worked_at(self, account: str, address: Address) -> bool:
        """Whether ``account`` works at ``address``, or did within a month."""
        account = short_account(account)
        current, former = self._current.accounts, self._former.accounts
        if account in current and address in current[account]:
            return True
        return account in former and address in former[account]

    def worked_near(self, account: str, address: Address) -> bool:
        """Whether ``account`` works at ``address`` or, for IPv6, at another one of its /64; or did lately.

        A phone changes its temporary address each day (RFC 8981), within its /64.
        """
        return account in self.worked and sender_of(address) in self.worked[account]

    def knows_account(self, account: str) -> bool:
        """Whether ``account`` works at any address, or did within a month."""
        account = short_account(account)
        return account in self._current.accounts or account in self._former.accounts

    def reasons(self, address: Address) -> tuple[Friend, ...]:
        """Return the reasons why ``address`` is a friend now; () if it is not one."""
        return tuple(self._current.at.get(address, {}).values())

    def of_account(self, account: str) -> tuple[tuple[Friend, ...], tuple[Friend, ...]]:
        """Return the current reasons with ``account``, and the former ones, whatever their address."""
        return self._current.of_account(account), self._former.of_account(account)

    def knows(self, number: int) -> bool:
        """Whether at least ``number`` accounts work at some address, or did within a month."""
        current = self._current.accounts
        others = (account for account in self._former.accounts if account not in current)
        missing = max(0, number - len(current))
        return sum(1 for _ in islice(others, missing)) == missing

    @property
    def accounts(self) -> int:
        """The number of accounts that work at any address."""
        return len(self._current.accounts)

    def any_in(self, network: Network) -> bool:
        """Whether ``network`` contains a friend."""
        return self._current.any_in(network) or (self.outage_mode and self._former.any_in(network))

    def is_known(self, address: Address) -> bool:
        """Whether ``address`` is a friend or a former friend."""
        return address in self._current.at or address in self._former.at

    def any_known_in(self, network: Network) -> bool:
        """Whether ``network`` contains a friend or a former friend."""
        return self._current.any_in(network) or self._former.any_in(network)

    def addresses(self) -> Iterable[Address]:
        """Return the addresses that are friends now."""
        return [*self._current.at, *(self._former.at if self.outage_mode else ())]

    def at_senders(self, senders: Iterable[Network]) -> set[Address]:
        """Return the friends at ``senders`` (IPv4 addresses or IPv6 /64s)."""
        first = [one.network_address for one in senders]
        keys = {sender_key(one) for one in first if not is_one_host(one)}
        others = (one for one in self.addresses() if one.version == 6) if keys else ()  # noqa: PLR2004 - IPv6
        return {one for one in first if self.has(one)}.union(one for one in others if sender_key(one) in keys)

    def all(self) -> tuple[Friend, ...]:
        """Return all reasons why addresses are friends now, those seen longest ago first."""
        # Another thread may add friends meanwhile, and an iteration over an OrderedDict runs code of Python.
        return tuple(dict.values(self._current.entries))

    def former_addresses(self) -> Collection[Address]:
        """Return the addresses of former friends."""
        return self._former.at.keys()

    def former(self) -> tuple[Friend, ...]:
        """Return for each address and account the latest reason that made it a friend and has ended."""
        return tuple(dict.values(self._former.entries))

    def _drop(self, key: Key) -> Friend:
        self.changes += 1
        return self._current.drop(key)


def _count_down(counter: Counter[_T], what: _T) -> None:
    counter[what] -= 1
    if not counter[what]:
        del counter[what]


def _around(address: Address) -> list[Network]:
    return [ip_network((address, length), strict=False) for length in _PREFIX_LENGTHS[address.version]]
