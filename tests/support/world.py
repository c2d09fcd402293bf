"""Enforcement with a real store, a memory firewall that can fail, and a clock that the test sets."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve
from structlog.testing import capture_logs
from tests.support.attempts import attempts
from tests.support.clock import SetClock
from tests.support.facts import Facts
from tests.support.recorded import active

from ringfence.alarms import Alarms
from ringfence.ban_facts import Fact, Over, Placed
from ringfence.bans.enforcer import Enforcer
from ringfence.bans.exempt import ITSELF, Exempt
from ringfence.bans.filling import ListContents
from ringfence.bans.reconcile import Reconciler
from ringfence.clock import Clock
from ringfence.detect.detector import Detector
from ringfence.detect.judgement import Decision, Disposition
from ringfence.detect.rules import RULES, Rule
from ringfence.firewall.contract import MAX_TIMEOUT, Add, Change, Element, Health, ListSteps, Opened, Outcome
from ringfence.firewall.memory import MemoryBackend
from ringfence.firewall.network_lists import NetworkList
from ringfence.ledger import key_of
from ringfence.store.database import Store
from ringfence.values.ban import Ban, BanEnd, Scope
from ringfence.values.network import Network, NetworkSet

if TYPE_CHECKING:
    from ringfence.errors import FirewallError

START = 1_700_000_000.0
SUBJECT = ip_network("192.0.2.1")
OTHER = ip_network("192.0.2.2")
RULE = RULES[0]


class Faulty(MemoryBackend):
    """A memory backend that can fail. It refuses ``refuses``; ``cap`` is its longest timeout (seconds)."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.refuses: dict[Network, FirewallError] = {}
        self.gone: FirewallError | None = None
        self.unfillable: FirewallError | None = None
        self.trouble: str | None = None
        self.changed = False
        self.counts = True
        self.cap = MAX_TIMEOUT
        self.batches: list[Sequence[Change]] = []
        self.before_batch: Callable[[], object] = lambda: None
        self.lacks: Mapping[int, str | None] = {}
        self.meanwhile: Callable[[], object] = lambda: None
        self.omitted: set[Network] = set()
        self.looked_up: list[Network] = []

    def open(self) -> Opened:
        """Open, or fail."""
        if self.gone is not None:
            raise self.gone
        repaired, self.trouble = self.trouble is not None, None
        return evolve(super().open(), families={4: None, 6: None, **self.lacks}, repaired=repaired)

    def apply(self, batch: Sequence[Change]) -> list[Outcome]:
        """Carry out the changes that are not refused."""
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

    def replace_list_in_steps(self, which: NetworkList, networks: Iterable[Network]) -> ListSteps:
        """Replace the list, or fail."""
        if self.unfillable is not None:
            raise self.unfillable
        yield from super().replace_list_in_steps(which, networks)

    def list(self, known: Iterable[tuple[Network, Scope]] | None = None) -> Iterator[Element]:
        """Read the elements, then call ``meanwhile`` before the first one is returned.

        The networks in ``omitted`` are found only if they are looked up.
        """
        found = [*super().list()]
        self.meanwhile()
        yield from (one for one in found if one.network not in self.omitted)
        self.looked_up = [network for network, _ in known or ()]
        yield from (one for one in found if one.network in self.omitted & {*self.looked_up})

    def health(self) -> Health:
        """Return the health, or fail."""
        if self.gone is not None:
            raise self.gone
        health = evolve(super().health(), damage=self.trouble, changed=self.changed)
        return health if self.counts else evolve(health, elements=None)

    def rules_differ(self) -> bool:
        """Whether the rules are damaged, or fail."""
        if self.gone is not None:
            raise self.gone
        return self.trouble is not None

    def flush(self) -> None:
        """Flush, or fail."""
        if self.gone is not None:
            raise self.gone
        super().flush()

    # -- changes by another program

    def put(self, network: Network, end: float, scope: Scope = Scope.FULL) -> None:
        """Add a ban until ``end`` that the daemon did not make."""
        self._ends[network, scope] = end

    def lose(self, *networks: Network) -> None:
        """Remove these bans; without arguments all of them."""
        for key in [key for key in self._ends if not networks or key[0] in networks]:
            del self._ends[key]


