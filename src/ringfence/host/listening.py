"""The ports that Asterisk listens on, over UDP and TCP: SIP, TLS, WebSockets, IAX2, the manager interface.

The kernel's list of sockets names the user of each socket, but not the program. So Asterisk's sockets are
those of the user whose socket listens on the manager interface's port. If that user is root, the socket may
belong to any program. Then only ``/proc`` shows Asterisk's sockets (``processes.py``), but the daemon's
systemd unit hides the processes of others in ``/proc`` from it. If ``/proc`` shows Asterisk's sockets, only
these count, because Asterisk's user may run other programs too (as on FreePBX).

While Asterisk is down, any user may listen on the manager interface's port, and start a program that is named
``asterisk``. So only sockets of users that may run Asterisk count: root, the user named ``asterisk``, the
owners of Asterisk's folders, and those that the configuration names (``server_users``). If there is no such
user besides root, every user counts: Asterisk may run in a container that shares this host's network.

Ports of calls (RTP) do not count. A call with frames of 20 ms sends 50 packets a second, and more
than that is a flood. A socket of a call differs from a SIP socket only by its port. So SIP's
standard ports 5060 and 5061 always count. Any other UDP port counts if it is outside of the range of calls
and below 32768. From 32768 on, the kernel assigns ports to sockets for outgoing requests. A port that these
rules leave out counts if it answers a SIP request (``speech.py``). Sockets of calls are not asked: they come
in pairs, an even port and the one after it.

The range of calls is in ``rtp.conf``. If the file does not exist, Asterisk uses 5000 to 31000. If that file
cannot be read (usually only Asterisk may read it), the range is unknown. Then it is taken to begin at 10000,
as in Asterisk's sample file, and a pair of ports below that counts only if it answers, so pairs are asked.

A SIP proxy in front of Asterisk has sockets of its own. A socket is a proxy's if its user has one of the
names in ``PROXIES``, as in Debian's packages. If only its program has such a name, its user must be root or
known as a user of Asterisk. Any user can start a program of that name, so those of other users do not count,
even if no user of Asterisk is known: a proxy's answers decide which addresses are banned. Sockets of SCTP are
not listed.

A SIP port that is not found this way can be named in the configuration.
"""

import os
import pwd
import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address
from itertools import product
from pathlib import Path
from typing import NamedTuple

from attrs import evolve

from ringfence.file_rights import user_number
from ringfence.host.asterisk_conf import FOLDER, AsteriskFiles, Conf
from ringfence.host.processes import PROC, processes, sockets_of
from ringfence.host.speech import ListeningSocket, Speech, Speeches
from ringfence.netlink.connection import FAMILIES
from ringfence.netlink.sock_diag import CLOSED, LISTENING, Socket, address_of, port_of, sockets
from ringfence.values.event import Endpoint, Transport
from ringfence.values.network import is_loopback

PROXIES = ("kamailio", "opensips")
ASSIGNED = 32_768
"""The first port that the kernel assigns to a socket by default (``net.ipv4.ip_local_port_range``)."""

_NAME = "asterisk"
_FOLDERS = (FOLDER, Path("/run/asterisk"), Path("/var/lib/asterisk"))
_FAMILIES = socket.AF_INET, socket.AF_INET6
_DISCARD = 9  # any port will do
_PROTOCOLS = (socket.IPPROTO_UDP, Transport.UDP), (socket.IPPROTO_TCP, Transport.TCP)
_SIP = frozenset({5060, 5061})
_SAMPLE_BEGIN = 10_000  # rtpstart in Asterisk's sample file
_OWN_RANGE = (5_000, 31_000)  # DEFAULT_RTP_START, DEFAULT_RTP_END (res/res_rtp_asterisk.c)
_ROOT = 0
_NUMBER = re.compile(r"[0-9]{1,5}")


class ListeningPorts(NamedTuple):
    """The ports that Asterisk listens on, separately for UDP and TCP, each sorted.

    Either tuple may be empty, for example if Asterisk has not loaded all modules yet. ``sip``, ``sips`` and
    ``other`` are those TCP ports that answered in SIP, in SIP by TLS, and otherwise. No port is in two of
    these three.
    """

    udp: tuple[int, ...]
    tcp: tuple[int, ...]
    sip: tuple[int, ...] = ()
    sips: tuple[int, ...] = ()
    other: tuple[int, ...] = ()


