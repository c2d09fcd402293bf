"""The ipset backend: bans are elements of sets, and iptables rules drop the packets that match them.

``sets.py`` describes the sets. Those of bans are ``hash:net`` with timeouts and counters. Addresses and
prefixes are in the same set (a /32 within a banned /24 is an element of its own). The kernel removes expired
elements, and counts the packets that match an element. An existing set of ours is adopted with all its
elements, so a restart has no moment without protection. An adopted set keeps its size; ``ringfence off`` and
``ringfence on`` make it again with the configured size.

Bans use netlink only, and start no process (:class:`SetChanges`).

The health check finds a missing set, missing rules that should name a set, and a network list whose number of
elements has changed. In a network list with more than 4 096 elements, it only looks up one element. For each
set of bans it also looks up one sample ban (``sets.SampleBans``). It returns the number of bans, and the
caller compares that number. Empty sets are looked at every ten checks.
"""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from attrs import evolve, frozen

from ringfence.errors import FirewallError, FirewallUnsupportedError
from ringfence.firewall.contract import (
    Change,
    Counters,
    Element,
    FirewallPlan,
    Health,
    ListSteps,
    Opened,
    Outcome,
    Remembered,
    Requirement,
    RuleCounter,
    not_open_error,
)
from ringfence.firewall.ipset import iptables, messages
from ringfence.firewall.ipset.changes import SetChanges
from ringfence.firewall.ipset.installation import Family, rule_requirements
from ringfence.firewall.ipset.iptables_rules import REPORTED
from ringfence.firewall.ipset.messages import IpsetHeader
from ringfence.firewall.ipset.sets import (
    SetSpec,
    WrittenList,
    ban_set_name,
    ban_set_names,
    check_set,
    covering,
    create_list_set,
    create_set,
    destroy,
    find,
    friends_exempt_values,
    has_lost_sample,
    lengths_of,
    list_elements,
    list_set_name,
    mismatch,
    own_set_names,
    present_set_names,
    read_header,
    replace,
    require_ipset,
    set_specs,
    table_set_name,
    temporary_name,
)
from ringfence.firewall.limits import Table
from ringfence.firewall.network_lists import NetworkList
from ringfence.firewall.nftables.watch import ChangeMonitor
from ringfence.firewall.requirements import check_requirement, require_capabilities, why_no_ipv6
from ringfence.firewall.stages import counter_names
from ringfence.netlink.connection import NetlinkConnection, NetlinkError
from ringfence.values.ban import Scope
from ringfence.values.network import VERSIONS, Network

# -- the sets of the ipset backend that hold no bans: network lists and senders
#
# To replace a list, a temporary set is filled in steps. Then the two sets exchange their contents at once,
# and the temporary set is destroyed. The list's set keeps its name, so the rules need no change. The list
# is never empty in between, and a failure before the exchange leaves it unchanged.


# Seconds for which the count of a sender is kept after the sender left a set.
_MEMORY = 60.0


def replace_list_in_steps(
    kernel: NetlinkConnection, which: NetworkList, version: int, networks: Sequence[Network]
) -> Generator[None, None, WrittenList]:
    """Replace the networks of one IP version on a list, step by step; return what was written.

    ``networks`` is a result of :func:`by_version`. Raises FirewallError, also if another program changes the
    temporary set. A failure before this set is complete leaves the list unchanged.
    """
    name = list_set_name(which, version)
    fresh = temporary_name(name)
    destroy(kernel, fresh)  # a killed process or an abandoned replacement may have left one
    try:
        kernel.request(create_list_set(fresh, version, len(networks)))
        for at in range(0, len(networks), messages.MAX_ELEMENTS):
            kernel.request(messages.add_permanent(fresh, networks[at : at + messages.MAX_ELEMENTS]))
            yield
        _require_elements(kernel, fresh, len(networks))
        kernel.request(messages.swap(name, fresh), repeat=False)
    except NetlinkError as error:
        raise FirewallError(f"set {name} could not be filled and is unchanged: {error}") from error
    finally:
        destroy(kernel, fresh)
    return WrittenList(len(networks), networks[-1] if networks else None)


def _require_elements(kernel: NetlinkConnection, name: str, number: int) -> None:
    """Raise FirewallError if the set ``name`` does not have exactly this ``number`` of elements."""
    head = read_header(kernel, name)
    if head is None or head.elements != number:
        raise FirewallError(f"set {name} is not as it was filled: another program changes it meanwhile")


