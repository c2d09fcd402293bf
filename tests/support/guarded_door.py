"""A daemon with bans in a real firewall of the kernel, and a :class:`Door` that shows their effect."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen
from tests.support.daemon import Guard
from tests.support.door import Door
from tests.support.netns import run
from tests.support.network import Network

BANNED = ("198.18.1.9", "198.19.7.7", "fd00:18::b9", "fd00:19::7:7")
"""One address of each network of BANS."""
BANS = ("198.18.1.9", "198.19.7.0/24", "fd00:18::b9", "fd00:19::/64")
STRANGERS = ("198.18.1.7", "fd00:18::b7")


@frozen
class House:
    """A guarded host: its daemon and its door."""

    network: Network
    guard: Guard
    door: Door

    def shell(self, script: str) -> str:
        """Run a shell script as root on that host, in the daemon's folder, and return its output."""
        return run(*self.network.in_pbx("sh", "-c", f"cd {self.guard.folder}; {script}"))

    def is_shut(self) -> bool:
        """Whether packets of strangers arrive, and packets of banned addresses do not."""
        return self.door.passing(*BANNED, *STRANGERS) == set(STRANGERS)

    def is_open(self) -> bool:
        """Whether packets of all these addresses arrive."""
        return self.door.passing(*BANNED, *STRANGERS) == {*BANNED, *STRANGERS}

    def left(self) -> list[str]:
        """Return the lines of the kernel's firewall that belong to ringfence, of either backend."""
        listing = self.shell("ipset list -n; iptables-save; ip6tables-save; nft list tables inet")
        return [line for line in listing.split("\n") if "ringfence" in line]

    def logged(self, event: str) -> int:
        """Return the number of log lines about an event."""
        return self.guard.log.count(f"event={event}")


@contextmanager
def house_of(folder: Path, **settings: Any) -> Iterator[House]:  # noqa: ANN401 - whatever TOML holds
    """Yield a host whose daemon is not running yet; its namespace ends with the block in any case."""
    with Network() as network, Door(network) as door:
        yield House(network, Guard(folder, prefix=network.in_pbx(), **settings), door)
