"""Asterisk's export (HEP) as a part of the daemon: it parses the messages; an alarm reports missing ones."""

from collections import deque
from collections.abc import Sequence
from math import inf

from ringfence.alarm_codes import Alarm
from ringfence.clock import Clock
from ringfence.features.hep.alarms import NO_EXPORT, HepAlarmCode
from ringfence.features.hep.settings import exporting, streams, targets
from ringfence.features.hep.stage import PREFIX
from ringfence.guard.feature import Feature, Given
from ringfence.guard.source_manager import DAY
from ringfence.parse.hep import MOST_CONNECTIONS, Exports
from ringfence.sources.state import State
from ringfence.sources.wire import WireItem, WireSource
from ringfence.values.event import AMI, Endpoint, SecurityEvent, Service, Transport
from ringfence.values.network import Address

SURE = 10.0
"""Seconds after a lost packet in which an exported answer without its exported request proves nothing."""
MOST_REPORTED = 4_096
"""The maximum number of messages reported by AMI that wait for their export."""
EXPORT_WITHIN = 1.0
"""Maximum seconds between AMI's event about a message and its export; Asterisk takes below 2 ms."""

_ENCRYPTED = (Transport.TLS, Transport.WSS)
_SUPPRESSED = (
    "a sender by TLS or WSS keeps Asterisk from exporting its messages, or some were lost: attempts that AMI "
    "does not report count only if the log reports them"
)


class ExportReader(Feature):
    """Reads the SIP messages that Asterisk exports (HEP), and checks whether any that AMI reports is missing.

    A sender can suppress the export of its messages (``parse/hep.py``). A missing message proves nothing
    else, so this only leads to an alarm. ``asterisks`` are the names of those that export their messages.
    """

    def __init__(self, exports: Exports, wire: WireSource, clock: Clock, asterisks: frozenset[str]) -> None:
        self._exports = exports
        self._asterisks = asterisks
        self._wire = wire
        self._clock = clock
        self._exported: dict[Endpoint, float] = {}  # when a connection had its last message, oldest first
        self._reported: deque[tuple[float, Endpoint]] = deque(maxlen=MOST_REPORTED)
        self._suppressed = -inf
        self._began = -inf  # when the first exported message was read

    def read(self, packet: bytes, now: float, lost: float) -> Sequence[WireItem] | None:
        """Record an exported packet; return the stranger's message in it, () if it has none, None if invalid.

        ``now`` is in monotonic seconds, and so is ``lost``, when a copied packet was last lost.
        """
        found = self._exports.read(packet, sure=now - lost >= SURE)
        if found is None:
            return None
        if not self._exported:  # the first one: before it, the export was not set up
            self._suppressed, self._began = -inf, now
        if found.unasked:
            self._suppressed = now
        self._exported.pop(found.remote, None)
        self._exported[found.remote] = now
        if len(self._exported) > MOST_CONNECTIONS:
            del self._exported[next(iter(self._exported))]
        return () if found.message is None else (found.message,)

    def on_events(self, events: Sequence[SecurityEvent]) -> None:
        """Record the connections by TLS and WSS from which AMI reports messages to PJSIP."""
        for event in events:
            if (
                event.remote.transport in _ENCRYPTED
                and event.service is Service.PJSIP
                and event.source.name == AMI
                and event.source.asterisk in self._asterisks
            ):
                self._reported.append((self._clock.mono(), event.remote))

    def alarms(self) -> Sequence[Alarm]:
        """Look for reported messages that were not exported in time; return the alarm about these.

        The alarm is active if a message was missing in the last 24 hours. Once Asterisk exports messages,
        those that were missing before the first one no longer count.
        """
        now = self._clock.mono()
        while self._reported and now - self._reported[0][0] >= EXPORT_WITHIN:
            at, remote = self._reported.popleft()
            if (
                self._wire.condition.state is State.LISTENING
                and at > self._began
                and self._exported.get(remote, -inf) < at - EXPORT_WITHIN
            ):
                self._suppressed = now
        if now - self._suppressed >= DAY:
            return ()
        text = _SUPPRESSED if self._wire.counts.exported else NO_EXPORT
        return (Alarm(HepAlarmCode.HEP_MISSING, "", text),)


def build(given: Given) -> ExportReader | None:
    """Return the reader of Asterisk's exported SIP messages; None if the export is not configured.

    The wire source passes exported packets on to it, and the pipeline the events of other sources.
    """
    settings, side = given.reloader.settings, given.side
    if given.wire is None or not targets(settings):
        return None

    def is_known(address: Address) -> bool:
        return side.detector.friends.has(address) or side.detector.exempt.covers(address)

    exports = Exports(streams(settings), side.exempt.protected.is_own, is_known)
    reader = ExportReader(exports, given.wire.source, side.common.clock, exporting(settings))
    given.wire.source.readers[PREFIX.encode()] = reader
    given.pipeline.listeners.append(reader)
    return reader
