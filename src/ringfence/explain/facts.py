"""The facts of an address or network: its bans, lists, friends and attempts."""

import enum
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from attrs import Factory, evolve, frozen

from ringfence.alarms import ActiveAlarm
from ringfence.detect.judgement import AddressSummary
from ringfence.detect.rules import Claimed
from ringfence.firewall.contract import Element
from ringfence.lists.lookup import Holder
from ringfence.model import Attempt, Ban, Friend, ListKind, Network, Proof, Scope, format_network
from ringfence.networks import overlap
from ringfence.store.history import Past

WIRE = "wire"


class AddressVerdict(enum.StrEnum):
    """What happens to a packet from the address: the first of these that applies."""

    OFF = "off"  # nothing is dropped at all
    ALLOWED = "allowed"
    PROTECTED = "protected"
    BANNED = "banned"
    DENIED = "denied"
    FRIEND = "friend"
    STRANGER = "stranger"


@frozen
class ActiveBan:
    """A ban that covers the whole queried network.

    ``ban`` is its record, ``element`` its entry in the kernel; either may be None.
    """

    network: Network
    scope: Scope
    ban: Ban | None
    element: Element | None


@frozen
class AttemptOutcome:
    """An attempt, and the start of the ban that it led to; None if it led to none."""

    attempt: Attempt
    ban: float | None


@frozen
class NetworkFacts:
    """All facts, as of ``now`` (wall-clock seconds).

    ``subject`` is the network that is counted and banned for ``network``, such as its /64. ``past`` are bans
    that have ended. ``offences`` is the number of bans that determine the length of the next. ``story`` is
    the detector's knowledge; it is None without a daemon, and for a whole network. ``ahead`` is the wall
    clock minus the detector's clock. ``contains_exempt``: a friend or an exempt address is in the network, or
    in the prefix around one address. ``problems`` has a line for each fact that could not be read.
    """

    network: Network
    now: float
    subject: Network
    running: tuple[ActiveBan, ...] = ()
    past: tuple[Past, ...] = ()
    offences: int = 0
    holders: tuple[Holder, ...] = ()
    protected: Mapping[Network, str] = Factory(dict)
    friends: tuple[Friend, ...] = ()
    former: tuple[Friend, ...] = ()
    story: AddressSummary | None = None
    ahead: float = 0.0
    contains_exempt: bool = False
    claimed: Claimed = Factory(Claimed)
    alarms: tuple[ActiveAlarm, ...] = ()
    enforcing: bool = True
    live: bool = True
    problems: tuple[str, ...] = ()

    @property
    def verdict(self) -> AddressVerdict:
        """What happens to its packets now."""
        if not self.enforcing:
            return AddressVerdict.OFF
        if self.on(ListKind.ALLOW):
            return AddressVerdict.ALLOWED
        if self.reasons and not any(one.ban is not None and one.ban.forced for one in self.running):
            return AddressVerdict.PROTECTED
        if self.running:
            return AddressVerdict.BANNED
        if self.on(ListKind.DENY):
            return AddressVerdict.DENIED
        return AddressVerdict.FRIEND if self.friends else AddressVerdict.STRANGER

    def on(self, side: ListKind) -> list[Holder]:
        """Return the entries of a list that contain it."""
        return [holder for holder in self.holders if holder.entry.kind is side]

    @property
    def reasons(self) -> dict[Network, str]:
        """The reasons why the host needs it, or an address in it."""
        return {kept: why for kept, why in self.protected.items() if overlap(kept, self.network)}

    @property
    def single(self) -> bool:
        """Whether the query was for a single sender, not for a network with many."""
        return self.network.prefixlen == self.network.max_prefixlen or self.network == self.subject

    def attempts(self) -> list[AttemptOutcome]:
        """Return all known attempts, oldest first: those of bans, and those in the detector's memory."""
        bans = [one.ban for one in self.running if one.ban is not None] + [one.ban for one in self.past]
        remembered = self.story.attempts if self.story is not None else ()
        found = list(_merged(bans, remembered))
        found.sort(key=lambda seen: seen.attempt.time)
        return found


def is_about(subject: str, network: Network) -> bool:
    """Whether an alarm's subject is ``network``, or an account at it (``204 at 192.0.2.1``)."""
    return subject.rpartition(" at ")[2] == format_network(network)


def sources_of(attempt: Attempt) -> tuple[str, ...]:
    """Return the sources that reported an attempt, plus the wire if no other source can have proven it."""
    known = attempt.sources
    return (*known, WIRE) if attempt.proof is Proof.NONCE and WIRE not in known else known


def _merged(bans: Iterable[Ban], remembered: Iterable[Attempt]) -> Iterator[AttemptOutcome]:
    """Yield each attempt once.

    The detector's copy is preferred to the ban's, because it has later proof and sources.
    """
    kept: dict[object, list[Attempt]] = {}
    for attempt in remembered:
        kept.setdefault(_identity(attempt), []).append(attempt)
    seen: Counter[object] = Counter()
    for ban in bans:
        here: Counter[object] = Counter()
        for attempt in ban.attempts:
            key = _identity(attempt)
            here[key] += 1
            if here[key] <= seen[key]:  # it also led to another ban, usually of its network
                continue
            same = kept.get(key)
            better = same.pop(0) if same else None
            yield AttemptOutcome(attempt if better is None else _better(attempt, better), ban.since)
        seen |= here
    for left in kept.values():
        for attempt in left:
            yield AttemptOutcome(attempt, None)


def _identity(attempt: Attempt) -> object:
    return attempt.time, attempt.address, attempt.account, attempt.kind, attempt.event


def _better(one: Attempt, other: Attempt) -> Attempt:
    sources = tuple(dict.fromkeys((*other.sources, *one.sources)))
    return evolve(other, proof=max(one.proof, other.proof), sources=sources)
