"""One process of the real daemon, on a simulated host.

Everything between the sources' readers and the database is the daemon's own code. The host is simulated: its
clocks, the manager interfaces, the packet log, the firewall, the threads, and the errors of the disk. What
the daemon reads of the host besides (its addresses, its routes, the ports of Asterisk) is fixed.
"""

import asyncio
import errno
import random
import shutil
import sqlite3
import struct
import time
from asyncio import events
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from ipaddress import ip_network
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from panoramisk.actions import Action
from tests.judge.asterisk import HERE, HERE_BY_IPV6, HERE_TOO
from tests.simulate.asterisk import SECRET, Inotify, Log, Manager, PacketLog
from tests.simulate.kernel import Kernel, KernelBackend
from tests.simulate.loop import Schedule, SimulatedLoop, ThreadWork
from tests.support.daemon import toml

from ringfence import control_server, street
from ringfence.bans import enforcer
from ringfence.clock import Clock
from ringfence.config.loader import parse
from ringfence.config.schema import Settings
from ringfence.control_server import PEER, Encoded, Handler, Peer
from ringfence.detect.detector import Detector
from ringfence.detect.judgement import Disposition, Judgement
from ringfence.errors import ControlError, RingfenceError
from ringfence.features.trial import guard as trial
from ringfence.firewall.ports import Ports
from ringfence.firewall.probe import Verification
from ringfence.guard import daemon as daemon_module
from ringfence.guard import exemptions, firewall_manager, firewall_side, source_manager
from ringfence.guard.daemon import build_daemon
from ringfence.guard.firewall_manager import SipSockets
from ringfence.guard.firewall_side import ChosenBackend, build_firewall_side
from ringfence.guard.pipeline import EffectHandler, known_sources
from ringfence.guard.process import LOG
from ringfence.host import protected
from ringfence.sources import ami, log_file, nflog, state
from ringfence.store.database import Store
from ringfence.store.file import Connection
from ringfence.store.rows import Execute
from ringfence.store.writer import Writer
from ringfence.threads import Threads
from ringfence.values.event import Endpoint
from ringfence.values.network import Address

if TYPE_CHECKING:
    from tests.simulate.feature import Feature, Replaced

PORTS = {"pbx": 5038, "second": 5039}
"""The port of each Asterisk's manager interface."""

_MODULES = street.modules
_TRANSACTION = Connection.transaction
_OWN = frozenset(map(ip_network, (HERE, HERE_TOO, HERE_BY_IPV6)))
_NOT_COUNTED = (Disposition.COUNTED_BEFORE, Disposition.FORGED, Disposition.UNCONFIRMED)


class Disk:
    """The disk. ``error`` is the error of each transaction (``ENOSPC``, ``EIO``); 0 without."""

    def __init__(self, schedule: Schedule) -> None:
        self.error = 0
        self._schedule = schedule

    @contextmanager
    def transaction(self, connection: Connection) -> Iterator[Execute]:
        """Write as the database does; fail at the end of the transaction if the disk has an error."""
        with _TRANSACTION(connection) as execute:
            yield execute
            if self.error:
                raise sqlite3.OperationalError(
                    "database or disk is full" if self.error == errno.ENOSPC else "disk I/O error"
                )


class Connections:
    """The TCP connections to this host: an address that used one keeps it forever."""

    error = ""
    elsewhere = False

    def __init__(self) -> None:
        self.remotes: dict[tuple[Address, int], None] = {}

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """Follow nothing."""
        yield

    def refresh(self, remote: Endpoint | None = None, length: int = 0) -> None:
        """Do nothing: the table is always fresh."""

    def retry(self) -> None:
        """Do nothing: there is no error."""

    def has(self, remote: Endpoint, now: float) -> bool:
        """Whether this address and port used TCP."""
        return (remote.address, remote.port) in self.remotes

    def backs(self, remote: Endpoint, length: int, now: float) -> bool:
        """Whether this address and port used TCP."""
        return self.has(remote, now)

    def had_any(self, address: Address, now: float) -> bool:
        """Whether this address used TCP."""
        return any(address == known for known, _ in self.remotes)

    def knows(self, now: float) -> bool:
        """Return True: the table is whole."""
        return True


