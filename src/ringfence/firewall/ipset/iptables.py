"""The programs of iptables: reading the installed rules, and writing ours, one transaction per table.

``iptables_rules.py`` defines the wanted rules. The installed rules are read with iptables-save and compared.
If they are the wanted ones, nothing is written. Each write is one ``*TABLE ... COMMIT`` that contains only
our chains. It works the same with iptables-nft and iptables-legacy. Rules of an earlier release are replaced
in the same transaction.

Our jumps stand first in their chains, because a rule of another program that accepts packets before them
would defeat the bans.

If a new plan moves the drop rules from one table to the other, two or three transactions are needed. In their
order, at least one of the tables drops packets at every moment: see :func:`changes`.

The tools print some rules differently from their input (kilobytes are rounded, defaults are left out). So
after each write ringfence reads the rules, and stores the printed text for the written one
(:class:`Printed`). Otherwise they would look changed, and be written again at every check.

iptables-nft makes a table with its first rule and has no command to delete it. If it makes a table for us, an
empty chain ``ringfence-made`` without a jump marks the table as ours. :func:`is_own_table` returns whether
the table may be deleted. ``nftables/messages.py`` deletes it if it contains nothing else.
"""

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import chain as chain_iterables

from attrs import Factory, evolve, frozen

from ringfence.errors import FirewallError
from ringfence.firewall.contract import FirewallPlan, Fragments, Requirement, fragments_requirement
from ringfence.firewall.ipset.iptables_rules import (
    CHAINS,
    HOOKS,
    MADE,
    Rules,
    counted_rules,
    named_sets,
    wanted_rules,
)
from ringfence.firewall.ipset.limits import OVER_LIMIT, WITHIN_LIMIT
from ringfence.firewall.limits import LimitMode
from ringfence.firewall.nftables import messages as nft_messages
from ringfence.firewall.requirements import find_program, run_program
from ringfence.firewall.stages import AT_LIMITER
from ringfence.netlink.connection import (
    FAMILIES,
    NLM_F_ACK,
    NetlinkConnection,
    NetlinkError,
    message,
    number,
    text,
)

# -- queries the kernel about iptables without a process: the size of a legacy table, and the extensions
#
# iptables-legacy sends no notification and has no netlink interface. But ``getsockopt`` on any socket of
# the IP version returns the number of rules in a table and their bytes (``IPT_SO_GET_INFO``,
# CAP_NET_ADMIN). It reads the table's name from the buffer for its answer. Python's own getsockopt cannot
# pass such a buffer, so ctypes calls the C function. If another program replaces a rule and neither number
# changes, this is not noticed.
#
# Matches and targets are queried by nfnetlink if the kernel has nft_compat, else by ``getsockopt`` too.


# The socket option IPT_SO_GET_INFO; IP6T_SO_GET_INFO has the same number. The options that query a match or a
# target (``_REVISION``) have other numbers for IPv6 than for IPv4.
_GET_INFO = 64
_REVISION = {4: (66, 67), 6: (68, 69)}
_LEVELS = {4: socket.SOL_IP, 6: socket.IPPROTO_IPV6}
_INFO = struct.Struct("=32sI20s20sII")
_EXTENSION = struct.Struct("=29sB")
_COMPAT_GET = 11 << 8
_libc = ctypes.CDLL(None, use_errno=True)


@frozen
class Size:
    """The size of a table: its number of entries (rules, and one or two for each chain) and their bytes."""

    entries: int
    size: int


def table_size(version: int, table: str) -> Size | None:
    """Return the size of a table of iptables-legacy; None if the kernel has no such table."""
    try:
        answer = _query(version, _GET_INFO, _INFO.pack(table.encode(), 0, b"", b"", 0, 0))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOPROTOOPT):
            return None
        raise FirewallError(f"table {table} of IPv{version} cannot be queried: {error}") from error
    *_, entries, size = _INFO.unpack(answer)
    return Size(entries, size)


def has_extension(kernel: NetlinkConnection, version: int, name: str, *, target: bool = False) -> bool:
    """Whether the kernel has a match or target of that name; True if it cannot be queried."""
    request = message(
        _COMPAT_GET,
        NLM_F_ACK,
        FAMILIES[version],
        text(1, name),
        number(2, 0),
        number(3, int(target)),
    )
    try:
        kernel.request(request)
    except NetlinkError as error:
        if error.code != errno.EINVAL:  # EINVAL: the kernel has no nft_compat, so it cannot answer
            return error.code != errno.ENOENT
    else:
        return True
    try:
        _query(version, _REVISION[version][target], _EXTENSION.pack(name.encode(), 0))
    except OSError as error:
        return error.errno != errno.ENOENT
    return True


