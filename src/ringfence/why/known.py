"""What is known of an address or a network, as a value: the ban that covers it, lists, friends, attempts."""

import enum
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from attrs import Factory, evolve, frozen

from ringfence.alarms import Alarm
from ringfence.bans.exempt import overlap
from ringfence.detect.detector import Story
from ringfence.detect.rules import Claimed
from ringfence.firewall.contract import Element
from ringfence.lists.holding import Holder
from ringfence.model import Attempt, Ban, Friend, Network, Proof, Scope, Side, shown
from ringfence.store_past import Past

WIRE = "wire"


class Verdict(enum.StrEnum):
    """What becomes of a packet from there, by the first of these that holds."""

    OFF = "off"  # nothing is dropped at all
    ALLOWED = "allowed"
    PROTECTED = "protected"
    BANNED = "banned"
    DENIED = "denied"
    FRIEND = "friend"
    STRANGER = "stranger"


@frozen
class Running:
    """A ban that covers the whole of what was asked for.

    ``ban`` is what is on record of it, ``element`` what the kernel has; either may be None.
    """

    network: Network
    scope: Scope
    ban: Ban | None
    element: Element | None


@frozen
class Told:
    """An attempt, and when the ban began that it led to; None where it led to none."""

    attempt: Attempt
    ban: float | None


@frozen
class Known:
    """All of it, as of ``now`` (wall-clock seconds).

    ``subject`` is what is counted and banned for it. ``past`` are the bans that are over. ``offences`` is how
    many bans decide on the length of the next. ``story`` is what the detector knows, None where there is no
    daemon, or a whole network was asked for; ``ahead`` is the wall clock's lead over its own. ``spared``:
    whether a friend, or somebody who is never banned, lives in the network, or in the prefix around one
    address. ``problems`` is what could not be looked at, a line each.
    """

    network: Network
    now: float
    subject: Network
    running: tuple[Running, ...] = ()
    past: tuple[Past, ...] = ()
    offences: int = 0
    holders: tuple[Holder, ...] = ()
    protected: Mapping[Network, str] = Factory(dict)
    friends: tuple[Friend, ...] = ()
    former: tuple[Friend, ...] = ()
    story: Story | None = None
    ahead: float = 0.0
    spared: bool = False
    claimed: Claimed = Factory(Claimed)
    alarms: tuple[Alarm, ...] = ()
    enforcing: bool = True
    live: bool = True
    problems: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """What becomes of its packets now."""
        if not self.enforcing:
            return Verdict.OFF
        if self.on(Side.ALLOW):
            return Verdict.ALLOWED
        if self.reasons and not any(one.ban is not None and one.ban.forced for one in self.running):
            return Verdict.PROTECTED
        if self.running:
            return Verdict.BANNED
        if self.on(Side.DENY):
            return Verdict.DENIED
        return Verdict.FRIEND if self.friends else Verdict.STRANGER

    def on(self, side: Side) -> list[Holder]:
        """Give the entries of a list that hold it."""
        return [holder for holder in self.holders if holder.entry.side is side]

    @property
    def reasons(self) -> dict[Network, str]:
        """Why the host itself needs it, or something in it."""
        return {kept: why for kept, why in self.protected.items() if overlap(kept, self.network)}

    @property
    def single(self) -> bool:
        """Whether one sender was asked for, and not a network of many."""
        return self.network.prefixlen == self.network.max_prefixlen or self.network == self.subject

    def attempts(self) -> list[Told]:
        """Give every attempt that is known, oldest first: those of bans, and those that are remembered."""
        bans = [one.ban for one in self.running if one.ban is not None] + [one.ban for one in self.past]
        remembered = self.story.attempts if self.story is not None else ()
        found = list(_together(bans, remembered))
        found.sort(key=lambda told: told.attempt.time)
        return found


def covers(one: Network, other: Network) -> bool:
    """Say whether the whole of ``other`` lies in ``one``."""
    return one.version == other.version and other.subnet_of(one)  # type: ignore[arg-type] # of one version


def is_about(subject: str, network: Network) -> bool:
    """Say whether an alarm's subject is ``network``, or somebody at it (``204 at 192.0.2.1``)."""
    return subject.rpartition(" at ")[2] == shown(network)


def sources_of(attempt: Attempt) -> tuple[str, ...]:
    """Give who knows of an attempt: who told of it, and the wire where it alone can have proven it."""
    known = attempt.sources
    return (*known, WIRE) if attempt.proof is Proof.NONCE and WIRE not in known else known


def _together(bans: Iterable[Ban], remembered: Iterable[Attempt]) -> Iterator[Told]:
    """Give each attempt once: what led to a ban is mostly remembered too, and better known meanwhile."""
    kept: dict[object, list[Attempt]] = {}
    for attempt in remembered:
        kept.setdefault(_what_it_is(attempt), []).append(attempt)
    told: Counter[object] = Counter()
    for ban in bans:
        here: Counter[object] = Counter()
        for attempt in ban.attempts:
            key = _what_it_is(attempt)
            here[key] += 1
            if here[key] <= told[key]:  # it led to another ban too, of its network mostly
                continue
            same = kept.get(key)
            better = same.pop(0) if same else None
            yield Told(attempt if better is None else _better(attempt, better), ban.since)
        told |= here
    for left in kept.values():
        for attempt in left:
            yield Told(attempt, None)


def _what_it_is(attempt: Attempt) -> object:
    return attempt.time, attempt.address, attempt.account, attempt.kind, attempt.event


def _better(one: Attempt, other: Attempt) -> Attempt:
    sources = tuple(dict.fromkeys((*other.sources, *one.sources)))
    return evolve(other, proof=max(one.proof, other.proof), sources=sources)
