"""The detector: one security event in, a judgement out.

It knows no clock, no socket and no firewall. Whoever drives it says when an event arrived, carries out the
decisions, and tells it what became of them (:attr:`Detector.banned` where there is a firewall, else
:meth:`Detector.hold` and :meth:`Detector.release`): as long as a subject is held, what still comes from it
was on its way before the ban, and is counted as *late*, not anew. A subject that is only kept from the SIP
ports by UDP is late where it comes by UDP; what proves its address is counted all the same.

Which events are attempts, and whose, is the matter of ``witnesses``; what follows from them that of
``judge``; what is to be known of phones that of ``phones``. What an administrator has to know comes out as
notices.
"""

import enum
from collections.abc import Callable, Iterable
from math import inf

from attrs import define, evolve, frozen

from ringfence import quick
from ringfence.detect.friends import Friends, friend_from
from ringfence.detect.held import Held
from ringfence.detect.history import MAX_ATTEMPTS, History, fact_from, fact_of, key_of, network_of
from ringfence.detect.judge import Count, Decision, Judge
from ringfence.detect.networks import NetworkSet
from ringfence.detect.notices import siege, siege_over, spoofing
from ringfence.detect.phones import Phones
from ringfence.detect.places import Place, Places
from ringfence.detect.rules import By, Claimed, Rule, is_proven
from ringfence.detect.witnesses import MAX_SESSIONS, Found, Witnesses, Worth
from ringfence.model import (
    Address,
    Attempt,
    AttemptKind,
    Challenge,
    Endpoint,
    EventKind,
    Friend,
    Network,
    Notice,
    Proof,
    Scope,
    SecurityEvent,
    Service,
    Transport,
)

HOUR = 3_600.0
_SPOOFING_EVERY = 5.0
_MOST_LOOKED_AT = 200
_PHONES = (Service.PJSIP, Service.SIP)


class Standing(enum.StrEnum):
    """What was done with an attempt."""

    COUNTED = "counted"
    NEVER_BANNED = "never banned"
    FRIEND = "friend"  # counted by the numbers for friends
    WITHHELD = "withheld"  # its address may be a stranger's: listed, bans nobody
    FORGED = "forged"  # its address is a stranger's: not even listed
    LATE = "late"
    NO_RULE = "no rule"
    PROVEN = "proven"  # no new attempt: one that was judged before is proven now


# What is asked for each event or attempt, by names that are found at once.
_SUCCESS, _HIDDEN, _FAIR = EventKind.SUCCESSFUL_AUTH, EventKind.HIDDEN, Worth.FAIR
_FULL, _NARROW, _CLAIMED, _COUNTED = Scope.FULL, Scope.SIP_UDP, Proof.CLAIMED, Standing.COUNTED
_DATAGRAMS = (Transport.UDP, Transport.UNKNOWN)


@quick.frozen
class Judgement:
    """An attempt, what was done with it, and the ban that follows, if one does."""

    attempt: Attempt
    subject: Network
    standing: Standing
    decision: Decision | None = None


@frozen
class Watched:
    """A subject that has made attempts and is not banned for them: ``rule`` is the one that is nearest.

    ``have`` of ``of`` attempts are in its window.
    """

    subject: Network
    rule: str
    have: int
    of: int
    standing: Standing
    attempts: tuple[Attempt, ...]


@frozen
class Story:
    """All that is known of an address: who it is, what it did, and how near each rule is.

    ``attempts`` are those that are remembered, oldest first. ``friends`` is why it is a friend, ``former``
    why it was one.
    """

    address: Address
    subject: Network
    never: bool
    friends: tuple[Friend, ...]
    former: tuple[Friend, ...]
    attempts: tuple[Attempt, ...]
    counts: tuple[Count, ...]
    braked: bool


