"""The nftables backend: a table ``inet ringfence``, with bans as elements of its sets.

``ruleset.py`` describes the table, ``installation.py`` writes it, and ``watch.py`` notices changes by other
programs. :class:`Changes` adds and removes bans, without a process. CAP_NET_ADMIN is the only capability that
is needed.
"""

import errno
import itertools
import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path

from attrs import define

from ringfence.errors import FirewallError, FirewallIncompleteError, FirewallUnsupportedError, SetFullError
from ringfence.firewall.contract import (
    EVERY_ADDRESS,
    SET_FULL,
    UNKNOWN_OUTCOME,
    Add,
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
    not_open_error,
)
from ringfence.firewall.limits import Table
from ringfence.firewall.network_lists import NetworkList
from ringfence.firewall.nftables import elements, messages, state
from ringfence.firewall.nftables.installation import Installation, find_nft, rule_requirements
from ringfence.firewall.nftables.ruleset import TABLE, BanSet
from ringfence.firewall.nftables.state import read_counters, read_remembered, read_sets, total_bans
from ringfence.firewall.nftables.static_sets import NetworkListSets, by_version
from ringfence.firewall.nftables.watch import ForeignChanges
from ringfence.firewall.requirements import check_requirement, require_capabilities, why_no_ipv6
from ringfence.firewall.stages import stages
from ringfence.netlink.connection import (
    NetlinkConnection,
    NetlinkError,
    NetlinkLostError,
    NetlinkTooLongError,
    Refusal,
)
from ringfence.values.ban import Scope
from ringfence.values.network import Network

# -- bans by netlink: batches of changes as transactions, and an outcome for each change
#
# A transaction of nftables is carried out completely or not at all. If the kernel refuses an element, it
# reports the position at which it stopped (EXT_ACK). The transaction is sent again without that element.
# After a few refusals the rest is sent in halves, so that many bad elements cost only a few transactions
# each.
#
# A full set is handled differently: the kernel names the first element without room. Of the elements after it
# only those are sent again that are in the set already (queried one by one, some 10 µs each), or that the
# transaction has added to it before. The others would have no room either. So a full set costs one additional
# transaction, not one for each element.
#
# Kernels before mid-2022, such as 5.10, report no position. Then the elements for a full set are sent in
# halves, until a half fits or is a single element.
#
# Since kernel 6.12, an element that is added again gets the new timeout. Older kernels change nothing then.
# So on older kernels an element is added with NLM_F_EXCL. If it exists already, the kernel refuses it, and
# the message is sent again as add, delete and add; the element then counts packets from 0. To remove an
# absent element is an error, unless the message is DESTROYSETELEM (kernel 6.3), which is used from kernel
# 6.12 on. On older kernels, each element is first added in the same transaction, so that it exists.


# The number of refused transactions after which the rest is sent in halves.
_PATIENCE = 3
# The first kernel that sets a new timeout if an element is added again.
_RENEWING = (6, 12)
# Seconds. If the answer of the kernel was lost, an Add counts as carried out if the remaining time of the ban
# differs from the wanted timeout by at most this much.
_TOLERANCE = 5.0
# The most messages in a transaction. If the kernel refuses all of them, any receive buffer has room for its
# answers.
_MESSAGES = 64
_MOMENT = 1  # seconds: the timeout of an element that is added only so that its deletion succeeds


@define
class ChangeGroup:
    """Changes that are sent together: only Adds or only Removes, to one set.

    ``numbers`` are their positions in the batch. ``replace``: an existing element is deleted before an Add of
    it (add, delete, add).
    """

    ban: BanSet
    numbers: Sequence[int]
    adds: bool
    replace: bool = False

    def only(self, numbers: Sequence[int]) -> "list[ChangeGroup]":
        """Return [this group with only the changes ``numbers``], or [] if there are none."""
        return [ChangeGroup(self.ban, numbers, self.adds, self.replace)] if numbers else []


