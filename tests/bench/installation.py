"""The package and ``ringfence setup`` on Debian machines with systemd and a real Asterisk.

Each machine is a new copy of a Debian of the laboratory, which has nftables, so an installation downloads
nothing. Asterisk has the files of Debian's package, or files in FreePBX's layout. Every rule is on.
"""

import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import define, field
from tests.bench.figures import Figure, spread
from tests.support.asterisk_files import MANAGER_PORT
from tests.support.daemon import until
from tests.support.network import Network
from tests.support.package import EARLIER, built_package, earlier_package
from tests.support.pbx_layouts import LAYOUTS
from tests.support.pbx_machine import Digest, Installation, PbxMachine, differing, digest_of, pbx_machine
from tests.support.setup_commands import (
    ATTACKER,
    LOG,
    SOURCES,
    WATCHED,
    guess,
    kill_setup,
    proven,
    setup,
    undo,
)
from tests.support.traffic import Traffic

from ringfence.netlink.nflog import GROUP

HOSTS = (("debian-12", "debian"), ("debian-12", "freepbx"), ("debian-13", "debian"))
"""Each Debian with the layout of Asterisk's files on it; the first one is the host of the row of commands."""
SETUPS = 2
"""The number of setups on each of them, each with its undo."""
UPGRADED = ("debian-12", "debian-13")
HELPS = 10
LONGEST_SETUP = 15.0
LONGEST_SILENCE = 2.0
MOST_BYTES = 10 * 10**6
MEGABYTE = 10**6

BANNED, STRANGER = "198.18.1.8", "198.18.1.9"
_TOGETHER = 1_000  # a command waits only a second for the record of its bans
MANY = [f"100.64.{high}.{low}" for high in range(40) for low in range(250)]

COMPARED = ("etc", "usr", "var")
VOLATILE = ("var/log/asterisk/", "var/log/journal/", "var/lib/systemd/timers/")
"""Files that Asterisk and systemd write all the time."""

_HELPS = """\
import json, os, subprocess, time
def timed(*command, **environ):
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **environ})
    return time.perf_counter() - began
def ratio():
    bare = timed("python3", "-c", "import typer, rich.table", PYTHONPATH="/usr/share/ringfence/python")
    return timed("ringfence", "--help") / bare
ratio()
print(json.dumps([ratio() for _ in range(%d)]))
"""


@define
class Setups:
    """Setups and their undos: their seconds, and the files that differ after an undo, of all files.

    ``commands`` is the number of commands after which the first host was protected and proven, or None.
    """

    commands: int | None = None
    seconds: list[float] = field(factory=list)
    files: int = 0
    differing: set[str] = field(factory=set)


@define
class Upgrades:
    """Upgrades with bans under traffic, each followed by a plain restart.

    ``silences`` and ``restarted`` are the longest times in seconds without a reader, by source.
    """

    sent: int = 0
    through: int = 0
    strangers: int = 0
    lost: int = 0
    silences: defaultdict[str, list[float]] = field(factory=lambda: defaultdict(list))
    restarted: defaultdict[str, list[float]] = field(factory=lambda: defaultdict(list))


@contextmanager
def fresh(debian: str = "debian-12", layout: str = "debian") -> Iterator[tuple[Network, PbxMachine]]:
    """Yield a new machine with a running Asterisk and without ringfence, and its network."""
    files = LAYOUTS[layout]
    installed = Installation(files.release, files.files, files.conf)
    with (
        tempfile.TemporaryDirectory() as folder,
        Network() as network,
        pbx_machine(Path(folder), network, installed, debian=debian) as machine,
    ):
        yield network, machine


