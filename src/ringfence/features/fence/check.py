"""The lines of ``ringfence check`` about the ports of other services that the fence guards."""

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ringfence.cli.check import Checked
from ringfence.features.fence.settings import FenceSettings
from ringfence.findings import Finding
from ringfence.firewall.limits import LimitMode
from ringfence.host.listening import listening_sockets
from ringfence.host.processes import PROC, processes, sockets_of
from ringfence.netlink.sock_diag import port_of

_FORWARDER = "docker-proxy"
"""The program that listens on this host for a container. The kernel passes it by for packets from others."""


def findings(checked: Checked, proc: Path = PROC) -> Iterator[Finding]:
    """Yield a finding for each port of ``also``: whether only those inside reach it."""
    fence = checked.settings.of(FenceSettings)
    if fence.mode is LimitMode.OFF or not fence.also:
        return
    forwarded = {one for process in processes(_FORWARDER, proc) for one in sockets_of(process, proc)}
    inodes = _listening()
    for port in fence.also:
        listening = inodes.get(port, set())
        yield Finding(*_state(port, checked, listens=bool(listening), forwarded=bool(listening & forwarded)))


def _state(port: str, checked: Checked, *, listens: bool, forwarded: bool) -> tuple[bool | None, str, str]:
    what = f"fence: {port}"
    if forwarded:
        covers = "the fence covers only the containers of Asterisk, at the ports that these themselves use"
        return None, what, f"a container answers there ({_FORWARDER}); {covers}"
    if not listens:
        return None, what, "no program listens there; name the port at which the program itself listens"
    if checked.report is None:
        return None, what, "only a running daemon knows whether it is closed"
    if port in checked.report["fence"]["closed"]:
        return True, what, "only those inside reach it"
    if port in checked.report["fence"]["ssh"]:
        return None, what, "SSH answers there, so it stays open; to close it too: also_ssh = true in [fence]"
    return None, what, "it is open to everybody; see: ringfence fence status"


def _listening() -> dict[str, set[int]]:
    """Return the inodes of the sockets that listen on this host, by ports such as ``443/tcp``."""
    found: dict[str, set[int]] = {}
    for protocol, name in (socket.IPPROTO_TCP, "tcp"), (socket.IPPROTO_UDP, "udp"):
        with suppress(OSError):  # a kernel without the modules for this list
            for row in listening_sockets(protocol):
                found.setdefault(f"{port_of(row.local_port)}/{name}", set()).add(row.inode)
    return found
