"""The detector: one security event in, a judgement out.

It knows no clock, no socket and no firewall. Whoever drives it says when an event arrived, carries out the
decisions, and tells it what became of them (:meth:`Detector.hold`, :meth:`Detector.release`): as long as a
subject is held, what still comes from it was on its way before the ban, and is counted as *late*, not anew.

The subject is the address for IPv4 and the /64 for IPv6, since a host owns its /64; only where a network
that is never banned lies inside that /64 (the PBX's own, say) is it the single address.
"""

import enum
from collections import deque
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv6Address, ip_network

from attrs import define, frozen

from ringfence.detect.fold import Fold
from ringfence.detect.join import Join, bucket_of
from ringfence.detect.networks import NetworkSet
from ringfence.detect.nonces import Nonces
from ringfence.detect.rules import Rule
from ringfence.detect.window import MAX_SUBJECTS, Window
from ringfence.model import Address, Attempt, Challenge, Network, SecurityEvent

_IPV6_SUBJECT = 64
_MOST_RUMOURS = 10_000

PATIENCE = 1.0
"""How long hearsay waits (seconds) for a source that is trusted to tell of the same."""


class Standing(enum.StrEnum):
    """What was done with an attempt."""

    COUNTED = "counted"
    NEVER_BANNED = "never banned"
    WITHHELD = "withheld"  # its address may be a stranger's: listed, bans nobody
    LATE = "late"
    NO_RULE = "no rule"


@frozen
class Decision:
    """``subject`` is to be banned by ``rule``, because of ``attempts`` (oldest first)."""

    subject: Network
    rule: Rule
    attempts: tuple[Attempt, ...]


@frozen
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
    """How many attempts there were, and what was done with them. ``withheld``: that a rule counts."""

    attempts: int = 0
    never_banned: int = 0
    withheld: int = 0
    late: int = 0