def set_up(package: Path, debian: str, layout: str, found: Setups) -> None:
    """Install the package on a new machine; set it up, protect it and undo it several times."""
    with fresh(debian, layout) as (network, machine):
        printed = [machine.install(package)]
        before = _files(machine)
        for _ in range(SETUPS):
            began = time.perf_counter()
            printed.append(setup(machine))
            found.seconds.append(time.perf_counter() - began)
            guess(network)
            until(lambda: machine.banned() == {ATTACKER}, "the ban of a guesser")
            undo(machine)
            found.differing.update(differing(before, _files(machine)))
        if found.commands is None:
            numbers = (number for number, text in enumerate(printed, 1) if proven(text) == SOURCES)
            found.commands = next(numbers, None)
        found.files = max(found.files, len(before))


def _files(machine: PbxMachine) -> Digest:
    files = digest_of(machine.root, *COMPARED)
    return {name: file for name, file in files.items() if not name.startswith(VOLATILE)}


def upgrade(earlier: Path, package: Path, debian: str, found: Upgrades) -> None:
    """Upgrade a machine with many bans while a banned sender and a stranger send packets."""
    with fresh(debian) as (network, machine):
        machine.install(earlier)
        setup(machine)
        for at in range(0, len(MANY), _TOGETHER):
            machine.must("ringfence", "ban", BANNED, *MANY[at : at + _TOGETHER])
        before = machine.must("ringfence", "--version")
        readers = _readers(machine)
        with Traffic(network, readers, BANNED, STRANGER) as traffic:
            machine.install(package)
            _until_read(readers)
        with Traffic(network, readers) as restarted:
            machine.must("systemctl", "restart", "ringfence")
            _until_read(readers)
        if EARLIER not in before or EARLIER in machine.must("ringfence", "--version"):
            raise RuntimeError(f"the upgrade began with {before}, and changed nothing")
        found.sent += traffic.sent
        found.through += traffic.received[BANNED]
        found.strangers += traffic.received[STRANGER]
        found.lost += len({BANNED, *MANY} - machine.banned())
        for source in readers:
            found.silences[source].append(traffic.silences[source])
            found.restarted[source].append(restarted.silences[source])


def _until_read(readers: Mapping[str, Callable[[], bool]]) -> None:
    until(lambda: all(is_read() for is_read in readers.values()), "a daemon that reads every source")


def _readers(machine: PbxMachine) -> Mapping[str, Callable[[], bool]]:
    """Return functions that look in /proc whether something reads each source."""
    net = Path(f"/proc/{machine.pids('asterisk')[0]}/net")
    return {
        "AMI": lambda: _is_connected(net / "tcp"),
        "log": lambda: any(_is_open(pid) for pid in machine.pids("ringfence")),
        "wire": lambda: str(GROUP) in _first_fields(net / "netfilter/nfnetlink_log"),
    }


def _is_connected(connections: Path) -> bool:
    """Whether Asterisk has an established connection at the port of AMI."""
    rows = (line.split() for line in connections.read_text("ascii").split("\n") if line)
    return any(row[1].endswith(f":{MANAGER_PORT:04X}") and row[3] == "01" for row in rows)


def _first_fields(table: Path) -> list[str]:
    return [line.split()[0] for line in table.read_text("ascii").split("\n") if line]


def _is_open(pid: int) -> bool:
    """Whether a process has opened the log."""
    with suppress(FileNotFoundError, ProcessLookupError):  # it ends now
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # it was closed
                if str(descriptor.readlink()).endswith(LOG):
                    return True
    return False


def killed(package: Path) -> tuple[int, list[int]]:
    """Kill setup at each write and undo it; return the writes, and those after which a file differs."""
    with fresh() as (_, machine):
        machine.install(package)
        before, writes, half = digest_of(machine.root, *WATCHED), 0, []
        while kill_setup(machine, writes + 1):
            writes += 1
            undone = machine.run("ringfence", "setup", "--undo", "--yes").returncode == 0
            if not undone or _is_guarded(machine) or differing(before, digest_of(machine.root, *WATCHED)):
                half.append(writes)
        return writes, half


def _is_guarded(machine: PbxMachine) -> bool:
    """Whether the daemon runs, or rules of ringfence are in the kernel."""
    active = machine.run("systemctl", "is-active", "ringfence").stdout != "inactive\n"
    return active or machine.must("nft", "list", "tables") != ""


