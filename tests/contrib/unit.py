"""The systemd unit as values, read from the file that is installed."""

import shlex
from pathlib import Path

FILE = Path(__file__).parents[2] / "contrib/systemd/ringfence.service"
PREFIX = "/opt/ringfence"
"""Where the unit says that the program is."""


def read(file: Path = FILE) -> dict[str, list[str]]:
    """Give the values of each directive, in order."""
    directives: dict[str, list[str]] = {}
    for line in file.read_text("utf-8").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            directives.setdefault(name, []).append(value)
    return directives


def command(prefix: Path) -> list[str]:
    """Give the command line of the daemon, with the program in ``prefix``."""
    (line,) = read()["ExecStart"]
    return shlex.split(line.replace(PREFIX, str(prefix)))


def capabilities(directive: str) -> list[str]:
    """Give a list of capabilities as setpriv(1) names them: ``net_admin`` for CAP_NET_ADMIN."""
    (names,) = read()[directive]
    return [name.removeprefix("CAP_").lower() for name in names.split()]
