"""All orders in which the reports of a few actions can reach the guard: each is played, and each is judged.

Actions of one moment make reports in three sources: AMI, the wire (with the copies of requests) and the log.
Each source keeps its own order. Otherwise every order is possible; of a single action also with a second of
waiting in any place, and with any single report lost. There are a million orders of two guesses. But most of
them lead to the same state of the parsers and the detector, and each state is followed only once.

The guard here is the real parsers and the real detector. Its bans are in force as soon as it decides them.
"""

import enum
import pickle
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC
from hashlib import blake2b
from ipaddress import ip_address, ip_network
from itertools import combinations_with_replacement
from types import FunctionType, MethodType

from tests.judge.asterisk import HERE, PBX, Act, Report
from tests.judge.guard import begin
from tests.judge.oracle import Judge, View, Violation
from tests.judge.others import exchange
from tests.judge.worlds import ATTACKERS, LAMPS, PHONES, SETTLES, START, TRUNK, VICTIM, written
from tests.scenarios.stage import _Streams

from ringfence.config.loader import parse
from ringfence.detect.confirmation import KnownSources
from ringfence.detect.detector import Detector
from ringfence.detect.judgement import Counts, Disposition, Judgement, Login
from ringfence.detect.single_attempts import SingleAttempts
from ringfence.parse.ami import AmiDecoder
from ringfence.parse.answer_stream import AnswerStreams
from ringfence.parse.answers import parse_answers
from ringfence.parse.log import LogReader
from ringfence.parse.request_stream import RequestStreams
from ringfence.parse.requests import parse_requests
from ringfence.values.ban import Scope
from ringfence.values.event import AMI, SecurityEvent, SourceId
from ringfence.values.friend import Friend, FriendReason
from ringfence.values.network import format_network

UP_FOR = 100_000.0
"""The monotonic clock at the start."""

ALMOST = 4
"""The number of guesses after which one more leads to a ban."""

_A, _P, _OTHER = ATTACKERS[0], PHONES[0], "203.0.113.99"
MENU = (
    Act("guesses", _A),
    Act("guesses", _A, account="900"),
    Act("guesses", _A, transport="TCP"),
    Act("guesses in one call", _A),
    Act("guesses blind", _A),
    Act("guesses elsewhere", _A, VICTIM),
    Act("asks", _A, account="900"),
    Act("asks elsewhere", _A, VICTIM),
    Act("hides", _A),
    Act("hides", _A, transport="TCP"),
    Act("hides and blames", _A, VICTIM),
    Act("forges a guess", _A, VICTIM),
    Act("forges a guess", ATTACKERS[1], _A),
    Act("guesses", _P, account="205"),
    Act("logs in", _P),
    Act("logs in", _P, transport="TCP"),
    Act("lamp refused", LAMPS),
    Act("call refused", LAMPS),
    Act("guesses at chan_sip", _A),
    Act("guesses behind garbage", _A),
    Act("hides by headers", _A),
    Act("hides by headers blind", _A),
    Act("covers a guess", _A),
)
"""The actions of which worlds are made."""

_NOT_COUNTED = (Disposition.COUNTED_BEFORE, Disposition.FORGED, Disposition.UNCONFIRMED)
_CLAIMED_SCOPES = (Scope.SIP_UDP, Scope.SIP_TCP)


