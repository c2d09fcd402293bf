"""Very many hosts on one real CrowdSec: who gets every ban, how late, and what it costs both sides."""

import os
import re
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import IPv4Address, ip_network
from math import inf
from pathlib import Path
from typing import Any, Self

from attrs import frozen
from tests.bench.figures import Figure
from tests.bench.pace import limited
from tests.support.crowdsec import KEY_OF, PASSWORD_OF, PORT, CrowdSec, crowdsec
from tests.support.daemon import Guard, until
from tests.support.fleet import denied
from tests.support.fleet_nodes import INTERVAL, Process, name_of, nodes
from tests.support.netns import inside, neighbour, netns
from tests.support.postgresql import POSTGRESQL, SQLITE, PostgreSQL, databases, running, why_no_postgresql
from tests.support.process import cpu_seconds

from ringfence.clock import Clock
from ringfence.features.fleet.api import Api
from ringfence.features.fleet.settings import Access
from ringfence.features.fleet.sync import OwnBan, Pull, Push, Request
from ringfence.values.secret import Secret

NODES, PROCESSES = 200, 4
RATE, SECONDS = 20.0, 60.0
"""The bans a second of all hosts together, and for how long."""
MOST_SHARE = 0.01
"""The most CPU that ringfence may take on a host."""
AWAY, AWAY_RATE = 20.0, 4.0
"""Seconds for which the API is killed, and the bans a second meanwhile."""
EQUAL_WITHIN = 60.0
POLLS, WHOLE, PUSHES = 500, 30, 200
"""The number of requests by which the costs of CrowdSec are measured."""
_PATIENCE = 180.0
_SECRET = "a-secret-of-the-bench-" * 4
"""With it, tokens outlive a restart of the API. Otherwise all hosts log in again at once."""
_WHOLE = "pbx-whole"
_ASKER = "pbx-asker"
_ASKED = int(IPv4Address("198.19.0.0"))


@frozen
class Region:
    """CrowdSec's local API with its database; None for SQLite, which is a part of CrowdSec's process."""

    api: CrowdSec
    database: PostgreSQL | None

    @property
    def name(self) -> str:
        """The name of the region in the rows."""
        return f"CrowdSec 1.4.6 with {SQLITE if self.database is None else POSTGRESQL}"

    @property
    def programs(self) -> str:
        """The programs whose CPU time :meth:`used` returns."""
        return self.name if self.database is None else f"{self.name}, and of PostgreSQL itself"

    def used(self) -> list[float]:
        """Return the CPU time that each program has used (seconds)."""
        rest = [] if self.database is None else [self.database.cpu_seconds]
        return [cpu_seconds(self.api.pid), *rest]


def figures(_: Path | None) -> Iterator[Figure]:
    """Measure each."""
    for database in databases():
        yield from _figures(database)
    if reason := why_no_postgresql():
        yield Figure(f"CrowdSec with {POSTGRESQL}", f"not measured: {reason}", "measured", reached=False)


def _figures(database: str) -> Iterator[Figure]:
    """Measure a CrowdSec with this database."""
    with tempfile.TemporaryDirectory() as name, netns(), ExitStack() as stack:
        folder = Path(name)
        (folder / "whole").mkdir()
        rows = stack.enter_context(running(database, folder / "rows"))
        api = stack.enter_context(crowdsec(folder / "crowdsec", _SECRET, rows))
        region = Region(api, rows)
        api.register(name_of(0))
        api.register_like(name_of(0), [name_of(number) for number in range(1, NODES)])
        api.register(_ASKER)
        table = api.node(_WHOLE, folder / "whole", interval=f"{INTERVAL:.0f}s")
        # The daemon has a namespace of its own. The kernel reports to it each connection that closes in
        # its namespace, and the simulated hosts close twenty a second.
        with (
            neighbour() as host,
            _relay(host),
            _guard_at(host, folder / "whole", table) as whole,
            nodes(folder, api.url, NODES, PROCESSES) as processes,
        ):
            until(lambda: whole.ask("fleet")["pull"]["last"], "the daemon pulls")
            until(lambda: _sum(processes, "pulled") == NODES, "all hosts pull", _PATIENCE, 0.5)
            yield from busy(region, whole, host, processes)
            yield away(region, processes)
        yield from costs(region)


