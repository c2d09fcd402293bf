"""The reasons of friends, as they were last passed on to the detector and written into the store.

A *reason* is why an address is a friend: a login, a contact, a trunk, or an import. A PBX with ten
thousand phones reports all contacts every minute, and each of its phones logs in every few minutes. So a
report that changes little is neither written into the store nor passed on to the detector.

``Friends`` limits the number of reasons, and ``MOST_ADDRESSES`` the number of addresses per account.
Without the second limit, a party with one password and an IPv6 network could displace the other phones.
"""

from collections.abc import Callable, Collection, Container, Iterable, Sequence
from typing import Protocol

from ringfence.detect.friends import MOST, Friends, Key, identity_of
from ringfence.friends.startup import StartupGate
from ringfence.store.tables import FriendTable
from ringfence.store.writer import BestEffort
from ringfence.values.fast import evolve
from ringfence.values.friend import Friend, FriendReason
from ringfence.values.network import Address

MOST_ADDRESSES = 256
"""The maximum number of addresses of one account; a mobile phone has a few per day."""

LONGEST = 366 * 86_400.0
"""Maximum seconds that a reason to be a friend lasts, even if the phone's registration lasts longer."""

RENEW_EVERY = 300.0
"""Minimum change, in seconds, of a reason's end or last sighting for which it is written again."""

SAVE_ON_FULL_DISK = 1_800.0
"""Seconds after which :meth:`RecordedFriends.save` is due although an earlier write waits for the disk.

A reason lasts longer, so none ends without a record.
"""

_BROADCAST = 0xFFFFFFFF


class FriendListener(Protocol):
    """An object that is called for each new reason why an address is a friend."""

    def on_friend(self, friend: Friend) -> object:
        """Record a reason why an address is a friend, before the friend is added."""