def _without_zero_prefix(networks: Iterable[Network]) -> list[Network]:
    """Return networks as ipset accepts them: a /0 becomes two halves."""
    return [part for network in networks for part in ((network,) if network.prefixlen else network.subnets())]


class SenderCounts:
    """Adds up the packets of each sender in a table whose elements end after some seconds.

    An element ends some seconds after it was added, and the next element of the sender begins at zero. So
    the counts of a sender's elements are added here. One that was in no set for a minute is forgotten.
    """

    def __init__(self) -> None:
        # The keys are a table and a network. The values are the packets of the sender's earlier elements,
        # those of its present element, and when it was last in the set (monotonic seconds).
        self._seen: dict[tuple[str, Network], tuple[int, int, float]] = {}

    def add(self, table: Table, elements: Iterable[Remembered]) -> list[Remembered]:
        """Return the senders in ``table``, whose present ``elements`` these are, with all their packets."""
        now, found = time.monotonic(), []
        for one in elements:
            sender = table.name, one.network
            before, last, _ = self._seen.get(sender, (0, 0, now))
            if one.packets < last:
                before += last
            self._seen[sender] = before, one.packets, now
            found.append(Remembered(one.network, before + one.packets))
        self._seen = {sender: seen for sender, seen in self._seen.items() if now - seen[2] < _MEMORY}
        return found


def by_version(networks: Iterable[Network]) -> Mapping[int, list[Network]]:
    """Group networks by IP version, as a set of ipset has them: each once, and a /0 as two halves."""
    sorted_: dict[int, list[Network]] = {version: [] for version in VERSIONS}
    for network in dict.fromkeys(_without_zero_prefix(networks)):
        sorted_[network.version].append(network)
    return sorted_


# -- makes the sets of ringfence, adopts existing ones, and replaces damaged ones


@frozen
class InstalledSets:
    """The result of :func:`make_sets`.

    ``adopted`` is the number of bans that existing sets had. ``damaged``: a set was missing or changed.
    ``lists`` has the network lists whose contents are unknown: ringfence has written nothing to the set yet,
    or its number of elements has changed since, or it has lost its sample. It maps the name of the set to its
    present number of elements. ``named`` has the IP versions with a set that a rule names already.
    """

    adopted: int
    damaged: bool
    lists: Mapping[str, WrittenList]
    named: frozenset[int]


def make_sets(
    kernel: NetlinkConnection,
    versions: Iterable[int],
    maxelem: int,
    known: Mapping[str, WrittenList],
    *,
    first: bool,
) -> InstalledSets:
    """Make the missing sets of these IP versions.

    ``maxelem`` is the number of bans for which a new set has room. ``known`` has what was written to the sets
    of network lists, by the name of the set. ``first``: the firewall was not open before.

    If a set has one of our names, but another type or IP version, it belongs to another program, and
    FirewallError is raised. If it only lacks our options (timeouts, counters), it is replaced, or
    FirewallError is raised if ``first`` is true.
    """
    wanted = [spec for version in versions for spec in set_specs(version)]
    heads = {spec: read_header(kernel, spec.name) for spec in wanted}
    named = frozenset(spec.version for spec, head in heads.items() if head is not None and head.references)
    damaged = _replace_foreign(kernel, heads, maxelem, first=first)
    adopted, lists = 0, {}
    for spec, head in heads.items():
        if head is None:
            damaged = True
            try:
                kernel.request(create_set(spec, maxelem))
            except NetlinkError as error:
                raise FirewallError(f"set {spec.name} could not be made: {error}") from error
        elif spec.bans:
            adopted += head.elements
        if spec.network_list:
            elements = head.elements if head is not None else 0
            written = known.get(spec.name)
            lost = written is not None and has_lost_sample(kernel, spec.name, written)
            if written is None or elements != written.elements or lost:
                damaged |= written is not None
                lists[spec.name] = WrittenList(elements)
    return InstalledSets(adopted, damaged, lists, named)


