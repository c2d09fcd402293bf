"""What the lists mean for the kernel: the networks that are never dropped, and those that are denied.

If a network is on both lists, it is allowed. The kernel checks the allow list first, so nothing has to be
subtracted from the deny list.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from attrs import Factory, define, frozen

from ringfence.alarm_codes import Alarm, AlarmCode
from ringfence.lists.entries import EntryKind, parse_entry, protection_refusal
from ringfence.lists.prefixes import Gatherer, Prefixes
from ringfence.lists.regions import code_of_unknown
from ringfence.values.entry import ListEntry, ListKind
from ringfence.values.network import BITS, SHORTEST, Network

Answers = Mapping[str, frozenset[Network]]
"""The addresses of each host name."""

RegionLookup = Callable[[frozenset[str]], Mapping[str, Prefixes]]
"""A function that takes regions (``lists/entries.py``), and returns the networks of each."""


ListAlarm = tuple[ListKind, Alarm]
"""The list (allow or deny) that an alarm is about, and the alarm."""


@frozen
class ListNetworks:
    """The networks that are never dropped (``allow``), and those that are denied, stored compactly.

    ``deny`` are the networks that an administrator denied by hand. ``fetched`` are those of regions and of
    features, and ``decided`` those that other hosts have banned. Their contents come from others, so friends
    (known phones) pass them.

    ``guarded`` are networks that the host itself needs (gateway, resolvers, the administrator's login),
    except those denied by force. The kernel's allow list must contain them too. Otherwise an administrator
    who denies a larger network could cut them off by accident.

    ``inside`` are the networks and regions that may reach the SIP ports, if a fence closes them to all
    others. ``whole``: each of these regions has networks, and every database was read.
    """

    allow: Prefixes = Factory(Prefixes)
    deny: Prefixes = Factory(Prefixes)
    fetched: Prefixes = Factory(Prefixes)
    decided: Prefixes = Factory(Prefixes)
    guarded: frozenset[Network] = frozenset()
    inside: Prefixes = Factory(Prefixes)
    whole: bool = True


@frozen
class ComposedLists:
    """The networks of all entries of both lists, and facts about the entries.

    ``hosts`` are the host names to resolve. ``regions`` are the regions, each with
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

    ``fetched`` are the networks of regions and of features, for the deny list.
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
    others: Iterable[Prefixes] = (),
    inside: Iterable[str] = (),
) -> ComposedLists:
    """Return the networks of ``entries``. An entry that cannot be used is left out, and adds an alarm.

    ``answers`` has the addresses of host names, and ``regions`` returns the networks of regions.
    ``protected`` maps networks that must stay reachable to their role, such as ``the default gateway``.
    ``others`` are networks that features deny. ``inside`` are the entries that may reach the SIP ports
    through the fence.
    """
    fence = _inside(inside)
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
    counts = _add_resolved(found, answers, regions, alarms, fence)
    for networks in others:
        found[ListKind.DENY].fetched.extend(networks)
    composed = ListNetworks(
        found[ListKind.ALLOW].networks.prefixes(),
        found[ListKind.DENY].networks.prefixes(),
        found[ListKind.DENY].fetched.prefixes(),
        guarded=guarded(protected, forced),
        inside=fence.networks.prefixes(),
        whole=all(counts[region] for region in fence.regions),
    )
    alarms += _wide_allow_list(composed.allow)
    hosts = frozenset(found[ListKind.ALLOW].hosts)
    return ComposedLists(composed, hosts, counts, tuple(forced), ends, tuple(alarms))


def _wide_allow_list(allow: Prefixes) -> Iterator[ListAlarm]:
    """Yield an alarm for each IP version of which the allow list covers a large part of the Internet."""
    for version, shortest in SHORTEST.items():
        if allow.public_addresses(version) > 1 << (BITS[version] - shortest):
            text = f"allow list: it covers more public addresses than an IPv{version} /{shortest} has"
            yield ListKind.ALLOW, Alarm(AlarmCode.LIST_ALLOWS_MUCH, f"IPv{version}", text)


def guarded(protected: Iterable[Network], forced: Sequence[Network]) -> frozenset[Network]:
    """Return ``protected``, networks that this host needs, without those denied by force (``forced``)."""
    return frozenset(own for own in protected if not any(own.overlaps(network) for network in forced))


def _take(entry: ListEntry, found: _Found) -> Network | None:
    """Add an entry to ``found``; raise ValueError if it is invalid.

    Return its network, or None for a host name or a region.
    """
    value = parse_entry(entry.value)
    if value.kind is EntryKind.HOST:
        found.hosts.add(value.text)
    elif value.kind is EntryKind.REGION:
        found.regions.add(value.text)
    elif value.network is not None:
        found.networks.add(value.network)
    return value.network


def _inside(entries: Iterable[str]) -> _Found:
    """Return the networks and regions in ``entries``, which may reach the SIP ports (fence)."""
    fence = _Found()
    for value in map(parse_entry, entries):
        if value.network is not None:
            fence.networks.add(value.network)
        else:
            fence.regions.add(value.text)
    return fence


def _add_resolved(
    found: Mapping[ListKind, _Found],
    answers: Answers,
    regions: RegionLookup,
    alarms: list[ListAlarm],
    fence: _Found,
) -> Mapping[str, int]:
    """Add the networks of host names and regions; return the number of networks of each region.

    A region without a network adds an alarm to ``alarms``. Only the allow list may contain host names.
    """
    for host in found[ListKind.ALLOW].hosts:
        for network in answers.get(host, ()):
            found[ListKind.ALLOW].networks.add(network)
    wanted = frozenset(region for mine in (*found.values(), fence) for region in mine.regions)
    known = regions(wanted) if wanted else {}
    for kind, mine in found.items():
        for region in sorted(mine.regions):
            if known.get(region):
                (mine.networks if kind is ListKind.ALLOW else mine.fetched).extend(known[region])
            else:
                text = f"{kind} list: no database has a network of it"
                alarms.append((kind, Alarm(code_of_unknown(), region, text)))
    for region in sorted(fence.regions):
        fence.networks.extend(known[region])
        if not known[region]:
            text = "fence: no database has a network of it"
            alarms.append((ListKind.ALLOW, Alarm(code_of_unknown(), region, text)))
    return {region: len(networks) for region, networks in known.items()}
