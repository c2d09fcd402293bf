"""Attribution: turns the events of all sources into attempts, each once, with the best proof of its address.

Text is never proof. A sender can make Asterisk write whole log lines with any address: by a newline in a
user name, or by an ESC, which does not appear in the line (``main/term.c:term_strip``). chan_sip's events
name the address in the Via header. Such a report counts only if its address is confirmed:

- Another source, whose address is reliable, reports the same attempt.
- The wire (the answers that leave this host, copied by the kernel) shows an answer to a request of exactly
  that address. For PJSIP the answer must have the same Call-ID, for chan_sip the same nonce. If the report
  names neither, each answer confirms one report (``answers``).
- For PJSIP: the wire shows a request with credentials of exactly that address and Call-ID
  (``conversation``).
- The kernel has, or had within a minute, a TCP connection from exactly that address and port. A sender that
  forges lines can guess ports. So the connections of an address no longer count if most lines with this
  address have none (``confirmation``).

A report that nothing confirms waits ``confirmation.PATIENCE`` seconds. Then it is *unconfirmed*: it is
listed, but leads to no ban. If the wire would have seen the challenge of a true attempt and saw none, the
report is a forgery and is not listed.

A log line that AMI may still repeat waits longer: until AMI's events have been read up to its arrival
(``confirmation.LateReports``). Otherwise an alarm would name each attempt that a slow AMI reports late.

A busy machine may read a report so late that its attempt cannot be found any more. Such a report is left
out if a faster source has reported the attempt (``Confirmation.take_overdue``; for a line about a connection
``Confirmation.is_retold``). So no attempt counts twice.

A log line about a request by UDP needs no confirmation while neither AMI nor the wire reports its Asterisk:
then the line counts as a claim. A NOTICE of chan_sip counts so whenever the wire does not report: AMI cannot
confirm it, because chan_sip's events name the address in a Via header. This does not apply to a line that can
contain several addresses, nor to the security lines of chan_sip, which repeat its events.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from math import inf

from ringfence.detect.ambiguous import AmbiguousLines
from ringfence.detect.confirmation import (
    Answers,
    Backing,
    Confirmation,
    Connections,
    KnownSources,
    LateReports,
    Listening,
    NoConnections,
    UnconfirmedReports,
    has_session,
)
from ringfence.detect.conversation import Answered, Asked, Conversations
from ringfence.detect.findings import (
    AttributedAttempt,
    ClientLogin,
    DuplicateReport,
    Finding,
    UnprovableGuess,
    WrongAnswer,
    duplicate_report,
)
from ringfence.detect.guests import Guests
from ringfence.detect.logins import LoginKey, Logins
from ringfence.detect.nonces import MOST_AWAITED, Nonces, Proofs
from ringfence.detect.proxies import Passage, Proxies
from ringfence.detect.questions import CALL, Questions, trust_in, weight_of
from ringfence.detect.relays import Relays
from ringfence.detect.sessions import (
    FORGET,
    HORIZON,
    MAX_SESSIONS,
    MOST_REGISTERED,
    SESSION_LIFE,
    Role,
    Senders,
    Session,
    UnconfirmedReport,
    attempt_from,
    fingerprint_in,
    host_of,
    is_trusted,
    remember,
    role_of,
    session_id,
    session_number,
)
from ringfence.values.attempt import Attempt, AttemptKind, Proof
from ringfence.values.ban import Scope
from ringfence.values.event import AMI, WIRE, Endpoint, EventKind, SecurityEvent, Service, SourceId, Transport
from ringfence.values.fast import evolve
from ringfence.values.network import Address
from ringfence.values.packet import CopiedAnswer, CopiedRequest

_CHALLENGES, _NOT_FOUND, _OK = (401, 407), 404, 200
_REGISTER = "REGISTER"
REFUSALS = (*_CHALLENGES, 403)
"""The SIP statuses (401, 407, 403) by which Asterisk refuses a password, or asks for one."""

MOST_UNREPORTED = 20
"""The number of refusals to one sender that are no attempts although the refused requests are unknown."""

UNREAD_FOR = 7_200.0
"""Seconds after ringfence failed to read a sender's TCP connection, in which refusals count as guesses."""

# Module-level aliases: enum member lookups are slow in the per-event hot path.
_FAILED, _HIDDEN, _REFUSED = EventKind.CHALLENGE_RESPONSE_FAILED, EventKind.HIDDEN, EventKind.REFUSED
_CHALLENGE, _SUCCESS = EventKind.CHALLENGE_SENT, EventKind.SUCCESSFUL_AUTH
_QUESTION_KINDS = (EventKind.INVALID_ACCOUNT_ID, EventKind.FAILED_ACL)
_CHECKED = (EventKind.CHALLENGE_RESPONSE_FAILED, EventKind.REFUSED, EventKind.HIDDEN)
_BY_AMI = 2  # ``trust_in`` of reports that are no text
_PJSIP, _SIP, _UDP = Service.PJSIP, Service.SIP, Transport.UDP
_READ_STREAMS = (Transport.TCP, Transport.WS)  # copied requests by both are called TCP
_COPIED = (_UDP, *_READ_STREAMS)
_CLAIMED, _NONCE, _DIRECT = Proof.CLAIMED, Proof.NONCE, Passage.DIRECT