class Detector:
    """Holds the fold and, for each rule, a window of attempts that count and one of those withheld."""

    def __init__(
        self,
        rules: tuple[Rule, ...],
        never: NetworkSet | None = None,
        trust_chan_sip: frozenset[str] = frozenset(),
        several: frozenset[str] = frozenset(),
        max_subjects: int = MAX_SUBJECTS,
    ) -> None:
        self.counts = Counts()
        self.never = never if never is not None else NetworkSet()
        self.rules: tuple[Rule, ...] = ()
        self._max_subjects = max_subjects
        self._fold = Fold(trust_chan_sip)
        self._nonces: Nonces | None = None  # until the wire is heard
        self._told = Join()
        self._hearsay = Join()
        self._rumours: deque[tuple[float, Attempt, SecurityEvent]] = deque(maxlen=_MOST_RUMOURS)
        self._windows: dict[tuple[str, Standing], Window] = {}
        self._held: dict[Network, float] = {}
        self.configure(rules, trust_chan_sip, several)

    def configure(
        self,
        rules: tuple[Rule, ...],
        trust_chan_sip: frozenset[str],
        several: frozenset[str] = frozenset(),
    ) -> None:
        """Take new rules. A rule whose number and window stay as they were keeps what it has counted.

        ``several`` names the Asterisks that have more than one source; elsewhere each telling is an attempt.
        """
        self._several = several
        before = self._windows
        self.rules = rules
        self._fold.trust_chan_sip = trust_chan_sip
        self._windows = {}
        for rule in rules:
            for standing in (Standing.COUNTED, Standing.WITHHELD):
                window = before.get((rule.name, standing))
                if window is None or (window.attempts, window.seconds) != (rule.attempts, rule.window):
                    window = Window(rule.attempts, rule.window, self._max_subjects)
                self._windows[rule.name, standing] = window

    @property
    def evicted(self) -> int:
        """How much was forgotten for want of room: keys of the fold, open attempts, subjects of windows."""
        joined = self._told.evicted + self._hearsay.evicted
        return self._fold.evicted + joined + sum(window.evicted for window in self._windows.values())

    def observe(self, event: SecurityEvent, now: float) -> Judgement | None:
        """Take an event that arrived at ``now`` (monotonic seconds); None where it tells of no attempt."""
        told = self._fold.feed(event, now)
        if told is None:
            return None
        attempt = self._nonces.settled(told, event.challenge, now) if self._nonces is not None else told
        if event.source.asterisk not in self._several:
            return self.judge(attempt, now)
        if event.source.hearsay:
            self._rumours.append((now, attempt, event))
            return None
        return self.judge(attempt, now) if self._is_new(attempt, event, now) else None

    def _is_new(self, attempt: Attempt, event: SecurityEvent, now: float) -> bool:
        """Say whether this is the first telling of the attempt.

        Who is not trusted may join what others have told of, and is listed apart where they have not: an
        attempt that a trusted source tells of afterwards must count all the same.
        """
        bucket = bucket_of(event, attempt.address)
        if attempt.trusted:
            return self._told.is_new(bucket, event.source, now)
        if self._told.joins(bucket, event.source, now):
            return False
        return self._hearsay.is_new(bucket, event.source, now)

    def note(self, challenges: Iterable[Challenge], now: float) -> None:
        """Take what the wire saw leave at ``now``, so that what answers it is known for whose it is."""
        if self._nonces is None:
            self._nonces = Nonces()
        self._nonces.note(challenges, now)

    def judge(self, attempt: Attempt, now: float) -> Judgement:
        """Count one attempt under every rule that counts its kind. The first rule that is full decides."""
        self.counts.attempts += 1
        subject = self.subject_of(attempt.address)
        if self.never.covers(attempt.address):
            self.counts.never_banned += 1
            return Judgement(attempt, subject, Standing.NEVER_BANNED)
        if self._held.get(subject, now) > now:
            self.counts.late += 1
            return Judgement(attempt, subject, Standing.LATE)
        counting = [rule for rule in self.rules if attempt.kind in rule.counts]
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

    def subject_of(self, address: Address) -> Network:
        """Give what is counted and banned for ``address``."""
        if isinstance(address, IPv6Address):
            wide = _network(address, _IPV6_SUBJECT)
            if not self.never.has_part_of(wide):
                return wide
        return _network(address, address.max_prefixlen)

    def hold(self, subject: Network, until: float) -> None:
        """Count nothing of ``subject`` before ``until`` (monotonic seconds): it is banned, or about to be."""
        self._held[subject] = until

    def release(self, subject: Network) -> None:
        """Count ``subject`` again, from nothing."""
        self._held.pop(subject, None)
        self.forget(subject)

    def forget(self, subject: Network) -> None:
        """Begin anew with ``subject`` in every window."""
        for window in self._windows.values():
            window.forget(subject)

    def tend(self, now: float) -> list[Judgement]:
        """Do what time asks for, every few seconds: drop who is held no longer, and judge hearsay.

        Hearsay bans nobody and can wait until those that are trusted have told of the same, if they have.
        """
        for subject in [subject for subject, until in self._held.items() if until <= now]:
            del self._held[subject]
        judgements = []
        while self._rumours and now - self._rumours[0][0] >= PATIENCE:
            at, attempt, event = self._rumours.popleft()
            if self._is_new(attempt, event, at):
                judgements.append(self.judge(attempt, at))
        return judgements

    def watched(self, now: float, most: int = 20) -> list[Watched]:
        """Give the subjects with attempts in a window, most attempts first, ``most`` a window at most."""
        return [
            Watched(subject, rule.name, rule.attempts, standing, attempts)
            for rule in self.rules
            for standing in (Standing.COUNTED, Standing.WITHHELD)
            for subject, attempts in self._windows[rule.name, standing].recent(now, most)
        ]


# An attacker comes again and again; to make his network anew each time is an eighth of the whole path.
@lru_cache(maxsize=4096)
def _network(address: Address, length: int) -> Network:
    return ip_network((address, length), strict=False)