def is_here(host: str) -> bool:
    """Whether ``host`` is an address of this host now, or ``localhost``. Other names are not resolved.

    This asks the kernel for a route. It sends nothing and takes microseconds.
    """
    if is_loopback(host):
        return True
    try:
        address = ip_address(host)
        if address.is_unspecified:
            return True
        with socket.socket(FAMILIES[address.version], socket.SOCK_DGRAM) as probe:
            probe.connect((host, _DISCARD))
            # Only to an address of its own does this host send from that same address.
            return ip_address(probe.getsockname()[0]) == address
    except (ValueError, OSError):  # a name, no route, or a kernel without this version of IP
        return False


class NamedUsers(NamedTuple):
    """The ids of the users that are named like Asterisk (None if there is none) and like SIP proxies.

    ``owners`` are the users, except root, to whom Asterisk's folders belong, and those that the configuration
    names (``server_users``). Only root can name a user so, or give a folder to another user.
    """

    asterisk: int | None = None
    proxies: frozenset[int] = frozenset()
    owners: frozenset[int] = frozenset()

    def may_run_asterisk(self, user: int) -> bool:
        """Whether a socket of ``user`` may be Asterisk's; True too if no user of Asterisk is known here.

        Root may, and so may the user of this process, who knows the secret of AMI anyway.
        """
        known = self.owners if self.asterisk is None else self.owners | {self.asterisk}
        return not known or user in known or user in (_ROOT, os.getuid())

    def may_run_proxy(self, user: int) -> bool:
        """Whether a socket of ``user`` may be a SIP proxy's, if its program is named so.

        Unlike in :meth:`may_run_asterisk`, only known users may, even if no user of Asterisk is known: any
        user can start a program of that name.
        """
        return user in self.proxies | self.owners or user in (self.asterisk, _ROOT, os.getuid())


_UNKNOWN = NamedUsers()


def find_ports(
    ami_port: int | None,
    folder: Path = FOLDER,
    proc: Path = PROC,
    speeches: Speeches | None = None,
    named: NamedUsers = _UNKNOWN,
) -> ListeningPorts | None:
    """Return the ports that Asterisk listens on now, in this network namespace.

    Return None if that cannot be determined: Asterisk does not run here (in a container, on another host), it
    runs as root and ``/proc`` is hidden, or only the manager interface listens yet. ``ami_port`` is the port
    of the manager interface on this host, None if it is elsewhere. ``folder`` has Asterisk's configuration
    files. ``speeches`` asks the sockets what they speak; None: the sockets are not asked. ``named`` are the
    users that may run Asterisk: sockets of others do not count, whatever their port or program.
    """
    try:
        tcp, udp = (_candidates(protocol, named) for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP))
    except OSError:  # a kernel without the modules for this list
        return None
    own = frozenset(inode for process in processes(_NAME, proc) for inode in sockets_of(process, proc))
    if any(row.inode in own for row in tcp + udp):
        tcp, udp = ([row for row in rows if row.inode in own] for rows in (tcp, udp))
    else:
        users = {row.uid for row in tcp if port_of(row.local_port) == ami_port}
        if len(users) != 1 or _ROOT in users:
            return None
        tcp, udp = ([row for row in rows if row.uid in users] for rows in (tcp, udp))
    bound, calls = {*_ports(udp)}, _calls(folder)
    first, last = calls or (_SAMPLE_BEGIN, ASSIGNED)
    doubtful = {port for port in bound if calls is None and port < first and port ^ 1 in bound} - _SIP
    left_out = doubtful | ({port for port in bound if first <= port <= last or port >= ASSIGNED} - _SIP)
    found = ListeningPorts(tuple(sorted(bound - left_out)), _ports(tcp))
    if not found.udp and not set(found.tcp) - {ami_port}:
        return None
    alone = {port for port in left_out if port ^ 1 not in left_out}
    return found if speeches is None else _asked(found, udp, tcp, ami_port, alone | doubtful, speeches)


def _candidates(protocol: int, named: NamedUsers) -> list[Socket]:
    """Return the listening sockets of users that may run Asterisk; raise OSError without the kernel's list.

    While Asterisk is down, any user may listen on its ports, by a program of its name.
    """
    return [row for row in listening_sockets(protocol) if named.may_run_asterisk(row.uid)]


