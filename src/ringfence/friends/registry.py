"""The friends of a running daemon: learned from Asterisk, kept in the store, and expired.

Asterisk shows three reasons to be a friend: a valid password from a proven address, a contact, or a trunk at
which the PBX registers. (A fourth one is an import from another server.) A new report of the same reason only
renews it.

The rosters of a PBX with ten thousand phones are handled in parts, and bans go on between them.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_network
from itertools import chain, islice

import structlog

from ringfence.ban_facts import ClockSet
from ringfence.clock import until_tick
from ringfence.detect.friends import Friends, Key, identity_of
from ringfence.friends.recorded import FriendListener, RecordedFriends
from ringfence.friends.startup import StartupGate
from ringfence.host.names import KEPT_FOR, Names
from ringfence.store.tables import FriendTable
from ringfence.store.writer import BestEffort
from ringfence.values.friend import Contact, Friend, FriendReason, Roster, TrunkHost
from ringfence.values.network import Address, Network, sender_of

# -- the friends whose packets the kernel does not drop by its limits or by a ban of the friend's /64


class Passing:
    """The friends that the kernel's list must contain.

    *Unshielded* friends are left out: guesses come from the address of such a friend, and nothing can prove
    whether the friend itself sends them. Creating a network object takes longer than the rest of the update,
    so the objects of unchanged addresses are reused.
    """

    def __init__(self, friends: Friends) -> None:
        self._friends = friends
        self._networks: dict[Address, Network] = {}
        self._unshielded: Collection[Address] = frozenset()
        self._senders: Mapping[Address, Network] = {}
        self._around: frozenset[Network] = frozenset()
        self._around_seen = (-1, -1)

    @property
    def networks(self) -> Iterable[Network]:
        """The selected friends as networks, one for each address."""
        return self._networks.values()

    @property
    def addresses(self) -> Collection[Address]:
        """The addresses of the friends that the latest :meth:`refresh` selected."""
        return self._networks.keys()

    @property
    def around(self) -> frozenset[Network]:
        """All friends and former friends, each with its /64: a phone changes its IPv6 address each day.

        So an address stays here when it moves from one list of friends to another. The kernel then lets it
        pass at every moment, whichever list is written first.
        """
        former = self._friends.former_addresses()
        seen = self._friends.changes, len(former)
        if seen != self._around_seen:
            before, known = self._senders, (*former, *self._friends.addresses())
            self._senders = {one: before.get(one) or sender_of(one) for one in known}
            self._around_seen, self._around = seen, frozenset(self._senders.values())
        return self._around

    def knows(self, address: Address) -> bool:
        """Whether ``address`` is a friend or a former one, or is in the /64 of one."""
        return sender_of(address) in self.around

    @property
    def left_out(self) -> Iterable[Network]:
        """The friends that the latest :meth:`refresh` left out: unprovable guesses come from them."""
        return (ip_network(one) for one in self._unshielded if self._friends.has(one))

    def is_stale(self, unshielded: Collection[Address]) -> bool:
        """Whether the friends to leave out, ``unshielded``, have changed since the latest :meth:`refresh`."""
        return unshielded != self._unshielded

    def refresh(self, most: int, unshielded: Collection[Address]) -> bool:
        """Select at most ``most`` friends, without ``unshielded``; return whether the selection changed.

        Unprovable guesses come from the addresses ``unshielded``, so the kernel must not let these pass.
        """
        before, self._unshielded = self._networks, unshielded
        friends = (one for one in self._friends.addresses() if one not in unshielded)
        self._networks = {one: before.get(one) or ip_network(one) for one in islice(friends, most)}
        return self._networks.keys() != before.keys()


# -- contacts at an Asterisk: which phones are registered or answer now, and which have disappeared
#
# A contact that disappears stays a friend for ``KEEP`` more seconds. The phone may only be restarting: it
# unregisters first, and comes back. A phone whose password was changed unregisters too, and does not come
# back.


KEEP = 3_600.0
"""Seconds that an address stays a friend after its contact ends.

