"""From what the sources tell to what is done about it, and what an administrator is told on the way.

This is the path from an event to a ban: it waits for nobody. The same alarm is logged at most once in
``ALARM_EVERY``; how often it was raised is counted in between.
"""

from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address

import structlog
from attrs import evolve

from ringfence.clock import Clock
from ringfence.detect.detector import Decision, Detector, Judgement, Standing
from ringfence.model import (
    AMI,
    Attempt,
    AttemptKind,
    Challenge,
    EventKind,
    Network,
    Proof,
    SecurityEvent,
    Service,
    Transport,
)

ALARM_EVERY = 60.0  # seconds


class Evidence:
    """Judges evidence. ``ban`` carries out a decision.

    ``late`` is told what comes from who is banned, ``exempted`` what comes from who never is. ``whose`` is
    the Asterisk that the wire belongs to.
    """

    def __init__(
        self,
        detector: Detector,
        ban: Callable[[Decision], object],
        clock: Clock,
        late: Callable[[Attempt], object] = lambda _: None,
        exempted: Callable[[Attempt], object] = lambda _: None,
    ) -> None:
        self.whose = ""
        self._late = late
        self._exempted = exempted
        self._detector = detector
        self._ban = ban
        self._clock = clock
        self._log = structlog.get_logger()
        self._alarms: dict[str, tuple[float, int]] = {}
        self._forgeable: dict[str, None] = {}

    @property
    def problems(self) -> list[str]:
        """What is wrong with the evidence, a line each."""
        return [f"{asterisk}: {_FORGEABLE}" for asterisk in self._forgeable]

    def hear(self, events: Sequence[SecurityEvent], now: float) -> None:
        """Judge what a source told, which counts at ``now`` (monotonic seconds)."""
        for event in events:
            judgement = self._detector.observe(event, now)
            if judgement is not None:
                self._carry_out(judgement, now)
            if event.tampered:
                source, address = str(event.source), str(event.remote.address)
                self._alarm("evidence.tampered", now, source=source, address=address)
            if judgement is None or judgement.attempt.kind is not AttemptKind.MANAGER:
                continue
            if event.source.witness == AMI:
                self._forgeable[event.source.asterisk] = None
                self._alarm("evidence.forgeable", now, source=str(event.source), why=_FORGEABLE)

    def see(self, challenges: Sequence[Challenge], now: float) -> None:
        """Judge what the wire saw leave at ``now`` (monotonic seconds)."""
        self._carry_out_all(self._detector.see(challenges, now, self._clock.wall(), self.whose), now)

    def limited(self, networks: Iterable[Network], now: float) -> None:
        """Judge that these went over the kernel's limit of packets in the last second."""
        for network in networks:
            address = network.network_address
            if self._detector.subject_of(address) != network:  # a /64 in which somebody is never banned
                continue
            attempt = evolve(_OVER_THE_LIMIT, address=address, time=self._clock.wall())
            self._carry_out(self._detector.judge(attempt, now), now)

    def tend(self, *, wire: bool, listening: Callable[[str], float | None]) -> None:
        """Judge what has waited long enough; the arguments are those of :meth:`Detector.tend`."""
        now = self._clock.mono()
        late = self._detector.tend(now, self._clock.wall(), wire=wire, listening=listening)
        self._carry_out_all(late, now)

    def _carry_out_all(self, judgements: Iterable[Judgement], now: float) -> None:
        for judgement in judgements:
            self._carry_out(judgement, now)

    def _tell_who_is_passed_by(self, judgement: Judgement) -> None:
        if judgement.standing is Standing.LATE:
            self._late(judgement.attempt)
        elif judgement.standing is Standing.NEVER_BANNED:
            self._exempted(judgement.attempt)

    def _carry_out(self, judgement: Judgement, now: float) -> None:
        """Ban whom the judgement bans; then say what is strange about it."""
        if judgement.decision is not None:
            self._ban(judgement.decision)
        attempt = judgement.attempt
        if attempt.kind is not AttemptKind.FLOOD:  # the limiter meets who is banned before a reject
            self._tell_who_is_passed_by(judgement)
        address = str(attempt.address)
        if attempt.aimed_at is not None:
            self._alarm("evidence.aimed", now, address=address, at=str(attempt.aimed_at))
        elif judgement.standing is Standing.FORGED:
            self._alarm("evidence.forged", now, named=address, why=_FORGED)
        if attempt.event is EventKind.HIDDEN:
            self._alarm("evidence.hidden", now, address=address, why=_HIDDEN)
        if judgement.standing is Standing.WITHHELD:
            why = _CHAN_SIP if attempt.service is Service.SIP else _HEARSAY
            self._alarm("evidence.withheld", now, address=address, why=why)

    def _alarm(self, name: str, now: float, **fields: object) -> None:
        last, unsaid = self._alarms.get(name, (-ALARM_EVERY, 0))
        if now - last < ALARM_EVERY:
            self._alarms[name] = (last, unsaid + 1)
            return
        self._alarms[name] = (now, 0)
        self._log.warning(name, also_unsaid=unsaid, **fields)


_OVER_THE_LIMIT = Attempt(
    asterisk="",
    address=ip_address("0.0.0.0"),  # noqa: S104 - replaced
    kind=AttemptKind.FLOOD,
    proof=Proof.CLAIMED,
    service=Service.KERNEL,
    transport=Transport.UNKNOWN,
    account="",
    event=EventKind.LIMITED,
    time=0.0,
    trusted=True,
)
_FORGEABLE = (
    "failed manager logins are heard, and where the manager interface is also served over HTTP, one of them "
    "can forge any event: take the eventfilter line of contrib/asterisk into the manager user"
)
_FORGED = "a line of the log names an address that nothing was sent to: somebody writes lines into the log"
_HEARSAY = "only a notice in the log tells of it: somebody hides from the manager interface, or forges lines"
_HIDDEN = "Asterisk answered him and does not tell of it: somebody hides from its events"
_CHAN_SIP = (
    "chan_sip believes any address in a Via header, so what its events alone tell bans nobody: the wire "
    "([asterisk.wire]) and the notices in its log know the true one"
)
