"""The friends of a running daemon: learned from Asterisk, kept in the store, and expired.

There are three reasons to be a friend: a valid password from a proven address, a contact at an Asterisk, or a
trunk at which the PBX registers. New reports only renew a reason. A contact that disappears stays a friend
for ``keep`` more seconds. A phone that restarts unregisters first, and a phone whose password was changed
unregisters for good.

A PBX with ten thousand phones reports all of them every minute. A report that changes little is neither
passed on nor written. The rest is handled in parts, and bans go on between them.

Limits: those of ``Friends``, and ``MOST_ADDRESSES`` addresses per account. Otherwise a party with one
password and an IPv6 network could displace the other phones.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from ipaddress import ip_address
from typing import Protocol

import structlog
from attrs import evolve

from ringfence.detect.friends import MOST, Friends, Key, friend_from, key_of
from ringfence.friends.readiness import StartupGate
from ringfence.model import Address, Contact, Friend, FriendReason, Network, Roster, SecurityEvent, TrunkHost

KEEP = 3_600.0
"""Seconds that an address stays a friend after its last report or the end of its registration."""

TRUNK_FOR = 86_400.0
"""Seconds that a trunk's address stays a friend after the latest DNS answer with it: answers alternate."""

MOST_ADDRESSES = 256
"""Addresses of one account; a mobile phone has a few per day."""

LONGEST = 366 * 86_400.0
"""The longest time in seconds that a reason lasts, whatever end the registration has."""

RENEW_EVERY = 300.0
"""A reason is passed on and written again if it is renewed by this many seconds, or was last seen so long
ago.
"""

WRITE_EVERY = 2.0
EXPIRE_EVERY = 10.0

_AT_ONCE = 200  # contacts of a roster, some 2 ms

Answers = Mapping[str, frozenset[Network]]
_CONTACTS = (FriendReason.REACHABLE, FriendReason.REGISTERED)


class FriendStore(Protocol):
    """The part of the store that the friends use."""

    def friends(self, now: float, most: int) -> list[Friend]:
        """Return the current reasons."""

    def former_friends(self, now: float, most: int) -> list[Friend]:
        """Return the expired reasons."""

    def remember_friends(self, friends: Iterable[Friend]) -> None:
        """Store reasons."""

    def forget_friend(self, address: Address) -> None:
        """Forget all reasons of an address, current and expired."""


def _at_once(action: Callable[[], object]) -> object:
    return action()