class SmallGuard:
    """The parsers and the detector; ``now`` is the time since the start (seconds)."""

    def __init__(self) -> None:
        self.now = 0.0
        self.bans: set[tuple[str, Scope]] = set()
        self.counted = Counter[str]()
        self._streams = _Streams()
        self._detector = Detector(
            parse({}, "judge", {}, secrets=False).rule_table(),
            connections=self._streams,
            sources=KnownSources(frozenset({PBX}), frozenset({PBX})),
        )
        trunk = Friend(PBX, ip_address(TRUNK), "carrier", FriendReason.TRUNK, 0.0, 0.0, START + 1e9)
        self._detector.friends.add(trunk)
        self._ami = AmiDecoder(SourceId(PBX, AMI))
        self._ami.receive(b"Asterisk Call Manager/11.0.0\r\n", UP_FOR)
        self._requests, self._answers = RequestStreams(), AnswerStreams()
        self._log = LogReader(SourceId(PBX, "log:full"), timezone=UTC)
        self.tick()

    @property
    def mark(self) -> bytes:
        """A hash that is equal for equal states, whatever the order of entries in tables."""
        return _mark(self, {})

    @property
    def view(self) -> View:
        """The guard as seen from outside; it has one list of bans."""
        bans = frozenset((network, str(scope)) for network, scope in self.bans)
        return View(bans, bans, bans, bans, dict(self.counted))

    def connected(self, address: str, port: int) -> None:
        """Record a TCP connection."""
        self._streams.remotes[ip_address(address), port] = None
        if self.copies(address):
            begin(address, port, HERE, self._requests, self._answers)

    def copies(self, address: str) -> bool:
        """Whether the kernel copies the requests of an address, because it is a stranger."""
        return not self._detector.friends.any_in(ip_network(address))

    def take(self, step: Report) -> None:
        """Read a report, lose one, or wait for a second. Only the wire notices a loss."""
        if step == _SECOND:
            self.wait(1.0)
        elif not step.source.startswith(_LOST):
            self.report(step)
        elif not step.source.endswith(("ami", "log")):
            self._detector.observe_loss(UP_FOR + self.now)

    def report(self, report: Report) -> None:
        """Read the bytes of one source."""
        now = UP_FOR + self.now
        if report.source == "ami":
            self._observe(
                one for one in self._ami.receive(report.data, now) if isinstance(one, SecurityEvent)
            )
        elif report.source == "log":
            self._observe(one.event for one in self._log.receive(report.data, now) if one.event is not None)
        elif report.source == "wire":
            answers = parse_answers(report.data, self._answers)
            self._apply(self._detector.observe_answers(answers, now, START + self.now, PBX))
        else:
            requests = parse_requests(report.data, self._requests)
            assert requests is not None
            self._apply(self._detector.observe_requests(requests, now, PBX))

    def wait(self, seconds: float) -> None:
        """Advance the time, with the periodic work of each second."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 1.0)
            self.tick()

    def tick(self) -> None:
        """Do the periodic work."""
        now = UP_FOR + self.now
        self._observe(one for one in self._ami.tick(now) if isinstance(one, SecurityEvent))
        self._observe(one.event for one in self._log.receive(b"", now) if one.event is not None)
        self._apply(self._detector.tick(now, START + self.now, wire=True, listening={PBX: 0.0}))

    def _observe(self, events: Iterator[SecurityEvent]) -> None:
        for event in events:
            self._apply(self._detector.observe(event, UP_FOR + self.now))

    def _apply(self, effects: Sequence[object]) -> None:
        for effect in effects:
            if isinstance(effect, Judgement):
                if effect.disposition not in _NOT_COUNTED:
                    self.counted[str(effect.attempt.address)] += 1
                decision = effect.decision
                if decision is not None:
                    self.bans.add((format_network(decision.subject), decision.scope))
                    self._detector.bans.assume(decision.subject, decision.scope, UP_FOR + self.now + 600.0)
            elif isinstance(effect, Login):
                self._detector.friends.add(effect.friend)
                mine = {(str(effect.friend.address), scope) for scope in _CLAIMED_SCOPES}
                self.bans -= mine


_PLAIN = (str, bytes, int, float, bool, type(None), enum.Enum, type)


def _mark(value: object, known: dict[int, bytes]) -> bytes:
    """Return a hash that is equal for equal objects. ``known`` has the hashes so far, by identity.

    The numbers of the statistics (``Counts``) decide nothing, so they are left out.
    """
    if isinstance(value, _PLAIN):
        return repr(value).encode()
    if isinstance(value, Counts | FunctionType | MethodType):
        return b"left out"
    found = known.get(id(value))
    if found is not None:
        return found
    known[id(value)] = b"itself"  # for an object that contains itself
    parts: list[bytes]
    if isinstance(value, Mapping):
        parts = sorted(_mark(key, known) + b":" + _mark(one, known) for key, one in value.items())
    elif isinstance(value, set | frozenset | SingleAttempts):
        parts = sorted(_mark(one, known) for one in value)
    elif isinstance(value, list | tuple | deque):
        parts = [_mark(one, known) for one in value]
    else:
        slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
        names = sorted({*slots, *getattr(value, "__dict__", {})} - {"__weakref__", "__dict__"})
        parts = [name.encode() + b"=" + _mark(getattr(value, name, None), known) for name in names]
        parts += [] if names else [repr(value).encode()]
    found = blake2b(b"|".join([type(value).__name__.encode(), *parts]), digest_size=16).digest()
    known[id(value)] = found
    return found


@dataclass(frozen=True)
class World:
    """Actions of one moment. ``guesses`` of the first sender came before. ``lost`` is a report's number."""

    acts: tuple[Act, ...]
    guesses: int = 0
    lost: int | None = None

    def __str__(self) -> str:
        lines = [f"{self.guesses} guesses before", *map(written, self.acts)]
        return "\n".join([*lines, *([f"report {self.lost} is lost"] if self.lost is not None else [])])


