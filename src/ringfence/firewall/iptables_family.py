"""The rules of one IP version as they stand in the kernel: put in, watched, and what they have met.

To put them in is to write until what is read back is what is wanted. What the kernel has is noted before
each reading, so that a change by somebody else between the two is seen by the next look.
"""

import errno
from collections.abc import Mapping

from attrs import frozen

from ringfence.errors import FirewallError
from ringfence.firewall import iptables, nft_messages
from ringfence.firewall.contract import LimitMode, Plan
from ringfence.firewall.iptables import Printed, State, Tools
from ringfence.firewall.iptables_rules import (
    AT_LIMITER,
    OVER_LIMIT,
    WITHIN_LIMIT,
    Rules,
    kinds_of,
    named_sets,
    wanted_rules,
)
from ringfence.firewall.iptables_watch import FAMILIES, LegacyWatch, NftWatch, Watch
from ringfence.firewall.netlink import Conversation, NetlinkError
from ringfence.firewall.xtables import has_extension

_WIRE_MEND = "mend: `modprobe xt_u32 xt_NFLOG xt_addrtype ipt_rpfilter ip6t_rpfilter`"
_LIMITER_MEND = "mend: `modprobe xt_hashlimit xt_multiport xt_length xt_set`"
# What the rules ask of the kernel beside a drop; targets in capitals, as everywhere.
_WIRE_EXTENSIONS = ("u32", "rpfilter", "addrtype", "NFLOG")
_LIMITER_EXTENSIONS = ("hashlimit", "multiport", "length", "SET")
# Writing once is enough, unless somebody else writes as well.
_LOOKS = 4


@frozen
class Placed:
    """Why log rule and limiter are not among the rules (None: they are, or need not be).

    ``damaged``: whether anything of ours was other than we had left it.
    """

    wire: str | None = None
    limiter: str | None = None
    damaged: bool = False


@frozen
class Met:
    """What the rules have met, by kind (packets, bytes), and the packets that the limiter had no room for."""

    kinds: Mapping[str, tuple[int, int]]
    full: int = 0