class Changes:
    """Carries out the changes of one batch over ``kernel``, and stores their outcomes in ``outcomes``.

    ``modern``: if an element is added again, the kernel sets its new timeout (since 6.12).
    """

    def __init__(
        self, kernel: NetlinkConnection, batch: Sequence[Change], outcomes: list[Outcome], *, modern: bool
    ) -> None:
        self._kernel = kernel
        self._batch = batch
        self._outcomes = outcomes
        self._modern = modern
        self._seconds = [change.timeout if isinstance(change, Add) else 0 for change in batch]
        self.commits = 0
        """How many transactions the kernel has carried out."""
        self.missed = False
        """Whether a set of the batch is gone."""

    def apply(self, by_set: Mapping[BanSet, Sequence[int]]) -> None:
        """Carry out the batch's changes. Changes of one set keep their order.

        ``by_set`` has for each set the positions of its changes in the batch. The sets must exist.
        """
        lost: FirewallError | None = None
        for groups in self._transactions(by_set):
            if lost is not None:  # the connection broke: another request would only time out again
                self._refuse(_all(groups), lost)
            else:
                lost = self._send(groups)

    def _transactions(self, by_set: Mapping[BanSet, Sequence[int]]) -> Iterator[list[ChangeGroup]]:
        """Divide changes into groups, and the groups into transactions.

        A transaction has at most CHUNK elements and _MESSAGES groups.
        """
        groups: list[ChangeGroup] = []
        size = 0
        for ban, numbers in by_set.items():
            for adds, run in self._runs(numbers):
                for at in range(0, len(run), elements.MAX_ELEMENTS):
                    group = ChangeGroup(ban, run[at : at + elements.MAX_ELEMENTS], adds)
                    if size + len(group.numbers) > elements.CHUNK or len(groups) >= _MESSAGES:
                        yield groups
                        groups, size = [], 0
                    groups.append(group)
                    size += len(group.numbers)
        if groups:
            yield groups

    def _runs(self, numbers: Sequence[int]) -> Iterator[tuple[bool, Sequence[int]]]:
        """Divide positions in the batch into runs, in order: each has only Adds or only Removes.

        Yield each run with a bool: True if it has Adds. A change with a timeout is an Add.
        """
        seconds = self._seconds
        if all(map(seconds.__getitem__, numbers)):  # most long batches have Adds only
            yield True, numbers
            return
        for adds, group in itertools.groupby(numbers, key=lambda number: seconds[number] > 0):
            yield adds, list(group)

    def _send(self, groups: list[ChangeGroup]) -> FirewallError | None:
        """Send a transaction; after a refusal send it again without the refused changes.

        Store the outcomes. Return the error if the connection broke, else None.
        """
        refusals: list[Refusal] = []
        for _ in range(_PATIENCE):
            sent = [(group, message) for group in groups for message in self._messages(group)]
            try:
                refusals = self._kernel.transact(*(message for _, message in sent))
            except NetlinkTooLongError as error:
                return self._send_halves(groups, error)
            except NetlinkLostError as error:
                return self._check_results(groups, error)
            except FirewallError as error:
                self._refuse(_all(groups), error)
                return None if isinstance(error, NetlinkError) else error
            if not refusals:
                self.commits += 1
                self._confirm(groups)
                return None
            groups = self._remaining(groups, sent, refusals)
            if not groups:
                return None
            if len(groups) > _MESSAGES:  # some were divided
                break
        return self._send_halves(groups, _explain(groups[0].ban, refusals[0]))

    def _send_halves(self, groups: list[ChangeGroup], why: FirewallError) -> FirewallError | None:
        """Send each half of the changes separately.

        A single change has no halves: it is not sent again, and fails with the error ``why``. Return the
        error if the connection broke, else None.
        """
        if len(groups) == 1 and len(groups[0].numbers) == 1:
            self._refuse(groups[0].numbers, why)
            return None
        lost: FirewallError | None = None
        for half in _halves(groups):
            if lost is not None:
                self._refuse(_all(half), lost)
            else:
                lost = self._send(half)
        return lost

    def _check_results(self, groups: list[ChangeGroup], lost: NetlinkLostError) -> FirewallError | None:
        """Look up each element of a transaction whose answer was lost.

        Changes with the wanted result are confirmed. The others get the error ``lost``. They are not sent
        again here: the caller repeats them after a pause. Return an error if the kernel carried out nothing,
        or if it does not answer; else None.
        """
        final = {
            (group.ban, self._batch[n].network): (group.adds, n) for group in groups for n in group.numbers
        }
        carried_out = False
        for group in groups:
            for number in group.numbers:
                network = self._batch[number].network
                adds, last = final[group.ban, network]
                try:
                    there = state.find(self._kernel, network, group.ban.scope)
                except FirewallError as error:
                    self._refuse(_all(groups), error)
                    return error
                wanted = self._seconds[last]
                done = (there is not None) == adds
                if done and (there is None or abs(there.timeout - wanted) <= _TOLERANCE):
                    self._outcomes[number] = Outcome(self._batch[number], self._seconds[number])
                    carried_out = True
                else:
                    self._refuse([number], lost)
        self.commits += carried_out
        return None if carried_out else lost

    def _messages(self, group: ChangeGroup) -> list[bytes]:
        name = group.ban.name
        if not group.adds:
            networks = [self._batch[number].network for number in group.numbers]
            if self._modern:
                return [elements.delete_elements(TABLE, name, networks, lenient=True)]
            return [
                elements.add_elements(TABLE, name, [(network, _MOMENT) for network in networks]),
                elements.delete_elements(TABLE, name, list(dict.fromkeys(networks))),
            ]
        timed = [(self._batch[number].network, self._seconds[number]) for number in group.numbers]
        if group.replace:
            once = list(dict(timed).items())  # the last change of a network counts
            return [
                elements.add_elements(TABLE, name, timed),
                elements.delete_elements(TABLE, name, [network for network, _ in once]),
                elements.add_elements(TABLE, name, once),
            ]
        return [elements.add_elements(TABLE, name, timed, exclusive=not self._modern, renewing=self._modern)]

    def _remaining(
        self,
        groups: list[ChangeGroup],
        sent: Sequence[tuple[ChangeGroup, bytes]],
        refusals: Sequence[Refusal],
    ) -> list[ChangeGroup]:
        """Handle the first refusal of each group, and return the groups to send again.

        The kernel has carried out nothing of the transaction. A change that cannot succeed gets its outcome
        and is left out. A group with an element that already exists is sent again with ``replace``. ``sent``
        has each message of the transaction with its group.
        """
        first: dict[int, Refusal] = {}
        for refusal in refusals:
            group, _ = sent[refusal.index]
            first.setdefault(id(group), refusal)
        rest: list[ChangeGroup] = []
        divided, full = set[BanSet](), set[BanSet]()
        for group in groups:
            refused = first.get(id(group))
            if refused is None:
                rest.append(group)
                continue
            request = sent[refused.index][1]
            unknown = refused.code == errno.ENFILE and elements.refused_index(request, refused.offset) is None
            if unknown and group.ban in divided:
                rest.append(group)  # perhaps an earlier group took the room
            elif unknown and group.ban not in full and len(group.numbers) > 1:
                divided.add(group.ban)
                middle = (len(group.numbers) + 1) // 2
                for part in (group.numbers[:1], group.numbers[1:middle], group.numbers[middle:]):
                    rest += group.only(part)
            else:
                if unknown:  # the first change without room: those after it have none either
                    full.add(group.ban)
                rest += self._after_refusal(group, request, refused, rest)
        return rest

    def _after_refusal(
        self, group: ChangeGroup, request: bytes, refusal: Refusal, before: Sequence[ChangeGroup]
    ) -> list[ChangeGroup]:
        """Handle the refusal of ``request``, a message of ``group``, and return what to send again.

        ``before`` are the groups that are sent again before this one. Store the outcomes of the changes that
        are not sent again.
        """
        self.missed |= refusal.code == errno.ENOENT
        if refusal.code == errno.EEXIST and group.adds and not group.replace:
            return [ChangeGroup(group.ban, group.numbers, group.adds, replace=True)]
        index = elements.refused_index(request, refusal.offset)
        if index is None and refusal.code == errno.ENFILE:
            index = 0
        if index is None or index >= len(group.numbers):
            self._refuse(group.numbers, _explain(group.ban, refusal))
            return []
        if refusal.code == errno.ENFILE:
            return group.only(self._fitting(group, index, refusal, before))
        self._refuse(group.numbers[index : index + 1], _explain(group.ban, refusal))
        return group.only([*group.numbers[:index], *group.numbers[index + 1 :]])

    def _fitting(
        self, group: ChangeGroup, index: int, refusal: Refusal, before: Sequence[ChangeGroup]
    ) -> list[int]:
        """Return the changes to send again to a full set; store the outcomes of the others.

        ``index`` is the position in the group of the first change without room. The changes before it are
        sent again. Any other change is sent again only if its network is in the set already, if a change
        before ``index`` has the same network, or if one of the groups ``before`` adds it.
        """
        kept = list(group.numbers[:index])
        added = _all(one for one in before if one.adds and one.ban == group.ban)
        known = {self._batch[number].network for number in (*added, *kept)}
        for number in group.numbers[index:]:
            network = self._batch[number].network
            if network in known or self._contains(group.ban, network):
                kept.append(number)
            elif group.adds:
                self._refuse([number], _explain(group.ban, refusal))
            else:
                self._outcomes[number] = Outcome(self._batch[number])  # absent: its Remove succeeds
        return kept

    def _contains(self, ban: BanSet, network: Network) -> bool:
        """Whether a set contains ``network``; True also if the kernel does not answer."""
        try:
            self._kernel.request(elements.query_elements(TABLE, ban.name, network))
        except NetlinkError as error:
            return error.code != errno.ENOENT
        except FirewallError:
            return True
        return True

    def _confirm(self, groups: Iterable[ChangeGroup]) -> None:
        outcomes, batch, seconds = self._outcomes, self._batch, self._seconds
        for group in groups:
            for number in group.numbers:
                outcomes[number] = Outcome(batch[number], seconds[number])

    def _refuse(self, numbers: Iterable[int], error: FirewallError) -> None:
        for number in numbers:
            self._outcomes[number] = Outcome(self._batch[number], error=error)


