"""One session: the requests of one sender with one session id, and the reports of every source about them.

A session has separate numbers for each Asterisk, service and source, because a sender may use one Call-ID at
several. The wire (challenges that leave this host, copied by the kernel) names no Asterisk, so its challenges
belong to the session as a whole.

**Events become reports.** One attempt causes one to eleven security events, so events cannot be counted. The
following rules were found by experiment on recordings of real servers, and are exact on all of them. For
each source there are three numbers, which start at zero (:class:`Reports`):

    opener:     if half: n += 1, owed += 1;   half = true
    challenge:  if half: half = false, n += 1, owed += 1
    failed:     half = false;   if owed: owed -= 1 else n += 1
    reported = n + (1 if half and owed == 0 else 0)

An *opener* is the first event of a request that cannot succeed (unknown account, ACL). ``half`` is true until
this request ends, for which a *challenge* is enough. The answer to that challenge is *owed* until a *failed*
reports that the answer was wrong. Each time ``reported`` grows, this source reports one more attempt. So
there are four states, and ``+`` marks the events that report:

    half  owed  state   opener    challenge  failed
    no    0     idle    open  +   idle       idle +
    yes   0     open    both      owing      idle
    no    1..   owing   both      owing      owing, or idle after the last answer
    yes   1..   both    both  +   owing  +   owing, or idle after the last answer

In the state *idle*, an opener reports at once, because an attacker may never answer the challenge. So the
events that complete this request report nothing: the challenge, its wrong answer, or the opener of the same
request with credentials.

(An event that comes twice for each request is counted apart from this table: two of them are one attempt, and
the first one reports it. See ``Role.HALF``.)

A challenge alone is never an attempt, because each successful registration begins with one. But if a guess
carries an unknown nonce, chan_sip reports only another challenge. It still checks the password, and answers a
right one with ``stale=true`` (``channels/chan_sip.c:check_auth``, tried on 16.28). So chan_sip's challenge
with a new nonce counts as a *failed* if the previous challenge of its session was not answered. (To a
retransmitted request chan_sip repeats the nonce.)

The numbers start again after 32 s without an event (PJSIP's nonces live that long). If they start again too
early, too many attempts may be counted, because a late answer then counts as a separate attempt. (Only
between two simultaneous openers and their answers, within microseconds, one attempt could be missed.)

**Reports become attempts** (:class:`Attempts`). A report matches the oldest attempt of its session that is
younger than ``HORIZON`` and that this source has not reported yet. If there is none, the attempt is new and
counts at once. So the number of attempts is the highest number that any one source reports within the
horizon: no attempt counts twice, and one source can report what another misses. Sources that do not name the
same session share a session by the kind of failure (``events.shared_session_id``).

The horizon is short, because one source may report attempts that another misses. With a long horizon, later
reports of the other source would match these old attempts, instead of counting as new ones. 10 s is more than
three times the longest observed delay of a log line. A report matches the oldest attempt first, so one number
for each source shows which open attempts it has reported.
"""

from math import inf

from attrs import Factory, define

from ringfence.detect.events import Role
from ringfence.model import Address, Attempt, SecurityEvent, Service

HORIZON = 10.0
"""The greatest age of an attempt that another report may match (seconds)."""

FORGET = 32.0
"""Seconds (of a source's own time) without an event of it, after which its counts start again at zero."""

CHALLENGES_LIFE = 15.0
"""Seconds without a challenge or event after which a session's challenges are counted from zero."""

REPORTED = 1.5
"""AMI reports a challenge within this time (seconds), unless its events are late (``wire.LATE``)."""

MOST_ATTEMPTS = 1_024
"""The maximum number of attempts in ``Attempts.open``. The oldest are discarded first."""

# The least and the greatest time (seconds) from a wrong answer to its retransmission. By RFC 3261 these are
# T1 (0.5 s, but less in some phones) and 64 * T1.
_REPEAT_SOONEST, _REPEAT_LATEST = 0.3, 32.0

LocalPort = tuple[Address, int]
"""The local address and port that sent a challenge."""

