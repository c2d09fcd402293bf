"""Reports that wait for confirmation, because their sender may have written the address.

Bound: 10 000 reports. The oldest are discarded first, without a judgement, and are then missing in lists.
"""

from collections import deque
from collections.abc import Iterator
from typing import TypeVar

from attrs import define

from ringfence.detect.fold import session_key
from ringfence.model import Address, Attempt, Endpoint, SecurityEvent

PATIENCE = 1.0
"""How long a report waits (seconds) for a reliable source to confirm it."""

_MAX_REPORTS = 10_000


_Key = TypeVar("_Key")


@define
class UnconfirmedReport:
    """An attempt that ``event`` reported at ``at`` (monotonic seconds). ``settled``: it no longer waits."""

    at: float
    attempt: Attempt
    event: SecurityEvent
    settled: bool = False


class UnconfirmedReports:
    """The reports that wait, in the order of arrival, by session and by TCP connection."""

    def __init__(self, most: int = _MAX_REPORTS) -> None:
        self._most = most
        self._queue: deque[UnconfirmedReport] = deque()
        self._by_session: dict[tuple[Address, bytes], deque[UnconfirmedReport]] = {}
        self._by_connection: dict[tuple[Address, int], deque[UnconfirmedReport]] = {}

    def __len__(self) -> int:
        """Return the number of reports, including those already settled."""
        return len(self._queue)

    def add(self, report: UnconfirmedReport) -> None:
        """Add a report."""
        if len(self._queue) >= self._most:
            self._remove(self._queue.popleft())
        self._queue.append(report)
        self._by_session.setdefault(_session(report), deque()).append(report)
        self._by_connection.setdefault(_connection(report.event.remote), deque()).append(report)

    def settle(self, address: Address, session: bytes) -> list[UnconfirmedReport]:
        """Settle and return the reports of ``address`` under ``session``."""
        if not self._by_session:
            return []
        waiting = self._by_session.pop((address, session_key(session)), ())
        found = [report for report in waiting if not report.settled]
        for report in found:
            report.settled = True
        return found

    def oldest_of(self, remote: Endpoint) -> UnconfirmedReport | None:
        """Return, without settling it, the oldest report that names the address and port of ``remote``."""
        waiting = self._by_connection.get(_connection(remote))
        while waiting and waiting[0].settled:
            waiting.popleft()
        return waiting[0] if waiting else None

    def has_unforgeable(self, report: UnconfirmedReport) -> bool:
        """Whether another report of the same session waits that cannot be forged."""
        others = self._by_session.get(_session(report), ()) if report.event.session else ()
        return report.event.forgeable and any(not one.settled and not one.event.forgeable for one in others)

    def due(self, now: float) -> Iterator[UnconfirmedReport]:
        """Remove and yield the reports that have waited long enough."""
        while self._queue and now - self._queue[0].at >= PATIENCE:
            report = self._queue.popleft()
            self._remove(report)
            if not report.settled:
                yield report

    def _remove(self, report: UnconfirmedReport) -> None:
        """Remove a report from the tables: the oldest of all is the first of its session and connection."""
        _drop(report, self._by_session, _session(report))
        _drop(report, self._by_connection, _connection(report.event.remote))


def _session(report: UnconfirmedReport) -> tuple[Address, bytes]:
    return report.event.remote.address, session_key(report.event.session)


def _connection(remote: Endpoint) -> tuple[Address, int]:
    return remote.address, remote.port


def _drop(report: UnconfirmedReport, table: dict[_Key, deque[UnconfirmedReport]], key: _Key) -> None:
    waiting = table.get(key)
    if waiting and waiting[0] is report:
        waiting.popleft()
    if not waiting:
        table.pop(key, None)
