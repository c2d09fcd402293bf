"""Witnesses: from what several sources tell and see to attempts, each once, and whose each really was.

With one source each telling is an attempt. With several, ``join`` says which of them tell of the same one.
And what names an address that its sender may have written waits (*doubt*, ``PATIENCE`` long) for a witness
that he cannot make lie:

- chan_sip's events, which name whom a Via says: the nonce that the wire saw leave settles them at once, a
  line of the log joins them. Where that line names another address, that one attempt is its own.
- PJSIP's lines of the log, which an ESC can forge: AMI or a SECURITY line tells of the same, or the wire has
  seen the challenge that its request was answered with, or at least one lately that nothing came of
  (``unanswered``). Or the sender has a TCP connection to this host from
  just that address and port (TLS is nothing that the wire could read). Whoever forges lines can guess at a
  stranger's port, so an address of which one line was doubtful is not believed by its connection.

What nobody vouches for by then stays untrusted: it may be listed, and bans nobody. But where the wire would
have seen the challenge, a line without one is a forgery, and the address in it is nobody's business.
"""

import enum
from collections import OrderedDict
from collections.abc import Callable, Iterable

from attrs import Factory, define, evolve

from ringfence import quick
from ringfence.detect.doubts import Doubt, Doubts
from ringfence.detect.fold import Fold, attempt_from, session_number
from ringfence.detect.hidden import Hidden
from ringfence.detect.join import HORIZON, Join, bucket_of
from ringfence.detect.nonces import Nonces
from ringfence.detect.recent import remember
from ringfence.detect.unanswered import Unanswered
from ringfence.model import (
    AMI,
    Address,
    Attempt,
    AttemptKind,
    Challenge,
    Endpoint,
    EventKind,
    Proof,
    SecurityEvent,
    Service,
    SourceId,
    Transport,
)

MAX_SESSIONS = 65_536
"""So many sessions are remembered, and so many calls of which several sources may tell."""

_MOST_LINES = 1_024
_MOST_PROVEN = 16_384
_MOST_AWAITED = 1_024
_MOST_OF_NONCE = 256
_MOST_DOUBTFUL = 16_384
_MOST_AT_ONCE = 100  # challenges of one sender's that were too many

PROVEN = 64.0
"""For so long (seconds) a session's proof holds; twice as long as a nonce is taken."""

DOUBTFUL = 600.0
"""For so long after a doubtful line (seconds) an address is not believed by its connection."""

BLIND = 10.0
"""For so long after the wire lost something (seconds), nothing is concluded from what it did not see."""


# What is asked for each event or attempt, by names that are found at once.
_FAILED, _CHALLENGE = EventKind.CHALLENGE_RESPONSE_FAILED, EventKind.CHALLENGE_SENT
_PJSIP, _UDP, _CLAIMED, _NONCE = Service.PJSIP, Transport.UDP, Proof.CLAIMED, Proof.NONCE


class Worth(enum.Enum):
    """What the witnesses make of an attempt."""

    FAIR = enum.auto()  # it is one, trusted or not
    UNSEEN = enum.auto()  # a line of the log without the challenge that the wire would have seen
    AIMED = enum.auto()  # chan_sip's telling of an attempt that its log tells of too, with another address


@quick.frozen
class Found:
    """An attempt, when it counts (monotonic seconds), and what it is worth."""

    attempt: Attempt
    at: float
    worth: Worth = Worth.FAIR


