"""The detector: one security event in, a judgement out.

It knows no clock, no socket and no firewall. Whoever drives it says when an event arrived, carries out the
decisions, and tells it what became of them (:attr:`Detector.banned` where there is a firewall, else
:meth:`Detector.hold` and :meth:`Detector.release`): as long as a subject is held, what still comes from it
was on its way before the ban, and is counted as *late*, not anew.

The subject is the address for IPv4 and the /64 for IPv6, since a host owns its /64; only where a network
that is never banned lies inside that /64 (the PBX's own, say) is it the single address.

Which events are attempts, and whose, is the matter of ``witnesses``.
"""

import enum
from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush
from ipaddress import IPv6Address, ip_network
from math import inf

from attrs import define, frozen

from ringfence import quick
from ringfence.detect.fold import AddressKey, address_key
from ringfence.detect.networks import NetworkSet
from ringfence.detect.rules import Rule
from ringfence.detect.window import MAX_SUBJECTS, Window
from ringfence.detect.witnesses import MAX_SESSIONS, Found, Witnesses, Worth
from ringfence.model import (
    Address,
    Attempt,
    AttemptKind,
    Challenge,
    Endpoint,
    EventKind,
    Network,
    SecurityEvent,
)

_IPV6_SUBJECT = 64
_MOST_PLACES = 4_096
_MOST_LET_GO = 1_000


class Standing(enum.StrEnum):
    """What was done with an attempt."""

    COUNTED = "counted"
    NEVER_BANNED = "never banned"
    WITHHELD = "withheld"  # its address may be a stranger's: listed, bans nobody
    FORGED = "forged"  # its address is a stranger's: not even listed
    LATE = "late"
    NO_RULE = "no rule"


@frozen
class Decision:
    """``subject`` is to be banned by ``rule``, because of ``attempts`` (oldest first)."""

    subject: Network
    rule: Rule
    attempts: tuple[Attempt, ...]


@quick.frozen
class Judgement:
    """An attempt, what was done with it, and the ban that follows, if one does."""

    attempt: Attempt
    subject: Network
    standing: Standing
    decision: Decision | None = None


@frozen
class Watched:
    """A subject that has made attempts and is not banned for them. ``of`` is the rule's number."""

    subject: Network
    rule: str
    of: int
    standing: Standing
    attempts: tuple[Attempt, ...]


@define
class Counts:
    """How many attempts there were, and what was done with them. ``withheld``: that a rule counts.

    ``hidden``: attempts that only the wire told of. ``forged`` are no attempts.
    """

    attempts: int = 0
    never_banned: int = 0
    withheld: int = 0
    late: int = 0
    hidden: int = 0
    forged: int = 0


