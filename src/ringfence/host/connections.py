"""The TCP connections to this host, open and recently closed, as the kernel reports them.

Callers can make Asterisk write a log line with any address. But they do not know which addresses and ports
have a connection to this host, except for their own. So a line is confirmed if its address and port have a
TCP connection to this host. Connections *from* this host (to a trunk, a web server) do not count, because
anyone can guess their remote ports. So only connections to a port on which this host listens count. Many
users and programs know the remote ports of connections to other servers of this host. So if the users of
Asterisk's sockets are known (:attr:`ConnectionTable.users`), only ports on which they listen count.

Only connections of the daemon's own network namespace are visible, so none is found for a PBX in a container,
and a missing one then means nothing (:attr:`ConnectionTable.elsewhere`).

Open connections come from the kernel's list (sock_diag, else ``/proc/net/tcp``). The list is read while
guesses arrive, so it is read at most once in ``FRESH`` seconds, or once in ``SOON`` seconds if it lacks a
queried connection. For each reading the kernel walks through its table of connections, whose size depends on
the host's memory: with 23 GB that takes 0.8 ms by sock_diag, and 7 ms by ``/proc/net/tcp`` and ``tcp6``. A
thousand connections add 3 to 6 ms and 1 MB. A sender can leave thousands of connections open. After a ban
they stay in the list, because the packets that close them are dropped. So the list is not read again before
ten times the duration of the last reading has passed, or ``OLDEST`` seconds, whichever is less. Without this
rule, 9 600 connections kept the daemon busy at 100 % of a core.

A sender that knows the remote port of another party's connection can make Asterisk write it into a line. So
a connection confirms a line only if enough bytes came by it for a request, and each byte counts for one line
only. An idle connection confirms nothing.

Closed connections come from the kernel's reports (a comment below lists which events are reported, and when),
and from the difference between two readings of the list. They are remembered for ``REMEMBERED`` seconds.

If the remote end resets a connection, neither the list nor the reports have it until Asterisk closes its
descriptor (4 to 16 ms with Asterisk 22, 0 to 3 ms with 16). So the caller must refresh the table again later
before it treats a line as unconfirmed.

Measured on two busy cores: 4.5 µs of CPU for each closed connection at 12 000 a second. The kernel's buffer
has room for more than 25 000 reports. ``MOST_REMEMBERED`` IPv6 addresses take 18 MB.
"""

import asyncio
import errno
import math
import socket
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from ringfence.clock import Clock
from ringfence.errors import HostError
from ringfence.gathering import more_waits, patient
from ringfence.host.closed import Closed, ClosedSockets
from ringfence.netlink.sock_diag import LISTENING, sockets, unmapped
from ringfence.values.event import Endpoint
from ringfence.values.network import Address

FRESH = 0.05
"""The maximum age of the kernel's list of open connections when it is used, in seconds."""

SOON = 0.005
"""The maximum age in seconds of the kernel's list of open connections if it lacks the queried one."""

OLDEST = 0.5
"""The maximum age of the list of open connections, in seconds, if there are very many of them.

This is less than the second for which a report waits for a connection that confirms it
(``detect/confirmation.py``).
"""

REMEMBERED = 60.0
"""Seconds for which a closed connection can still confirm a log line."""

MOST_REMEMBERED = 65_536
"""The maximum number of entries in each of three tables; the oldest entry is forgotten first.

The tables have closed connections, the addresses that had one, and the connections whose bytes have confirmed
a log line.
"""

_MOST_READINGS = 16
"""The maximum number of batches of reports that a query reads before it answers.

The event loop reads the rest later.
"""

_MOST_UNSURE = 1024
"""The maximum number of closed connections of which it is unknown whether their port counts.

Most of them are outgoing. The next reading of the list of sockets shows on which ports this host listens, and
so which connections count. If the maximum is reached, the list is read early, but not if it is fresh
(``_renew``). In both cases the connections to a port without a listener in the list are then forgotten.
"""

_MOST_STALE = 1024
"""The maximum number of kept byte counts whose connections are already forgotten.

A byte count is the number of bytes that came by a closed connection. If there are more such counts, all of
them are removed at once.
"""

