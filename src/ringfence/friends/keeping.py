"""The friends of a running daemon: learned from what Asterisk says, kept in the store, let go in time.

Three things make a friend: a right password from a proven address, a contact that an Asterisk has, a trunk
at which it registers. Signs only ever renew; what is there no longer is a friend for ``keep`` seconds more: a
phone that restarts signs off first, and one whose password was changed behind its back signs off for good.

A PBX of ten thousand phones says so every minute. What was told before and has not moved by much is neither
told to the friends again nor written; the rest is taken in parts, between which bans go on.

Bounds: those of ``Friends``, and ``MOST_PLACES`` addresses an account: whoever has one password and a network
of IPv6 must not crowd out everybody else's phones.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from ipaddress import ip_address
from typing import Protocol

import structlog
from attrs import evolve

from ringfence.detect.friends import MOST, Friends, Key, friend_from, key_of
from ringfence.friends.known import Known
from ringfence.model import Address, Contact, Friend, Network, Roster, SecurityEvent, Tie, TrunkHost

KEEP = 3_600.0
"""So long (seconds) after its last sign, or the end of its registration, an address stays a friend."""

TRUNK_FOR = 86_400.0
"""So long (seconds) a trunk's address stays a friend after the DNS last told it: answers take turns."""

MOST_PLACES = 256
"""Addresses of one account; a telephone on the road has a few a day."""

LONGEST = 366 * 86_400.0
"""No reason holds for longer (seconds), whatever end of a registration somebody writes."""

TOLD_EVERY = 300.0
"""A reason is told and written again when it is renewed by so much, or was seen so long ago (seconds)."""

WRITE_EVERY = 2.0
EXPIRE_EVERY = 10.0

_AT_ONCE = 200  # contacts of a roster, some 2 ms

Answers = Mapping[str, frozenset[Network]]
_CONTACTS = (Tie.REACHABLE, Tie.REGISTERED)


class Shelf(Protocol):
    """What is needed of the store."""

    def friends(self, now: float, most: int) -> list[Friend]:
        """Give why addresses are friends."""

    def former_friends(self, now: float, most: int) -> list[Friend]:
        """Give why addresses were friends."""

    def remember_friends(self, friends: Iterable[Friend]) -> None:
        """Remember why addresses are friends."""

    def forget_friend(self, address: Address) -> None:
        """Forget that an address is, or was, a friend."""


def _at_once(action: Callable[[], object]) -> object:
    return action()


