"""The installed iptables rules of one IP version: written, checked, and counted.

After each write the rules are read back. The write is repeated until they are the wanted ones. Before
each reading ``watch.py`` reads the state of the kernel. It records this state only if the rules are then
found to be the wanted ones. So the next check finds any change that another program made since then, even
during the reading, and all damage that a failed write has left.
"""

import errno
from collections.abc import Mapping, Sequence
from contextlib import suppress

from attrs import evolve, frozen

from ringfence.errors import FirewallError, FirewallToolError
from ringfence.firewall.contract import FirewallPlan, Fragments, Requirement, fragments_requirement
from ringfence.firewall.ipset import iptables
from ringfence.firewall.ipset.iptables_rules import Rules, counted_rules, named_sets, wanted_rules
from ringfence.firewall.ipset.stage_rules import StageRules
from ringfence.firewall.ipset.watch import LegacyWatch, NftWatch, has_extension
from ringfence.firewall.limits import Filter
from ringfence.firewall.nftables import messages as nft_messages
from ringfence.netlink.connection import FAMILIES, NetlinkConnection, NetlinkError

_WIRE_FIX = "fix: `modprobe xt_u32 xt_multiport xt_NFLOG xt_limit xt_addrtype ipt_rpfilter ip6t_rpfilter`"
# Kernel extensions that the rules need in addition to DROP. Names in capitals are targets, as in iptables.
_WIRE_EXTENSIONS = ("u32", "multiport", "rpfilter", "addrtype", "limit", "NFLOG")
_REASSEMBLY_FIX = "fix: `modprobe xt_socket`"
_REASSEMBLING_EXTENSIONS = ("socket",)
_FRAGMENT_EXTENSIONS = {4: ("u32", "addrtype"), 6: ("ipv6header", "addrtype")}
# One write is enough, unless another program writes at the same time.
_ATTEMPTS = 4


@frozen
class InstalledRules:
    """The result of :meth:`Family.install`.

    ``wire`` is why the log rules are missing, and ``limits`` why the optional rules are missing; each is None
    if none is missing. ``damaged``: some of our rules differed from our last installation.
    """

    wire: str | None = None
    limits: str | None = None
    damaged: bool = False