class RecordedFriends:
    """Passes reasons why an address is a friend on to ``friends``, and writes them into ``table``.

    ``best_effort`` runs the writes to the table. ``now`` returns the time (epoch seconds). ``own`` has this
    host's addresses. Once ``startup`` shows that the friends are known, each of ``listeners`` gets each
    reason before it is added.
    """

    def __init__(
        self,
        friends: Friends,
        table: FriendTable,
        best_effort: BestEffort,
        now: Callable[[], float],
        own: Container[Address],
        startup: StartupGate,
        listeners: Sequence[FriendListener],
    ) -> None:
        self._startup = startup
        self._listeners = listeners
        self._friends = friends
        self._table = table
        self._best_effort = best_effort
        self._now = now
        self._own = own
        self._recorded: dict[Key, Friend] = {}
        self._addresses: dict[tuple[str, str], dict[Address, None]] = {}
        self._unwritten: set[Key] = set()
        self._saved = 0.0

    def load(self) -> list[Friend]:
        """Load the current and former friends of the store; return the current ones that are new here.

        A later call, after a failure, keeps what Asterisk has reported meanwhile.

        If a reason was seen after now, the clock was ahead then, or is behind now. It is unknown which, and
        how much time has passed. So the reason counts as seen now, and has the rest of its time.

        Raise StoreError on failure.
        """
        now = self._now()
        for friend in self._table.former(now, MOST):
            self._friends.remember(friend)
        stored = self._table.current(now, MOST)
        current = [one for one in stored if identity_of(one) not in self._recorded]
        for friend in current:
            self._put(friend.moved(min(0.0, now - friend.seen)))
        return current

    def renews(self, key: Key, seen: float, until: float) -> bool:
        """Whether a report of the reason ``key`` (Asterisk, address, account, kind) is worth recording.

        ``until`` is the reason's end by this report, ``seen`` its last sighting, both in seconds since the
        epoch. The report is worth recording if the reason is not recorded yet, or if one of the two is at
        least ``RENEW_EVERY`` seconds later than recorded.
        """
        recorded = self._recorded.get(key)
        return (
            recorded is None or until - recorded.until >= RENEW_EVERY or seen - recorded.seen >= RENEW_EVERY
        )

    def record(self, friend: Friend) -> Collection[Key]:
        """Record a reason why an address is a friend; return the keys of the reasons that were removed.

        Reasons are removed if the account has more than ``MOST_ADDRESSES`` addresses. An address that cannot
        be a phone's is ignored: this host's own, loopback, multicast and broadcast. So is a new address if
        its account makes too many friends (:meth:`Friends.admit`).
        """
        address = friend.address
        if address.is_loopback or address.is_unspecified or address.is_multicast or address in self._own:
            return ()
        if address.version == 4 and int(address) == _BROADCAST:  # noqa: PLR2004 - IPv4
            return ()
        if not self._friends.admit(friend):
            return ()
        key, until = identity_of(friend), min(friend.until, self._now() + LONGEST)
        if not self.renews(key, friend.seen, until) and self._friends.has(address):
            return ()
        friend = evolve(friend, since=self._friends.began(friend), until=until)
        if self._startup.for_limits:
            for listener in self._listeners:
                listener.on_friend(friend)
        removed = self._put(friend)
        self._unwritten.add(key)
        return removed

    def shorten(self, key: Key, until: float) -> None:
        """Make the friend's reason ``key`` end at ``until`` (seconds since the epoch) if it would end later.

        An unknown key is ignored.
        """
        friend = self._recorded.get(key)
        if friend is not None and friend.until > until:
            # Removed first, because ``Friends`` keeps the later end.
            self._friends.remove(key, self._now())
            del self._recorded[key]
            self._put(evolve(friend, until=until))
            self._unwritten.add(key)

    def forget(self, address: Address) -> list[Key]:
        """Remove every reason why an address is or was a friend, also from the store; return their keys."""
        keys = [*dict.fromkeys(identity_of(friend) for friend in self._friends.forget(address))]
        for key in keys:
            self._drop(key)
        self._best_effort.write(self._table.forget, address)
        return keys

    def end(self, reasons: Iterable[Friend]) -> None:
        """End ``reasons`` to be a friend, because the detector did: they are former ones in the database too.

        A login that Asterisk has refused leaves no trace at an address that has no other reason.
        """
        ended, now = [], self._now()
        for one in reasons:
            self._drop(identity_of(one))
            if self._friends.worked_at(one.account, one.address) or self._friends.reasons(one.address):
                ended.append(evolve(one, until=now))
            else:
                self._best_effort.write(self._table.forget, one.address)
        if ended:
            self._best_effort.write(self._table.add, ended)

    def expire(self) -> list[Key]:
        """End each reason to be a friend whose time is over; return the keys of these reasons.

        ``Friends`` keeps them as former reasons, and forgets former ones that ended long ago. Reasons that
        it has dropped because it was full are dropped here, and returned, too.
        """
        gone = [identity_of(friend) for friend in self._friends.expire(self._now())]
        if len(self._recorded) > 2 * MOST:  # ``Friends`` was full and has dropped some: drop them here too
            left = {identity_of(friend) for friend in self._friends.all()}
            gone += self._recorded.keys() - left
        for key in gone:
            self._drop(key)
        return gone

    def move(self, seconds: float) -> None:
        """Add ``seconds`` to all times, because the wall clock was set by as much."""
        self._friends.move(seconds)
        self._recorded = {key: friend.moved(seconds) for key, friend in self._recorded.items()}
        # A former reason may have begun again, so the present ones are written later, by the next save.
        self._unwritten |= self._recorded.keys()
        if former := self._friends.former():
            self._best_effort.write(self._table.add, former)

    @property
    def is_due(self) -> bool:
        """Whether to call :meth:`save` now: always, unless the disk takes no writes and earlier ones wait.

        Then it is due after ``SAVE_ON_FULL_DISK``. So hours of a full disk push no ban out of the queue of
        writes: with some hundred phones, there are changes every few seconds.
        """
        waits = not self._best_effort.takes_writes and self._best_effort.waiting_calls(self._table.add)
        return not waits or abs(self._now() - self._saved) >= SAVE_ON_FULL_DISK

    def save(self) -> None:
        """Write the reasons that are new or have changed since the last call.

        Changes of less than ``RENEW_EVERY`` seconds are not written (see :meth:`renews`).
        """
        self._saved = self._now()
        keys, self._unwritten = self._unwritten, set()
        changed = [self._recorded[key] for key in keys if key in self._recorded]
        if changed:
            self._best_effort.write(self._table.add, changed)

    def _put(self, friend: Friend) -> Collection[Key]:
        """Record one reason why an address is a friend, in memory and for the database.

        Return the keys of the reasons that gave way, because this account has too many addresses.
        """
        key = identity_of(friend)
        recorded = self._recorded.get(key)
        if recorded is not None:
            friend = evolve(friend, since=recorded.since, until=max(recorded.until, friend.until))
        self._friends.add(friend)
        self._recorded[key] = friend
        addresses = self._addresses.setdefault((friend.asterisk, friend.account), {})
        addresses.pop(friend.address, None)
        addresses[friend.address] = None
        if len(addresses) <= MOST_ADDRESSES:
            return ()
        oldest = next(iter(addresses))
        removed = [(friend.asterisk, oldest, friend.account, reason) for reason in FriendReason]
        for one in removed:
            self._remove(one)
        return removed

    def _remove(self, key: Key) -> None:
        self._friends.remove(key, self._now())
        self._drop(key)

    def _drop(self, key: Key) -> None:
        self._recorded.pop(key, None)
        self._unwritten.discard(key)
        asterisk, address, account, _ = key
        if not any((asterisk, address, account, reason) in self._recorded for reason in FriendReason):
            addresses = self._addresses.get((asterisk, account), {})
            addresses.pop(address, None)
            if not addresses:
                self._addresses.pop((asterisk, account), None)