def _asked(
    found: ListeningPorts,
    udp: Iterable[Socket],
    tcp: Iterable[Socket],
    ami_port: int | None,
    others: set[int],
    speeches: Speeches,
) -> ListeningPorts:
    """Return ``found`` with the protocols of TCP ports, and those UDP ports of ``others`` that speak SIP."""
    listeners = [
        *(_listening_socket(row, Transport.TCP) for row in tcp if port_of(row.local_port) != ami_port),
        *(_listening_socket(row, Transport.UDP) for row in udp if port_of(row.local_port) in others),
    ]
    heard = speeches.look(listeners, {*_SIP, *found.udp} - {port + 1 for port in found.udp})
    answering = {one.port for one in heard if one.transport is Transport.UDP and heard[one] is Speech.SIP}
    spoken: dict[int, set[Speech]] = {}
    for one, speech in heard.items():
        if one.transport is Transport.TCP:
            spoken.setdefault(one.port, set()).add(speech)
    # One number may have different servers at two addresses.
    kinds = {port: next(one for one in _STRICTEST if one in spoken[port]) for port in sorted(spoken)}
    sip, sips, other = (
        tuple(port for port in kinds if kinds[port] is kind)
        for kind in (Speech.SIP, Speech.SIPS, Speech.OTHER)
    )
    return ListeningPorts(tuple(sorted({*found.udp, *answering})), found.tcp, sip, sips, other)


def _listening_socket(row: Socket, transport: Transport) -> ListeningSocket:
    return ListeningSocket(address_of(row.local), port_of(row.local_port), transport, row.inode)


_STRICTEST = (Speech.SIPS, Speech.SIP, Speech.OTHER)


def find_named_users(users: Iterable[str] = ()) -> NamedUsers:
    """Look up the users that are named like Asterisk and like SIP proxies, and the owners of its folders.

    ``users`` are names or numbers of further users that may run Asterisk. Users' names may be on a slow
    server (LDAP), so do not call this in the event loop.
    """
    proxies = _numbers(PROXIES)
    return NamedUsers(user_number(_NAME), proxies, _owners() | _numbers(users))


def foreign_user(user: int, users: Iterable[str] = ()) -> str:
    """Return a name for the user with the id ``user`` if no Asterisk of this host runs as this user; else "".

    ``users`` is as in :func:`find_named_users`. Do not call this in the event loop either.
    """
    owners = _owners() | _numbers(users)
    known = user in owners | {_ROOT, os.getuid()}  # most often, and then no slow server is asked for a name
    if known or NamedUsers(user_number(_NAME), owners=owners).may_run_asterisk(user):
        return ""
    return _user_text(user)


def find_users(ami_ports: Iterable[int], named: NamedUsers, proc: Path = PROC) -> frozenset[int]:
    """Return the users of Asterisk's sockets, in this network namespace; empty if they are unknown.

    These are the users that listen on the manager interfaces' ports ``ami_ports``. If nothing listens there,
    the result is the users of the sockets of visible processes named ``asterisk``, or else the user of that
    name in ``named``, if it has a SIP socket. Only users that may run Asterisk count. If two of them listen
    on one port, at different addresses, the users are unknown.
    """
    try:
        tcp = _candidates(socket.IPPROTO_TCP, named)
        by_port = [{row.uid for row in tcp if port_of(row.local_port) == port} for port in ami_ports]
        found = frozenset[int]().union(*by_port)
        if found:
            return found if all(len(users) <= 1 for users in by_port) else frozenset()
        rows = tcp + _candidates(socket.IPPROTO_UDP, named)
    except OSError:  # a kernel without the modules for this list
        return frozenset()
    own = frozenset(inode for process in processes(_NAME, proc) for inode in sockets_of(process, proc))
    found = frozenset(row.uid for row in rows if row.inode in own)
    if found or named.asterisk is None:
        return found
    return frozenset(row.uid for row in rows if row.uid == named.asterisk and port_of(row.local_port) in _SIP)


def find_proxy_users(named: NamedUsers, proc: Path = PROC) -> frozenset[int]:
    """Return the users of the sockets on which SIP proxies listen now, and the proxies' users in ``named``.

    A proxy may open its sockets as root, and accept connections as another user.
    """
    return named.proxies | {row.uid for _, row in _proxy_rows(named, proc)}


def find_proxy_sockets(named: NamedUsers, proc: Path = PROC) -> frozenset[Endpoint]:
    """Return the sockets on which SIP proxies listen now, in this network namespace, by UDP or TCP.

    The set is empty if the kernel cannot list its sockets.
    """
    return frozenset(
        Endpoint(address_of(row.local), port_of(row.local_port), transport)
        for transport, row in _proxy_rows(named, proc)
    )