def _query(version: int, option: int, query: bytes) -> bytes:
    buffer = ctypes.create_string_buffer(query, len(query))
    length = ctypes.c_uint32(len(query))
    with socket.socket(FAMILIES[version], socket.SOCK_DGRAM) as any_socket:
        code = _libc.getsockopt(any_socket.fileno(), _LEVELS[version], option, buffer, ctypes.byref(length))
    if code != 0:
        number_ = ctypes.get_errno()
        raise OSError(number_, os.strerror(number_))
    return buffer.raw


# -- checks whether our iptables rules are still installed, without a process: 0.1 ms if nothing changed
#
# Rules of iptables-nft are rules of nftables. The kernel numbers every transaction of nftables (the
# generation). While that number is the same, nothing has changed. After a change the rules are read by
# netlink and compared. For tables of iptables-legacy the kernel reports only the number of rules and their
# bytes. So there a change of another program's rules counts as damage too, until ``open`` finds our rules
# in place.


# By table and chain: the handle and the body of each rule, in order. Both are compared: a replaced rule may
# keep its handle, and a rule that was deleted and added again has the same body.
_Recorded = Mapping[tuple[str, str], tuple[tuple[int, bytes], ...]]


class NftWatch:
    """The check of the rules of iptables-nft."""

    def __init__(self, version: int, kernel: NetlinkConnection) -> None:
        self._version = version
        self._kernel = kernel
        self._tables: Collection[str] = ()
        self._recorded: _Recorded = {}
        self._generation: int | None = None
        self._damage: str | None = None

    def record(self, tables: Collection[str]) -> None:
        """Record the present rules in ``tables`` as the wanted ones."""
        self._tables, self._damage = tables, None
        self._generation = self._number()
        self._recorded = self._rules()

    def check(self) -> tuple[str | None, bool]:
        """Check our rules, and return two values.

        The first is a message about damage to our rules, None without damage. The second is whether any rule,
        also of another program, changed since the last check.
        """
        number = self._number()
        changed, self._generation = number != self._generation, number
        if changed:
            self._damage = self._compare()
        return self._damage, changed

    def _number(self) -> int | None:
        answers = self._kernel.request(nft_messages.get_generation())
        generation = nft_messages.generation_of(answers[0]) if answers else None
        return generation.number if generation is not None else None

    def _rules(self) -> _Recorded:
        """Return the rules of our chains, and the first rule of each builtin chain, which should be ours."""
        recorded: dict[tuple[str, str], tuple[tuple[int, bytes], ...]] = {}
        for table in self._tables:
            request = nft_messages.get_rules(table, family=FAMILIES[self._version])
            for rule in nft_messages.rules_of(self._kernel.request(request)):
                key = table, rule.chain
                if rule.chain in CHAINS[table] or (rule.chain in HOOKS[table] and key not in recorded):
                    recorded[key] = (*recorded.get(key, ()), (rule.handle, rule.body))
        return recorded

    def _compare(self) -> str | None:
        now = self._rules()
        for (table, chain), rules in self._recorded.items():
            found = now.get((table, chain), ())
            if found == rules:
                continue
            where = f"chain {chain} in table {table} of IPv{self._version}"
            if chain in HOOKS[table] and found:
                return f"another rule stands before ours in {where}"
            return f"rules of {where} were {'changed' if found else 'removed'}"
        return None


class LegacyWatch:
    """The check of the rules of iptables-legacy."""

    def __init__(self, version: int) -> None:
        self._version = version
        self._recorded: Mapping[str, Size | None] = {}
        self._last: Mapping[str, Size | None] = {}

    def record(self, tables: Collection[str]) -> None:
        """Record the present sizes of ``tables`` as those of the wanted rules."""
        self._recorded = self._last = self._sizes(tables)

    def check(self) -> tuple[str | None, bool]:
        """Check the sizes of the tables, and return two values.

        The first is a message about a table that no longer has its recorded size; None if there is none. The
        second is whether any size changed since the last check.
        """
        now = self._sizes(self._recorded)
        changed, self._last = now != self._last, now
        for table, size in self._recorded.items():
            if now[table] != size:
                return f"the rules in table {table} of IPv{self._version} were changed", changed
        return None, changed

    def _sizes(self, tables: Collection[str]) -> dict[str, Size | None]:
        return {table: table_size(self._version, table) for table in tables}


