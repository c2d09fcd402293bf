"""chan_sip's answers on the wire: they confirm log lines, and show guesses that no event reports.

The *wire* is the source that reads the answers (401, 403, 404, 407) that leave this host, copied by the
kernel. chan_sip raises no security event for MESSAGE, SUBSCRIBE and PUBLISH, although it checks their
passwords: it answers a wrong one with 403 (``channels/chan_sip.c``, tried on 16.28). It also answers 403 to a
call that the dialplan forbids. So a 403 is a guess only if a challenge, or a request that the kernel copied,
came before it in the same session, and if the address has not just logged in. Each such challenge or request
makes only one 403 a guess. Asterisk's own answer names the sender of the request (``parse/challenge.py``).

If a guess carries a nonce that chan_sip never sent, chan_sip still checks the password, but answers with a
new challenge instead of the 403 (see ``session``). A From header that is not UTF-8 suppresses the events of
such challenges. So a challenge with a new nonce is a guess too, if no 403 has answered the previous challenge
of its session. A phone that registers again also gets such a challenge, but it has succeeded before. So this
does not apply to a host that succeeded within a day (``TRUSTED``). And AMI, which reports the successes,
must have been connected since before the previous challenge.

A line of chan_sip's log names an address and no session. It is confirmed by an answer to a request of that
address within ``LIFE``, and each answer confirms one line. So forged lines count at most as often as real
requests came from that address. PJSIP's lines about calls to unknown extensions have no session either, and
their answer is a 404. Only answers by UDP confirm: a TCP segment may begin within a body that another sender
wrote, and for TCP the kernel knows the connection.

Asterisk repeats an answer to INVITE until the ACK, for 32 s at most (RFC 3261 §17.2.1), byte for byte. A
repeat confirms no further line. An answer is identified by its nonce, or by its digest if it has no nonce.
The Call-ID does not identify it, because many guesses may share one. A 403 that looks like a repeat can still
show a new guess: guesses that differ only in their password get the same 403, but each gets its own 401
before.

Bounds: those of the senders and sessions (``sender.py``), and the nonces and digests of ``MOST`` answers, of
which the oldest are discarded first. Times are monotonic seconds.
"""

from collections import deque
from math import inf

from ringfence.detect.events import session_key
from ringfence.detect.sender import SESSION_LIFE, Senders, host_of
from ringfence.detect.session import Session
from ringfence.detect.wire import TRUSTED
from ringfence.model import Address, Challenge, EventKind, SecurityEvent, Service, Transport

LIFE = 10.0
"""How long an answer confirms a line (seconds). Log lines up to 3 s late were observed."""

LOGGED_IN = 60.0
"""How long after a success (seconds) a 403 is attributed to the dialplan."""

MOST = 16_384
"""The number of answers whose repeats are recognised, of all sessions together."""

_MOST_ANSWERS = 64  # the number of answers that are kept for each address, service and kind (404 or other)
_FORBIDDEN, _NOT_FOUND = 403, 404


class Answers:
    """The answers that the wire saw, by the sender of the request and by its session."""

    def __init__(self, senders: Senders) -> None:
        self._senders = senders
        # Where each answer is stored: the table of its session, and its key there. The oldest comes first.
        self._known: deque[tuple[dict[bytes, float], bytes]] = deque()

    def record(self, answer: Challenge, sender: Address, now: float, since: float | None = -inf) -> bool:
        """Record an answer to a request of ``sender``; return whether it shows a guess.

        chan_sip may raise no event for such a guess. ``since`` is the time since when AMI has been connected
        without interruption; None if it is not connected. Without AMI the result is False, because only AMI
        reports which senders logged in.
        """
        session = self._senders.session(sender, session_key(answer.call_id), now)
        is_new = self._is_new(session, answer, now)
        known = self._senders.of(sender, now)
        if is_new and answer.transport is Transport.UDP:
            key = answer.service, answer.status == _NOT_FOUND
            if known.answers is None:
                known.answers = {}
            known.answers.setdefault(key, deque(maxlen=_MOST_ANSWERS)).append(now)
        if answer.service is not Service.SIP or answer.status == _NOT_FOUND:
            return False
        if answer.status != _FORBIDDEN:
            return is_new and self._challenges_again(session, sender, now, since)
        began, session.begun, session.challenged = session.begun, -inf, -inf
        return since is not None and now - began < SESSION_LIFE and now - known.logged_in >= LOGGED_IN

    def _challenges_again(self, session: Session, sender: Address, now: float, since: float | None) -> bool:
        """Record a challenge with a new nonce; return whether it answers a guess.

        The nonce of such a guess was never sent by chan_sip (see the head of this file). ``since`` is as in
        :meth:`record`.
        """
        before, session.begun, session.challenged = session.challenged, now, now
        if since is None or before < since or now - before >= SESSION_LIFE:
            return False
        return now - self._senders.of(host_of(sender), now).succeeded >= TRUSTED

    def _is_new(self, session: Session, answer: Challenge, now: float) -> bool:
        """Record an answer; return whether it is not a repeat."""
        mark = session_key(answer.nonce or answer.digest)
        if not mark:
            return True
        if session.answers is None:
            session.answers = {}
        if now - session.answers.get(mark, -inf) < SESSION_LIFE:
            return False
        session.answers[mark] = now
        self._known.append((session.answers, mark))
        if len(self._known) > MOST:
            answers, oldest = self._known.popleft()
            answers.pop(oldest, None)
        return True

    def record_request(self, sender: Address, call_id: bytes, now: float) -> None:
        """Record a copied request of a session: if a 403 follows in this session, the request was a guess."""
        self._senders.session(sender, session_key(call_id), now).begun = now

    def confirms(self, event: SecurityEvent, now: float) -> bool:
        """Whether a recent answer confirms the log line of ``event``; each answer confirms one line only."""
        sender = self._senders.find(event.remote.address)
        probe = event.kind is EventKind.FAILED_ACL and event.acl_name == "no_extension_match"
        answers = sender.answers if sender is not None else None
        times = answers.get((event.service, probe)) if answers is not None else None
        while times:
            if now - times.popleft() < LIFE:
                return True
        return False
