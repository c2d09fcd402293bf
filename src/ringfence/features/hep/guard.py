"""Asterisk's export (HEP) in the running daemon: it counts like the wire, and what it lacks is an alarm."""

from collections import deque
from collections.abc import Sequence
from math import inf

from ringfence.alarm_codes import Alarm
from ringfence.clock import Clock
from ringfence.features.hep.alarms import NO_EXPORT, HepAlarmCode
from ringfence.features.hep.settings import streams, targets
from ringfence.features.hep.stage import PREFIX
from ringfence.guard.feature import Feature, Given
from ringfence.guard.source_manager import DAY
from ringfence.parse.hep import MOST_CONNECTIONS, Exports
from ringfence.sources.state import State
from ringfence.sources.wire import WireItem, WireSource
from ringfence.values.event import AMI, Endpoint, SecurityEvent, Service, Transport
from ringfence.values.network import Address

SURE = 10.0
"""Seconds after a loss for which an exported answer without its request shows nothing."""
MOST_REPORTED = 4_096
"""The greatest number of reports of AMI that wait for their exported message."""
EXPORT_WITHIN = 1.0
"""Seconds between AMI's event of a message and its export, at most; on a real Asterisk below 2 ms."""

_ENCRYPTED = (Transport.TLS, Transport.WSS)
_SUPPRESSED = (
    "a sender by TLS or WSS keeps Asterisk from exporting its messages, or some were lost: attempts that AMI "
    "does not report count only if the log reports them"
)


class ExportReader(Feature):
    """Reads the export, and checks whether it has the messages of TLS and WSS that AMI reports.

    A sender can suppress the export of its messages (``parse/hep.py``). A missing message proves nothing
    else, so this only leads to an alarm.
    """

    def __init__(self, exports: Exports, wire: WireSource, clock: Clock) -> None:
        self._exports = exports
        self._wire = wire
        self._clock = clock
        self._exported: dict[Endpoint, float] = {}  # when a connection had its last message, oldest first
        self._reported: deque[tuple[float, Endpoint]] = deque(maxlen=MOST_REPORTED)
        self._suppressed = -inf

    def read(self, packet: bytes, now: float, lost: float) -> Sequence[WireItem] | None:
        """Return what a packet shows of a stranger; None if it cannot be parsed.

        ``lost`` is the time at which the wire lost a packet last.
        """
        found = self._exports.read(packet, sure=now - lost >= SURE)
        if found is None:
            return None
        if found.unasked:
            self._suppressed = now
        self._exported.pop(found.remote, None)
        self._exported[found.remote] = now
        if len(self._exported) > MOST_CONNECTIONS:
            del self._exported[next(iter(self._exported))]
        return () if found.message is None else (found.message,)

    def on_events(self, events: Sequence[SecurityEvent]) -> None:
        """Record the connections of TLS and WSS from which AMI reports messages at PJSIP."""
        for event in events:
            if (
                event.remote.transport in _ENCRYPTED
                and event.service is Service.PJSIP
                and event.source.name == AMI
            ):
                self._reported.append((self._clock.mono(), event.remote))

    def alarms(self) -> Sequence[Alarm]:
        """Return the alarm about missing messages, if any was missing within a day."""
        now = self._clock.mono()
        while self._reported and now - self._reported[0][0] >= EXPORT_WITHIN:
            at, remote = self._reported.popleft()
            if (
                self._wire.condition.state is State.LISTENING
                and self._exported.get(remote, -inf) < at - EXPORT_WITHIN
            ):
                self._suppressed = now
        if now - self._suppressed >= DAY:
            return ()
        text = _SUPPRESSED if self._wire.counts.exported else NO_EXPORT
        return (Alarm(HepAlarmCode.HEP_MISSING, "", text),)


def build(given: Given) -> ExportReader | None:
    """Return the reader of the export; None if it is not configured."""
    settings, side = given.reloader.settings, given.side
    if given.wire is None or not targets(settings):
        return None

    def is_known(address: Address) -> bool:
        return side.detector.friends.has(address) or side.detector.exempt.covers(address)

    exports = Exports(streams(settings), side.exempt.protected.is_own, is_known)
    reader = ExportReader(exports, given.wire.source, side.common.clock)
    given.wire.source.readers[PREFIX.encode()] = reader.read
    given.pipeline.watch.append(reader.on_events)
    return reader
