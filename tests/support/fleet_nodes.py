"""Many hosts of a fleet in one process: ``python -m tests.support.fleet_nodes FOLDER URL FIRST END``.

Each has ringfence's real task and HTTP client, a store, and a machine and a key of its own, as
``CrowdSec.register_like`` makes them; all have the password of the first one. Instead of a kernel, each keeps
a record of what is applied. The process reads commands from its input, one a line, and answers each with a
line of JSON.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Self

import structlog
from attrs import Factory, asdict, define, field
from tests.support.attempts import attempts, ban_of
from tests.support.crowdsec import KEY_OF, PASSWORD_OF

from ringfence.alarms import Alarms
from ringfence.ban_facts import Placed
from ringfence.clock import Clock
from ringfence.features.fleet.denied import Decisions
from ringfence.features.fleet.guard import Fleet
from ringfence.features.fleet.settings import Access, Sharing
from ringfence.features.fleet.shared import SharedBans
from ringfence.ledger import Ledger
from ringfence.store.database import Store
from ringfence.values.network import unpack
from ringfence.values.secret import Secret

INTERVAL, MOST = 10.0, 262_144  # seconds; decisions
STARTS = 60.0
"""Seconds in which the hosts start: a login takes a tenth of a second of CrowdSec's CPU."""
LASTS = 6 * 3_600.0
"""Seconds until a ban ends. None ends during a measurement, so each end is a mistake."""
_FIRST = int(IPv4Address("198.18.0.0"))
_PER_NODE = 100  # addresses; every second one is banned, so that no list merges two


@define
class Node:
    """A host: its task, when it banned each address, and when each one of others was first applied.

    Times are in monotonic seconds. ``again`` counts the addresses that were applied twice, and ``ended``
    those that ended too early.
    """

    name: str
    fleet: Fleet = field(init=False)
    began: dict[str, float] = Factory(dict)
    first: dict[str, float] = Factory(dict)
    present: set[str] = Factory(set)
    again: int = 0
    ended: int = 0

    async def apply(self, decisions: Decisions) -> None:
        """Replace the decisions in force; count those that came again, and those that ended."""
        now, packed = time.monotonic(), [int.from_bytes(one, "big") for one, _ in decisions]
        listed = [str(unpack(one).network_address) for one in packed]
        wanted = {*listed}
        self.again += len(listed) - len(wanted) + len((wanted - self.present) & self.first.keys())
        self.ended += len(self.present - wanted)
        for address in wanted - self.first.keys():
            self.first[address] = now
        self.present = wanted


@define
class Nodes:
    """The hosts of this process, and the number of the first one. ``bans`` counts their bans."""

    nodes: list[Node]
    _first: int
    bans: int = 0

    async def ban(self, seconds: float, rate: float) -> None:
        """Ban ``rate`` addresses a second in all, each at the next host."""
        start = time.monotonic()
        for number in range(round(seconds * rate)):
            await asyncio.sleep(max(0.0, start + number / rate - time.monotonic()))
            rounds, turn = divmod(self.bans, len(self.nodes))
            self.bans += 1
            address, node = (
                str(IPv4Address(_FIRST + (self._first + turn) * _PER_NODE + 2 * rounds)),
                self.nodes[turn],
            )
            node.began[address] = time.monotonic()
            node.fleet.on_fact(
                Placed([ban_of(address, time.time(), LASTS, made=attempts(5, address))], announced=True)
            )

    def count(self) -> dict[str, int]:
        """Return how many hosts have had an answer, and how many decisions are applied in all."""
        pulled = sum(node.fleet.report()["pull"]["last"] is not None for node in self.nodes)
        return {"pulled": pulled, "applied": sum(len(node.first) for node in self.nodes)}

    def report(self) -> list[dict[str, Any]]:
        """Return everything that is known about each host."""
        return [
            asdict(one, filter=lambda field, _: field.name not in {"fleet", "present"}) for one in self.nodes
        ]


async def _play(folder: Path, url: str, first: int, end: int) -> None:
    """Run these hosts, and carry out commands until the input ends."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    with ExitStack() as stack:
        nodes = []
        for name in map(name_of, range(first, end)):
            store = stack.enter_context(Store.open(folder / f"{name}.db", owner=True))
            access = Access(
                url, name, partial(_secret, PASSWORD_OF, name_of(0)), partial(_secret, KEY_OF, name)
            )
            node = Node(name)
            clock = Clock()
            sharing, shared = Sharing(access, INTERVAL), SharedBans(store.connection, store.best_effort)
            node.fleet = Fleet(sharing, shared, Ledger(), clock, Alarms(clock), node.apply, MOST)
            nodes.append(node)
        here = Nodes(nodes, first)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_run(here))]
            while line := await asyncio.to_thread(sys.stdin.readline):
                command, *numbers = line.split()
                if command == "ban":
                    tasks.append(group.create_task(here.ban(*map(float, numbers))))
                answer = here.report() if command == "report" else here.count()
                print(json.dumps(answer), flush=True)
            for task in tasks:
                task.cancel()


async def _run(here: Nodes) -> None:
    """Run the tasks of all hosts, which start one after the other."""
    async with asyncio.TaskGroup() as group:
        for node in here.nodes:
            group.create_task(node.fleet.run())
            await asyncio.sleep(STARTS / len(here.nodes))


def _secret(form: str, name: str) -> Secret:
    return Secret(form.format(name))


def name_of(number: int) -> str:
    """Return the name of a host."""
    return f"pbx-{number:03}"


class Process:
    """A process with hosts, as its parent sees it."""

    def __init__(self, folder: Path, url: str, first: int, end: int) -> None:
        line = [sys.executable, "-m", "tests.support.fleet_nodes", str(folder), url, str(first), str(end)]
        with (folder / f"nodes-{first}.log").open("ab") as log:
            self._process = subprocess.Popen(
                line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ask(self, *command: object) -> Any:  # noqa: ANN401 - whatever JSON holds
        """Send a command, and return the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(" ".join(map(str, command)) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def nodes(folder: Path, url: str, number: int, processes: int) -> Iterator[list[Process]]:
    """Run so many hosts in so many processes until the block ends."""
    size = number // processes
    with ExitStack() as stack:
        yield [
            stack.enter_context(Process(folder, url, first, first + size))
            for first in range(0, size * processes, size)
        ]


if __name__ == "__main__":
    asyncio.run(_play(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
