"""The platform's own iptables: reading what stands, and putting our rules in or out, a transaction a table.

What is to stand is said in ``iptables_rules.py``. The state is read with iptables-save and compared, and
nothing is written where nothing is missing; every writing is one ``*TABLE ... COMMIT`` with only our chains
in it. It works the same with iptables-nft and iptables-legacy, and what an earlier release put there is
replaced in the same transaction.

Our jumps stand in the first place, since a rule of somebody else's that accepts before would let the
banned pass.

A plan that moves a drop from one table to another takes two transactions, or three. They come in such
an order that the drop stands in one of the two at every moment: see :func:`changes`.

How a tool prints a rule is its own matter (kilobytes rounded, a default left out). What it prints right after
a writing is taken as its way to say what was written (:class:`Printed`), else it would be written again at
every look.

iptables-nft makes a table when the first rule comes and has no command to delete it. Where there was none,
an empty chain ``ringfence-made`` that nothing jumps to remembers it, and :func:`table_is_ours` says that the
table may go (``nft_messages.py`` takes it away, if nothing else has come into it).
"""

import os
import shutil
import subprocess
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from itertools import chain as joined

from attrs import Factory, frozen

from ringfence.errors import FirewallError, FirewallUnsupportedError
from ringfence.firewall.iptables_rules import CHAINS, HOOKS, MADE, Rules

_PREFIXES = {4: "iptables", 6: "ip6tables"}
_FOLDERS = ("/usr/sbin", "/sbin")
_MEND = "apt-get install iptables"
# Seconds: how long the tool waits for its lock, and how long we wait for the tool.
_TAKERS = 3  # so many others may take our rules away at the same time
_LOCK_WAIT = 5
_TIMEOUT = 10.0

# By table, by chain, the rules in order as iptables-save prints them.
State = Mapping[str, Mapping[str, Sequence[str]]]


@frozen
class Tools:
    """The absolute paths of one family's ``iptables-save`` and ``iptables-restore``."""

    save: str
    restore: str

    def is_legacy(self) -> bool:
        """Say which flavour the tools are; asked once for each file that the name leads to."""
        return _is_legacy(self.save, os.path.realpath(self.save))


@frozen
class Printed:
    """How the tools print what was written: chain by chain, from our own text."""

    known: dict[tuple[str, ...], tuple[str, ...]] = Factory(dict)

    def same(self, found: Sequence[str] | None, wanted: Sequence[str]) -> bool:
        """Say whether a chain is as it is wanted."""
        return found is not None and tuple(found) in {tuple(wanted), self.known.get(tuple(wanted))}

    def learn(self, state: State, rules: Rules) -> None:
        """Take the chains of ``state`` as the printing of ``rules``, which have just been written."""
        for table, chains in lines_of(rules).items():
            for name, wanted in chains.items():
                found = state.get(table, {}).get(name)
                if found is not None and len(found) == len(wanted):
                    self.known[tuple(wanted)] = tuple(found)


def find_tools(version: int) -> Tools:
    """Find the tools of IP ``version`` on PATH, /usr/sbin and /sbin, else FirewallUnsupportedError."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_FOLDERS])
    found = {}
    for verb in ("save", "restore"):
        name = f"{_PREFIXES[version]}-{verb}"
        program = shutil.which(name, path=path)
        if program is None:
            raise FirewallUnsupportedError(f"{name} is not installed; mend: {_MEND}")
        found[verb] = os.path.abspath(program)  # noqa: PTH100 - links stay as they are: the name decides
    return Tools(**found)


@lru_cache(maxsize=16)
def _is_legacy(save: str, _target: str) -> bool:
    # "iptables-save v1.8.9 (nf_tables)"; before 1.8 there was only the other, and it said nothing.
    return "nf_tables" not in _run([save, "--version"], "")


def lines_of(rules: Rules) -> dict[str, dict[str, list[str]]]:
    """Give each chain with its rules as text."""
    return {
        table: {name: [f"-A {name} {rule.text}" for rule in ordered] for name, ordered in chains.items()}
        for table, chains in rules.items()
    }


def changes(
    state: State, rules: Rules, *, printed: Printed | None = None, made: Collection[str] = ()
) -> list[str]:
    """Build the transactions that make ``state`` have ``rules`` and nothing else of ours; none if it has.

    ``made``: the tables that are not there yet, which is to be remembered.
    """
    printed = printed if printed is not None else Printed()
    wanted = lines_of(rules)
    raw = _table(state, "raw", wanted["raw"], printed, made)
    inner = wanted.get("filter", {})
    rest = _table(state, "filter", inner, printed, made)
    if not (raw and rest):
        return [text for text in (raw, rest) if text]
    old = {name: [*state["filter"][name]] for name in CHAINS["filter"] if state.get("filter", {}).get(name)}
    if not inner:
        return [raw, rest]
    if not old:
        return [rest, raw]
    # Both drop, in tables that change one after the other: in between filter has the old and the new.
    both = {name: [*inner.get(name, ()), *old.get(name, ())] for name in {**inner, **old}}
    return [
        _table(state, "filter", both, printed, made),
        raw,
        _table({"filter": _standing("filter", both)}, "filter", inner, printed, ()),
    ]


def _standing(table: str, chains: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """Give a table's state once these chains are in it."""
    jumps = {hook: [f"-A {hook} -j {name}"] for hook, name in HOOKS[table].items() if name in chains}
    return {**chains, **jumps}


