"""Senders: the facts about each remote address, and the one table of senders and their sessions.

A :class:`Sender` is one remote address with its sessions. An IPv6 host has a whole /64. So the facts about
the host (its successes, its abandoned challenges, its forgiven retransmission) are kept with the first
address of its /64 (:func:`host_of`). *Forgiven* means that a repeated failure counts as no attempt, because
it may be a retransmission.

The counts of the rules belong to the *subject* of an address, for up to a day: its attempts (``history``),
its claimed bans (``claimed_limit``) and its failures as a friend (``friend_attempts``).

Bounds: 65 536 sessions, at most an eighth of them of one sender; 65 536 senders of which nothing is proven,
and a quarter as many others. A forged datagram creates a sender at no cost. So senders of which nothing is
proven are discarded first, with their sessions: those used longest ago. If there is none, the oldest session
is discarded. Both are counted in ``evicted``. If a session is discarded early, too many attempts may be
counted, and evidence against its sender may be lost. If a sender is discarded early, it is unknown whether a
retransmission of it was already forgiven. A second one could be forgiven, and too few attempts would be
counted. So for ten minutes after that, no retransmission of any sender is forgiven.

Expiry: a session is discarded when it was not used for ``SESSION_LIFE``, a sender when it has no session and
no fact that is still needed (``until``). Times are monotonic seconds.
"""

from collections import OrderedDict, deque
from ipaddress import IPv6Address
from math import inf

from attrs import Factory, define

from ringfence.detect.events import (
    AddressKey,
    Role,
    address_key,
    attempt_from,
    role_of,
    session_id,
    shared_session_id,
)
from ringfence.detect.session import FORGET, Attempts, Reports, Session, UnconfirmedReport
from ringfence.model import (
    Address,
    Attempt,
    AttemptKind,
    Challenge,
    SecurityEvent,
    Service,
    SourceId,
    Transport,
)
from ringfence.networks import is_one_host, sender_key

MAX_SESSIONS = 65_536
_SENDER_SHARE = 8  # one sender has at most an eighth of all sessions
_PROVEN_SHARE = 4  # at most a quarter as many proven senders as sessions

SESSION_LIFE = 64.0
"""Seconds without use after which a session is discarded: twice as long as PJSIP accepts a nonce."""

FORGIVE_AGAIN = 600.0
"""Seconds for which no other failure of a host is ignored, after one was ignored as a retransmission."""

# Module-level aliases: enum member lookups are slow in the per-event hot path.
_CHALLENGE, _FAILED, _NONE = Role.CHALLENGE, Role.FAILED, Role.NONE
_PROBE, _SUCCESS, _PJSIP, _AMI = Role.PROBE, Role.SUCCESS, Service.PJSIP, Service.AMI


@define(eq=False)
class Streak:
    """The challenges to a host since ``began``, after which no success followed.

    ``count`` is their number, ``latest`` the last one, at ``last``. ``asterisk`` sent the first one.
    ``returned`` is how many of them ``Wire.abandoned`` does not return: the first ``wire.MANY``, which a
    phone may cause too, and those that it has already returned.
    """

    began: float
    asterisk: str
    latest: Challenge
    last: float
    count: int = 0
    returned: int = 0


@define
class LineCounts:
    """The numbers of log lines since ``since`` that named one sender, with its port.

    ``backed`` counts the lines for which the kernel had a TCP connection from this port, ``unbacked`` the
    lines without one.
    """

    since: float
    backed: int = 0
    unbacked: int = 0


@define(eq=False)
class Sender:
    """One remote address.

    ``proven``: something came from it that no other sender can forge. ``until``: the facts below are needed
    until this time. All times are monotonic seconds.

    - ``forgiven``: by source, when its report of a failure was last ignored as a retransmission.
    - ``streak``: the abandoned challenges of the host. ``succeeded``: the host's last success.
    - ``logged_in``: the last success at chan_sip from exactly this address.
    - ``diverted``: when a challenge for this address went to another address.
    - ``lines``: the numbers of log lines with and without a connection.
    - ``answers``: the times of the SIP answers that can confirm log lines, by service and by whether the
      answer is a 404.
    - ``waiting``: the reports that wait for a confirmation, by remote port.
    """

    key: AddressKey
    used: float
    proven: bool = False
    until: float = -inf
    sessions: dict[bytes, Session] = Factory(dict)
    forgiven: dict[SourceId, float] | None = None
    streak: Streak | None = None
    succeeded: float = -inf
    logged_in: float = -inf
    diverted: float = -inf
    lines: LineCounts | None = None
    answers: dict[tuple[Service, bool], deque[float]] | None = None
    waiting: dict[int, deque[UnconfirmedReport]] | None = None

    def keep(self, until: float) -> None:
        """Keep the sender at least until ``until``, because a fact about it is needed until then."""
        self.until = max(self.until, until)

    def is_needed(self, now: float) -> bool:
        """Whether the sender has a session or a needed fact, or was used within ``SESSION_LIFE``."""
        return bool(self.sessions) or self.until > now or now - self.used < SESSION_LIFE


