"""The nftables backend: a table ``inet ringfence``, with bans as elements of its sets.

``ruleset.py`` describes the table, ``installation.py`` writes it, and ``watch.py`` notices changes by other
programs. :class:`Changes` adds and removes bans, without a process. CAP_NET_ADMIN is the only capability that
is needed.
"""

import errno
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path

from ringfence.errors import FirewallError, FirewallIncompleteError, FirewallUnsupportedError
from ringfence.firewall.contract import (
    EVERY_ADDRESS,
    UNKNOWN_OUTCOME,
    Add,
    Change,
    Counters,
    Element,
    FirewallPlan,
    Flooder,
    Health,
    ListSteps,
    Opened,
    Outcome,
    Outsider,
    Requirement,
    not_open_error,
)
from ringfence.firewall.limits import LimitMode
from ringfence.firewall.network_lists import NetworkList
from ringfence.firewall.nftables import elements, messages, state
from ringfence.firewall.nftables.changes import Changes, renews
from ringfence.firewall.nftables.installation import Installation, find_nft, rule_requirements
from ringfence.firewall.nftables.ruleset import TABLE, BanSet
from ringfence.firewall.nftables.state import (
    read_counters,
    read_flooders,
    read_outsiders,
    read_sets,
    total_bans,
)
from ringfence.firewall.nftables.static_sets import NetworkListSets, by_version
from ringfence.firewall.nftables.watch import ForeignChanges
from ringfence.firewall.requirements import check_requirement, require_capabilities, why_no_ipv6
from ringfence.netlink.connection import (
    NetlinkConnection,
    NetlinkError,
)
from ringfence.values.ban import Scope
from ringfence.values.network import Network


