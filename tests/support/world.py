"""Enforcement with a real store, the memory firewall with faults, and a time that the test says."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve
from structlog.testing import capture_logs
from tests.support.attempts import attempts

from ringfence.alarms import Alarms
from ringfence.bans.enforce import Enforcer
from ringfence.bans.exempt import ITSELF, Exempt
from ringfence.bans.reconcile import Reconciler
from ringfence.bans.records import Records
from ringfence.clock import Clock
from ringfence.detect.detector import Detector, Standing
from ringfence.detect.judge import Decision
from ringfence.detect.networks import NetworkSet
from ringfence.detect.rules import RULES, Rule
from ringfence.firewall.contract import Add, Change, Element, Opened, Outcome, Pulse, Roll
from ringfence.firewall.memory import MemoryBackend
from ringfence.model import Network, Scope
from ringfence.store import Store

if TYPE_CHECKING:
    from ringfence.errors import FirewallError

START = 1_700_000_000.0
SUBJECT = ip_network("192.0.2.1")
OTHER = ip_network("192.0.2.2")
RULE = RULES[0]


class Faulty(MemoryBackend):
    """The memory backend with faults: what ``refuses`` holds is refused, ``cap`` is the longest timeout."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock=clock)
        self.refuses: dict[Network, FirewallError] = {}
        self.gone: FirewallError | None = None
        self.unfillable: FirewallError | None = None
        self.trouble: str | None = None
        self.changed = False
        self.counts = True
        self.cap = float("inf")
        self.batches: list[Sequence[Change]] = []
        self.before_batch: Callable[[], object] = lambda: None
        self.lacks: Mapping[int, str | None] = {}
        self.meanwhile: Callable[[], object] = lambda: None

    def open(self) -> Opened:
        """Open, or not."""
        if self.gone is not None:
            raise self.gone
        self.trouble = None
        return evolve(super().open(), families={4: None, 6: None, **self.lacks})

    def apply(self, batch: Sequence[Change]) -> list[Outcome]:
        """Carry out what is not refused."""
        self.batches.append(batch)
        self.before_batch()
        if self.gone is not None:
            raise self.gone
        self._expire()
        return [self._one(change) for change in batch]

    def _one(self, change: Change) -> Outcome:
        error = self.refuses.get(change.network)
        if error is not None:
            return Outcome(change, error=error)
        asked = evolve(change, timeout=min(change.timeout, self.cap)) if isinstance(change, Add) else change
        outcome = self._add(asked) if isinstance(asked, Add) else self._remove(asked)
        return evolve(outcome, change=change)

    def fill(self, roll: Roll, networks: Iterable[Network]) -> None:
        """Fill, or not."""
        if self.unfillable is not None:
            raise self.unfillable
        super().fill(roll, networks)

    def list(self) -> Iterator[Element]:
        """Read; ``meanwhile`` is what happens once all is read and before anybody has looked at it."""
        found = [*super().list()]
        self.meanwhile()
        yield from found

    def pulse(self) -> Pulse:
        """Look, or not."""
        if self.gone is not None:
            raise self.gone
        pulse = evolve(super().pulse(), trouble=self.trouble, changed=self.changed)
        return pulse if self.counts else evolve(pulse, elements=None)

    def flush(self) -> None:
        """Flush, or not."""
        if self.gone is not None:
            raise self.gone
        super().flush()

    # -- by another hand

    def put(self, network: Network, end: float, scope: Scope = Scope.FULL) -> None:
        """Have a ban until ``end`` that nobody asked for."""
        self._ends[network, scope] = end

    def lose(self, *networks: Network) -> None:
        """Lose bans; all of them, where none is named."""
        for key in [key for key in self._ends if not networks or key[0] in networks]:
            del self._ends[key]


class World:
    """An enforcer with its store and firewall, and the time."""

    def __init__(self, path: Path) -> None:
        self.now = START
        self.backend = Faulty(lambda: self.now)
        self.path = path
        self.start()

    def start(self) -> None:
        """Begin, or begin anew over the same store and the same kernel."""
        self.store = Store.open(self.path, owner=True)
        self.detector = Detector(RULES)
        self.clock = Clock(wall=lambda: self.now, mono=lambda: self.now - START)
        self.records = Records(self.store)
        self.enforcer = Enforcer(self.backend, self.records, self.detector, self.clock)
        self.alarms = Alarms(self.clock.wall)
        self.reconciler = Reconciler(self.enforcer, self.alarms)
        self.allow()
        self.enforcer.start()

    def restart(self, *, reboot: bool = False) -> None:
        """End and begin anew; a reboot empties the kernel."""
        self.store.close()
        if reboot:
            self.backend.lose()
        self.start()

    def allow(self, *networks: Network, **protected: str) -> None:
        """Say whom nothing bans."""
        self.enforcer.allow(exempt(*networks, **protected))

    def decide(
        self,
        subject: Network = SUBJECT,
        rule: Rule = RULE,
        *,
        scope: Scope = Scope.FULL,
        seconds: float | None = None,
    ) -> None:
        """Let a rule decide on ``subject``."""
        made = attempts(5, str(subject.network_address))
        self.enforcer.carry_out(Decision(subject, rule, made, scope, seconds))

    def wait(self, seconds: float) -> None:
        """Let time pass, with the daemon at work."""
        self.now += seconds
        self.enforcer.tend()

    def in_kernel(self) -> dict[str, int]:
        """Give what is banned, and the seconds left."""
        return {str(element.network): round(element.timeout) for element in self.backend.list()}

    def in_store(self) -> dict[str, int]:
        """Give what the store says is running, and the seconds left."""
        return {str(ban.network): round(ban.expires - self.now) for ban in self.store.running(self.now)}

    def held(self, subject: Network = SUBJECT) -> bool:
        """Say whether what comes from ``subject`` now is taken for late."""
        [attempt] = attempts(1, str(subject.network_address))
        standing = self.detector.judge(attempt, self.now - START).standing
        self.detector.forget(subject)
        return standing is Standing.LATE


def exempt(*allowed: Network, **protected: str) -> Exempt:
    """Give who is exempt: ``_192_0_2_1="the gateway"`` protects an address beside this host itself."""
    reasons = {ip_network(name[1:].replace("_", ".")): why for name, why in protected.items()}
    return Exempt(NetworkSet(allowed), {**ITSELF, **reasons})


@contextmanager
def a_world(path: Path) -> Iterator[World]:
    """Give a world, at its beginning."""
    with capture_logs():
        world = World(path)
        yield world
        world.store.close()


@contextmanager
def said() -> Iterator[list[str]]:
    """Give the names of what is logged meanwhile."""
    names: list[str] = []
    with capture_logs() as entries:
        yield names
    names += [str(entry["event"]) for entry in entries]