class Attribution:
    """Turns the events of all sources, and copied SIP packets, into attempts, each of which it returns once.

    It has more than twenty methods because each kind of evidence becomes an attempt in its own way.
    """

    def __init__(
        self,
        sources: KnownSources,
        connections: Connections | None = None,
        max_sessions: int = MAX_SESSIONS,
    ) -> None:
        self._senders = Senders(max_sessions=max_sessions)
        self._nonces = Nonces()
        self._answers = Answers(self._senders)
        self._conversations = Conversations()
        self._backing = Backing(connections if connections is not None else NoConnections(), self._senders)
        self._proofs = Proofs(self._senders, self._nonces)
        self.confirmation = Confirmation(
            self._senders,
            self._nonces,
            self._answers,
            self._backing,
            self._conversations,
            sources,
        )
        self.questions = Questions()
        self.guests = Guests()
        self.proxies = Proxies(sources.proxies)
        self._has_proxies = bool(sources.proxies)
        self._relays = Relays(self._conversations)
        # By Call-ID, the latest event of a proxy's address whose client is unknown, and when it arrived.
        self._without_client: OrderedDict[bytes, tuple[float, SecurityEvent]] = OrderedDict()
        # By Call-ID, the latest unread connection to which a proxy sent a refusal.
        self._unread_clients: OrderedDict[bytes, Endpoint] = OrderedDict()
        self._logins = Logins()
        self._waiting = UnconfirmedReports(self._senders)
        self.late_reports = LateReports()
        self._ambiguous = AmbiguousLines(self._backing)
        self._tags = count(1)
        self._several = sources.several
        self._has_bare = False  # whether an attempt without credentials was ever reported

    def configure(self, sources: KnownSources) -> None:
        """Replace the facts about the sources of each Asterisk, for instance after a reload."""
        self._several = sources.several
        self.confirmation.sources = sources
        self.proxies.networks = sources.proxies
        self._has_proxies = bool(sources.proxies)

    @property
    def waiting(self) -> int:
        """The number of reports that wait for another source to confirm the address they name."""
        return len(self._waiting) + len(self.late_reports)

    @property
    def evicted(self) -> int:
        """The number of sessions and senders that were discarded early to stay within the bounds."""
        return self._senders.evicted

    def observe(self, event: SecurityEvent, now: float) -> Sequence[Finding]:
        """Handle an event that arrived at ``now`` (monotonic seconds).

        Return the findings: new attempts, and new facts about known ones. A new attempt comes last: the event
        may also prove the address of earlier attempts, and these proofs must count when the new attempt is
        judged.
        """
        if event.readings:
            backed = self._ambiguous.backed(event.readings, now)
            return [one for reading in backed for one in self.observe(reading, now)]
        if self._has_proxies and self.proxies.names(event):
            return self._on_event_of_proxy(event, now)
        sees_wire = self.confirmation.sees_wire
        if sees_wire:
            if event.kind is _SUCCESS:
                self._record_success(event, now)
            if event.kind is _CHALLENGE and event.service is _SIP and event.remote.transport is not _UDP:
                self._nonces.record_elsewhere(event.challenge, now)
        if event.kind in _QUESTION_KINDS and role_of(event) is Role.QUESTION:
            return self._on_question(event, now)
        found = self._report(event, now)
        if event.kind is not _FAILED or not sees_wire:
            return found
        latest = found[-1] if found else None
        if not isinstance(latest, AttributedAttempt):
            return (*found, *self._proofs.on_response(event, now))
        return (*self._proofs.on_response(event, now), *found) if _is_claim(latest) else found

    def _report(self, event: SecurityEvent, now: float) -> Sequence[Finding]:
        """Return the findings about the attempt that an event reports; () if it reports none."""
        attempt = self._senders.report(event, now)
        answered = self._answered(event) if self._has_bare and event.kind in _CHECKED else ()
        if attempt is None:
            return answered
        report = self._on_report_of_client if event.relayed else self._on_report
        found = report(attempt, event, now)
        # The attempt names the event of its question, if its session has one.
        if attempt.event is not event.kind and (trust_in(event) or _is_accepted(found)):
            self.questions.settle(event, attempt.account, now)
        return (*found, *answered) if answered else found

    def _answered(self, event: SecurityEvent) -> Sequence[Finding]:
        """Return a WrongAnswer if ``event`` reports a wrong answer to the challenge of an attempt, else ().

        The attempt itself was a request without credentials. A log line does not count: anyone can forge one.
        """
        address = event.remote.address
        session = self._senders.find_session(address, event.session)
        if session is None or not session.bare or trust_in(event) < _BY_AMI:
            return ()
        session.bare -= 1
        return (WrongAnswer(event.source.asterisk, address, session_number(event.session)),)

    def _on_question(self, event: SecurityEvent, now: float) -> Sequence[Finding]:
        """Handle an event about a *question*: a request without credentials that cannot succeed.

        Return the attempts that it shows: itself, or earlier questions that count because of it.
        """
        address = event.remote.address
        session = self._senders.session(address, session_id(event), now)
        if trust_in(event) >= _BY_AMI or not self.confirmation.has_ami(event.source.asterisk):
            session.asked = event.source.asterisk, event.kind, event.account
        else:
            session.asked_in_log = event.source.asterisk, event.kind, event.account
        asked = self._conversations.latest(event.session) if event.session else None
        seen = asked.request.method if asked is not None and asked.request.address == address else ""
        method = event.method or seen
        self.questions.record(event, method, now)
        found: list[Finding] = []
        if trust_in(event) >= (trust_in(session.question[0]) if session.question is not None else 1):
            session.question = event, now
            session.weight = max(session.weight, weight_of(method))
        else:
            found = self._on_method(session, method)
        return [*found, *self._on_weighed(session, event, now)]

    def _on_method(self, session: Session, method: str) -> list[Finding]:
        """Record the SIP method of a session's latest request without credentials (its *question*).

        Return the attempts that the method shows: a call (INVITE) is an attempt, an OPTIONS request is not.
        """
        weight = weight_of(method)
        if weight <= session.weight:
            return []
        session.weight = weight
        return self._on_weighed(session, *session.question) if session.question is not None else []

    def _on_weighed(self, session: Session, event: SecurityEvent, now: float) -> list[Finding]:
        """Record a session's request without credentials; return findings about those that now count.

        ``event`` reports the request, which may make earlier ones of its sender attempts too.
        """
        if session.weight >= CALL:
            counting: Iterable[tuple[SecurityEvent, float]] = [(event, now)]
        else:
            counting = self.questions.counting(event, session.weight, now)
        found: list[Finding] = []
        for asked, at in counting:
            own = self._senders.find_session(asked.remote.address, session_id(asked))
            if own is not None and own.question == (asked, at):
                own.question = None
            found += self._report(asked, at)
        return found

    def _on_event_of_proxy(self, event: SecurityEvent, now: float) -> Sequence[Finding]:
        """Handle an event that names a SIP proxy as its sender: attribute it to the proxy's client.

        If the client is unknown, a failure becomes an unconfirmed attempt of the proxy's address, and other
        events are ignored.
        """
        if event.source.text:
            return ()
        client = self._client_of(event, now)
        if client is not None:
            event = evolve(event, remote=client)
            if event.kind is not _SUCCESS:
                return self._on_client(event, now)
            self._record_success(event, now)
            return (ClientLogin(event),)
        if role_of(event) not in (Role.QUESTION, Role.FAILED):
            return ()
        remember(self._without_client, event.session, (now, event), MOST_AWAITED)
        if role_of(event) is Role.QUESTION:
            return ()
        listed = evolve(attempt_from(event, AttemptKind.GUESS), trusted=False, proof=_CLAIMED)
        return (AttributedAttempt(listed, now),)

    def _client_of(self, event: SecurityEvent, now: float) -> Endpoint | None:
        """Return the client whose request an event of the proxy's address reports; None if it is unknown.

        A login needs more than a Call-ID, because it makes a friend: no other address has just used the
        Call-ID, and the client repeated a nonce that was sent to it.
        """
        asked = self._conversations.latest(event.session)
        if event.service is _SIP:
            asked = self._conversations.latest_with(event.challenge)
        if event.kind is _SUCCESS:
            if asked is None or now - asked.shared < SESSION_LIFE:
                return None
            return asked.remote if asked.request.address in self._nonces.receivers(asked.nonce, now) else None
        if asked is not None:
            return asked.remote
        if event.service is _PJSIP and event.session in self._unread_clients:
            return self._unread_clients[event.session]
        receivers = self._nonces.receivers(event.challenge, now)
        if receivers and self._nonces.proves(event.challenge, receivers[0], now):
            return Endpoint(receivers[0], 0, _UDP)
        return None

    def _on_client(self, event: SecurityEvent, now: float) -> Sequence[Finding]:
        """Handle a report about a client of a SIP proxy; only its nonce can prove the client's address."""
        event = evolve(event, relayed=True)
        return self._on_question(event, now) if role_of(event) is Role.QUESTION else self._report(event, now)

    def _on_report_of_client(self, attempt: Attempt, event: SecurityEvent, now: float) -> Sequence[Finding]:
        """Return the findings about an attempt of a SIP proxy's client, which ``event`` reports."""
        proven = _repeats_nonce(event) and self._nonces.proves(event.challenge, attempt.address, now)
        attempt = evolve(attempt, trusted=True, proof=_NONCE if proven else _CLAIMED)
        found = self._if_first(attempt, event, now, self.confirmation.happened(event))
        return found if event.remote.transport is _UDP else _claimed_by_tcp(found)

    def _on_report(self, attempt: Attempt, event: SecurityEvent, now: float) -> Sequence[Finding]:
        """Handle ``event``, which reports ``attempt``; return () if its address must be confirmed first."""
        source = event.source
        text = source.text or event.tampered
        if attempt.trusted and not (text and self.confirmation.is_hint(event, attempt)):
            return self._accept(attempt, event, now)
        if source.text or not event.challenge:
            tag = self._senders.match_report(event, attempt.address, now, self.confirmation.happened(event))
            if tag is not None:
                return self._duplicate(attempt, event, tag)
        confirmed = self.confirmation.confirmed(attempt, event, now)
        if confirmed is not None:
            return (*self._confirm_others(event.remote, now), *self._if_in_time(confirmed, event, now))
        unconfirmed = evolve(attempt, trusted=False)
        if source.asterisk not in self._several:
            return (AttributedAttempt(unconfirmed, now),)
        self._waiting.add(UnconfirmedReport(now, unconfirmed, event))
        self._backing.record_unbacked(event.remote, now)
        return ()

    def _accept(self, attempt: Attempt, event: SecurityEvent, now: float) -> Sequence[Finding]:
        """Handle a report whose address is reliable; return the new attempt, or a DuplicateReport."""
        if event.source.asterisk not in self._several:
            return self._attributed(self.confirmation.with_proof(attempt, event, now), event, now)
        if event.service is not _PJSIP:
            attempt = self.confirmation.with_proof(attempt, event, now)
            return self._if_first(attempt, event, now, self.confirmation.happened(event))
        # Most reports of PJSIP are duplicates, which need no proof. A proof is looked up only for the others.
        tag = self._senders.match_report(event, attempt.address, now)
        if tag is not None:
            return self._duplicate(attempt, event, tag)
        if self.confirmation.take_overdue(event, now):
            return ()
        self._senders.record_report(event, attempt.address, now, attempt.session)
        return self._attributed(self.confirmation.with_proof(attempt, event, now), event, now)

    def observe_answers(
        self, answers: Iterable[CopiedAnswer], now: float, wall: float, asterisk: str
    ) -> Sequence[Finding]:
        """Handle SIP answers that left this host at ``now``, which is ``wall`` seconds since the epoch.

        Return what the answers show: a challenge (401, 407) proves the address of its response, a refusal
        shows a guess, and each of them confirms waiting reports. ``asterisk`` is the assumed Asterisk of a
        challenge, if no event has shown yet which one sent it.
        """
        self.confirmation.sees_wire = True
        found: list[Finding] = []
        refusals: list[CopiedAnswer] = []
        for answer in answers:
            passage = self.proxies.passage(answer) if self._has_proxies else _DIRECT
            if passage is Passage.FROM_PROXY:
                found += self._on_answer_to_client(answer, now, wall, asterisk)
            elif passage is Passage.TO_PROXY:
                self.proxies.record_nonce(answer, now)
            elif answer.status in REFUSALS or (answer.status == _NOT_FOUND and answer.transport is _UDP):
                refusals.append(answer)
            else:
                self._on_acceptance(answer, now, wall)
        for refusal in refusals:
            self._nonces.record(self._relays.mark(refusal, now), now)
        for refusal in refusals:
            found += self._proofs.on_challenge(refusal, now)
        for refusal in refusals:
            found += self._on_refusal_by_asterisk(refusal, now, wall, asterisk)
        return found

    def _on_acceptance(self, answer: CopiedAnswer, now: float, wall: float) -> None:
        """Record a call or registration that Asterisk accepts by ``answer``, which is no refusal.

        ``now`` and ``wall`` are one moment, in monotonic seconds and in seconds since the epoch.
        """
        sender = sender_of_request(answer) or answer.address
        found = self._answer(answer, sender, now)
        asked = found.asked if found is not None else None
        self.guests.record(asked, answer.status, now, wall)
        if asked is None or not asked.proven or answer.status != _OK:
            return
        if asked.request.method == _REGISTER and asked.request.credentials:
            known = self._senders.sender_at(sender, now)
            if known.registered is None:
                known.registered = OrderedDict()
            remember(known.registered, asked.request.account, now, MOST_REGISTERED)
            known.keep(now + SESSION_LIFE)

    def has_registered(self, event: SecurityEvent, now: float) -> bool:
        """Whether the kernel has lately copied the registration that AMI's ``event`` of chan_sip reports.

        The registration repeated a nonce that was sent to this address alone, and Asterisk accepted it. So
        both are true: AMI reports a right password, and the copied packets show where it came from. On a busy
        machine AMI reports it some seconds later.
        """
        sender = self._senders.find(event.remote.address)
        registered = sender.registered if sender is not None else None
        return registered is not None and now - registered.get(event.account, -inf) < SESSION_LIFE

    def _on_refusal_by_asterisk(
        self, challenge: CopiedAnswer, now: float, wall: float, asterisk: str
    ) -> Iterable[Finding]:
        """Handle a SIP answer 401, 403, 404 or 407 of Asterisk (not of a proxy); return what it shows.

        ``now`` and ``wall`` are one moment, in monotonic seconds and in seconds since the epoch. ``asterisk``
        is the name of the Asterisk.
        """
        sender = sender_of_request(challenge)
        if sender is None:  # chan_sip cuts a long Via in its answer
            asked = self._conversations.latest(challenge.call_id)
            if asked is None or asked.request.transport is not _UDP:
                return ()
            sender = asked.request.address
        if sender != challenge.address:
            self._senders.sender_at(sender, now).diverted = now
        source = SourceId(asterisk, WIRE)
        refusal = self._answer(challenge, sender, now)
        if challenge.service is _PJSIP and challenge.status in _CHALLENGES:
            return self._on_pjsip_challenge(challenge, sender, source, now, wall, refusal)
        question = refusal is not None and not refusal.guess and challenge.status in _CHALLENGES
        repeat = refusal is not None and refusal.asked is None
        if challenge.transport is _UDP and not (question or repeat):
            self._answers.record(challenge, sender, now)
        if challenge.service is not _SIP:
            return ()
        return self._on_refusal(refusal, challenge, sender, source, now, wall)

    def _on_refusal(
        self,
        refusal: Answered | None,
        challenge: CopiedAnswer,
        sender: Address,
        source: SourceId,
        now: float,
        wall: float,
    ) -> Sequence[Finding]:
        """Return the findings about ``challenge``, by which chan_sip refuses a request of ``sender``.

        ``refusal`` has the refused request, None if the request is not known. ``now`` and ``wall`` are one
        moment, in monotonic seconds and in seconds since the epoch.
        """
        if refusal is not None:
            event = self._refused(refusal, challenge, sender, source, wall)
        elif self._is_hidden(challenge, sender, source.asterisk, now):
            event = _wire_event(_HIDDEN, challenge, sender, source, wall)
        else:
            event = None
        return self.observe(event, now) if event is not None else ()

    def _refused(
        self, refusal: Answered, challenge: CopiedAnswer, sender: Address, source: SourceId, wall: float
    ) -> SecurityEvent | None:
        """Return an event for the refusal, at ``wall`` (epoch), of a copied request; None if it is no guess.

        A request without credentials is an attempt only if it is evasive: its bytes suppress events, and no
        phone sends such. A refusal with another number may belong to a request that was not copied, so a
        login may excuse this one. No phone names several users in one request: only Asterisk knows which it
        checks, so such a guess is hidden.
        """
        asked = refusal.asked
        if asked is None or not (refusal.guess or (challenge.evasive and not challenge.accepted)):
            return None
        if not asked.may_get(challenge) and self._has_succeeded(asked):
            return None
        hides = challenge.evasive or (refusal.guess and not asked.request.account)
        kind = _HIDDEN if hides else _REFUSED
        event = evolve(_wire_event(kind, challenge, sender, source, wall), copied=True)
        if not refusal.guess:
            return event
        request = asked.request
        return evolve(
            event,
            challenge=asked.nonce,
            response=request.digest,
            account=request.account or event.account,
            fingerprint=request.fingerprint,
        )

    def _is_hidden(self, challenge: CopiedAnswer, sender: Address, asterisk: str, now: float) -> bool:
        """Whether a refusal shows an attempt, although the kernel copied no request that it answers.

        This is so if the request had bytes that suppress events, which no phone sends, or if the sender makes
        its requests unreadable.
        """
        if challenge.accepted:
            return False
        if challenge.service is _SIP and self._conversations.shows_guess(challenge, sender):
            return True
        unread = self._is_unread(challenge, sender, now)
        return challenge.evasive or (unread and self._is_unreported(sender, asterisk, now))

    def _is_unread(self, challenge: CopiedAnswer, sender: Address, now: float) -> bool:
        """Whether ``challenge``, a refusal, may answer a TCP request of ``sender`` that could not be read."""
        known = self._senders.find(sender)
        by_stream = challenge.transport is not _UDP
        return by_stream and known is not None and now - known.unread < UNREAD_FOR

    def _is_unreported(self, sender: Address, asterisk: str, now: float) -> bool:
        """Count a refusal of a request that was not copied; return whether it is an attempt.

        The first ``MOST_UNREPORTED`` refusals of ``sender`` are no attempts: AMI reports most guesses, and
        the requests of a phone may be unknown too. Refusals of a host that logged in lately are no attempts
        either. So AMI must report logins.
        """
        host = self._senders.find(host_of(sender))
        if not self.confirmation.has_ami(asterisk):
            return False
        if host is not None and now - host.succeeded < UNREAD_FOR:
            return False
        known = self._senders.sender_at(sender, now)
        known.refused += 1
        return known.refused > MOST_UNREPORTED

    def _on_answer_to_client(
        self, answer: CopiedAnswer, now: float, wall: float, asterisk: str
    ) -> Sequence[Finding]:
        """Return the findings about a SIP answer that a proxy sent to its client.

        Anyone can have the proxy forward an answer to any address. So it counts only if its receiver has sent
        the request, and confirms nothing else. It left at ``now`` (monotonic seconds), ``wall`` (epoch).
        """
        client = answer.address
        if self.proxies.networks.covers(client):  # it goes to another proxy
            return ()
        answer = self.proxies.to_client(
            evolve(answer, relayed=answer.relayed and self._relays.has(client, now))
        )
        self._nonces.record(answer, now)
        refusal = self._answer(answer, client, now)
        if answer.status not in REFUSALS:
            return ()
        source = SourceId(asterisk, WIRE)
        if refusal is None:
            event = self._refused_unread(answer, source, now, wall)
        else:
            event = self._refused(refusal, answer, client, source, wall)
        return self._on_client(event, now) if event is not None else ()

    def _refused_unread(
        self, answer: CopiedAnswer, source: SourceId, now: float, wall: float
    ) -> SecurityEvent | None:
        """Return the event for a refusal by a TCP connection whose requests could not be read, or None.

        The result is AMI's event with the same Call-ID; None if AMI has not reported it yet: a later report
        is then attributed to the receiver of ``answer``. If the refusal shows that the request was hidden
        from AMI, the result is an event HIDDEN, of the time ``wall`` (seconds since the epoch).
        """
        remote = Endpoint(answer.address, answer.port, answer.transport)
        if not self._conversations.is_unread(remote):
            return None
        if answer.evasive:
            return _wire_event(_HIDDEN, answer, remote.address, source, wall)
        remember(self._unread_clients, answer.call_id, remote, MOST_AWAITED)
        at, event = self._without_client.pop(answer.call_id, (-HORIZON, None))
        return evolve(event, remote=remote) if event is not None and now - at < HORIZON else None

    def _on_pjsip_challenge(
        self,
        challenge: CopiedAnswer,
        sender: Address,
        source: SourceId,
        now: float,
        wall: float,
        refusal: Answered | None,
    ) -> Iterator[Finding]:
        """Handle a challenge of PJSIP; yield the attempts that it confirms, and the one that it shows.

        ``refusal`` has the refused request; None if that was not copied. ``now`` and ``wall`` are one moment,
        in monotonic seconds and in seconds since the epoch.
        """
        method = refusal.asked.request.method if refusal is not None and refusal.asked is not None else ""
        by_udp = challenge.transport is _UDP
        if by_udp or weight_of(method):
            session = self._senders.session(sender, challenge.call_id, now)
            session.challenged = now if by_udp else session.challenged
            yield from self._on_method(session, method)
        if by_udp:
            question = refusal is not None and not refusal.guess
            for report in self._waiting.settle(sender, challenge.call_id, question=question):
                self._backing.forgive(report.event.remote, now)
                seen = evolve(report.attempt, trusted=True, transport=_UDP, proof=_CLAIMED)
                yield from self._if_in_time(seen, report.event, report.at)
        yield from self._on_refusal(refusal, challenge, sender, source, now, wall)

    def observe_requests(
        self, requests: Iterable[CopiedRequest], now: float, asterisk: str
    ) -> Sequence[Finding]:
        """Handle requests of strangers, which the kernel copied; return the proofs and guesses they show.

        If a request contains a nonce that was sent only to its source address, the receiver of the nonce has
        written the request. So that address is proven for the sessions that the request names. If others got
        the nonce too, or may have got it, the guess remains a claim. ``asterisk`` is the name of the Asterisk
        that they are assumed to belong to.
        """
        self.confirmation.sees_wire = True
        self.confirmation.wire_asterisk = asterisk
        found: list[Finding] = []
        for request in requests:
            if request.unread and request.transport is not _UDP:
                sender = self._senders.sender_at(request.address, now)
                sender.unread = now
                sender.keep(now + UNREAD_FOR)
            if not request.dropped:
                known = self._senders.find(request.address)
                if known is not None:
                    known.asked = now
                nonces = request.nonces
                sent = next((nonce for nonce in nonces if self._nonces.receivers(nonce, now)), None)
                proven = sent is not None and self._nonces.proves(sent, request.address, now)
                if request.transport is _UDP:
                    waits = sent is not None or request.crowded
                else:
                    # A proxy may forward the answer over a connection of another client.
                    waits = proven or not self._has_proxies
                nonce = sent or b"".join(nonces[:1])
                self._conversations.ask(request, now, nonce, challenged=waits, proven=proven)
            if any(self._nonces.proves(nonce, request.address, now) for nonce in request.nonces):
                for call_id in request.call_ids:
                    found += self._proofs.prove(asterisk, request.address, call_id, now)
            elif any(self._nonces.only_sender(nonce, now) == request.address for nonce in request.nonces):
                found.append(UnprovableGuess(request.address, elsewhere=False))
        for unheard in self._conversations.unheard(now):
            found += self._on_blind_guess(unheard, now, now + self.confirmation.ahead)
        return found

    def observe_loss(self, now: float) -> None:
        """Record that some of the packets that the kernel copies were lost at ``now`` (monotonic)."""
        self.confirmation.sees_wire = True
        self.confirmation.lost_at = now
        self._conversations.forget_silence()
        self._nonces.record_loss(now)

    def observe_backlog(self, now: float) -> None:
        """Record that copied packets wait unread at ``now`` (monotonic): they may carry the latest nonces."""
        self._nonces.record_loss(now)

    def tick(self, now: float, wall: float, *, wire: bool, listening: Listening) -> Sequence[Finding]:
        """Do periodic work; return findings about reports that have waited, and about unanswered guesses.

        ``now`` is in monotonic seconds, ``wall`` the same moment since the epoch. ``wire`` is whether the
        kernel copies every challenge now. ``listening`` has since when each connected AMI has been connected
        without interruption (monotonic seconds), by the name of its Asterisk.
        """
        self._senders.expire(now)
        self._conversations.expire(now)
        self._logins.expire(now)
        self.questions.expire(now)
        self.confirmation.tick(now, wall, listening, wire=wire)
        found = [one for reading in self._ambiguous.due(now) for one in self.observe(reading, now)]
        for late in self.late_reports.due(now):
            found += self._repeated(late, now) or self._listed(late)
        found += [one for report in self._waiting.due(now) for one in self._conclude(report, now)]
        for asked in self._conversations.unanswered(now):
            found += self._on_blind_guess(asked, now, wall)
        return found

    def _record_success(self, event: SecurityEvent, now: float) -> None:
        """Record a login that AMI reports: the request that it names was no guess."""
        if event.source.name != AMI or event.tampered or event.forgeable:
            return
        if event.service in (_PJSIP, _SIP):
            if self._names_account(event):
                self._relays.record_login(event.remote, event.account, now)
            self._record_login(event, now)
            host = self._senders.record_proof(host_of(event.remote.address), now)
            host.succeeded = now
            host.keep(now + UNREAD_FOR)

    def _record_login(self, event: SecurityEvent, now: float) -> None:
        """Record a login that AMI reports. It excuses one request, if the kernel copies such requests."""
        remote = event.remote
        if event.password and event.service is _SIP:
            self._logins.report((remote.address, 0, event.account), now)
        elif event.password and remote.transport in _COPIED:
            self._logins.report(_by_call_id(remote, event.session), now)

    def _names_account(self, event: SecurityEvent) -> bool:
        """Whether a login names the account whose password was right, as the challenge before it did.

        chan_sip's login of a call names the dialled number.
        """
        if event.service is _PJSIP:
            return True
        session = self._senders.find_session(event.remote.address, event.session)
        key = event.source.asterisk, AMI, _SIP, event.remote.transport
        reports = session.reports.get(key) if session is not None else None
        return reports is not None and reports.challenge_for == event.account

    def _answer(self, answer: CopiedAnswer, sender: Address, now: float) -> Answered | None:
        """Record a SIP answer to ``sender``; return the request that it answers, None if that is unknown.

        A login whose answer is seen excuses no other request.
        """
        found = self._conversations.answer(answer, sender, now)
        asked = found.asked if found is not None else None
        if asked is not None and asked.accepted and not answer.accepted:
            for login in (_by_call_id(asked.remote, answer.call_id), *_by_account(asked)):
                self._logins.accept(login, asked.at, now)
        return found

    def _has_succeeded(self, asked: Asked) -> bool:
        """Whether AMI has reported a login by the request ``asked``, whose answer was not seen.

        Such a login excuses no second request: somebody with one password may guess others.
        """
        others = self._conversations.unanswered_others(asked)
        by_pjsip = [_by_call_id(asked.remote, call_id) for call_id in asked.request.call_ids]
        logins = by_pjsip if b"/" in asked.nonce else _by_account(asked)
        if asked.request.crowded:
            logins = [*by_pjsip, *logins]
        return any(self._logins.take(login, asked.at, others) for login in logins)

    def _on_blind_guess(self, asked: Asked, now: float, wall: float) -> Sequence[Finding]:
        """Return the attempt that is shown by ``asked``, a copied request without an answer, or ().

        The request has credentials, or its Via has the answer sent elsewhere. If AMI has reported a login for
        this request, it is no guess. If another source has reported more guesses of its session than the
        wire, and so long ago that the reports cannot be matched, the guess has counted already. So it has if
        its session was discarded early, with an attempt that only other sources had reported. A TCP segment
        can be forged, so its nonce must prove its sender, or the kernel must know the connection. The
        attempt's time is ``wall`` (epoch seconds).
        """
        request, remote = asked.request, asked.remote
        certain = request.transport is _UDP or self._nonces.proves(asked.nonce, request.address, now)
        if not (certain or self._backing.has(remote, now)):
            asked.answered = False  # its answer may still leave
            return ()
        if self._has_succeeded(asked):
            return ()
        session = self._senders.find_session(request.address, request.call_ids[0])
        ways = (Transport.UNKNOWN, *((_UDP,) if request.transport is _UDP else _READ_STREAMS))
        reports = [] if session is None else [one for one in session.reports.items() if one[0][3] in ways]
        others = [(key, one) for key, one in reports if key[1] != WIRE]
        reported = [service for (_, _, service, _), _ in others]
        # Of a crowded request the nonce is unknown, so only its report shows which of the two checked it.
        by_pjsip = _PJSIP in reported if request.crowded and reported else b"/" in asked.nonce
        service = _PJSIP if by_pjsip else _SIP
        source = SourceId(self.confirmation.wire_asterisk, WIRE)
        kind = _REFUSED if request.credentials else EventKind.DIVERTED
        event = SecurityEvent(source, kind, service, remote, wall, request.account, request.call_ids[0])
        number = request.fingerprint
        event = evolve(event, challenge=asked.nonce, response=request.digest, copied=True, fingerprint=number)
        if now - asked.at >= HORIZON:
            # A challenge alone is a report of the question, and not of the guess.
            came = wall - (now - asked.at)
            known = max((one.reported for _, one in others if one.seen > came - HORIZON), default=0)
            # The wire's own, if its next report does not reset them; what is owed are only questions so far.
            own = (one for key, one in reports if key[1] == WIRE and wall - one.seen <= FORGET)
            if known > sum(one.n - one.owed for one in own):
                self._senders.report(event, now)  # so that the same reports excuse no other guess
                return ()
        if not self._senders.is_reported(event, now) and self._senders.take_not_copied(
            request.address, asked.at
        ):
            return ()
        return self.observe(event, now)

    def _confirm_others(self, remote: Endpoint, now: float) -> Iterator[Finding]:
        """Yield the findings about waiting log lines that name the address and port ``remote``.

        These lines arrived before the kernel listed the TCP connection that now confirms them.
        """
        while (report := self._waiting.oldest_of(remote)) is not None:
            confirmed = self.confirmation.confirmed(report.attempt, report.event, now)
            if confirmed is None:
                return
            report.settled = True
            self._backing.forgive(remote, now)
            yield from self._if_in_time(confirmed, report.event, report.at)

    # -- deduplication and proofs -----------------------------------------------------------------------

    def _if_in_time(self, confirmed: Attempt, event: SecurityEvent, now: float) -> Sequence[Finding]:
        """Return the findings about a report, which arrived at ``now``, whose address is confirmed.

        Return () if it came too late to be matched, and its attempt has counted. An answer by UDP that
        confirms it is itself a report. A connection also confirms attempts that nothing else reports.
        """
        happened = self.confirmation.happened(event)
        if confirmed.transport is _UDP:
            late = self.confirmation.take_overdue(event, now)
            happened = inf  # the reports of counted attempts are left out, so another one must match none
        else:
            late = self.confirmation.is_retold(event, confirmed, now)
        return () if late else self._if_first(confirmed, event, now, happened)

    def _if_first(
        self, attempt: Attempt, event: SecurityEvent, now: float, happened: float
    ) -> Sequence[Finding]:
        """Record that ``event`` reports a confirmed attempt; return the attempt if this report is the first.

        Otherwise return the finding that ``event`` is a duplicate report. ``happened`` is as in
        :meth:`~.sessions.Senders.record_report`.
        """
        if event.service is _SIP and event.source.name != WIRE:
            # chan_sip's lines name no session, so a later proof finds the attempt by this number.
            attempt = evolve(attempt, session=next(self._tags) & 0xFFFFFFFF)
        tag = self._senders.record_report(event, attempt.address, now, attempt.session, happened)
        if tag is not None:
            return self._duplicate(attempt, event, tag)
        return self._attributed(self.confirmation.in_session(attempt, event, now), event, now)

    def _attributed(self, attempt: Attempt, event: SecurityEvent, now: float) -> Sequence[Finding]:
        """Return a new attempt; before it, the proof of its session if its nonce gives one.

        Count it in its session if it has no credentials.
        """
        number = fingerprint_in(event)
        new = AttributedAttempt(attempt, now, port=event.remote.port, copied=event.copied, fingerprint=number)
        if not attempt.credentials and event.service is _PJSIP:
            self._senders.session(attempt.address, event.session, now).bare += 1
            self._has_bare = True
        if not self.confirmation.sees_wire or attempt.proof is not _NONCE or not has_session(attempt):
            return (new,)
        return (*self._proofs.prove(attempt.asterisk, attempt.address, event.session, now), new)

    def _duplicate(self, attempt: Attempt, event: SecurityEvent, tag: int) -> Sequence[Finding]:
        """Return the finding that ``event`` reports again the attempt with the number ``tag``."""
        ami = self.confirmation.has_ami(event.source.asterisk)
        return duplicate_report(attempt, event, tag, ami=ami)

    def is_diverted(self, address: Address, now: float) -> bool:
        """Whether challenges for ``address`` went to other addresses, so that its logins prove nothing."""
        sender = self._senders.find(address)
        return sender is not None and now - sender.diverted < SESSION_LIFE

    def _conclude(self, report: UnconfirmedReport, now: float) -> Sequence[Finding]:
        """Return the findings about a report whose address no other source confirmed while it waited.

        By now it may be a duplicate, or be confirmed. Otherwise it is a forgery or an unconfirmed attempt.
        Return () for an unconfirmed attempt that is listed already, for a report that came too late, and for
        a log line that AMI may still repeat.
        """
        repeated = self._repeated(report, now)
        if repeated:
            return repeated
        attempt, event, at = report.attempt, report.event, report.at
        confirmed = self.confirmation.confirmed(attempt, event, now)
        if confirmed is None and self._is_claim_by_now(report):
            confirmed = evolve(attempt, trusted=True)
        if confirmed is not None:
            self._backing.forgive(event.remote, now)
            return self._if_in_time(confirmed, event, at)
        if self.confirmation.take_overdue(event, now):
            return ()
        line = event.service is _PJSIP and event.source.text and event.session
        if line and self.confirmation.would_have_been_seen(event, now):
            return (AttributedAttempt(attempt, at, forged=True),)
        waits = self._waiting.has_unforgeable(report) or self.late_reports.add(report)
        return () if waits else self._listed(report)

    def _repeated(self, report: UnconfirmedReport, now: float) -> Sequence[Finding]:
        """Return the finding that another source has reported the attempt of ``report`` by now, or ()."""
        attempt, event, at = report.attempt, report.event, report.at
        tag = self._senders.match_report(event, attempt.address, at, self.confirmation.happened(event))
        if tag is None:
            return ()
        self._backing.forgive(event.remote, now)
        return self._duplicate(attempt, event, tag)

    def _listed(self, report: UnconfirmedReport) -> Sequence[Finding]:
        """Return the unconfirmed attempt of ``report``; () if another report has listed it before."""
        attempt, at = report.attempt, report.at
        listed = self._senders.record_unconfirmed(report.event, attempt.address, at)
        return () if listed else (AttributedAttempt(attempt, at),)

    def _is_claim_by_now(self, report: UnconfirmedReport) -> bool:
        """Whether a waiting log line no longer needs confirmation, and so counts as an unproven attempt now.

        This is so if now only logs report its Asterisk, and the request came by UDP.
        """
        return is_trusted(report.event) and not self.confirmation.is_hint(report.event, report.attempt)


