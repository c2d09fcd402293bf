"""The facts about an address or network: its bans, list entries, reasons for being a friend, and attempts."""

import asyncio
import enum
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter

from attrs import Factory, evolve, frozen

from ringfence import street
from ringfence.alarms import AlarmRecord
from ringfence.bans.exempt import ITSELF
from ringfence.config.schema import Settings
from ringfence.detect.friends import MOST
from ringfence.detect.judgement import AddressSummary
from ringfence.detect.rules import Claimed
from ringfence.errors import FirewallError, StoreError
from ringfence.firewall import make_backend
from ringfence.firewall.contract import Backend, Element, FirewallPlan
from ringfence.firewall.limits import LimitMode
from ringfence.host.protected import ProtectedNetworks
from ringfence.lists.locator import Locator
from ringfence.lists.manager import Holder, Lists, holders
from ringfence.lists.regions import Regions, files_of
from ringfence.store.bans import KEEP, BanTable, RecordedBan
from ringfence.store.database import Store
from ringfence.store.file import is_there
from ringfence.store.tables import FriendTable
from ringfence.values.attempt import Attempt, Proof
from ringfence.values.ban import Ban, Scope
from ringfence.values.entry import ListKind
from ringfence.values.event import WIRE
from ringfence.values.friend import Friend
from ringfence.values.location import UNKNOWN, Location
from ringfence.values.network import (
    Network,
    affects,
    format_network,
    is_single,
    overlap,
)


class AddressVerdict(enum.StrEnum):
    """The treatment of packets from an address. If several values apply, the first one is the verdict."""

    OFF = "off"  # nothing is dropped at all, because enforcement is switched off
    ALLOWED = "allowed"  # on the allow list
    PROTECTED = "protected"  # this host needs the address, so no rule bans it
    BANNED = "banned"
    DENIED = "denied"  # on the deny list
    FRIEND = "friend"  # a known phone or trunk of this PBX
    STRANGER = "stranger"  # none of the above


@frozen
class ActiveBan:
    """A ban that is in force and covers the whole queried network.

    ``ban`` is the ban's record, and ``element`` its entry in the kernel. Each is None if it is missing.
    """

    network: Network
    scope: Scope
    ban: Ban | None
    element: Element | None


@frozen
class AttemptOutcome:
    """An attempt, and the ban to which it led.

    ``ban`` is the start of the ban to which the attempt led (seconds since the epoch); None if it led to no
    ban.
    """

    attempt: Attempt
    ban: float | None


@frozen
class Admission:
    """Whether a network may reach the SIP ports, while only some networks may.

    ``mode`` is what the kernel does with the packets of all other networks: drop or only count them.
    ``inside``: the whole network may. ``packets`` is how many of its packets the kernel counted
    as from outside within an hour. It counts a limited number of sources, so 0 may be too low.
    """

    mode: LimitMode
    inside: bool
    packets: int = 0


