"""Unconfirmed attempts: reports that wait for a confirmation, because their address may be forged.

:mod:`ringfence.detect.attribution` decides what confirms an address. Bound: 10 000 reports. The oldest are
discarded first; a discarded report is not judged, and not listed.
"""

from collections import deque
from collections.abc import Iterator

from ringfence.detect.events import session_key
from ringfence.detect.sender import Sender, Senders
from ringfence.detect.session import Session, UnconfirmedReport
from ringfence.model import AMI, WIRE, Address, Attempt, Endpoint, Service

PATIENCE = 1.0
"""How long a report waits (seconds) for a reliable source to confirm it."""

_MAX_REPORTS = 10_000
# Services about which only log lines report, with the name to show.
_NOTHING_ELSE = {Service.IAX2: "IAX2", Service.DIALPLAN: "the dialplan"}


class UnconfirmedReports:
    """The reports that wait, in the order of arrival.

    They are also found by their session, and by the address and port that they name.
    """

    def __init__(self, senders: Senders, most: int = _MAX_REPORTS) -> None:
        self._senders = senders
        self._most = most
        self._queue: deque[tuple[UnconfirmedReport, Sender, Session]] = deque()

    def __len__(self) -> int:
        """Return the number of reports, including those already settled."""
        return len(self._queue)

    def add(self, report: UnconfirmedReport) -> None:
        """Add a report."""
        if len(self._queue) >= self._most:
            self._remove_oldest()
        remote = report.event.remote
        session = self._senders.session(remote.address, session_key(report.event.session), report.at)
        sender = self._senders.of(remote.address, report.at)
        self._queue.append((report, sender, session))
        if session.unconfirmed is None:
            session.unconfirmed = []
        session.unconfirmed.append(report)
        if not report.event.forgeable:
            if session.unforgeable is None:
                session.unforgeable = []
            session.unforgeable.append(report)
        if sender.waiting is None:
            sender.waiting = {}
        sender.waiting.setdefault(remote.port, deque()).append(report)

    def settle(self, address: Address, session: bytes) -> list[UnconfirmedReport]:
        """Return the waiting reports of ``address`` with this session id. They wait no longer."""
        known = self._senders.find_session(address, session_key(session)) if self._queue else None
        if known is None or known.unconfirmed is None:
            return []
        found = [report for report in known.unconfirmed if not report.settled]
        for report in found:
            report.settled = True
        known.unconfirmed = known.unforgeable = None
        return found

    def oldest_of(self, remote: Endpoint) -> UnconfirmedReport | None:
        """Return the oldest report that waits and names the address and port of ``remote``, or None.

        The report goes on waiting.
        """
        sender = self._senders.find(remote.address) if self._queue else None
        waiting = sender.waiting.get(remote.port) if sender is not None and sender.waiting else None
        while waiting and waiting[0].settled:
            waiting.popleft()
        return waiting[0] if waiting else None

    def has_unforgeable(self, report: UnconfirmedReport) -> bool:
        """Whether ``report`` is forgeable, but an unforgeable report of the same session still waits.

        The unforgeable report then lists the attempt, so ``report`` must not list it again.
        """
        event = report.event
        if not event.session or not event.forgeable:
            return False
        session = self._senders.find_session(event.remote.address, session_key(event.session))
        others = session.unforgeable if session is not None else None
        while others and others[0].settled:
            others.pop(0)
        return bool(others)

    def due(self, now: float) -> Iterator[UnconfirmedReport]:
        """Remove the reports that are ``PATIENCE`` seconds old; yield those that still wait."""
        while self._queue and now - self._queue[0][0].at >= PATIENCE:
            report = self._remove_oldest()
            if not report.settled:
                yield report

    def _remove_oldest(self) -> UnconfirmedReport:
        """Remove and return the oldest report.

        So it is also the first report in the lists of its session and of its port.
        """
        report, sender, session = self._queue.popleft()
        for waiting_in_session in (session.unconfirmed, session.unforgeable):
            if waiting_in_session and waiting_in_session[0] is report:
                waiting_in_session.pop(0)
        port = report.event.remote.port
        if sender.waiting is not None and port in sender.waiting:
            waiting = sender.waiting[port]
            if waiting and waiting[0] is report:
                waiting.popleft()
            if not waiting:
                del sender.waiting[port]
        return report


def why_unconfirmed(attempt: Attempt) -> str:
    """Return why an attempt that is not ``trusted`` leads to no ban."""
    if attempt.service in _NOTHING_ELSE:
        part = _NOTHING_ELSE[attempt.service]
        return (
            f"only the log reports {part}, and a sender can have Asterisk write such a line with any address"
        )
    if WIRE in attempt.sources:
        return "what the wire sees by TCP may be a text of another sender, within a message to this phone"
    if AMI not in attempt.sources:
        return (
            "only the log names this address, and a sender can have Asterisk write such a line: neither AMI "
            "nor the wire nor a TCP connection confirms it"
        )
    if attempt.service is Service.SIP:
        return (
            "chan_sip's events name whatever address a Via header gives: neither the wire ([asterisk.wire]) "
            "nor a log line nor a TCP connection confirms this one"
        )
    return "AMI alone names this address, in an event that a sender can forge, and nothing confirms it"
