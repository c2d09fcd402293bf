"""Ambiguous log lines: a sender's text may have added addresses, and one of the addresses is the true one.

A reading of such a line counts only if the kernel has the connection from the address and port that it
names. The true sender's connection is always there, so a guess by TLS counts whatever its Call-ID contains.
An attacker can also name the connection of a victim, but then needs its port. As for clear lines
(``backing``), a line that names an address with connections, but none of their ports, counts against this
address.

A connection that the remote end has just reset appears only some milliseconds later
(``host/connections.py``). So readings without a connection wait ``PATIENCE`` seconds and are tried once more.
Bound: ``MOST`` lines; the oldest are tried at once if more come.
"""

from collections import deque
from collections.abc import Iterator, Sequence

from ringfence.detect.backing import Backing
from ringfence.model import SecurityEvent

PATIENCE = 0.1
MOST = 256


class AmbiguousLines:
    """Chooses the readings that a connection confirms. Times are monotonic seconds."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing
        self._waiting: deque[tuple[float, Sequence[SecurityEvent], Sequence[SecurityEvent]]] = deque()

    def backed(self, readings: Sequence[SecurityEvent], now: float) -> Iterator[SecurityEvent]:
        """Yield the readings of a new line whose connection the kernel has; the others wait."""
        found = [reading for reading in readings if self._backing.has(reading.remote)]
        if len(found) < len(readings):
            self._waiting.append((now, found, [one for one in readings if one not in found]))
        yield from found
        while len(self._waiting) > MOST:
            yield from self._again(now)

    def due(self, now: float) -> Iterator[SecurityEvent]:
        """Yield the readings that have waited, and whose connection the kernel has by now."""
        while self._waiting and now - self._waiting[0][0] >= PATIENCE:
            yield from self._again(now)

    def _again(self, now: float) -> Iterator[SecurityEvent]:
        _, before, readings = self._waiting.popleft()
        found = [reading for reading in readings if self._backing.has(reading.remote)]
        yield from found
        named = {reading.remote.address for reading in (*before, *found)}
        for remote in {one.remote.address: one.remote for one in readings}.values():
            if remote.address not in named and not self._backing.excludes(remote.address):
                self._backing.record_unbacked(remote, now)