def find_foreign_proxies(named: NamedUsers, proc: Path = PROC) -> list[str]:
    """Return the users whose listening programs are named like SIP proxies, but do not count as proxies.

    Each user is a text as of :func:`foreign_user`. Do not call this in the event loop either.
    """
    users = {row.uid for _, row in _named_rows(named, proc)}
    return [_user_text(user) for user in sorted(users) if not named.may_run_proxy(user)]


def _proxy_rows(named: NamedUsers, proc: Path) -> list[tuple[Transport, Socket]]:
    """Return transport and socket of each listening socket of SIP proxies (Kamailio and others)."""
    return [(transport, row) for transport, row in _named_rows(named, proc) if named.may_run_proxy(row.uid)]


def _named_rows(named: NamedUsers, proc: Path) -> list[tuple[Transport, Socket]]:
    """Return transport and socket of each listening socket whose program or user is named like a SIP proxy.

    The user of such a program may be any user: see :meth:`NamedUsers.may_run_proxy`.
    """
    own = {
        inode for name in PROXIES for process in processes(name, proc) for inode in sockets_of(process, proc)
    }
    found = []
    for family, (protocol, transport) in product(_FAMILIES, _PROTOCOLS):
        try:
            rows = _listening(family, protocol)
        except OSError:  # a kernel without the modules for this list
            return []
        found += [(transport, row) for row in rows if row.inode in own or row.uid in named.proxies]
    return found


def _user_text(user: int) -> str:
    """Return the name of a user with its number, such as ``alice (1000)``; without a name only the number."""
    try:
        return f"{pwd.getpwuid(user).pw_name} ({user})"
    except KeyError:
        return str(user)


def _numbers(users: Iterable[str]) -> frozenset[int]:
    """Return the numbers of users that are given by names or numbers, without those that do not exist."""
    return frozenset(number for user in users if (number := user_number(user)) is not None)


def _owners() -> frozenset[int]:
    """Return the users, except root, to whom Asterisk's folders belong."""
    owners = set()
    for folder in _FOLDERS:
        with suppress(OSError):
            owners.add(folder.stat().st_uid)
    return frozenset(owners - {_ROOT})


def listening_sockets(protocol: int, families: Iterable[socket.AddressFamily] = _FAMILIES) -> list[Socket]:
    """Return the sockets of ``protocol`` that listen (TCP), or are not connected (UDP), by ``families``.

    Raise OSError if the kernel has no list of this protocol.
    """
    return [row for family in families for row in _listening(family, protocol)]


def _listening(family: socket.AddressFamily, protocol: int) -> list[Socket]:
    state = LISTENING if protocol == socket.IPPROTO_TCP else CLOSED
    return list(sockets(family, protocol, 1 << state))


def _ports(rows: Iterable[Socket]) -> tuple[int, ...]:
    return tuple(sorted({port_of(row.local_port) for row in rows} - {0}))


def _calls(folder: Path) -> tuple[int, int] | None:
    """Return the first and the last port for calls (RTP), from ``rtp.conf`` in ``folder`` or by default.

    Return None if the file cannot be read.
    """
    conf = read_rtp(AsteriskFiles(folder))
    known = folder.is_dir() if conf is None else not conf.unread
    if not known:
        return None
    if conf is None:
        return _OWN_RANGE
    texts = [conf.section("general").first(name) for name in _RANGE]
    first, last = (
        int(text) if _NUMBER.fullmatch(text) else default
        for text, default in zip(texts, _OWN_RANGE, strict=True)
    )
    return first, last


_RANGE = ("rtpstart", "rtpend")
_RTP_WORK = 25_000
"""The maximum work for ``rtp.conf`` with its includes, in units as of ``MOST_WORK``.

The daemon reads this file every few seconds, and an attacker that has taken over Asterisk can change it. The
sample file of Asterisk 22 has 183 lines, and needs about 200 units.
"""


def read_rtp(files: AsteriskFiles) -> Conf | None:
    """Return the limits of the ports for calls (RTP), as in ``rtp.conf``; None if the file does not exist.

    If the file with its includes is too large (``_RTP_WORK``), this is a reason in ``unread``, and the limits
    are unknown.
    """
    return evolve(files, most_work=_RTP_WORK).read("rtp.conf", _is_of_range)


def _is_of_range(section: str, name: str) -> bool:
    """Whether an option of rtp.conf is one of the limits of the ports."""
    return section == "general" and name in _RANGE
