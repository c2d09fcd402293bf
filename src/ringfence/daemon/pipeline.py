"""The way from an event to a ban and to the alarms.

It waits for nothing, except at the start. Until the friends of this PBX are known, the decisions of rules are
kept and checked again later (:meth:`Pipeline.pause`), because a phone that fails now may have registered
before the daemon started.
"""

from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from itertools import groupby

from attrs import evolve

from ringfence.alarm_codes import AlarmCode
from ringfence.alarms import Alarms
from ringfence.clock import Clock
from ringfence.detect.alarms import FORGED_BY_TEXT
from ringfence.detect.detector import Detector
from ringfence.detect.judge import Decision
from ringfence.detect.judgement import Disposition, Effect, Judgement, Login
from ringfence.detect.tcp_floods import TcpFloods
from ringfence.detect.unconfirmed import why_unconfirmed
from ringfence.model import (
    AMI,
    Address,
    AlarmChange,
    Attempt,
    AttemptKind,
    Challenge,
    Contact,
    EventKind,
    Network,
    ObservedRequest,
    Proof,
    Scope,
    SecurityEvent,
    Service,
    Transport,
)

# Module-level aliases: enum member lookups are slow in code that runs for each event.
_SIP, _TLS = Service.SIP, Transport.TLS

MOST_WAITING = 1_000
"""At the start, decisions on at most this many subjects are kept."""