@dataclass(frozen=True)
class Outcome:
    """The result of following a world: the number of states, and the first violations with their order."""

    states: int
    violations: tuple[Violation, ...] = ()
    order: tuple[str, ...] = ()


def worlds() -> Iterator[World]:
    """Yield all worlds of one action with each report lost, then all worlds of two actions."""
    for act in MENU:
        for guesses in (0, ALMOST):
            number = sum(map(len, exchange(act, START, 1).reports(copied=True)))
            yield from (World((act,), guesses, lost) for lost in (None, *range(number)))
    for pair in combinations_with_replacement(MENU, 2):
        for guesses in (0, ALMOST):
            yield World(pair, guesses)


_Place = tuple[int, ...]
"""How many reports of each source have arrived."""
_State = tuple[bytes, tuple[str, ...]]
"""The guard, and the order of the reports that led to it."""


def follow(world: World) -> Outcome:
    """Follow all orders of a world until an invariant does not hold."""
    judge, guard = Judge((TRUNK,), sees_all=world.lost is None), SmallGuard()
    queues = _begin(world, judge, guard)
    places: dict[_Place, dict[bytes, _State]] = {(0,) * len(queues): {guard.mark: (pickle.dumps(guard), ())}}
    last, states = tuple(map(len, queues)), 0
    while places:
        place = min(places, key=sum)  # all orders that lead there have been followed
        for state, order in places.pop(place).values():
            states += 1
            found = _judged(judge, state, done=place == last)
            if found:
                return Outcome(states, tuple(found), order)
            for index in (index for index, queue in enumerate(queues) if place[index] < len(queue)):
                step = queues[index][place[index]]
                after: SmallGuard = pickle.loads(state)  # noqa: S301 - made here
                after.take(step)
                there = places.setdefault((*place[:index], place[index] + 1, *place[index + 1 :]), {})
                there.setdefault(after.mark, (pickle.dumps(after), (*order, step.source)))
    return Outcome(states)


def _begin(world: World, judge: Judge, guard: SmallGuard) -> list[list[Report]]:
    """Play what came before, and let the actions happen; return what each source will report.

    Somebody else guesses first, so that the numbers of the sources do not depend on the order.
    """
    before = [Act("guesses", _OTHER), *[Act("guesses", world.acts[0].sender)] * world.guesses]
    for number, act in enumerate(before):
        guard.wait(1.0)
        for source in _happens(act, 100 + number, judge, guard):
            for report in source:
                guard.report(report)
    guard.wait(3.0)
    parts = [_happens(act, number, judge, guard) for number, act in enumerate(world.acts, 1)]
    sources = [[report for part in parts for report in part[index]] for index in range(3)]
    if world.lost is not None:
        sources = _without(sources, world.lost)
    return [*sources, [_SECOND] * (len(world.acts) == 1)]  # the time makes too many states of two actions


_SECOND = Report("a second", b"")
_LOST = "a lost "


def _without(sources: Sequence[Sequence[Report]], number: int) -> list[list[Report]]:
    """Replace the report with this number by its loss."""
    counted = iter(range(sum(map(len, sources))))
    return [
        [replace(one, source=_LOST + one.source) if next(counted) == number else one for one in source]
        for source in sources
    ]


def _happens(act: Act, number: int, judge: Judge, guard: SmallGuard) -> list[list[Report]]:
    """Carry out an action now; return the reports of each source."""
    one = exchange(act, START + guard.now, number)
    for request in one.truth():
        judge.sent(request)
    if act.transport == "TCP":
        guard.connected(one.source, one.port)
    return one.reports(copied=guard.copies(one.source))


def _judged(judge: Judge, state: bytes, *, done: bool) -> list[Violation]:
    guard: SmallGuard = pickle.loads(state)  # noqa: S301 - made here
    if done:
        guard.wait(SETTLES)
    return judge.check(guard.view, START + guard.now, quiet=done)
