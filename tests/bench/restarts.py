"""A restart with ten thousand bans, while banned senders send packets.

The senders are at the other end of a cable, two with IPv4 and two with IPv6. Each sends hundreds of packets a
second. A receiver on the daemon's host counts the packets that arrive. Packets of a stranger, which are
counted too, show that packets can arrive.
"""

import socket
import sqlite3
import statistics
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from ipaddress import ip_network
from pathlib import Path
from typing import Self

from attrs import define, field
from tests.bench.figures import Figure, spread
from tests.bench.pace import limited
from tests.support.daemon import Guard, ami_server, until
from tests.support.fail2ban import Fail2ban
from tests.support.manybans import addresses, fill
from tests.support.netns import inside, netns, run
from tests.support.network import Network, socket_in

from ringfence.firewall import make_backend

BACKENDS = ("ipset", "nftables")
NUMBER = 10_000
ROUNDS = 6
PATIENCE = 60.0  # seconds for fail2ban
BANNED = ("198.19.77.1", "198.19.77.2", "fd00:19::77:1", "fd00:19::77:2")
STRANGERS = ("198.19.78.1", "fd00:19::78:1")
_PAUSE = 0.001
_PORT = 9_999
_RECEIVE_BUFFER = 32 * 2**20


@define
class Restarts:
    """Seconds until READY, the packets sent during the restarts, and the packets that arrived."""

    ready: list[float] = field(factory=list)
    sent: int = 0
    through: int = 0
    strangers: int = 0


class Stream:
    """Packets from banned senders and from strangers, in turn, while the context lasts."""

    def __init__(self, network: Network) -> None:
        self.sent = 0
        self._network = network
        self._stopped = threading.Event()
        self._receivers = {
            (family, kind): self._receiver(family, host, _PORT + kind)
            for family, host in ((socket.AF_INET, "198.18.0.1"), (socket.AF_INET6, "fd00:18::1"))
            for kind in (0, 1)
        }
        self._senders = [
            *(self._sender(source, _PORT) for source in BANNED),
            *(self._sender(source, _PORT + 1) for source in STRANGERS),
        ]
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> Self:
        self._sending = self._pool.submit(self._send)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._pool.shutdown()
        for one in (*self._senders, *self._receivers.values()):
            one.close()
        self._sending.result()

    def received(self, kind: int) -> int:
        """Return the number of packets since the last call: of banned senders (0) or of strangers (1)."""
        return sum(_drained(one) for (_, which), one in self._receivers.items() if which == kind)

    def _send(self) -> None:
        while not self._stopped.wait(_PAUSE):
            for sender in self._senders:
                sender.send(b"let me in")
            self.sent += len(BANNED)

    def _receiver(self, family: int, host: str, port: int) -> socket.socket:
        receiver = socket_in(self._network.pbx, family, socket.SOCK_DGRAM)
        receiver.setsockopt(socket.SOL_SOCKET, 33, _RECEIVE_BUFFER)  # SO_RCVBUFFORCE
        receiver.bind((host, port))
        receiver.setblocking(False)  # noqa: FBT003 - the signature of socket
        return receiver

    def _sender(self, source: str, port: int) -> socket.socket:
        version6 = ":" in source
        sender = socket_in(
            self._network.attacker, socket.AF_INET6 if version6 else socket.AF_INET, socket.SOCK_DGRAM
        )
        sender.bind((source, 0))
        sender.connect(("fd00:18::1" if version6 else "198.18.0.1", port))
        return sender


def _drained(receiver: socket.socket) -> int:
    number = 0
    while True:
        try:
            receiver.recv(64)
        except BlockingIOError:
            return number
        number += 1


def restarts(backend: str) -> Restarts:
    """Restart the daemon several times under the stream: by SIGTERM and by SIGKILL in turn."""
    found = Restarts()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        network = stack.enter_context(Network())
        banned = [ip_network(source) for source in BANNED]
        fill(folder / "ringfence.db", [*addresses(NUMBER - len(banned)), *banned])
        with inside(network.pbx):
            pbx = stack.enter_context(ami_server())
            guard = stack.enter_context(Guard(folder, ami={"port": pbx.port}, firewall={"backend": backend}))
            stream = stack.enter_context(Stream(network))
            for number in range(ROUNDS):
                _restart(guard, stream, found, kill=number % 2 == 1)
                _all_there(backend)
            found.sent = stream.sent
    return found


def _restart(guard: Guard, stream: Stream, found: Restarts, *, kill: bool) -> None:
    if kill:
        guard.kill()
    else:
        guard.stop()
    began = time.perf_counter()
    guard.start()
    found.ready.append(time.perf_counter() - began)
    time.sleep(0.2)
    found.through += stream.received(0)
    found.strangers += stream.received(1)


def _all_there(backend: str) -> None:
    with closing(make_backend(backend)) as kernel:
        inside_now = sum(1 for _ in kernel.list())
    if inside_now != NUMBER:
        raise RuntimeError(f"{backend}: {inside_now} of {NUMBER} bans are in the kernel")


_JAIL = """
[DEFAULT]
backend = polling

[asterisk]
enabled = true
action = iptables-ipset-proto6-allports[name=asterisk, protocol=all]
logpath = {log}
findtime = 600
bantime = 86400
usedns = no
"""
_THEIR_BAN = "INSERT INTO bips (ip, jail, timeofban, bantime, bancount, data) VALUES (?, ?, ?, ?, 1, '{}')"


def others() -> tuple[float, int]:
    """Start fail2ban with as many bans and its fastest action; return the seconds and the bans made."""
    with tempfile.TemporaryDirectory() as name, netns():
        folder = Path(name)
        (folder / "log").touch()
        guard = Fail2ban(folder, {"jail.local": _JAIL.format(log=folder / "log")})
        with guard:
            until(lambda: guard.client("status", "asterisk").returncode == 0, "fail2ban's jail")
        now = int(time.time())
        with closing(sqlite3.connect(guard.database)) as database, database:
            rows = [(str(one.network_address), "asterisk", now, 86_400) for one in addresses(NUMBER)]
            database.executemany(_THEIR_BAN, rows)
        began = time.perf_counter()
        with guard:
            while (made := _in_sets()) < NUMBER and time.perf_counter() - began < PATIENCE:
                time.sleep(0.2)
            return time.perf_counter() - began, made


def _in_sets() -> int:
    listed = run("ipset", "list", "-terse")
    return sum(int(line.split(":")[1]) for line in listed.split("\n") if line.startswith("Number of entries"))


def figures(root: Path | None) -> list[Figure]:
    """Measure, and return the rows."""
    found = {backend: restarts(backend) for backend in BACKENDS}
    compared = ""
    if root is not None:
        seconds, made = others()
        compared = f"fail2ban: {seconds:.0f} s" + (f", and {made} by then" if made < NUMBER else "")
    rows = []
    for backend, one in found.items():
        limit = limited(statistics.median(one.ready), 2, "no ban ends meanwhile; starts differ by a fifth")
        rows.append(
            Figure(
                what=f"restart with {NUMBER} bans until READY, seconds: {backend}",
                measured=spread(one.ready),
                must=f"median {limit.must}",
                reached=limit.reached,
                compared=compared,
            )
        )
        rows.append(
            Figure(
                what=f"packets of banned senders that came through meanwhile: {backend}",
                measured=f"{one.through} of {one.sent} (of strangers: {one.strangers})",
                must="0 (of strangers some)",
                reached=one.through == 0 and one.strangers > 0,
            )
        )
    return rows
