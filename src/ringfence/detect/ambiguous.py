"""Ambiguous log lines: one of their addresses is the true one, others may come from a sender's text.

A *reading* of such a line is the event that it reports with one of its addresses. A reading counts only if
the kernel has a TCP connection from the address and port that it names. The true sender's connection is
always there. So a sender cannot hide a guess by TLS with other addresses in its Call-ID. An attacker can also
name the connection of a victim, but must know its port. Each wrong port of a victim that has connections
counts as a line of the victim without a connection. If there are too many such lines, no line of the victim
is confirmed (``confirmation``).

A connection that the remote end has just reset appears only some milliseconds later
(``host/connections.py``). So readings without a connection wait ``PATIENCE`` seconds and are checked once
more. Bound: ``MOST_LINES`` lines; if more wait, the oldest are checked at once.
"""

from collections import deque
from collections.abc import Iterator, Sequence

from attrs import frozen

from ringfence.detect.confirmation import Backing
from ringfence.values.event import SecurityEvent
from ringfence.values.network import Address

PATIENCE = 0.1
MOST_LINES = 256


@frozen
class _Waiting:
    """The events that one ambiguous log line may report, without those that a TCP connection confirms.

    ``since`` is the time of the first check (monotonic seconds). ``backed`` has the addresses in the events
    that a connection confirms.
    """

    since: float
    readings: Sequence[SecurityEvent]
    backed: frozenset[Address]


class AmbiguousLines:
    """Log lines that name several addresses: chooses the addresses that a TCP connection confirms.

    Each address makes one *reading* of the line: an event with this address as its sender. Times are
    monotonic seconds.
    """

    def __init__(self, backing: Backing) -> None:
        self._backing = backing
        self._waiting: deque[_Waiting] = deque()

    def backed(self, readings: Sequence[SecurityEvent], now: float) -> Iterator[SecurityEvent]:
        """Yield those ``readings`` of a new log line whose address and port have a TCP connection.

        The other readings wait for a second check. If more than ``MOST_LINES`` lines wait, check the oldest
        ones again now, and yield what is confirmed.
        """
        found, others = self._split(readings, now)
        if others:
            self._waiting.append(_Waiting(now, others, _addresses(found)))
        yield from found
        while len(self._waiting) > MOST_LINES:
            yield from self._again(now)

    def due(self, now: float) -> Iterator[SecurityEvent]:
        """Check the lines that waited ``PATIENCE`` seconds; yield the events that a connection confirms."""
        while self._waiting and now - self._waiting[0].since >= PATIENCE:
            yield from self._again(now)

    def _again(self, now: float) -> Iterator[SecurityEvent]:
        """Check the oldest waiting log line again; yield its events that a TCP connection confirms by now.

        Then count a line without a connection for each of its other addresses. An address is left out if the
        kernel knows that it had no connection within a minute.
        """
        line = self._waiting.popleft()
        found, others = self._split(line.readings, now)
        yield from found
        backed = line.backed | _addresses(found)
        for remote in {one.remote.address: one.remote for one in others}.values():
            if remote.address not in backed and not self._backing.excludes(remote.address, now):
                self._backing.record_unbacked(remote, now)

    def _split(
        self, readings: Sequence[SecurityEvent], now: float
    ) -> tuple[list[SecurityEvent], list[SecurityEvent]]:
        """Return the events whose address and port have a TCP connection now, and the other events."""
        found: list[SecurityEvent] = []
        others: list[SecurityEvent] = []
        for reading in readings:
            (found if self._backing.has(reading.remote, now) else others).append(reading)
        return found, others


def _addresses(readings: Sequence[SecurityEvent]) -> frozenset[Address]:
    return frozenset(reading.remote.address for reading in readings)