_Received = Callable[[], int | None]
_Row = tuple[int, int, bytes, Callable[[], bytes], _Received]
"""A TCP socket in the kernel's list: its state, its user id, its local port, and two functions.

The first one returns the remote address and port, the second one the number of received bytes, or None.
"""

_LISTS = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
# SYN_SENT, SYN_RECV, FIN_WAIT1, NEW_SYN_RECV (include/net/tcp_states.h): the handshake may be incomplete.
# In FIN_WAIT1 this happens with TCP Fast Open, if the program closes a socket that is in SYN_RECV.
_UNMADE = (2, 3, 4, 12)
_TEMPORARY = (errno.ENOBUFS, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN)
"""Errors of a kernel that has a list of connections, but cannot show it now."""
_TIME_WAIT = 6
_COUNTLESS = (5, _TIME_WAIT)  # FIN_WAIT2, TIME_WAIT: the kernel may have no byte count left
_LOCAL, _REMOTE, _STATE, _USER = 1, 2, 3, 7  # columns of /proc/net/tcp
_WORD = 8  # hexadecimal digits of 32 bits of an address in /proc/net/tcp, in this machine's byte order
_PORT = 2  # bytes
_STATES = 0x1FFF & ~sum(1 << state for state in _UNMADE)


class ConnectionTable:
    """The remote ends of the TCP connections to this host, open ones and recently closed ones.

    :meth:`follow` begins to read the kernel's reports of closed connections. Until then, and if that fails,
    only the difference between two readings of the kernel's list shows closed connections. ``lists``, if not
    None, are files like ``/proc/net/tcp`` that are read instead of sock_diag.
    """

    def __init__(
        self,
        lists: tuple[Path, ...] | None = None,
        clock: Clock | None = None,
        closed: ClosedSockets | None = None,
    ) -> None:
        self._lists = lists
        self._clock = clock if clock is not None else Clock()
        self._unread = ""
        self._unfollowed = ""
        self._read_at = -math.inf
        self._whole = False  # whether the last refresh read every report
        self._outdated = False  # whether the next look-up has to refresh the table first
        self.elsewhere = False
        """Whether an Asterisk is in a container or on another host, whose connections the kernel hides."""
        self.users: frozenset[int] = frozenset()
        """The user ids of the sockets of Asterisk and its proxies. If it is empty, every port counts."""
        self._reading_took = 0.0
        self._open: dict[bytes, _Received] = {}
        self._used: OrderedDict[bytes, tuple[int, int]] = OrderedDict()
        self._open_from: frozenset[bytes] | None = None
        self._ports: dict[bytes, float] = {}  # ports whose connections count, and until when
        self._foreign: set[bytes] = set()  # ports on which only other users than Asterisk's listen
        self._past = _Past()
        self._closed = closed if closed is not None else ClosedSockets()
        self._unsure: list[tuple[Closed, float]] = []  # closed ones, perhaps outgoing: see _MOST_UNSURE
        self._known_from = math.inf
        self._loop: asyncio.AbstractEventLoop | None = None
        self._patience = ExitStack()  # undoes what lets the reports gather

    @property
    def error(self) -> str:
        """Why connections cannot be read at present, with a fix if one is known; "" without an error."""
        return "; ".join(filter(None, [self._unread, self._unfollowed]))

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """Follow closed connections within the block, in the running loop.

        If the kernel refuses that, :attr:`error` is set, and :meth:`retry` tries again.
        """
        try:
            self._follow_patiently()
            yield
        finally:
            self._patience.close()
            self.close()

    def _follow_patiently(self) -> None:
        """Follow closed connections in the running loop, and let the kernel's reports gather."""
        self.follow(asyncio.get_running_loop())
        if not self._unfollowed:
            self._patience.enter_context(patient(self._closed.fileno()))

    def follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start to read the kernel's reports of closed connections, in ``loop``. A failure sets ``error``."""
        try:
            self._closed.open()
        except HostError as error:
            self._unfollowed = str(error)
            return
        self._unfollowed = ""
        now = self._clock.mono()
        self._renew(now)  # this request makes the kernel load tcp_diag, which sends the reports
        self._known_from = now + REMEMBERED
        self._loop = loop
        loop.add_reader(self._closed.fileno(), self._readable)

    def close(self) -> None:
        """Stop following closed connections."""
        if self._loop is not None:
            self._loop.remove_reader(self._closed.fileno())
            self._loop = None
        self._closed.close()
        self._known_from = math.inf

    def refresh(self, remote: Endpoint | None = None, length: int = 0) -> None:
        """Read the kernel's reports and, if it is older than ``FRESH`` seconds, its list of connections.

        Read the list again if it lacks ``remote``, or has fewer than ``length`` unused bytes of it. Without
        ``remote`` the next look-up does this, if there is one: most ticks of the detector look up nothing,
        and the kernel takes the longer for its list, the more memory the host has. Call this before the
        detector looks up connections.
        """
        if remote is None:
            self._outdated = True
            return
        now = self._clock.mono()
        self._drain(now)
        key = _key(remote)
        if not self._past.has(key, now):
            self._renew(now)
            if key not in self._open:
                self._renew(now, SOON)  # the connection may be newer than the list
        if self.has(remote, now) and self._unused(key) < length:
            self._renew(now, SOON)  # the bytes of this line may be newer than the list

    def retry(self) -> None:
        """Read the kernel's list again, and follow its reports, if that failed, so that the error can end.

        Call this within the block of :meth:`followed`.
        """
        if self._unread:
            self._renew(self._clock.mono())
        if self._unfollowed:
            self._follow_patiently()

    def _update(self) -> None:
        """Refresh the table now if :meth:`refresh` has left that to the next look-up."""
        if self._outdated:
            self._outdated = False
            now = self._clock.mono()
            self._drain(now)
            self._renew(now)

    def has(self, remote: Endpoint, now: float) -> bool:
        """Whether ``remote`` has a connection to this host, or had one in the last 60 s.

        A connection without a completed handshake does not count.
        """
        self._update()
        key = _key(remote)
        return key in self._open or self._past.has(key, now)

    def backs(self, remote: Endpoint, length: int, now: float) -> bool:
        """Whether the connection of ``remote`` (see :meth:`has`) confirms a log line about a request.

        ``length`` is the least size of such a request, in bytes. The remote end must have sent so many bytes
        that have not confirmed another line; this call uses them up. If the number of bytes is unknown, the
        connection is enough, unless it is open and listed by sock_diag.
        """
        key = _key(remote)
        if not self.has(remote, now) or self._unused(key) < length:
            return False
        received = self._received(key)
        if received is not None:
            before, used = self._used.get(key, (0, 0))
            self._used[key] = received, (used if received >= before else 0) + length
            self._used.move_to_end(key)
            if len(self._used) > MOST_REMEMBERED:
                self._used.popitem(last=False)
        return True

    def _received(self, key: bytes) -> int | None:
        opened, closed = self._open.get(key), self._past.received(key)
        return max([n for n in (opened and opened(), closed) if n is not None], default=None)

    def _unused(self, key: bytes) -> float:
        """Return how many bytes came by the connection ``key`` and have confirmed no log line.

        If the number is unknown, return 0 for an open connection that sock_diag listed, because sock_diag
        normally reports the number. Otherwise return infinity.
        """
        received = self._received(key)
        if received is None:
            return math.inf if key not in self._open or self._lists is not None else 0
        before, used = self._used.get(key, (0, 0))
        return received - (used if received >= before else 0)  # fewer bytes: a new connection of that port

    def had_any(self, address: Address, now: float) -> bool | None:
        """Whether ``address`` has a connection from any port, or had one in the last 60 s.

        Return None if that is unknown: the list is older than ``FRESH`` seconds, the table may lack a
        connection of the last 60 s, or :attr:`elsewhere` is true.
        """
        self._update()
        if self._open_from is None:
            self._open_from = frozenset(key[:-_PORT] for key in self._open)
        if address.packed in self._open_from or self._past.had_any(address.packed, now):
            return True
        recent = now - self._read_at < FRESH
        return False if self._whole and recent and self.knows(now) and not self.elsewhere else None

    def knows(self, now: float) -> bool:
        """Whether this table has every connection of the 60 s before ``now`` (monotonic seconds)."""
        return not self._unread and now >= self._known_from

    def _drain(self, now: float) -> None:
        """Read at most ``_MOST_READINGS`` batches of reports of closed connections."""
        self._whole = any(not self._turn(now) for _ in range(_MOST_READINGS))

    def _readable(self) -> None:
        if self._turn(self._clock.mono()):
            more_waits()

    def _turn(self, now: float) -> bool:
        """Read one batch of reports of closed connections; return whether there may be more."""
        came, lost, more = self._closed.read()
        self._remember([closed for closed in came if closed.local_port in self._ports], now)
        known = self._ports.keys() | self._foreign
        self._unsure += [(closed, now) for closed in came if closed.local_port not in known]
        if len(self._unsure) >= _MOST_UNSURE:
            self._renew(now)
            self._unsure.clear()
        if lost:
            self._known_from = now + REMEMBERED
        return more

    def _remember(self, ended: Iterable[Closed], at: float) -> None:
        if not self._past.add(ended, at):
            self._known_from = at + REMEMBERED

    def _renew(self, now: float, fresh: float = FRESH) -> None:
        """Read the open connections and listening ports again if the list is older than ``fresh`` seconds.

        With very many connections the list may become older; see the head of this module. ``now`` is
        monotonic.
        """
        if now - self._read_at < max(fresh, min(10 * self._reading_took, OLDEST)):
            return
        before, self._read_at = self._read_at, now
        rows = list(self._read())
        if self._unread and not rows:
            self._reading_took = self._clock.mono() - now
            return  # the earlier list stays; ``knows`` is false until the next one
        listening = {(port, user) for state, user, port, *_ in rows if state == LISTENING}
        counting = {port for port, user in listening if not self.users or user in self.users}
        self._foreign = {port for port, _ in listening} - counting
        self._renew_ports(counting, now)
        found: dict[bytes, _Received] = {}
        for state, _, port, remote, received in rows:
            if state != LISTENING and port in self._ports:
                key = remote()
                lacks = state in _COUNTLESS and received() is None
                found[key] = self._open.get(key, received) if lacks else received
        gone = [Closed(b"", key, received()) for key, received in self._open.items() if key not in found]
        self._remember(gone, before)  # ``before`` is when the list contained them last
        self._open, self._open_from = found, None
        for closed, at in self._unsure:
            if closed.local_port in self._ports:
                self._remember([closed], at)
        self._unsure.clear()
        self._reading_took = self._clock.mono() - now

    def _renew_ports(self, counting: set[bytes], now: float) -> None:
        """Record ``counting``, the ports whose connections count, each as two bytes in network order.

        A port on which nothing listens any more counts for ``REMEMBERED`` seconds more, as its closed
        connections do. ``now`` is in monotonic seconds.
        """
        for port, until in list(self._ports.items()):
            if port in counting:
                continue
            if until == math.inf:
                self._ports[port] = now + REMEMBERED
            elif until < now:
                del self._ports[port]
        self._ports.update(dict.fromkeys(counting, math.inf))

    def _read(self) -> Iterator[_Row]:
        """Yield the TCP sockets of this host, including listening ones; if that fails, set ``error``."""
        self._unread = ""
        if self._lists is None:
            try:
                # With the kernel's reports, sockets in TIME_WAIT are left out: they are reported as closed.
                states = _STATES if self._loop is None else _STATES & ~(1 << _TIME_WAIT)
                yield from [*_asked(socket.AF_INET, states), *_asked(socket.AF_INET6, states)]
            except OSError as error:
                if error.errno in _TEMPORARY:
                    self._unread = f"the kernel's list of connections: {error.strerror}"
                    return
                self._lists = _LISTS  # a kernel without sock_diag
        if self._lists is not None:
            yield from self._listed(self._lists)

    def _listed(self, lists: Collection[Path]) -> Iterator[_Row]:
        """Yield the TCP sockets in ``lists``, files like ``/proc/net/tcp``.

        Leave out a missing or an unreadable file. An unreadable one sets ``error``, and so does it if all are
        missing.
        """
        missing = 0
        for path in lists:
            try:
                lines = path.read_bytes().split(b"\n")
            except FileNotFoundError:  # a host without IPv6 has no tcp6
                missing += 1
                continue
            except OSError as error:
                self._unread = f"{path}: {error.strerror}"
                continue
            for line in lines[1:]:
                columns = line.split(None, _USER + 1)
                if len(columns) > _USER and int(columns[_STATE], 16) not in _UNMADE:
                    port = bytes.fromhex(columns[_LOCAL].rpartition(b":")[2].decode("ascii"))
                    remote = partial(_endpoint, columns[_REMOTE])
                    yield int(columns[_STATE], 16), int(columns[_USER]), port, remote, _no_count
        if missing == len(lists):
            self._unread = "neither sock_diag nor /proc/net/tcp can be read; fix: modprobe tcp_diag"