def _table(
    state: State, table: str, wanted: Mapping[str, Sequence[str]], printed: Printed, made: Collection[str]
) -> str:
    found = state.get(table, {})
    stale = [name for name in CHAINS[table] if name in found and name not in wanted and name != MADE]
    hooks = {hook: name for hook, name in HOOKS[table].items() if name in wanted}
    if (
        not stale
        and all(printed.same(found.get(name), rules) for name, rules in wanted.items())
        and all(_jumps(found, table, hook) == ([0] if hook in hooks else []) for hook in HOOKS[table])
    ):
        return ""
    marked = [MADE] if table in made and wanted else []
    lines = [f":{name} - [0:0]" for name in [*wanted, *marked]]  # makes the chain, or empties it
    for hook in HOOKS[table]:
        lines += [f"-D {hook} -j {HOOKS[table][hook]}"] * len(_jumps(found, table, hook))
    lines += joined.from_iterable(wanted.values())
    lines += [f"-I {hook} 1 -j {name}" for hook, name in hooks.items()]
    # Emptied first: one may jump to another.
    lines += [f"-F {name}" for name in stale] + [f"-X {name}" for name in stale]
    return _transaction(table, lines)


def removals(state: State) -> list[str]:
    """Build what takes our jumps and chains out of ``state``, table by table."""
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
    """Read iptables-save's text: of each table each chain's rules in order, with their counters if saved."""
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


def counted(line: str) -> tuple[int, int]:
    """Read packets and bytes at the beginning of a line of ``iptables-save -c``."""
    packets, _, octets = line[1:].partition("]")[0].partition(":")
    return int(packets), int(octets)


def ours_in(state: State) -> dict[str, dict[str, Sequence[str]]]:
    """Give what of ``state`` is ours: our chains, and the jumps to them."""
    ours: dict[str, dict[str, Sequence[str]]] = {}
    for table, chains in CHAINS.items():
        found = state.get(table, {})
        mine: dict[str, Sequence[str]] = {name: found[name] for name in chains if name in found}
        for hook in HOOKS[table]:
            if places := _jumps(found, table, hook):
                mine[hook] = [str(place) for place in places]
        if mine:
            ours[table] = mine
    return ours


def _jumps(found: Mapping[str, Sequence[str]], table: str, hook: str) -> list[int]:
    """Give the places of our jumps in a builtin chain."""
    jump = f"-A {hook} -j {HOOKS[table][hook]}"
    return [place for place, rule in enumerate(found.get(hook, [])) if rule == jump]


def table_is_ours(saved: str, table: str = "raw") -> bool:
    """Say whether a table was made by ringfence's installation, and would let everything pass if empty."""
    part = saved.partition(f"*{table}\n")[2].partition("\nCOMMIT")[0].splitlines()
    builtin = [line for line in part if line.startswith(":") and line.split(" ")[1] != "-"]
    return f":{MADE} " in "".join(part) and all(line.split(" ")[1] == "ACCEPT" for line in builtin)


def save(tools: Tools, *, table: str | None = None, counters: bool = False) -> str:
    """Give iptables-save's text of one table, or of all that there are."""
    options = [*(["-t", table] if table is not None else []), *(["-c"] if counters else [])]
    return _run([tools.save, *options], "")


def save_all(tools: Tools, wanted: Collection[str]) -> str:
    """Give iptables-save's text of all tables that there are, those ``wanted`` always among them.

    iptables-legacy-save learns which there are from a file of root's below /proc/net, which the unit hides:
    then it prints nothing, and is to be asked by name.
    """
    saved = save(tools)
    if not tools.is_legacy():
        return saved
    unseen = [table for table in sorted(wanted) if f"*{table}\n" not in saved]
    return saved + "".join(save(tools, table=table) for table in unseen)


def restore(tools: Tools, text: str) -> None:
    """Carry out one transaction; FirewallError with the tool's words, and nothing done, if refused."""
    _run([tools.restore, "--noflush", "-w", str(_LOCK_WAIT)], text)


def remove(tools: Tools) -> list[str]:
    """Take the rules of one family out; give the tables that were made for them and may go. Idempotent."""
    saved = save_all(tools, HOOKS)
    for left in range(_TAKERS, -1, -1):
        try:
            for text in removals(parse(saved if left == _TAKERS else save_all(tools, HOOKS))):
                restore(tools, text)
            break
        except FirewallError:  # somebody who takes the same away was first: the rest, or nothing, is left
            if not left:
                raise
    return [table for table in HOOKS if table_is_ours(saved, table)]


def _run(command: list[str], text: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - an absolute path, no shell, no text from outside
            command,
            input=text,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=_TIMEOUT,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired as error:
        raise FirewallError(f"{command[0]} did not end within {_TIMEOUT:g} s") from error
    except OSError as error:
        raise FirewallUnsupportedError(f"{command[0]} cannot be run: {error}; mend: {_MEND}") from error
    if done.returncode != 0:
        said = " ".join(done.stderr.split()) or "no reason given"
        raise FirewallError(f"{command[0]} failed ({done.returncode}): {said}")
    return done.stdout
