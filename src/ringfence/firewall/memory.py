"""The backend that only remembers: for dry runs and demonstrations.

It keeps the ipset backend's semantics (expiry, clamped timeouts, a set that is full, no ban of everything),
so that what a dry run shows is what the kernel would have done. Nothing is dropped and nothing outlives it.
"""

import time
from collections.abc import Callable, Sequence

from ringfence.errors import FirewallError, SetFullError
from ringfence.firewall.contract import Add, Change, Element, Opened, Outcome, Part, Remove
from ringfence.firewall.ipset_messages import whole_seconds
from ringfence.model import Network  # noqa: TC001 - imported as everywhere else


class MemoryBackend:
    """A firewall of pretence. ``clock`` gives monotonic seconds; ``maxelem`` is per IP version.

    Where a log rule is asked for (``log_group``) it says that it has none: it touches no kernel.
    """

    name = "memory"
    enforces = False

    def __init__(
        self,
        *,
        maxelem: int = 262_144,
        log_group: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._maxelem = maxelem
        self._wire = None if log_group is None else "a dry run puts no log rule into the kernel"
        self._clock = clock
        self._ends: dict[Network, float] = {}

    def look(self) -> list[Part]:
        """Say that there is nothing to lack, and nothing to gain."""
        return [Part("firewall", note="memory: a dry run, nothing is dropped")]

    def open(self) -> Opened:
        """Guard both IP versions in pretence."""
        self._expire()
        return Opened(families={4: None, 6: None}, adopted=len(self._ends), wire=self._wire)

    def apply(self, batch: Sequence[Change]) -> list[Outcome]:
        """Remember every change of ``batch``."""
        self._expire()
        return [self._add(change) if isinstance(change, Add) else self._remove(change) for change in batch]

    def _add(self, change: Add) -> Outcome:
        network = change.network
        if network.prefixlen == 0:
            return Outcome(change, error=FirewallError(f"{network} is everybody: the kernel bans no /0"))
        full = len(self._ends) >= self._maxelem and self._count(network.version) >= self._maxelem
        if full and network not in self._ends:
            return Outcome(change, error=SetFullError(f"the set is full: {self._maxelem} elements"))
        timeout = whole_seconds(change.timeout)
        self._ends[network] = self._clock() + timeout
        return Outcome(change, timeout=float(timeout))

    def _count(self, version: int) -> int:
        return sum(network.version == version for network in self._ends)

    def _remove(self, change: Remove) -> Outcome:
        self._ends.pop(change.network, None)
        return Outcome(change)

    def list(self) -> list[Element]:
        """Give every ban that has time left."""
        now = self._clock()
        return [Element(network, end - now, 0, 0) for network, end in tuple(self._ends.items()) if end > now]

    def _expire(self) -> None:
        now = self._clock()
        self._ends = {network: end for network, end in self._ends.items() if end > now}

    def flush(self) -> None:
        """Forget everything. Idempotent."""
        self._ends.clear()

    def close(self) -> None:
        """Nothing is held. Idempotent."""
