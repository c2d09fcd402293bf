"""The networks of both lists, as the kernel gets them: those never dropped, and those denied.

If a network is on both lists, it is allowed. The kernel checks the allow list first, so nothing has to be
subtracted from the deny list.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from attrs import Factory, define, frozen

from ringfence.alarm_codes import Alarm, AlarmCode
from ringfence.firewall import network_lists
from ringfence.firewall.network_lists import NetworkList
from ringfence.lists.entries import EntryKind, EntryValue, parse_entry, protection_refusal
from ringfence.lists.prefixes import Gatherer, Prefixes
from ringfence.lists.regions import Regions, code_of_unknown
from ringfence.values.entry import ListEntry, ListKind
from ringfence.values.network import BITS, SHORTEST, Network

Answers = Mapping[str, frozenset[Network]]
"""The addresses of each host name, each as a network of one address."""

_NONE = Prefixes()


@frozen
class ListNetworks:
    """The networks that are never dropped (``allow``), and those that are denied, stored compactly.

    ``deny`` are the networks that an administrator denied by hand. ``others`` are those of other lists of the
    kernel: of ``EXTERNAL``, with the denied regions and the block lists, and of the lists of features.
    ``partial`` are the lists of features that may lack networks: a region has none, or a database was not
    read.

    ``guarded`` are networks that the host itself needs (gateway, resolvers, the administrator's login),
    except those denied by force. The kernel's allow list must contain them too. Otherwise an administrator
    who denies a larger network could cut them off by accident.
    """

    allow: Prefixes = Factory(Prefixes)
    deny: Prefixes = Factory(Prefixes)
    others: Mapping[NetworkList, Prefixes] = Factory(dict)
    partial: frozenset[NetworkList] = frozenset()
    guarded: frozenset[Network] = frozenset()

    def of(self, which: NetworkList) -> Prefixes:
        """Return the networks that the kernel's list ``which`` must have, without ``guarded`` ones."""
        own = {network_lists.ALLOW: self.allow, network_lists.DENY: self.deny}
        return {**self.others, **own}.get(which, _NONE)


@frozen
class ComposedLists:
    """The networks of all entries of both lists, and facts about the entries.

    ``hosts`` are the host names to resolve. ``regions`` are the regions whose files were read, each with its
    number of networks. ``forced`` are networks that are denied even if protected. ``ends`` is the
    earliest end of an entry (seconds since the epoch), None if no entry ends. ``alarms`` are about entries
    without effect.
    """

    networks: ListNetworks
    hosts: frozenset[str] = frozenset()
    regions: Mapping[str, int] = Factory(dict)
    forced: tuple[Network, ...] = ()
    ends: float | None = None
    alarms: tuple[Alarm, ...] = ()


@define
class _Found:
    """The networks that were found so far for each list of the kernel.

    ``hosts`` are the host names of the allow list, and ``regions`` the regions, each with the list of the
    kernel that gets its networks. ``forced`` and ``alarms`` are those of :class:`ComposedLists`.
    """

    networks: defaultdict[NetworkList, Gatherer] = Factory(lambda: defaultdict(Gatherer))
    hosts: set[str] = Factory(set)
    regions: set[tuple[NetworkList, str]] = Factory(set)
    forced: list[Network] = Factory(list)
    alarms: list[Alarm] = Factory(list)

    def add(self, value: EntryValue, which: NetworkList) -> None:
        """Add an entry whose networks are for the list ``which``. Only the allow list has host names."""
        if value.network is not None:
            self.networks[which].add(value.network)
        elif value.kind is EntryKind.REGION:
            self.regions.add((which, value.text))
        elif which is network_lists.ALLOW:
            self.hosts.add(value.text)

    def take(self, entry: ListEntry, protected: Mapping[Network, str]) -> None:
        """Add an entry of the allow or deny list; if the entry has no effect, add an alarm about it.

        ``protected`` maps networks that must stay reachable to their role.
        """
        try:
            value = parse_entry(entry.value)
        except ValueError as error:
            text = f"{entry.kind} list: {error}"
            self.alarms.append(Alarm(AlarmCode.LIST_INVALID_ENTRY, entry.value, text))
            return
        self.add(value, _list_of(entry.kind, value))
        if entry.kind is ListKind.ALLOW or value.network is None:
            return
        if entry.forced:
            self.forced.append(value.network)
        elif reason := protection_refusal(value.network, protected):
            text = f"deny list: {reason}, so it is not denied; remove it, or add it with --force"
            self.alarms.append(Alarm(AlarmCode.LIST_NOT_DENIED, entry.value, text))


def compose(
    entries: Iterable[ListEntry],
    answers: Answers,
    regions: Regions,
    protected: Mapping[Network, str],
    others: Iterable[tuple[NetworkList, Prefixes]] = (),
    added: Mapping[NetworkList, Iterable[str]] | None = None,
) -> ComposedLists:
    """Return the networks of ``entries``. An entry that cannot be used is left out, and adds an alarm.

    ``answers`` has the addresses of host names. ``protected`` maps networks that must stay reachable to their
    role, such as ``the default gateway``. ``others`` are networks that features deny, each with its list of
    the kernel. ``added`` are the networks and regions of other lists of features.
    """
    found, ends = _Found(), list[float]()
    for entry in entries:
        if entry.until is not None:
            ends.append(entry.until)
        found.take(entry, protected)
    for which, values in (added or {}).items():
        for value in map(parse_entry, values):
            found.add(value, which)
    for which, networks in others:
        found.networks[which].extend(networks)
    for network in frozenset[Network]().union(*(answers.get(host, ()) for host in found.hosts)):
        found.networks[network_lists.ALLOW].add(network)
    counts, partial = _add_regions(found, regions)
    made = {which: gatherer.prefixes() for which, gatherer in found.networks.items() if len(gatherer)}
    allow, deny = (made.pop(one, _NONE) for one in (network_lists.ALLOW, network_lists.DENY))
    return ComposedLists(
        ListNetworks(allow, deny, made, partial, guarded(protected, found.forced)),
        frozenset(found.hosts),
        counts,
        tuple(found.forced),
        min(ends, default=None),
        (*found.alarms, *_wide_allow_list(allow)),
    )


def _list_of(kind: ListKind, value: EntryValue) -> NetworkList:
    """Return the list of the kernel for an entry of the allow or deny list."""
    if kind is ListKind.ALLOW:
        return network_lists.ALLOW
    return network_lists.EXTERNAL if value.kind is EntryKind.REGION else network_lists.DENY


def _add_regions(found: _Found, regions: Regions) -> tuple[dict[str, int], frozenset[NetworkList]]:
    """Add the networks of the regions to ``found``, and an alarm for each region that has none.

    Return the number of networks of each region whose files were read, and the lists that may lack some.
    """
    wanted = frozenset(region for _, region in found.regions)
    known = regions.networks(wanted)
    for which, region in found.regions:
        found.networks[which].extend(known[region])
    counts = {region: len(known[region]) for region in sorted(wanted) if not regions.unknown(region)}
    text = "no database has a network of it"
    found.alarms += [Alarm(code_of_unknown(), region, text) for region, size in counts.items() if not size]
    return counts, frozenset(which for which, region in found.regions if not counts.get(region))


def _wide_allow_list(allow: Prefixes) -> Iterator[Alarm]:
    """Yield an alarm for each IP version of which the allow list covers a large part of the Internet."""
    for version, shortest in SHORTEST.items():
        if allow.public_addresses(version) > 1 << (BITS[version] - shortest):
            text = f"allow list: it covers more public addresses than an IPv{version} /{shortest} has"
            yield Alarm(AlarmCode.LIST_ALLOWS_MUCH, f"IPv{version}", text)


def guarded(protected: Iterable[Network], forced: Sequence[Network]) -> frozenset[Network]:
    """Return ``protected``, networks that this host needs, without those denied by force (``forced``)."""
    return frozenset(own for own in protected if not any(own.overlaps(network) for network in forced))