class Family:
    """The iptables rules of IP ``version``; its ``tools`` write them."""

    def __init__(self, version: int, tools: iptables.Tools, kernel: NetlinkConnection) -> None:
        self.version = version
        self.tools = tools
        self._kernel = kernel
        self.is_legacy = tools.is_legacy()
        self._watch = LegacyWatch(version) if self.is_legacy else NftWatch(version, kernel)
        self._printed = iptables.Printed()
        self._rules: Rules = {}
        # How often our rules name each set. If the kernel counts fewer references to it, rules are missing.
        self.references: Mapping[str, int] = {}
        self._installed: iptables.SavedRules | None = None
        # Whether the first reading found rules of ours; None before it.
        self.adopted: bool | None = None

    def check(self) -> str | None:
        """Return a message about damage to our rules, None without damage."""
        return self._watch.check()

    def install(self, plan: FirewallPlan, fragments: Fragments | None = None) -> InstalledRules:
        """Install the plan's rules, and remove all other rules of ours.

        If the kernel does not support the log rules or what is optional, it refuses the transaction. Then
        the rules are installed without the part that it refuses. ``fragments``: what shall happen to
        fragments of strangers; None: the best that the kernel has the extensions for. Raise FirewallError if
        the kernel refuses the other rules.
        """
        asked = plan.copies, plan.limits
        if fragments is None:
            fragments = _fragments(self._kernel, self.version)
        refused: dict[tuple[bool, bool], FirewallError] = {}
        for way in dict.fromkeys([asked, (False, asked[1]), (asked[0], False), (False, False)]):
            wire, limits = way
            rules = wanted_rules(plan, self.version, wire=wire, limits=limits, fragments=fragments)
            try:
                damaged = self._write(rules)
            except FirewallToolError:
                raise
            except FirewallError as error:
                if not (wire or limits):
                    if fragments is not Fragments.PASSED:
                        return self.install(plan, Fragments.PASSED)
                    if plan.new_only:  # a kernel without connection tracking
                        return self.install(evolve(plan, new_only=False))
                    raise
                refused[way] = error
            else:
                return InstalledRules(
                    _reason(refused, (True, False), _WIRE_FIX) if asked[0] and not wire else None,
                    _reason(refused, (False, True), _load(_limits_extensions(plan, self.version)))
                    if asked[1] and not limits
                    else None,
                    damaged,
                )
        raise AssertionError  # the last attempt returns or raises

    def _write(self, rules: Rules) -> bool:
        """Write the rules until none is missing; return whether another program had changed any of them.

        Raise FirewallError if rules are still missing after some attempts, or if a tool fails.
        """
        damaged = False
        for attempt in range(_ATTEMPTS):
            record = self._watch.look(tuple(rules))
            state = iptables.parse(self._read(rules))
            if attempt == 0:
                found = iptables.own_rules(state)
                damaged = self._installed is not None and found != self._installed
                self.adopted = bool(found) if self.adopted is None else self.adopted
            else:
                self._printed.learn(state, rules)
            texts = iptables.changes(
                state, rules, printed=self._printed, new_tables=self._absent_tables(rules)
            )
            if not texts:
                record()
                self._rules, self._installed = rules, iptables.own_rules(state)
                self.references = named_sets(rules)
                return damaged
            for change in texts:
                iptables.restore(self.tools, change)
        raise FirewallError(
            f"the rules of IPv{self.version} do not stay as written: another program writes them too"
        )

    def _read(self, rules: Rules) -> str:
        """Return the output of iptables-save.

        The first time it is for all tables, because an earlier release may have left rules in them.
        """
        if self._installed is None:
            return iptables.save_all(self.tools, rules.keys())
        return "".join(iptables.save(self.tools, table=table) for table in sorted({*rules, *self._installed}))

    def _absent_tables(self, rules: Rules) -> list[str]:
        """Return the tables of ``rules`` that do not exist yet, and that iptables-nft will make."""
        return [] if self.is_legacy else [table for table in rules if self._is_absent(table)]

    def _is_absent(self, table: str) -> bool:
        try:
            self._kernel.request(nft_messages.get_table(table, family=FAMILIES[self.version]))
        except NetlinkError as error:
            return error.code == errno.ENOENT
        return False

    def counters(self) -> Mapping[str, tuple[int, int]]:
        """Return the packets and bytes of each kind of rules since they were installed.

        No rule counts the packets that a full table drops. So their number is computed
        (``StageRules.chains``). The counters are read twice, because packets arrive meanwhile: the packets
        that entered are from the first reading, those that left from the second. So a packet that was still
        on its way at the first reading is not mistaken for a dropped one.
        """
        first = self._counters()
        entered = {kind[1:]: packets for kind, (packets, _) in first.items() if kind.startswith("+")}
        second = self._counters() if entered else first
        left = {kind: second.get(f"-{kind}", (0, 0))[0] for kind in entered}
        return {**second, **{kind: (max(entered[kind] - left[kind], 0), 0) for kind in entered}}

    def _counters(self) -> dict[str, tuple[int, int]]:
        rules = self._rules  # another thread may replace them meanwhile
        state: dict[str, dict[str, list[str]]] = {}
        for table in rules:
            state |= iptables.parse(iptables.save(self.tools, table=table, counters=True))
        sums: dict[str, tuple[int, int]] = {}
        for table, chain, position, kind in counted_rules(rules):
            lines = state.get(table, {}).get(chain, [])
            packets, octets = iptables.parse_counters(lines[position]) if position < len(lines) else (0, 0)
            before = sums.get(kind, (0, 0))
            sums[kind] = before[0] + packets, before[1] + octets
        return sums

    def remove(self) -> None:
        """Remove our rules, and the tables that were made for them if they contain nothing else."""
        made = iptables.remove(self.tools)
        for table in made if not self.is_legacy else ():
            self._drop(table)
        self._rules, self._installed = {}, None

    def remove_other_flavour(self) -> None:
        """Remove our rules in the other flavour of iptables, as far as possible.

        They are there if the host's flavour was changed (``update-alternatives``) while they were installed.
        Rules that stay keep their sets in use, so ``ringfence off`` reports them.
        """
        with suppress(FirewallError):  # that flavour may not be installed
            tools = iptables.find_tools(self.version, "nft" if self.is_legacy else "legacy")
            Family(self.version, tools, self._kernel).remove()

    def _drop(self, table: str) -> None:
        family = FAMILIES[self.version]
        found = nft_messages.chains_of(self._kernel.request(nft_messages.get_chains(family=family)))
        builtin = [chain.name for chain in found if chain.table == table and chain.hook is not None]
        refusals = self._kernel.transact(*nft_messages.delete_empty_table(self.version, table, builtin))
        # Another program may use the table, or have removed it.
        if refusals and refusals[0].code not in (errno.EBUSY, errno.ENOENT):
            raise NetlinkError(refusals[0].code, b"")


