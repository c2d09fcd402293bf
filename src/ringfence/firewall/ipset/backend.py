"""The ipset backend: bans are elements of sets, and iptables rules drop the packets that match them.

``sets.py`` describes the sets. Those of bans are ``hash:net`` with timeouts and counters. Addresses and
prefixes are in the same set (a /32 within a banned /24 is an element of its own), the kernel removes expired
elements, and it counts packets. An existing set of ours is adopted with all its elements, so a restart has no
moment without protection. An adopted set keeps its size. ``ringfence off`` and ``on`` make it again.

Bans use netlink only, and start no process. Refusals are reported by element, and the rest is sent again. A
change without an acknowledgement is an error, although it may have been carried out. The caller repeats it,
because every change may be repeated.

The health check finds a missing set, a set that too few rules name, and a network list with another number of
elements than were written. For each set of bans it also looks up one sample ban: the one with the latest end
among those added recently. The caller compares the number of bans.
"""

import errno
import itertools
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from ipaddress import ip_network
from pathlib import Path

from attrs import evolve

from ringfence.errors import (
    FirewallError,
    FirewallUnsupportedError,
    SetFullError,
)
from ringfence.firewall.contract import (
    OBSERVE_MOST,
    Add,
    Change,
    Counters,
    Element,
    FirewallPlan,
    Flooder,
    Health,
    NetworkList,
    Opened,
    Outcome,
    Remove,
    Requirement,
    RuleCounter,
    exempts_friends,
)
from ringfence.firewall.ipset import iptables, messages
from ringfence.firewall.ipset.iptables_family import Family, rule_requirements
from ringfence.firewall.ipset.iptables_rules import OVER_LIMIT, REPORTED
from ringfence.firewall.ipset.kernel import destroy, find, list_elements, read_header, replace, require_ipset
from ringfence.firewall.ipset.messages import Code, IpsetHeader
from ringfence.firewall.ipset.sets import (
    VERSIONS,
    SetSpec,
    all_set_names,
    ban_set_name,
    ban_set_names,
    create_set,
    friends_exempt_values,
    list_set_name,
    mismatch,
    set_specs,
    temporary_name,
)
from ringfence.firewall.ipset.static_sets import FloodCounts, by_version, observe, replace_list_in_steps
from ringfence.firewall.ipset.watch import SampleBans, WrittenList, check_set
from ringfence.firewall.requirements import check_requirement, require_capabilities
from ringfence.model import Address, Network, Scope
from ringfence.netlink.connection import NetlinkConnection, NetlinkError

