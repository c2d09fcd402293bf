"""Simulated Asterisks: the manager interface (AMI), the log, and the packets that the kernel copies."""

import asyncio
import errno
import os
import struct
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Self

from tests.judge.asterisk import OUR_ASTERISK, Report
from tests.judge.others import OTHER_SERVER, RELAY
from tests.simulate.loop import Schedule, SimulatedTransport
from tests.support.amiserver import BANNER, BOOTED, AmiServer, Script

from ringfence.netlink.connection import FRAME, NLMSG_ERROR, attribute, message

SECRET = "simulated"
USERS = {OUR_ASTERISK: 100, RELAY: 65_534, OTHER_SERVER: None}
_PACKET = 0x400
_LOCAL_OUT, _FORWARD = 3, 2


class Manager:
    """The manager interface of one Asterisk. ``trunks`` are the addresses at which it registers."""

    def __init__(self, schedule: Schedule, name: str, trunks: Sequence[str]) -> None:
        self.is_up = True
        """Whether it accepts connections."""
        self.read_since = 0.0
        """When the daemon logged in last (monotonic seconds)."""
        self.readings: list[tuple[float, float]] = []
        """From when until when the daemon was logged in, each time (monotonic seconds; inf: it still is)."""
        self.holds: list[tuple[float, float]] = []
        """From when until when no byte arrived, each time (monotonic seconds)."""
        self.listed: dict[str, list[float]] = {"PJSIP": [], "SIP": []}
        """By technology, each time at which the daemon was sent all contacts (monotonic seconds)."""
        self._contacts: dict[tuple[str, str], list[str]] = {}  # addresses, by technology and account
        self._name = name
        self._schedule = schedule
        self._trunks = trunks
        self._open: SimulatedTransport | None = None
        self._is_logged_in = False
        self._received = b""

    def connected(self, transport: SimulatedTransport) -> None:
        """Greet the daemon."""
        if not self.is_up:
            transport.abort()
            return
        self._end_reading()
        self._open, self._is_logged_in, self._received = transport, False, b""
        transport.deliver(BANNER)

    def received(self, transport: SimulatedTransport, data: bytes) -> None:
        """Answer each whole action."""
        self._received += data
        while b"\r\n\r\n" in self._received:
            action, self._received = self._received.split(b"\r\n\r\n", 1)
            pairs = (line.partition(":") for line in action.decode().split("\r\n"))
            self._answer(transport, {name.lower(): value.strip() for name, _, value in pairs})

    def _answer(self, transport: SimulatedTransport, asked: Mapping[str, str]) -> None:
        name = asked["action"]
        if name == "Challenge":
            transport.deliver(_reply(asked, "Challenge: 123456789"))
        elif name == "Login":
            transport.deliver(_reply(asked, "Message: Authentication accepted") + BOOTED + self._own_login())
            self._is_logged_in, self.read_since = True, self._schedule.mono
            self.readings.append((self.read_since, inf))
        else:
            if name in _LISTED:
                self.listed[_LISTED[name]].append(self._schedule.mono)
            transport.deliver(AmiServer(Script(lists=self._lists()))._reply(name, asked))

    def _own_login(self) -> bytes:
        stamp = (
            datetime.fromtimestamp(self._schedule.wall, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "+0000"
        )
        lines = [
            *("Event: SuccessfulAuth", "Privilege: security,all", f"EventTV: {stamp}"),
            *("Severity: Informational", "Service: AMI", "EventVersion: 1", "AccountID: ringfence"),
            *("SessionID: 0x7f00", "LocalAddress: IPV4/TCP/0.0.0.0/5038"),
            *("RemoteAddress: IPV4/TCP/127.0.0.1/40000", "UsingPassword: 0", "", ""),
        ]
        return "\r\n".join(lines).encode()

    def _lists(self) -> dict[str, list[bytes]]:
        registered: dict[str, list[bytes]] = {"PJSIP": [], "SIP": []}
        for (technology, account), addresses in self._contacts.items():
            form = _TREE if technology == "PJSIP" else _PEER
            for address in addresses:
                entry = form.format(account=account, host=_host(address), address=address)
                registered[technology].append(entry.encode())
        trunks = [_REGISTRATION.format(address=address).encode() for address in self._trunks]
        return {
            "DBGetTree": registered["PJSIP"],
            "SIPpeers": registered["SIP"],
            "PJSIPShowRegistrationsOutbound": trunks,
        }

    def register(self, technology: str, account: str, address: str) -> None:
        """Record a contact of an account. PJSIP keeps those of all its phones, chan_sip the last one."""
        known = self._contacts.get((technology, account), []) if technology == "PJSIP" else []
        self._contacts[technology, account] = [*(one for one in known if one != address), address]

    def arrive(self, technology: str, account: str, address: str) -> None:
        """Record a contact of an account, and report it."""
        self.register(technology, account, address)
        self._report_contact(technology, account, address, _ARRIVED[technology])

    def leave(self, technology: str, account: str, address: str) -> None:
        """Forget a contact of an account, and report that it is gone."""
        self._contacts[technology, account].remove(address)
        self._report_contact(technology, account, address, _LEFT[technology])

    def _report_contact(self, technology: str, account: str, address: str, form: str) -> None:
        event = form.format(account=account, host=_host(address), address=address)
        self.report(event.encode(), self._schedule.chosen.random() * 0.05)

    @property
    def addresses(self) -> frozenset[str]:
        """The addresses of all contacts."""
        return frozenset(address for addresses in self._contacts.values() for address in addresses)

    @property
    def has_reader(self) -> bool:
        """Whether the daemon is logged in, so that it receives the events."""
        return self._open is not None and self._open.is_open and self._is_logged_in

    def report(self, data: bytes, delay: float) -> None:
        """Send an event, which arrives after a delay (seconds), if somebody receives it."""
        if self._open is not None and self.has_reader:
            self._open.deliver(data, delay)

    def hold(self, seconds: float) -> None:
        """Let no byte arrive for some seconds."""
        if self._open is not None:
            self._open.slow_until = self._schedule.mono + seconds
            self.holds.append((self._schedule.mono, self._open.slow_until))

    def cut(self) -> None:
        """End the connection."""
        self._end_reading()
        if self._open is not None:
            self._open.abort()
            self._open = None

    def _end_reading(self) -> None:
        if self.readings and self.readings[-1][1] == inf:
            self.readings[-1] = self.readings[-1][0], self._schedule.mono


def _host(address: str) -> str:
    """Return an address as it is written in a URI."""
    return f"[{address}]" if ":" in address else address


def _reply(asked: Mapping[str, str], *lines: str) -> bytes:
    return "\r\n".join(["Response: Success", f"ActionID: {asked['actionid']}", *lines, "", ""]).encode()


_TREE = (
    "Event: DBGetTreeResponse\r\nKey: /registrar/contact/{account};@{address}\r\n"
    'Val: {{"path":"","endpoint":"{account}","uri":"sip:{account}@{host}:5060","expiration_time":""}}'
)
_PEER = (
    "Event: PeerEntry\r\nChanneltype: SIP\r\nObjectName: {account}\r\nIPaddress: {address}\r\n"
    "Dynamic: yes\r\nStatus: OK (1 ms)"
)
_REGISTRATION = (
    "Event: OutboundRegistrationDetail\r\nObjectName: carrier\r\n"
    "ServerUri: sip:{address}:5060\r\nOutboundProxy: "
)
_CONTACT_STATUS = (
    "Event: ContactStatus\r\nPrivilege: system,all\r\nURI: sip:{{account}}@{{host}}:5060\r\n"
    "ContactStatus: {status}\r\nAOR: {{account}}\r\nEndpointName: {{account}}\r\nRoundtripUsec: 0\r\n\r\n"
)
_PEER_STATUS = (
    "Event: PeerStatus\r\nPrivilege: system,all\r\nChannelType: SIP\r\nPeer: SIP/{{account}}\r\n"
    "PeerStatus: {status}\r\n\r\n"
)
_ARRIVED = {
    "PJSIP": _CONTACT_STATUS.format(status="NonQualified"),
    "SIP": _PEER_STATUS.format(status="Registered\r\nAddress: {address}:5060"),
}
_LEFT = {
    "PJSIP": _CONTACT_STATUS.format(status="Removed"),
    "SIP": _PEER_STATUS.format(status="Unregistered\r\nCause: Expired"),
}
"""By technology, the event that reports a contact that has arrived, and one that has left."""
_LISTED = {"DBGetTree": "PJSIP", "SIPpeers": "SIP"}
"""By action, the technology whose contacts it lists."""


class Log:
    """The log of one Asterisk, in a true file, and those who wait for its next line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.watching: list[Inotify] = []
        self._number = 0
        path.write_bytes(b"")

    def write(self, data: bytes) -> None:
        """Append to the file."""
        with self.path.open("ab") as file:
            file.write(data)
        self.wake()

    def rotate(self) -> None:
        """Rename the file, and begin a new one."""
        self._number += 1
        self.path.rename(self.path.with_suffix(f".{self._number}"))
        self.path.write_bytes(b"")
        self.wake()

    def wake(self) -> None:
        """Report a change."""
        for one in self.watching:
            one.wake()


class Inotify:
    """The kernel's reports of changed files: of all logs, since few reports too many do no harm."""

    def __init__(self, logs: Sequence[Log]) -> None:
        self.fd = -1
        self._logs = logs
        self._changed = asyncio.Event()
        for log in logs:
            log.watching.append(self)

    def wake(self) -> None:
        """Report a change."""
        self._changed.set()

    async def get(self) -> None:
        """Wait for a change."""
        await self._changed.wait()
        self._changed.clear()

    def add_watch(self, _path: Path, _mask: object) -> "Watch":
        """Return a watch."""
        return Watch()

    def rm_watch(self, _watch: "Watch") -> None:
        """Do nothing."""

    def close(self) -> None:
        """Report nothing more."""
        for log in self._logs:
            if self in log.watching:
                log.watching.remove(self)


class Watch:
    """A watch of :class:`Inotify`."""

    wd = 1


class PacketLog:
    """The kernel's packet log (NFLOG) as a socket. ``waiting`` are its datagrams, and numbers of errors."""

    def __init__(self) -> None:
        self.waiting: list[bytes | int] = []
        self.is_bound = False
        self._sequence = 0

    def copy(self, report: Report) -> None:
        """Copy a packet, if a program reads the log."""
        if not self.is_bound:
            return
        own = report.source == "wire"
        hook = _FORWARD if report.program == OTHER_SERVER else _LOCAL_OUT
        parts = [
            attribute(1, struct.pack(">HBB", 0x0800, hook if own else 0, 0)),
            attribute(9, report.data),
            attribute(12, struct.pack(">I", self._sequence)),
        ]
        if not own:
            parts.append(attribute(10, b"request\0"))
        elif (user := USERS.get(report.program)) is not None:
            parts.append(attribute(11, struct.pack(">I", user)))
        self._sequence += 1
        self.waiting.append(message(_PACKET, 0, 0, *parts, resource=0))

    def lose(self) -> None:
        """Lose a packet: its number is missing, and the next reading fails (ENOBUFS)."""
        self._sequence += 1
        if self.is_bound and self.waiting[:1] != [errno.ENOBUFS]:
            self.waiting.insert(0, errno.ENOBUFS)

    def overflow(self) -> None:
        """Lose all packets that wait, and say so (ENOBUFS)."""
        if self.is_bound:
            self.waiting.clear()
            self.waiting.append(errno.ENOBUFS)

    def fail(self) -> None:
        """Let the socket fail when it is read to this point."""
        if self.is_bound:
            self.waiting.append(errno.EIO)

    # -- the socket

    def waits(self) -> bool:
        """Whether a datagram waits."""
        return bool(self.waiting)

    def fileno(self) -> int:
        """Return no descriptor."""
        return -1

    def send(self, _request: bytes) -> None:
        """Bind the group; the answer is the next datagram."""
        self.waiting.clear()
        self.waiting.append(FRAME.pack(FRAME.size + 4, NLMSG_ERROR, 0, 0, 0) + struct.pack("=i", 0))
        self.is_bound, self._sequence = True, 0

    def recv(self, _size: int) -> bytes:
        """Return the next datagram."""
        data = self.waiting.pop(0)
        return data if isinstance(data, bytes) else b""

    def recv_into(self, space: memoryview) -> int:
        """Read a datagram. Raise BlockingIOError if none waits, or the OSError that comes next."""
        if not self.waiting:
            raise BlockingIOError
        data = self.waiting.pop(0)
        if isinstance(data, int):
            raise OSError(data, os.strerror(data))
        space[: len(data)] = data
        return len(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.is_bound = False
        self.waiting.clear()
