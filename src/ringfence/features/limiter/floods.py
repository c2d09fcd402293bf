"""Floods: sources that send more packets than the limiter allows become attempts."""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import ip_address

from attrs import evolve, frozen

from ringfence.alarms import Alarms
from ringfence.bans.enforcer import Enforcer
from ringfence.clock import Clock
from ringfence.detect.detector import Detector
from ringfence.detect.judgement import Decision, Disposition, Effect, Judgement
from ringfence.detect.rules import Rule
from ringfence.errors import FirewallError
from ringfence.features.limiter.alarms import LimiterAlarmCode
from ringfence.features.limiter.stage import FLOODS, TCP_FLOODS, Limit
from ringfence.firewall.contract import Backend
from ringfence.firewall.limits import LimitMode
from ringfence.guard.pipeline import EffectHandler
from ringfence.values.attempt import Attempt, AttemptKind, Proof
from ringfence.values.ban import Scope
from ringfence.values.event import EventKind, Service, Transport
from ringfence.values.network import Address, Network

# -- reads from the kernel which sources send more than the limiter allows


@frozen
class Flooder:
    """A source that sends more packets than the limiter permits.

    ``packets`` is the number of its packets over the limit so far: by TCP if ``tcp`` is true, else by UDP.
    ``network`` is an address, or for IPv6 by UDP a /64.
    """

    network: Network
    packets: int
    tcp: bool = False


class FloodWatch:
    """Reads from the kernel which sources exceed the limit of packets. A failure activates an alarm."""

    def __init__(self, backend: Backend, enforcer: Enforcer, alarms: Alarms) -> None:
        self._backend = backend
        self._enforcer = enforcer
        self._alarms = alarms
        self._packets: dict[tuple[Network, bool], int] = {}
        self._failed = False

    def new_flooders(self) -> Sequence[Flooder]:
        """Return the sources that exceeded the limit of packets since the last call.

        Return [] if nothing is enforced, if the limiter is off or only observes, or if the sources cannot be
        read. The second failure in a row activates an alarm. A first failure does not, because it may come
        from damage that is repaired at once.
        """
        if not self._enforcer.enforcing or self._backend.plan.mode(Limit.name) is not LimitMode.ENFORCE:
            return []
        try:
            found = [
                Flooder(one.network, one.packets, tcp)
                for table, tcp in ((FLOODS, False), (TCP_FLOODS, True))
                for one in self._backend.remembered(table)
            ]
        except FirewallError as error:
            if self._failed:
                text = f"floods cannot be read: {error}"
                self._alarms.activate(LimiterAlarmCode.LIMITER_UNREADABLE, "", text)
            self._failed = True
            return []
        self._failed = False
        self._alarms.clear(LimiterAlarmCode.LIMITER_UNREADABLE, "")
        before = self._packets
        self._packets = {(flooder.network, flooder.tcp): flooder.packets for flooder in found}
        return [one for one in found if one.packets != before.get((one.network, one.tcp), 0)]


# -- TCP floods of the SIP ports: seconds in which a subject sent more TCP packets than the limiter allows
#
# They are counted separately from UDP floods, because the source addresses of UDP packets are easily
# forged. An attacker could send such packets with the address of a sender that has a TCP connection. They
# must not count against this sender.


_MOST = 4_096


class TcpFloods:
    """Remembers in which seconds a sender exceeded the limit of packets by TCP, for at most 4,096 senders.

    If there are more, the sender that has been within the limit for the longest time is discarded.
    """

    def __init__(self) -> None:
        self._seconds: OrderedDict[Network, deque[tuple[float, Attempt]]] = OrderedDict()

    def add(self, subject: Network, attempt: Attempt, rule: Rule, now: float) -> tuple[Attempt, ...]:
        """Record that the sender ``subject`` was over the limit for one second, as ``attempt``.

        ``now`` is in monotonic seconds. If the sender now has enough attempts for a ban by ``rule``, return
        and forget them. Otherwise return ().
        """
        seconds = self._seconds.setdefault(subject, deque())
        self._seconds.move_to_end(subject)
        seconds.append((now, attempt))
        while now - seconds[0][0] >= rule.window:
            seconds.popleft()
        if len(seconds) >= rule.attempts:
            del self._seconds[subject]
            return tuple(one for _, one in seconds)
        if len(self._seconds) > _MOST:
            self._seconds.popitem(last=False)
        return ()


# -- judges the sources of packets that exceed the limiter's rate, over UDP or over TCP


class FloodJudge:
    """Judges the sources that sent more packets than the limiter allows.

    :meth:`check` is called once a second. Each second over the limit counts as one attempt of the source.
    Over TCP, it counts only if the address has, or recently had, a TCP connection. ``had_connection`` returns
    whether an address has or had one; None if that is unknown.
    """

    def __init__(
        self,
        watch: FloodWatch,
        detector: Detector,
        had_connection: Callable[[Address], bool | None],
        effects: EffectHandler,
        clock: Clock,
    ) -> None:
        self._watch = watch
        self._effects = effects
        self._detector = detector
        self._had_connection = had_connection
        self._clock = clock
        self._tcp_floods = TcpFloods()

    def check(self) -> None:
        """Judge the sources that exceeded the limit of packets in the last second, and ban if necessary."""
        self._effects.carry_out([*self.judge(self._watch.new_flooders(), self._clock.mono())])

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

        Yield a judgement with a ban for each source that now has enough such seconds.
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
            if subject not in counted and self._may_be_banned_by_tcp(address, now):
                counted.add(subject)
                yield from self._count_tcp(subject, address, rule, now)

    def _count_tcp(self, subject: Network, address: Address, rule: Rule, now: float) -> Iterator[Effect]:
        attempt = evolve(_OVER_THE_LIMIT, address=address, time=self._clock.wall(), transport=Transport.TCP)
        attempts = self._tcp_floods.add(subject, attempt, rule, now)
        if attempts:
            decision = Decision(subject, rule, attempts, now, Scope.SIP_TCP, rule.ban_for(0))
            yield Judgement(attempt, subject, Disposition.COUNTED, decision)

    def _may_be_banned_by_tcp(self, address: Address, now: float) -> bool:
        detector = self._detector
        exempt = detector.exempt.covers(address) or detector.friends.has(address)
        banned = detector.is_banned(address, Scope.SIP_TCP, now)
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
