"""The systemd unit as values, read from the file that is installed."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "contrib/systemd/ringfence.service"
EARLY = FILE.with_name("ringfence-early.service")
IPTABLES = FILE.with_name("iptables.conf")
"""The drop-in for bans by ipset and iptables."""
PREFIX = "/opt/ringfence"
"""The program's path in the unit."""


def read(*files: Path) -> dict[str, list[str]]:
    """Return the values of each directive of a unit and its drop-ins, in order; by default the daemon's."""
    directives: dict[str, list[str]] = {}
    for file in files or (FILE,):
        for line in file.read_text("utf-8").splitlines():
            name, equals, value = line.partition("=")
            if equals and not line.startswith("#"):
                directives.setdefault(name, []).append(value)
    return directives


needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is in the package systemd"
)


def faults(folder: Path, *files: Path) -> list[str]:
    """Return what systemd-analyze finds wrong with units. Only the program is not installed yet."""
    copies = [folder / file.name for file in files]
    for file, copy in zip(files, copies, strict=True):
        copy.write_text(file.read_text("utf-8").replace(f"{PREFIX}/bin/ringfence", "/bin/true"), "utf-8")
    verify = ["systemd-analyze", "verify", "--man=no", *map(str, copies)]
    found = subprocess.run(verify, capture_output=True, text=True, check=False)
    return [line for line in found.stderr.splitlines() if "ringfence" in line]


def exposure(file: Path) -> float:
    """Return how exposed systemd-analyze rates a unit: 0 is closed, 10 is open."""
    rate = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(file)]
    rated = subprocess.run(rate, capture_output=True, text=True, check=True)
    level = re.search(rf"Overall exposure level for {re.escape(file.name)}: ([0-9.]+)", rated.stdout)
    assert level is not None, rated.stdout[-300:]
    return float(level[1])


def command(prefix: Path) -> list[str]:
    """Return the command line of the daemon, with the program in ``prefix``."""
    (line,) = read()["ExecStart"]
    return shlex.split(line.replace(PREFIX, str(prefix)))


def capabilities(directive: str, *files: Path) -> list[str]:
    """Return a list of capabilities with the names of setpriv(1): ``net_admin`` for CAP_NET_ADMIN."""
    names = [name for line in read(*files)[directive] for name in line.split()]
    return [name.removeprefix("CAP_").lower() for name in names]