A contact that disappears ends at that moment. A contact without an end counts as ended at its last report.
"""

_AT_ONCE = 200  # contacts that one step handles, in some 2 ms
_REASONS = (FriendReason.REACHABLE, FriendReason.REGISTERED)


class KnownContacts:
    """Finds contacts that have disappeared, by comparing each roster with the one before.

    A roster is an Asterisk's list of its contacts and trunks. ``recorded`` stores which addresses are friends
    by a contact, and until when. ``now`` returns the time (epoch seconds).
    """

    def __init__(self, recorded: RecordedFriends, now: Callable[[], float]) -> None:
        self._recorded = recorded
        self._now = now
        self._round = 0
        self._rounds: dict[str, dict[Key, int]] = {}
        """The contacts of each Asterisk, each with the number of the latest list of contacts that had it."""

    def restore(self, friends: Iterable[Friend]) -> None:
        """Restore the contacts that an earlier run of the daemon knew, from its stored friends.

        They count as listed in an earlier roster. So a contact that the next roster (an Asterisk's list
        of its contacts and trunks) lacks has disappeared.
        """
        for friend in friends:
            if friend.reason in _REASONS:
                self._rounds.setdefault(friend.asterisk, {})[identity_of(friend)] = 0

    def on_contact(self, contact: Contact) -> None:
        """Handle a change of a contact: a phone registers, answers, or is gone."""
        if not contact.gone:
            self._record(contact)
            return
        keys = [(contact.asterisk, contact.address, contact.account, reason) for reason in _REASONS]
        self._end(contact.asterisk, keys)

    def handle_list(self, asterisk: str, contacts: tuple[Contact, ...]) -> Iterator[None]:
        """Handle a complete list of an Asterisk's contacts in steps: yield after each one.

        Each step takes some 2 ms, so that bans can go on between two steps.
        """
        self._round += 1
        for start in range(0, len(contacts), _AT_ONCE):
            for contact in contacts[start : start + _AT_ONCE]:
                if not contact.gone:
                    self._record(contact)
            yield
        number, known = self._round, list(self._rounds.get(asterisk, {}).items())
        for start in range(0, len(known), _AT_ONCE):
            missing = [key for key, seen in known[start : start + _AT_ONCE] if seen < number]
            if missing:
                self._end(asterisk, missing)
                yield

    def discard(self, keys: Iterable[Key]) -> None:
        """Forget the contacts with these keys: their addresses are no longer friends by these contacts."""
        for key in keys:
            self._rounds.get(key[0], {}).pop(key, None)

    def _record(self, contact: Contact) -> None:
        now = self._now()
        reason = FriendReason.REACHABLE if contact.reachable else FriendReason.REGISTERED
        until = (contact.until if contact.until is not None else now) + KEEP
        if until <= now:
            return
        key = contact.asterisk, contact.address, contact.account, reason
        self._rounds.setdefault(contact.asterisk, {})[key] = self._round
        if self._recorded.renews(key, now, until):
            friend = Friend(contact.asterisk, contact.address, contact.account, reason, now, now, until)
            self.discard(self._recorded.record(friend))

    def _end(self, asterisk: str, keys: Iterable[Key]) -> None:
        """Let friends by the contacts ``keys``, which ``asterisk`` no longer has, end within an hour."""
        until = self._now() + KEEP
        for key in keys:
            self._rounds.get(asterisk, {}).pop(key, None)
            self._recorded.shorten(key, until)


# -- trunks: the servers at which the PBX registers, and the addresses of their names


TRUNK_FOR = KEPT_FOR
"""Seconds that an address of a trunk stays a friend after the latest DNS answer that contained it.