def _no_count() -> None:
    """Return None: the files of /proc have no byte counts."""


class _Past:
    """TCP connections closed in the last 60 s, found by remote address and port, or by address alone."""

    def __init__(self) -> None:
        self._ends: OrderedDict[bytes, float] = OrderedDict()
        self._received: dict[bytes, int] = {}
        self._addresses: OrderedDict[bytes, float] = OrderedDict()

    def has(self, end: bytes, now: float) -> bool:
        """Whether a connection of ``end`` (packed address and port) was closed within the last 60 s."""
        return now - self._ends.get(end, -math.inf) < REMEMBERED

    def received(self, end: bytes) -> int | None:
        """Return how many bytes came by the last closed connection of ``end`` (packed address and port).

        Return None if the number is unknown.
        """
        return self._received.get(end)

    def had_any(self, address: bytes, now: float) -> bool:
        """Whether a connection of ``address`` (packed), from any port, was closed within the last 60 s."""
        return now - self._addresses.get(address, -math.inf) < REMEMBERED

    def add(self, ended: Iterable[Closed], at: float) -> bool:
        """Remember connections that closed at ``at`` (monotonic seconds).

        Return False if an address was forgotten before its 60 s were over, because there are too many.
        """
        whole = True
        for closed in ended:
            end = closed.remote
            if closed.received is not None:
                self._received[end] = closed.received
            _remember(self._ends, end, at)
            whole = _remember(self._addresses, end[:-_PORT], at) and whole
        if len(self._received) > len(self._ends) + _MOST_STALE:
            self._received = {end: self._received[end] for end in self._ends if end in self._received}
        return whole


