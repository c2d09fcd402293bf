"""The ipset backend: bans are elements of sets, rules by iptables drop what is in them.

The sets are in ``ipset_sets.py``: those of the bans are ``hash:net`` with timeouts and counters, addresses
and prefixes side by side (a /32 within a banned /24 is an element of its own), expiry by the kernel,
packets counted. A set of ours that exists is adopted with all it holds: a restart has no moment without
protection. An adopted set keeps the size it was made with; ``ringfence off`` and ``on`` make it anew.

Bans go by netlink only, no process is started for one. What the kernel refuses is reported by element and the
rest is sent again; what was not acknowledged is an error, also when it may have been done: the caller
repeats, and every change may be repeated.

A quick look (``pulse``) sees a set that is gone, one that fewer rules than ours name, a roll that has not
the elements it was filled with, and one ban of each set that ought to be in it: the one that ends last of
those it was given lately. The number of bans is for the caller to compare.
"""

import errno
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from ipaddress import ip_network
from pathlib import Path

from attrs import evolve

from ringfence.errors import (
    FirewallError,
    FirewallUnsupportedError,
    SetFullError,
)
from ringfence.firewall import ipset_messages as messages
from ringfence.firewall import iptables
from ringfence.firewall.contract import (
    Add,
    Change,
    Element,
    Flooder,
    Opened,
    Outcome,
    Part,
    Plan,
    Pulse,
    Remove,
    Roll,
    RuleUse,
    Usage,
)
from ringfence.firewall.ipset_kernel import destroy, find, head_of, listed, replace, require_ipset
from ringfence.firewall.ipset_messages import Code, SetHead
from ringfence.firewall.ipset_rolls import Flood, by_version, fill
from ringfence.firewall.ipset_sets import (
    VERSIONS,
    Kind,
    bans_name,
    creation,
    every_name,
    fresh_name,
    kinds,
    roll_name,
    what_lacks,
)
from ringfence.firewall.ipset_watch import Filled, Witnesses, look_at
from ringfence.firewall.iptables_family import Family, lacks
from ringfence.firewall.iptables_rules import OVER_LIMIT, TOLD
from ringfence.firewall.needs import need, require_capabilities
from ringfence.firewall.netlink import Conversation, NetlinkError
from ringfence.model import Network, Scope

# iptables' set match opens a raw socket to ask the set's number, hence the second one.
_CAPABILITIES = ("CAP_NET_ADMIN", "CAP_NET_RAW")
# After so many refusals in one message the rest goes one by one: a full set refuses every new element, and
# sending the tail again for each would be quadratic.
_PATIENCE = 3
_UNKNOWN = Outcome(Remove(ip_network("0.0.0.0/0")), error=FirewallError("nothing is known of it"))