@frozen
class NetworkFacts:
    """All that is known about ``network``, for which the user asked, at ``now`` (seconds since the epoch).

    ``subject`` is what the rules count and ban: the address itself, or the /64 of an IPv6 address. Without a
    daemon, and for a network of many senders, it is ``network``. ``running`` are the bans of ``network`` that
    are in force, ``past`` those that have ended. ``offences`` is the number of earlier bans, on which the
    length of the next ban depends. ``holders`` are the entries of the allow and deny lists that contain
    ``network``. ``protected`` has all networks that this host needs, each with the reason. ``friends`` are
    the present reasons why ``network`` is a friend, and ``former`` those that have ended. ``passes``: block
    lists and denied regions do not apply to it.

    ``story`` is what the detector remembers about the sender. It is None without a daemon, and for a network
    of many senders. The detector's times are from the monotonic clock; add ``ahead`` (seconds) to get seconds
    since the epoch.

    ``contains_exempt``: a friend or an exempt address is in ``network``. With a story, the prefix of the
    address is meant instead of ``network``, because some rules count and ban a whole prefix. Without a daemon
    it is False.

    ``claimed`` has the limits for bans on unproven evidence. ``plan`` is that of the kernel's present rules,
    without limits if there is no daemon. ``admission`` is None without a daemon, and if all networks may
    reach the SIP ports. ``alarms`` are the active alarms about ``network``. ``enforcing``: enforcement is not
    switched off. ``live``: the facts are from a daemon. ``problems`` has a line for each fact that could not
    be read. ``location`` is where the first address is.
    """

    network: Network
    now: float
    subject: Network
    running: tuple[ActiveBan, ...] = ()
    past: tuple[RecordedBan, ...] = ()
    offences: int = 0
    holders: tuple[Holder, ...] = ()
    protected: Mapping[Network, str] = Factory(dict)
    friends: tuple[Friend, ...] = ()
    former: tuple[Friend, ...] = ()
    passes: bool = False
    story: AddressSummary | None = None
    ahead: float = 0.0
    contains_exempt: bool = False
    claimed: Claimed = Factory(Claimed)
    plan: FirewallPlan = Factory(FirewallPlan)
    admission: Admission | None = None
    alarms: tuple[AlarmRecord, ...] = ()
    enforcing: bool = True
    live: bool = True
    problems: tuple[str, ...] = ()
    location: Location = UNKNOWN

    @property
    def outside(self) -> Admission | None:
        """How an address that may not reach the SIP ports is treated; None for others and wider networks."""
        found = self.admission if is_single(self.network) else None
        return found if found is not None and not found.inside else None

    @property
    def verdict(self) -> AddressVerdict:
        """The present treatment of packets from the network, such as ``banned`` or ``stranger``."""
        if not self.enforcing:
            return AddressVerdict.OFF
        if self.on(ListKind.ALLOW):
            return AddressVerdict.ALLOWED
        if self.reasons and not any(one.ban is not None and one.ban.forced for one in self.running):
            return AddressVerdict.PROTECTED
        if self.running:
            return AddressVerdict.BANNED
        if self.denied:
            return AddressVerdict.DENIED
        return AddressVerdict.FRIEND if self.friends else AddressVerdict.STRANGER

    def on(self, side: ListKind) -> list[Holder]:
        """Return the entries of the allow list or the deny list (``side``) that contain the network."""
        return [holder for holder in self.holders if holder.entry.kind is side]

    @property
    def denied(self) -> list[Holder]:
        """The entries of the deny list that make the kernel drop the network's packets."""
        return [holder for holder in self.on(ListKind.DENY) if holder.by_hand or not self.passes]

    @property
    def gets_in(self) -> bool:
        """Whether the network is a stranger's (not banned, not denied …) and may reach the SIP ports."""
        kept_out = self.outside is not None and self.outside.mode is LimitMode.ENFORCE
        return self.verdict is AddressVerdict.STRANGER and not kept_out

    @property
    def reasons(self) -> dict[Network, str]:
        """The protected networks that overlap the queried one, each with the reason why it is protected."""
        return {kept: why for kept, why in self.protected.items() if overlap(kept, self.network)}

    def attempts(self) -> list[AttemptOutcome]:
        """Return all known attempts, oldest first: those of bans, and those that the detector remembers."""
        bans = [one.ban for one in self.running if one.ban is not None] + [one.ban for one in self.past]
        remembered = self.story.attempts if self.story is not None else ()
        found = list(_merged(bans, remembered))
        found.sort(key=attrgetter("attempt.time"))
        return found


def is_about(subject: str, network: Network) -> bool:
    """Whether an alarm with this subject is about ``network``.

    Its subject is then the network itself, or an account at it (``204 at 192.0.2.1``).
    """
    return subject.rpartition(" at ")[2] == format_network(network)