def _remember(table: OrderedDict[bytes, float], key: bytes, at: float) -> bool:
    """Store the time ``at`` (monotonic) under ``key`` as the newest entry; forget entries older than 60 s.

    Return False if an entry that has not expired was forgotten too, because there are too many.
    """
    table[key] = max(at, table.get(key, at))
    table.move_to_end(key)
    while at - next(iter(table.values())) >= REMEMBERED:
        table.popitem(last=False)
    if len(table) <= MOST_REMEMBERED:
        return True
    table.popitem(last=False)
    return False


def _asked(family: socket.AddressFamily, states: int) -> Iterator[_Row]:
    """Yield the TCP sockets of an IP version that are in ``states`` (one bit each), from sock_diag.

    Raise OSError if the kernel cannot list them.
    """
    for row in sockets(family, socket.IPPROTO_TCP, states, info=True):
        yield row.state, row.uid, row.local_port, partial(_end, row.remote, row.remote_port), row.received


def _key(remote: Endpoint) -> bytes:
    return remote.address.packed + remote.port.to_bytes(_PORT, "big")


def _endpoint(text: bytes) -> bytes:
    """Parse an end in ``/proc/net/tcp``, such as ``0100007F:1F90``, into the packed address and port."""
    words, _, port = text.decode("ascii").partition(":")
    packed = b"".join(bytes.fromhex(words[at : at + _WORD])[::-1] for at in range(0, len(words), _WORD))
    return _end(packed, bytes.fromhex(port))


def _end(packed: bytes, port: bytes) -> bytes:
    """Return a packed address followed by its port. An IPv4-mapped address becomes the IPv4 address."""
    return unmapped(packed) + port
