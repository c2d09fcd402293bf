"""The systemd unit as values, read from the file that is installed."""

import shlex
from pathlib import Path

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


def command(prefix: Path) -> list[str]:
    """Return the command line of the daemon, with the program in ``prefix``."""
    (line,) = read()["ExecStart"]
    return shlex.split(line.replace(PREFIX, str(prefix)))


def capabilities(directive: str, *files: Path) -> list[str]:
    """Return a list of capabilities with the names of setpriv(1): ``net_admin`` for CAP_NET_ADMIN."""
    names = [name for line in read(*files)[directive] for name in line.split()]
    return [name.removeprefix("CAP_").lower() for name in names]
