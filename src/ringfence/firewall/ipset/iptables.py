"""The programs of iptables: reading the installed rules, and writing ours, one transaction per table.

``iptables_rules.py`` defines the wanted rules. The installed rules are read with iptables-save and compared.
If they are the wanted ones, nothing is written. Each write is one ``*TABLE ... COMMIT`` that changes only our
chains and our jumps to them. It works the same with iptables-nft and iptables-legacy. Rules of an earlier
release are replaced in the same transaction.

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

import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import chain as chain_iterables

from attrs import Factory, frozen

from ringfence.errors import FirewallError, FirewallToolError
from ringfence.firewall.ipset.iptables_rules import HOOKS, MADE, PREFIX, Rules
from ringfence.firewall.requirements import find_program, run_program

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
        """Remember the chains in ``state`` as what the tools print for ``rules``, which were just written."""
        for table, chains in lines_of(rules).items():
            for name, wanted in chains.items():
                found = state.get(table, {}).get(name)
                if found is not None and len(found) == len(wanted):
                    self.known[tuple(wanted)] = tuple(found)


def find_tools(version: int, flavour: str = "") -> Tools:
    """Find the tools of IP ``version`` in PATH, /usr/sbin or /sbin; else raise FirewallUnsupportedError.

    ``flavour`` is "nft" or "legacy". The default is the flavour that the host uses.
    """
    name = f"{_PREFIXES[version]}-{flavour}" if flavour else _PREFIXES[version]
    return Tools(*(find_program(f"{name}-{verb}", _PACKAGE) for verb in ("save", "restore")))


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
    old = _own_chains(state.get("filter", {}))
    if not inner:
        return [raw, rest]
    if not any(old.values()):
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
    """Return the rules that a table must have, by chain: the rules in ``chains``, and our jumps to them."""
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
    stale = [name for name in _own_chains(found) if name not in wanted and name != MADE]
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
        ours = _own_chains(found)
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
    for table, hooks in HOOKS.items():
        found = state.get(table, {})
        mine = _own_chains(found)
        for hook in hooks:
            if positions := _jumps(found, table, hook):
                mine[hook] = [str(position) for position in positions]
        if mine:
            ours[table] = mine
    return ours


def _own_chains(found: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """Return those chains of a table that are ours, of any release and feature, with their rules."""
    return {name: rules for name, rules in found.items() if name.startswith(PREFIX)}


def _jumps(found: Mapping[str, Sequence[str]], table: str, hook: str) -> list[int]:
    """Return the positions of our jumps in the builtin chain ``hook``."""
    jump = f"-A {hook} -j {HOOKS[table][hook]}"
    return [position for position, rule in enumerate(found.get(hook, [])) if rule == jump]


def is_own_table(saved: str, table: str = "raw") -> bool:
    """Whether ``table`` may be deleted once it is empty.

    This is so if iptables-nft made it for ringfence, and the policies of its builtin chains accept packets.
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


_RESOURCE_PROBLEM = 4  # an exit status of iptables
_LOCKED = "currently holding the xtables lock"


class _ToolFailedError(FirewallError):
    """A tool ended with an exit status other than 0."""


def _run(command: list[str], text: str) -> str:
    done = run_program(command, text, _PACKAGE)
    if done.status != 0:
        reason = " ".join(done.errors.split()) or "no reason given"
        if done.status == _RESOURCE_PROBLEM and _LOCKED in reason:
            raise FirewallToolError(f"{command[0]}: {reason}")
        raise _ToolFailedError(f"{command[0]} failed ({done.status}): {reason}")
    return done.output