_PREFIXES = {4: "iptables", 6: "ip6tables"}
_PACKAGE = "iptables"
_READING_ATTEMPTS = 5
_REMOVAL_RETRIES = 3  # after the first attempt: another process may remove the same rules meanwhile
_LOCK_WAIT = 5  # seconds that the tool waits until another iptables program has finished

# By table, by chain, the rules in order as iptables-save prints them.
SavedRules = Mapping[str, Mapping[str, Sequence[str]]]


@frozen
class Tools:
    """The absolute paths of ``iptables-save`` and ``iptables-restore`` of one IP version."""

    save: str
    restore: str

    def is_legacy(self) -> bool:
        """Whether the tools are iptables-legacy.

        The tool is asked once, and again if its path (a link) leads to another program.
        """
        return _is_legacy(self.save, os.path.realpath(self.save))


@frozen
class Printed:
    """The output of iptables-save for the rules that ringfence wrote.

    ``known`` maps the rules of a chain, as ringfence wrote them, to their text in the output.
    """

    known: dict[tuple[str, ...], tuple[str, ...]] = Factory(dict)

    def matches(self, found: Sequence[str] | None, wanted: Sequence[str]) -> bool:
        """Whether the rules ``found`` in a chain are the ``wanted`` ones, in their written or printed form.

        ``found`` is None if there is no such chain.
        """
        return found is not None and tuple(found) in {tuple(wanted), self.known.get(tuple(wanted))}

    def learn(self, state: SavedRules, rules: Rules) -> None:
        """Store the chains of ``state`` as the printed form of ``rules``, which have just been written."""
        for table, chains in lines_of(rules).items():
            for name, wanted in chains.items():
                found = state.get(table, {}).get(name)
                if found is not None and len(found) == len(wanted):
                    self.known[tuple(wanted)] = tuple(found)


def find_tools(version: int) -> Tools:
    """Find the tools of IP ``version`` in PATH, /usr/sbin or /sbin; else raise FirewallUnsupportedError."""
    prefix = _PREFIXES[version]
    return Tools(*(find_program(f"{prefix}-{verb}", _PACKAGE) for verb in ("save", "restore")))


@lru_cache(maxsize=16)
def _is_legacy(save: str, _target: str) -> bool:
    # "iptables-save v1.8.9 (nf_tables)"; before 1.8 there was only the legacy flavour, which prints no name.
    return "nf_tables" not in _run([save, "--version"], "")


def lines_of(rules: Rules) -> dict[str, dict[str, list[str]]]:
    """Return the rules of each chain of each table as lines for iptables-restore."""
    return {
        table: {name: [f"-A {name} {rule.text}" for rule in ordered] for name, ordered in chains.items()}
        for table, chains in rules.items()
    }


def changes(
    state: SavedRules, rules: Rules, *, printed: Printed | None = None, new_tables: Collection[str] = ()
) -> list[str]:
    """Build the transactions that replace all our rules in ``state`` by ``rules``.

    Return an empty list if the rules are the same. ``printed`` knows how the tools print rules that ringfence
    wrote. ``new_tables`` are the tables that do not exist yet; they are marked as made by us.
    """
    printed = printed if printed is not None else Printed()
    wanted = lines_of(rules)
    raw = _table(state, "raw", wanted["raw"], printed, new_tables)
    inner = wanted.get("filter", {})
    rest = _table(state, "filter", inner, printed, new_tables)
    if not (raw and rest):
        return [text for text in (raw, rest) if text]
    old = {name: [*state["filter"][name]] for name in CHAINS["filter"] if state.get("filter", {}).get(name)}
    if not inner:
        return [raw, rest]
    if not old:
        return [rest, raw]
    # Both raw and filter have drop rules to change, and only one table can change at a time. So filter gets
    # the old and the new rules first, and loses the old ones last: drops never stop.
    both = {name: [*inner.get(name, ()), *old.get(name, ())] for name in {**inner, **old}}
    return [
        _table(state, "filter", both, printed, new_tables),
        raw,
        _table({"filter": _state_with("filter", both)}, "filter", inner, printed, ()),
    ]


