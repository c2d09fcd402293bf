"""Passes the reports of all sources to the detector, and carries out the effects that it returns.

No function here is async, so reports are handled completely, one after the other.
"""

from collections.abc import Callable, Sequence
from itertools import groupby

from ringfence.clock import Clock
from ringfence.config.schema import Settings
from ringfence.daemon.effects import EffectHandler
from ringfence.detect.confirmation import KnownSources
from ringfence.detect.detector import Detector
from ringfence.model import (
    Challenge,
    Contact,
    EventKind,
    ObservedRequest,
    SecurityEvent,
    Service,
    SourceId,
    Transport,
)

# Module-level aliases: enum member lookups are slow in code that runs for each event.
_SIP, _ENCRYPTED = Service.SIP, (Transport.TLS, Transport.WSS)


def known_sources(settings: Settings) -> KnownSources:
    """Return what the detector must know about the sources, and the addresses of the SIP proxies.

    It must know which PBXs have several sources, and which have AMI or the wire as a source.
    """
    return KnownSources(settings.several_sources(), settings.corroborated(), proxies=settings.proxies())


class Pipeline:
    """Passes the reports of the sources to ``detector``, and its results to ``effects``.

    The packets of the wire source count for the Asterisk with the name ``wire_asterisk``. ``watch`` is called
    with the events of every other source, before they are judged.
    """

    def __init__(
        self,
        detector: Detector,
        effects: EffectHandler,
        clock: Clock,
        wire_asterisk: str,
        watch: Callable[[Sequence[SecurityEvent]], object] = lambda _: None,
    ) -> None:
        self.wire_asterisk = wire_asterisk
        self.chan_sip_tls: set[str] = set()
        """The Asterisks whose chan_sip has reported a request over TLS or WSS."""
        self.events: dict[SourceId, dict[EventKind, int]] = {}
        """The number of events that each source except the wire has reported, by kind."""
        self._detector = detector
        self._effects = effects
        self._clock = clock
        self._watch = watch

    def configure(self, new: Settings) -> None:
        """Apply a new configuration."""
        self.wire_asterisk = new.asterisk[0].name
        self._effects.carry_out(self._detector.configure(new.rule_table(), known_sources(new), new.claims()))

    def on_events(self, events: Sequence[SecurityEvent], now: float) -> None:
        """Judge the events of AMI or a log. They count as having arrived at ``now`` (monotonic seconds)."""
        self._watch(events)
        for event in events:
            kinds = self.events.get(event.source)
            if kinds is None:
                kinds = self.events[event.source] = dict.fromkeys(EventKind, 0)
            kinds[event.kind] += 1
            if event.service is _SIP and event.remote.transport in _ENCRYPTED:
                self.chan_sip_tls.add(event.source.asterisk)
            self._effects.carry_out(self._detector.observe(event, now))
            if event.tampered or event.forgeable:
                self._effects.warn_of(event)

    def on_challenges(self, seen: Sequence[Challenge | ObservedRequest], now: float) -> None:
        """Judge what the wire source has read, in order, at ``now`` (monotonic seconds).

        ``seen`` has challenges, and requests of senders that the kernel observes. An empty ``seen`` only
        shows the detector that the wire is read.
        """
        for requests, group in groupby(seen, lambda one: isinstance(one, ObservedRequest)):
            if requests:
                copied = [one for one in group if isinstance(one, ObservedRequest)]
                effects = self._detector.observe_requests(copied, now, self.wire_asterisk)
                self._effects.carry_out(effects)
            else:
                self._on_answers([one for one in group if isinstance(one, Challenge)], now)
        if not seen:
            self._on_answers((), now)

    def _on_answers(self, answers: Sequence[Challenge], now: float) -> None:
        wall = self._clock.wall()
        self._effects.carry_out(self._detector.observe_challenges(answers, now, wall, self.wire_asterisk))

    def on_contact(self, contact: Contact, now: float) -> None:
        """Handle the change of a phone's contact at ``now`` (monotonic seconds)."""
        self._effects.carry_out(self._detector.observe_contact(contact, now))

    def tick(self, *, wire: bool, listening: Callable[[str], float | None]) -> None:
        """Judge the attempts that have waited long enough for a report of another source.

        ``wire``: whether the wire source sees every challenge now. ``listening`` returns the time since which
        the AMI of an Asterisk delivers events (monotonic seconds); None if it does not.
        """
        now = self._clock.mono()
        effects = self._detector.tick(now, self._clock.wall(), wire=wire, listening=listening)
        self._effects.carry_out(effects)
