"""Hidden attempts: guesses that Asterisk's events do not show, found by the challenges on the wire.

Asterisk answers a guess with a challenge. The *wire* is the source that reads the challenges that leave this
host, as the kernel copies them. It sees each challenge by UDP, TCP and WebSocket. So challenges and events
are compared.

**Confirmation.** A log line that a sender could have forged is confirmed if exactly that address requested a
challenge under exactly that Call-ID. Only challenges by UDP confirm, because a TCP segment may begin within a
body that another sender wrote.

**Unreported challenges.** A challenge whose request held bytes that suppress Asterisk's events
(``Challenge.evasive``) is evidence at once: its sender is known, and no phone sends such bytes. AMI reports
each other challenge by one event: ChallengeSent, InvalidAccountID or ChallengeResponseFailed. If no such
event arrives within ``WAIT``, the challenge is evidence too. For example, two Authorization headers, the
first with a nonce that is not UTF-8, suppress the event and leave no trace in the challenge. Challenges by
UDP and by TCP are counted separately; otherwise events of one could stand for challenges of the other.
Challenges by TLS are invisible and not counted. An event of AMI may be read before its challenge.

This conclusion rests on missing events, and a wrong conclusion would affect each phone. So AMI must have
reported a ChallengeSent for the same local address and port within ``VOUCHED``. (So nothing is found this way
if ChallengeSent is switched off, or for a PJSIP on this host whose AMI is not read.) AMI must have been
connected all the time. Its events must not be late, as they may be during a flood. (The time in an event
whose text may be forged proves no delay.) If a session is discarded early, its latest challenges are not
compared. A retransmitted request changes nothing: PJSIP answers it again, and AMI reports this again.

**Abandoned challenges.** A phone answers its challenge, and Asterisk reports the success. An attacker never
succeeds. So the challenges to a host are counted until a success follows. More than ``MANY`` within
``WITHIN`` are far more than a failing phone causes. This also finds guesses that an unknown method hides from
all other sources, because no text of the sender affects ``Challenge.sender``.

Phones too cause challenges that they do not answer: PJSIP challenges the OPTIONS that they send every few
seconds to keep a NAT mapping open. So AMI must have been connected for two hours without interruption, within
which each phone registers, and must have reported a success. (So nothing is found if SuccessfulAuth is
switched off.) A host that succeeded within ``TRUSTED`` is never affected. chan_sip is not covered, because it
does not report a successful SUBSCRIBE, and a phone may send a hundred of them (for its lamps).

Bounds: those of the senders and sessions (``sessions``), and 65 536 waiting challenges, of which the oldest
are discarded first. Times are monotonic seconds.
"""

from collections import deque
from collections.abc import Mapping
from math import inf

from ringfence.detect.sessions import Challenges, LocalPort, Sender, Senders, Streak, host_of
from ringfence.model import AMI, Address, Challenge, EventKind, SecurityEvent, Service, Transport

Listening = Mapping[str, float]
"""For each Asterisk whose AMI is connected now: since when.

The time is that of the last interruption's end (monotonic seconds). The key is the name of the Asterisk.
"""

NOT_CONNECTED: Listening = {}
"""No AMI is connected."""

LIFE = 10.0
"""How long a challenge confirms reports (seconds). Log lines up to 3 s late were observed."""

BLIND = 10.0
"""For this time after the wire lost packets (seconds), a missing challenge is no sign of a forgery."""

WAIT = 5.0
"""How long AMI may take to report a challenge (seconds)."""

LATE = 1.0
"""If AMI reports an event that is older than this (seconds), other events may be delayed too."""

VOUCHED = 600.0
"""For this time after a ChallengeSent (seconds), AMI is assumed to report all challenges of that port."""

MANY = 100
"""The greatest number of challenges without a success that a phone may cause within ``WITHIN``."""

WITHIN = 600.0
"""The period in which challenges are counted (seconds)."""

SETTLED = 1.0
"""AMI reports a success at most this late (seconds). Until then, new challenges of a host are not judged."""

