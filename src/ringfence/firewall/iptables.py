"""The static rules, by the platform's own iptables-restore: one transaction a family puts them in or out.

Two chains of ours in table raw, each jumped to from the first place:

    PREROUTING -> ringfence-pre:  drop what comes from a banned address, drop what is routed to one
    OUTPUT     -> ringfence-out:  drop what this host itself sends to a banned address

Behind the drops, where it is asked for, a log rule: what is a SIP 401 or 407 over UDP goes to an NFLOG group
(``sources/wire.py`` reads it; to a group that nobody reads the kernel sends nothing). Behind them, since
a challenge that was dropped proves nothing. ``-p udp`` and u32 read the first twelve bytes of the datagram,
"SIP/2.0 401" or "SIP/2.0 407". In PREROUTING stand the answers of bridged containers, and among them whatever
the world sends: there a packet counts only where it is to be routed on (not a provider's 401 to this host)
and came by the way that leads back to its sender (not a stranger's under a container's address).

raw is before connection tracking, so an established flow is cut too, and a container behind DNAT is covered.
The way out matters as much as the way in: guesses that already wait in Asterisk's socket are still
checked, but their answers never leave (2 000 guesses sent ahead of the ban: 180 to 1 126 were answered with
the way in closed alone, 3 to 849 with both).

First place, since a rule of somebody else's that accepts in raw would let the banned pass. The state is read
with iptables-save and compared, and nothing is written where nothing is missing; every writing is one
``*raw ... COMMIT`` with only our chains in it. It works the same with iptables-nft and iptables-legacy.

iptables-nft makes table raw when the first rule comes and has no command to delete it. Where there was none,
an empty chain ``ringfence-made`` that nothing jumps to remembers it, and :func:`remove` says that the table
may go (``nft_messages.py`` takes it away, if nothing else has come into it).
"""

import os
import shutil
import subprocess
from collections.abc import Mapping

from attrs import frozen

from ringfence.errors import FirewallError, FirewallUnsupportedError

CHAINS: Mapping[str, str] = {"PREROUTING": "ringfence-pre", "OUTPUT": "ringfence-out"}
_MADE = "ringfence-made"
_SIDES = {"ringfence-pre": ("src", "dst"), "ringfence-out": ("dst",)}
# As iptables-save writes u32's tests: of the datagram at its offset 8 behind the IP header.
_CHALLENGES = {
    4: "{0}@0x8=0x5349502f&&{0}@0xc=0x322e3020&&{0}@0xf=0x20343031,0x20343037".format("0x0>>0x16&0x3c"),
    6: "0x30=0x5349502f&&0x34=0x322e3020&&0x37=0x20343031,0x20343037",
}
_PASSING = {"ringfence-pre": "-m rpfilter -m addrtype --dst-type UNICAST ", "ringfence-out": ""}
_PREFIXES = {4: "iptables", 6: "ip6tables"}
_FOLDERS = ("/usr/sbin", "/sbin")
_MEND = "apt-get install iptables"
# Seconds: how long the tool waits for its lock, and how long we wait for the tool.
_LOCK_WAIT = 5
_TIMEOUT = 10.0


@frozen
class Log:
    """The log rule: outgoing challenges of IP ``version`` to NFLOG ``group``."""

    version: int
    group: int


@frozen
class Tools:
    """The absolute paths of one family's ``iptables-save`` and ``iptables-restore``."""

    save: str
    restore: str


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


def wanted_rules(set_name: str, log: Log | None = None) -> dict[str, list[str]]:
    """Give each chain of ours with its rules, as iptables-save writes them."""
    wanted = {
        chain: [f"-A {chain} -m set --match-set {set_name} {side} -j DROP" for side in sides]
        for chain, sides in _SIDES.items()
    }
    if log is not None:
        for chain, rules in wanted.items():
            rules.append(
                f'-A {chain} -p udp -m u32 --u32 "{_CHALLENGES[log.version]}" {_PASSING[chain]}'
                f"-j NFLOG --nflog-group {log.group}"
            )
    return wanted


def installing(saved: str, set_name: str, *, log: Log | None = None, new_table: bool = False) -> str:
    """Build what makes ``saved`` (iptables-save's text of table raw) have our rules; "" if it has them.

    ``new_table``: there is no table raw yet, which is to be remembered.
    """
    wanted = wanted_rules(set_name, log)
    state = _read(saved)
    if all(state.get(chain) == rules for chain, rules in wanted.items()) and all(
        _jumps(state, hook) == [0] for hook in CHAINS
    ):
        return ""
    chains = [*wanted, _MADE] if new_table else wanted
    lines = [f":{chain} - [0:0]" for chain in chains]  # makes the chain, or empties it
    for hook, chain in CHAINS.items():
        lines += [f"-D {hook} -j {chain}"] * len(_jumps(state, hook))
        lines += wanted[chain]
        lines.append(f"-I {hook} 1 -j {chain}")
    return _transaction(lines)


def removing(saved: str) -> str:
    """Build what takes our jumps and chains out of ``saved``; "" if none is there."""
    state = _read(saved)
    lines = []
    for hook, chain in CHAINS.items():
        lines += [f"-D {hook} -j {chain}"] * len(_jumps(state, hook))
    ours = [chain for chain in (*CHAINS.values(), _MADE) if chain in state]
    lines += [f"-F {chain}" for chain in ours] + [f"-X {chain}" for chain in ours]
    return _transaction(lines) if lines else ""


def _transaction(lines: list[str]) -> str:
    return "\n".join(["*raw", *lines, "COMMIT", ""])


def _read(saved: str) -> dict[str, list[str]]:
    """Read table raw of iptables-save's text: each chain's rules in order."""
    state: dict[str, list[str]] = {}
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif table == "raw" and line.startswith(":"):
            state[line[1:].split(" ", 1)[0]] = []
        elif table == "raw" and line.startswith("-A "):
            state.setdefault(line.split(" ", 2)[1], []).append(line)
    return state


def _jumps(state: dict[str, list[str]], hook: str) -> list[int]:
    """Give the places of our jumps in a builtin chain."""
    jump = f"-A {hook} -j {CHAINS[hook]}"
    return [place for place, rule in enumerate(state.get(hook, [])) if rule == jump]


def table_is_ours(saved: str) -> bool:
    """Say whether table raw was made by ringfence's installation, and would let everything pass if empty."""
    lines = saved.splitlines()
    accepting = (any(line.startswith(f":{hook} ACCEPT ") for line in lines) for hook in CHAINS)
    return _MADE in _read(saved) and all(accepting)


def install(tools: Tools, set_name: str, *, log: Log | None = None, new_table: bool = False) -> bool:
    """Put the rules of one family in place where something of them is missing; True if it was. Idempotent."""
    return _restore(tools, installing(_save(tools), set_name, log=log, new_table=new_table))


def remove(tools: Tools) -> bool:
    """Take the rules of one family out; True if table raw was made for them and may go. Idempotent."""
    saved = _save(tools)
    _restore(tools, removing(saved))
    return table_is_ours(saved)


def _save(tools: Tools) -> str:
    return _run([tools.save, "-t", "raw"], "")


def _restore(tools: Tools, text: str) -> bool:
    if not text:
        return False
    _run([tools.restore, "--noflush", "-w", str(_LOCK_WAIT)], text)
    return True


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