# iptables' set match opens a raw socket to query the set's number, hence the second one.
_CAPABILITIES = ("CAP_NET_ADMIN", "CAP_NET_RAW")
# After so many refusals in one message the rest is sent one by one: a full set refuses every new element, and
# sending the rest again after each refusal would be quadratic.
_PATIENCE = 3
_UNKNOWN = Outcome(Remove(ip_network("0.0.0.0/0")), error=FirewallError("no result is known"))


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
        self._samples = SampleBans()
        self._flood = FloodCounts()

    def requirements(self) -> list[Requirement]:
        """Return what ``open`` needs, and what of it is missing; changes nothing."""
        found = [
            check_requirement("capabilities of this process", self._require_capabilities),
            check_requirement("ipset in the kernel", partial(require_ipset, self._kernel)),
            *(
                check_requirement(f"iptables for IPv{version}", partial(self._guard, version))
                for version in VERSIONS
            ),
        ]
        if any(one.problem is not None for one in found[:2]):
            return found  # the rest cannot be checked
        one_guarded = any(
            part.problem is None for part in found[2:]
        )  # one IP version can be guarded without the other
        found[2:] = [evolve(one, optional=one_guarded and one.problem is not None) for one in found[2:]]
        for version, one in zip(VERSIONS, found[2:], strict=True):
            if one.problem is None:
                found += [
                    Requirement(name, problem, optional=True)
                    for name, problem in rule_requirements(self._kernel, version, self.plan)
                ]
        return found

    def open(self) -> Opened:
        """Put sets and rules in place. Idempotent; repairs. See ``contract.Backend.open`` for the errors."""
        families, tools = self._preflight()
        first = not self._families
        adopted, damaged = self._make_sets(tools)
        placed = {}
        for version, found in tools.items():
            family = self._rules.get(version)
            if family is None or family.tools != found:
                family = self._rules[version] = Family(version, found, self._kernel)
            placed[version] = family.install(self.plan)
            damaged |= placed[version].damaged
        self._families = families
        self._samples.discard_missing(self._kernel)
        for family in self._rules.values():
            family.check()  # installing one IP version changed the generation for the other
        return Opened(
            families,
            adopted=adopted,
            wire="; ".join(f"IPv{v}: {p.wire}" for v, p in placed.items() if p.wire) or None,
            limiter="; ".join(f"IPv{v}: {p.limiter}" for v, p in placed.items() if p.limiter) or None,
            repaired=damaged and not first,
        )

    def _make_sets(self, versions: Iterable[int]) -> tuple[int, bool]:
        """Make the missing sets; return the number of existing bans, and whether a set was damaged."""
        wanted = [spec for version in versions for spec in set_specs(version)]
        heads = {spec: read_header(self._kernel, spec.name) for spec in wanted}
        damaged = self._replace_foreign(heads)
        adopted = 0
        for spec, head in heads.items():
            if head is None:
                damaged = True
                try:
                    self._kernel.request(create_set(spec, self.plan.maxelem))
                except NetlinkError as error:
                    raise FirewallError(f"set {spec.name} could not be made: {error}") from error
            elif spec.bans:
                adopted += head.elements
            if spec.network_list:
                elements = head.elements if head is not None else 0
                known = self._lists.get(spec.name)
                if known is None or elements != known.elements:
                    damaged |= known is not None
                    self._lists[spec.name] = WrittenList(elements)
        return adopted, damaged

    def _replace_foreign(self, heads: dict[SetSpec, IpsetHeader | None]) -> bool:
        """Replace foreign sets with our names; return whether there were any.

        While the firewall is open, such a set results from a swap by another program. At the first opening it
        belongs to another program, and is an error.
        """
        foreign = []
        for spec, head in heads.items():
            if head is not None and (why := mismatch(head, spec)):
                if not self._families or (head.type_name, head.version) != (spec.type_name, spec.version):
                    raise FirewallError(why)
                foreign.append(spec)
        for spec in foreign:
            fresh = evolve(spec, name=temporary_name(spec.name))
            replace(self._kernel, spec.name, fresh.name, create_set(fresh, self.plan.maxelem))
            heads[spec] = read_header(self._kernel, spec.name)
        return bool(foreign)

    def _preflight(self) -> tuple[dict[int, str | None], dict[int, iptables.Tools]]:
        """Return why each IP version cannot be guarded (None: it can), and its tools; changes nothing."""
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
        if version == 6 and not (self._proc / "self/net/if_inet6").exists():  # noqa: PLR2004 - IPv6
            raise FirewallUnsupportedError("this host has no IPv6")
        return self._find_tools(version)

    def _require_capabilities(self) -> None:
        require_capabilities(self._proc, *_CAPABILITIES)

    def _require_open(self) -> None:
        if not self._families:
            raise FirewallError("the firewall is not open: no ban is possible")

    @property
    def _guarded(self) -> list[int]:
        return [version for version, reason in self._families.items() if reason is None]

    def apply(self, batch: Sequence[Change]) -> list[Outcome]:
        """Carry out every change, in order within each set. Idempotent; needs ``open``."""
        self._require_open()
        outcomes = [_UNKNOWN] * len(batch)
        lost: FirewallError | None = None
        for (version, scope, friends_exempt), indexes in _by_set(batch).items():
            reason = self._families[version]
            name = ban_set_name(version, scope, friends_exempt=friends_exempt)
            for part in _runs(batch, indexes):
                changes = [batch[index] for index in part]
                if reason is not None:
                    done = _failed(changes, FirewallUnsupportedError(reason))
                elif lost is not None:  # another request would only time out again
                    done = _failed(changes, lost)
                else:
                    if friends_exempt and isinstance(changes[0], Remove):  # others may have added it there
                        self._send(ban_set_name(version, scope), changes)
                    done, lost = self._send(name, changes)
                for index, outcome in zip(part, done, strict=True):
                    outcomes[index] = outcome
        return outcomes

    def _send(self, name: str, changes: Sequence[Change]) -> tuple[list[Outcome], FirewallError | None]:
        """Send changes of one kind, and send the changes after a refused one again.

        Return the outcomes, and the error of a broken connection, if any.
        """
        seconds = [messages.whole_seconds(one.timeout) if isinstance(one, Add) else 0 for one in changes]
        outcomes: list[Outcome] = []
        refused = 0
        while rest := changes[len(outcomes) :]:
            times = seconds[len(outcomes) :]
            size = 1 if refused > _PATIENCE else len(rest)
            try:
                self._kernel.request(_message(name, rest[:size], times))
            except NetlinkError as error:
                index = messages.refused_index(error.request)
                if index is None or index >= size:
                    return outcomes + _failed(rest, _explain(name, error)), None
                self._samples.record(name, rest[:index])
                outcomes += _done(rest[:index], times)
                outcomes += _failed(rest[index : index + 1], _explain(name, error))
                refused += 1
            except FirewallError as error:
                return outcomes + _failed(rest, error), error
            else:
                self._samples.record(name, rest[:size])
                outcomes += _done(rest[:size], times)
        return outcomes, None

    def observe(self, addresses: Iterable[Address]) -> None:
        """Copy the SIP requests of ``addresses`` for a while. Needs ``open``; never raises."""
        unique = list(dict.fromkeys(itertools.islice(addresses, OBSERVE_MOST)))
        for version in self._guarded:
            observe(self._kernel, version, [address for address in unique if address.version == version])

    def replace_list(self, which: NetworkList, networks: Iterable[Network]) -> None:
        """Replace a list with ``networks``, each IP version in one step. Idempotent; needs ``open``."""
        for _ in self.replace_list_in_steps(which, networks):
            pass

    def replace_list_in_steps(
        self, which: NetworkList, networks: Iterable[Network]
    ) -> Generator[None, None, None]:
        """Replace a list in steps. See ``contract.Backend.replace_list_in_steps``."""
        sorted_ = by_version(networks)
        yield
        self._require_open()
        for version in self._guarded:
            filled = yield from replace_list_in_steps(self._kernel, which, version, sorted_[version])
            self._lists[list_set_name(which, version)] = filled

    def list(self, known: Iterable[tuple[Network, Scope]] = ()) -> Iterator[Element]:  # noqa: ARG002
        """Yield every ban in the kernel; nothing if no set of ours exists.

        100 000 elements take half a second. So it uses its own socket: a thread may list while the event loop
        bans.
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

    def health(self) -> Health:
        """Check sets and rules; the module's docstring lists what is checked. Starts no process."""
        self._require_open()
        damages: list[str | None] = []
        elements = 0
        for version in self._guarded:
            family = self._rules[version]
            damages.append(family.check()[0])
            for spec in set_specs(version):
                references, filled = family.references.get(spec.name, 0), self._lists.get(spec.name)
                damage, bans = check_set(self._kernel, spec, references, filled)
                damages.append(damage)
                elements += bans
        damages.append(self._samples.first_missing(self._kernel))
        combined = "; ".join(filter(None, damages)) or None
        return Health(combined, elements, combined is not None)

    def watch_fd(self) -> None:
        """Return None: ipset and iptables-legacy do not report changes. The check each second finds them."""

    def counters(self) -> Counters:
        """Return the counters of rules and sets, by iptables-save. Needs ``open``; changes nothing.

        Uses its own socket, as ``list`` does.
        """
        self._require_open()
        sums: dict[str, tuple[int, int]] = {}
        full = 0
        installed = dict(self._rules)  # another thread may change it meanwhile
        for family in installed.values():
            counted = family.counters()
            full += counted.full
            for kind, (packets, octets) in counted.kinds.items():
                before = sums.get(kind, (0, 0))
                sums[kind] = before[0] + packets, before[1] + octets
        names = [spec.name for version in installed for spec in set_specs(version)]
        with NetlinkConnection() as kernel:
            heads = {name: read_header(kernel, name) for name in names}
        return Counters(
            rules=tuple(RuleCounter(kind, *sums[kind]) for kind in REPORTED if kind in sums),
            sets={name: head.elements if head is not None else None for name, head in heads.items()},
            limiter_drops=sums.get(OVER_LIMIT, (0, 0))[0],
            limiter_full=full,
        )

    def flooders(self) -> Sequence[Flooder]:
        """Return the sources that were over the limit in the last ten seconds. Needs ``open``; no process."""
        self._require_open()
        return self._flood.read(self._kernel, self._guarded)

    def flush(self) -> None:
        """Remove our rules, chains and sets. Idempotent; works without ``open``.

        Raises FirewallError if a foreign rule uses a set of ours: that set stays.
        """
        self._require_capabilities()
        for version in VERSIONS:
            try:
                tools = self._find_tools(version)
            except FirewallUnsupportedError:
                continue  # without the tool there are no rules; else the set stays in use
            Family(version, tools, self._kernel).remove()
        self._rules = {}
        require_ipset(self._kernel)
        for name in all_set_names():
            destroy(self._kernel, name)
        self._families, self._lists = {}, {}
        self._samples, self._flood = SampleBans(), FloodCounts()

    def close(self) -> None:
        """Close the socket. Idempotent."""
        self._kernel.close()