def _reason(refused: Mapping[tuple[bool, bool], FirewallError], alone: tuple[bool, bool], fix: str) -> str:
    """Return why a feature (the log rules or the limits) is missing, with the fix.

    ``refused`` maps each refused attempt to its error. An attempt is a pair: whether it has the log rules,
    and whether it has the limits. ``alone`` is the attempt that has only the missing feature. The reason is
    its error, or, if there was no such attempt, the error of the attempt with both features.
    """
    return f"{refused.get(alone) or refused[True, True]}; {fix}"


def rule_requirements(kernel: NetlinkConnection, version: int, plan: FirewallPlan) -> list[Requirement]:
    """Return each optional feature of the plan, with a problem if the kernel lacks an extension for it."""
    found, written = [], StageRules(plan, version)
    limits = _limits_extensions(plan, version)
    added = (
        (one.name, written.extensions(one))
        for one in plan.added
        if isinstance(one, Filter) and not one.optional
    )
    for feature, configured, names, fix in (
        ("the log rule for the wire", plan.copies, _WIRE_EXTENSIONS, _WIRE_FIX),
        ("the limits", limits, limits, _load(limits)),
        *((f"the {name}", names, names, _load(names)) for name, names in added),
    ):
        if configured:
            missing = [n for n in names if not has_extension(kernel, version, n, target=n.isupper())]
            problem = f"this kernel has no {', '.join(missing)} for IPv{version}; {fix}" if missing else None
            found.append(Requirement(f"{feature}, IPv{version}", problem, optional=True))
    fragments = _fragments(kernel, version)
    return [*found, fragments_requirement(fragments, _REASSEMBLY_FIX, f", IPv{version}")]


def _limits_extensions(plan: FirewallPlan, version: int) -> tuple[str, ...]:
    """Return the extensions that the limits of the plan need (``FirewallPlan.limits``)."""
    written, found = StageRules(plan, version), ["hashlimit"] if plan.limits_copies else []
    for one in plan.added:
        if isinstance(one, Filter) and one.optional:
            found += written.extensions(one)
    return tuple(dict.fromkeys(found))


def _load(names: Sequence[str]) -> str:
    """Return the fix for missing extensions: the command that loads their modules.

    The match ``set`` and the target ``SET`` are in one module.
    """
    modules = dict.fromkeys(f"xt_{name.lower() if name.lower() in names else name}" for name in names)
    return f"fix: `modprobe {' '.join(modules)}`"


def _fragments(kernel: NetlinkConnection, version: int) -> Fragments:
    """Return the best treatment of packet fragments for which the kernel has the extensions."""
    for found, names in (
        (Fragments.REASSEMBLED, _REASSEMBLING_EXTENSIONS),
        (Fragments.DROPPED, _FRAGMENT_EXTENSIONS[version]),
    ):
        if all(has_extension(kernel, version, name) for name in names):
            return found
    return Fragments.PASSED