# Module-level aliases: enum member lookups are slow in the per-event hot path.
_OPENER, _CHALLENGE, _FAILED, _HALF, _SIP = Role.OPENER, Role.CHALLENGE, Role.FAILED, Role.HALF, Service.SIP


@define
class Reports:
    """The counts of one source's events about one service (such as PJSIP) in a session.

    The head of this file explains ``half``, ``owed``, ``n`` and ``reported``. ``seen`` is the source's own
    time of its latest event. ``halves`` counts the events with the role HALF, of which two are one attempt.
    ``challenged``: a challenge was reported, so the sender has an account. ``answer`` is a hash of the latest
    wrong answer to a challenge, which came at ``answered_at``. ``nonce`` is a hash of the nonce in chan_sip's
    latest challenge, 0 if another event followed.
    """

    seen: float
    half: bool = False
    owed: int = 0
    n: int = 0
    halves: int = 0
    reported: int = 0
    challenged: bool = False
    answer: int = 0
    answered_at: float = 0.0
    nonce: int = 0

    def repeats(self, event: SecurityEvent) -> bool:
        """Whether this failure may be a retransmission of the last one; record it as the last one.

        The result is False for a failure that completes an earlier request, because it does not count anyway.
        """
        previous, age = self.answer, event.time - self.answered_at
        self.answer, self.answered_at = hash((event.challenge, event.response)), event.time
        if previous != self.answer or self.owed or self.half or not (event.challenge and event.response):
            return False
        return _REPEAT_SOONEST <= age <= _REPEAT_LATEST

    def advance(self, role: Role, event: SecurityEvent) -> bool:
        """Handle an event; return whether it reports one more attempt."""
        if event.service is _SIP and self._fails_by_challenge(role, event.challenge):
            role = _FAILED
        if role is _OPENER:
            if self.half:
                self.n += 1
                self.owed += 1
            self.half = True
        elif role is _CHALLENGE:
            self.challenged = True
            if self.half:
                self.half = False
                self.n += 1
                self.owed += 1
        elif role is _HALF:
            self.halves += 1
        else:
            self.half = False
            if self.owed:
                self.owed -= 1
            else:
                self.n += 1
        reported = self.n + (self.half and not self.owed) + (self.halves + 1) // 2
        if reported <= self.reported:
            return False
        self.reported = reported
        return True

    def _fails_by_challenge(self, role: Role, nonce: bytes) -> bool:
        """Whether this challenge of chan_sip means that a guess failed; record the challenge."""
        if role is not _CHALLENGE:
            self.nonce = 0
            return False
        before, self.nonce = self.nonce, hash(nonce) if nonce else 0
        return before not in (0, self.nonce)


@define
class Attempts:
    """The open attempts of one service: those younger than the horizon.

    ``open`` holds for each attempt the time of its first report, and its tag (the caller's number for it),
    oldest first. Attempts are numbered in this order, and ``first`` is the number of the oldest open one.
    ``reported`` holds for each source the number of the next attempt that it has not reported. (``open`` is a
    list, because there are many sessions with one attempt, and an empty deque takes 760 bytes.)
    """

    open: list[tuple[float, int]] = Factory(list)
    reported: dict[str, int] = Factory(dict)
    first: int = 0

    def match(self, source: str, now: float) -> int | None:
        """Record a report of ``source``, and return the tag of the known attempt that it reports.

        If it reports no known attempt, return None and record nothing.
        """
        closed = 0
        while closed < len(self.open) and now - self.open[closed][0] >= HORIZON:
            closed += 1
        self._drop_oldest(closed)
        number = max(self.reported.get(source, 0), self.first)
        if number >= self.first + len(self.open):
            return None
        self.reported[source] = number + 1
        return self.open[number - self.first][1]

    def is_known(self, source: str, now: float) -> bool:
        """Whether the next report of ``source`` is about a known attempt (see :meth:`match`)."""
        closed = sum(now - at >= HORIZON for at, _ in self.open)
        number = max(self.reported.get(source, 0), self.first + closed)
        return number < self.first + len(self.open)

    def add(self, source: str, now: float, tag: int) -> bool:
        """Add a new attempt that ``source`` reports. Return whether an open one was discarded for it."""
        is_full = len(self.open) >= MOST_ATTEMPTS
        if is_full:
            self._drop_oldest(1)
        self.open.append((now, tag))
        self.reported[source] = self.first + len(self.open)
        return is_full

    def _drop_oldest(self, number: int) -> None:
        del self.open[:number]
        self.first += number