class Senders:
    """The table of senders and sessions. ``evicted`` counts the sessions and attempts discarded early.

    It has more than twenty methods because senders and their sessions expire and are evicted together.
    """

    def __init__(self, max_sessions: int = MAX_SESSIONS) -> None:
        self.evicted = 0
        self._max_sessions = max_sessions
        self._max_sessions_of_sender = max(1, max_sessions // _SENDER_SHARE)
        self._claimed: OrderedDict[AddressKey, Sender] = OrderedDict()
        self._proven: OrderedDict[AddressKey, Sender] = OrderedDict()
        self._sessions: OrderedDict[Session, Sender] = OrderedDict()  # those used longest ago first
        self._expire_at = -inf  # no session expires before this time
        self._evicted_at = -inf
        self._latest: Sender | None = None  # the sender used last

    def __len__(self) -> int:
        """Return the number of sessions."""
        return len(self._sessions)

    @property
    def senders(self) -> int:
        """The number of senders."""
        return len(self._claimed) + len(self._proven)

    # -- looking up -------------------------------------------------------------------------------------

    def find(self, address: Address) -> Sender | None:
        """Return the sender at ``address``, None if it is unknown."""
        key = address_key(address)
        return self._claimed.get(key) or self._proven.get(key)

    def of(self, address: Address, now: float) -> Sender:
        """Return the sender at ``address``, created if needed. It is now the one used last."""
        sender = self.find(address)
        if sender is None:
            if len(self._claimed) >= self._max_sessions:
                self.expire(now)
            if len(self._claimed) >= self._max_sessions:
                self._evict(self._claimed, now)
            key = address_key(address)
            sender = self._claimed[key] = Sender(key, now)
        self._use(sender, now)
        return sender

    def _use(self, sender: Sender, now: float) -> None:
        """Make a sender the one used last; discard what has expired."""
        sender.used = now
        self._latest = sender
        (self._proven if sender.proven else self._claimed).move_to_end(sender.key)
        if now >= self._expire_at:
            self.expire(now)

    def find_session(self, address: Address, session: bytes) -> Session | None:
        """Return the session of a sender, None if it is unknown."""
        sender = self.find(address)
        return sender.sessions.get(session) if sender is not None else None

    def session(self, address: Address, session: bytes, now: float) -> Session:
        """Return a session of the sender at ``address``, created if needed; it is used at ``now``."""
        return self._session_of(self.of(address, now), session, now)

    def _session_of(self, sender: Sender, name: bytes, now: float) -> Session:
        session = sender.sessions.get(name)
        if session is not None:
            self._use_session(sender, session, now)
            return session
        if len(sender.sessions) >= self._max_sessions_of_sender:
            self._drop(sender, next(iter(sender.sessions.values())), now)
            self.evicted += 1
        while len(self._sessions) >= self._max_sessions:
            self._make_room(sender, now)
        session = sender.sessions[name] = Session(name, now)
        self._sessions[session] = sender
        return session

    def _use_session(self, sender: Sender, session: Session, now: float) -> None:
        """Make a session the one used last. In each table, the sessions used longest ago come first."""
        session.used = now
        self._sessions.move_to_end(session)
        if len(sender.sessions) > 1:
            sender.sessions[session.name] = sender.sessions.pop(session.name)

    def record_proof(self, address: Address, now: float) -> Sender:
        """Record that something came from ``address`` that no other sender can forge; return the sender."""
        sender = self.of(address, now)
        if not sender.proven:
            sender.proven = True
            self._proven[sender.key] = self._claimed.pop(sender.key)
            if len(self._proven) > self._max_sessions // _PROVEN_SHARE:
                self._evict(self._proven, now)
        return sender

    # -- reports and attempts ---------------------------------------------------------------------------

    def report(self, event: SecurityEvent, now: float) -> Attempt | None:
        """Handle an event that arrived at ``now``; return the attempt that it reports, or None."""
        role = role_of(event)
        if role is _NONE:
            return None
        source, address, name = event.source, event.remote.address, session_id(event)
        key = source.asterisk, source.name, event.service
        sender = self.find(address)
        session = sender.sessions.get(name) if sender is not None else None
        reports = session.reports.get(key) if session is not None else None
        # Each successful registration has a challenge. So a challenge of PJSIP is ignored if the session has
        # no other reports. chan_sip's challenges are remembered, because they show that the caller has an
        # account.
        if role is _SUCCESS or (role is _CHALLENGE and reports is None and event.service is _PJSIP):
            if role is _SUCCESS and session is not None:
                session.reports.pop(key, None)
            return None
        if sender is None or session is None:
            session = self.session(address, name, now)
        else:
            self._use_session(sender, session, now)
            sender.used = now
            if sender is not self._latest:
                self._use(sender, now)
        if reports is None or event.time - reports.seen > FORGET:
            reports = session.reports[key] = Reports(event.time)
        reports.seen = event.time
        if role is _FAILED and reports.repeats(event) and self._forgive(event, now):
            return None
        misdialled = role is _PROBE and reports.challenged  # a challenged caller has an account: no probe
        if misdialled or not reports.advance(role, event):
            return None
        probe = AttemptKind.PROBE if role is _PROBE else AttemptKind.GUESS
        return attempt_from(event, AttemptKind.MANAGER if event.service is _AMI else probe)

    def _forgive(self, event: SecurityEvent, now: float) -> bool:
        """Whether to ignore a repeated failure, which may be a retransmission.

        For each host and source, only one failure in ten minutes is ignored, and only by UDP. More would be
        wrong, because equal events may report different guesses: if a request has two Authorization headers,
        the event shows the first, but Asterisk checks the second.
        """
        if event.remote.transport is not Transport.UDP or now - self._evicted_at < FORGIVE_AGAIN:
            return False
        host = self.of(host_of(event.remote.address), now)
        if host.forgiven is None:
            host.forgiven = {}
        if now - host.forgiven.get(event.source, -inf) <= FORGIVE_AGAIN:
            return False
        host.forgiven[event.source] = now
        host.keep(now + FORGIVE_AGAIN)
        return True

    def record_report(self, event: SecurityEvent, address: Address, now: float, tag: int = 0) -> int | None:
        """Record a report of an attempt; return the tag of the attempt if another source has reported it.

        A *tag* is a number by which an attempt is found again. If this is the first report, the attempt gets
        the tag ``tag``, and the result is None. ``address`` is the sender.
        """
        session = self.session(address, shared_session_id(event), now)
        return self._record(session, event, now, tag, listed=False)

    def match_report(self, event: SecurityEvent, address: Address, now: float) -> int | None:
        """Record a report only if another source has already reported its attempt.

        Return the tag of that attempt, or None.
        """
        session = self.find_session(address, shared_session_id(event))
        key = event.source.asterisk, event.service, False
        known = session.attempts.get(key) if session is not None else None
        return known.match(event.source.name, now) if known is not None else None

    def is_reported(self, event: SecurityEvent, now: float) -> bool:
        """Whether another source has already reported the attempt of an event. Nothing is recorded."""
        session = self.find_session(event.remote.address, shared_session_id(event))
        key = event.source.asterisk, event.service, False
        known = session.attempts.get(key) if session is not None else None
        return known is not None and known.is_known(event.source.name, now)

    def is_listed(self, event: SecurityEvent, address: Address, now: float) -> bool:
        """Record a report of an unconfirmed attempt.

        Return whether another source has reported the attempt, so that it is listed already.
        """
        session = self.session(address, shared_session_id(event), now)
        return self._record(session, event, now, 0, listed=True) is not None

    def _record(
        self, session: Session, event: SecurityEvent, now: float, tag: int, *, listed: bool
    ) -> int | None:
        key = event.source.asterisk, event.service, listed
        attempts = session.attempts.get(key)
        if attempts is None:
            attempts = session.attempts[key] = Attempts()
        known = attempts.match(event.source.name, now)
        if known is None:
            self.evicted += attempts.add(event.source.name, now, tag)
        return known

    # -- bounds -----------------------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        """Discard expired sessions, and the senders of which nothing is needed any more."""
        self._expire_at = now + SESSION_LIFE
        while self._sessions:
            session, sender = next(iter(self._sessions.items()))
            if now - session.used < SESSION_LIFE:
                self._expire_at = session.used + SESSION_LIFE
                break
            self._drop(sender, session, now)
            if not sender.is_needed(now):
                (self._proven if sender.proven else self._claimed).pop(sender.key, None)
        for table in (self._claimed, self._proven):
            while table and not (oldest := next(iter(table.values()))).is_needed(now):
                del table[oldest.key]

    def _make_room(self, using: Sender, now: float) -> None:
        """Discard the unproven sender that was used longest ago, with its sessions.

        If there is none, or if it is ``using``, which needs the room, discard only the oldest session.
        """
        if next(iter(self._claimed.values()), using) is not using:
            self._evict(self._claimed, now)
            return
        session, sender = next(iter(self._sessions.items()))
        self._drop(sender, session, now)
        self.evicted += 1

    def _evict(self, table: OrderedDict[AddressKey, Sender], now: float) -> None:
        """Discard the sender of ``table`` that was used longest ago, with its sessions."""
        _, sender = table.popitem(last=False)
        self.evicted += max(1, len(sender.sessions))
        self._evicted_at = now
        for session in list(sender.sessions.values()):
            self._drop(sender, session, now)

    def _drop(self, sender: Sender, session: Session, now: float) -> None:
        del sender.sessions[session.name]
        del self._sessions[session]
        session.discard(now)


def host_of(address: Address) -> Address:
    """Return the address that stands for a host: its only one, or the first one of its /64."""
    if is_one_host(address):
        return address
    return IPv6Address(int(sender_key(address)) << 64)
