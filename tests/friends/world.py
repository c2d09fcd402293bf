"""A friend registry over a store that counts its writes, with a clock that the test sets."""

import asyncio
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

from ringfence.detect.friends import Friends, Key, friend_from, identity_of
from ringfence.friends.registry import FriendRegistry
from ringfence.host.names import Names
from ringfence.store.tables import FriendTable
from ringfence.store.writer import BestEffort
from ringfence.values.event import Endpoint, EventKind, SecurityEvent, Service, SourceId, Transport
from ringfence.values.friend import Contact, Friend, FriendReason, Roster, TrunkHost
from ringfence.values.network import Address

NOW = 1_700_000_000.0
HERE = ip_address("198.51.100.1")


class Shelf(FriendTable):
    """A table in memory."""

    def __init__(self) -> None:
        self.rows: dict[Key, Friend] = {}
        self.written: list[int] = []
        self.told = asyncio.Event()

    def current(self, now: float, most: int) -> list[Friend]:
        """Return the current friends."""
        return [friend for friend in self.rows.values() if friend.until > now][-most:]

    def former(self, now: float, most: int) -> list[Friend]:
        """Return the expired friends."""
        return [friend for friend in self.rows.values() if friend.until <= now][-most:]

    def add(self, friends: Iterable[Friend]) -> None:
        """Store friends and record their number."""
        told = {identity_of(one): one for one in friends}
        self.written.append(len(told))
        self.rows.update(told)
        self.told.set()

    def forget(self, address: Address) -> None:
        """Remove an address."""
        self.rows = {key: friend for key, friend in self.rows.items() if friend.address != address}


class WantedNames(Names):
    """Resolves nothing; ``latest`` has the names that were wanted last."""

    latest: frozenset[str] = frozenset()

    def want(self, names: Iterable[str], by: str = "") -> None:
        """Record the names."""
        self.latest = frozenset(names)
        super().want(self.latest, by)


class World:
    """A daemon's friends."""

    def __init__(self, store: Shelf | None = None, now: float = NOW) -> None:
        self.now = now
        self.shelf = store if store is not None else Shelf()
        self.names = WantedNames()
        best_effort = BestEffort(Path("ringfence.db"))
        names, own = self.names, {HERE}
        self.keeping = FriendRegistry(Friends(), self.shelf, best_effort, lambda: self.now, names, own)

    @property
    def followed(self) -> frozenset[str]:
        """The names whose addresses the friends want."""
        return self.names.latest

    def again(self) -> "World":
        """Return the friends of the next daemon with the same store."""
        self.keeping.write()
        other = World(self.shelf, self.now)
        other.keeping.load()
        return other

    def later(self, roster: Roster) -> None:
        """Report a roster that is not the first, and process it."""
        self.keeping.on_roster(roster)
        asyncio.run(self.keeping.process_rosters())

    def ties(self, address: str) -> dict[str, float]:
        """Return the reasons of an address with the seconds that each has left."""
        reasons = self.keeping.friends.reasons(ip_address(address))
        return {str(friend.reason): round(friend.until - self.now) for friend in reasons}

    def wait(self, seconds: float) -> None:
        """Advance the clock."""
        self.now += seconds
        self.keeping.expire()
        self.keeping.write()


def success(address: str, account: str = "alice", **changed: object) -> Friend:
    """Return the friend that a successful authentication makes."""
    friend = friend_from(event_of(address, account, **changed))
    assert friend is not None
    return friend


def event_of(address: str, account: str = "alice", **changed: object) -> SecurityEvent:
    """Return a successful authentication as AMI reports it."""
    values: dict[str, object] = {
        "source": SourceId("pbx", "ami"),
        "kind": EventKind.SUCCESSFUL_AUTH,
        "service": Service.PJSIP,
        "remote": Endpoint(ip_address(address), 5060, Transport.UDP),
        "time": NOW,
        "account": account,
        "session": b"1@there",
        "password": True,
    }
    return SecurityEvent(**(values | changed))  # type: ignore[arg-type]


def contact(
    address: str, account: str = "alice", *, left: float | None = 600.0, now: float = NOW, **changed: bool
) -> Contact:
    """Return a contact whose registration has some seconds left."""
    until = None if left is None else now + left
    return Contact("pbx", Service.PJSIP, account, ip_address(address), until, **changed)


def roster(*contacts: Contact, trunks: Iterable[TrunkHost] | None = (), asterisk: str = "pbx") -> Roster:
    """Return a complete roster of an Asterisk."""
    return Roster(asterisk, contacts, None if trunks is None else tuple(trunks))


def trunk(host: str, name: str = "carrier") -> TrunkHost:
    """Return a server at which the PBX registers."""
    return TrunkHost("pbx", Service.PJSIP, name, host, None, Transport.UDP)


REGISTERED, REACHABLE, AUTHENTICATED, TRUNK = (
    str(reason)
    for reason in (
        FriendReason.REGISTERED,
        FriendReason.REACHABLE,
        FriendReason.AUTHENTICATED,
        FriendReason.TRUNK,
    )
)