def helps(package: Path) -> list[float]:
    """Time `ringfence --help` of the package, compared with the import of its libraries; return ratios."""
    with fresh() as (_, machine):
        machine.install(package)
        ratios: list[float] = json.loads(machine.must("python3", "-c", _HELPS % HELPS))
    return ratios


def killed_setups(_: Path | None) -> Iterator[Figure]:
    """Count the hosts that a killed setup leaves half configured."""
    writes, half = killed(built_package())
    yield Figure(
        what=f"`setup` killed at each of its {writes} writes, then undone: hosts left half configured",
        measured=f"{len(half)}{f' (writes {half})' if half else ''}",
        must="0",
        reached=writes > 0 and not half,
    )


def figures(_: Path | None) -> Iterator[Figure]:
    """Measure, and yield the rows."""
    package = built_package()
    yield from _setup_rows(package)
    yield from _upgrade_rows(package)
    size = package.stat().st_size
    yield Figure(
        what="size of the package, MB",
        measured=f"{size / MEGABYTE:.1f}",
        must=f"≤ {MOST_BYTES / MEGABYTE:.0f}",
        reached=size <= MOST_BYTES,
    )
    ratios = helps(package)
    yield Figure(
        what="time of `ringfence --help` of the package, of `python3 -c 'import typer, rich.table'`",
        measured=spread(ratios, " times"),
        must="median ≤ 2 times",
        reached=statistics.median(ratios) <= 2.0,
    )


def _setup_rows(package: Path) -> Iterator[Figure]:
    found = Setups()
    for debian, layout in HOSTS:
        set_up(package, debian, layout, found)
    yield Figure(
        what="commands on a fresh Debian 12 with Asterisk until AMI, log and wire are proven, and a guesser "
        "is banned",
        measured=f"{found.commands} (`apt-get install` of the package, `ringfence setup --yes`)",
        must="2",
        reached=found.commands == 2,
    )
    yield Figure(
        what="seconds of `ringfence setup --yes`: Debian 12 and 13, Debian's Asterisk and FreePBX's layout",
        measured=spread(found.seconds),
        must=f"≤ {LONGEST_SETUP:.0f} in every trial",
        reached=max(found.seconds) <= LONGEST_SETUP,
    )
    names = f": {', '.join(sorted(found.differing)[:3])}" if found.differing else ""
    yield Figure(
        what="files in /etc, /usr and /var that differ after `setup --yes` and `setup --undo`, logs of "
        "Asterisk and systemd aside",
        measured=f"{len(found.differing)} of {found.files}{names}",
        must="0",
        reached=not found.differing,
    )


def _upgrade_rows(package: Path) -> Iterator[Figure]:
    found = Upgrades()
    with tempfile.TemporaryDirectory() as folder:
        earlier = earlier_package(package, Path(folder))
        for debian in UPGRADED:
            upgrade(earlier, package, debian, found)
    yield Figure(
        what=f"upgrade of the package with {len(MANY)} bans: packets of a banned sender that came through; "
        "bans lost",
        measured=f"{found.through} of {found.sent} (of a stranger: {found.strangers}); {found.lost}",
        must="0 (of a stranger some); 0",
        reached=(found.through, found.lost) == (0, 0) and found.strangers > 0,
    )
    yield Figure(
        what="then: the longest time in which nothing read a source, seconds",
        measured=_by_source(found.silences),
        must=f"≤ {LONGEST_SILENCE:.0f} of each source in every trial",
        reached=max(max(one) for one in found.silences.values()) <= LONGEST_SILENCE,
        compared=f"`systemctl restart ringfence`: {_by_source(found.restarted)}",
    )


def _by_source(silences: Mapping[str, Sequence[float]]) -> str:
    return "; ".join(f"{source}: {spread(seconds)}" for source, seconds in silences.items())