def _by_set(batch: Sequence[Change]) -> Mapping[tuple[int, Scope, bool], list[int]]:
    """Group the indexes of a batch by set: IP version, scope, whether friends are exempt."""
    indexes: defaultdict[tuple[int, Scope, bool], list[int]] = defaultdict(list)
    for index, change in enumerate(batch):
        network = change.network
        indexes[network.version, change.scope, exempts_friends(network)].append(index)
    return indexes


def _runs(batch: Sequence[Change], indexes: Sequence[int]) -> list[Sequence[int]]:
    """Divide indexes into runs of one kind, none longer than a message may be."""
    parts: list[Sequence[int]] = []
    for _verb, group in itertools.groupby(indexes, key=lambda index: type(batch[index])):
        run = tuple(group)
        parts += [run[at : at + messages.MAX_ELEMENTS] for at in range(0, len(run), messages.MAX_ELEMENTS)]
    return parts


def _message(name: str, changes: Sequence[Change], seconds: Sequence[int]) -> bytes:
    """Build the request for changes of one kind; ``seconds`` begins with theirs."""
    networks = [change.network for change in changes]
    if isinstance(changes[0], Add):
        return messages.add(name, list(zip(networks, seconds, strict=False)))
    return messages.delete(name, networks)


def _done(changes: Sequence[Change], seconds: Sequence[int]) -> list[Outcome]:
    return [Outcome(change, float(time)) for change, time in zip(changes, seconds, strict=False)]


def _failed(changes: Sequence[Change], error: FirewallError) -> list[Outcome]:
    return [Outcome(change, error=error) for change in changes]


def _explain(name: str, error: NetlinkError) -> FirewallError:
    if error.code == Code.HASH_FULL:
        return SetFullError(
            f"set {name} is full; fix: raise max_bans in [firewall], then `ringfence off` and `ringfence on`"
        )
    if error.code == Code.INVALID_CIDR:
        return FirewallError("a /0 is every address: the kernel bans none")
    if error.code == errno.ENOENT:
        return FirewallError(
            f"set {name} is gone: another program destroyed it; opening the firewall again creates it"
        )
    return error