@contextmanager
def _guard_at(host: str, folder: Path, crowdsec: dict[str, Any]) -> Iterator[Guard]:
    """Run a daemon in the namespace ``host``."""
    with ExitStack() as stack:
        with inside(host):
            guard = Guard(folder, firewall={"backend": "nftables"}, crowdsec=crowdsec)
            stack.enter_context(guard)
        yield guard


@contextmanager
def _relay(host: str) -> Iterator[None]:
    """Make CrowdSec reachable in the namespace ``host``, on its own loopback interface."""
    with inside(host):
        listener = socket.create_server(("127.0.0.1", PORT))
    thread = threading.Thread(target=_accept, args=(listener,))
    with listener:
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _accept(listener: socket.socket) -> None:
    """Connect each client with CrowdSec until the listener is shut down."""
    with suppress(OSError):
        while True:
            near, _ = listener.accept()
            try:
                far = socket.create_connection(("127.0.0.1", PORT))
            except OSError:  # the API is away
                near.close()
                continue
            for ends in ((near, far), (far, near)):
                threading.Thread(target=_pump, args=ends, daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Copy what arrives until one end closes."""
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@frozen
class Found:
    """The records of all hosts, and when each ban began (monotonic seconds)."""

    nodes: list[dict[str, Any]]
    began: dict[str, float]

    @classmethod
    def of(cls, processes: Sequence[Process]) -> Self:
        """Ask all processes."""
        rows = [row for process in processes for row in process.ask("report")]
        return cls(rows, {address: at for row in rows for address, at in row["began"].items()})

    @property
    def complete(self) -> int:
        """How many hosts have every ban, and nothing else."""
        return sum(row["first"].keys() | row["began"].keys() == self.began.keys() for row in self.nodes)

    def total(self, what: str) -> int:
        """Return a sum over all hosts."""
        return sum(row[what] for row in self.nodes)

    def lags(self, since: float = 0.0) -> list[float]:
        """Return how long each ban after a moment took to each other host (seconds)."""
        return [
            at - self.began[address]
            for row in self.nodes
            for address, at in row["first"].items()
            if self.began[address] >= since
        ]


def busy(region: Region, whole: Guard, host: str, processes: Sequence[Process]) -> Iterator[Figure]:
    """Ban at all hosts, wait until every ban is everywhere, and measure. ``whole`` runs at ``host``."""
    pids = {"hosts": [one.pid for one in processes], "whole": [whole.pid]}
    before, began = {name: _cpu(of) for name, of in pids.items()}, time.monotonic()
    api_before = region.used()
    _ban(processes, SECONDS, RATE)
    time.sleep(SECONDS + INTERVAL)
    took = time.monotonic() - began
    load = f"load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"
    used = {name: (_cpu(of) - before[name]) / took for name, of in pids.items()}
    apis = [(now - then) / took for now, then in zip(region.used(), api_before, strict=True)]
    bans = round(SECONDS * RATE)
    _arrived(processes, bans, _PATIENCE)
    found, what = Found.of(processes), f"{NODES} hosts on one {region.name}, {RATE:.0f} bans a second in all"
    with inside(host):
        in_kernel = len({*re.findall(r"[0-9.]+", denied())} & found.began.keys())
    cuts = statistics.quantiles(found.lags(), n=100)
    lag = f"{cuts[49]:.1f} / {cuts[98]:.1f} / {max(found.lags()):.1f}"
    complete, again, ended = found.complete, found.total("again"), found.total("ended")
    share = used["hosts"] / NODES
    yield Figure(
        f"{what}, {SECONDS:.0f} s: hosts with every ban", str(complete), str(NODES), complete == NODES
    )
    yield Figure(f"{what}: bans in the kernel of one more host", str(in_kernel), str(bans), in_kernel == bans)
    yield Figure(f"{what}: bans applied twice", str(again), "0", again == 0)
    yield Figure(f"{what}: bans ended by mistake", str(ended), "0", ended == 0)
    yield Figure(f"{what}, interval {INTERVAL:.0f} s: from a ban to another host, p50 / p99 / max, s", lag)
    yield Figure(
        f"{what}: CPU of ringfence's fleet part on a host ({load})",
        f"{share:.2%}", f"≤ {MOST_SHARE:.0%}", share <= MOST_SHARE,
    )  # fmt: skip
    yield Figure(
        f"{what}: CPU of a whole daemon with a firewall in the kernel, % of a core ({load})",
        f"{100 * used['whole']:.2f}", *limited(100 * used["whole"], 100 * MOST_SHARE),
    )  # fmt: skip
    yield Figure(
        f"{what}: CPU of {region.programs}, of one processor ({load})",
        " and ".join(f"{one:.0%}" for one in apis),
    )


def away(region: Region, processes: Sequence[Process]) -> Figure:
    """Kill the API, ban meanwhile, start it again, and measure until all hosts are equal."""
    bans = round(SECONDS * RATE + AWAY * AWAY_RATE)
    region.api.kill()
    began = time.monotonic()
    _ban(processes, AWAY, AWAY_RATE)
    time.sleep(AWAY)
    region.api.start()
    start = time.monotonic()
    _arrived(processes, bans, 2 * EQUAL_WITHIN)
    found = Found.of(processes)
    late = [
        at - start for row in found.nodes for one, at in row["first"].items() if found.began[one] >= began
    ]
    last, lags = max(late, default=inf), sorted(found.lags(began)) or [inf]
    return Figure(
        f"{region.name} killed for {AWAY:.0f} s with {NODES} hosts, {AWAY * AWAY_RATE:.0f} bans meanwhile "
        f"(load of the machine {os.getloadavg()[0]:.1f}): until all hosts are equal, s",
        f"{last:.0f} ({found.complete} hosts with every ban; from a ban to another host median "
        f"{lags[len(lags) // 2]:.0f}, applied twice {found.total('again')}, ended {found.total('ended')})",
        f"≤ {EQUAL_WITHIN:.0f}, all",
        last <= EQUAL_WITHIN and found.complete == NODES and not found.total("ended"),
    )


def _sum(processes: Sequence[Process], what: str) -> int:
    return sum(process.ask("count")[what] for process in processes)


def _cpu(pids: Sequence[int]) -> float:
    return sum(map(cpu_seconds, pids))


def _ban(processes: Sequence[Process], seconds: float, rate: float) -> None:
    """Make the hosts ban so many addresses a second, all together."""
    for process in processes:
        process.ask("ban", seconds, rate / len(processes))


def _arrived(processes: Sequence[Process], bans: int, seconds: float) -> None:
    """Wait until so many bans are at each host but their own one, or so long."""
    deadline = time.monotonic() + seconds
    while _sum(processes, "applied") < bans * (NODES - 1) and time.monotonic() < deadline:
        time.sleep(0.5)


def costs(region: Region) -> Iterator[Figure]:
    """Send requests one after the other, and measure the CPU time that the region takes for each."""
    password, key = Secret(PASSWORD_OF.format(_ASKER)), Secret(KEY_OF.format(_ASKER))
    client = Api(Access(region.api.url, _ASKER, lambda: password, lambda: key), Clock())
    page = client.send(Pull(full=True), 0.0)
    number = 0 if page is None else len(page.new)
    bans = (OwnBan(ip_network((_ASKED + 2 * n, 32)), "guess", 3_600.0) for n in range(PUSHES))
    kinds: dict[str, list[Request]] = {
        "a request for what has changed, if nothing has": [Pull(full=False)] * POLLS,
        f"a request for all {number} decisions": [Pull(full=True)] * WHOLE,
        "one ban": [Push((ban,)) for ban in bans],
    }
    for what, requests in kinds.items():
        before = region.used()
        for request in requests:
            client.send(request, 0.0)
        each = [(now - then) / len(requests) for now, then in zip(region.used(), before, strict=True)]
        yield Figure(
            f"CPU of {region.programs}, for {what} ({len(requests)} requests), ms",
            " and ".join(f"{1_000 * one:.1f}" for one in each),
        )