class Keeping:
    """Owns who is a friend. ``wall`` gives wall-clock seconds.

    ``remember`` has something written into the store, ``follow`` is called with the names of trunks whose
    addresses are wanted, and ``own`` says whether an address is this host's. :meth:`load` is for the start;
    then :meth:`run` is a task of the daemon's.
    """

    def __init__(
        self,
        shelf: Shelf,
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
        self.known = Known()
        self.stirred = asyncio.Event()
        """Set when somebody has become a friend, or is none any more."""
        self._shelf = shelf
        self._wall = wall
        self._remember = remember
        self._follow = follow
        self._own = own
        self._told: dict[Key, Friend] = {}  # as the friends were told of each last, and the store
        self._places: dict[tuple[str, str], dict[Address, None]] = {}
        self._unwritten: set[Key] = set()
        self._contacts: dict[str, dict[Key, int]] = {}  # with the number of the roster that had it last
        self._round = 0
        self._trunks: dict[str, tuple[TrunkHost, ...]] = {}
        self._answers: Answers = {}
        self._rosters: dict[str, Roster] = {}
        self._told_of_rosters = asyncio.Event()
        self._changes = 0
        self._log = structlog.get_logger()

    # -- what it is told --------------------------------------------------------------------------------

    def load(self) -> None:
        """Take what the store knows, before there is an event loop; raises StoreError."""
        now = self._wall()
        for friend in self._shelf.former_friends(now, MOST):
            self.friends.remember(friend)
        for friend in self._shelf.friends(now, MOST):
            self._take(friend)
            if friend.tie in _CONTACTS:
                self._contacts.setdefault(friend.asterisk, {})[key_of(friend)] = 0
        self._unwritten.clear()
        self.known.remembered = len(self.friends) > 0
        self._stir()

    def succeeded(self, event: SecurityEvent) -> None:
        """Take a security event: a right password makes a friend."""
        friend = friend_from(event)
        if friend is not None and friend.until > self._wall():
            self._meet(friend)
            self._stir()

    def roster(self, roster: Roster) -> None:
        """Take what an Asterisk has; the first at once, since the guard waits for it, others in parts."""
        if roster.asterisk in self._trunks:
            self._rosters[roster.asterisk] = roster
            self._told_of_rosters.set()
            return
        self._trunks[roster.asterisk] = ()
        for part in self._parts(roster):
            part()
        self._log.info("friends.roster", asterisk=roster.asterisk, friends=len(self.friends))

    def contact(self, contact: Contact) -> None:
        """Take one change: a phone registers, answers, or is gone."""
        now = self._wall()
        if not contact.gone:
            self._take_contact(contact, now)
        else:
            for tie in _CONTACTS:
                key = contact.asterisk, contact.address, contact.account, tie
                self._contacts.get(contact.asterisk, {}).pop(key, None)
                self._shorten(key, now)
        self._stir()

    def resolved(self, answers: Answers) -> None:
        """Take where the trunks' names lead."""
        self._answers = answers
        for trunks in self._trunks.values():
            self._take_trunks(trunks, self._wall())
        self._stir()

    def forget(self, address: Address) -> int:
        """Take every reason of an address back; give how many there were. The next sign makes new ones."""
        reasons = self.friends.reasons(address)
        for friend in reasons:
            self._part(key_of(friend))
        self._remember(partial(self._shelf.forget_friend, address))
        self._stir()
        return len(reasons)

    def take(self, friends: Iterable[Friend]) -> None:
        """Take reasons that another server knows."""
        for friend in friends:
            self._meet(friend)
        self._stir()

    # -- what time asks for -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Let go and write in time, and take rosters in parts, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_rosters())
            group.create_task(self._tend())

    async def _follow_rosters(self) -> None:
        while True:
            await self._told_of_rosters.wait()
            self._told_of_rosters.clear()
            await self.take_rosters()

    async def take_rosters(self) -> None:
        """Take the rosters that wait, in parts."""
        while self._rosters:
            _, roster = self._rosters.popitem()
            for part in self._parts(roster):
                part()
                await asyncio.sleep(0)

    async def _tend(self) -> None:
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
        """Let go of whose time is over."""
        for friend in self.friends.expire(self._wall()):
            self._dropped(key_of(friend))
        if len(self._told) > 2 * MOST:  # of some the friends had no room any more
            left = {key_of(friend) for friend in self.friends.all()}
            for key in self._told.keys() - left:
                self._dropped(key)
        self._stir()

    def write(self) -> None:
        """Have what has changed by much written."""
        if not self._unwritten:
            return
        keys, self._unwritten = self._unwritten, set()
        changed = [self._told[key] for key in keys if key in self._told]
        if changed:
            self._remember(partial(self._shelf.remember_friends, changed))

    # -- how it is done ---------------------------------------------------------------------------------

    def _parts(self, roster: Roster) -> Iterable[Callable[[], None]]:
        """Give the steps by which a roster is taken."""
        if roster.trunks is not None:
            yield partial(self._take_all_trunks, roster.asterisk, roster.trunks)
        if roster.contacts is None:
            return
        self._round += 1
        number = self._round
        for start in range(0, len(roster.contacts), _AT_ONCE):
            yield partial(self._take_contacts, roster.contacts[start : start + _AT_ONCE])
        known = list(self._contacts.get(roster.asterisk, {}).items())
        for start in range(0, len(known), _AT_ONCE):
            missing = [key for key, seen in known[start : start + _AT_ONCE] if seen < number]
            if missing:
                yield partial(self._miss, roster.asterisk, missing)

    def _take_all_trunks(self, asterisk: str, trunks: tuple[TrunkHost, ...]) -> None:
        self._trunks[asterisk] = trunks
        every = [trunk for mine in self._trunks.values() for trunk in mine]
        self._follow(frozenset(_name(trunk) for trunk in every if _address(trunk) is None))
        self._take_trunks(trunks, self._wall())
        self._stir()

    def _take_trunks(self, trunks: Iterable[TrunkHost], now: float) -> None:
        for trunk in trunks:
            address = _address(trunk)
            networks = self._answers.get(_name(trunk), frozenset())
            for one in [address] if address is not None else [net.network_address for net in networks]:
                self._meet(Friend(trunk.asterisk, one, trunk.name, Tie.TRUNK, now, now, now + TRUNK_FOR))

    def _take_contacts(self, contacts: Iterable[Contact]) -> None:
        now = self._wall()
        for contact in contacts:
            if not contact.gone:
                self._take_contact(contact, now)
        self._stir()

    def _take_contact(self, contact: Contact, now: float) -> None:
        tie = Tie.REACHABLE if contact.reachable else Tie.REGISTERED
        until = (contact.until if contact.until is not None else now) + self.keep
        if until <= now:
            return
        key = contact.asterisk, contact.address, contact.account, tie
        self._contacts.setdefault(contact.asterisk, {})[key] = self._round
        told = self._told.get(key)
        if told is None or until - told.until >= TOLD_EVERY or now - told.seen >= TOLD_EVERY:
            self._meet(Friend(contact.asterisk, contact.address, contact.account, tie, now, now, until))

    def _miss(self, asterisk: str, missing: Iterable[Key]) -> None:
        """Take that this Asterisk has these contacts no more."""
        now, contacts = self._wall(), self._contacts[asterisk]
        for key in missing:
            contacts.pop(key, None)
            self._shorten(key, now)
        self._stir()

    def _shorten(self, key: Key, now: float) -> None:
        """Have a reason end soon, since what it stood on is gone."""
        friend = self._told.get(key)
        if friend is not None and friend.until > now + self.keep:
            self.friends.part(key, now)  # who is met again with less time would keep the longer one
            del self._told[key]
            self._take(evolve(friend, until=now + self.keep))
            self._unwritten.add(key)

    def _meet(self, friend: Friend) -> None:
        address = friend.address
        if address.is_loopback or address.is_unspecified or address.is_multicast or self._own(address):
            return
        if address.version == 4 and int(address) == _BROADCAST:  # noqa: PLR2004 - IPv4
            return
        friend = evolve(friend, until=min(friend.until, self._wall() + LONGEST))
        key = key_of(friend)
        told = self._told.get(key)
        news = (
            told is None or friend.until - told.until >= TOLD_EVERY or friend.seen - told.seen >= TOLD_EVERY
        )
        if news:
            self._take(friend)
            self._unwritten.add(key)
        else:
            self.friends.meet(friend)

    def _take(self, friend: Friend) -> None:
        key = key_of(friend)
        told = self._told.get(key)
        if told is not None:
            friend = evolve(friend, since=told.since, until=max(told.until, friend.until))
        self.friends.meet(friend)
        self._told[key] = friend
        places = self._places.setdefault((friend.asterisk, friend.account), {})
        places.pop(friend.address, None)
        places[friend.address] = None
        if len(places) > MOST_PLACES:
            oldest = next(iter(places))
            for tie in Tie:
                self._part((friend.asterisk, oldest, friend.account, tie))

    def _part(self, key: Key) -> None:
        self.friends.part(key, self._wall())
        self._dropped(key)

    def _dropped(self, key: Key) -> None:
        self._told.pop(key, None)
        self._unwritten.discard(key)
        asterisk, address, account, _ = key
        self._contacts.get(asterisk, {}).pop(key, None)
        if not any((asterisk, address, account, tie) in self._told for tie in Tie):
            places = self._places.get((asterisk, account), {})
            places.pop(address, None)
            if not places:
                self._places.pop((asterisk, account), None)

    def _stir(self) -> None:
        if self.friends.changes != self._changes:
            self._changes = self.friends.changes
            self.stirred.set()


_BROADCAST = 0xFFFFFFFF


def _name(trunk: TrunkHost) -> str:
    return trunk.host.lower().rstrip(".")


def _address(trunk: TrunkHost) -> Address | None:
    try:
        return ip_address(trunk.host.strip("[]"))
    except ValueError:
        return None