An address that the trunk itself has stays one for as long after the trunk has disappeared.
"""


class KnownTrunks:
    """Remembers the trunks of each Asterisk, whose addresses are friends. ``names`` resolves host names.

    The latest roster counts until the next one: while AMI is down, the PBX keeps its trunks.
    """

    def __init__(self, names: Names) -> None:
        self._names = names
        self._trunks: dict[str, tuple[TrunkHost, ...]] = {}

    def replace(self, asterisk: str, trunks: tuple[TrunkHost, ...]) -> None:
        """Set the trunks of an Asterisk. The names of trunks are looked up from now on."""
        self._set({**self._trunks, asterisk: trunks})

    def retain(self, asterisks: Container[str]) -> None:
        """Forget the trunks of all Asterisks but ``asterisks``."""
        self._set({name: trunks for name, trunks in self._trunks.items() if name in asterisks})

    def friends(self, now: float) -> Iterator[Friend]:
        """Yield the known addresses of all trunks as friends. ``now`` is in seconds since the epoch."""
        ages = self._names.ages
        for trunk in chain.from_iterable(self._trunks.values()):
            address = _address(trunk)
            found = ages.get(_name(trunk), {}) if address is None else {ip_network(address): 0.0}
            for network, age in found.items():
                one, seen, until = network.network_address, now - age, now - age + TRUNK_FOR
                yield Friend(trunk.asterisk, one, trunk.name, FriendReason.TRUNK, seen, seen, until)

    def forget(self, address: Address) -> None:
        """Forget that a trunk's name had ``address``, unless the latest answer of the DNS contained it."""
        self._names.forget(ip_network(address))

    def _set(self, trunks: dict[str, tuple[TrunkHost, ...]]) -> None:
        self._trunks = trunks
        every = chain.from_iterable(trunks.values())
        self._names.want((_name(trunk) for trunk in every if _address(trunk) is None), by="friends")


def _name(trunk: TrunkHost) -> str:
    return trunk.host.lower().rstrip(".")


def _address(trunk: TrunkHost) -> Address | None:
    try:
        return ip_address(trunk.host.strip("[]"))
    except ValueError:
        return None


WRITE_EVERY = 2.0
EXPIRE_EVERY = 10.0