@define
class Challenges:
    """The numbers of challenges in a session that the wire saw, and that AMI reported.

    ``due``: the number that AMI should have reported by now. ``reported``: the number that AMI has reported.
    ``last`` is the time of the last challenge on the wire, ``used`` that of the last challenge or report,
    whichever came later. ``local_port`` sent the last challenge; None if the wire has seen none. ``sent_by``
    is the Asterisk whose AMI reported a challenge before the wire saw it, otherwise "". ``discarded``: the
    session was discarded so early that AMI may still report challenges of it.
    """

    used: float
    last: float = -inf
    local_port: LocalPort | None = None
    reported: int = 0
    due: int = 0
    sent_by: str = ""
    discarded: bool = False


@define(eq=False)
class Naming:
    """A report of chan_sip at ``at`` that names ``address``; ``agrees``: another report names it too."""

    at: float
    address: Address
    agrees: bool = False


@define(eq=False)
class UnconfirmedReport:
    """An attempt that ``event`` reported at ``at`` (monotonic seconds), and that needs a confirmation.

    ``settled``: it no longer waits for one. ``naming`` shows whether another report of chan_sip names the
    same address; None if this is not checked.
    """

    at: float
    attempt: Attempt
    event: SecurityEvent
    naming: Naming | None = None
    settled: bool = False


@define(eq=False)
class Session:
    """One session: its id as a key, and the time of its last use (monotonic seconds).

    - ``reports``: by Asterisk, source and service.
    - ``attempts``: by Asterisk, by service, and by whether they are unconfirmed and so only listed.
    - ``datagrams``: the challenges by UDP. ``streams``: those by TCP.
    - ``answers``: the times of Asterisk's SIP answers, by nonce, or by digest if they have none.
    - ``unconfirmed``: the reports that wait for a confirmation. ``unforgeable``: those that no sender can
      forge.
    - ``challenged``: the time of chan_sip's last challenge. ``begun``: the time of this challenge, or of a
      later request that the kernel copied. A 403 resets both.
    - ``proven``: when a nonce proved the sender.

    Most sessions need few of these, so tables are created when they are needed.
    """

    name: bytes
    used: float
    reports: dict[tuple[str, str, Service], Reports] = Factory(dict)
    attempts: dict[tuple[str, Service, bool], Attempts] = Factory(dict)
    datagrams: Challenges | None = None
    streams: Challenges | None = None
    answers: dict[bytes, float] | None = None
    unconfirmed: list[UnconfirmedReport] | None = None
    unforgeable: list[UnconfirmedReport] | None = None
    begun: float = -inf
    challenged: float = -inf
    proven: float = -inf

    def challenges_by(self, now: float, *, datagram: bool) -> Challenges:
        """Return the counts of challenges by UDP (``datagram``) or by TCP.

        They start at zero again if the last challenge or event is ``CHALLENGES_LIFE`` old.
        """
        known = self.datagrams if datagram else self.streams
        if known is None or now - known.used >= CHALLENGES_LIFE:
            known = Challenges(now)
            if datagram:
                self.datagrams = known
            else:
                self.streams = known
        known.used = now
        return known

    def discard(self, now: float) -> None:
        """Mark the challenges as discarded if the last one is so young that AMI may still report it.

        This session ends, so AMI's events about these challenges will be counted in a new session. Without
        the mark, the challenges would be treated as challenges that AMI never reported.
        """
        for challenges in (self.datagrams, self.streams):
            if challenges is not None:
                challenges.discarded = now - challenges.last < REPORTED
