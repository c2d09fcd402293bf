"""The facts about an address or network: its bans, list entries, reasons for being a friend, and attempts."""

import enum
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from attrs import Factory, evolve, frozen

from ringfence.alarms import ActiveAlarm
from ringfence.detect.judgement import AddressSummary
from ringfence.detect.rules import Claimed
from ringfence.firewall.contract import Element
from ringfence.lists.lookup import Holder
from ringfence.model import WIRE, Attempt, Ban, Friend, ListKind, Network, Proof, Scope, format_network
from ringfence.networks import overlap
from ringfence.store.past import Past


class AddressVerdict(enum.StrEnum):
    """The treatment of packets from an address. If several values apply, the first one is the verdict."""

    OFF = "off"  # nothing is dropped at all, because enforcement is switched off
    ALLOWED = "allowed"  # on the allow list
    PROTECTED = "protected"  # this host needs it, so no rule bans it
    BANNED = "banned"
    DENIED = "denied"  # on the deny list
    FRIEND = "friend"  # a known phone or trunk of this PBX
    STRANGER = "stranger"  # none of the above


@frozen
class ActiveBan:
    """A ban that is in force and covers the whole queried network.

    ``ban`` is its record, and ``element`` its entry in the kernel. One of them may be missing (None).
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
    """All that is known about ``network``, for which the user asked, at ``now`` (seconds since the epoch).

    ``subject``: the sender is counted and banned as this network (for an IPv6 address, its /64). ``running``
    are its bans in force, ``past`` those that have ended. ``offences`` is the number of earlier bans, which
    decides how long the next one lasts. ``holders`` are the entries of the allow and deny lists that contain
    it. ``protected`` maps all networks that this host needs to the reasons. ``friends`` are the present
    reasons why it is a friend, and ``former`` those that have ended.

    ``story`` is what the detector remembers about the sender; None without a daemon, and for a network of
    many senders. ``ahead`` is the wall clock minus the detector's (monotonic) clock; it converts the times in
    ``story``. ``contains_exempt``: a friend or an exempt address
    is in the network; with a story, in the prefix around the address. ``claimed`` has the limits for bans on
    unproven evidence. ``live``: the facts are from a daemon. ``problems`` has a line for each fact that could
    not be read.
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
        """The present treatment of packets from the network."""
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
        """Return the entries of the list ``side`` that contain the network."""
        return [holder for holder in self.holders if holder.entry.kind is side]

    @property
    def reasons(self) -> dict[Network, str]:
        """The protected networks that overlap the queried one, each with the reason why it is protected."""
        return {kept: why for kept, why in self.protected.items() if overlap(kept, self.network)}

    @property
    def single(self) -> bool:
        """Whether the queried network is that of a single sender."""
        return self.network.prefixlen == self.network.max_prefixlen or self.network == self.subject

    def attempts(self) -> list[AttemptOutcome]:
        """Return all known attempts, oldest first: those of bans, and those that the detector remembers."""
        bans = [one.ban for one in self.running if one.ban is not None] + [one.ban for one in self.past]
        remembered = self.story.attempts if self.story is not None else ()
        found = list(_merged(bans, remembered))
        found.sort(key=lambda seen: seen.attempt.time)
        return found


def is_about(subject: str, network: Network) -> bool:
    """Whether an alarm's subject is ``network``, or an account at it (``204 at 192.0.2.1``)."""
    return subject.rpartition(" at ")[2] == format_network(network)


def sources_of(attempt: Attempt) -> tuple[str, ...]:
    """Return the names of the sources that reported an attempt.

    The wire (the capture of outgoing challenges) is added if a nonce proves the attempt's address: only the
    wire sees to which address a nonce was sent.
    """
    known = attempt.sources
    return (*known, WIRE) if attempt.proof is Proof.NONCE and WIRE not in known else known


def _merged(bans: Iterable[Ban], remembered: Iterable[Attempt]) -> Iterator[AttemptOutcome]:
    """Yield each attempt of ``bans``, and each one that the detector remembers, once.

    If an attempt is in both, the detector's copy is yielded, because it may have later proof and sources.
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
            if here[key] <= seen[key]:  # already yielded: it also led to another ban, usually of its network
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