def _replace_foreign(
    kernel: NetlinkConnection, heads: dict[SetSpec, IpsetHeader | None], maxelem: int, *, first: bool
) -> bool:
    """Replace sets that have our names but were made by another program; return whether there were any.

    ``heads`` has the header of each wanted set, None for a missing one; the headers of replaced sets are
    updated. ``maxelem`` and ``first`` are those of :func:`make_sets`, which also describes when FirewallError
    is raised.
    """
    foreign = []
    for spec, head in heads.items():
        if head is not None and (why := mismatch(head, spec)):
            if first or (head.type_name, head.version) != (spec.type_name, spec.version):
                raise FirewallError(why)
            foreign.append(spec)
    for spec in foreign:
        fresh = evolve(spec, name=temporary_name(spec.name))
        replace(kernel, spec.name, fresh.name, create_set(fresh, maxelem))
        heads[spec] = read_header(kernel, spec.name)
    return bool(foreign)


# CAP_NET_RAW: iptables' set match opens a raw socket to query the set's number.
_CAPABILITIES = ("CAP_NET_ADMIN", "CAP_NET_RAW")
LOOKS = 10
"""Of so many health checks, one looks at empty sets too.

Nothing can be missing in such a set, and the kernel keeps it while a rule names it. Of some forty sets most
are empty.
"""