def _halves(groups: list[ChangeGroup]) -> Iterator[list[ChangeGroup]]:
    if len(groups) > 1:
        middle = len(groups) // 2
        yield from (groups[:middle], groups[middle:])
        return
    [group] = groups
    middle = len(group.numbers) // 2
    yield from (group.only(group.numbers[:middle]), group.only(group.numbers[middle:]))


def _all(groups: Iterable[ChangeGroup]) -> Iterator[int]:
    return (number for group in groups for number in group.numbers)


def _explain(ban: BanSet, refusal: Refusal) -> FirewallError:
    if refusal.code == errno.ENFILE:
        return SetFullError(f"set {ban.name} {SET_FULL}")
    if refusal.code == errno.ENOENT:
        return FirewallError(
            f"set {ban.name} of table inet {TABLE} is gone: another program removed it; opening the "
            "firewall again creates it"
        )
    return NetlinkError(refusal.code, b"")


def renews(release: str) -> bool:
    """Whether a kernel of this release (``6.12.1-amd64``) sets the new timeout of an element added again."""
    parts = release.split("-", 1)[0].split(".")[:2]
    return all(map(str.isdecimal, parts)) and tuple(map(int, parts)) >= _RENEWING


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

    def is_present(self) -> bool:
        """Whether the kernel has the table. Needs no ``open``."""
        return state.read_state(self._kernel) is not None

    def listing(self, version: int) -> str:  # noqa: ARG002 - one table has both IP versions
        """Return the shell command that lists the rules."""
        return "nft list ruleset"

    def open(self) -> Opened:
        """Make the table with its sets and rules, or repair it. Idempotent.

        ``contract.Backend.open`` describes the result and the errors.
        """
        self._preflight()
        self._foreign.listen()
        result = self._installation.install(self.plan)
        if result.new:
            self._lists.record_empty()
        elif result.repaired:
            self._lists.forget()
        damaged = self._lists.forget_damaged(read_sets(self._kernel))
        table = result.table
        repaired = result.repaired or damaged
        return Opened(self._families, self._count_bans(), table.wire, table.limits, repaired)

    def attach(self) -> None:
        """Use the table that the kernel has. See ``contract.Backend.attach``."""
        self._preflight()
        self._installation.adopt(self.plan)

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
        if removed_from := new.keys() - adding:
            possible |= {ban: new.pop(ban) for ban in self._unknown_sets(removed_from)}
        self._change(batch, possible, outcomes)
        failed, made = None, {ban: new[ban] for ban in new.keys() & adding}
        if made:  # these wait for new rules
            failed = self._installation.add_sets(adding, partial(self._change, batch, made, outcomes))
        for ban in new if failed is not None else new.keys() - made.keys():
            _set_outcomes(batch, outcomes, new[ban], failed)
        return outcomes

    def _unknown_sets(self, removed_from: Collection[BanSet]) -> Collection[BanSet]:
        """Return those of these sets that the kernel may have, although no answer has confirmed them."""
        try:
            names = {head.name for head in read_sets(self._kernel)}
        except FirewallError:
            return removed_from
        return [ban for ban in removed_from if ban.name in names]

    def _change(
        self, batch: Sequence[Change], by_set: Mapping[BanSet, Sequence[int]], outcomes: list[Outcome]
    ) -> None:
        """Carry out changes of sets that exist (:class:`Changes`), and store their outcomes."""
        changes = Changes(self._kernel, batch, outcomes, modern=self._modern)
        many = len(batch) > elements.CHUNK
        with self._foreign.unmonitored() if many else nullcontext():
            changes.apply(by_set)
            self._foreign.commits += changes.commits
        if changes.missed:
            self._foreign.mark_suspect()

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
        with _own_connection() as kernel:
            yield from state.bans(kernel, known)

    def find(self, network: Network, scope: Scope = Scope.FULL) -> Element | None:
        """Return one ban from the kernel, None if it is not there. Needs ``open``."""
        return state.find(self._kernel, network, scope)

    def covering(self, network: Network) -> Iterator[Element]:
        """Yield the bans of ``network`` and of all networks around it. Uses a socket of its own."""
        with _own_connection() as kernel:
            yield from state.covering(kernel, network)

    def health(self) -> Health:
        """Check whether another program changed our rules or sets. Needs ``open``; changes nothing."""
        installed = self._installation.require().state.sets
        self._foreign.read()
        heads = read_sets(self._kernel)
        if {head.name for head in installed} - {head.name for head in heads}:
            self._foreign.mark_suspect()
        damage = self._installation.damage()
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

    def remembered(self, table: Table) -> Sequence[Remembered]:
        """Return the senders in ``table``; none if no rule uses it. Needs ``open``; starts no process."""
        installed = self._installation.table
        steps = stages(installed.plan) if installed is not None else ()
        used = any(table in stage.tables for stage in steps)
        return read_remembered(self._kernel, table) if used else []

    def flush(self) -> None:
        """Remove our table with all its contents; raise FirewallError if the kernel refuses.

        Idempotent; works without ``open``.
        """
        self._require_capability()
        _require_kernel(self._kernel)
        self._installation.finish()
        refusals = self._kernel.transact(messages.delete_table(TABLE))
        if refusals and refusals[0].code != errno.ENOENT:
            raise NetlinkError(refusals[0].code, b"")
        self._installation.forget()
        self._families = {}
        self._lists.forget()

    def close(self) -> None:
        """Close the sockets. Idempotent."""
        self._installation.finish()
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


@contextmanager
def _own_connection() -> Iterator[NetlinkConnection]:
    """Yield a connection of its own, for another thread; if nftables is missing, its error says so."""
    with NetlinkConnection(extended=True) as kernel:
        try:
            yield kernel
        except NetlinkError:
            _require_kernel(kernel)
            raise


def _require_kernel(kernel: NetlinkConnection) -> None:
    try:
        kernel.request(messages.get_generation())
    except NetlinkError as error:
        raise FirewallUnsupportedError(
            "this kernel has no nftables; fix: `modprobe nf_tables` (CONFIG_NF_TABLES; in a container: on "
            "its host)"
        ) from error