def _is_accepted(found: Sequence[Finding]) -> bool:
    """Whether ``found`` has a duplicate report, or an attempt with a confirmed address."""
    return any(
        isinstance(one, DuplicateReport) or (isinstance(one, AttributedAttempt) and one.attempt.trusted)
        for one in found
    )


def _is_claim(found: AttributedAttempt) -> bool:
    return found.attempt.proof is _CLAIMED


def sender_of_request(answer: CopiedAnswer) -> Address | None:
    """Return the address that sent the request of ``answer``; None if it is unknown.

    By TCP the answer uses the connection of the request, so its receiver is the sender.
    """
    return answer.sender if answer.transport is _UDP else answer.address


def _by_call_id(remote: Endpoint, call_id: bytes) -> LoginKey:
    """Return the login that PJSIP reports: its event names the Call-ID of the request from ``remote``."""
    return remote.address, 0 if remote.transport is _UDP else remote.port, call_id


def _by_account(asked: Asked) -> list[LoginKey]:
    """Return the login that chan_sip reports if it accepts ``asked``; [] if it reports none.

    Its event names the account of a REGISTER, but of a call the dialled number. It reports no other request
    (``channels/chan_sip.c:handle_incoming``).
    """
    request = asked.request
    return [(request.address, 0, request.account)] if request.method == _REGISTER and request.account else []


def _repeats_nonce(event: SecurityEvent) -> bool:
    """Whether ``event``, a report of a guess, surely names the nonce that the guess contained.

    Of chan_sip's events, only InvalidPassword names that nonce. The others name the one that Asterisk sent.
    """
    if not event.response or event.forgeable or event.tampered:
        return False
    by_wire = event.source.name == WIRE
    return by_wire or event.service is _PJSIP or event.kind is EventKind.INVALID_PASSWORD


def _wire_event(
    kind: EventKind, challenge: CopiedAnswer, sender: Address, source: SourceId, wall: float
) -> SecurityEvent:
    """Return an event that ``challenge`` refused a guess of ``sender`` at ``wall`` (seconds since the epoch).

    ``kind`` is HIDDEN or REFUSED.
    """
    remote = Endpoint(sender, challenge.port, challenge.transport)
    return SecurityEvent(source, kind, challenge.service, remote, wall, challenge.account, challenge.call_id)


def _claimed_by_tcp(found: Iterable[Finding]) -> list[Finding]:
    """Return ``found``, changed so that bans for its unproven attempts block SIP by TCP instead of UDP."""
    return [
        evolve(one, claimed=Scope.SIP_TCP) if isinstance(one, AttributedAttempt) else one for one in found
    ]