class Witnesses:
    """Takes events and challenges; gives each attempt once.

    ``several`` names the Asterisks that more than one source tells of; elsewhere each telling is an attempt,
    at once. ``connected`` says whether a sender has a TCP connection to this host now. ``assumed`` is the
    proof of what nobody can prove: the past shows no wire.
    """

    def __init__(
        self,
        several: frozenset[str] = frozenset(),
        connected: Callable[[Endpoint], bool] = lambda _: False,
        max_sessions: int = MAX_SESSIONS,
        assumed: Proof = Proof.CLAIMED,
    ) -> None:
        self.several = several
        self._assumed = assumed
        self._connected = connected
        self._fold = Fold(max_keys=max_sessions)
        self._wire: _Wire | None = None  # until it is heard
        self._told = Join(max_buckets=max_sessions)
        self._withheld = Join(max_buckets=max_sessions)
        self._doubts = Doubts()
        self._doubtful: OrderedDict[Address, float] = OrderedDict()
        self._lines: OrderedDict[tuple[str, EventKind, str, str], tuple[float, Address]] = OrderedDict()
        self._sessions: OrderedDict[tuple[Address, int], float] = OrderedDict()
        self._awaited: OrderedDict[bytes, tuple[str, Address, int]] = OrderedDict()
        self.proven: list[tuple[str, Address, int]] = []
        """Of which Asterisk, which addresses are proven now for what they did in which session."""
        self._diverted: OrderedDict[Address, float] = OrderedDict()
        self._by_stream: OrderedDict[Address, float] = OrderedDict()
        self.beside: list[Found] = []
        """Attempts that the last event told of beside the one that was given out."""
        self.joined: list[tuple[Address, int, Service, str]] = []
        """Who else tells of an attempt that was given out: its address, session and service, the witness."""

    @property
    def evicted(self) -> int:
        """How much was forgotten for want of room: keys of the fold, and open attempts."""
        return self._fold.evicted + self._told.evicted + self._withheld.evicted

    @property
    def sees_wire(self) -> bool:
        """Whether the wire was ever heard of, and so who answers a challenge can be proven."""
        return self._wire is not None

    def hear(self, event: SecurityEvent, now: float) -> Found | None:
        """Take an event that arrived at ``now`` (monotonic seconds); None where nothing follows yet."""
        if self._wire is not None:
            self._wire.told(event, now)
        if event.kind is _CHALLENGE and event.remote.transport is not _UDP:
            remember(self._by_stream, event.remote.address, now, _MOST_DOUBTFUL)
        told = self._fold.feed(event, now)
        found = self._take(told, event, now) if told is not None else None
        if event.kind is _FAILED and self._wire is not None and (found is None or _is_claim(found)):
            self._note_proof(event, now)
        return found

    def _take(self, told: Attempt, event: SecurityEvent, now: float) -> Found | None:
        """Take a telling of an attempt; None where it is known, or waits for a witness."""
        if self._wire is not None and told.trusted and event.kind is not EventKind.HIDDEN:
            self._wire.unanswered.told(told.address)
        if event.source.asterisk not in self.several:
            return Found(self._in_session(self._vouch(told, event, now), now), now)
        if self._is_of_whom_it_names(told, event, now):
            # What else the wire knows is asked for the first telling alone: nearly all are others.
            if not self._is_new(told, event, now):
                return None
            return Found(self._in_session(self._vouch(told, event, now), now), now)
        attempt = self._vouch(told, event, now)
        if not attempt.trusted:
            self._doubts.add(Doubt(now, attempt, event))
            return None
        if event.source.notices and event.service is Service.SIP:
            remember(self._lines, _twin_key(event), (now, attempt.address), _MOST_LINES)
        return self._if_new(attempt, event, now)

    def see(self, challenges: Iterable[Challenge], now: float, wall: float, asterisk: str) -> list[Found]:
        """Take what the wire saw leave at ``now``, which is ``wall`` seconds since the epoch.

        What answers a challenge is then known for whose it is, what waited for it counts, and so does what
        hides from Asterisk. ``asterisk`` is whose it is where no event has told that yet.
        """
        if self._wire is None:
            self._wire = _Wire()
        found: list[Found | None] = []
        challenges = list(challenges)
        for challenge in challenges:
            self._wire.nonces.note(challenge, now)
        for challenge in challenges if self._awaited else ():
            answered = self._awaited.pop(challenge.nonce, None)
            if answered is not None and self._wire.nonces.receivers(challenge.nonce, now) == (answered[1],):
                self._prove(*answered, now)
        for challenge in challenges:
            if challenge.sender is None or challenge.service is not Service.PJSIP:
                continue
            if challenge.sender != challenge.address:
                remember(self._diverted, challenge.sender, now, _MOST_DOUBTFUL)
            source = SourceId(self._wire.hidden.asterisk_at(challenge) or asterisk, "wire")
            self._wire.unanswered.note(challenge, challenge.sender, source.asterisk, now)
            self._wire.hidden.note(challenge, challenge.sender, now)
            found += (
                self._if_new(_vouched(doubt.attempt), doubt.event, doubt.at)
                for doubt in self._doubts.settle(challenge.sender, challenge.call_id)
            )
            if challenge.veiled:
                found.append(self._hear_hidden(challenge, challenge.sender, source, now, wall))
        return [one for one in found if one is not None]

    def blind(self, now: float) -> None:
        """Take that the wire lost something at ``now``."""
        if self._wire is None:
            self._wire = _Wire()
        self._wire.blind_until = now + BLIND

    def tend(
        self, now: float, wall: float, *, wire: bool, listening: Callable[[str], float | None]
    ) -> list[Found]:
        """Do what time asks for: end doubts, and count challenges that nobody tells of.

        ``wire`` says whether the wire sees every challenge now, ``listening`` since when the AMI of an
        Asterisk is heard without a break (monotonic; None: it is not).
        """
        if self._wire is not None:
            self._wire.listening = listening if wire else _nobody
            self._wire.ahead = wall - now
        found = [self._end(doubt, now, wire=wire) for doubt in self._doubts.due(now)]
        if self._wire is not None:
            missed = [(*untold, 1) for untold in self._wire.hidden.untold(now, listening)]
            for challenge, asterisk, number in missed + self._wire.unanswered.too_many(now, listening):
                if challenge.sender is not None:
                    source = SourceId(asterisk, "wire")
                    found += (
                        self._hear_hidden(challenge, challenge.sender, source, now, wall)
                        for _ in range(min(number, _MOST_AT_ONCE))
                    )
        return [one for one in found if one is not None]

    def _hear_hidden(
        self, challenge: Challenge, sender: Address, source: SourceId, now: float, wall: float
    ) -> Found | None:
        """Take a challenge that Asterisk does not tell of as what its sender did."""
        remote = Endpoint(sender, challenge.port, Transport.UDP)
        event = SecurityEvent(
            source, EventKind.HIDDEN, Service.PJSIP, remote, wall, challenge.account, challenge.call_id
        )
        return self.hear(event, now)

    def _vouch(self, told: Attempt, event: SecurityEvent, now: float) -> Attempt:
        return self._wire.vouch(told, event, now) if self._wire is not None else told

    def _is_of_whom_it_names(self, told: Attempt, event: SecurityEvent, now: float) -> bool:
        """Say whether PJSIP tells of it and its address stands."""
        if event.service is not _PJSIP:
            return False
        return told.trusted or (self._wire is not None and self._wire.hidden.backs(event, now))

    def _if_new(self, attempt: Attempt, event: SecurityEvent, now: float) -> Found | None:
        """Give a trusted attempt where this is the first telling of it."""
        return Found(self._in_session(attempt, now), now) if self._is_new(attempt, event, now) else None

    def _is_new(self, attempt: Attempt, event: SecurityEvent, now: float) -> bool:
        if self._told.is_new(bucket_of(event, attempt.address), event.source, now):
            return True
        self.joined.append((attempt.address, attempt.session, event.service, event.source.witness))
        return False

    def _in_session(self, attempt: Attempt, now: float) -> Attempt:
        """Give an attempt with the proof that its session has: who answered one challenge of it is there.

        Nobody else knows the Call-ID of a session, nor could he learn it with a forged address.
        """
        if self._assumed is not _CLAIMED and attempt.trusted and attempt.proof is _CLAIMED:
            return evolve(attempt, proof=self._assumed)
        if attempt.transport is not _UDP or attempt.service is not _PJSIP:
            return attempt
        if attempt.proof is _NONCE:
            self._prove(attempt.asterisk, attempt.address, attempt.session, now)
        elif (
            self._sessions and now - self._sessions.get((attempt.address, attempt.session), -PROVEN) < PROVEN
        ):
            return evolve(attempt, proof=Proof.NONCE)
        return attempt

    def _note_proof(self, event: SecurityEvent, now: float) -> None:
        """Take the answer to a challenge, of an attempt that was told of before."""
        if self._wire is None or event.service is not _PJSIP or event.tampered or event.hearsay:
            return
        if not event.challenge:
            return
        address, session = event.remote.address, session_number(event.session)
        sent_to = self._wire.nonces.receivers(event.challenge, now)
        if sent_to == (address,):
            self._prove(event.source.asterisk, address, session, now)
        elif len(sent_to) == 1:
            self._blame_receiver(event, sent_to[0], now)
        elif not sent_to:  # AMI is quicker than the wire
            waiting = (event.source.asterisk, address, session)
            remember(self._awaited, event.challenge[:_MOST_OF_NONCE], waiting, _MOST_AWAITED)

    def _blame_receiver(self, event: SecurityEvent, receiver: Address, now: float) -> None:
        """Take a guess whose nonce went to somebody else alone as an attempt of his too, as a claim.

        Nobody else knows that nonce, but whom Asterisk has given the same one by TCP, where the wire sees
        nothing: it depends on the address and the second alone. So he is blamed for nobody who has asked by
        TCP lately, or a header would name whom it likes.
        """
        named = event.remote.address
        by_stream = now - self._by_stream.get(named, -PROVEN) < PROVEN
        if by_stream or event.remote.transport is not _UDP:
            return
        if self._told.is_new(bucket_of(event, receiver), event.source, now):
            told = attempt_from(event, AttemptKind.GUESS)
            blamed = evolve(told, address=receiver, trusted=True, aimed_at=named)
            self.beside.append(Found(blamed, now))

    def is_diverted(self, address: Address, now: float) -> bool:
        """Say whether challenges that ``address`` seemed to ask for went elsewhere lately.

        Then a right password from there proves no address: the nonce may be another's.
        """
        return now - self._diverted.get(address, -PROVEN) < PROVEN

    def _prove(self, asterisk: str, address: Address, session: int, now: float) -> None:
        """Take that ``address`` is proven for all that it does in a session."""
        key = address, session
        if not session or now - self._sessions.get(key, -PROVEN) < PROVEN:
            return
        remember(self._sessions, key, now, _MOST_PROVEN)
        self.proven.append((asterisk, address, session))

    def _is_connected(self, event: SecurityEvent, now: float) -> bool:
        """Say whether a line of PJSIP's may be believed since its sender has a connection.

        Asked last, and of few: the kernel goes through all its connections for it, and nearly all that is
        told by lines is told by others too.
        """
        address = event.remote.address
        if not event.remote.port or now - self._doubtful.get(address, -DOUBTFUL) < DOUBTFUL:
            return False
        return self._connected(event.remote)

    def _end(self, doubt: Doubt, now: float, *, wire: bool) -> Found | None:
        """Say what an attempt is worth that nobody has vouched for in time."""
        attempt, event, at = doubt.attempt, doubt.event, doubt.at
        bucket = bucket_of(event, attempt.address)
        if self._told.joins(bucket, event.source, at):
            return None
        if event.service is Service.SIP:
            told, address = self._lines.get(_twin_key(event), (-HORIZON, attempt.address))
            if abs(at - told) < HORIZON and address != attempt.address:
                aimed = evolve(attempt, address=address, aimed_at=attempt.address)
                return Found(aimed, at, Worth.AIMED)
        elif event.service is Service.PJSIP:
            if self._is_connected(event, now):
                shaken = evolve(attempt, trusted=True, transport=Transport.TCP, proof=Proof.HANDSHAKE)
                return self._if_new(shaken, event, at)
            remember(self._doubtful, attempt.address, now, _MOST_DOUBTFUL)
            if wire and self._wire is not None and now >= self._wire.blind_until:
                return Found(attempt, at, Worth.UNSEEN)
        first = self._withheld.is_new(bucket, event.source, at)
        return Found(attempt, at) if first else None