TRUSTED = 86_400.0
"""How long after a success (seconds) an address is not suspected."""

SURE_AFTER = 7_200.0
"""How long AMI must have been connected before a host without a success is suspected (seconds).

Phones register at least this often, so AMI has then reported a success of each phone.
"""

_MAX_WAITING = 65_536
_MAX_PORTS = 256

# The transports of the challenges that the wire sees, and whether these challenges are datagrams.
_SEEN = {Transport.UDP: True, Transport.TCP: False, Transport.WS: False}


class Wire:
    """Compares the challenges on the wire with the events of AMI.

    ``listening`` is what :meth:`tick` got last: since when each AMI has been connected. While the wire does
    not see every challenge, it is empty. ``lost_at`` is when the wire lost packets last (monotonic seconds).
    """

    def __init__(self, senders: Senders) -> None:
        self.lost_at = -inf
        self.listening = NOT_CONNECTED
        self._senders = senders
        self.ahead = 0.0  # wall clock minus monotonic clock
        self._waiting: deque[tuple[float, Challenges, Challenge]] = deque(maxlen=_MAX_WAITING)
        self._vouched: dict[LocalPort, tuple[float, str]] = {}
        self._late = -WAIT
        self._over: dict[Sender, None] = {}  # hosts that may have too many challenges
        self._heard: dict[str, float] = {}  # by Asterisk, when its AMI reported a success last

    @property
    def blind_until(self) -> float:
        """Until when a missing challenge means nothing, because the wire lost packets."""
        return self.lost_at + BLIND

    # -- input ------------------------------------------------------------------------------------------

    def record_challenge(
        self, challenge: Challenge, sender: Address, asterisk: str, now: float, *, known: bool = False
    ) -> None:
        """Record a challenge that ``sender`` requested from the PJSIP of ``asterisk``.

        ``known``: the request was copied, so nothing needs to be deduced from its answer.
        """
        if not known:
            self._count_abandoned(challenge, sender, asterisk, now)
        session = self._senders.session(sender, challenge.call_id, now)
        challenges = session.challenges_by(now, datagram=challenge.transport is Transport.UDP)
        challenges.last = now
        challenges.local_port = challenge.local_address, challenge.local_port
        if challenges.sent_by:
            self._vouch(challenges.local_port, now, challenges.sent_by)
            challenges.sent_by = ""
        if not (challenge.evasive or known):
            self._waiting.append((now, challenges, challenge))

    def _count_abandoned(self, challenge: Challenge, sender: Address, asterisk: str, now: float) -> None:
        host = self._senders.sender_at(host_of(sender), now)
        if now - host.succeeded < TRUSTED:
            return
        streak = host.streak
        if streak is None or now - streak.began >= WITHIN:
            streak = host.streak = Streak(now, asterisk, challenge, returned=MANY)
            host.keep(now + WITHIN)
        streak.count += 1
        streak.latest = challenge
        if streak.count > streak.returned:
            self._over[host] = None

    def record_event(self, event: SecurityEvent, now: float) -> None:
        """Record an event of Asterisk. Only AMI's events are compared with challenges."""
        if event.source.name != AMI:
            return
        if event.kind is EventKind.SUCCESSFUL_AUTH and not event.tampered and not event.forgeable:
            if event.service in (Service.PJSIP, Service.SIP):
                self._record_success(event.remote.address, event.source.asterisk, now)
            if event.service is Service.SIP:
                self._senders.sender_at(event.remote.address, now).logged_in = now
        if now + self.ahead - event.time > LATE and not (event.tampered or event.forgeable):
            self._late = now
        datagram = _SEEN.get(event.remote.transport)
        if event.service is not Service.PJSIP or datagram is None:
            return
        session = self._senders.session(event.remote.address, event.session, now)
        challenges = session.challenges_by(now, datagram=datagram)
        challenges.reported += 1
        if event.kind is not EventKind.CHALLENGE_SENT:
            return
        if challenges.local_port is None:
            challenges.sent_by = event.source.asterisk
        else:
            self._vouch(challenges.local_port, now, event.source.asterisk)

    def _record_success(self, address: Address, asterisk: str, now: float) -> None:
        self._heard[asterisk] = now
        host = self._senders.record_proof(host_of(address), now)
        host.streak, host.succeeded = None, now
        host.keep(now + TRUSTED)

    def record_reported(self, address: Address) -> None:
        """Record that a source other than the wire reports an attempt of ``address``.

        So its attempts are not hidden: the challenges to its host are counted from zero again.
        """
        host = self._senders.find(host_of(address))
        if host is not None and host.streak is not None:
            host.streak.count, host.streak.returned = 0, MANY

    def tick(self, now: float, wall: float, listening: Listening) -> None:
        """Record the monotonic clock ``now``, the wall clock ``wall``, and ``listening``."""
        self.ahead = wall - now
        self.listening = listening

    # -- conclusions ------------------------------------------------------------------------------------

    def confirms(self, event: SecurityEvent, now: float) -> bool:
        """Whether a challenge confirms the address of ``event``.

        Such a challenge left by UDP within ``LIFE``, and answered a request of this address with the Call-ID
        of the event.
        """
        session = self._senders.find_session(event.remote.address, event.session)
        challenges = session.datagrams if session is not None else None
        return challenges is not None and now - challenges.last < LIFE

    def asterisk_at(self, challenge: Challenge) -> str | None:
        """Return the name of the Asterisk that sent a challenge; None if it is unknown.

        It is the one whose AMI has reported an earlier challenge from the same local address and port.
        """
        known = self._vouched.get((challenge.local_address, challenge.local_port))
        return known[1] if known is not None else None

    def unreported(self, now: float, listening: Listening) -> list[tuple[Challenge, str]]:
        """Return the challenges that AMI should have reported by ``now`` but did not.

        Each comes with the name of its Asterisk, and is returned once.
        """
        found = []
        while self._waiting and now - self._waiting[0][0] >= WAIT:
            seen, challenges, challenge = self._waiting.popleft()
            challenges.due += 1
            if challenges.reported >= challenges.due or challenges.discarded:
                continue
            challenges.due -= 1
            local_port = challenge.local_address, challenge.local_port
            vouched, asterisk = self._vouched.get(local_port, (-VOUCHED, ""))
            since = listening.get(asterisk)
            heard = since is not None and since < seen and self._late < seen
            if heard and seen - vouched < VOUCHED:
                found.append((challenge, asterisk))
        return found

    def abandoned(self, now: float, listening: Listening) -> list[tuple[Challenge, str, int]]:
        """Return the hosts with more than ``MANY`` challenges after which no success followed.

        For each host, return its latest challenge, the name of the Asterisk that sent the first one, and the
        number of challenges beyond ``MANY`` that no earlier call has returned. Leave out a host if AMI may
        have missed its success.
        """
        found = []
        for host in list(self._over):
            streak = host.streak
            if streak is not None and streak.count > streak.returned:
                if now - streak.began < SETTLED:
                    continue
                if self._is_sure(streak, listening):
                    found.append((streak.latest, streak.asterisk, streak.count - streak.returned))
                    streak.returned = streak.count
                else:
                    host.streak = None  # AMI may have missed a success, so counting starts again
            del self._over[host]
        return found

    def _is_sure(self, streak: Streak, listening: Listening) -> bool:
        """Whether AMI would have reported a success of the challenged host.

        AMI must have been connected for ``SURE_AFTER`` before the first challenge. It must have reported a
        success of any host since it was connected.
        """
        since = listening.get(streak.asterisk)
        if since is None or streak.began - since < SURE_AFTER:
            return False
        return self._heard.get(streak.asterisk, since) > since

    def _vouch(self, local_port: LocalPort, now: float, asterisk: str) -> None:
        self._vouched[local_port] = now, asterisk
        if len(self._vouched) > _MAX_PORTS:
            del self._vouched[next(iter(self._vouched))]