class Family:
    """The rules of IP ``version``, by its ``tools``."""

    def __init__(self, version: int, tools: Tools, kernel: Conversation) -> None:
        self.version = version
        self.tools = tools
        self._kernel = kernel
        self._legacy = tools.is_legacy()
        self._watch: Watch = LegacyWatch(version) if self._legacy else NftWatch(version, kernel)
        self._printed = Printed()
        self._rules: Rules = {}
        # How often each set is named, at least, while our rules stand.
        self.references: Mapping[str, int] = {}
        self._stood: State | None = None

    def look(self) -> tuple[str | None, bool]:
        """Say what somebody has changed of our rules, and whether anything changed since the last look."""
        return self._watch.look()

    def put(self, plan: Plan) -> Placed:
        """Have the plan's rules stand, and no others of ours.

        A kernel that cannot have the log rule or the limiter refuses the whole transaction: then the rest
        goes in without.
        """
        asked = plan.log_group is not None, plan.limit.mode is not LimitMode.OFF
        refused: dict[tuple[bool, bool], FirewallError] = {}
        for way in dict.fromkeys([asked, (False, asked[1]), (asked[0], False), (False, False)]):
            wire, limiter = way
            try:
                damaged = self._write(wanted_rules(plan, self.version, wire=wire, limiter=limiter))
            except FirewallError as error:
                if not (wire or limiter):
                    raise
                refused[way] = error
            else:
                return Placed(
                    _reason(refused, (True, False), _WIRE_MEND) if asked[0] and not wire else None,
                    _reason(refused, (False, True), _LIMITER_MEND) if asked[1] and not limiter else None,
                    damaged,
                )
        raise AssertionError  # the last way returns or raises

    def _write(self, rules: Rules) -> bool:
        """Write until nothing is missing; say whether anything of ours was other than we had left it."""
        damaged = False
        for looked in range(_LOOKS):
            self._watch.note(tuple(rules))
            state = iptables.parse(self._read(rules))
            if looked == 0:
                damaged = self._stood is not None and iptables.ours_in(state) != self._stood
            else:
                self._printed.learn(state, rules)
            texts = iptables.changes(state, rules, printed=self._printed, made=self._missing(rules))
            if not texts:
                self._rules, self._stood = rules, iptables.ours_in(state)
                self.references = named_sets(rules)
                return damaged
            for text in texts:
                iptables.restore(self.tools, text)
        raise FirewallError(
            f"the rules of IPv{self.version} do not stay as they are written: something else writes them too"
        )

    def _read(self, rules: Rules) -> str:
        """Give what is saved: of all tables at first, since who was here before may have left something."""
        if self._stood is None:
            return iptables.save_all(self.tools, rules.keys())
        return "".join(iptables.save(self.tools, table=table) for table in sorted({*rules, *self._stood}))

    def _missing(self, rules: Rules) -> list[str]:
        """Name the tables that iptables-nft would make."""
        return [] if self._legacy else [table for table in rules if self._lacks(table)]

    def _lacks(self, table: str) -> bool:
        try:
            self._kernel.request(nft_messages.table_query(self.version, table))
        except NetlinkError as error:
            return error.code == errno.ENOENT
        return False

    def met(self) -> Met:
        """Say what the rules have met since they were put in.

        Packets go on coming while the tool reads one counter after the other. Whoever came to the limiter by
        the first reading has left it by the second: what is missing then was dropped for want of room.
        """
        first = self._counters()
        second = self._counters() if AT_LIMITER in first else first
        left = sum(second.get(kind, (0, 0))[0] for kind in (OVER_LIMIT, WITHIN_LIMIT))
        return Met(second, full=max(first.get(AT_LIMITER, (0, 0))[0] - left, 0))

    def _counters(self) -> dict[str, tuple[int, int]]:
        rules = self._rules  # another thread may put others in place meanwhile
        state: dict[str, dict[str, list[str]]] = {}
        for table in rules:
            state |= iptables.parse(iptables.save(self.tools, table=table, counters=True))
        sums: dict[str, tuple[int, int]] = {}
        for table, chain, place, kind in kinds_of(rules):
            lines = state.get(table, {}).get(chain, [])
            packets, octets = iptables.counted(lines[place]) if place < len(lines) else (0, 0)
            before = sums.get(kind, (0, 0))
            sums[kind] = before[0] + packets, before[1] + octets
        return sums

    def remove(self) -> None:
        """Take our rules out, and the tables that were made for them, if nothing else has come into them."""
        made = iptables.remove(self.tools)
        for table in made if not self._legacy else ():
            self._drop(table)
        self._rules, self._stood = {}, None

    def _drop(self, table: str) -> None:
        family = FAMILIES[self.version]
        try:
            found = nft_messages.chains_of(self._kernel.request(nft_messages.get_chains(family=family)))
            builtin = [chain.name for chain in found if chain.table == table and chain.hook is not None]
            self._kernel.request(*nft_messages.delete_empty_table(self.version, table, builtin))
        except NetlinkError as error:
            if error.code not in (errno.EBUSY, errno.ENOENT):  # in use by now, or gone
                raise


def _reason(refused: Mapping[tuple[bool, bool], FirewallError], alone: tuple[bool, bool], mend: str) -> str:
    """Say why one of the two does not stand: what was refused when tried alone, else with the other."""
    return f"{refused.get(alone) or refused[True, True]}; {mend}"


def lacks(kernel: Conversation, version: int, plan: Plan) -> list[tuple[str, str | None]]:
    """Say of each thing that the plan asks for beside the bans what the kernel lacks for it, and the mend."""
    found = []
    for what, asked, names, mend in (
        ("the log rule for the wire", plan.log_group is not None, _WIRE_EXTENSIONS, _WIRE_MEND),
        ("the limiter", plan.limit.mode is not LimitMode.OFF, _LIMITER_EXTENSIONS, _LIMITER_MEND),
    ):
        if asked:
            missing = [n for n in names if not has_extension(kernel, version, n, target=n.isupper())]
            lack = f"this kernel has no {', '.join(missing)} for IPv{version}; {mend}" if missing else None
            found.append((f"{what}, IPv{version}", lack))
    return found