class Host:
    """The simulated host: what outlives a process of the daemon.

    If a story has ``features``, the daemon has those too that a new installation has. ``more`` are further
    tables of its configuration.
    """

    def __init__(self, seed: int, folder: Path, trunks: Sequence[str], wall: float) -> None:
        self.seed = seed
        self.folder = folder
        self.features: Sequence[Feature] = ()
        self.more: dict[str, object] = {}
        self.schedule = Schedule(random.Random(str(seed)), wall)  # noqa: S311 - a world, no secret
        self.kernel = Kernel(self.schedule)
        self.threads = ThreadWork(self.schedule)
        self.disk = Disk(self.schedule)
        self.packets = PacketLog()
        self.connections = Connections()
        self.logs = {name: Log(folder / f"{name}.log") for name in PORTS}
        self.managers = {
            name: Manager(self.schedule, name, trunks if name == "pbx" else ()) for name in PORTS
        }
        self.handlers: Mapping[str, Handler] = {}
        self.serves = asyncio.Event()
        """Set while the daemon answers requests."""
        self.boots = 1

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Replace what the daemon reads of the true host, while the block runs."""
        schedule, numbers = self.schedule, count()
        mono, wall = lambda: schedule.mono, lambda: schedule.wall
        chance = SimpleNamespace(Random=lambda: random.Random(schedule.chosen.random()))  # noqa: S311 - jitter
        sockets = SipSockets(Ports((5060,), (5038, 5060)), frozenset())

        @asynccontextmanager
        async def serve(_path: Path, handlers: Mapping[str, Handler]) -> AsyncIterator[None]:
            self.handlers = handlers
            self.serves.set()
            yield

        def submit(pool: Threads, work: Callable[..., Any], *given: Any, **named: Any) -> Future[Any]:  # noqa: ANN401
            return self.threads.submit(pool, partial(work, *given, **named))

        def transaction(connection: Connection) -> AbstractContextManager[Execute]:
            return self.disk.transaction(connection)

        replaced: list[Replaced] = [
            *((time, "time", wall), (time, "monotonic", mono), (time, "thread_time", lambda: 0.0)),
            *((Clock, "wall", staticmethod(wall)), (Clock, "mono", staticmethod(mono))),
            (Clock, "boot", staticmethod(lambda: f"boot {self.boots}")),
            *((Threads, "submit", submit), (Threads, "start", _nothing)),
            (Connection, "transaction", transaction),
            (state, "random", chance),
            # All have one length: the replies repeat them, and come in pieces of random sizes.
            (Action, "action_id_generator", staticmethod(lambda: f"{next(numbers):050}")),
            (trial, "start_trial_end", _nothing),
            *(() if self.features else ((street, "modules", _modules),)),
            *((nflog, "open_listener", lambda *_: self.packets), (control_server, "serve", serve)),
            (log_file, "Inotify", lambda: Inotify([*self.logs.values()])),
            *((protected, "read_addresses", lambda: _OWN), (protected, "read_protected", dict)),
            *((exemptions, "follow_addresses", _never), (exemptions, "follow_protected", dict)),
            (source_manager, "follow_containers", _never),
            (ami, "peer_user", _nothing),
            (source_manager, "find_answer_users", lambda *_: frozenset({100})),
            (firewall_manager, "find_sip_sockets", lambda *_: sockets),
            (firewall_manager, "flush_other_backends", lambda _: ()),
            (enforcer, "verify", lambda *_: Verification(())),
            (firewall_side, "missing_interfaces", lambda _: []),
            (daemon_module, "release_freed_memory", _nothing),
            (LOG, "write", len),
            *(row for feature in self.features for row in feature.replaced()),
        ]
        with ExitStack() as stack:
            for owner, name, new in replaced:
                stack.enter_context(patch.object(owner, name, new))
            yield


def _modules(kind: str) -> Iterator[Any]:
    """Yield the modules of features, but those of none in the daemon."""
    return iter(()) if kind == "guard" else _MODULES(kind)


def _nothing(*_: object) -> None:
    """Do nothing."""


async def _never() -> AsyncIterator[Any]:
    """Yield nothing: nothing changes."""
    await asyncio.Event().wait()
    yield


class Counted:
    """The numbers of attempts that one process counted, and called forged, by address."""

    def __init__(self) -> None:
        self.counted, self.forged = Counter[str](), Counter[str]()

    def on_judgement(self, judgement: Judgement) -> None:
        """Count a judgement."""
        address = str(judgement.attempt.address)
        self.forged[address] += judgement.disposition is Disposition.FORGED
        self.counted[address] += judgement.disposition not in _NOT_COUNTED


class Process:
    """A process of the daemon, from its start on. ``number`` is the one of its database.

    Raise RingfenceError if it cannot start.
    """

    def __init__(self, host: Host, number: int, claims: int) -> None:
        self.host = host
        self.is_alive = True
        self.began = host.schedule.mono
        """When it was started (monotonic seconds)."""
        self._asking = set[asyncio.Task[None]]()
        self.broken: list[str] = []
        """Requests whose handler failed by an error that no client should see."""
        self.counts = Counted()
        self.database = host.folder / f"database-{number}" / "ringfence.db"
        self.database.parent.mkdir(exist_ok=True)
        self.loop = SimulatedLoop(host.schedule, {PORTS[name]: one for name, one in host.managers.items()})
        self._claims = claims
        settings = parse(self.configure(), "simulated", {})
        writer = Writer()
        self.store = Store.open_or_memory(self.database, writer, runtime=self.database.parent)
        try:
            self._begin(host, settings)
        except BaseException:
            self.end()
            raise

    def _begin(self, host: Host, settings: Settings) -> None:
        backend = KernelBackend(host.kernel, settings.plan(None), host.schedule, lambda: self.is_alive)
        self.store.switch.settle()
        connections: Any = host.connections
        detector = Detector(
            settings.rule_table(),
            connections=connections,
            claimed=settings.claims(),
            sources=known_sources(settings),
        )
        chosen = ChosenBackend(backend, "simulated")
        self.side = build_firewall_side(settings, self.store, detector, chosen, Clock())
        options = {name: value for one in host.features for name, value in one.options().items()}
        with _listening(self.counts):
            self.daemon = build_daemon(self.configuration, settings, self.side, connections, options)
        for feature in self.daemon.features.all:
            feature.begin()
        self.side.start()
        self.serving = self.loop.create_task(self.daemon.serve())

    @property
    def configuration(self) -> Path:
        """The file of the configuration."""
        return self.host.folder / "ringfence.toml"

    def configure(self) -> dict[str, object]:
        """Write the configuration, and return it."""
        tree = _tree(self.host, self.database, self._claims)
        self.configuration.write_text(toml(tree), "utf-8")
        return tree

    def finish(self) -> None:
        """Do what the daemon does after its last job: the features end, then the last writes."""
        for feature in reversed(self.daemon.features.all):
            feature.end()
        self.host.schedule.run_until(self.host.schedule.mono + 0.2)
        self.store.best_effort.write_kept()

    @property
    def is_over(self) -> bool:
        """Whether the process has ended."""
        return self.serving.done()

    def run_until(self, until: float) -> None:
        """Let the time pass until then (monotonic seconds), or until the process ends."""
        schedule = self.host.schedule
        while schedule.mono < until and not self.is_over:
            self.loop.turn(until)

    def ask(self, do: str, then: Callable[[Any], object], **fields: object) -> None:
        """Send a request of root to the control socket. If it succeeds, ``then`` gets the answer later.

        An :class:`Unrecorded` answer is passed on as it is.
        """

        async def ask() -> None:
            try:
                then(await self._answer(do, fields))
            except RingfenceError:
                pass  # an answer that the story does not look at
            except Exception as error:  # noqa: BLE001 - the control socket would log it as a defect
                self.broken.append(f"{do}: {error!r}")

        self._asking.add(self.loop.create_task(ask()))

    @property
    def unanswered(self) -> int:
        """The number of requests that wait for an answer."""
        return sum(not one.done() for one in self._asking)

    async def _answer(self, do: str, fields: Mapping[str, object]) -> object:
        PEER.set(Peer(0, 1))
        await self.host.serves.wait()
        answer: Any = self.host.handlers[do](fields)
        result = await answer
        return b"".join(result.parts) if isinstance(result, Encoded) else result

    def request(self, do: str, **fields: object) -> Any:  # noqa: ANN401 - JSON
        """Send a request as :meth:`ask` does, and return the answer. Raise its error."""
        task = self.loop.create_task(self._answer(do, fields))
        while not task.done() and not self.is_over:
            self.loop.turn(self.host.schedule.mono + 60.0)
        if not task.done():
            task.cancel()
            raise ControlError("the process has ended")
        return task.result()

    def kill(self, number: int, *, loses_power: bool = False) -> None:
        """Kill the process. Only the files stay, in a new folder, and what the kernel has.

        If the host ``loses_power``, SQLite's log of writes loses its end.

        Python still closes the coroutines at some time. What they do then affects nothing any more.
        """
        after = self.host.folder / f"database-{number}"
        after.mkdir()
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError):
                content = Path(f"{self.database}{suffix}").read_bytes()
                if loses_power and suffix:  # of what is not synchronised, any beginning may be there
                    least = min(_synchronised(self.database), len(content))
                    content = content[: self.host.schedule.chosen.randrange(least, len(content) + 1)]
                (after / f"{self.database.name}{suffix}").write_bytes(content)
        for feature in self.host.features:
            feature.on_end(self.database.parent, after)
        self.end()
        shutil.rmtree(self.database.parent)

    def end(self) -> None:
        """Forget the process."""
        self.is_alive = False
        self.host.threads.kill()
        self.host.handlers, self.host.serves = {}, asyncio.Event()
        self.host.packets.__exit__()
        for manager in self.host.managers.values():
            manager.cut()
        for log in self.host.logs.values():
            log.watching.clear()
        events._set_running_loop(self.loop)
        for task in asyncio.all_tasks(self.loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            for _ in range(2):  # a context manager that yields in its last block needs a second call
                with suppress(BaseException):
                    task.get_coro().close()
        events._set_running_loop(None)
        self.loop._ready.clear()  # type: ignore[attr-defined]
        self.loop._scheduled.clear()  # type: ignore[attr-defined]
        self.loop.close()
        self.store.close()


def _synchronised(database: Path) -> int:
    """Return how many bytes of SQLite's log of writes are in the database too, and so synchronised."""
    pages = 0
    with suppress(FileNotFoundError):
        [pages] = struct.unpack_from("=I", Path(f"{database}-shm").read_bytes(), 96)  # WalCkptInfo.nBackfill
    return 32 + pages * (24 + 4_096) if pages else 0


@contextmanager
def _listening(counts: Counted) -> Iterator[None]:
    """Let ``counts`` get every judgement of the daemon that is built within the block."""
    right: Callable[..., None] = EffectHandler.__init__

    def made(self: EffectHandler, *given: Any, **named: Any) -> None:  # noqa: ANN401 - the constructor's
        side, alarms, friends, listeners, *rest = given
        right(self, side, alarms, friends, [*listeners, counts], *rest, **named)

    with patch.object(EffectHandler, "__init__", made):
        yield


def _tree(host: Host, database: Path, claims: int) -> dict[str, object]:
    """Return the configuration."""
    return {
        "asterisk": [
            {
                "name": name,
                "ami": {"host": "127.0.0.1", "port": port, "username": "ringfence", "secret": SECRET},
                "logs": {"paths": [str(host.logs[name].path)], "timezone": "UTC"},
            }
            for name, port in PORTS.items()
        ],
        "store": {"path": str(database)},
        "control": {"socket": str(database.parent / "control.sock")},
        "claimed": {"per_minute": claims},
        **{table: value for feature in host.features for table, value in feature.settings().items()},
        **host.more,
    }
