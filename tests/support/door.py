"""A check that banned addresses are really blocked: packets over a cable, once or continuously.

    with Network() as network, Door(network) as door:
        assert door.passing("198.18.1.9", "fd00:18::b9") == {"198.18.1.9", "fd00:18::b9"}
        with door.knocking("198.18.1.9") as knocks:
            ...                       # anything that must not end a ban
        assert knocks.arrived == []

UDP packets go to port 5060 of the PBX's side, where a socket of the test listens. Packets of one cable
arrive in order, or almost in order if the kernel has moved the sender to another processor. So if a packet
has not arrived some milliseconds after a later one from an address of ``NEVER_BANNED``, the firewall
dropped it.
"""

import itertools
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from types import TracebackType
from typing import Self

from attrs import define, field, frozen
from tests.support.network import PBX_IPV4, PBX_IPV6, Network, socket_in

PORT = 5060
NEVER_BANNED = {4: "198.18.1.250", 6: "fd00:18::ff"}
"""Addresses that no test bans: their packets show when all earlier packets must have arrived."""
BETWEEN = 0.002
"""Seconds between two rounds of knocking."""
_PATIENCE = 5.0
_AGAIN = 0.05
_NEXT_TO = 0.03
_TRIES = 3


@frozen
class Round:
    """One packet of each address, sent at ``time`` (monotonic), and the addresses whose packet arrived."""

    time: float
    arrived: frozenset[str]


@define
class Knocks:
    """The result of knocking: ``rounds`` packets of each address were sent, and ``arrived`` came through."""

    rounds: int = 0
    arrived: list[str] = field(factory=list)
    passed: list[Round] = field(factory=list)
    going: bool = True


class Door:
    """The PBX's port, and senders of any address of the attacker's side."""

    def __init__(self, network: Network, port: int = PORT) -> None:
        self._network = network
        self._port = port
        self._doors: dict[int, socket.socket] = {}
        self._senders: dict[str, socket.socket] = {}
        self._numbers = itertools.count(1)
        self._turn = threading.Lock()
        self._late: list[str] = []

    def __enter__(self) -> Self:
        for version, here in ((4, PBX_IPV4), (6, PBX_IPV6)):
            door = socket_in(self._network.pbx, _family(version), socket.SOCK_DGRAM)
            door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            door.bind((here, self._port))
            self._doors[version] = door
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for end in (*self._doors.values(), *self._senders.values()):
            end.close()

    def passing(self, *addresses: str) -> set[str]:
        """Send a packet from each address, and return the addresses whose packet arrived.

        A packet that does not arrive is sent again: only a ban drops every packet.
        """
        arrived: set[str] = set()
        for _ in range(_TRIES):
            arrived |= self._rounds([address for address in addresses if address not in arrived], _NEXT_TO)
        return arrived

    @contextmanager
    def knocking(self, *addresses: str, between: float = BETWEEN) -> Iterator[Knocks]:
        """Send from each address every ``between`` seconds while the block runs, in a thread."""
        knocks, stopped = Knocks(), threading.Event()

        def knock() -> None:
            try:
                while not stopped.wait(between):
                    began = time.monotonic()
                    arrived = self._rounds(addresses, 0.0)
                    knocks.arrived += sorted(arrived)
                    knocks.passed.append(Round(began, frozenset(arrived)))
                    knocks.rounds += 1
                late = [address for address in self._late if address in addresses]
                knocks.arrived += late  # packets that arrived after their own round
            finally:
                knocks.going = False

        self._late.clear()
        thread = threading.Thread(target=knock, name="knocking")
        thread.start()
        try:
            yield knocks
        finally:
            stopped.set()
            thread.join()

    def _rounds(self, addresses: Sequence[str], patience: float) -> set[str]:
        arrived = set()
        for version in (4, 6):
            wanted = {address for address in addresses if ip_address(address).version == version}
            if wanted:
                with self._turn:
                    arrived |= self._round(version, wanted, patience)
        return arrived

    def _round(self, version: int, addresses: set[str], patience: float) -> set[str]:
        number = next(self._numbers)
        door = self._doors[version]
        for address in addresses:
            self._send(version, address, number)
        arrived: set[str] = set()
        deadline = time.monotonic() + _PATIENCE
        while NEVER_BANNED[version] not in arrived:
            assert time.monotonic() < deadline, f"no packet arrives by IPv{version}, from any sender"
            self._send(version, NEVER_BANNED[version], number)
            door.settimeout(_AGAIN)
            with suppress(TimeoutError):
                arrived |= self._received(door, number)
        door.settimeout(patience)
        with suppress(BlockingIOError, TimeoutError):
            while not addresses <= arrived:
                arrived |= self._received(door, number)
        return arrived & addresses

    def _received(self, door: socket.socket, number: int) -> set[str]:
        data, (sender, *_) = door.recvfrom(100)
        if data == _packet(number):
            return {str(sender)}
        if sender not in NEVER_BANNED.values():
            self._late.append(str(sender))
        return set()

    def _send(self, version: int, address: str, number: int) -> None:
        sender = self._senders.get(address)
        if sender is None:
            sender = socket_in(self._network.attacker, _family(version), socket.SOCK_DGRAM)
            sender.bind((address, 0))
            self._senders[address] = sender
        sender.sendto(_packet(number), ((PBX_IPV4 if version == 4 else PBX_IPV6), self._port))


def _packet(number: int) -> bytes:
    """Return a SIP answer: it cannot carry a guess, so it has no ration of questions."""
    return b"SIP/2.0 %d" % number


def _family(version: int) -> socket.AddressFamily:
    return socket.AF_INET if version == 4 else socket.AF_INET6