def sources_of(attempt: Attempt) -> tuple[str, ...]:
    """Return the names of the sources that reported an attempt.

    The wire (the capture of outgoing challenges) is added if a nonce proves the attempt's address: only the
    wire sees to which address a nonce was sent.
    """
    known = attempt.sources
    return (*known, WIRE) if attempt.proof is Proof.NONCE and WIRE not in known else known


def _merged(bans: Iterable[Ban], remembered: Iterable[Attempt]) -> Iterator[AttemptOutcome]:
    """Yield each attempt of ``bans``, and each one that the detector remembers (``remembered``), once.

    If both have an attempt, its two copies are merged. The detector may have got a better proof, more
    sources, and the reason and the account from AMI since the ban was recorded.
    """
    kept: dict[object, list[Attempt]] = {}
    for attempt in remembered:
        kept.setdefault(_moment(attempt), []).append(attempt)
    seen: Counter[object] = Counter()
    for ban in bans:
        here: Counter[object] = Counter()
        for attempt in ban.attempts:
            moment = _moment(attempt)
            key = moment, attempt.account
            here[key] += 1
            if here[key] <= seen[key]:  # already yielded for another ban, such as that of a wider network
                continue
            better = _take_copy(kept.get(moment, []), attempt)
            if better is not None and better.account != attempt.account:
                here[moment, better.account] += 1
            yield AttemptOutcome(attempt if better is None else _better(attempt, better), ban.since)
        seen |= here
    for left in kept.values():
        for attempt in left:
            yield AttemptOutcome(attempt, None)


def _moment(attempt: Attempt) -> object:
    return attempt.time, attempt.address, attempt.kind


def _request(attempt: Attempt) -> object:
    return attempt.service, attempt.transport, attempt.trusted


def _take_copy(remembered: list[Attempt], recorded: Attempt) -> Attempt | None:
    """Remove from ``remembered``, attempts of one moment, the copy of ``recorded``; return it, or None.

    A further source may have named another account since the ban was recorded.
    """
    same = [one for one in remembered if one.account == recorded.account]
    request = _request(recorded)
    renamed = [one for one in remembered if _request(one) == request and {*one.sources} > {*recorded.sources}]
    copy = next(iter((*same, *renamed)), None)
    if copy is not None:
        remembered.remove(copy)
    return copy


def _better(one: Attempt, other: Attempt) -> Attempt:
    sources = tuple(dict.fromkeys((*other.sources, *one.sources)))
    return evolve(other, proof=max(one.proof, other.proof), sources=sources)


# -- reads the bans of a network from the kernel and the database


MAX_PAST = 50
"""The maximum number of recorded bans that are returned; the latest ones."""


@frozen
class BanRecords:
    """The bans that cover a network, as read from the kernel and from the database.

    ``elements`` are the bans in the kernel. ``past`` are those in the database; some of them may still be in
    force. ``problems`` has a line for each part that could not be read.
    """

    elements: tuple[Element, ...]
    past: tuple[RecordedBan, ...]
    problems: tuple[str, ...]


def read_bans(backend: Backend, recorded: BanTable | None, network: Network, now: float) -> BanRecords:
    """Read the bans that cover ``network`` at ``now`` (seconds since the epoch) from kernel and database.

    ``recorded`` is the database's table of bans; None without a database. In the daemon, call this function
    in a thread, because ipset may have to list many bans.
    """
    problems: list[str] = []
    elements: list[Element] = []
    past: list[RecordedBan] = []
    try:
        elements.extend(backend.covering(network))
    except FirewallError as error:
        problems.append(f"the kernel's bans are unknown: {error}")
    try:
        past = recorded.past(network, now - KEEP, MAX_PAST) if recorded is not None else []
    except StoreError as error:
        problems.append(f"recorded bans are unknown: {error}")
    return BanRecords(tuple(elements), tuple(past), tuple(problems))


