"""The nftables backend: a table ``inet ringfence``, with bans as elements of its sets.

``ruleset.py`` describes the table. ``nft -f -`` writes it in one transaction of some five milliseconds. This
happens at the start, after a change of the plan, after another program changed our table, and when the first
network of a prefix length is banned. (Only the text form defines which rules belong together, and it is
rarely needed.) Rules are replaced while the sets keep their elements, and an existing table is adopted. Bans
themselves start no process (``changes.py``).

CAP_NET_ADMIN is the only capability that is needed.

Changes by others are noticed at once. The kernel reports every transaction with its author, and whether it
changed our table (``watch.py``). After any foreign transaction the rules are compared with those of our own
installation. Elements are reported as changed only if our table was changed. Transactions of more than one
chunk are sent without a listener, because the kernel would write 8 kB for each element. The number of the
generation then reveals foreign changes.
"""

import errno
import os
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from ipaddress import ip_network
from pathlib import Path

from attrs import evolve, frozen

from ringfence.errors import FirewallError, FirewallIncompleteError, FirewallUnsupportedError
from ringfence.firewall.contract import (
    Add,
    Change,
    Counters,
    Element,
    FirewallPlan,
    Flooder,
    Health,
    LimitMode,
    NetworkList,
    Opened,
    Outcome,
    Remove,
    Requirement,
    RuleCounter,
)
from ringfence.firewall.nftables import elements, listing, messages
from ringfence.firewall.nftables.changes import Changes, observe, renews
from ringfence.firewall.nftables.requirements import LIMITER_FIX, LOG_FIX, rule_requirements, variants
from ringfence.firewall.nftables.ruleset import (
    COUNTERS,
    TABLE,
    VERSIONS,
    BanSet,
    Ruleset,
    base_name,
    default_ban_sets,
    empty_set,
    ruleset,
    ruleset_text,
)
from ringfence.firewall.nftables.state import (
    TableState,
    difference,
    read_generation,
    read_sets,
    read_state,
    require_own_sets,
)
from ringfence.firewall.nftables.static_sets import NetworkListSets, by_version
from ringfence.firewall.nftables.tool import find_nft, run_nft
from ringfence.firewall.nftables.watch import ChangeMonitor
from ringfence.firewall.requirements import check_requirement, require_capabilities
from ringfence.model import Address, Network, Scope
from ringfence.netlink.connection import NetlinkConnection, NetlinkError

_TRIES = 3
_UNKNOWN = Outcome(Remove(ip_network("0.0.0.0/0")), error=FirewallError("no result is known"))


@frozen
class _Installed:
    """The last installation, and the resulting state of the kernel.

    ``plan`` is the ``asked`` plan without the features that the kernel refused. ``wire`` and ``limiter`` are
    the reasons. ``inner``: the log rules use ``@ih``.
    """

    asked: FirewallPlan
    plan: FirewallPlan
    state: TableState
    wire: str | None
    limiter: str | None
    inner: bool


