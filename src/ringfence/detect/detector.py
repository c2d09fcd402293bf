"""The detector: turns security events into judgements and bans.

It uses no clock, no socket and no firewall. Its caller passes the time of each event, carries out the
decisions, and records the bans in force in :attr:`Detector.bans`, which the detector only reads. An attempt
of a banned subject is *late*: it was sent before the ban took effect, and leads to no further ban. A ban of
the SIP ports makes no login at the manager interface late. A claimed ban usually blocks only the SIP ports by
UDP. So it makes only attempts by UDP late, and a proven one can still lead to a full ban.

``attribution`` decides which events are attempts, and of which address. ``judge`` decides which ban follows,
and ``phones`` which phones fail. A method that handles an input returns its effects, and the caller carries
them out in this order. An effect is a judged attempt with the ban that follows, an alarm for the
administrator, a login that makes a friend, or a friend that the kernel must observe.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby
from math import inf
from typing import NamedTuple

from attrs import evolve as evolve_decision
from attrs import frozen

from ringfence import ban_facts
from ringfence.alarm_codes import AlarmCode
from ringfence.detect.attribution import REFUSALS, Attribution, sender_of_request
from ringfence.detect.confirmation import (
    NOT_CONNECTED,
    PATIENCE,
    Connections,
    KnownSources,
    Listening,
    Query,
)
from ringfence.detect.distributed import scope_of_ban
from ringfence.detect.findings import (
    AttributedAttempt,
    ClientLogin,
    DuplicateReport,
    Finding,
    NewProof,
    UnprovableGuess,
    WrongAnswer,
)
from ringfence.detect.friend_attempts import Consequence, FriendAttempts, is_guess_elsewhere
from ringfence.detect.friends import Friends, account_of, friend_from, identity_of
from ringfence.detect.history import (
    MAX_ATTEMPTS,
    Fact,
    History,
    Subject,
    Subjects,
    fact_from,
    fact_of,
    pack_network,
    unpack_network,
)
from ringfence.detect.judge import ClaimedLimit, Judge, existing_accounts
from ringfence.detect.judgement import (
    OFFICE,
    AddressSummary,
    Count,
    Counts,
    Decision,
    Disposition,
    Effect,
    Estranged,
    Guest,
    Judgement,
    Login,
    Observe,
    Pinging,
    Watched,
    distributed_cleared,
    forged_by,
    guessing,
    office_banned,
    too_many_friends,
)
from ringfence.detect.observation import Observation
from ringfence.detect.pages import Pages
from ringfence.detect.refused_logins import LATE_REFUSALS, RefusedLogins, is_refused_login
from ringfence.detect.rules import HOUR, By, Claimed, Rule
from ringfence.detect.sessions import MAX_SESSIONS, remember
from ringfence.detect.unexplained import STREAMS, Exchanges
from ringfence.ledger import Ledger, key_of, network_of
from ringfence.values.alarm import AlarmChange
from ringfence.values.attempt import Attempt, AttemptKind, Proof
from ringfence.values.ban import CLAIMED_SCOPES, WHOLE_SCOPES, Origin, Scope
from ringfence.values.event import (
    AMI,
    DATAGRAMS,
    WIRE,
    Endpoint,
    EventKind,
    SecurityEvent,
    Service,
    Transport,
)
from ringfence.values.fast import evolve
from ringfence.values.friend import Contact, FriendReason
from ringfence.values.network import (
    Address,
    Network,
    NetworkSet,
    contains,
    is_one_host,
    sender_of,
    senders_in,
)
from ringfence.values.packet import CopiedAnswer, CopiedRequest, Exchange

_MOST_SEARCHED = 200
_MOST_NARROW = 20_000
_MOST_UNNAMED = 1_024
_MOST_CLEARED = 256
"""The maximum number of senders whose attempts are cleared by one unban: those of an IPv4 /24."""
_PHONES = (Service.PJSIP, Service.SIP)


# Module-level aliases: enum member lookups are slow in the per-event hot path.
_SUCCESS, _HIDDEN = EventKind.SUCCESSFUL_AUTH, EventKind.HIDDEN
_CHALLENGE = EventKind.CHALLENGE_SENT
_AUTHENTICATED, _TRUNK = FriendReason.AUTHENTICATED, FriendReason.TRUNK
_NARROW = Scope.SIP_UDP
_FORBIDDEN = 403
_CLAIMED, _COUNTED = Proof.CLAIMED, Disposition.COUNTED

_WHOLE = frozenset(WHOLE_SCOPES)
# For how long after a ban (seconds) attempts by TCP, and by UDP, may come from requests that wait in a queue.
# ``guard/ban_effectiveness.py`` has the sizes of the queues.
_DRAINED = (15.0, 3.0)

Judged = tuple[Judgement, *tuple[AlarmChange | Estranged | Judgement, ...]]
"""A judgement of an attempt, followed by the alarms, ended friendships and further bans that it causes."""


@frozen
class Bounds:
    """The greatest numbers of attempts and of sessions that a detector keeps."""

    attempts: int = MAX_ATTEMPTS
    sessions: int = MAX_SESSIONS


class _Correction(NamedTuple):
    """An attempt as it was first reported, and as it is known now: whole, and as the rules see it.

    ``decides``: AMI reports it now, so the account that it names is the right one.
    """

    old: Attempt
    new: Attempt
    was: Fact
    fact: Fact
    decides: bool


class Detector:
    """Turns events and copied packets into judged attempts (perhaps with a ban), alarms and logins.

    A detector connects the attribution of events, the history of each sender, and the judge. It has more than
    twenty methods because it is the only interface of the package.
    """

    def __init__(
        self,
        rules: tuple[Rule, ...],
        exempt: NetworkSet | None = None,
        friends: Friends | None = None,
        claimed: Claimed | None = None,
        connections: Connections | None = None,
        sources: KnownSources | None = None,
        bounds: Bounds | None = None,
        bans: Ledger | None = None,
    ) -> None:
        """Create a detector.

        ``bans`` are the bans in force: the detector reads them, and its caller records them. ``exempt`` are
        the networks that are never banned. ``claimed`` are the limits of bans on unproven evidence, None for
        the default. ``connections`` are the TCP connections to this host: the detector reads them, and
        its caller keeps them up to date. None if they are unknown.
        """
        bounds = bounds if bounds is not None else Bounds()
        sources = sources if sources is not None else KnownSources()
        self.counts = Counts()
        self.bans = bans if bans is not None else Ledger()
        self.friends = friends if friends is not None else Friends()
        self.rules = rules
        self._claims = ClaimedLimit(claimed if claimed is not None else Claimed())
        self._subjects = Subjects(self.friends, exempt if exempt is not None else NetworkSet())
        self._attribution = Attribution(sources, connections, bounds.sessions)
        self._exchanges = Exchanges()
        self._history = History(_longest(rules), bounds.attempts)
        self._judge = Judge(rules, self._claims, self._history, self._subjects)
        self._attribution.questions.decoys = self._judge.decoys
        self._friend_attempts = FriendAttempts(self._subjects, self._history, self.counts)
        self._friend_attempts.configure(rules)
        self._observation = Observation()
        self._pages = Pages()
        self._refusals = RefusedLogins(self.friends)
        # The bans that the present call returns, by network and scope: they are not in force yet.
        self._decided: set[tuple[Network, Scope]] = set()
        # The changes of the friends when the addresses of all phones were made, and these addresses.
        self._of_phones: tuple[int, frozenset[Address]] = (-1, frozenset())
        # By subject, the latest bans whose attempts were not all named when they were decided.
        self._unnamed: OrderedDict[Network, Decision] = OrderedDict()

    def configure(
        self, rules: tuple[Rule, ...], sources: KnownSources | None = None, claimed: Claimed | None = None
    ) -> Sequence[Effect]:
        """Use new rules, sources and limits; return the changes that clear alarms about the old rules.

        New rules also apply to the attempts in memory. If the rules or limits have changed, the counts of
        prefixes, accounts and friends start again, and with new limits those of bans on unproven evidence.
        """
        self._attribution.configure(sources if sources is not None else KnownSources())
        claimed = claimed if claimed is not None else Claimed()
        if rules == self.rules and claimed == self._claims.terms:
            return ()
        cleared = [distributed_cleared(*account) for account in self._judge.attacked]
        self.rules = rules
        if claimed != self._claims.terms:
            self._claims = ClaimedLimit(claimed)
        self._history.seconds = _longest(rules)
        self._judge = Judge(rules, self._claims, self._history, self._subjects)
        self._attribution.questions.decoys = self._judge.decoys
        self._friend_attempts.configure(rules)
        return cleared

    @property
    def exempt(self) -> NetworkSet:
        """The networks that are never banned."""
        return self._subjects.exempt

    @exempt.setter
    def exempt(self, exempt: NetworkSet) -> None:
        self._subjects.exempt = exempt

    @property
    def evicted(self) -> int:
        """The number of sessions and senders that were discarded early to stay within the bounds."""
        return self._attribution.evicted + self._history.evicted

    @property
    def waiting(self) -> int:
        """The number of reports that wait for another source to confirm their address."""
        return self._attribution.waiting

    def set_proxy_sockets(self, sockets: frozenset[Endpoint]) -> None:
        """Set the sockets on which the SIP proxies of this host listen."""
        self._attribution.proxies.set_sockets(sockets)

    def queries(self, event: SecurityEvent, now: float) -> Iterator[Query]:
        """Yield the TCP connections that :meth:`observe` may look up for ``event``.

        Each is an address and port, and the least bytes that it must have sent. The caller must first bring
        the table of connections up to date for these. An event by UDP needs none.
        """
        return self._attribution.confirmation.queries(event, now)

    # -- input of the sources ---------------------------------------------------------------------------

    def observe(self, event: SecurityEvent, now: float, ahead: float = inf) -> Sequence[Effect]:
        """Handle an event that arrived at ``now`` (monotonic seconds); return what follows, such as a ban.

        ``ahead`` is the wall clock minus the monotonic clock (seconds), if known. If the clock was set back
        since the last tick, it counts at once: otherwise a new report would look overdue. One that is set
        forward counts at the next tick, because reports from before are still on their way.
        """
        confirmation = self._attribution.confirmation
        confirmation.ahead = min(confirmation.ahead, ahead)
        login = event.kind is _SUCCESS and not self._attribution.proxies.names(event)
        effects = self._on_success(event, now) if login else []
        challenged = event.kind is _CHALLENGE and event.source.name == AMI and not event.tampered
        if challenged and self.friends.has(event.remote.address):
            self._observation.on_challenge(event, now)
        if event.kind in LATE_REFUSALS and is_refused_login(event):
            effects += self._on_refusal(event.remote.address, event.session, self._happened(event, now))
        found = self._attribution.observe(event, now)
        if event.remote.transport in STREAMS:
            repeated = any(isinstance(one, DuplicateReport) for one in found)
            befriends = any(isinstance(one, Login) and one.befriends for one in effects)
            self._exchanges.explain(event, now, repeated=repeated, befriends=befriends)
        return [*effects, *self._on_findings(found, now)] if found else effects

    def _happened(self, event: SecurityEvent, now: float) -> float:
        """Return when an event happened (seconds since the epoch), which arrived at ``now`` (monotonic).

        A sender can write the time in a line of the log, so there the arrival counts.
        """
        return now + self._attribution.confirmation.ahead if event.source.text else event.time

    def observe_answers(
        self, answers: Iterable[CopiedAnswer], now: float, wall: float, asterisk: str
    ) -> Sequence[Effect]:
        """Handle SIP answers that left this host; return what follows, such as a ban.

        They left at ``now`` (monotonic seconds), which is ``wall`` seconds since the epoch. ``asterisk`` is
        the assumed Asterisk of an answer, if no event has shown yet which one sent it.
        """
        self._friend_attempts.sees_wire = True
        answers = tuple(answers)
        found = self._attribution.observe_answers(answers, now, wall, asterisk)
        return [*self._on_findings(found, now), *self._observe_friends(answers, now, wall)]

    def _observe_friends(
        self, answers: Iterable[CopiedAnswer], now: float, wall: float
    ) -> Iterator[Observe | Estranged]:
        """Yield what follows for friends (known phones) whose requests Asterisk refuses by ``answers``.

        An Observe: the kernel must copy the packets of this friend from now on. An Estranged: Asterisk has
        refused the login that made this friend, so it is a friend no longer. The answers left at ``now``
        (monotonic seconds), which is ``wall`` seconds since the epoch.
        """
        for answer in answers:
            sender = sender_of_request(answer)
            if sender is not None and answer.status == _FORBIDDEN:
                yield from self._on_refusal(sender, answer.call_id, wall)
            if sender is None or answer.status not in REFUSALS:
                continue
            if answer.accepted and answer.status == _FORBIDDEN:
                continue  # a challenge for a nonce that is too old counts, because AMI reports it
            if self.friends.has(sender) and self._observation.on_refusal(sender, answer, now):
                yield Observe(sender)

    def observe_requests(
        self, requests: Iterable[CopiedRequest], now: float, asterisk: str
    ) -> Sequence[Effect]:
        """Handle copied requests of senders that are no friends; return what follows, such as a ban."""
        self._friend_attempts.sees_wire = True
        others = self._pages.take(requests)
        return self._on_findings(self._attribution.observe_requests(others, now, asterisk), now)

    def observe_exchange(self, exchange: Exchange, now: float) -> None:
        """Record evidence of a request that could not be read, such as by TLS, for :meth:`judge_exchanges`.

        Exchanges with a SIP proxy are left out: no event names its client, so none would be explained. So are
        those with friends, except by TLS with new friends: a friend may have logged in before its connection
        became unreadable, or before this daemon's start. If strangers may call without a password, their
        exchanges by TLS are left out too: their calls look like guesses.
        """
        if self._attribution.proxies.serves(exchange.local_port):
            return
        by_tls = exchange.transport is Transport.TLS
        new = by_tls and exchange.address in self.friends.first_day.addresses
        guest = by_tls and self._attribution.confirmation.sources.guests
        if new or not (guest or self._subjects.find(exchange.address).friend):
            self._exchanges.observe(exchange, now)

    def judge_exchanges(
        self, now: float, wall: float, asterisk: str, since: float | None, read: float = inf
    ) -> Sequence[Effect]:
        """Judge the unreadable requests for which no event came in time; return what follows, such as a ban.

        All times except ``wall`` are monotonic seconds. ``asterisk`` is the name of the Asterisk to which the
        packets of the wire belong. ``since`` is the time since which every AMI has delivered events. If some
        AMI delivers none, ``since`` is None and no request is judged. ``read`` is the time up to which every
        AMI's events have been read.
        """
        return self._on_findings(self._unexplained(now, wall, asterisk, since, read), now)

    def waits_for_ami(self, now: float) -> bool:
        """Whether to ask every AMI how far its events have been read, because unreadable requests wait."""
        return self._exchanges.waits_for_ami(now)

    def observe_read(self, read: float) -> None:
        """Record up to when every AMI's events have been read (monotonic seconds); inf if it is unknown."""
        self._attribution.late_reports.read = read

    @property
    def has_late_reports(self) -> bool:
        """Whether log lines wait until AMI's events have been read further: then every AMI must be asked."""
        return len(self._attribution.late_reports) > 0

    def _unexplained(
        self, now: float, wall: float, asterisk: str, since: float | None, read: float
    ) -> Iterator[AttributedAttempt]:
        """Yield an attempt for each unreadable request that no event reports.

        Those of banned addresses and of phones (``Friends.all_settled``) are left out. The arguments are
        those of :meth:`judge_exchanges`. This is a generator, so that a ban which follows from one attempt
        applies to the next one.
        """
        for remote, requests in groupby(self._exchanges.unexplained(now, since, read)):
            if self.friends.all_settled(remote.address, self._exchanges.logins(remote)):
                continue
            for _ in requests:
                subject = self._subjects.find(remote.address)
                banned = self._scopes_of(subject, now)
                if Scope.SIP_TCP in banned or not _WHOLE.isdisjoint(banned):
                    continue  # it was asked before the ban
                attempt = Attempt(
                    *(asterisk, remote.address, AttemptKind.UNEXPLAINED, Proof.HANDSHAKE, Service.PJSIP),
                    *(remote.transport, "", EventKind.UNEXPLAINED, wall),
                    trusted=True,
                    sources=(WIRE,),
                )
                yield AttributedAttempt(attempt, now, claimed=Scope.SIP_TCP)

    def observe_loss(self, now: float) -> None:
        """Record that some of the packets that the kernel copies were lost at ``now`` (monotonic)."""
        self._friend_attempts.sees_wire = True
        self._attribution.observe_loss(now)

    def observe_silence(self, now: float) -> None:
        """Record that the log shows, at ``now`` (monotonic), that Asterisk could not report an event."""
        self._observation.on_silence(now)

    def observe_backlog(self, now: float) -> None:
        """Record that copied packets wait unread at ``now`` (monotonic) while an event is judged."""
        self._attribution.observe_backlog(now)

    def _on_findings(self, found: Iterable[Finding], now: float) -> list[Effect]:
        """Handle what :class:`Attribution` found in one input; return the bans, alarms and other effects.

        A sender whose ban is decided counts as banned until this call returns. Otherwise, ten attempts in one
        call would be a ban and a longer one for repeated offences.
        """
        effects: list[Effect] = []
        try:
            for finding in found:
                if isinstance(finding, AttributedAttempt):
                    if finding.attempt.transport in STREAMS:
                        self._exchanges.explain_guess(finding.attempt, finding.port, now)
                    follows = self._on_attempt(finding)
                else:
                    follows = self._on_finding(finding, now)
                for effect in follows:
                    effects.append(effect)
                    if isinstance(effect, Judgement) and effect.decision is not None:
                        decision = effect.decision
                        if now - decision.at > PATIENCE:  # attempts that count late, whose sender goes on
                            decision = evolve_decision(decision, at=now)
                            effects[-1] = evolve(effect, decision=decision)
                        self._decided.add((decision.subject, decision.scope))
                        if decision.accounts >= OFFICE:
                            effects.append(office_banned(decision.subject, decision.accounts))
                        elif decision.scope in _WHOLE:
                            remember(self._unnamed, decision.subject, decision, _MOST_UNNAMED)
        finally:
            self._decided.clear()
        return effects

    def _on_reason(self, subject: Subject) -> Sequence[AlarmChange]:
        """Return, once, the alarm that a recent ban may hit an office (phones with wrong passwords), or ().

        A copied packet does not show why Asterisk refused an attempt, and AMI may report this after the ban.
        """
        decision = self._unnamed.get(subject.network)
        if decision is None:
            return ()
        since = decision.at - decision.rule.window
        facts = self._judge.facts_of_strangers(subject.network)
        accounts = existing_accounts(fact for fact in facts if fact.at >= since)
        if accounts < OFFICE:
            return ()
        del self._unnamed[subject.network]
        return (office_banned(subject.network, accounts),)

    def _on_finding(
        self, finding: DuplicateReport | NewProof | ClientLogin | UnprovableGuess | WrongAnswer, now: float
    ) -> Sequence[Effect]:
        if isinstance(finding, DuplicateReport):
            subject = self._subjects.find(finding.address)
            known = self.friends.any_known_in(subject.network)
            learned = self._history.add_source(subject.key, finding, now, friend=known)
            forged = finding.forged_address
            alarms = () if forged is None else (forged_by(finding.address, forged),)
            if learned is None:
                return alarms
            again = self._judge_again(subject, *learned, now, decides=finding.decides)
            return (*alarms, *self._on_reason(subject), *again)
        if isinstance(finding, NewProof):
            return self._on_proof(finding, now)
        if isinstance(finding, WrongAnswer):
            return self._on_wrong_answer(finding, now)
        if isinstance(finding, ClientLogin):
            return self._on_success(finding.event, now)
        self._judge.record_nonce(self._subjects.find(finding.address), now)
        return (self._friend_attempts.on_unprovable(finding.address, now),) if finding.elsewhere else ()

    def _judge_again(
        self, subject: Subject, before: bytes, after: bytes, now: float, *, decides: bool
    ) -> Iterator[Judgement | AlarmChange | Estranged]:
        """Judge an attempt again if it turns out to be another one; yield the ban and the alarms.

        ``before`` is the packed attempt as it was first reported, and ``after`` as it is known now. It counts
        for more if it is on an account that does not exist, or if it is a guess that had the limits for
        failures of the phone itself. It no longer counts at its first account if AMI (``decides``) names
        another one, or reports that there is none.
        """
        if subject.exempt:
            return
        old, new = (self._history.attempt_of(packed, subject.network) for packed in (before, after))
        change = _Correction(old, new, fact_of(before), fact_of(after), decides)
        if subject.friend or self._is_tainted(new.address, new.time):
            decision, follows = self._judge_friend_again(subject, change, now)
        elif not self._works_near(new):
            decision, follows = self._judge_stranger_again(subject, change, now)
        else:
            return
        if decision is not None:
            yield Judgement(new, subject.network, Disposition.COUNTED_BEFORE, decision)
        yield from follows

    def _judge_friend_again(self, subject: Subject, change: _Correction, now: float) -> Consequence:
        """Judge an attempt again of a friend, or of an address where an account works that guessed before."""
        old, new, was, fact, decides = change
        works = self._friend_attempts.works
        guessed = [is_guess_elsewhere(one) and not works(subject, one) for one in (old, new)]
        # AMI names an account that works there, or a copied guess is another one than AMI reported.
        other = not decides and was.account != fact.account
        if guessed[0] and (other if guessed[1] else decides) and subject.friend:
            self._friend_attempts.take_back(subject, old)
            self._judge.take_back(subject, old.asterisk, was)
        elif guessed != [False, True]:
            return None, ()
        if scope_of_ban(new.transport) in self._scopes_of(subject, now):
            return None, ()
        if not subject.friend:
            return self._friend_attempts.on_tainted(subject, new, now)
        decision, follows = self._friend_attempts.on_reason(subject, new, now)
        self._count_friend(subject, new, fact)
        return decision, follows

    def _judge_stranger_again(self, subject: Subject, change: _Correction, now: float) -> Consequence:
        """Judge an attempt of a stranger again."""
        old, new, was, fact, decides = change
        same = was.account == fact.account and not was.unknown and not fact.unknown
        near = self._works_near(old)
        follows: Sequence[AlarmChange | Estranged] = ()
        if decides and not was.unknown and not same:
            self._judge.take_back(subject, old.asterisk, was)
        if fact.proven and fact.credentials and (near or not same):
            follows = self._judge.count_for_account(subject, new.asterisk, fact)
        if not near and not fact.unknown:
            return None, follows
        kept, narrowed = self._history.packed(subject.key), bool(self._scopes_of(subject, now))
        return self._judge.decide(subject, kept, new, now, narrowed=narrowed), follows

    def _on_proof(self, proof: NewProof, now: float) -> list[Effect]:
        """Record that an address itself sent a session's attempts; return what follows, such as a ban."""
        address = proof.address
        subject = self._subjects.find(address)
        raised = self._history.prove(subject.key, proof.session, proof.proof)
        for fact in raised:
            self.counts.proven_later[fact.kind] += 1
        banned = self._scopes_of(subject, now)
        if not raised or subject.exempt or not _WHOLE.isdisjoint(banned):
            return []
        kept = self._history.packed(subject.key)
        attempt = self._history.attempt_of(kept[-1], subject.network)
        decision: Decision | None = None
        alarms: list[AlarmChange | Estranged] = []
        tainted = self._is_tainted(address, attempt.time)
        if (subject.friend or tainted) and scope_of_ban(attempt.transport) in banned:
            return []
        strange: list[Attempt] = []  # the attempts that have the limits of a stranger
        latest = fact_of(kept[-1]).at
        for fact in raised:
            account = fact.account.decode("utf-8", "replace")
            one = evolve(attempt, address=address, account=account, kind=fact.kind, event=fact.event)
            one = evolve(one, proof=proof.proof, time=attempt.time - (latest - fact.at))
            if subject.friend or self._works_near(one):
                ban, follows = self._friend_attempts.on_certain(subject, one, now)
                self._count_friend(subject, one, fact)
            elif tainted:
                ban, follows = self._friend_attempts.on_tainted(subject, one, now)
            else:
                strange.append(evolve(one, credentials=fact.credentials))
                ban, follows = self._judge.count_proven(subject, proof.asterisk, fact)
            decision = ban or decision
            alarms += follows
        if decision is None and strange:
            decision = self._judge.decide(subject, kept, attempt, now, narrowed=bool(banned))
        more: Sequence[Decision] = ()
        if strange:
            decision, more = self._judge.bans_of_attacker(subject, strange[-1], now, banned, decision)
        bans = [one for one in (decision, *more) if one is not None]
        return [
            *(Judgement(attempt, subject.network, Disposition.COUNTED_BEFORE, one) for one in bans),
            *alarms,
        ]

    def _on_wrong_answer(self, found: WrongAnswer, now: float) -> Sequence[Effect]:
        """Record that an attempt was a guess with a wrong password; return what follows, such as a ban."""
        subject = self._subjects.find(found.address)
        fact = self._history.record_credentials(subject.key, found.session)
        exempt = subject.exempt or subject.friend or not _WHOLE.isdisjoint(self._scopes_of(subject, now))
        if fact is None or not fact.proven or exempt:
            return ()
        kept = self._history.packed(subject.key)
        attempt = self._history.attempt_of(kept[-1], subject.network)
        if self.friends.worked_near(fact.account.decode("utf-8", "replace"), found.address):
            return ()
        if self._is_tainted(found.address, attempt.time):
            return ()
        ban, alarms = self._judge.count_proven(subject, found.asterisk, fact)
        decision = ban or self._judge.decide(subject, kept, attempt, now, narrowed=True)
        if decision is None:
            return alarms
        return (Judgement(attempt, subject.network, Disposition.COUNTED_BEFORE, decision), *alarms)

    def _on_success(self, event: SecurityEvent, now: float) -> list[Effect]:
        """Handle a login; return alarms about it, and the login itself if its address is proven."""
        if event.service not in _PHONES or event.tampered:
            return []
        if event.source.name == AMI:
            self._observation.on_success(event, now)
        if event.source.text and not self._attribution.confirmation.confirms_login(event, now):
            return []  # a forged line of a login must not create a friend
        friend = friend_from(event, seen=self._is_seen(event, now))
        if friend is None:
            return []
        alarms = self._friend_attempts.on_success(event, now)
        guessed = any(alarm.code is AlarmCode.PASSWORD_GUESSED for alarm in alarms)
        # A diverted login may come from another address than the event names.
        diverted = self._attribution.is_diverted(event.remote.address, now)
        # ``tick`` reports an account that makes too many friends.
        permitted = not diverted and self._refusals.permit(friend, event.session, self._happened(event, now))
        befriends = permitted and self.friends.admit(friend)
        return [*alarms, Login(friend, befriends=befriends, guessed=guessed, proven=not diverted)]

    def _on_refusal(self, address: Address, session: bytes, at: float) -> Sequence[Estranged]:
        """Handle that Asterisk refused a request after its login; end the friendship that the login made.

        It was refused ``at`` (seconds since the epoch). Return the ended friendship; () if there is none.
        """
        friend = self._refusals.refuse(address, session, at)
        if friend is None:
            return ()
        self.friends.revoke(identity_of(friend))
        return (Estranged((friend,)),)

    def restore_friends(self, guilty: Collection[str], wall: float) -> None:
        """Restore at the start which friends are new, and from which accounts guesses came (``new_friends``).

        ``guilty`` has the subjects of the active alarms ``friend.guessing``, which name those accounts.
        """
        new = self.friends.restore_new(wall)
        for account in {account_of(friend) for friend in (*new, *self.friends.former())}:
            if guessing(*account).subject in guilty:
                self.friends.restore_guilt(account, wall)

    def _is_seen(self, event: SecurityEvent, now: float) -> bool:
        """Whether a copied packet has proven the address in AMI's report of a login at chan_sip.

        The kernel copies no request of a friend, so only the first login of an account at an address is
        copied.
        """
        if event.source.name != AMI or event.service is not Service.SIP:
            return False
        if self._attribution.has_registered(event, now):
            return True
        known = self.friends.reasons(event.remote.address)
        return any(one.account == event.account and one.reason is _AUTHENTICATED for one in known)

    def observe_contact(self, contact: Contact, now: float) -> Sequence[Effect]:
        """Handle a phone's registered contact; return an alarm if guesses failed at its address before.

        A contact that is gone has no effect. The contact may come from a login with a guessed password that
        the events do not show.
        """
        if contact.gone:
            return ()
        return self._friend_attempts.on_contact(contact, now)

    def unshielded(self, now: float) -> frozenset[Address]:
        """Return the addresses of friends whose packets the kernel must copy now, because of their guesses.

        Nothing can prove these guesses. The kernel's list of friends exempts them from copies, and also from
        bans of their /64. So a friend in a banned /64 is not returned: without the list, the ban would drop
        its packets.
        """
        return frozenset(
            address
            for address in self._friend_attempts.unshielded(now)
            if is_one_host(address) or not self.bans.scopes(key_of(sender_of(address)), now, friend=False)
        )

    def observed(self, now: float) -> frozenset[Address]:
        """Return the friends whose packets the kernel must copy (``observation``).

        They are new or refused often. They are all phones if Asterisk could not report an event, and if a SIP
        proxy serves them: AMI names the proxy, so without a copied request no login names its phone.
        """
        if self._attribution.proxies.networks or self._observation.has_silence(now):
            return self._phones()
        new = (one for one in self.friends.first_day.addresses if self.friends.has(one))
        return frozenset(self.friends.at_senders(self._observation.senders(now))).union(new)

    def _phones(self) -> frozenset[Address]:
        """Return the addresses of all phones that are friends; computed only when the friends change."""
        if self._of_phones[0] != self.friends.changes:
            phones = frozenset(one.address for one in self.friends.all() if one.reason is not _TRUNK)
            self._of_phones = self.friends.changes, phones
        return self._of_phones[1]

    # -- judging attempts -------------------------------------------------------------------------------

    def _on_attempt(self, found: AttributedAttempt) -> Sequence[Effect]:
        """Judge an attempt and return what follows; an attempt whose sender is forged is only counted."""
        attempt = found.attempt
        if found.forged:
            subject = self._subjects.find(attempt.address)
            # A banned address gets no challenge. So a missing one does not show that the line is forged.
            banned = self._scopes_of(subject, found.at)
            if _WHOLE.isdisjoint(banned):
                self.counts.forged += 1
                return (Judgement(attempt, subject.network, Disposition.FORGED),)
        if attempt.event is _HIDDEN:
            self.counts.hidden += 1
            by_stream = attempt.transport is not Transport.UDP and not found.copied
            if by_stream and self._subjects.find(attempt.address).friend:
                # A message by TCP to this phone may contain text of another sender that looks like a
                # challenge. So the attempt counts against the phone only if its own request was copied.
                attempt = evolve(attempt, trusted=False)
        claimed = found.claimed
        if self._pages.opened and self._pages.sent(attempt, found.port):
            attempt = evolve(attempt, page=True)
        if attempt.page or (not attempt.credentials and attempt.transport not in DATAGRAMS):
            claimed = Scope.SIP_TCP  # the handshake proves the address, and not that it is an attacker's
        return self.judge(attempt, found.at, claimed, found.fingerprint)

    def judge(self, attempt: Attempt, now: float, claimed: Scope = _NARROW, fingerprint: int = 0) -> Judged:
        """Count one attempt, unless its address is exempt or banned already, and decide whether to ban.

        Return the judgement, followed by the alarms that it causes. ``claimed`` is the scope of a ban that
        follows from attempts whose address is unproven. ``fingerprint`` is that of the attempt's event.
        """
        self.counts.by_kind[attempt.kind][attempt.proof] += 1
        near = self._works_near(attempt)
        subject = self._subjects.find(attempt.address)
        network = subject.network
        if subject.exempt:
            self.counts.exempt += 1
            return (Judgement(attempt, network, Disposition.EXEMPT),)
        banned = self._scopes_of(subject, now)
        # A ban of the SIP ports does not stop the manager interface: it has other ports too, such as HTTP's.
        if Scope.FULL in banned or (Scope.SIP in banned and attempt.service is not Service.AMI):
            self.counts.late += 1
            wider = None if Scope.FULL in banned else self._widened(subject, attempt, now)
            return (Judgement(attempt, network, Disposition.LATE, wider),)
        if attempt.kind not in self._judge.kinds:
            return (Judgement(attempt, network, Disposition.NO_RULE),)
        aside = near and not subject.friend
        kept = self._history.add(subject.key, attempt, now, aside=aside, fingerprint=fingerprint)
        if not attempt.trusted:
            self.counts.unconfirmed += 1
            return (Judgement(attempt, network, Disposition.UNCONFIRMED),)
        if subject.friend or near:
            return self._judge_friend(subject, attempt, now, banned)
        return self._judge_stranger(subject, kept, attempt, now, claimed, banned)

    def _widened(self, subject: Subject, attempt: Attempt, now: float) -> Decision | None:
        """Return a ban of all ports for a sender that still sends despite its ban of the SIP ports, or None.

        The attempts of such a sender take a way that ringfence does not know, such as a port that a container
        publishes. They are added to the history. An address that may be an office's, or a browser's, keeps
        its ban of the SIP ports: Asterisk may only be slow.
        """
        known = subject.friend or attempt.page or self._works_near(attempt)
        if known or not attempt.trusted or attempt.proof is _CLAIMED:
            return None
        keys = self.bans.covering(subject.network, Scope.SIP, now + self.bans.offset)
        since = max((record.since for record in map(self.bans.get, keys) if record is not None), default=inf)
        if attempt.time <= since + _DRAINED[attempt.transport in DATAGRAMS]:
            return None
        kept = self._history.add(subject.key, attempt, now)
        decision = self._judge.decide(subject, kept, attempt, now, narrowed=True)
        if decision is None or decision.accounts >= OFFICE:
            return None
        return evolve_decision(decision, scope=Scope.FULL)

    def _works_near(self, attempt: Attempt) -> bool:
        """Whether the account of an attempt works at its address or, for IPv6, in its /64.

        False for a hidden attempt (one that Asterisk's events do not show): its account is text of its
        sender.
        """
        if attempt.account not in self.friends.worked or attempt.event is _HIDDEN:  # of nearly all strangers
            return False
        return self.friends.worked_near(attempt.account, attempt.address)

    def _is_tainted(self, address: Address, now: float) -> bool:
        """Whether an account works at ``address`` whose new addresses lately guessed at other accounts."""
        new = self.friends.new
        return bool(new.tainted) and new.is_tainted(sender_of(address), now)

    def _judge_friend(
        self, subject: Subject, attempt: Attempt, now: float, banned: Collection[Scope]
    ) -> Judged:
        """Judge an attempt of a known phone's address; return the judgement and the alarms.

        ``banned`` are the scopes in which the address is banned. A proven guess at another account also
        counts for the /24 or /48.
        """
        if subject.friend and scope_of_ban(attempt.transport) in banned:
            self.counts.late += 1
            return (Judgement(attempt, subject.network, Disposition.LATE),)
        decision, follows = self._friend_attempts.on_attempt(subject, attempt, now)
        self._count_friend(subject, attempt, fact_from(attempt, now))
        return (Judgement(attempt, subject.network, Disposition.FRIEND, decision), *follows)

    def _count_friend(self, subject: Subject, attempt: Attempt, fact: Fact) -> None:
        """Count a friend's proven guess at another account for the friend's /24 or /48.

        Any other attempt is ignored, also one at an account that works in the same /64.
        """
        if fact.proven and is_guess_elsewhere(attempt) and not self._works_near(attempt):
            self._judge.count_friend(subject, fact)

    def _judge_stranger(
        self,
        subject: Subject,
        kept: list[bytes],
        attempt: Attempt,
        now: float,
        claimed: Scope,
        banned: Collection[Scope],
    ) -> Judged:
        decision = None
        more: Sequence[Decision] = ()
        narrowed = claimed in banned
        alarms: Sequence[AlarmChange | Estranged] = ()
        if self._is_tainted(attempt.address, attempt.time):
            if scope_of_ban(attempt.transport) in banned:  # as of a friend: its office keeps the rest
                self.counts.late += 1
                return (Judgement(attempt, subject.network, Disposition.LATE),)
            decision, alarms = self._friend_attempts.on_tainted(subject, attempt, now)
            if decision is not None:
                return (Judgement(attempt, subject.network, _COUNTED, decision), *alarms)
        # Claimed attempts do not lengthen a claimed ban, and those of a web page do not widen its ban.
        if not narrowed or not (attempt.proof is _CLAIMED or attempt.page):
            decision = self._judge.decide(subject, kept, attempt, now, narrowed=narrowed, claimed=claimed)
        if attempt.proof is not _CLAIMED:
            fact = fact_from(attempt, now)
            ban, alarms = self._judge.count_proven(subject, attempt.asterisk, fact)
            decision, more = self._judge.bans_of_attacker(subject, attempt, now, banned, ban or decision)
        if self._claims.refused:
            alarms = (*alarms, *self._claims.alarms(now))
        if narrowed and decision is None and (attempt.transport in DATAGRAMS or claimed is not _NARROW):
            self.counts.late += 1
            return (Judgement(attempt, subject.network, Disposition.LATE), *alarms)
        others = [Judgement(attempt, subject.network, Disposition.COUNTED_BEFORE, one) for one in more]
        follows: list[AlarmChange | Estranged | Judgement] = [*others, *alarms]
        return (Judgement(attempt, subject.network, _COUNTED, decision), *follows)

    # -- bans -------------------------------------------------------------------------------------------

    def is_banned(self, address: Address, scope: Scope, now: float) -> bool:
        """Whether ``address`` (IPv6: its /64) is banned in ``scope``, or in a wider one."""
        banned = self._scopes_of(self._subjects.find(address), now)
        return scope in banned or Scope.FULL in banned or (scope is not Scope.FULL and Scope.SIP in banned)

    def _scopes_of(self, subject: Subject, now: float) -> Collection[Scope]:
        """Return the scopes (such as SIP by UDP) in which a sender is banned, or about to be."""
        found = self.bans.scopes(subject.ban_key, now, friend=subject.friend)
        if self._decided:
            found += [scope for network, scope in self._decided if contains(network, subject.network)]
        return found

    def on_fact(self, fact: ban_facts.Fact) -> None:
        """Handle a change of the bans: after an early end without a new ban, the attempts count no more.

        If the wall clock was set, move the times of attempts.
        """
        match fact:
            case ban_facts.Forgotten(network):
                self.record_unban(network)
            case ban_facts.Over(network, _, how) if how.is_early:
                self.record_unban(network)
            case ban_facts.Unbanned(network):
                for sender in senders_in(network, _MOST_CLEARED):
                    self.record_unban(sender)
            case ban_facts.ClockSet(seconds):
                self._history.follow_clock(seconds)

    def record_unban(self, subject: Network) -> None:
        """Record that the ban of a network was removed. Its attempts so far are kept, but lead to no ban."""
        self._history.consume(pack_network(subject))
        self._friend_attempts.forget(subject)

    def unidentified(self) -> list[tuple[Network, Scope]]:
        """Return the bans (network, scope) for unproven attempts none of which had credentials.

        The banned sender may be a carrier that no ``identify`` in Asterisk's configuration matched. At most
        the latest ``_MOST_NARROW`` bans are looked at.
        """
        found = []
        for key, record in self.bans.latest(_MOST_NARROW):
            network, scope = network_of(key)
            if scope in CLAIMED_SCOPES and record.origin is Origin.RULE:
                facts = self._judge.facts_of_strangers(network)
                counted = [fact.credentials for fact in facts if fact.trusted]
                if counted and not any(counted):
                    found.append((network, scope))
        return found

    def tick(
        self, now: float, wall: float = 0.0, *, wire: bool = False, listening: Listening = NOT_CONNECTED
    ) -> Sequence[Effect]:
        """Do periodic work, in the daemon twice a second.

        Expire counts, judge the reports that have waited long enough, and return what follows. ``wall``,
        ``wire`` and ``listening`` are as in :meth:`Attribution.tick`.
        """
        self._history.expire(now)
        self._friend_attempts.ahead = wall - now
        alarms = [distributed_cleared(*account) for account in self._judge.tick(now)]
        alarms += self._friend_attempts.tick(now)
        alarms += [too_many_friends(*account) for account in self.friends.new.take_refused()]
        found = self._attribution.tick(now, wall, wire=wire, listening=listening)
        return [*alarms, *self._on_findings(found, now)]

    # -- queries ----------------------------------------------------------------------------------------

    def subject_of(self, address: Address) -> Network:
        """Return the network as which ``address`` is counted and banned: the address, or its IPv6 /64."""
        return self._subjects.find(address).network

    def summary_of(self, address: Address, now: float) -> AddressSummary:
        """Return the attempts of an address, why it is a friend, and how near each rule is to a ban of it."""
        subject = self._subjects.find(address)
        return AddressSummary(
            address,
            subject.network,
            subject.exempt,
            self.friends.reasons(address),
            tuple(friend for friend in self.friends.former() if friend.address == address),
            self._history.attempts(subject.key),
            tuple(self._counts(subject, now)),
            self.friends.outage_mode,
            tuple(self._attribution.questions.pinging(address)),
        )

    def pinging(self) -> list[Pinging]:
        """Return the hosts that send requests again and again without credentials, the latest last."""
        return self._attribution.questions.pinging()

    def guests(self, now: float) -> list[Guest]:
        """Return the senders that called without a password within the last day, the latest last."""
        found = self._attribution.guests.within_a_day(now)
        subjects = ((one, self._subjects.find(one.address)) for one in found)
        return [one for one, subject in subjects if not (subject.exempt or subject.friend)]

    def _counts(self, subject: Subject, now: float) -> list[Count]:
        """Return for each rule how many attempts of a sender it counts now, and how many it needs.

        For a friend that is not exempt, the limits for friends apply.
        """
        counts = self._judge.counts(subject, now)
        if not subject.friend or subject.exempt:
            return counts
        nearest = self._friend_attempts.nearest
        return [
            count if count.rule.by is By.PREFIX else nearest(count.rule, subject, now) for count in counts
        ]

    def watched(self, now: float, most: int = 20) -> list[Watched]:
        """Return up to ``most`` senders whose attempts have not led to a ban, those nearest to a ban first.

        Only the latest subjects are searched: a search of a million would take a second.
        """
        found = []
        for key, kept in self._history.latest(_MOST_SEARCHED):
            network = unpack_network(key)
            subject = self._subjects.find(network.network_address)
            if self._scopes_of(subject, now):
                continue
            facts = [fact_of(packed) for packed in kept]
            trusted = [packed for packed, fact in zip(kept, facts, strict=True) if not fact.consumed]
            counts = [
                count
                for count in self._counts(subject, now)
                if count.have and count.number and count.rule.by is By.SUBJECT
            ]
            if not trusted or (not counts and any(fact.trusted for fact in facts)):
                continue
            attempts = tuple(self._history.attempt_of(packed, network) for packed in trusted)
            found.append(_watched(subject, network, attempts, counts))
        found.sort(key=lambda entry: (-entry.have / entry.of, -len(entry.attempts), -entry.attempts[-1].time))
        return found[:most]


def _watched(
    subject: Subject, network: Network, attempts: tuple[Attempt, ...], counts: list[Count]
) -> Watched:
    nearest = max(counts, key=lambda count: count.have / count.number, default=None)
    if nearest is None:  # all attempts are unconfirmed, and no rule counts these
        return Watched(network, "", 0, 1, Disposition.UNCONFIRMED, attempts)
    disposition = Disposition.FRIEND if subject.friend else Disposition.COUNTED
    return Watched(network, nearest.rule.name, nearest.have, nearest.number, disposition, attempts)


def _longest(rules: Iterable[Rule]) -> float:
    """Return the longest window of the rules (seconds)."""
    return max([rule.window for rule in rules if rule.enabled], default=HOUR)
