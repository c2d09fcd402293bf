"""A daemon over a firewall of the kernel's, with bans, and the door by which it is seen what they do."""

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
"""Addresses in each of BANS."""
BANS = ("198.18.1.9", "198.19.7.0/24", "fd00:18::b9", "fd00:19::/64")
STRANGERS = ("198.18.1.7", "fd00:18::b7")


@frozen
class House:
    """A guarded host: its daemon and its door."""

    network: Network
    guard: Guard
    door: Door

    def shell(self, script: str) -> str:
        """Do something as root on that host, in the daemon's folder; give what it printed."""
        return run(*self.network.in_pbx("sh", "-c", f"cd {self.guard.folder}; {script}"))

    def is_shut(self) -> bool:
        """Whether who is banned is out, and strangers are in."""
        return self.door.let_in(*BANNED, *STRANGERS) == set(STRANGERS)

    def is_open(self) -> bool:
        """Whether everybody is in."""
        return self.door.let_in(*BANNED, *STRANGERS) == {*BANNED, *STRANGERS}

    def left(self) -> list[str]:
        """Give the lines of the kernel's firewall that are ours, whichever backend made them."""
        said = self.shell("ipset list -n; iptables-save; ip6tables-save; nft list tables inet")
        return [line for line in said.split("\n") if "ringfence" in line]

    def said(self, event: str) -> int:
        """Count what the log has of that event."""
        return self.guard.log.count(f"event={event}")


@contextmanager
def house_of(folder: Path, **settings: Any) -> Iterator[House]:  # noqa: ANN401 - whatever TOML holds
    """Give a host whose daemon is not running yet; it is left running or not, and its kernel goes with it."""
    with Network() as network, Door(network) as door:
        yield House(network, Guard(folder, prefix=network.in_pbx(), **settings), door)