class NftablesBackend:
    """Bans in the kernel by nftables; see ``contract.Backend`` for the methods.

    ``proc`` is the mount point of procfs, ``release`` the kernel's (it decides what elements can do).
    """

    name = "nftables"
    enforces = True

    def __init__(
        self, plan: FirewallPlan | None = None, *, proc: Path = Path("/proc"), release: str | None = None
    ) -> None:
        self.plan = plan if plan is not None else FirewallPlan()
        self._proc = proc
        self._kernel = NetlinkConnection(extended=True)
        self._modern = renews(release or os.uname().release)
        self._families: dict[int, str | None] = {}
        self._installed: _Installed | None = None
        self._lists = NetworkListSets(
            self._kernel, self._unmonitored, self._make_empty, self._switch_list_sets
        )
        self._monitor: ChangeMonitor | None = None
        self._suspect = False
        self._changed = False
        self._counted = False

    def requirements(self) -> list[Requirement]:
        """Return what ``open`` needs, and what of it is missing; changes nothing."""
        found = [
            check_requirement("capabilities of this process", self._require_capability),
            check_requirement("nftables in the kernel", partial(_require_kernel, self._kernel)),
            check_requirement("nft", find_nft),
        ]
        if all(one.problem is None for one in found):
            found += rule_requirements(find_nft(), self.plan)
        return found

    def open(self) -> Opened:
        """Put table, sets and rules in place. Idempotent; repairs. See ``contract.Backend.open``."""
        tool = self._preflight()
        self._start_monitor()
        before = read_state(self._kernel)
        if before is not None:
            require_own_sets(before)
        previous, adopted = self._installed, self._count_bans()
        if previous is None and before is not None:
            self._lists.names = before.names
        if previous is None or previous.asked != self.plan or previous.state != before:
            installed = self._install(tool, self.plan, before)
        else:
            installed = previous
        self._installed, self._suspect = installed, False
        repaired = _was_damaged(previous.state if previous is not None else None, before, installed.state)
        if before is None:
            self._lists.record_empty()
        elif repaired:
            self._lists.forget()
        return Opened(self._families, adopted, installed.wire, installed.limiter, repaired)

    def _preflight(self) -> str:
        """Return the path of nft, or raise for what is missing; changes nothing."""
        self._require_capability()
        _require_kernel(self._kernel)
        tool = find_nft()
        no_ipv6 = None if (self._proc / "self/net/if_inet6").exists() else "this host has no IPv6"
        self._families = {4: None, 6: no_ipv6}
        return tool

    def _require_capability(self) -> None:
        require_capabilities(self._proc, "CAP_NET_ADMIN")

    def _start_monitor(self) -> None:
        """Start to listen for changes; if that is impossible, every health check compares."""
        if self._monitor is None:
            with suppress(OSError):
                self._monitor = ChangeMonitor()

    def _count_bans(self) -> int:
        number = self._total_bans(read_sets(self._kernel))
        if number is None:
            number = 0
            with suppress(FirewallIncompleteError):
                for _ in self.list():
                    number += 1
        return number

    @staticmethod
    def _total_bans(heads: Iterable[messages.NftSetHeader]) -> int | None:
        """Return the number of bans; None if the kernel has no count."""
        numbers = [head.elements for head in heads if BanSet.parse(head.name) is not None]
        known = [number for number in numbers if number is not None]
        return sum(known) if len(known) == len(numbers) else None

    def _install(self, tool: str, plan: FirewallPlan, before: TableState | None) -> _Installed:
        """Write the rules of ``plan``, without optional features that this kernel refuses."""
        bans = default_ban_sets() if before is None else default_ban_sets() | before.bans
        refused: FirewallError | None = None
        for tried, inner, wire, limiter in variants(plan):
            try:
                state = self._write(tool, ruleset(tried, bans, inner=inner, names=self._lists.names))
            except FirewallUnsupportedError:
                raise
            except FirewallError as error:
                refused = refused or error
            else:
                return _Installed(
                    plan,
                    tried,
                    state,
                    f"{refused}; {LOG_FIX}" if wire and refused else None,
                    f"{refused}; {LIMITER_FIX}" if limiter and refused else None,
                    inner,
                )
        raise refused or FirewallError("no rules could be put in place")

    def _write(self, tool: str, rules: Ruleset) -> TableState:
        """Write ``rules`` and return the resulting state; retry if another program changed it in between."""
        for _ in range(_TRIES):
            before, ports = read_state(self._kernel), []
            if before is not None and before.table.dormant:
                # The kernel refuses chain changes in a transaction that wakes a dormant table.
                ports.append(run_nft(tool, f"add table inet {TABLE}\n"))
            stale = before.stale_chains(rules) if before is not None else ()
            unused = {*before.names.values(), *before.unused} if before is not None else ()
            ports.append(run_nft(tool, ruleset_text(rules, stale=stale, unused=unused)))
            state = read_state(self._kernel)
            self._read_notifications(*ports)
            if state is not None and state.matches(rules):
                return state
        raise FirewallError(
            f"another program changes the rules of table inet {TABLE} as soon as they stand; "
            "see `nft monitor`"
        )

    def _read_notifications(self, *own: int) -> None:
        """Read the notifications, and record whether another program made a change."""
        if self._monitor is None:
            self._suspect = True
            self._lists.distrust()
            return
        notified, ours = self._monitor.drain(), {self._kernel.port, *own}
        self._monitor.ignore(self._kernel.port)
        if notified.lost or notified.touched - ours:
            self._suspect = self._changed = True
            self._lists.distrust()
        elif notified.ports - ours:  # probably of another table
            self._suspect = True

    def _assume_changes(self) -> None:
        """Record that other programs made unknown changes."""
        self._suspect = True
        self._changed |= not self._counted
        self._lists.distrust()

    def apply(self, batch: Sequence[Change]) -> list[Outcome]:
        """Carry out every change, in order within each set. Idempotent; needs ``open``."""
        if self._installed is None:
            raise FirewallError("the firewall is not open: no ban is possible")
        outcomes = [_UNKNOWN] * len(batch)
        by_set: defaultdict[tuple[Scope, int, int], list[int]] = defaultdict(list)
        for number, change in enumerate(batch):
            network = change.network
            by_set[change.scope, network.version, network.prefixlen].append(number)
        kinds = {BanSet(*kind): numbers for kind, numbers in by_set.items()}
        for ban, numbers in kinds.items():
            if self._families[ban.version] is not None:
                for number in numbers:
                    error = FirewallUnsupportedError(self._families[ban.version])
                    outcomes[number] = Outcome(batch[number], error=error)
            elif not ban.length:
                _set_outcomes(
                    batch, outcomes, numbers, FirewallError("a /0 is every address: the kernel bans none")
                )
        possible = {
            ban: numbers
            for ban, numbers in kinds.items()
            if ban.length and self._families[ban.version] is None
        }
        adding = {ban for ban, numbers in possible.items() if any(isinstance(batch[n], Add) for n in numbers)}
        failed = self._make_sets(self._installed, adding)
        existing = self._installed.state.bans
        for ban, numbers in possible.items():
            if ban not in existing:
                _set_outcomes(batch, outcomes, numbers, failed)
        changes = Changes(self._kernel, batch, outcomes, modern=self._modern)
        with self._unmonitored(len(batch), lambda: changes.commits):
            changes.apply({ban: numbers for ban, numbers in possible.items() if ban in existing})
        return outcomes

    @contextmanager
    def _unmonitored(self, size: int, commits: Callable[[], int] = lambda: 1) -> Iterator[None]:
        """Pause listening during a large change: the number of generations reveals foreign changes."""
        if self._monitor is None or size <= elements.CHUNK:
            yield
            return
        before = read_generation(self._kernel)
        self._monitor.pause()
        try:
            yield
        finally:
            self._monitor.resume()
            if read_generation(self._kernel) != before + commits():
                self._assume_changes()

    def _make_sets(self, installed: _Installed, wanted: set[BanSet]) -> FirewallError | None:
        """Make sets and rules for prefix lengths that have none yet; return the error, if any."""
        if wanted <= installed.state.bans:
            return None
        try:
            self._rewrite(installed, installed.state.bans | wanted)
        except FirewallError as error:
            return error
        return None

    def _switch_list_sets(self) -> None:
        """Rewrite the rules with the present names of the list sets."""
        if self._installed is None:
            raise FirewallError("the firewall is not open")
        self._rewrite(self._installed, self._installed.state.bans)

    def _rewrite(self, installed: _Installed, bans: frozenset[BanSet]) -> None:
        """Write the rules again, with these sets of bans."""
        damage = difference(installed.state, read_state(self._kernel))
        if damage is not None:  # open() must see and report it
            self._suspect = True
            raise FirewallError(f"{damage}; opening the firewall again repairs it")
        rules = ruleset(installed.plan, bans, inner=installed.inner, names=self._lists.names)
        self._installed = evolve(installed, state=self._write(find_nft(), rules))

    def observe(self, addresses: Iterable[Address]) -> None:
        """Copy the SIP requests of ``addresses`` for a while. Needs ``open``; never raises."""
        if self._installed is not None:
            observe(self._kernel, addresses, modern=self._modern)

    def replace_list(self, which: NetworkList, networks: Iterable[Network]) -> None:
        """Replace the contents of a list with ``networks``. Idempotent; needs ``open``."""
        for _ in self.replace_list_in_steps(which, networks):
            pass

    def replace_list_in_steps(
        self, which: NetworkList, networks: Iterable[Network]
    ) -> Generator[None, None, None]:
        """Replace a list, one transaction a step.

        See ``contract.Backend.replace_list_in_steps``.
        """
        changes = {
            f"{which}{version}": self._lists.compare(f"{which}{version}", wanted)
            for version, wanted in by_version(networks).items()
        }
        yield
        self._read_notifications()
        for base, change in changes.items():
            yield from self._lists.apply_in_steps(base, change)

    def _make_empty(self, name: str, version: int) -> None:
        self._read_notifications(run_nft(find_nft(), empty_set(name, version)))

    def list(self, known: Iterable[tuple[Network, Scope]] = ()) -> Iterator[Element]:
        """Yield every ban in the kernel; nothing if our table does not exist.

        Uses its own socket: a thread may list while the event loop bans.
        """
        with NetlinkConnection(extended=True) as kernel:
            try:
                yield from listing.bans(kernel, known)
            except NetlinkError:
                _require_kernel(kernel)  # raises a better error if nftables is missing
                raise

    def find(self, network: Network, scope: Scope = Scope.FULL) -> Element | None:
        """Return one ban from the kernel, None if it is not there. Needs ``open``."""
        return listing.find(self._kernel, network, scope)

    def health(self) -> Health:
        """Check whether another program changed rules or sets. Needs ``open``; changes nothing."""
        if self._installed is None:
            raise FirewallError("the firewall is not open")
        self._read_notifications()
        damage = None
        if self._suspect:
            damage = difference(self._installed.state, read_state(self._kernel))
            self._suspect = damage is not None
        changed, self._changed = self._changed, False
        heads = read_sets(self._kernel)
        elements = self._total_bans(heads)
        self._counted = elements is not None
        return Health(damage or self._lists.damage(heads), elements, changed)

    def watch_fd(self) -> int | None:
        """Return a descriptor that becomes readable when nftables changes."""
        return self._monitor.fileno() if self._monitor is not None else None

    def counters(self) -> Counters:
        """Return the counters of rules and sets. Uses its own socket, as ``list`` does."""
        with NetlinkConnection(extended=True) as kernel:
            counted = messages.counters_of(kernel.request(messages.get_counters(TABLE)))
            heads = read_sets(kernel)
        counters = {counter.name: counter for counter in counted}
        sets: dict[str, int | None] = {}
        for head in heads:
            kind = _kind_of_set(head.name)
            if kind is not None:
                number, so_far = head.elements, sets.get(kind, 0)
                sets[kind] = None if number is None or so_far is None else so_far + number
        limited = ("over_limit", "no_room")
        return Counters(
            tuple(
                RuleCounter(label, counters[name].packets, counters[name].bytes)
                for name, label in COUNTERS.items()
                if name in counters and name not in limited
            ),
            sets,
            *(counters[name].packets if name in counters else 0 for name in limited),
        )

    def flooders(self) -> Sequence[Flooder]:
        """Return the sources that were over the limit within the last seconds. Needs ``open``."""
        if self._installed is None or self._installed.plan.limit.mode is LimitMode.OFF:
            return []
        return [
            flooder
            for version in VERSIONS
            for tcp in (False, True)
            for answer in listing.read_part(self._kernel, f"flood{'_tcp' * tcp}{version}")
            for flooder in elements.flooders_of(answer, tcp=tcp)
        ]

    def flush(self) -> None:
        """Remove our table with all its contents. Idempotent; works without ``open``."""
        self._require_capability()
        _require_kernel(self._kernel)
        refusals = self._kernel.transact(messages.delete_table(TABLE))
        if refusals and refusals[0].code != errno.ENOENT:
            raise NetlinkError(refusals[0].code, b"")
        self._installed = None
        self._families = {}
        self._lists.forget()

    def close(self) -> None:
        """Close the sockets. Idempotent."""
        self._kernel.close()
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None