class IpsetBackend:
    """Bans in the kernel by ipset and iptables; see ``contract.Backend`` for the verbs.

    ``proc`` is where procfs is mounted. ``find_tools`` gives an IP version's iptables.
    """

    name = "ipset"
    enforces = True

    def __init__(
        self,
        plan: Plan | None = None,
        *,
        proc: Path = Path("/proc"),
        find_tools: Callable[[int], iptables.Tools] = iptables.find_tools,
    ) -> None:
        self.plan = plan if plan is not None else Plan()
        self._proc = proc
        self._find_tools = find_tools
        self._kernel = Conversation()
        self._families: dict[int, str | None] = {}
        self._rules: dict[int, Family] = {}
        self._rolls: dict[str, Filled] = {}
        self._witnesses = Witnesses()
        self._flood = Flood()

    def look(self) -> list[Part]:
        """Say what stands in the way of ``open``, part by part; changes nothing."""
        parts = [
            need("capabilities of this process", self._require_capabilities),
            need("ipset in the kernel", partial(require_ipset, self._kernel)),
            *(need(f"iptables for IPv{version}", partial(self._guard, version)) for version in VERSIONS),
        ]
        if any(part.lack is not None for part in parts[:2]):
            return parts  # the kernel cannot be asked for the rest
        spared = any(part.lack is None for part in parts[2:])  # one IP version is guarded without the other
        parts[2:] = [evolve(part, spared=spared and part.lack is not None) for part in parts[2:]]
        for version, part in zip(VERSIONS, parts[2:], strict=True):
            if part.lack is None:
                parts += [
                    Part(what, lack, spared=True) for what, lack in lacks(self._kernel, version, self.plan)
                ]
        return parts

    def open(self) -> Opened:
        """Put sets and rules in place. Idempotent; heals. See ``contract.Backend.open`` for the errors."""
        families, tools = self._preflight()
        first = not self._families
        adopted, damaged = self._have_sets(tools)
        placed = {}
        for version, found in tools.items():
            family = self._rules.get(version)
            if family is None or family.tools != found:
                family = self._rules[version] = Family(version, found, self._kernel)
            placed[version] = family.put(self.plan)
            damaged |= placed[version].damaged
        self._families = families
        self._witnesses.keep(self._kernel)
        for family in self._rules.values():
            family.look()  # writing one IP version was a change in the sight of the other
        return Opened(
            families,
            adopted=adopted,
            wire="; ".join(f"IPv{v}: {p.wire}" for v, p in placed.items() if p.wire) or None,
            limiter="; ".join(f"IPv{v}: {p.limiter}" for v, p in placed.items() if p.limiter) or None,
            healed=damaged and not first,
        )

    def _have_sets(self, versions: Iterable[int]) -> tuple[int, bool]:
        """Make the sets that are missing; give how many bans were there, and whether a set was damaged."""
        wanted = [kind for version in versions for kind in kinds(version)]
        heads = {kind: head_of(self._kernel, kind.name) for kind in wanted}
        damaged = self._replace_strange(heads)
        adopted = 0
        for kind, head in heads.items():
            if head is None:
                damaged = True
                try:
                    self._kernel.request(creation(kind, self.plan.maxelem))
                except NetlinkError as error:
                    raise FirewallError(f"set {kind.name} could not be made: {error}") from error
            elif kind.bans:
                adopted += head.elements
            if kind.roll:
                elements = head.elements if head is not None else 0
                known = self._rolls.get(kind.name)
                if known is None or elements != known.elements:
                    damaged |= known is not None
                    self._rolls[kind.name] = Filled(elements)
        return adopted, damaged

    def _replace_strange(self, heads: dict[Kind, SetHead | None]) -> bool:
        """Replace what is none of ours although it bears our name; say whether there was any.

        While we are open this is somebody's swap; at first it is a stranger's, and an error.
        """
        strange = []
        for kind, head in heads.items():
            if head is not None and (why := what_lacks(head, kind)):
                if not self._families or (head.type_name, head.version) != (kind.type_name, kind.version):
                    raise FirewallError(why)
                strange.append(kind)
        for kind in strange:
            fresh = evolve(kind, name=fresh_name(kind.name))
            replace(self._kernel, kind.name, fresh.name, creation(fresh, self.plan.maxelem))
            heads[kind] = head_of(self._kernel, kind.name)
        return bool(strange)

    def _preflight(self) -> tuple[dict[int, str | None], dict[int, iptables.Tools]]:
        """Say of each IP version why it cannot be guarded (None: it can), and by what; change nothing."""
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
            raise FirewallError("the firewall is not open: nothing can be banned")

    @property
    def _guarded(self) -> list[int]:
        return [version for version, reason in self._families.items() if reason is None]

    def apply(self, batch: Sequence[Change]) -> list[Outcome]:
        """Carry out every change, in order within each set. Idempotent; needs ``open``."""
        self._require_open()
        outcomes = [_UNKNOWN] * len(batch)
        lost: FirewallError | None = None
        for (version, scope), places in _by_set(batch).items():
            reason = self._families[version]
            for part in _parts(batch, places):
                changes = [batch[place] for place in part]
                if reason is not None:
                    done = _failed(changes, FirewallUnsupportedError(reason))
                elif lost is not None:  # another request would only wait again
                    done = _failed(changes, lost)
                else:
                    done, lost = self._send(bans_name(version, scope), changes)
                for place, outcome in zip(part, done, strict=True):
                    outcomes[place] = outcome
        return outcomes

    def _send(self, name: str, changes: Sequence[Change]) -> tuple[list[Outcome], FirewallError | None]:
        """Send changes of one verb, and again what stood behind a refused one.

        The error beside the outcomes is that of a conversation that broke.
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
                place = messages.refused_place(error.request)
                if place is None or place >= size:
                    return outcomes + _failed(rest, _explain(name, error)), None
                self._witnesses.note(name, rest[:place])
                outcomes += _done(rest[:place], times)
                outcomes += _failed(rest[place : place + 1], _explain(name, error))
                refused += 1
            except FirewallError as error:
                return outcomes + _failed(rest, error), error
            else:
                self._witnesses.note(name, rest[:size])
                outcomes += _done(rest[:size], times)
        return outcomes, None

    def fill(self, roll: Roll, networks: Iterable[Network]) -> None:
        """Have exactly ``networks`` on ``roll``, each IP version in one step. Idempotent; needs ``open``."""
        self._require_open()
        sorted_ = by_version(networks)
        for version in self._guarded:
            self._rolls[roll_name(roll, version)] = fill(self._kernel, roll, version, sorted_[version])

    def list(self) -> Iterator[Element]:
        """Read every ban from the kernel; empty where no set of ours exists.

        100 000 elements take half a second, so it has a socket of its own: a thread may list while the event
        loop bans.
        """
        with Conversation() as kernel:
            for version in VERSIONS:
                for scope in Scope:
                    yield from listed(kernel, bans_name(version, scope), scope)

    def find(self, network: Network, scope: Scope = Scope.FULL) -> Element | None:
        """Read one ban from the kernel, None where it has none. Needs ``open``."""
        return find(self._kernel, bans_name(network.version, scope), network, scope)

    def pulse(self) -> Pulse:
        """Look whether sets and rules are as they were left. No process; see the head for what is seen."""
        self._require_open()
        troubles: list[str | None] = []
        changed, elements = False, 0
        for version in self._guarded:
            family = self._rules[version]
            trouble, moved = family.look()
            changed |= moved
            troubles.append(trouble)
            for kind in kinds(version):
                references, filled = family.references.get(kind.name, 0), self._rolls.get(kind.name)
                trouble, bans = look_at(self._kernel, kind, references, filled)
                troubles.append(trouble)
                elements += bans
        troubles.append(self._witnesses.missing(self._kernel))
        said = "; ".join(filter(None, troubles)) or None
        return Pulse(said, elements, changed or said is not None)

    def watch_fd(self) -> None:
        """Nothing: ipset and iptables-legacy tell of no changes. The look each second sees them."""

    def usage(self) -> Usage:
        """Say what rules and sets have met, by iptables-save. Needs ``open``; changes nothing.

        Has a socket of its own, as ``list`` has.
        """
        self._require_open()
        sums: dict[str, tuple[int, int]] = {}
        full = 0
        standing = dict(self._rules)  # which another thread may be about to change
        for family in standing.values():
            met = family.met()
            full += met.full
            for kind, (packets, octets) in met.kinds.items():
                before = sums.get(kind, (0, 0))
                sums[kind] = before[0] + packets, before[1] + octets
        names = [kind.name for version in standing for kind in kinds(version)]
        with Conversation() as kernel:
            heads = {name: head_of(kernel, name) for name in names}
        return Usage(
            rules=tuple(RuleUse(kind, *sums[kind]) for kind in TOLD if kind in sums),
            sets={name: head.elements if head is not None else None for name, head in heads.items()},
            limiter_drops=sums.get(OVER_LIMIT, (0, 0))[0],
            limiter_full=full,
        )

    def flooding(self) -> Sequence[Flooder]:
        """Give the sources that were over the limit in the last ten seconds. Needs ``open``; no process."""
        self._require_open()
        return self._flood.look(self._kernel, self._guarded)

    def flush(self) -> None:
        """Remove our rules, chains and sets. Idempotent; works without ``open``.

        Raises FirewallError where a rule that is not ours uses a set of ours: that set stays.
        """
        self._require_capabilities()
        for version in VERSIONS:
            try:
                tools = self._find_tools(version)
            except FirewallUnsupportedError:
                continue  # without the tool no rule of it: if there is one after all, the set stays in use
            Family(version, tools, self._kernel).remove()
        self._rules = {}
        require_ipset(self._kernel)
        for name in every_name():
            destroy(self._kernel, name)
        self._families, self._rolls = {}, {}
        self._witnesses, self._flood = Witnesses(), Flood()

    def close(self) -> None:
        """Give back the socket. Idempotent."""
        self._kernel.close()


def _by_set(batch: Sequence[Change]) -> Mapping[tuple[int, Scope], list[int]]:
    """Sort the places of a batch by the set that each change is about."""
    places: defaultdict[tuple[int, bool], list[int]] = defaultdict(list)  # to hash a Scope is slow
    for place, change in enumerate(batch):
        places[change.network.version, change.scope is Scope.FULL].append(place)
    return {(version, Scope.FULL if full else Scope.SIP_UDP): of for (version, full), of in places.items()}


def _parts(batch: Sequence[Change], places: Sequence[int]) -> list[Sequence[int]]:
    """Cut places into runs of one verb, none longer than a message may be."""
    parts: list[Sequence[int]] = []
    for _verb, group in itertools.groupby(places, key=lambda place: type(batch[place])):
        run = tuple(group)
        parts += [run[at : at + messages.MAX_ELEMENTS] for at in range(0, len(run), messages.MAX_ELEMENTS)]
    return parts


def _message(name: str, changes: Sequence[Change], seconds: Sequence[int]) -> bytes:
    """Build the request for changes of one verb; ``seconds`` begins with theirs."""
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
            f"set {name} is full; mend: a larger set, then `ringfence off` and `ringfence on`"
        )
    if error.code == Code.INVALID_CIDR:
        return FirewallError("the kernel bans no /0: it is everybody")
    if error.code == errno.ENOENT:
        return FirewallError(
            f"set {name} is gone: somebody destroyed it; opening the firewall again makes it anew"
        )
    return error
