"""The detector: one security event in, a judgement out.

It knows no clock, no socket and no firewall. Whoever drives it says when an event arrived, carries out the
decisions, and tells it what became of them (:meth:`Detector.hold`, :meth:`Detector.release`): as long as a
subject is held, what still comes from it was on its way before the ban, and is counted as *late*, not anew.

The subject is the address for IPv4 and the /64 for IPv6, since a host owns its /64; only where a network
that is never banned lies inside that /64 (the PBX's own, say) is it the single address.

What names an address that its sender may have written waits (*doubt*, ``PATIENCE`` long) for a witness that
he cannot make lie:

- chan_sip's events, which name whom a Via says: the nonce that the wire saw leave settles them at once, a
  line of the log joins them. Where that line names another address, that one attempt is its own.
- PJSIP's lines of the log, which an ESC can forge: AMI or a SECURITY line tells of the same, or the wire has
  seen the challenge that its request was answered with. Or the sender has a TCP connection to this host from
  just that address and port (TLS is nothing that the wire could read). Whoever forges lines can guess at a
  stranger's port, so an address of which one line was doubtful is not believed by its connection.

What nobody vouches for by then bans nobody. It is listed as withheld; but where the wire would have seen the
challenge, a line without one is a forgery, and the address in it is not even listed.
"""

import enum
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import IPv6Address, ip_network

from attrs import Factory, define, evolve, frozen

from ringfence.detect.doubts import Doubt, Doubts
from ringfence.detect.fold import Fold
from ringfence.detect.hidden import Hidden
from ringfence.detect.join import HORIZON, Join, bucket_of
from ringfence.detect.networks import NetworkSet
from ringfence.detect.nonces import Nonces
from ringfence.detect.rules import Rule
from ringfence.detect.window import MAX_SUBJECTS, Window
from ringfence.model import (
    AMI,
    Address,
    Attempt,
    Challenge,
    Endpoint,
    EventKind,
    Network,
    Proof,
    SecurityEvent,
    Service,
    SourceId,
    Transport,
)

_IPV6_SUBJECT = 64
_MOST_LINES = 1_024
_MOST_DOUBTFUL = 16_384

DOUBTFUL = 600.0
"""For so long after a doubtful line (seconds) an address is not believed by its connection."""

