"""The ports that Asterisk listens on, over UDP and TCP: SIP, TLS, WebSockets, IAX2, the manager interface.

Whoever asks the kernel for the sockets of this network namespace learns the user of each, and no program. So
Asterisk's are those of the user whose socket listens on the manager interface's port. If that is root, it may
be anybody, and only ``/proc`` tells (``processes.py``), which the unit hides from the daemon. Where ``/proc``
tells, its word counts: beside Asterisk its user may run other programs (FreePBX's do).

The ports of calls must not be among them. A call over 20 ms frames is 50 packets a second, just what a source
may send to a SIP port before the limiter takes it for a flood. Nothing tells a socket of a call from one of
SIP but its port: so over UDP a port counts outside of the range of ``rtp.conf``, or where that cannot be read
(most often it is Asterisk's own) below 10000, where the range begins in the file that Asterisk comes with.
Without ``rtp.conf`` the range is 5000 to 31000, in which only SIP's own ports are sure. Nor do ports count
that the kernel gives to who asks for any (32768 and above): they are of requests to others.

A SIP port that is missed for all this can be named in the configuration.
"""

import re
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ringfence.host.asterisk_conf import FOLDER, read_conf
from ringfence.host.processes import PROC, processes, sockets_of
from ringfence.netlink.sock_diag import CLOSED, LISTENING, Socket, port_of, sockets

_NAME = "asterisk"
_SIP = frozenset({5060, 5061})
_CALLS_BEGIN = 10_000
_OWN_RANGE = (5_000, 31_000)  # DEFAULT_RTP_START, DEFAULT_RTP_END (res/res_rtp_asterisk.c)
_ANY = 32_768  # where net.ipv4.ip_local_port_range begins
_ROOT = 0
_NUMBER = re.compile(r"[0-9]{1,5}")


class ListeningPorts(NamedTuple):
    """Sorted ports. Either may be empty: a PBX without UDP, or one that has not loaded all modules yet."""

    udp: tuple[int, ...]
    tcp: tuple[int, ...]


def find_ports(ami_port: int | None, folder: Path = FOLDER, proc: Path = PROC) -> ListeningPorts | None:
    """Return the ports that Asterisk listens on, in this network namespace and now.

    Return None if that cannot be determined: Asterisk does not run here (in a container, on another host), it
    runs as root and ``/proc`` is hidden, or only the manager interface listens yet. ``ami_port`` is the port
    of the manager interface on this host, None if it is elsewhere.
    """
    try:
        tcp, udp = listening_sockets(socket.IPPROTO_TCP), listening_sockets(socket.IPPROTO_UDP)
    except OSError:  # a kernel without the modules for it
        return None
    own = frozenset(inode for process in processes(_NAME, proc) for inode in sockets_of(process, proc))
    if any(row.inode in own for row in tcp + udp):
        tcp, udp = ([row for row in rows if row.inode in own] for rows in (tcp, udp))
    else:
        users = {row.uid for row in tcp if port_of(row.local_port) == ami_port}
        if len(users) != 1 or _ROOT in users:
            return None
        tcp, udp = ([row for row in rows if row.uid in users] for rows in (tcp, udp))
    first, last = _calls(folder)
    found = ListeningPorts(
        udp=tuple(
            port for port in _ports(udp) if port in _SIP or not (first <= port <= last or port >= _ANY)
        ),
        tcp=_ports(tcp),
    )
    return found if found.udp or set(found.tcp) - {ami_port} else None


def listening_sockets(protocol: int) -> list[Socket]:
    """Return the sockets of both IP versions that listen (TCP), or are not connected (UDP).

    Raise OSError if the kernel has no list of this protocol.
    """
    state = LISTENING if protocol == socket.IPPROTO_TCP else CLOSED
    families = (socket.AF_INET, socket.AF_INET6)
    return [row for family in families for row in sockets(family, protocol, 1 << state)]


def _ports(rows: Iterable[Socket]) -> tuple[int, ...]:
    return tuple(sorted({port_of(row.local_port) for row in rows} - {0}))


def _calls(folder: Path) -> tuple[int, int]:
    """Return the first and the last port that calls may have."""
    conf = read_conf(folder / "rtp.conf", lambda section, name: section == "general" and name in _RANGE)
    known = folder.is_dir() if conf is None else not conf.unread
    if not known:
        return _CALLS_BEGIN, _ANY
    if conf is None:
        return _OWN_RANGE
    texts = [conf.section("general").last(name) for name in _RANGE]
    first, last = (
        int(text) if _NUMBER.fullmatch(text) else default
        for text, default in zip(texts, _OWN_RANGE, strict=True)
    )
    return first, last


_RANGE = ("rtpstart", "rtpend")