def _state_with(table: str, chains: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """Return the rules that a table must have, by chain: ``chains``, and our jumps to them."""
    jumps = {hook: [f"-A {hook} -j {name}"] for hook, name in HOOKS[table].items() if name in chains}
    return {**chains, **jumps}


def _table(
    state: SavedRules,
    table: str,
    wanted: Mapping[str, Sequence[str]],
    printed: Printed,
    new_tables: Collection[str],
) -> str:
    found = state.get(table, {})
    stale = [name for name in CHAINS[table] if name in found and name not in wanted and name != MADE]
    hooks = {hook: name for hook, name in HOOKS[table].items() if name in wanted}
    if (
        not stale
        and all(printed.matches(found.get(name), rules) for name, rules in wanted.items())
        and all(_jumps(found, table, hook) == ([0] if hook in hooks else []) for hook in HOOKS[table])
    ):
        return ""
    marked = [MADE] if table in new_tables and wanted else []
    lines = [f":{name} - [0:0]" for name in [*wanted, *marked]]  # creates or empties the chain
    for hook in HOOKS[table]:
        lines += [f"-D {hook} -j {HOOKS[table][hook]}"] * len(_jumps(found, table, hook))
    lines += chain_iterables.from_iterable(wanted.values())
    lines += [f"-I {hook} 1 -j {name}" for hook, name in hooks.items()]
    # All stale chains are emptied before one is deleted, because one may jump to another.
    lines += [f"-F {name}" for name in stale] + [f"-X {name}" for name in stale]
    return _transaction(table, lines)


def removals(state: SavedRules) -> list[str]:
    """Build the transactions that remove our jumps and chains in ``state``, one for each table."""
    texts = []
    for table, hooks in HOOKS.items():
        found = state.get(table, {})
        lines = []
        for hook, name in hooks.items():
            lines += [f"-D {hook} -j {name}"] * len(_jumps(found, table, hook))
        ours = [name for name in CHAINS[table] if name in found]
        lines += [f"-F {name}" for name in ours] + [f"-X {name}" for name in ours]
        if lines:
            texts.append(_transaction(table, lines))
    return texts


def _transaction(table: str, lines: list[str]) -> str:
    return "\n".join([f"*{table}", *lines, "COMMIT", ""])


def parse(saved: str) -> dict[str, dict[str, list[str]]]:
    """Parse the output of iptables-save: the rules of each chain of each table.

    Each rule is a line, which begins with its counters if the output has them.
    """
    state: dict[str, dict[str, list[str]]] = {}
    found: dict[str, list[str]] = {}
    for line in saved.splitlines():
        if line.startswith("*"):
            found = state.setdefault(line[1:], {})
        elif line.startswith(":"):
            found[line[1:].split(" ", 1)[0]] = []
        elif line.startswith("-A "):
            found.setdefault(line.split(" ", 2)[1], []).append(line)
        elif line.startswith("["):
            found.setdefault(line.split(" ", 3)[2], []).append(line)
    return state


def parse_counters(line: str) -> tuple[int, int]:
    """Return the packets and the bytes at the beginning of a line of ``iptables-save -c``."""
    packets, _, octets = line[1:].partition("]")[0].partition(":")
    return int(packets), int(octets)


def own_rules(state: SavedRules) -> dict[str, dict[str, Sequence[str]]]:
    """Return, by table, the rules of our chains and the positions of our jumps.

    The value for a table maps the name of each chain of ours to its rules. It also maps the name of each
    builtin chain with a jump of ours to the positions of these jumps, as texts. ``state`` has all rules of
    the tables.
    """
    ours: dict[str, dict[str, Sequence[str]]] = {}
    for table, chains in CHAINS.items():
        found = state.get(table, {})
        mine: dict[str, Sequence[str]] = {name: found[name] for name in chains if name in found}
        for hook in HOOKS[table]:
            if positions := _jumps(found, table, hook):
                mine[hook] = [str(position) for position in positions]
        if mine:
            ours[table] = mine
    return ours


def _jumps(found: Mapping[str, Sequence[str]], table: str, hook: str) -> list[int]:
    """Return the positions of our jumps in the builtin chain ``hook``."""
    jump = f"-A {hook} -j {HOOKS[table][hook]}"
    return [position for position, rule in enumerate(found.get(hook, [])) if rule == jump]


def is_own_table(saved: str, table: str = "raw") -> bool:
    """Whether ``table`` may be deleted once it is empty.

    It may if iptables-nft made it for ringfence, and if the policies of its builtin chains accept packets.
    ``saved`` is the output of iptables-save.
    """
    part = saved.partition(f"*{table}\n")[2].partition("\nCOMMIT")[0].splitlines()
    builtin = [line for line in part if line.startswith(":") and line.split(" ")[1] != "-"]
    return f":{MADE} " in "".join(part) and all(line.split(" ")[1] == "ACCEPT" for line in builtin)


def save(tools: Tools, *, table: str | None = None, counters: bool = False) -> str:
    """Return the output of iptables-save for one table, or for all existing tables.

    The tool reads the rules first and the names of their sets afterwards. It fails if another process removes
    a set in between, so a failed reading is repeated.
    """
    options = [*(["-t", table] if table is not None else []), *(["-c"] if counters else [])]
    for _ in range(_READING_ATTEMPTS - 1):
        with suppress(_ToolFailedError):
            return _run([tools.save, *options], "")
    return _run([tools.save, *options], "")


def save_all(tools: Tools, wanted: Collection[str]) -> str:
    """Return the output of iptables-save for all existing tables.

    iptables-legacy-save reads the list of tables from a file below /proc/net. Only root can read it, and
    ringfence's systemd unit hides it. Without the list, iptables-legacy-save prints nothing. Therefore each
    table of ``wanted`` that is missing in its output is saved by name.
    """
    saved = save(tools)
    if not tools.is_legacy():
        return saved
    unseen = [table for table in sorted(wanted) if f"*{table}\n" not in saved]
    return saved + "".join(save(tools, table=table) for table in unseen)


def restore(tools: Tools, text: str) -> None:
    """Carry out the transaction ``text`` by iptables-restore.

    If it is refused, nothing changes; raise FirewallError with the tool's output.
    """
    _run([tools.restore, "--noflush", "-w", str(_LOCK_WAIT)], text)


def remove(tools: Tools) -> list[str]:
    """Remove our rules of one IP version; return the tables that iptables-nft made for them.

    The caller may delete these tables if they are empty. Idempotent.
    """
    saved = save_all(tools, HOOKS)
    for left in range(_REMOVAL_RETRIES, -1, -1):
        try:
            for text in removals(parse(saved if left == _REMOVAL_RETRIES else save_all(tools, HOOKS))):
                restore(tools, text)
            break
        except FirewallError:  # another process removed some rules first: retry with the rest
            if not left:
                raise
    return [table for table in HOOKS if is_own_table(saved, table)]


class _ToolFailedError(FirewallError):
    """A tool ended with an exit status other than 0."""


def _run(command: list[str], text: str) -> str:
    done = run_program(command, text, _PACKAGE)
    if done.status != 0:
        reason = " ".join(done.errors.split()) or "no reason given"
        raise _ToolFailedError(f"{command[0]} failed ({done.status}): {reason}")
    return done.output


# -- the installed iptables rules of one IP version: written, checked, and counted
#
# After each write the rules are read back. The write is repeated until they are the wanted ones. Before
# each reading ``iptables_watch`` records the state of the kernel. So the next check finds any change that
# another program made since then, even during the reading.


_WIRE_FIX = "fix: `modprobe xt_u32 xt_multiport xt_NFLOG xt_limit xt_addrtype ipt_rpfilter ip6t_rpfilter`"
_LIMITER_FIX = "fix: `modprobe xt_hashlimit xt_multiport xt_length xt_addrtype xt_set xt_u32 xt_TCPMSS`"
_FENCE_FIX = "fix: `modprobe xt_conntrack xt_multiport xt_set`"
# Kernel extensions that the rules need in addition to DROP. Names in capitals are targets, as in iptables.
_WIRE_EXTENSIONS = ("u32", "multiport", "rpfilter", "addrtype", "limit", "NFLOG")
_FENCE_EXTENSIONS = ("conntrack", "multiport", "SET")
_LIMITER_EXTENSIONS = ("hashlimit", "multiport", "length", "addrtype", "SET", "u32", "TCPMSS")
_REASSEMBLY_FIX = "fix: `modprobe xt_socket`"
_REASSEMBLING_EXTENSIONS = ("socket",)
_FRAGMENT_EXTENSIONS = {4: ("u32", "addrtype"), 6: ("ipv6header", "addrtype")}
# One write is enough, unless another program writes at the same time.
_ATTEMPTS = 4


@frozen
class InstalledRules:
    """The result of :meth:`Family.install`.

    ``wire`` is why the log rules are missing, and ``limiter`` why the limiter is missing; None if they are
    not. ``damaged``: some of our rules differed from our last installation.
    """

    wire: str | None = None
    limiter: str | None = None
    damaged: bool = False


@frozen
class FamilyCounters:
    """The counters of the rules of one IP version.

    ``kinds`` maps a kind of rules (such as ``from banned addresses``) to its packets and bytes. ``full`` is
    the number of packets from sources for which the limiter had no room.
    """

    kinds: Mapping[str, tuple[int, int]]
    full: int = 0


class Family:
    """The iptables rules of IP ``version``; its ``tools`` write them."""

    def __init__(self, version: int, tools: Tools, kernel: NetlinkConnection) -> None:
        self.version = version
        self.tools = tools
        self._kernel = kernel
        self._legacy = tools.is_legacy()
        self._watch = LegacyWatch(version) if self._legacy else NftWatch(version, kernel)
        self._printed = Printed()
        self._rules: Rules = {}
        # How often our rules name each set. If the kernel counts fewer references to it, rules are missing.
        self.references: Mapping[str, int] = {}
        self._installed: SavedRules | None = None

    def check(self) -> tuple[str | None, bool]:
        """Check our rules, and return two values.

        The first is a message about damage to our rules, None without damage. The second is whether any rule,
        also of another program, changed since the last check.
        """
        return self._watch.check()

    def install(self, plan: FirewallPlan, fragments: Fragments | None = None) -> InstalledRules:
        """Install the plan's rules, and remove all other rules of ours.

        If the kernel does not support the log rules or the limiter, it refuses the whole transaction. Then
        the rules are installed without the part that it refuses. ``fragments``: what shall happen to
        fragments of strangers; None: the best that the kernel has the extensions for.
        """
        asked = plan.log_group is not None, plan.limits
        if fragments is None:
            fragments = _fragments(self._kernel, self.version)
        refused: dict[tuple[bool, bool], FirewallError] = {}
        for way in dict.fromkeys([asked, (False, asked[1]), (asked[0], False), (False, False)]):
            wire, limiter = way
            rules = wanted_rules(plan, self.version, wire=wire, limiter=limiter, fragments=fragments)
            try:
                damaged = self._write(rules)
            except FirewallError as error:
                if not (wire or limiter):
                    if fragments is not Fragments.PASSED:
                        return self.install(plan, Fragments.PASSED)
                    if plan.new_only:  # a kernel without connection tracking
                        return self.install(evolve(plan, new_only=False))
                    raise
                refused[way] = error
            else:
                return InstalledRules(
                    _reason(refused, (True, False), _WIRE_FIX) if asked[0] and not wire else None,
                    _reason(refused, (False, True), _LIMITER_FIX) if asked[1] and not limiter else None,
                    damaged,
                )
        raise AssertionError  # the last attempt returns or raises

    def _write(self, rules: Rules) -> bool:
        """Write the rules until none is missing; return whether another program had changed any of them.

        Raise FirewallError if rules are still missing after some attempts, or if a tool fails.
        """
        damaged = False
        for attempt in range(_ATTEMPTS):
            self._watch.record(tuple(rules))
            state = parse(self._read(rules))
            if attempt == 0:
                damaged = self._installed is not None and own_rules(state) != self._installed
            else:
                self._printed.learn(state, rules)
            texts = changes(state, rules, printed=self._printed, new_tables=self._absent_tables(rules))
            if not texts:
                self._rules, self._installed = rules, own_rules(state)
                self.references = named_sets(rules)
                return damaged
            for change in texts:
                restore(self.tools, change)
        raise FirewallError(
            f"the rules of IPv{self.version} do not stay as written: another program writes them too"
        )

    def _read(self, rules: Rules) -> str:
        """Return the output of iptables-save.

        The first time it is for all tables, because an earlier release may have left rules in them.
        """
        if self._installed is None:
            return save_all(self.tools, rules.keys())
        return "".join(save(self.tools, table=table) for table in sorted({*rules, *self._installed}))

    def _absent_tables(self, rules: Rules) -> list[str]:
        """Return the tables of ``rules`` that do not exist yet, and that iptables-nft will make."""
        return [] if self._legacy else [table for table in rules if self._is_absent(table)]

    def _is_absent(self, table: str) -> bool:
        try:
            self._kernel.request(nft_messages.get_table(table, family=FAMILIES[self.version]))
        except NetlinkError as error:
            return error.code == errno.ENOENT
        return False

    def counters(self) -> FamilyCounters:
        """Return the counters of the rules since they were installed.

        No rule counts the packets that the limiter drops for lack of room. So their number is computed: the
        packets that entered the limiter, minus those that were over or within the limit. The counters are
        read twice, because packets arrive meanwhile: the packets that entered are from the first reading,
        those that left from the second. So a packet that was still in the limiter at the first reading is not
        mistaken for a dropped one.
        """
        first = self._counters()
        second = self._counters() if AT_LIMITER in first else first
        left = sum(second.get(kind, (0, 0))[0] for kind in (OVER_LIMIT, WITHIN_LIMIT))
        return FamilyCounters(second, full=max(first.get(AT_LIMITER, (0, 0))[0] - left, 0))

    def _counters(self) -> dict[str, tuple[int, int]]:
        rules = self._rules  # another thread may replace them meanwhile
        state: dict[str, dict[str, list[str]]] = {}
        for table in rules:
            state |= parse(save(self.tools, table=table, counters=True))
        sums: dict[str, tuple[int, int]] = {}
        for table, chain, position, kind in counted_rules(rules):
            lines = state.get(table, {}).get(chain, [])
            packets, octets = parse_counters(lines[position]) if position < len(lines) else (0, 0)
            before = sums.get(kind, (0, 0))
            sums[kind] = before[0] + packets, before[1] + octets
        return sums

    def remove(self) -> None:
        """Remove our rules, and the tables that were made for them if they contain nothing else."""
        made = remove(self.tools)
        for table in made if not self._legacy else ():
            self._drop(table)
        self._rules, self._installed = {}, None

    def _drop(self, table: str) -> None:
        family = FAMILIES[self.version]
        try:
            found = nft_messages.chains_of(self._kernel.request(nft_messages.get_chains(family=family)))
            builtin = [chain.name for chain in found if chain.table == table and chain.hook is not None]
            self._kernel.request(*nft_messages.delete_empty_table(self.version, table, builtin))
        except NetlinkError as error:
            if error.code not in (errno.EBUSY, errno.ENOENT):  # another program uses the table, or removed it
                raise


def _reason(refused: Mapping[tuple[bool, bool], FirewallError], alone: tuple[bool, bool], fix: str) -> str:
    """Return why a feature (the log rules or the limiter) is missing, with the fix.

    ``refused`` maps each refused attempt to its error. An attempt is a pair: whether it has the log rules,
    and whether it has the limiter. ``alone`` is the attempt that has only the missing feature. The reason is
    its error, or, if there was no such attempt, the error of the attempt with both features.
    """
    return f"{refused.get(alone) or refused[True, True]}; {fix}"


def rule_requirements(kernel: NetlinkConnection, version: int, plan: FirewallPlan) -> list[Requirement]:
    """Return each optional feature of the plan, with a problem if the kernel lacks an extension for it."""
    found = []
    for feature, configured, names, fix in (
        ("the log rule for the wire", plan.log_group is not None, _WIRE_EXTENSIONS, _WIRE_FIX),
        ("the limiter", plan.limits, _LIMITER_EXTENSIONS, _LIMITER_FIX),
        ("the fence", plan.fence is not LimitMode.OFF, _FENCE_EXTENSIONS, _FENCE_FIX),
    ):
        if configured:
            missing = [n for n in names if not has_extension(kernel, version, n, target=n.isupper())]
            problem = f"this kernel has no {', '.join(missing)} for IPv{version}; {fix}" if missing else None
            found.append(Requirement(f"{feature}, IPv{version}", problem, optional=True))
    fragments = _fragments(kernel, version)
    return [*found, fragments_requirement(fragments, _REASSEMBLY_FIX, f", IPv{version}")]


def _fragments(kernel: NetlinkConnection, version: int) -> Fragments:
    """Return the best treatment of fragments that the kernel has the extensions for."""
    for found, names in (
        (Fragments.REASSEMBLED, _REASSEMBLING_EXTENSIONS),
        (Fragments.DROPPED, _FRAGMENT_EXTENSIONS[version]),
    ):
        if all(has_extension(kernel, version, name) for name in names):
            return found
    return Fragments.PASSED
