"""From what the sources tell to what is done about it, and what an administrator is told on the way.

This is the path from an event to a ban: it waits for nobody, but at the very start: until it is known who the
friends of this PBX are, what rules decide on is kept and looked at again then (:meth:`Evidence.wait`), since
phones that fail now may have registered before there was anybody to see it.
"""

from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address

from attrs import evolve

from ringfence.alarms import Alarms
from ringfence.clock import Clock
from ringfence.detect.detector import Detector, Judgement, Standing
from ringfence.detect.judge import Decision
from ringfence.model import (
    AMI,
    Attempt,
    AttemptKind,
    Challenge,
    EventKind,
    Network,
    Proof,
    Scope,
    SecurityEvent,
    Service,
    Transport,
)

MOST_WAITING = 1_000
"""Decisions on so many subjects are kept at the start."""


class Evidence:
    """Judges evidence. ``ban`` carries out a decision, ``alarms`` are sounded.

    ``late`` is told what comes from who is banned, ``exempted`` what comes from who never is. ``whose`` is
    the Asterisk that the wire belongs to.
    """

    def __init__(
        self,
        detector: Detector,
        ban: Callable[[Decision], object],
        clock: Clock,
        alarms: Alarms,
        late: Callable[[Attempt], object] = lambda _: None,
        exempted: Callable[[Attempt], object] = lambda _: None,
    ) -> None:
        self.whose = ""
        self._late = late
        self._exempted = exempted
        self._detector = detector
        self._ban = ban
        self._clock = clock
        self._alarms = alarms
        self._waiting: dict[tuple[Network, Scope], Decision] | None = None
        self._forgeable: dict[str, None] = {}

    @property
    def problems(self) -> list[str]:
        """What is wrong with the evidence, a line each."""
        return [f"{asterisk}: {_FORGEABLE}" for asterisk in self._forgeable]

    def wait(self) -> None:
        """Carry nothing out until :meth:`go_on`."""
        self._waiting = {}

    def go_on(self) -> None:
        """Carry out what was decided meanwhile, but for those who turned out to be friends."""
        waiting, self._waiting = self._waiting or {}, None
        for decision in waiting.values():
            if not self._detector.friends.live_in(decision.subject):
                self._ban(decision)

    def hear(self, events: Sequence[SecurityEvent], now: float) -> None:
        """Judge what a source told, which counts at ``now`` (monotonic seconds)."""
        for event in events:
            judgement = self._detector.observe(event, now)
            if self._detector.further:
                self._carry_out_all(self._detector.take_further())
            if judgement is not None:
                self._carry_out(judgement)
            if event.tampered:
                self._alarms.sound("evidence.tampered", str(event.source), _TAMPERED)
            if judgement is None or judgement.attempt.kind is not AttemptKind.MANAGER:
                continue
            if event.source.witness == AMI:
                self._forgeable[event.source.asterisk] = None
                self._alarms.sound("evidence.forgeable", str(event.source), _FORGEABLE)
        self._tell()

    def see(self, challenges: Sequence[Challenge], now: float) -> None:
        """Judge what the wire saw leave at ``now`` (monotonic seconds)."""
        self._carry_out_all(self._detector.see(challenges, now, self._clock.wall(), self.whose))

    def limited(self, networks: Iterable[Network], now: float) -> None:
        """Judge that these went over the kernel's limit of packets in the last second."""
        for network in networks:
            address = network.network_address
            if self._detector.subject_of(address) != network:  # a /64 in which somebody is never banned
                continue
            attempt = evolve(_OVER_THE_LIMIT, address=address, time=self._clock.wall())
            self._carry_out(self._detector.judge(attempt, now))

    def tend(self, *, wire: bool, listening: Callable[[str], float | None]) -> None:
        """Judge what has waited long enough; the arguments are those of :meth:`Detector.tend`."""
        now = self._clock.mono()
        late = self._detector.tend(now, self._clock.wall(), wire=wire, listening=listening)
        self._carry_out_all(late)

    def _carry_out_all(self, judgements: Iterable[Judgement]) -> None:
        for judgement in judgements:
            self._carry_out(judgement)
        self._tell()

    def _tell(self) -> None:
        """Sound what came up."""
        if not self._detector.notices:
            return
        for notice in self._detector.take_notices():
            if notice.over:
                self._alarms.over(notice.name, notice.subject)
            else:
                self._alarms.sound(notice.name, notice.subject, notice.text, notice.lasts)

    def _decide(self, decision: Decision) -> None:
        if self._waiting is None:
            self._ban(decision)
        elif len(self._waiting) < MOST_WAITING:  # of the others those that go on are decided on again
            self._waiting[decision.subject, decision.scope] = decision

    def _tell_who_is_passed_by(self, judgement: Judgement) -> None:
        if judgement.standing is Standing.LATE:
            self._late(judgement.attempt)
        elif judgement.standing is Standing.NEVER_BANNED:
            self._exempted(judgement.attempt)

    def _carry_out(self, judgement: Judgement) -> None:
        """Ban whom the judgement bans; then say what is strange about it."""
        if judgement.decision is not None:
            self._decide(judgement.decision)
        attempt = judgement.attempt
        if attempt.kind is not AttemptKind.FLOOD:  # the limiter meets who is banned before a reject
            self._tell_who_is_passed_by(judgement)
        address = str(attempt.address)
        sound = self._alarms.sound
        if attempt.aimed_at is not None:
            sound("evidence.aimed", address, _AIMED.format(at=attempt.aimed_at))
        elif judgement.standing is Standing.FORGED:
            sound("evidence.forged", address, _FORGED)
        if attempt.event is EventKind.HIDDEN:
            sound("evidence.hidden", address, _HIDDEN)
        if judgement.standing is Standing.WITHHELD:
            sound("evidence.withheld", address, _CHAN_SIP if attempt.service is Service.SIP else _HEARSAY)


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
_TAMPERED = "somebody sends what forges events; they are counted as their true sender's"
_AIMED = "blames {at} for his attempts, by a header; they are counted as his own"
_FORGED = "a line of the log names an address that nothing was sent to: somebody writes lines into the log"
_HEARSAY = "only a notice in the log tells of it: somebody hides from the manager interface, or forges lines"
_HIDDEN = "Asterisk answered him and does not tell of it: somebody hides from its events"
_CHAN_SIP = (
    "chan_sip believes any address in a Via header, so what its events alone tell bans nobody: the wire "
    "([asterisk.wire]) and the notices in its log know the true one"
)