class IpsetBackend:
    """Bans in the kernel by ipset and iptables; see ``contract.Backend`` for the methods.

    ``proc`` is the mount point of procfs. ``find_tools`` returns the iptables programs of an IP version.
    """

    name = "ipset"
    enforces = True

    def __init__(
        self,
        plan: FirewallPlan | None = None,
        *,
        proc: Path = Path("/proc"),
        find_tools: Callable[[int], iptables.Tools] = iptables.find_tools,
    ) -> None:
        self.plan = plan if plan is not None else FirewallPlan()
        self._proc = proc
        self._find_tools = find_tools
        self._kernel = NetlinkConnection()
        self._families: dict[int, str | None] = {}
        self._rules: dict[int, Family] = {}
        self._lists: dict[str, WrittenList] = {}
        self._changes = SetChanges(self._kernel)
        self._counts = SenderCounts()
        self._monitor: ChangeMonitor | None = None
        self._empty: set[str] = set()  # the sets that had no element at the last look, nor were written since
        self._looks = 0

    def requirements(self) -> list[Requirement]:
        """Return everything that ``open`` needs, each with its problem if it is missing. Changes nothing."""
        found = [
            check_requirement("capabilities of this process", self._require_capabilities),
            check_requirement("ipset in the kernel", partial(require_ipset, self._kernel)),
            *(
                check_requirement(f"iptables for IPv{version}", partial(self._guard, version))
                for version in VERSIONS
            ),
        ]
        if any(one.problem is not None for one in found[:2]):
            return found  # without capabilities or ipset, the features below cannot be checked
        one_guarded = any(
            part.problem is None for part in found[2:]
        )  # if one IP version is guarded, what the other one lacks is optional
        found[2:] = [evolve(one, optional=one_guarded and one.problem is not None) for one in found[2:]]
        for version, one in zip(VERSIONS, found[2:], strict=True):
            if one.problem is None:
                found += rule_requirements(self._kernel, version, self.plan)
        return found

    def is_present(self) -> bool:
        """Whether the kernel has any of the sets. Needs no ``open``.

        No rule of ringfence can exist without them: the kernel keeps a set as long as an iptables rule names
        it.
        """
        return bool(present_set_names(self._kernel))

    def listing(self, version: int) -> str:
        """Return the shell command that lists the rules of an IP version."""
        return f"{'iptables' if version == VERSIONS[0] else 'ip6tables'} -t raw -S"

    def open(self) -> Opened:
        """Make missing sets and rules, and repair changed ones. Idempotent.

        ``contract.Backend.open`` describes the result and the errors.
        """
        families, tools = self._preflight()
        first = not self._families
        sets = make_sets(self._kernel, tools, self.plan.maxelem, self._lists, first=first)
        damaged = sets.damaged
        placed = {}
        for version, found in tools.items():
            family = self._rules.get(version)
            if family is None or family.tools != found or family.is_legacy != found.is_legacy():
                family = self._rules[version] = Family(version, found, self._kernel)
            placed[version] = family.install(self.plan)
            damaged |= placed[version].damaged
            if not family.adopted and version in sets.named:
                family.remove_other_flavour()
            family.adopted = True  # from now on these rules name the sets
        self._lists |= sets.lists  # not earlier: if open() fails, health() must still find the damage
        if first:
            self._destroy_leftovers()
        self._families = families
        self._changes.samples.discard_missing(self._kernel)
        self._listen()
        return Opened(
            families,
            adopted=sets.adopted,
            wire="; ".join(f"IPv{v}: {p.wire}" for v, p in placed.items() if p.wire) or None,
            limits="; ".join(f"IPv{v}: {p.limits}" for v, p in placed.items() if p.limits) or None,
            repaired=damaged and not first,
        )

    def attach(self) -> None:
        """Use the sets that the kernel has. See ``contract.Backend.attach``."""
        self._families, _ = self._preflight()

    def _listen(self) -> None:
        """Begin to receive the kernel's notifications of changed rules, if it sends any about ours."""
        reports = not any(family.is_legacy for family in self._rules.values())
        if self._monitor is not None and not reports:
            self._monitor.close()
            self._monitor = None
        elif self._monitor is None and reports:
            with suppress(OSError):
                self._monitor = ChangeMonitor()

    def _destroy_leftovers(self) -> None:
        """Destroy the sets of other releases and of absent features, unless a rule uses them."""
        for name in present_set_names(self._kernel) - own_set_names():
            with suppress(FirewallError):
                destroy(self._kernel, name)

    def _preflight(self) -> tuple[dict[int, str | None], dict[int, iptables.Tools]]:
        """Check the requirements; return why IP versions cannot be guarded, and the tools of the others.

        The first mapping has for each IP version the reason, None if it can be guarded. Changes nothing.
        Raise FirewallError if neither version can be guarded, or if a capability or ipset is missing.
        """
        self._require_capabilities()
        require_ipset(self._kernel)
        families: dict[int, str | None] = {}
        tools: dict[int, iptables.Tools] = {}
        for version in VERSIONS:
            try:
                tools[version] = self._guard(version)
                families[version] = None
            except FirewallUnsupportedError as error:
                families[version] = str(error)
        if not tools:
            raise FirewallUnsupportedError("; ".join(str(reason) for reason in families.values()))
        return families, tools

    def _guard(self, version: int) -> iptables.Tools:
        if version == 6 and (reason := why_no_ipv6(self._proc)) is not None:  # noqa: PLR2004 - IPv6
            raise FirewallUnsupportedError(reason)
        return self._find_tools(version)

    def _require_capabilities(self) -> None:
        require_capabilities(self._proc, *_CAPABILITIES)

    def _require_open(self) -> None:
        if not self._families:
            raise not_open_error()

    @property
    def _guarded(self) -> list[int]:
        return [version for version, reason in self._families.items() if reason is None]

    def apply(self, batch: Sequence[Change]) -> list[Outcome]:
        """Carry out every change, and return an outcome for each, in the order of ``batch``.

        A change that the kernel refuses has an error in its outcome. Changes of one set are carried out in
        order. Idempotent; needs ``open``.
        """
        self._require_open()
        self._empty.clear()
        return self._changes.apply(batch, self._families)

    def replace_list_in_steps(self, which: NetworkList, networks: Iterable[Network]) -> ListSteps:
        """Replace a list in steps. See ``contract.Backend.replace_list_in_steps``."""
        sorted_ = by_version(networks)
        yield None
        self._require_open()
        for version in self._guarded:
            filled = yield from replace_list_in_steps(self._kernel, which, version, sorted_[version])
            self._lists[list_set_name(which, version)] = filled
            self._empty.clear()

    def list(self, known: Iterable[tuple[Network, Scope]] | None = None) -> Iterator[Element]:  # noqa: ARG002
        """Yield every ban in the kernel; nothing if no set of ours exists.

        100 000 elements take half a second. So it uses its own socket, and a thread may list while the event
        loop bans.
        """
        with NetlinkConnection() as kernel:
            for version in VERSIONS:
                for scope in Scope:
                    for friends_exempt in friends_exempt_values(version):
                        yield from list_elements(
                            kernel, ban_set_name(version, scope, friends_exempt=friends_exempt), scope
                        )

    def find(self, network: Network, scope: Scope = Scope.FULL) -> Element | None:
        """Return one ban from the kernel, None if it is not there. Needs ``open``."""
        found = (find(self._kernel, name, network, scope) for name in ban_set_names(network, scope))
        return next((one for one in found if one is not None), None)

    def covering(self, network: Network) -> Iterator[Element]:
        """Yield the bans of ``network`` and of all networks around it. Uses a socket of its own."""
        version = network.version
        with NetlinkConnection() as kernel:
            try:
                for scope in Scope:
                    for friends_exempt in friends_exempt_values(version):
                        name = ban_set_name(version, scope, friends_exempt=friends_exempt)
                        yield from covering(kernel, name, network, scope)
            except NetlinkError:
                require_ipset(kernel)  # raises a better error if ipset is missing
                raise

    def health(self) -> Health:
        """Check sets and rules; the module's docstring lists what is checked. Starts no process."""
        self._require_open()
        if self._monitor is not None:
            self._monitor.drain()
        damages: list[str | None] = []
        elements = 0
        if self._looks % LOOKS == 0:
            self._empty.clear()
        self._looks += 1
        for version in self._guarded:
            family = self._rules[version]
            damages.append(family.check())
            for spec in set_specs(version):
                if spec.name in self._empty:
                    continue
                references, filled = family.references.get(spec.name, 0), self._lists.get(spec.name)
                damage, bans = check_set(self._kernel, spec, references, filled)
                damages.append(damage)
                elements += bans
                if damage is None and not bans and (filled is None or not filled.elements):
                    self._empty.add(spec.name)
        damages.append(self._changes.samples.first_missing(self._kernel))
        combined = "; ".join(filter(None, damages)) or None
        return Health(combined, elements, combined is not None)

    def rules_differ(self) -> bool:
        """Whether any of our rules are damaged.

        Takes 0.02 ms with iptables-legacy, 0.1 ms with iptables-nft.
        """
        self._require_open()
        return any(self._rules[version].check() is not None for version in self._guarded)

    def watch_fd(self) -> int | None:
        """Return a descriptor that becomes readable when another program changes rules of iptables-nft.

        None with iptables-legacy: only periodic checks find changes of its rules, and of all sets.
        """
        return self._monitor.fileno() if self._monitor is not None else None

    def counters(self) -> Counters:
        """Return the counters of rules (by iptables-save), and the size of each set. Needs ``open``.

        Changes nothing. Uses its own socket, as ``list`` does, so that another thread can ban meanwhile.
        """
        self._require_open()
        sums: dict[str, tuple[int, int]] = {}
        installed = dict(self._rules)  # another thread may change it meanwhile
        for family in installed.values():
            for kind, (packets, octets) in family.counters().items():
                before = sums.get(kind, (0, 0))
                sums[kind] = before[0] + packets, before[1] + octets
        names = [spec.name for version in installed for spec in set_specs(version)]
        with NetlinkConnection() as kernel:
            heads = {name: read_header(kernel, name) for name in names}
        return Counters(
            rules=tuple(RuleCounter(kind, *sums[kind]) for kind in REPORTED if kind in sums),
            sets={name: head.elements if head is not None else None for name, head in heads.items()},
            counted={name: sums[name][0] for name in counter_names() if name in sums},
        )

    def remembered(self, table: Table) -> Sequence[Remembered]:
        """Return the senders in ``table``. Needs ``open``; starts no process."""
        self._require_open()
        found = [
            # A set may hold IPv6 /64s, but lists each as an address.
            Remembered(one.network.supernet(new_prefix=lengths_of(table)[version]), one.packets)
            for version in self._guarded
            for one in list_elements(self._kernel, table_set_name(table, version))
        ]
        return self._counts.add(table, found) if table.renews else found

    def flush(self) -> None:
        """Remove our rules, chains and sets. Idempotent; works without ``open``.

        Raises FirewallError if a rule of another program uses a set of ours. That set stays.
        """
        self._require_capabilities()
        families = []
        for version in VERSIONS:
            try:
                tools = self._find_tools(version)
            except FirewallUnsupportedError:
                continue  # without the tool there should be no rules; if there are, destroy() raises
            families.append(Family(version, tools, self._kernel))
            families[-1].remove()
        self._rules = {}
        require_ipset(self._kernel)
        try:
            self._destroy_sets()
        except FirewallError:
            # The host may have changed its flavour of iptables since the rules were written.
            for family in families:
                family.remove_other_flavour()
            self._destroy_sets()
        self._families, self._lists = {}, {}
        self._changes, self._counts = SetChanges(self._kernel), SenderCounts()

    def _destroy_sets(self) -> None:
        for name in present_set_names(self._kernel):
            destroy(self._kernel, name)

    def close(self) -> None:
        """Close the sockets. Idempotent."""
        self._kernel.close()
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None