class NftablesBackend:
    """Bans in the kernel by nftables; see ``contract.Backend`` for the methods.

    ``proc`` is the mount point of procfs. ``release`` is the version of the kernel, by default of the running
    one. It decides how timeouts are renewed (:class:`Changes`).
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
        sender = NetlinkConnection(extended=True)
        self._foreign = ForeignChanges((self._kernel, sender))
        self._installation = Installation(self._kernel, self._foreign)
        self._lists = NetworkListSets(self._kernel, sender, self._foreign, self._installation)

    def requirements(self) -> list[Requirement]:
        """Return what ``open`` needs, each with its problem if it is missing. Changes nothing.

        Whether the kernel accepts the rules is tested, and returned, only if nothing else is missing.
        """
        found = [
            check_requirement("capabilities of this process", self._require_capability),
            check_requirement("nftables in the kernel", partial(_require_kernel, self._kernel)),
            check_requirement("nft", find_nft),
        ]
        if all(one.problem is None for one in found):
            found += rule_requirements(find_nft(), self.plan)
        return found

    def open(self) -> Opened:
        """Make the table with its sets and rules, or repair it. Idempotent.

        ``contract.Backend.open`` describes the errors.
        """
        self._preflight()
        self._foreign.listen()
        result = self._installation.install(self.plan)
        if result.new:
            self._lists.record_empty()
        elif result.repaired:
            self._lists.forget()
        table = result.table
        return Opened(self._families, self._count_bans(), table.wire, table.limiter, result.repaired)

    def _preflight(self) -> None:
        """Raise FirewallError if a requirement is missing; changes nothing in the kernel."""
        self._require_capability()
        _require_kernel(self._kernel)
        find_nft()
        self._families = {4: None, 6: why_no_ipv6(self._proc)}

    def _require_capability(self) -> None:
        require_capabilities(self._proc, "CAP_NET_ADMIN")

    def _count_bans(self) -> int:
        number = total_bans(read_sets(self._kernel))
        if number is None:
            number = 0
            with suppress(FirewallIncompleteError):
                for _ in self.list():
                    number += 1
        return number

    def apply(self, batch: Sequence[Change]) -> list[Outcome]:
        """Carry out every change, and return an outcome for each, in the order of ``batch``.

        A change that the kernel refuses has an error in its outcome. Changes of one set are carried out in
        order. Idempotent; needs ``open``.
        """
        if self._installation.table is None:
            raise not_open_error()
        existing = self._installation.table.state.bans
        outcomes = [UNKNOWN_OUTCOME] * len(batch)
        possible: dict[BanSet, list[int]] = {}
        for ban, numbers in _by_set(batch).items():
            reason = self._families[ban.version]
            if reason is not None:
                for number in numbers:
                    outcomes[number] = Outcome(batch[number], error=FirewallUnsupportedError(reason))
            elif not ban.length:
                _set_outcomes(batch, outcomes, numbers, EVERY_ADDRESS)
            else:
                possible[ban] = numbers
        adding = {ban for ban, numbers in possible.items() if any(isinstance(batch[n], Add) for n in numbers)}
        new = {ban: possible.pop(ban) for ban in possible.keys() - existing}
        self._change(batch, possible, outcomes)
        failed, made = None, {ban: new[ban] for ban in new.keys() & adding}
        if made:  # these wait for new rules, which take tens of milliseconds
            failed = self._installation.add_sets(adding, partial(self._change, batch, made, outcomes))
        for ban in new if failed is not None else new.keys() - made.keys():
            _set_outcomes(batch, outcomes, new[ban], failed)
        return outcomes

    def _change(
        self, batch: Sequence[Change], by_set: Mapping[BanSet, Sequence[int]], outcomes: list[Outcome]
    ) -> None:
        """Carry out changes of sets that exist (:class:`Changes`), and store their outcomes."""
        changes = Changes(self._kernel, batch, outcomes, modern=self._modern)
        many = len(batch) > elements.MAX_ELEMENTS
        with self._foreign.unmonitored() if many else nullcontext():
            changes.apply(by_set)
            self._foreign.commits += changes.commits

    def replace_list_in_steps(self, which: NetworkList, networks: Iterable[Network]) -> ListSteps:
        """Replace a network list. The first step computes the changes; each later one is a transaction.

        See ``contract.Backend.replace_list_in_steps``.
        """
        changes = {
            f"{which}{version}": self._lists.compare(f"{which}{version}", wanted)
            for version, wanted in by_version(networks).items()
        }
        yield None
        self._foreign.read()
        for base, change in changes.items():
            yield from self._lists.apply_in_steps(base, change)

    def list(self, known: Iterable[tuple[Network, Scope]] | None = None) -> Iterator[Element]:
        """Yield every ban in the kernel; nothing if our table does not exist.

        If a set changes meanwhile, the kernel's list may lack bans. Therefore the bans ``known`` are looked
        up one by one at the end. Raises FirewallIncompleteError if others may be missing.

        Uses its own socket, so a thread may list while the event loop bans.
        """
        with NetlinkConnection(extended=True) as kernel:
            try:
                yield from state.bans(kernel, known)
            except NetlinkError:
                _require_kernel(kernel)  # raises a better error if nftables is missing
                raise

    def find(self, network: Network, scope: Scope = Scope.FULL) -> Element | None:
        """Return one ban from the kernel, None if it is not there. Needs ``open``."""
        return state.find(self._kernel, network, scope)

    def health(self) -> Health:
        """Check whether another program changed our rules or sets. Needs ``open``; changes nothing."""
        self._installation.require()
        self._foreign.read()
        damage = self._installation.damage()
        heads = read_sets(self._kernel)
        bans = total_bans(heads)
        changed = self._foreign.take_changed(counted=bans is not None)
        return Health(damage or self._lists.damage(heads), bans, changed)

    def rules_differ(self) -> bool:
        """Return False: nftables reports every change to the descriptor of :meth:`watch_fd`."""
        return False

    def watch_fd(self) -> int | None:
        """Return a descriptor that becomes readable when another program changes nftables, in any table.

        None before ``open``, or if the kernel refuses the socket.
        """
        return self._foreign.fileno()

    def counters(self) -> Counters:
        """Return the counters of rules and sets. Uses its own socket, as ``list`` does."""
        with NetlinkConnection(extended=True) as kernel:
            return read_counters(kernel)

    def flooders(self) -> Sequence[Flooder]:
        """Return the sources that were over the limit within the last ten seconds.

        Needs ``open``; starts no process.
        """
        table = self._installation.table
        limited = table is not None and table.plan.limit.mode is not LimitMode.OFF
        return read_flooders(self._kernel) if limited else []

    def outsiders(self) -> Sequence[Outsider]:
        """Return the sources outside the fence in the last hour. Needs ``open``; starts no process."""
        table = self._installation.table
        fenced = table is not None and table.plan.fence is not LimitMode.OFF
        return read_outsiders(self._kernel) if fenced else []

    def flush(self) -> None:
        """Remove our table with all its contents. Idempotent; works without ``open``."""
        self._require_capability()
        _require_kernel(self._kernel)
        refusals = self._kernel.transact(messages.delete_table(TABLE))
        if refusals and refusals[0].code != errno.ENOENT:
            raise NetlinkError(refusals[0].code, b"")
        self._installation.forget()
        self._families = {}
        self._lists.forget()

    def close(self) -> None:
        """Close the sockets. Idempotent."""
        self._lists.close()
        self._kernel.close()
        self._foreign.close()


def _by_set(batch: Sequence[Change]) -> Mapping[BanSet, list[int]]:
    """Group the changes of a batch by their set: for each set, their positions in the batch."""
    found: defaultdict[tuple[Scope, int, int], list[int]] = defaultdict(list)
    for number, change in enumerate(batch):
        network = change.network
        found[change.scope, network.version, network.prefixlen].append(number)
    return {BanSet(*kind): numbers for kind, numbers in found.items()}


def _set_outcomes(
    batch: Sequence[Change], outcomes: list[Outcome], numbers: Iterable[int], error: FirewallError | None
) -> None:
    """Store the outcomes of changes to a missing set, which cannot be carried out.

    ``numbers`` are the positions of these changes in the batch. An Add gets ``error``. A Remove succeeds,
    because its network is not banned.
    """
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