class Pipeline:
    """Judges the reports of the sources. ``ban`` carries out a decision; ``alarms`` are updated.

    ``learn`` is called with each login that makes a friend.

    ``late`` is called for attempts of banned addresses, ``exempted`` for attempts of exempt ones. ``observe``
    is called with addresses whose requests the kernel is to copy. ``unshield`` is called when a friend may
    have lost the limiter's exemption. ``wire_asterisk`` is the Asterisk that the wire belongs to.
    ``had_connection`` returns whether an address has, or recently had, a TCP connection to this host; None if
    unknown.
    """

    def __init__(
        self,
        detector: Detector,
        ban: Callable[[Decision], object],
        clock: Clock,
        alarms: Alarms,
        late: Callable[[Attempt], object] = lambda _: None,
        exempted: Callable[[Attempt], object] = lambda _: None,
        observe: Callable[[Iterable[Address]], object] = lambda _: None,
        unshield: Callable[[], object] = lambda: None,
        had_connection: Callable[[Address], bool | None] = lambda _: None,
        learn: Callable[[SecurityEvent], object] = lambda _: None,
    ) -> None:
        self.wire_asterisk = ""
        self.chan_sip_tls: set[str] = set()
        """The Asterisks whose chan_sip has reported a request over TLS."""
        self._late = late
        self._exempted = exempted
        self._observe = observe
        self._unshield = unshield
        self._learn = learn
        self._detector = detector
        self._ban = ban
        self._clock = clock
        self._alarms = alarms
        self._held: dict[tuple[Network, Scope], Decision] | None = None
        self._had_connection = had_connection
        self._tcp_floods = TcpFloods()

    def pause(self) -> None:
        """Keep decisions instead of carrying them out, until :meth:`resume`."""
        self._held = {}

    def resume(self) -> None:
        """Carry out the decisions that were kept, except those on friends."""
        waiting, self._held = self._held or {}, None
        for decision in waiting.values():
            if not self._detector.friends.any_in(decision.subject):
                self._ban(decision)

    def on_events(self, events: Sequence[SecurityEvent], now: float) -> None:
        """Judge the events of a source, which count at ``now`` (monotonic seconds)."""
        for event in events:
            if event.service is _SIP and event.remote.transport is _TLS:
                self.chan_sip_tls.add(event.source.asterisk)
            self.carry_out(self._detector.observe(event, now))
            if event.tampered:
                self._alarms.activate(AlarmCode.EVIDENCE_TAMPERED, str(event.source), _TAMPERED)
            if event.forgeable and event.source.name == AMI:
                self._alarms.activate(AlarmCode.EVIDENCE_FORGEABLE, str(event.source), _FORGEABLE)

    def on_challenges(self, seen: Sequence[Challenge | ObservedRequest], now: float) -> None:
        """Judge what the wire saw at ``now`` (monotonic seconds), in its order."""
        for requests, group in groupby(seen, lambda one: isinstance(one, ObservedRequest)):
            if requests:
                copied = [one for one in group if isinstance(one, ObservedRequest)]
                self.carry_out(self._detector.observe_requests(copied, now, self.wire_asterisk))
            else:
                answers = [one for one in group if isinstance(one, Challenge)]
                self.carry_out(
                    self._detector.observe_challenges(answers, now, self._clock.wall(), self.wire_asterisk)
                )
        if not seen:
            self.carry_out(self._detector.observe_challenges((), now, self._clock.wall(), self.wire_asterisk))

    def on_contact(self, contact: Contact, now: float) -> None:
        """Judge a contact change (monotonic seconds)."""
        self.carry_out(self._detector.observe_contact(contact, now))

    def on_udp_floods(self, networks: Iterable[Network], now: float) -> None:
        """Judge that these networks exceeded the kernel's packet limit in the last second."""
        for network in networks:
            address = network.network_address
            if self._detector.subject_of(address) != network:  # a /64 that contains an exempt address
                continue
            attempt = evolve(_OVER_THE_LIMIT, address=address, time=self._clock.wall())
            self.carry_out(self._detector.judge(attempt, now))

    def on_tcp_floods(self, networks: Iterable[Network], now: float) -> None:
        """Count a second in which these networks exceeded the limit of TCP packets to the SIP ports.

        A TCP segment can be forged like a datagram, and a ban of TCP must hit its sender. So only an address
        with a connection counts; if connections are unknown, no address counts.
        """
        rules = (rule for rule in self._detector.rules if rule.enabled and AttemptKind.FLOOD in rule.counts)
        rule = next(rules, None)
        counted = set[Network]()
        for network in networks if rule is not None else ():
            address = network.network_address
            subject = self._detector.subject_of(address)
            if rule is None or subject in counted or not self._may_be_banned_by_tcp(subject, address):
                continue
            counted.add(subject)
            attempt = evolve(
                _OVER_THE_LIMIT, address=address, time=self._clock.wall(), transport=Transport.TCP
            )
            attempts = self._tcp_floods.add(subject, attempt, rule, now)
            if attempts:
                seconds = rule.ban_for(0)
                self._decide(Decision(subject, rule, attempts, now, Scope.SIP_TCP, seconds))

    def _may_be_banned_by_tcp(self, subject: Network, address: Address) -> bool:
        detector = self._detector
        exempt = detector.exempt.covers(address) or detector.friends.has(address)
        banned = any(detector.banned(subject, scope) for scope in (Scope.FULL, Scope.SIP_TCP))
        return not exempt and not banned and self._had_connection(address) is True

    def tick(self, *, wire: bool, listening: Callable[[str], float | None]) -> None:
        """Judge what has waited long enough; the arguments are those of :meth:`Detector.tick`."""
        now = self._clock.mono()
        self.carry_out(self._detector.tick(now, self._clock.wall(), wire=wire, listening=listening))

    def carry_out(self, effects: Iterable[Effect]) -> None:
        """Carry out the effects of a report, in their order."""
        for effect in effects:
            if isinstance(effect, Judgement):
                self._apply(effect)
            elif isinstance(effect, Login):
                self._learn(effect.event)
            else:
                self._change_alarm(effect)

    def _change_alarm(self, change: AlarmChange) -> None:
        if change.cleared:
            self._alarms.clear(change.code, change.subject)
        else:
            self._alarms.activate(change.code, change.subject, change.text, change.lasts)
        if change.code is AlarmCode.EVIDENCE_UNPROVABLE:
            self._unshield()

    def _decide(self, decision: Decision) -> None:
        if self._held is None:
            self._ban(decision)
        elif len(self._held) < MOST_WAITING:  # the rest is decided again if it continues
            self._held[decision.subject, decision.scope] = decision

    def _report_unaffected(self, judgement: Judgement) -> None:
        if judgement.disposition is Disposition.LATE:
            self._late(judgement.attempt)
        elif judgement.disposition is Disposition.EXEMPT:
            self._exempted(judgement.attempt)

    def _apply(self, judgement: Judgement) -> None:
        """Carry out the judgement's decision, then activate the alarms that belong to the attempt."""
        if judgement.decision is not None:
            self._decide(judgement.decision)
        attempt = judgement.attempt
        if judgement.suspect and judgement.disposition not in (Disposition.LATE, Disposition.EXEMPT):
            self._observe((attempt.address,))
        if attempt.kind is not AttemptKind.FLOOD:  # the limiter runs before a reject
            self._report_unaffected(judgement)
        address = str(attempt.address)
        activate = self._alarms.activate
        if attempt.forged_address is not None:
            own = judgement.disposition is not Disposition.FORGED
            text = FORGED_BY_TEXT if own else _TWO_NAMES
            activate(AlarmCode.EVIDENCE_FORGED_BY, address, text.format(at=attempt.forged_address))
        elif judgement.disposition is Disposition.FORGED:
            activate(AlarmCode.EVIDENCE_FORGED, address, _FORGED)
        if attempt.event is EventKind.HIDDEN:
            activate(AlarmCode.EVIDENCE_HIDDEN, address, _HIDDEN)
        if judgement.disposition is Disposition.UNCONFIRMED:
            activate(AlarmCode.EVIDENCE_UNCONFIRMED, address, _LISTED.format(why=why_unconfirmed(attempt)))


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
    "an HTTP client can forge events inside the user name of a manager login, so events that came with one "
    "cause no ban by themselves; fix: webenabled = no in manager.conf [general] and manager reload; or, if "
    "it is needed, the eventfilter line of ringfence.manager.conf and systemctl restart ringfence"
)
_TAMPERED = "a request contained text that imitates AMI events; it counts as an attempt of its true sender"
_TWO_NAMES = (
    "AMI names {at} and the log names this address for one attempt of chan_sip: without the wire neither is "
    "proof, so neither is banned"
)
_FORGED = (
    "a log line names this address, but Asterisk sent it nothing: a sender made Asterisk write that line, so "
    "it does not count"
)
_LISTED = "{why}, so it is listed and not banned"
_HIDDEN = "Asterisk answered its request and reported no event: the sender hides from Asterisk's events"