BLIND = 10.0
"""For so long after the wire lost something (seconds), nothing is concluded from what it did not see."""


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
    ) -> None:
        """``connected`` says whether the sender has a TCP connection to this host now."""
        self.counts = Counts()
        self.never = never if never is not None else NetworkSet()
        self.rules: tuple[Rule, ...] = ()
        self._max_subjects = max_subjects
        self._fold = Fold()
        self._wire: _Wire | None = None  # until it is heard
        self._told = Join()
        self._withheld = Join()
        self._doubts = Doubts()
        self._doubtful: OrderedDict[Address, float] = OrderedDict()
        self._connected = connected
        self._lines: OrderedDict[tuple[str, EventKind, str, str], tuple[float, Address]] = OrderedDict()
        self._windows: dict[tuple[str, Standing], Window] = {}
        self._held: dict[Network, float] = {}
        self.configure(rules, several)

    def configure(self, rules: tuple[Rule, ...], several: frozenset[str] = frozenset()) -> None:
        """Take new rules. A rule whose number and window stay as they were keeps what it has counted.

        ``several`` names the Asterisks that have more than one source; elsewhere each telling is an attempt.
        """
        self._several = several
        before = self._windows
        self.rules = rules
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
        joined = self._told.evicted + self._withheld.evicted
        return self._fold.evicted + joined + sum(window.evicted for window in self._windows.values())

    def observe(self, event: SecurityEvent, now: float) -> Judgement | None:
        """Take an event that arrived at ``now`` (monotonic seconds); None where it tells of no attempt."""
        if self._wire is not None and event.source.witness == AMI:
            self._wire.hidden.told(event, now)
        told = self._fold.feed(event, now)
        if told is None:
            return None
        attempt = self._wire.vouch(told, event, now) if self._wire is not None else told
        if event.source.asterisk not in self._several:
            return self.judge(attempt, now)
        if not attempt.trusted:
            if not self._is_connected(event, now):
                self._doubts.add(Doubt(now, attempt, event))
                return None
            attempt = evolve(attempt, trusted=True, transport=Transport.TCP, proof=Proof.HANDSHAKE)
        if event.source.notices and event.service is Service.SIP:
            self._remember_line(attempt, event, now)
        return self._judge_new(attempt, event, now)

    def see(self, challenges: Iterable[Challenge], now: float, wall: float, asterisk: str) -> list[Judgement]:
        """Take what the wire saw leave at ``now``, which is ``wall`` seconds since the epoch.

        What answers a challenge is then known for whose it is, what waited for it is judged, and what hides
        from Asterisk counts. ``asterisk`` is whose it is where no event has told that yet.
        """
        if self._wire is None:
            self._wire = _Wire()
        judgements: list[Judgement | None] = []
        for challenge in challenges:
            self._wire.nonces.note(challenge, now)
            if challenge.sender is None:
                continue
            self._wire.hidden.note(challenge, challenge.sender, now)
            judgements += (
                self._judge_new(_vouched(doubt.attempt), doubt.event, doubt.at)
                for doubt in self._doubts.settle(challenge.sender, challenge.call_id)
            )
            if challenge.veiled:
                judgements.append(self._observe_hidden(challenge, now, wall, asterisk))
        return [judgement for judgement in judgements if judgement is not None]

    def blind(self, now: float) -> None:
        """Take that the wire lost something at ``now``."""
        if self._wire is None:
            self._wire = _Wire()
        self._wire.blind_until = now + BLIND

    def _observe_hidden(
        self, challenge: Challenge, now: float, wall: float, asterisk: str
    ) -> Judgement | None:
        """Count a challenge that Asterisk does not tell of, as its sender's."""
        if self._wire is None or challenge.sender is None:
            return None
        source = SourceId(self._wire.hidden.asterisk_at(challenge) or asterisk, "wire")
        sender = Endpoint(challenge.sender, challenge.port, Transport.UDP)
        event = SecurityEvent(
            source, EventKind.HIDDEN, Service.PJSIP, sender, wall, challenge.account, challenge.call_id
        )
        judgement = self.observe(event, now)
        self.counts.hidden += judgement is not None
        return judgement

    def _judge_new(self, attempt: Attempt, event: SecurityEvent, now: float) -> Judgement | None:
        """Judge a trusted attempt where this is the first telling of it."""
        bucket = bucket_of(event, attempt.address)
        return self.judge(attempt, now) if self._told.is_new(bucket, event.source, now) else None

    def _is_connected(self, event: SecurityEvent, now: float) -> bool:
        """Say whether a line of PJSIP's may be believed since its sender has a connection."""
        if event.service is not Service.PJSIP or not event.remote.port:
            return False
        address = event.remote.address
        doubtful = self._doubts.about(address) or now - self._doubtful.get(address, -DOUBTFUL) < DOUBTFUL
        return not doubtful and self._connected(event.remote)

    def _remember_line(self, attempt: Attempt, event: SecurityEvent, now: float) -> None:
        """Remember whom a line of chan_sip's names, for its event that may name another."""
        self._lines[_twin_key(event)] = now, attempt.address
        self._lines.move_to_end(_twin_key(event))
        if len(self._lines) > _MOST_LINES:
            self._lines.popitem(last=False)

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

    def tend(
        self,
        now: float,
        wall: float = 0.0,
        *,
        wire: bool = False,
        listening: Callable[[str], float | None] = lambda _: None,
    ) -> list[Judgement]:
        """Do what time asks for, every second or so; give what is judged only now.

        Who is held no longer is dropped, doubts end, and challenges that nobody tells of count. ``wire`` says
        whether the wire sees every challenge now, ``listening`` since when the AMI of an Asterisk is heard
        without a break (monotonic; None: it is not).
        """
        for subject in [subject for subject, until in self._held.items() if until <= now]:
            del self._held[subject]
        judgements = [self._end(doubt, now, wire=wire) for doubt in self._doubts.due(now)]
        if self._wire is not None:
            for challenge, asterisk in self._wire.hidden.untold(now, listening):
                judgements.append(self._observe_hidden(challenge, now, wall, asterisk))
        return [judgement for judgement in judgements if judgement is not None]

    def _end(self, doubt: Doubt, now: float, *, wire: bool) -> Judgement | None:
        """Judge an attempt that nobody has vouched for in time."""
        attempt, event, at = doubt.attempt, doubt.event, doubt.at
        bucket = bucket_of(event, attempt.address)
        if self._told.joins(bucket, event.source, at):
            return None
        if event.service is Service.SIP:
            told, address = self._lines.get(_twin_key(event), (-HORIZON, attempt.address))
            if abs(at - told) < HORIZON and address != attempt.address:
                return self._forged(evolve(attempt, address=address, aimed_at=attempt.address))
        else:
            self._doubtful[attempt.address] = now
            self._doubtful.move_to_end(attempt.address)
            if len(self._doubtful) > _MOST_DOUBTFUL:
                self._doubtful.popitem(last=False)
            if wire and self._sees(attempt, now):
                return self._forged(attempt)
        return self.judge(attempt, at) if self._withheld.is_new(bucket, event.source, at) else None

    def _sees(self, attempt: Attempt, now: float) -> bool:
        """Say whether a challenge of this sender's would have been seen: it is dropped if he is banned."""
        held = self._held.get(self.subject_of(attempt.address), now) > now
        return self._wire is not None and now >= self._wire.blind_until and not held

    def _forged(self, attempt: Attempt) -> Judgement:
        self.counts.forged += 1
        return Judgement(attempt, self.subject_of(attempt.address), Standing.FORGED)

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


@define
class _Wire:
    """What is known from the wire."""

    nonces: Nonces = Factory(Nonces)
    hidden: Hidden = Factory(Hidden)
    blind_until: float = 0.0

    def vouch(self, attempt: Attempt, event: SecurityEvent, now: float) -> Attempt:
        """Give ``attempt`` with what the wire knows of it."""
        if event.hearsay and event.service is Service.PJSIP and self.hidden.backs(event, now):
            return _vouched(attempt)
        return self.nonces.settled(attempt, event.challenge, now)


def _vouched(attempt: Attempt) -> Attempt:
    """Give an attempt that a line told of, and that the wire has seen the answer to."""
    return evolve(attempt, trusted=True, transport=Transport.UDP)


def _twin_key(event: SecurityEvent) -> tuple[str, EventKind, str, str]:
    """Give what the two tellings of one attempt at chan_sip have in common, whomever they name."""
    return event.source.asterisk, event.kind, event.acl_name, event.account