class World(ListContents):
    """An enforcer with its store, its firewall and its clock."""

    def __init__(self, path: Path) -> None:
        self.now = START
        self.boots = 0
        self.ahead = 0.0
        """Seconds by which the wall clock has been set ahead."""
        self.backend = Faulty(SetClock(mono=lambda: self.now))
        self.wanted: Mapping[NetworkList, Sequence[Network]] = {}
        """The contents of the kernel's lists."""
        self.path = path
        self.start()

    def start(self) -> None:
        """Start, or start again with the same store and the same kernel."""
        self.store = Store.open(self.path, owner=True)
        self.detector = Detector(RULES)
        self.clock = SetClock(
            wall=lambda: self.now + self.ahead, mono=lambda: self.now - START, boot=lambda: str(self.boots)
        )
        self.records = self.store.records
        self.facts = Facts[Fact]()
        """The facts that the enforcer reported to its listeners."""
        self.enforcer = Enforcer(
            self.backend,
            self.records,
            self.detector,
            self.clock,
            self,
            (self.facts,),
        )
        self.alarms = Alarms(self.clock)
        self.reconciler = Reconciler(self.enforcer, self.alarms)
        self.allow()
        self.enforcer.start()

    @property
    def news(self) -> list[Fact]:
        """The facts that are news, and the ends of bans."""
        return [fact for fact in self.facts if isinstance(fact, Placed | Over)]

    @property
    def placed(self) -> list[Ban]:
        """The bans of which people are notified."""
        placed = [fact for fact in self.facts if isinstance(fact, Placed)]
        return [ban for fact in placed if fact.announced for ban in fact.bans]

    @property
    def ended(self) -> list[tuple[Network, Scope, BanEnd]]:
        """The bans that ended."""
        return [(fact.network, fact.scope, fact.how) for fact in self.facts if isinstance(fact, Over)]

    def contents(self, target: NetworkList) -> Sequence[Network]:
        """Return what a list of the kernel must have."""
        return self.wanted.get(target, ())

    def restart(self, *, reboot: bool = False) -> None:
        """Stop and start again; a reboot empties the kernel."""
        self.store.close()
        if reboot:
            self.boots += 1
            self.backend.lose()
        self.start()

    def allow(self, *networks: Network, **protected: str) -> None:
        """Set the exempt networks."""
        self.enforcer.allow(exempt(*networks, **protected))

    def decide(
        self,
        subject: Network = SUBJECT,
        rule: Rule = RULE,
        *,
        scope: Scope = Scope.FULL,
        seconds: float | None = None,
    ) -> None:
        """Carry out the decision of a rule to ban ``subject``."""
        made = attempts(5, str(subject.network_address))
        self.enforcer.carry_out(Decision(subject, rule, made, self.clock.mono(), scope, seconds))

    def adopt(self, network: Network, left: float) -> None:
        """Adopt a ban of the kernel with ``left`` seconds."""
        self.enforcer.apply(self.enforcer.book.adopt({key_of(network): left}, self.now))

    def unban(self, network: Network) -> list[Outcome]:
        """Remove the full ban of a network; return the changes that the kernel refused."""
        return self.enforcer.apply(self.enforcer.book.unban([key_of(network)]))

    def wait(self, seconds: float) -> None:
        """Advance the clock, and do the periodic work afterwards."""
        self.now += seconds
        self.enforcer.tick()

    def in_kernel(self) -> dict[str, int]:
        """Return the banned networks in the kernel, with the seconds left."""
        return {str(element.network): round(element.timeout) for element in self.backend.list()}

    def in_store(self) -> dict[str, int]:
        """Return the active bans in the store, with the seconds left."""
        return {str(ban.network): round(ban.expires - self.now) for ban in active(self.store, self.now)}

    def held(self, subject: Network = SUBJECT) -> bool:
        """Whether the detector treats a new attempt of ``subject`` as late, because it is banned."""
        [attempt] = attempts(1, str(subject.network_address))
        judgement, *_ = self.detector.judge(attempt, self.now - START)
        self.detector.record_unban(subject)
        return judgement.disposition is Disposition.LATE


def exempt(*allowed: Network, **protected: str) -> Exempt:
    """Return exemptions; ``_192_0_2_1="the gateway"`` adds an address with its reason."""
    reasons = {ip_network(name[1:].replace("_", ".")): why for name, why in protected.items()}
    return Exempt(NetworkSet(allowed), {**ITSELF, **reasons})


@contextmanager
def a_world(path: Path) -> Iterator[World]:
    """Yield a new world."""
    with capture_logs():
        world = World(path)
        yield world
        world.store.close()


@contextmanager
def said() -> Iterator[list[str]]:
    """Yield a list that contains the names of the logged events when the block has ended."""
    names: list[str] = []
    with capture_logs() as entries:
        yield names
    names += [str(entry["event"]) for entry in entries]
