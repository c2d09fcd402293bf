"""Judges the sources of packets that exceed the limiter's rate, over UDP or over TCP."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import ip_address

from attrs import evolve

from ringfence.clock import Clock
from ringfence.daemon.effects import EffectHandler
from ringfence.daemon.limiter_watch import LimiterWatch
from ringfence.daemon.tcp_floods import TcpFloods
from ringfence.detect.detector import Detector
from ringfence.detect.judgement import Decision, Disposition, Effect, Judgement
from ringfence.detect.rules import Rule
from ringfence.firewall.contract import Flooder
from ringfence.model import (
    Address,
    Attempt,
    AttemptKind,
    EventKind,
    Network,
    Proof,
    Scope,
    Service,
    Transport,
)


class FloodJudge:
    """Judges the sources that sent more packets than the limiter allows.

    :meth:`look` is called once a second. Each second over the limit counts as one attempt of the source. Over
    TCP, it counts only if the address has, or recently had, a TCP connection. ``had_connection`` returns
    whether an address has or had one; None if that is unknown.
    """

    def __init__(
        self,
        limiter: LimiterWatch,
        detector: Detector,
        had_connection: Callable[[Address], bool | None],
        effects: EffectHandler,
        clock: Clock,
    ) -> None:
        self._limiter = limiter
        self._effects = effects
        self._detector = detector
        self._had_connection = had_connection
        self._clock = clock
        self._tcp_floods = TcpFloods()

    def look(self) -> None:
        """Judge the sources that exceeded the limit in the last second."""
        self._effects.carry_out(self.judge(self._limiter.new_flooders(), self._clock.mono()))

    def judge(self, flooders: Sequence[Flooder], now: float) -> Iterator[Effect]:
        """Judge the sources that exceeded the limit for one second, and yield the effects.

        ``now`` is the end of this second (monotonic seconds).
        """
        yield from self._by_udp([one.network for one in flooders if not one.tcp], now)
        yield from self._by_tcp([one.network for one in flooders if one.tcp], now)

    def _by_udp(self, networks: Iterable[Network], now: float) -> Iterator[Effect]:
        for network in networks:
            address = network.network_address
            # A /64 that contains an exempt address is no subject. Such a /64 is not judged.
            if self._detector.subject_of(address) == network:
                attempt = evolve(_OVER_THE_LIMIT, address=address, time=self._clock.wall())
                yield from self._detector.judge(attempt, now)

    def _by_tcp(self, networks: Iterable[Network], now: float) -> Iterator[Effect]:
        """Count one second over the limit for each source whose address has, or recently had, a connection.

        The source addresses of single TCP packets can be forged. A connection proves that a sender has the
        address, so only addresses with a connection are banned. Nothing is counted for an address if its
        connections are unknown, if it is exempt or a friend, or if it is banned already.
        """
        rules = (rule for rule in self._detector.rules if rule.enabled and AttemptKind.FLOOD in rule.counts)
        rule = next(rules, None)
        if rule is None:
            return
        counted = set[Network]()
        for network in networks:
            address = network.network_address
            subject = self._detector.subject_of(address)
            if subject not in counted and self._may_be_banned_by_tcp(subject, address):
                counted.add(subject)
                yield from self._count_tcp(subject, address, rule, now)

    def _count_tcp(self, subject: Network, address: Address, rule: Rule, now: float) -> Iterator[Effect]:
        attempt = evolve(_OVER_THE_LIMIT, address=address, time=self._clock.wall(), transport=Transport.TCP)
        attempts = self._tcp_floods.add(subject, attempt, rule, now)
        if attempts:
            decision = Decision(subject, rule, attempts, now, Scope.SIP_TCP, rule.ban_for(0))
            yield Judgement(attempt, subject, Disposition.COUNTED, decision)

    def _may_be_banned_by_tcp(self, subject: Network, address: Address) -> bool:
        detector = self._detector
        exempt = detector.exempt.covers(address) or detector.friends.has(address)
        banned = any(detector.banned(subject, scope) for scope in (Scope.FULL, Scope.SIP, Scope.SIP_TCP))
        return not exempt and not banned and self._had_connection(address) is True


_OVER_THE_LIMIT = Attempt(
    asterisk="",
    address=ip_address("0.0.0.0"),  # noqa: S104 - replaced by the address of the source
    kind=AttemptKind.FLOOD,
    proof=Proof.CLAIMED,
    service=Service.KERNEL,
    transport=Transport.UNKNOWN,
    account="",
    event=EventKind.LIMITED,
    time=0.0,
    trusted=True,
)