class FriendRegistry:
    """Learns which addresses are friends (known phones and trunks), stores them, and expires them.

    ``best_effort`` runs the writes to ``table``. ``now`` returns the time (epoch seconds); if the wall clock
    was set, it first calls :meth:`on_fact`. ``names`` resolves the names of trunks. ``own`` has this host's
    addresses. Once the friends are known, each of ``listeners`` gets each reason before it is added;
    more may be added later. Call :meth:`load` at the start; then :meth:`run` is a task of the daemon.
    """

    def __init__(
        self,
        friends: Friends,
        table: FriendTable,
        best_effort: BestEffort,
        now: Callable[[], float],
        names: Names,
        own: Container[Address] = (),
        listeners: Sequence[FriendListener] = (),
    ) -> None:
        self.friends = friends
        self.startup = StartupGate()
        self.changed = asyncio.Event()
        """Set when an address has become a friend or is no longer one."""
        self.unread = False
        """Whether the friends of the store are missing, because they could not be read."""
        self._now = now
        self._recorded = RecordedFriends(friends, table, best_effort, now, own, self.startup, listeners)
        self._contacts = KnownContacts(self._recorded, now)
        self._trunks = KnownTrunks(names)
        self._known: set[str] = set()  # the Asterisks whose phones and trunks were read at least once
        self._waiting: dict[str, Roster] = {}
        self._roster_arrived = asyncio.Event()
        self._changes = 0
        self._log = structlog.get_logger()

    # -- reports ---------------------------------------------------------------------------------------

    def load(self) -> None:
        """Load the friends of the store once, or again if that failed; raise StoreError on failure."""
        self.unread = True
        stored = self._recorded.load()
        self.unread = False
        self._contacts.restore(stored)
        self.startup.remembered = bool(stored)
        self._signal_changes()

    def on_login(self, friend: Friend) -> None:
        """Add a friend whose phone has logged in, unless its time as a friend (``until``) is over already."""
        if friend.until > self._now():
            self.add([friend])

    def on_estranged(self, reasons: Sequence[Friend]) -> None:
        """End ``reasons`` why an address is a friend, because the detector has ended them."""
        self._recorded.end(reasons)
        self._contacts.discard(identity_of(friend) for friend in reasons)
        self._signal_changes()

    def on_roster(self, roster: Roster) -> None:
        """Handle a roster, an Asterisk's list of its contacts and trunks.

        The first roster of an Asterisk is handled at once, because the start waits for it. Later ones are
        handled by :meth:`run`, in parts.
        """
        if roster.asterisk in self._known:
            self._waiting[roster.asterisk] = roster
            self._roster_arrived.set()
            return
        self._known.add(roster.asterisk)
        deque(self._handle(roster), maxlen=0)
        self._signal_changes()
        self._log.info("friends.roster", asterisk=roster.asterisk, friends=len(self.friends))

    def on_contact(self, contact: Contact) -> None:
        """Handle a change of a contact: a phone registers, answers, or is gone."""
        self._contacts.on_contact(contact)
        self._signal_changes()

    def renew_trunks(self) -> None:
        """Make the known addresses of all trunks friends, or renew them. Call this after a DNS answer."""
        self.add(self._trunks.friends(self._now()))

    def retain_trunks(self, asterisks: Container[str]) -> None:
        """Forget the trunks of all Asterisks but ``asterisks``. Their addresses stay friends for a day."""
        self._trunks.retain(asterisks)

    def forget(self, address: Address) -> int:
        """Forget every reason why an address is or was a friend; return how many. Reports create new ones."""
        forgotten = self._recorded.forget(address)
        self._contacts.discard(forgotten)
        self._trunks.forget(address)
        self._signal_changes()
        self.write()
        return len(forgotten)

    def add(self, friends: Iterable[Friend]) -> None:
        """Add friends, for example those imported from another server."""
        for friend in friends:
            self._contacts.discard(self._recorded.record(friend))
        self._signal_changes()

    def on_fact(self, fact: object) -> None:
        """If the wall clock was set, move the times of all friends: no phone becomes a stranger by that."""
        if isinstance(fact, ClockSet):
            self._recorded.move(fact.seconds)

    # -- periodic work ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Expire reasons, write changes and handle waiting rosters, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_rosters())
            group.create_task(self._tick())

    async def _follow_rosters(self) -> None:
        while True:
            await self._roster_arrived.wait()
            self._roster_arrived.clear()
            await self.process_rosters()

    async def process_rosters(self) -> None:
        """Handle the rosters that have arrived, in parts: bans go on between two parts."""
        while self._waiting:
            _, roster = self._waiting.popitem()
            for _ in self._handle(roster):
                self._signal_changes()
                await asyncio.sleep(0)

    async def _tick(self) -> None:
        expired = self._now()
        try:
            while True:
                await asyncio.sleep(until_tick(WRITE_EVERY))
                now = self._now()
                if abs(now - expired) >= EXPIRE_EVERY:
                    expired = now
                    self.expire()
                if self._recorded.is_due:
                    self.write()
        finally:
            self.write()

    def expire(self) -> None:
        """End each reason to be a friend whose time is over. It stays a former one for 30 days.

        The trunks are renewed first: while AMI is down and the DNS answers stay the same, nothing else does.
        """
        self.renew_trunks()
        self._contacts.discard(self._recorded.expire())
        self._signal_changes()

    def write(self) -> None:
        """Write the reasons that are new or have changed enough (see :meth:`RecordedFriends.save`)."""
        self._recorded.save()

    def _handle(self, roster: Roster) -> Iterator[None]:
        """Handle a roster in short steps: yield after each one."""
        if roster.trunks is not None:
            self._trunks.replace(roster.asterisk, roster.trunks)
            self.renew_trunks()
            yield
        if roster.contacts is not None:
            yield from self._contacts.handle_list(roster.asterisk, roster.contacts)

    def _signal_changes(self) -> None:
        if self.friends.changes != self._changes:
            self._changes = self.friends.changes
            self.changed.set()
