"""Conversion of entries to networks for the kernel: those that are never dropped, and those that are denied.

If a network is on both lists, it is allowed. The kernel checks the allow list first, so nothing has to be
subtracted from the deny list.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from attrs import Factory, define, frozen

from ringfence.alarm_codes import Alarm, AlarmCode
from ringfence.lists.entries import COMMAND, CONFIGURATION, EntryKind, parse_entry, protection_refusal
from ringfence.lists.prefixes import Gatherer, Prefixes, code_of, coded, text_of
from ringfence.model import ListEntry, ListKind, Network, parse_network
from ringfence.networks import BITS, SHORTEST, contains

Answers = Mapping[str, frozenset[Network]]
"""The addresses of each host name."""

RegionLookup = Callable[[frozenset[str]], Mapping[str, Prefixes]]
"""A function that takes regions (countries and autonomous systems), and returns the networks of each."""


ListAlarm = tuple[ListKind, Alarm]
"""The list that an alarm is about, and the alarm."""


@frozen
class ListNetworks:
    """The networks that are never dropped (``allow``), and those that are denied, stored compactly.

    ``deny`` are the networks that an administrator denied by hand. ``fetched`` are those of imported lists
    and of regions. Their contents come from others, so friends pass them.

    ``guarded`` are networks that the host itself needs (gateway, resolvers, the administrator's login),
    except those denied by force. The kernel's allow list must contain them too. Otherwise an administrator
    who denies a larger network could cut them off by accident.
    """

    allow: Prefixes = Factory(Prefixes)
    deny: Prefixes = Factory(Prefixes)
    fetched: Prefixes = Factory(Prefixes)
    guarded: frozenset[Network] = frozenset()


@frozen
class ComposedLists:
    """The networks of some entries, and facts about them.

    ``hosts`` are the host names to resolve. ``regions`` are the countries and autonomous systems, each with
    its number of networks. ``forced`` are networks that are denied even if protected. ``ends`` is the
    earliest end of an entry (seconds since the epoch), None if no entry ends. ``alarms`` are about entries
    without effect.
    """

    networks: ListNetworks
    hosts: frozenset[str] = frozenset()
    regions: Mapping[str, int] = Factory(dict)
    forced: tuple[Network, ...] = ()
    ends: float | None = None
    alarms: tuple[ListAlarm, ...] = ()


@define
class _Found:
    """The networks, host names and regions that were found for one list so far.

    ``fetched`` are the networks of imported lists and, for the deny list, of regions.
    """

    networks: Gatherer = Factory(Gatherer)
    fetched: Gatherer = Factory(Gatherer)
    hosts: set[str] = Factory(set)
    regions: set[str] = Factory(set)


def compose(
    entries: Iterable[ListEntry],
    answers: Answers,
    regions: RegionLookup,
    protected: Mapping[Network, str],
) -> ComposedLists:
    """Compose the networks of ``entries``. An entry that cannot be used is left out, and adds an alarm.

    ``answers`` has the addresses of host names, and ``regions`` returns the networks of countries and
    autonomous systems. ``protected`` maps networks that must stay reachable to their role, such as ``the
    default gateway``.
    """
    found = {kind: _Found() for kind in ListKind}
    forced: list[Network] = []
    ends: float | None = None
    alarms: list[ListAlarm] = []
    for entry in entries:
        if entry.until is not None:
            ends = entry.until if ends is None else min(ends, entry.until)
        try:
            network = _take(entry, found[entry.kind])
        except ValueError as error:
            text = f"{entry.kind} list: {error}"
            alarms.append((entry.kind, Alarm(AlarmCode.LIST_INVALID_ENTRY, entry.value, text)))
            continue
        if entry.kind is ListKind.ALLOW or network is None:
            continue
        if entry.forced:
            forced.append(network)
        elif reason := protection_refusal(network, protected):
            text = f"deny list: {reason}, so it is not denied; remove it, or add it with --force"
            alarms.append((entry.kind, Alarm(AlarmCode.LIST_NOT_DENIED, entry.value, text)))
    counts = _add_resolved(found, answers, regions, alarms)
    rolls = ListNetworks(
        found[ListKind.ALLOW].networks.prefixes(),
        found[ListKind.DENY].networks.prefixes(),
        found[ListKind.DENY].fetched.prefixes(),
        guarded(protected, forced),
    )
    alarms += _wide_allow_list(rolls.allow)
    hosts = frozenset(found[ListKind.ALLOW].hosts)
    return ComposedLists(rolls, hosts, counts, tuple(forced), ends, tuple(alarms))


def _wide_allow_list(allow: Prefixes) -> Iterator[ListAlarm]:
    """Yield an alarm for each IP version of which the allow list covers a large part of the Internet."""
    for version, shortest in SHORTEST.items():
        if allow.public_addresses(version) > 1 << (BITS[version] - shortest):
            text = f"allow list: it covers more public addresses than an IPv{version} /{shortest} has"
            yield ListKind.ALLOW, Alarm(AlarmCode.LIST_ALLOWS_MUCH, f"IPv{version}", text)


def guarded(protected: Iterable[Network], forced: Sequence[Network]) -> frozenset[Network]:
    """Return the protected networks without those denied by force."""
    return frozenset(own for own in protected if not any(own.overlaps(network) for network in forced))


def _take(entry: ListEntry, found: _Found) -> Network | None:
    """Add an entry to ``found``; raise ValueError if it is invalid.

    Return its network, or None for a host name, a region or an imported entry.
    """
    if entry.origin not in {
        COMMAND,
        CONFIGURATION,
    }:  # imported: always a network, parsed by the faster coded(), because there may be 100,000s
        found.fetched.add_code(*coded(entry.value))
        return None
    value = parse_entry(entry.value)
    if value.kind is EntryKind.HOST:
        found.hosts.add(value.text)
    elif value.kind is EntryKind.REGION:
        found.regions.add(value.text)
    elif value.network is not None:
        found.networks.add(value.network)
    return value.network


def _add_resolved(
    found: Mapping[ListKind, _Found], answers: Answers, regions: RegionLookup, alarms: list[ListAlarm]
) -> Mapping[str, int]:
    """Add the networks of host names and regions; return the number of networks of each region.

    A region without a network adds an alarm to ``alarms``. Only the allow list may contain host names.
    """
    for host in found[ListKind.ALLOW].hosts:
        for network in answers.get(host, ()):
            found[ListKind.ALLOW].networks.add(network)
    wanted = frozenset(region for mine in found.values() for region in mine.regions)
    known = regions(wanted) if wanted else {}
    for kind, mine in found.items():
        for region in sorted(mine.regions):
            if known.get(region):
                (mine.networks if kind is ListKind.ALLOW else mine.fetched).extend(known[region])
            else:
                text = f"{kind} list: no database has a network of it"
                alarms.append((kind, Alarm(AlarmCode.LIST_UNKNOWN_REGION, region, text)))
    return {region: len(networks) for region, networks in known.items()}


# -- the entries of the lists that contain an address, found quickly also in long lists
#
# An imported list may have 100,000 lines, so its entries are not read one by one. Only 32 networks contain
# an IPv4 address, from /1 to /32 (128 for IPv6; no list has a /0). The database is searched for the texts
# of these networks.


Around = Callable[[str, Network], Network | None]
"""A function that takes the name of a region and a network.

It returns the network of the region that contains this network, or None.
"""


@frozen
class Holder:
    """An entry that contains the network that was looked up.

    ``network`` is the part of the entry that contains the other network: the entry's own network, an address
    of its host name, or a network of its country or autonomous system.
    """

    entry: ListEntry
    network: Network

    @property
    def by_hand(self) -> bool:
        """Whether an administrator named the network itself.

        The networks of imported lists and of regions come from others, so friends pass them.
        """
        hand = {COMMAND, CONFIGURATION}
        return self.entry.origin in hand and parse_entry(self.entry.value).kind is not EntryKind.REGION


def texts_around(network: Network) -> list[str]:
    """Return the text of each network that contains ``network``, from /1 to ``network`` itself."""
    version, code = code_of(network)
    number, bits = code >> 8, network.max_prefixlen
    return [
        text_of(version, (number >> bits - length << bits - length) << 8 | length)
        for length in range(1, network.prefixlen + 1)
    ]


def holders(
    network: Network, entries: Iterable[ListEntry], answers: Answers, around: Around
) -> Iterator[Holder]:
    """Yield those of ``entries`` that contain the whole of ``network``."""
    for entry in entries:
        try:
            found = _held_by(entry, network, answers, around)
        except ValueError:  # an invalid entry, about which compose() adds an alarm
            continue
        if found is not None:
            yield Holder(entry, found)


def _held_by(entry: ListEntry, network: Network, answers: Answers, around: Around) -> Network | None:
    if entry.origin not in {COMMAND, CONFIGURATION}:
        own = parse_network(entry.value)
        return own if contains(own, network) else None
    value = parse_entry(entry.value)
    if value.kind is EntryKind.REGION:
        return around(value.text, network)
    if value.kind is EntryKind.HOST:
        return next((one for one in answers.get(value.text, ()) if contains(one, network)), None)
    return value.network if value.network is not None and contains(value.network, network) else None