class Detector:
    """Holds the fold and, for each rule, a window of attempts that count and one of those withheld."""

    def __init__(
        self,
        rules: tuple[Rule, ...],
        never: NetworkSet | None = None,
        several: frozenset[str] = frozenset(),
        max_subjects: int = MAX_SUBJECTS,
        connected: Callable[[Endpoint], bool] = lambda _: False,
        max_sessions: int = MAX_SESSIONS,
    ) -> None:
        """``connected`` says whether the sender has a TCP connection to this host now."""
        self.counts = Counts()
        self.banned: Callable[[Network], bool] = lambda _: False
        """Whether all that comes from a network is dropped now, as whoever keeps the bans knows."""
        self._places: dict[AddressKey, tuple[Network, bool]] = {}
        self._never = never if never is not None else NetworkSet()
        self.rules: tuple[Rule, ...] = ()
        self._max_subjects = max_subjects
        self._witnesses = Witnesses(connected=connected, max_sessions=max_sessions)
        self._windows: dict[tuple[str, Standing], Window] = {}
        self._held: dict[Network, float] = {}
        self._releases: list[tuple[float, int, Network]] = []  # a heap: when to drop whom, in order
        self.configure(rules, several)

    def configure(self, rules: tuple[Rule, ...], several: frozenset[str] = frozenset()) -> None:
        """Take new rules. A rule whose number and window stay as they were keeps what it has counted.

        ``several`` names the Asterisks that have more than one source; elsewhere each telling is an attempt.
        """
        self._witnesses.several = several
        before = self._windows
        self.rules = rules
        self._counting = {kind: [rule for rule in rules if kind in rule.counts] for kind in AttemptKind}
        self._windows = {}
        for rule in rules:
            for standing in (Standing.COUNTED, Standing.WITHHELD):
                window = before.get((rule.name, standing))
                if window is None or (window.attempts, window.seconds) != (rule.attempts, rule.window):
                    window = Window(rule.attempts, rule.window, self._max_subjects)
                self._windows[rule.name, standing] = window

    @property
    def never(self) -> NetworkSet:
        """The networks that are never banned."""
        return self._never

    @never.setter
    def never(self, never: NetworkSet) -> None:
        self._never = never
        self._places.clear()

    @property
    def evicted(self) -> int:
        """How much was forgotten for want of room: by the witnesses, and subjects of windows."""
        return self._witnesses.evicted + sum(window.evicted for window in self._windows.values())

    def observe(self, event: SecurityEvent, now: float) -> Judgement | None:
        """Take an event that arrived at ``now`` (monotonic seconds); None where it tells of no attempt."""
        found = self._witnesses.hear(event, now)
        return self._weigh(found) if found is not None else None

    def see(self, challenges: Iterable[Challenge], now: float, wall: float, asterisk: str) -> list[Judgement]:
        """Take what the wire saw leave (:meth:`Witnesses.see`)."""
        return [self._weigh(found) for found in self._witnesses.see(challenges, now, wall, asterisk)]

    def blind(self, now: float) -> None:
        """Take that the wire lost something at ``now``."""
        self._witnesses.blind(now)

    def _weigh(self, found: Found) -> Judgement:
        """Judge what the witnesses found, unless it is somebody's forgery."""
        attempt = found.attempt
        if found.worth is not Worth.FAIR:
            subject = self.subject_of(attempt.address)
            # Who is banned gets no challenge any more, so a line of his without one is no forgery.
            if found.worth is Worth.AIMED or not self._is_held(subject, found.at):
                self.counts.forged += 1
                return Judgement(attempt, subject, Standing.FORGED)
        self.counts.hidden += attempt.event is EventKind.HIDDEN
        return self.judge(attempt, found.at)

    def judge(self, attempt: Attempt, now: float) -> Judgement:
        """Count one attempt under every rule that counts its kind. The first rule that is full decides."""
        self.counts.attempts += 1
        subject, is_allowed = self._place(attempt.address)
        if is_allowed:
            self.counts.never_banned += 1
            return Judgement(attempt, subject, Standing.NEVER_BANNED)
        if self._is_held(subject, now):
            self.counts.late += 1
            return Judgement(attempt, subject, Standing.LATE)
        counting = self._counting[attempt.kind]
        if not counting:
            return Judgement(attempt, subject, Standing.NO_RULE)
        standing = Standing.COUNTED if attempt.trusted else Standing.WITHHELD
        if standing is Standing.WITHHELD:
            self.counts.withheld += 1
        decision = None
        for rule in counting:
            window = self._windows[rule.name, standing]
            full = window.add(subject, attempt, now) >= rule.attempts
            if full and decision is None and standing is Standing.COUNTED:
                decision = Decision(subject, rule, window.evidence(subject))
        if decision is not None:
            self.forget(subject)
        return Judgement(attempt, subject, standing, decision)

    def _is_held(self, subject: Network, now: float) -> bool:
        return (bool(self._held) and self._held.get(subject, now) > now) or self.banned(subject)

    def subject_of(self, address: Address) -> Network:
        """Give what is counted and banned for ``address``."""
        return self._place(address)[0]

    def _place(self, address: Address) -> tuple[Network, bool]:
        """Give the subject of ``address``, and whether it is never banned.

        An attacker comes again and again; to find out anew each time is a fifth of the whole path.
        """
        key = address_key(address)
        known = self._places.get(key)
        if known is None:
            if len(self._places) >= _MOST_PLACES:
                self._places.clear()
            known = self._places[key] = self._find_subject(address), self._never.covers(address)
        return known

    def _find_subject(self, address: Address) -> Network:
        if isinstance(address, IPv6Address):
            wide = ip_network((address, _IPV6_SUBJECT), strict=False)
            if not self._never.has_part_of(wide):
                return wide
        return ip_network(address)

    def hold(self, subject: Network, until: float) -> None:
        """Count nothing of ``subject`` before ``until`` (monotonic seconds): it is banned, or about to be."""
        self._held[subject] = until
        heappush(self._releases, (until, id(subject), subject))
        if len(self._releases) > 2 * len(self._held) + _MOST_LET_GO:  # most of them are held no longer
            self._releases = [(end, id(held), held) for held, end in self._held.items()]
            heapify(self._releases)

    def release(self, subject: Network) -> None:
        """Count ``subject`` again, from nothing."""
        self._held.pop(subject, None)
        self.forget(subject)

    def forget(self, subject: Network) -> None:
        """Begin anew with ``subject`` in every window."""
        for window in self._windows.values():
            window.forget(subject)

    def tend(
        self,
        now: float,
        wall: float = 0.0,
        *,
        wire: bool = False,
        listening: Callable[[str], float | None] = lambda _: None,
    ) -> list[Judgement]:
        """Do what time asks for, every second or so; give what is judged only now (:meth:`Witnesses.tend`).

        Who is held no longer is dropped.
        """
        while self._releases and self._releases[0][0] <= now:
            _, _, subject = heappop(self._releases)
            if self._held.get(subject, inf) <= now:  # else it is held anew, or was let go
                del self._held[subject]
        return [
            self._weigh(found) for found in self._witnesses.tend(now, wall, wire=wire, listening=listening)
        ]

    def watched(self, now: float, most: int = 20) -> list[Watched]:
        """Give the subjects with attempts in a window, most attempts first, ``most`` a window at most."""
        return [
            Watched(subject, rule.name, rule.attempts, standing, attempts)
            for rule in self.rules
            for standing in (Standing.COUNTED, Standing.WITHHELD)
            for subject, attempts in self._windows[rule.name, standing].recent(now, most)
        ]