class FriendRegistry:
    """Owns the friends. ``wall`` returns wall-clock seconds.

    ``remember`` runs a write to the store. ``follow`` is called with the names of trunks whose addresses are
    needed. ``own`` returns whether an address is this host's. Call :meth:`load` at the start; then
    :meth:`run` is a task of the daemon.
    """

    def __init__(
        self,
        store: FriendStore,
        wall: Callable[[], float],
        *,
        friends: Friends | None = None,
        remember: Callable[[Callable[[], object]], object] = _at_once,
        follow: Callable[[frozenset[str]], None] = lambda _names: None,
        own: Callable[[Address], bool] = lambda _: False,
        keep: float = KEEP,
    ) -> None:
        self.friends = friends if friends is not None else Friends()
        self.keep = keep
        self.startup = StartupGate()
        self.changed = asyncio.Event()
        """Set when an address has become a friend or is no longer one."""
        self._store = store
        self._wall = wall
        self._remember = remember
        self._follow = follow
        self._own = own
        self._recorded: dict[Key, Friend] = {}  # the reasons as last passed on and written
        self._addresses: dict[tuple[str, str], dict[Address, None]] = {}
        self._unwritten: set[Key] = set()
        self._contacts: dict[
            str, dict[Key, int]
        ] = {}  # with the number of the latest roster that had the contact
        self._round = 0
        self._trunks: dict[str, tuple[TrunkHost, ...]] = {}
        self._answers: Answers = {}
        self._rosters: dict[str, Roster] = {}
        self._roster_arrived = asyncio.Event()
        self._changes = 0
        self._log = structlog.get_logger()

    # -- reports ---------------------------------------------------------------------------------------

    def load(self) -> None:
        """Load the friends of the store, before there is an event loop; raise StoreError on failure."""
        now = self._wall()
        for friend in self._store.former_friends(now, MOST):
            self.friends.remember(friend)
        for friend in self._store.friends(now, MOST):
            self._put(friend)
            if friend.reason in _CONTACTS:
                self._contacts.setdefault(friend.asterisk, {})[key_of(friend)] = 0
        self._unwritten.clear()
        self.startup.remembered = len(self.friends) > 0
        self._signal_changes()

    def on_success(self, event: SecurityEvent) -> None:
        """Handle a security event: a valid password makes a friend."""
        friend = friend_from(event)
        if friend is not None and friend.until > self._wall():
            self._record(friend)
            self._signal_changes()

    def on_roster(self, roster: Roster) -> None:
        """Handle a roster: the first one at once, since the start waits for it, later ones in parts."""
        if roster.asterisk in self._trunks:
            self._rosters[roster.asterisk] = roster
            self._roster_arrived.set()
            return
        self._trunks[roster.asterisk] = ()
        for part in self._parts(roster):
            part()
        self._log.info("friends.roster", asterisk=roster.asterisk, friends=len(self.friends))

    def on_contact(self, contact: Contact) -> None:
        """Handle a contact change: a phone registers, answers, or is gone."""
        now = self._wall()
        if not contact.gone:
            self._record_contact(contact, now)
        else:
            for reason in _CONTACTS:
                key = contact.asterisk, contact.address, contact.account, reason
                self._contacts.get(contact.asterisk, {}).pop(key, None)
                self._shorten(key, now)
        self._signal_changes()

    def on_resolved(self, answers: Answers) -> None:
        """Handle new addresses of the trunks' names."""
        self._answers = answers
        for trunks in self._trunks.values():
            self._record_trunks(trunks, self._wall())
        self._signal_changes()

    def forget(self, address: Address) -> int:
        """Forget every reason of an address, and return their number. Later reports create new reasons."""
        reasons = self.friends.reasons(address)
        for friend in reasons:
            self._remove(key_of(friend))
        self._remember(partial(self._store.forget_friend, address))
        self._signal_changes()
        return len(reasons)

    def add(self, friends: Iterable[Friend]) -> None:
        """Add reasons from another server."""
        for friend in friends:
            self._record(friend)
        self._signal_changes()

    # -- periodic work ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Expire and write periodically, and handle rosters in parts, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_rosters())
            group.create_task(self._tick())

    async def _follow_rosters(self) -> None:
        while True:
            await self._roster_arrived.wait()
            self._roster_arrived.clear()
            await self.process_rosters()

    async def process_rosters(self) -> None:
        """Handle the waiting rosters, in parts."""
        while self._rosters:
            _, roster = self._rosters.popitem()
            for part in self._parts(roster):
                part()
                await asyncio.sleep(0)

    async def _tick(self) -> None:
        expired = self._wall()
        try:
            while True:
                await asyncio.sleep(WRITE_EVERY)
                now = self._wall()
                if abs(now - expired) >= EXPIRE_EVERY:
                    expired = now
                    self.expire()
                self.write()
        finally:
            self.write()

    def expire(self) -> None:
        """Remove reasons whose time is over."""
        for friend in self.friends.expire(self._wall()):
            self._drop_key(key_of(friend))
        if len(self._recorded) > 2 * MOST:  # ``Friends`` had no room for some of them
            left = {key_of(friend) for friend in self.friends.all()}
            for key in self._recorded.keys() - left:
                self._drop_key(key)
        self._signal_changes()

    def write(self) -> None:
        """Write the reasons that changed by much."""
        if not self._unwritten:
            return
        keys, self._unwritten = self._unwritten, set()
        changed = [self._recorded[key] for key in keys if key in self._recorded]
        if changed:
            self._remember(partial(self._store.remember_friends, changed))

    # -- details ---------------------------------------------------------------------------------------

    def _parts(self, roster: Roster) -> Iterable[Callable[[], None]]:
        """Yield the steps by which a roster is handled."""
        if roster.trunks is not None:
            yield partial(self._replace_trunks, roster.asterisk, roster.trunks)
        if roster.contacts is None:
            return
        self._round += 1
        number = self._round
        for start in range(0, len(roster.contacts), _AT_ONCE):
            yield partial(self._record_contacts, roster.contacts[start : start + _AT_ONCE])
        known = list(self._contacts.get(roster.asterisk, {}).items())
        for start in range(0, len(known), _AT_ONCE):
            missing = [key for key, seen in known[start : start + _AT_ONCE] if seen < number]
            if missing:
                yield partial(self._end_contacts, roster.asterisk, missing)

    def _replace_trunks(self, asterisk: str, trunks: tuple[TrunkHost, ...]) -> None:
        self._trunks[asterisk] = trunks
        every = [trunk for mine in self._trunks.values() for trunk in mine]
        self._follow(frozenset(_name(trunk) for trunk in every if _address(trunk) is None))
        self._record_trunks(trunks, self._wall())
        self._signal_changes()

    def _record_trunks(self, trunks: Iterable[TrunkHost], now: float) -> None:
        for trunk in trunks:
            address = _address(trunk)
            networks = self._answers.get(_name(trunk), frozenset())
            for one in [address] if address is not None else [net.network_address for net in networks]:
                self._record(
                    Friend(trunk.asterisk, one, trunk.name, FriendReason.TRUNK, now, now, now + TRUNK_FOR)
                )

    def _record_contacts(self, contacts: Iterable[Contact]) -> None:
        now = self._wall()
        for contact in contacts:
            if not contact.gone:
                self._record_contact(contact, now)
        self._signal_changes()

    def _record_contact(self, contact: Contact, now: float) -> None:
        reason = FriendReason.REACHABLE if contact.reachable else FriendReason.REGISTERED
        until = (contact.until if contact.until is not None else now) + self.keep
        if until <= now:
            return
        key = contact.asterisk, contact.address, contact.account, reason
        self._contacts.setdefault(contact.asterisk, {})[key] = self._round
        recorded = self._recorded.get(key)
        if recorded is None or until - recorded.until >= RENEW_EVERY or now - recorded.seen >= RENEW_EVERY:
            self._record(Friend(contact.asterisk, contact.address, contact.account, reason, now, now, until))

    def _end_contacts(self, asterisk: str, missing: Iterable[Key]) -> None:
        """Handle contacts that this Asterisk no longer has."""
        now, contacts = self._wall(), self._contacts[asterisk]
        for key in missing:
            contacts.pop(key, None)
            self._shorten(key, now)
        self._signal_changes()

    def _shorten(self, key: Key, now: float) -> None:
        """Let a reason end soon, because its basis is gone."""
        friend = self._recorded.get(key)
        if friend is not None and friend.until > now + self.keep:
            self.friends.remove(key, now)  # otherwise the friend would keep the longer time
            del self._recorded[key]
            self._put(evolve(friend, until=now + self.keep))
            self._unwritten.add(key)

    def _record(self, friend: Friend) -> None:
        address = friend.address
        if address.is_loopback or address.is_unspecified or address.is_multicast or self._own(address):
            return
        if address.version == 4 and int(address) == _BROADCAST:  # noqa: PLR2004 - IPv4
            return
        friend = evolve(friend, until=min(friend.until, self._wall() + LONGEST))
        key = key_of(friend)
        recorded = self._recorded.get(key)
        news = (
            recorded is None
            or friend.until - recorded.until >= RENEW_EVERY
            or friend.seen - recorded.seen >= RENEW_EVERY
        )
        if news:
            self._put(friend)
            self._unwritten.add(key)
        else:
            self.friends.add(friend)

    def _put(self, friend: Friend) -> None:
        key = key_of(friend)
        recorded = self._recorded.get(key)
        if recorded is not None:
            friend = evolve(friend, since=recorded.since, until=max(recorded.until, friend.until))
        self.friends.add(friend)
        self._recorded[key] = friend
        addresses = self._addresses.setdefault((friend.asterisk, friend.account), {})
        addresses.pop(friend.address, None)
        addresses[friend.address] = None
        if len(addresses) > MOST_ADDRESSES:
            oldest = next(iter(addresses))
            for reason in FriendReason:
                self._remove((friend.asterisk, oldest, friend.account, reason))

    def _remove(self, key: Key) -> None:
        self.friends.remove(key, self._wall())
        self._drop_key(key)

    def _drop_key(self, key: Key) -> None:
        self._recorded.pop(key, None)
        self._unwritten.discard(key)
        asterisk, address, account, _ = key
        self._contacts.get(asterisk, {}).pop(key, None)
        if not any((asterisk, address, account, reason) in self._recorded for reason in FriendReason):
            addresses = self._addresses.get((asterisk, account), {})
            addresses.pop(address, None)
            if not addresses:
                self._addresses.pop((asterisk, account), None)

    def _signal_changes(self) -> None:
        if self.friends.changes != self._changes:
            self._changes = self.friends.changes
            self.changed.set()


_BROADCAST = 0xFFFFFFFF


def _name(trunk: TrunkHost) -> str:
    return trunk.host.lower().rstrip(".")


def _address(trunk: TrunkHost) -> Address | None:
    try:
        return ip_address(trunk.host.strip("[]"))
    except ValueError:
        return None
