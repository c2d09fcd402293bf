"""The backend that only remembers: for dry runs and demonstrations.

It keeps the ipset backend's semantics (expiry, clamped timeouts, a set that is full, no ban of everything),
so that what a dry run shows is what the kernel would have done. Nothing is dropped and nothing outlives it.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from ringfence.errors import FirewallError, SetFullError
from ringfence.firewall.contract import (
    Add,
    Change,
    Element,
    Flooder,
    LimitMode,
    Opened,
    Outcome,
    Part,
    Plan,
    Pulse,
    Remove,
    Roll,
    Usage,
)
from ringfence.firewall.ipset_messages import whole_seconds
from ringfence.model import Network, Scope

_DRY = "a dry run puts no rule into the kernel"


class MemoryBackend:
    """A firewall of pretence. ``clock`` gives monotonic seconds; ``maxelem`` is per IP version and scope.

    Where a log rule or a limiter is asked for it says that it has none: it touches no kernel.
    """

    name = "memory"
    enforces = False

    def __init__(self, plan: Plan | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.plan = plan if plan is not None else Plan()
        self.rolls: dict[Roll, frozenset[Network]] = dict.fromkeys(Roll, frozenset())
        self._clock = clock
        self._ends: dict[tuple[Network, Scope], float] = {}

    def look(self) -> list[Part]:
        """Say that there is nothing to lack, and nothing to gain."""
        return [Part("firewall", note="memory: a dry run, nothing is dropped")]

    def open(self) -> Opened:
        """Guard both IP versions in pretence."""
        self._expire()
        wire = None if self.plan.log_group is None else _DRY
        limiter = None if self.plan.limit.mode is LimitMode.OFF else _DRY
        return Opened({4: None, 6: None}, adopted=len(self._ends), wire=wire, limiter=limiter)

    def apply(self, batch: Sequence[Change]) -> list[Outcome]:
        """Remember every change of ``batch``."""
        self._expire()
        return [self._add(change) if isinstance(change, Add) else self._remove(change) for change in batch]

    def _add(self, change: Add) -> Outcome:
        network, key = change.network, (change.network, change.scope)
        if network.prefixlen == 0:
            return Outcome(change, error=FirewallError(f"{network} is everybody: the kernel bans no /0"))
        maxelem = self.plan.maxelem
        if key not in self._ends and len(self._ends) >= maxelem and self._like(*key) >= maxelem:
            return Outcome(change, error=SetFullError(f"the set is full: {maxelem} elements"))
        timeout = whole_seconds(change.timeout)
        self._ends[key] = self._clock() + timeout
        return Outcome(change, timeout=float(timeout))

    def _like(self, network: Network, scope: Scope) -> int:
        return sum(other.version == network.version and of == scope for other, of in self._ends)

    def _remove(self, change: Remove) -> Outcome:
        self._ends.pop((change.network, change.scope), None)
        return Outcome(change)

    def fill(self, roll: Roll, networks: Iterable[Network]) -> None:
        """Remember the networks of ``roll``. Idempotent."""
        self.rolls[roll] = frozenset(networks)

    def list(self) -> Iterator[Element]:
        """Give every ban that has time left."""
        now = self._clock()
        for (network, scope), end in tuple(self._ends.items()):
            if end > now:
                yield Element(network, end - now, 0, 0, scope)

    def find(self, network: Network, scope: Scope = Scope.FULL) -> Element | None:
        """Give one ban, if it has time left."""
        left = self._ends.get((network, scope), -math.inf) - self._clock()
        return Element(network, left, 0, 0, scope) if left > 0 else None

    def _expire(self) -> None:
        now = self._clock()
        self._ends = {key: end for key, end in self._ends.items() if end > now}

    def pulse(self) -> Pulse:
        """Say how many bans there are: nobody else can touch them."""
        self._expire()
        return Pulse(elements=len(self._ends))

    def watch_fd(self) -> None:
        """Nobody tells of changes: nobody else can make one."""

    def usage(self) -> Usage:
        """Say how many bans there are: no rule has met anything."""
        return Usage(sets={"bans": len(self._ends)})

    def flooding(self) -> Sequence[Flooder]:
        """Nobody is limited."""
        return ()

    def flush(self) -> None:
        """Forget everything. Idempotent."""
        self._ends.clear()
        self.rolls = dict.fromkeys(Roll, frozenset())

    def close(self) -> None:
        """Nothing is held. Idempotent."""