def running_of(
    found: BanRecords, known: Mapping[tuple[Network, Scope], Ban | None], now: float, *, friend: bool
) -> tuple[ActiveBan, ...]:
    """Return the bans in force at ``now`` (seconds since the epoch), the widest network first.

    ``found`` has the bans in the kernel and in the database. ``known`` has the bans that the daemon knows, by
    network and scope, each with its record or None; it is empty without a daemon. A ban is returned if the
    kernel, the database or the daemon has it. For the address of a ``friend``, bans that spare it are left
    out.
    """
    recorded = {(one.ban.network, one.ban.scope): one.ban for one in found.past if one.runs(now)}
    elements = {(one.network, one.scope): one for one in found.elements}
    bans = {**known, **recorded}
    applying = (key for key in {*elements, *bans} if affects(key[0], friend=friend))
    every = sorted(applying, key=lambda key: (key[0].prefixlen, str(key[1])))
    return tuple(ActiveBan(*key, bans.get(key), elements.get(key)) for key in every)


# -- collects the facts about an address without a daemon: from kernel, database, configuration and host


def facts_offline(settings: Settings, network: Network, now: float) -> NetworkFacts:
    """Collect the facts about ``network`` at ``now`` (seconds since the epoch).

    What only the daemon knows is missing, such as attempts that led to no ban.
    """
    problems: list[str] = []
    path = settings.store.path
    if is_there(path):
        try:
            with Store.open(path, owner=False, runtime=settings.control.socket.parent) as store:
                return _facts_from(settings, network, now, store, problems)
        except StoreError as error:
            problems.append(str(error))
    return _facts_from(settings, network, now, None, problems)


def _facts_from(
    settings: Settings, network: Network, now: float, store: Store | None, problems: list[str]
) -> NetworkFacts:
    backend = make_backend(settings.firewall.backend)
    try:
        found = read_bans(backend, store.bans if store is not None else None, network, now)
    finally:
        backend.close()
    friends = _friends(store.friends, network, now) if store is not None else []
    present = tuple(friend for friend in friends if friend.until > now)
    return NetworkFacts(
        network=network,
        now=now,
        subject=network,
        running=running_of(found, {}, now, friend=bool(present) and is_single(network)),
        past=tuple(past for past in found.past if not past.runs(now)),
        holders=tuple(_holders(settings, store, network, now)),
        protected=protected_networks(settings, problems),
        friends=present,
        former=tuple(friend for friend in friends if friend.until <= now),
        passes=bool(friends) and is_single(network),
        enforcing=store is None or not store.switch.is_off,
        live=False,
        problems=(*found.problems, *problems),
        location=Locator(files_of(settings)).read([network.network_address])[0],
    )


def _friends(friends: FriendTable, network: Network, now: float) -> list[Friend]:
    both = (*friends.current(now, MOST), *friends.former(now, MOST))
    return [friend for friend in both if friend.address in network]


def _holders(settings: Settings, store: Store | None, network: Network, now: float) -> list[Holder]:
    """Return the entries of the allow and deny lists that contain ``network`` at ``now`` (epoch seconds).

    ``store`` is the daemon's database. Without it, only the networks that the configuration lists are
    searched. Its host names and regions are not.
    """
    configured = settings.lists()
    if store is None:
        return list(holders(network, configured.entries, {}, Regions()))
    others = [module.build(settings) for module in street.modules("denied")]
    lists = Lists(store.entries, configured, lambda _networks: None, now=lambda: now, others=others)
    lists.on_resolved({name: frozenset(ages) for name, ages in store.names.load().items()})
    lists.load()
    lists.read_databases()
    lists.load()
    return asyncio.run(lists.holding(network))


def protected_networks(settings: Settings, problems: list[str]) -> dict[Network, str]:
    """Return the networks that this host needs, each with the reason.

    For each part that cannot be read, add a line to ``problems``.
    """
    found = ProtectedNetworks(settings.proxies())
    found.read()
    problems += [alarm.text for alarm in found.alarms]
    return {**ITSELF, **found.reasons}