@define
class Counts:
    """How many attempts there were, and what was done with them. ``withheld``: that a rule counts.

    ``hidden``: attempts that only the wire told of. ``forged`` are no attempts. ``spared``: claimed attempts
    in the name of friends.
    """

    attempts: int = 0
    never_banned: int = 0
    withheld: int = 0
    late: int = 0
    hidden: int = 0
    forged: int = 0
    friends: int = 0
    spared: int = 0


class Detector:
    """Holds the witnesses, what each subject did, and the judge."""

    def __init__(
        self,
        rules: tuple[Rule, ...],
        never: NetworkSet | None = None,
        several: frozenset[str] = frozenset(),
        max_attempts: int = MAX_ATTEMPTS,
        connected: Callable[[Endpoint], bool] = lambda _: False,
        max_sessions: int = MAX_SESSIONS,
        claimed: Claimed | None = None,
        friends: Friends | None = None,
        assumed: Proof = Proof.CLAIMED,
    ) -> None:
        """``connected`` says whether the sender has a TCP connection to this host now.

        ``assumed`` is the proof of what only the wire could prove, for the past, where nobody saw it.
        """
        self.counts = Counts()
        self.banned: Callable[[Network, Scope], bool] = lambda _, __: False
        """Whether a network is kept out now, as whoever keeps the bans knows."""
        self.friends = friends if friends is not None else Friends()
        self.succeeded: Callable[[SecurityEvent], object] = self._learn
        """Called with every right password, once it is judged."""
        self.expires_friends = True
        """Whether nobody else lets friends go whose time is over."""
        self.notices: list[Notice] = []
        """What came up since somebody last took it."""
        self.further: list[Judgement] = []
        """Judgements beside those that were given out: :meth:`take_further`."""
        self.rules: tuple[Rule, ...] = ()
        self._places = Places(self.friends, never if never is not None else NetworkSet())
        self._max_attempts = max_attempts
        self._witnesses = Witnesses(connected=connected, max_sessions=max_sessions, assumed=assumed)
        self._phones = Phones(self.friends)
        self._history = History(0.0, max_attempts)
        self._judge: Judge
        self._held = Held()
        self._spoofing_told = -inf
        self.configure(rules, several, claimed)

    def configure(
        self,
        rules: tuple[Rule, ...],
        several: frozenset[str] = frozenset(),
        claimed: Claimed | None = None,
    ) -> None:
        """Take new rules, over what subjects did already. What others share in (prefixes) begins anew.

        ``several`` names the Asterisks that have more than one source; elsewhere each telling is an attempt.
        """
        self._witnesses.several = several
        terms = claimed if claimed is not None else Claimed()
        if rules and rules == self.rules and terms == self._judge.claims.terms:
            return
        if self.rules:
            self.notices += (siege_over(*account) for account in self._judge.besieged)
        self.rules = rules
        self._history.seconds = max([rule.window for rule in rules if rule.enabled], default=HOUR)
        self._judge = Judge(rules, terms, self._history, self._places)

    @property
    def never(self) -> NetworkSet:
        """The networks that are never banned."""
        return self._places.never

    @never.setter
    def never(self, never: NetworkSet) -> None:
        self._places.never = never

    @property
    def evicted(self) -> int:
        """How much was forgotten for want of room: by the witnesses, and of what subjects did."""
        return self._witnesses.evicted + self._history.evicted

    @property
    def remembered(self) -> int:
        """How many attempts are remembered."""
        return len(self._history)

    # -- what sources tell ------------------------------------------------------------------------------

    def observe(self, event: SecurityEvent, now: float) -> Judgement | None:
        """Take an event that arrived at ``now`` (monotonic seconds); None where nothing follows."""
        witnesses = self._witnesses
        if event.kind is _SUCCESS:
            self._succeed(event, now)
        found = witnesses.hear(event, now)
        if witnesses.proven:
            self.further += self._take_proofs(now)
        if witnesses.joined:
            self._take_joined(now)
        if witnesses.beside:
            self.further += [self._weigh(one) for one in witnesses.beside]
            witnesses.beside.clear()
        return self._weigh(found) if found is not None else None

    def see(self, challenges: Iterable[Challenge], now: float, wall: float, asterisk: str) -> list[Judgement]:
        """Take what the wire saw leave (:meth:`Witnesses.see`)."""
        found = self._witnesses.see(challenges, now, wall, asterisk)
        raised = self._take_proofs(now) if self._witnesses.proven else []
        return [*raised, *(self._weigh(one) for one in found)]

    def blind(self, now: float) -> None:
        """Take that the wire lost something at ``now``."""
        self._witnesses.blind(now)

    def _take_joined(self, now: float) -> None:
        """Note who else tells of attempts that are known."""
        for address, session, service, witness in self._witnesses.joined:
            self._history.join(self._places.of(address).key, session, service, witness, now)
        self._witnesses.joined.clear()

    def _take_proofs(self, now: float) -> list[Judgement]:
        """Take that addresses are proven for what they did in a session; give the bans that follow."""
        judgements = []
        for asterisk, address, session in self._witnesses.proven:
            place = self._places.of(address)
            raised = self._history.prove(place.key, session)
            if not raised or place.never or self._is_held(place, Scope.FULL, now):
                continue
            kept = self._history.of(place.key)
            attempt = self._history.attempt_of(kept[-1], place.subject)
            decision: Decision | None = None
            for fact in raised:
                account = fact.account.decode("utf-8", "replace")
                if place.proven or self.friends.worked_at(account, address):
                    one = evolve(attempt, address=address, account=account, kind=fact.kind, event=fact.event)
                    one = evolve(one, proof=Proof.NONCE)
                    decision = self._friend_did(place, one, now) or decision
                else:
                    decision = self._judge.proven(place, asterisk, fact) or decision
            if not place.proven:
                decision = self._judge.decide(place, kept, attempt, now) or decision
                self._tell_of_sieges()
            if decision is not None:
                judgements.append(Judgement(attempt, place.subject, Standing.PROVEN, decision))
        self._witnesses.proven.clear()
        return judgements

    def _succeed(self, event: SecurityEvent, now: float) -> None:
        """Say what is strange about a right password, and learn from it."""
        if event.service not in _PHONES or event.tampered:
            return
        if friend_from(event) is not None:
            place = self._places.of(event.remote.address)
            facts = [fact_of(packed) for packed in self._history.of(place.key)]
            failures = sum(
                now - fact.at < HOUR and self._is_sure(fact.proven) and fact.kind is AttemptKind.GUESS
                for fact in facts
            )
            if not place.friend:
                failures = max(failures, self._judge.failures_of_prefix(place, now))
            self.notices += self._phones.succeeds(event, failures, now)
            if self._witnesses.is_diverted(event.remote.address, now):
                return  # somebody else may have logged in under this address
        self.succeeded(event)

    def _learn(self, event: SecurityEvent) -> None:
        friend = friend_from(event)
        if friend is not None:
            self.friends.meet(friend)

    # -- what follows -----------------------------------------------------------------------------------

    def _weigh(self, found: Found) -> Judgement:
        """Judge what the witnesses found, unless it is somebody's forgery."""
        attempt = found.attempt
        if found.worth is not _FAIR:
            subject = self.subject_of(attempt.address)
            # Who is banned gets no challenge any more, so a line of his without one is no forgery.
            if found.worth is Worth.AIMED or not self._is_held(
                self._places.of(attempt.address), Scope.FULL, found.at
            ):
                self.counts.forged += 1
                return Judgement(attempt, subject, Standing.FORGED)
        if attempt.event is _HIDDEN:
            self.counts.hidden += 1
        return self.judge(attempt, found.at)

    def judge(self, attempt: Attempt, now: float) -> Judgement:
        """Count one attempt under every rule that counts its kind. The first rule that is full decides."""
        self.counts.attempts += 1
        place = self._places.of(attempt.address)
        subject = place.subject
        if place.never:
            self.counts.never_banned += 1
            return Judgement(attempt, subject, Standing.NEVER_BANNED)
        if self._is_held(place, _FULL, now):
            self.counts.late += 1
            return Judgement(attempt, subject, Standing.LATE)
        if not self._judge.counts_kind(attempt.kind):
            return Judgement(attempt, subject, Standing.NO_RULE)
        kept = self._history.add(place.key, attempt, now)
        if not attempt.trusted:
            self.counts.withheld += 1
            return Judgement(attempt, subject, Standing.WITHHELD)
        if place.friend or self.friends.worked_at(attempt.account, attempt.address):
            judgement = self._judge_friend(place, attempt, now)
            if judgement is not None:
                return judgement
        return self._judge_stranger(place, kept, attempt, now)

    def _judge_friend(self, place: Place, attempt: Attempt, now: float) -> Judgement | None:
        """Judge what a friend did, or a phone that was one; None where it counts as a stranger's."""
        proven = is_proven(attempt.proof)
        if proven and not place.proven and not self.friends.worked_at(attempt.account, place.address):
            return None
        self.counts.friends += 1
        decision = None
        if self._is_sure(proven):
            decision = self._friend_did(place, attempt, now)
        self.counts.spared += not proven
        return Judgement(attempt, place.subject, Standing.FRIEND, decision)

    def _friend_did(self, place: Place, attempt: Attempt, now: float) -> Decision | None:
        """Take what really is a friend's: of a broken phone it is told, and of an attacker there."""
        worked = self.friends.worked_at(attempt.account, place.address)
        if worked and attempt.kind is AttemptKind.GUESS:
            self.notices += self._phones.fails(attempt, now)
        elif attempt.kind is AttemptKind.GUESS:
            self.notices += self._phones.fails_elsewhere(attempt, now)
        forgotten = worked or attempt.event is EventKind.INVALID_ACCOUNT_ID
        if self.friends.braked and forgotten:  # a password of others' would be a guess, now as ever
            self.counts.spared += 1
            return None
        return self._judge.decide_friend(place, attempt, now, works=worked)

    def _is_sure(self, proven: bool) -> bool:  # noqa: FBT001 - the one thing it is about
        """Say whether an attempt may be believed: without the wire nothing more is to be had than a claim."""
        return proven or not self._witnesses.sees_wire

    def _judge_stranger(self, place: Place, kept: list[bytes], attempt: Attempt, now: float) -> Judgement:
        narrowed = self._is_held(place, _NARROW, now)
        refused = self._judge.claims.refused
        decision = None
        if not narrowed or attempt.proof is not _CLAIMED:  # of who is narrowed a claim changes nothing
            # Of a friend no claim leads to anything.
            decision = self._judge.decide(place, kept, attempt, now, narrowed=narrowed or place.friend)
        if attempt.proof is not _CLAIMED:
            decision = self._judge.proven(place, attempt.asterisk, fact_from(attempt, now)) or decision
            self._tell_of_sieges()
        if self._judge.claims.refused != refused:
            self._tell_of_spoofing(now)
        if narrowed and decision is None and attempt.transport in _DATAGRAMS:
            self.counts.late += 1
            return Judgement(attempt, place.subject, Standing.LATE)
        return Judgement(attempt, place.subject, _COUNTED, decision)

    def _tell_of_sieges(self) -> None:
        self.notices += (siege(*account) for account in self._judge.begun)
        self._judge.begun.clear()

    def _tell_of_spoofing(self, now: float) -> None:
        if now - self._spoofing_told >= _SPOOFING_EVERY:
            self._spoofing_told = now
            self.notices.append(spoofing(self._judge.claims.terms.per_minute))

    # -- who is held ------------------------------------------------------------------------------------

    def _is_held(self, place: Place, scope: Scope, now: float) -> bool:
        return self._held.has(place, scope, now) or self.banned(place.subject, scope)

    def hold(self, subject: Network, until: float, scope: Scope = Scope.FULL) -> None:
        """Count ``subject`` as late before ``until`` (monotonic seconds): it is banned, or about to be."""
        self._held.hold(subject, until, scope)

    def release(self, subject: Network) -> None:
        """Count ``subject`` again, from nothing."""
        self._held.release(subject)
        self.forget(subject)

    def forget(self, subject: Network) -> None:
        """Begin anew with ``subject``: what it did is remembered, and leads to nothing."""
        self._history.spend(key_of(subject))

    def tend(
        self,
        now: float,
        wall: float = 0.0,
        *,
        wire: bool = False,
        listening: Callable[[str], float | None] = lambda _: None,
    ) -> list[Judgement]:
        """Do what time asks for, every second or so; give what is judged only now (:meth:`Witnesses.tend`).

        Who is held no longer is dropped, and so are friends whose time is over at ``wall``.
        """
        self._held.expire(now)
        self._history.expire(now)
        if self.expires_friends:
            self.friends.expire(wall)
        self.notices += (siege_over(*account) for account in self._judge.tend(now))
        self.notices += self._phones.tend(now)
        found = self._witnesses.tend(now, wall, wire=wire, listening=listening)
        return [self._weigh(one) for one in found]

    def take_further(self) -> list[Judgement]:
        """Give what was judged beside what was given out.

        A guess in another's name is two's; and what proves an address may be the end of a ban's number.
        """
        taken, self.further = self.further, []
        return taken

    def take_notices(self) -> list[Notice]:
        """Give what came up since this was asked last."""
        taken, self.notices = self.notices, []
        return taken

    # -- what is asked ----------------------------------------------------------------------------------

    def subject_of(self, address: Address) -> Network:
        """Give what is counted and banned for ``address``."""
        return self._places.of(address).subject

    def story(self, address: Address, now: float) -> Story:
        """Give all that is known of an address."""
        place = self._places.of(address)
        return Story(
            address,
            place.subject,
            place.never,
            self.friends.reasons(address),
            tuple(friend for friend in self.friends.former() if friend.address == address),
            self._history.attempts(place.key),
            tuple(self._judge.counts(place, now)),
            self.friends.braked,
        )

    def watched(self, now: float, most: int = 20) -> list[Watched]:
        """Give subjects with attempts that led to no ban so far, those nearest to one first.

        Of the latest only: to look at a million takes a second.
        """
        found = []
        for key, kept in self._history.latest(_MOST_LOOKED_AT):
            subject = network_of(key)
            place = self._places.of(subject.network_address)
            if any(self._is_held(place, scope, now) for scope in Scope):
                continue
            facts = [fact_of(packed) for packed in kept]
            trusted = [packed for packed, fact in zip(kept, facts, strict=True) if not fact.spent]
            counts = [
                count
                for count in self._judge.counts(place, now)
                if count.have and count.number and count.rule.by is By.SUBJECT
            ]
            if not trusted or (not counts and any(fact.trusted for fact in facts)):
                continue
            found.append(self._watched(subject, place, trusted, counts))
        found.sort(key=lambda entry: (-entry.have / entry.of, -len(entry.attempts), -entry.attempts[-1].time))
        return found[:most]

    def _watched(self, subject: Network, place: Place, kept: list[bytes], counts: list[Count]) -> Watched:
        attempts = tuple(self._history.attempt_of(packed, subject) for packed in kept)
        nearest = max(counts, key=lambda count: count.have / count.number, default=None)
        if nearest is None:  # nothing that rules count: what is withheld
            return Watched(subject, "", 0, 1, Standing.WITHHELD, attempts)
        standing = Standing.FRIEND if place.friend else Standing.COUNTED
        return Watched(subject, nearest.rule.name, nearest.have, nearest.number, standing, attempts)