def _is_claim(found: Found) -> bool:
    return found.attempt.proof is _CLAIMED


def _nobody(_: str) -> None:
    """Say of no Asterisk that its AMI is heard."""


@define
class _Wire:
    """What is known from the wire."""

    nonces: Nonces = Factory(Nonces)
    hidden: Hidden = Factory(Hidden)
    unanswered: Unanswered = Factory(Unanswered)
    blind_until: float = 0.0
    ahead: float = 0.0  # of the wall clock over the monotonic one
    listening: Callable[[str], float | None] = _nobody  # of the last tending, where the wire sees all

    def told(self, event: SecurityEvent, now: float) -> None:
        """Take what Asterisk tells."""
        phone = event.service in (Service.PJSIP, Service.SIP)
        if event.kind is EventKind.SUCCESSFUL_AUTH and phone and not event.tampered:
            self.unanswered.succeeded(event.remote.address, event.source.asterisk, now)
        if event.source.witness == AMI:
            self.hidden.told(event, now, now + self.ahead)

    def vouch(self, attempt: Attempt, event: SecurityEvent, now: float) -> Attempt:
        """Give ``attempt`` with what the wire knows of it."""
        if event.hearsay and event.service is Service.PJSIP:
            asked = self.unanswered.asked
            if self.hidden.backs(event, now) or asked(attempt.address, now, self.listening):
                return _vouched(attempt)
        came_back = event.kind is EventKind.INVALID_PASSWORD and bool(event.response)
        return self.nonces.settled(attempt, event.challenge, now, came_back=came_back)


def _vouched(attempt: Attempt) -> Attempt:
    """Give an attempt that a line told of, and that the wire has seen the answer to."""
    return evolve(attempt, trusted=True, transport=Transport.UDP)


def _twin_key(event: SecurityEvent) -> tuple[str, EventKind, str, str]:
    """Give what the two tellings of one attempt at chan_sip have in common, whomever they name."""
    return event.source.asterisk, event.kind, event.acl_name, event.account
