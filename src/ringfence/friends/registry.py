"""The friends of a running daemon: learned from Asterisk, kept in the store, and expired.

Asterisk shows three reasons to be a friend: a valid password from a proven address, a contact, or a trunk at
which the PBX registers. (A fourth one is an import from another server.) A new report of the same reason only
renews it.

The rosters of a PBX with ten thousand phones are handled in parts, and bans go on between them.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import structlog

from ringfence.detect.friends import Friends, friend_from
from ringfence.friends.contacts import KnownContacts
from ringfence.friends.readiness import StartupGate
from ringfence.friends.recorded import RecordedFriends
from ringfence.friends.trunks import Answers, KnownTrunks
from ringfence.model import Address, Contact, Friend, Roster, SecurityEvent, TrunkHost
from ringfence.store.best_effort import at_once
from ringfence.store.friends import FriendTable

WRITE_EVERY = 2.0
EXPIRE_EVERY = 10.0


class FriendRegistry:
    """Learns the friends, stores them, and expires them. ``wall`` returns wall-clock seconds.

    ``remember`` queues a write to the store. ``follow`` is called with the names of trunks whose addresses
    are needed. ``own`` returns whether an address is this host's. Call :meth:`load` at the start; then
    :meth:`run` is a task of the daemon.
    """

    def __init__(
        self,
        table: FriendTable,
        wall: Callable[[], float],
        *,
        friends: Friends | None = None,
        remember: Callable[[Callable[[], object]], object] = at_once,
        follow: Callable[[frozenset[str]], None] = lambda _names: None,
        own: Callable[[Address], bool] = lambda _: False,
    ) -> None:
        self.friends = friends if friends is not None else Friends()
        self.startup = StartupGate()
        self.changed = asyncio.Event()
        """Set when an address has become a friend or is no longer one."""
        self._wall = wall
        self._recorded = RecordedFriends(self.friends, table, wall, remember, own)
        self._contacts = KnownContacts(self._recorded, wall)
        self._trunks = KnownTrunks(follow)
        self._known: set[str] = set()  # the Asterisks whose phones and trunks were read at least once
        self._waiting: dict[str, Roster] = {}
        self._roster_arrived = asyncio.Event()
        self._changes = 0
        self._log = structlog.get_logger()

    # -- reports ---------------------------------------------------------------------------------------

    def load(self) -> None:
        """Load the friends of the store, before there is an event loop; raise StoreError on failure."""
        self._contacts.restore(self._recorded.load())
        self.startup.remembered = len(self.friends) > 0
        self._signal_changes()

    def on_success(self, event: SecurityEvent) -> None:
        """Handle a security event: if it proves a valid password, its address becomes a friend."""
        friend = friend_from(event)
        if friend is not None and friend.until > self._wall():
            self.add([friend])

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
        for step in self._steps(roster):
            step()
        self._signal_changes()
        self._log.info("friends.roster", asterisk=roster.asterisk, friends=len(self.friends))

    def on_contact(self, contact: Contact) -> None:
        """Handle a change of a contact: a phone registers, answers, or is gone."""
        self._contacts.on_contact(contact)
        self._signal_changes()

    def on_resolved(self, answers: Answers) -> None:
        """Handle new DNS answers for the names of trunks: the addresses in them become friends."""
        self.add(self._trunks.on_resolved(answers, self._wall()))

    def forget(self, address: Address) -> int:
        """Forget every reason why an address is a friend; return how many. Later reports create new ones."""
        forgotten = self._recorded.forget(address)
        self._contacts.discard(forgotten)
        self._signal_changes()
        return len(forgotten)

    def add(self, friends: Iterable[Friend]) -> None:
        """Add friends, for example those imported from another server."""
        for friend in friends:
            self._contacts.discard(self._recorded.record(friend))
        self._signal_changes()

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
            for step in self._steps(roster):
                step()
                self._signal_changes()
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
        """Remove each reason to be a friend whose time is over."""
        self._contacts.discard(self._recorded.expire())
        self._signal_changes()

    def write(self) -> None:
        """Write the reasons that are new or have changed enough (see :meth:`RecordedFriends.save`)."""
        self._recorded.save()

    def _steps(self, roster: Roster) -> Iterator[Callable[[], None]]:
        """Yield the steps that handle a roster: short functions to call in this order."""
        if roster.trunks is not None:
            yield partial(self._replace_trunks, roster.asterisk, roster.trunks)
        if roster.contacts is not None:
            yield from self._contacts.steps(roster.asterisk, roster.contacts)

    def _replace_trunks(self, asterisk: str, trunks: tuple[TrunkHost, ...]) -> None:
        self.add(self._trunks.replace(asterisk, trunks, self._wall()))

    def _signal_changes(self) -> None:
        if self.friends.changes != self._changes:
            self._changes = self.friends.changes
            self.changed.set()