def _was_damaged(installed: TableState | None, before: TableState | None, now: TableState) -> bool:
    """Whether the previous state differed from our installation, as far as that is known.

    After a restart it is known only if the plan is the same.
    """
    if installed is not None:
        return before is None or before.shape != installed.shape
    return before is not None and before.mark in ("", now.mark) and before.shape != now.shape


def _kind_of_set(name: str) -> str | None:
    if BanSet.parse(name) is not None:
        return "bans"
    if (base := base_name(name)) is not None:
        return base[:-1]
    kinds = {"rate": "limiter", "flood": "flooding", "flood_tcp": "flooding", "observe": "observed"}
    return kinds.get(name[:-1])


def _set_outcomes(
    batch: Sequence[Change], outcomes: list[Outcome], numbers: Iterable[int], error: FirewallError | None
) -> None:
    """Store the outcomes of changes to a missing set: ``error`` for each Add, success for each Remove."""
    for number in numbers:
        change = batch[number]
        outcomes[number] = Outcome(change, error=error if isinstance(change, Add) else None)


def _require_kernel(kernel: NetlinkConnection) -> None:
    try:
        kernel.request(messages.get_generation())
    except NetlinkError as error:
        raise FirewallUnsupportedError(
            "this kernel has no nftables; fix: `modprobe nf_tables` (CONFIG_NF_TABLES; in a container: on "
            "its host)"
        ) from error
