"""Two network namespaces, the PBX's and the attacker's, and a cable between them.

All packets of a test stay here: 198.18.0.0/15 (reserved for benchmarks by RFC 2544), fd00::/8 and
loopback. No route leads out, and the machine's own addresses, routes and firewall do not change.

    pbx                                attacker
    198.18.0.1/16, fd00:18::1/64 ──── 198.18.1.1…250, fd00:18::a…::ff
                                       198.19.0.0/16, fd00:19::/64: routed here, any address can be bound

Names contain the process id and a counter, so that several networks can exist at once. The end of the
context removes everything. If a test run was killed, the next run that makes a network removes its rest.
"""

import itertools
import os
import re
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support import netns

PBX_IPV4 = "198.18.0.1"
SECOND_IPV4 = "198.18.0.2"
"""Another address of the PBX."""
PBX_IPV6 = "fd00:18::1"
ROUTED_IPV4 = "198.19.0.0/16"
ROUTED_IPV6 = "fd00:19::/64"

_ATTACKERS_IPV4 = tuple(f"198.18.1.{last}" for last in range(1, 251))
_ATTACKERS_IPV6 = tuple(f"fd00:18::{last:x}" for last in range(0x0A, 0x100))
# No attack comes from here: the next hop of a route is a gateway, which is exempt from bans.
ROUTER_IPV4, _ROUTER_IPV6 = "198.18.2.254", "fd00:18::fffe"
_NAME = re.compile(r"rf-\d+-\d+-(?:pbx|atk)")
_NETNS_FOLDER = Path("/run/netns")
_SECONDS = 20

_counter = itertools.count(1)


class Network:
    """The two namespaces, while the context lasts: ``with Network() as network: ...``."""

    def __init__(self) -> None:
        stem = f"rf-{os.getpid()}-{next(_counter)}"
        self.pbx = f"{stem}-pbx"
        self.attacker = f"{stem}-atk"

    def __enter__(self) -> Self:
        sweep()
        try:
            self._make()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def in_pbx(self, *command: str) -> list[str]:
        """Return the command line that runs ``command`` in the PBX's namespace."""
        return inside(self.pbx, *command)

    def in_attacker(self, *command: str) -> list[str]:
        """Return the command line that runs ``command`` in the attacker's namespace."""
        return inside(self.attacker, *command)

    def remove(self) -> None:
        """Remove both namespaces with their cable, addresses, routes, sets and rules; idempotent."""
        for name in (self.pbx, self.attacker):
            _remove(name)

    def _make(self) -> None:
        for name in (self.pbx, self.attacker):
            _run("ip", "netns", "add", name)
            # A new link looks for duplicates of its own address for two seconds, and resolves no neighbours.
            _run(*inside(name, "sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad"))
        _batch(
            self.pbx,
            "link set lo up",
            f"link add lan type veth peer name lan netns {self.attacker}",
            f"address add {PBX_IPV4}/16 dev lan",
            f"address add {SECOND_IPV4}/16 dev lan",
            f"address add {PBX_IPV6}/64 dev lan nodad",
            "link set lan up",
            f"route add {ROUTED_IPV4} via {ROUTER_IPV4}",
            f"route add {ROUTED_IPV6} via {_ROUTER_IPV6}",
        )
        _batch(
            self.attacker,
            "link set lo up",
            *(f"address add {address}/16 dev lan" for address in (*_ATTACKERS_IPV4, ROUTER_IPV4)),
            *(f"address add {address}/64 dev lan nodad" for address in (*_ATTACKERS_IPV6, _ROUTER_IPV6)),
            "link set lan up",
            f"route add local {ROUTED_IPV4} dev lo",
            f"route add local {ROUTED_IPV6} dev lo",
        )
        # A program may bind an IPv4 address that is only routed to lo; IPv6 requires this switch.
        _run(*self.in_attacker("sh", "-c", "echo 1 >/proc/sys/net/ipv6/ip_nonlocal_bind"))


def inside(namespace: str, *command: str) -> list[str]:
    """Return the command line that runs ``command`` in ``namespace``."""
    return ["ip", "netns", "exec", namespace, *command]


def socket_in(namespace: str, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """Return a new socket in ``namespace``; this process stays in its own namespace."""
    with netns.inside(namespace):
        return socket.socket(family, kind)


def sweep() -> None:
    """Remove the namespaces of test runs that were killed before they could clean up."""
    for entry in _NETNS_FOLDER.glob("rf-*"):
        if _NAME.fullmatch(entry.name) and owner_is_gone(entry.name):
            _remove(entry.name)


def owner_is_gone(name: str) -> bool:
    """Whether the test run in a name (``rf-PID-...``) has ended."""
    return not Path("/proc", name.split("-")[1]).exists()


def _remove(name: str) -> None:
    if not (_NETNS_FOLDER / name).exists():
        return
    pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False)
    for pid in pids.stdout.split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    subprocess.run(["ip", "netns", "delete", name], check=False, timeout=_SECONDS)


def _batch(namespace: str, *lines: str) -> None:
    _run("ip", "-netns", namespace, "-batch", "-", given="\n".join(lines))


def _run(*command: str, given: str | None = None) -> None:
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=_SECONDS)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
