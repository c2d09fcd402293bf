"""Confirmation: whether something other than the sender's text shows that a reported address is right.

The head of ``attribution`` lists the ways of confirmation. That module also decides what follows from a
confirmed or an unconfirmed address.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from math import inf
from operator import attrgetter
from typing import Protocol

from attrs import Factory, frozen

from ringfence.detect.conversation import Conversations
from ringfence.detect.nonces import Nonces
from ringfence.detect.sessions import (
    HORIZON,
    SESSION_LIFE,
    LineCounts,
    Role,
    Sender,
    Senders,
    Session,
    UnconfirmedReport,
    role_of,
)
from ringfence.values.attempt import Attempt, Proof
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
from ringfence.values.network import Address, NetworkSet
from ringfence.values.packet import CopiedAnswer

# -- unconfirmed attempts: reports that wait for a confirmation, because their address may be forged
#
# :mod:`ringfence.detect.attribution` decides what confirms an address. Bound: 10 000 reports. The oldest
# are discarded first; a discarded report is not judged, and not listed. As many log lines may wait for AMI;
# further ones do not wait.


PATIENCE = 1.0
"""How long a report waits (seconds) for a reliable source to confirm it."""

_MAX_REPORTS = 10_000
_SECOND = 1.0  # the times of log lines may be whole seconds
# The kinds of report that only a request with credentials causes.
_ABOUT_PASSWORDS = (
    EventKind.CHALLENGE_RESPONSE_FAILED,
    EventKind.INVALID_PASSWORD,
    EventKind.SUCCESSFUL_AUTH,
)
# Services about which only log lines report, with the name to show.
_NOTHING_ELSE = {Service.IAX2: "IAX2", Service.DIALPLAN: "the dialplan"}
_OF_AMI = (Service.PJSIP, Service.AMI)  # those whose senders AMI names by their true addresses


class UnconfirmedReports:
    """Reports of attempts that wait until another source confirms the address they name, oldest first.

    Reports are also found by their session (Call-ID), and by the address and port that they name.
    """

    def __init__(self, senders: Senders, most: int = _MAX_REPORTS) -> None:
        self._senders = senders
        self._most = most
        self._queue: deque[tuple[UnconfirmedReport, Sender, Session]] = deque()

    def __len__(self) -> int:
        """Return the number of reports, including those that no longer wait but are not removed yet."""
        return len(self._queue)

    def add(self, report: UnconfirmedReport) -> None:
        """Add a report that waits for a confirmation; beyond the bound, remove the oldest report."""
        if len(self._queue) >= self._most:
            self._remove_oldest()
        remote = report.event.remote
        session = self._senders.session(remote.address, report.event.session, report.at)
        sender = self._senders.sender_at(remote.address, report.at)
        self._queue.append((report, sender, session))
        if session.unconfirmed is None:
            session.unconfirmed = {}
        session.unconfirmed.setdefault(_is_about_password(report), []).append(report)
        if not report.event.forgeable:
            if session.unforgeable is None:
                session.unforgeable = []
            session.unforgeable.append(report)
        if sender.waiting is None:
            sender.waiting = {}
        sender.waiting.setdefault(remote.port, deque()).append(report)

    def settle(self, address: Address, session: bytes, *, question: bool = False) -> list[UnconfirmedReport]:
        """Return the waiting reports that name ``address`` and this session id, and end their wait.

        ``question``: leave out reports about a password, because the confirmed request had no credentials.
        """
        known = self._senders.find_session(address, session) if self._queue else None
        if known is None or known.unconfirmed is None:
            return []
        waiting = known.unconfirmed.pop(False, [])
        if not question:
            waiting += known.unconfirmed.pop(True, [])
        found = sorted((report for report in waiting if not report.settled), key=attrgetter("at"))
        for report in found:
            report.settled = True
        return found

    def oldest_of(self, remote: Endpoint) -> UnconfirmedReport | None:
        """Return the oldest report that waits and names the address and port of ``remote``, or None.

        The report goes on waiting.
        """
        sender = self._senders.find(remote.address) if self._queue else None
        waiting = sender.waiting.get(remote.port) if sender is not None and sender.waiting else None
        while waiting and waiting[0].settled:
            waiting.popleft()
        return waiting[0] if waiting else None

    def has_unforgeable(self, report: UnconfirmedReport) -> bool:
        """Whether ``report`` is forgeable, but an unforgeable report of the same session still waits.

        The unforgeable report then lists the attempt, so ``report`` must not list it again.
        """
        event = report.event
        if not event.session or not event.forgeable:
            return False
        session = self._senders.find_session(event.remote.address, event.session)
        others = session.unforgeable if session is not None else None
        while others and others[0].settled:
            others.pop(0)
        return bool(others)

    def due(self, now: float) -> Iterator[UnconfirmedReport]:
        """Remove the reports that are ``PATIENCE`` seconds old; yield those that nothing has confirmed."""
        while self._queue and now - self._queue[0][0].at >= PATIENCE:
            report = self._remove_oldest()
            if not report.settled:
                yield report

    def _remove_oldest(self) -> UnconfirmedReport:
        """Remove the oldest report from all tables, and return it.

        The oldest report is also the first one in the lists of its session and of its port.
        """
        report, sender, session = self._queue.popleft()
        in_session = (session.unconfirmed or {}).get(_is_about_password(report))
        for waiting_in_session in (in_session, session.unforgeable):
            if waiting_in_session and waiting_in_session[0] is report:
                waiting_in_session.pop(0)
        port = report.event.remote.port
        if sender.waiting is not None and port in sender.waiting:
            waiting = sender.waiting[port]
            if waiting and waiting[0] is report:
                waiting.popleft()
            if not waiting:
                del sender.waiting[port]
        return report


def _is_about_password(report: UnconfirmedReport) -> bool:
    return report.event.kind in _ABOUT_PASSWORDS


class LateReports:
    """Log lines that nothing has confirmed yet, but whose attempts AMI may report later than usual.

    Each line waits until AMI's events have been read up to its arrival, but at most ``SESSION_LIFE`` seconds,
    because its session is then forgotten. ``read`` is the time (monotonic seconds) up to which the events of
    every AMI have been read; inf if that is unknown, and then no line waits.
    """

    def __init__(self, most: int = _MAX_REPORTS) -> None:
        self.read = inf
        self._most = most
        self._queue: deque[UnconfirmedReport] = deque()

    def __len__(self) -> int:
        """Return the number of lines that wait."""
        return len(self._queue)

    def add(self, report: UnconfirmedReport) -> bool:
        """Add a log line whose attempt AMI may still report; return whether the line waits."""
        event = report.event
        by_ami = event.source.text and event.service in _OF_AMI and role_of(event) is not Role.PROBE
        if not by_ami or report.at < self.read or len(self._queue) >= self._most:
            return False
        self._queue.append(report)
        return True

    def due(self, now: float) -> Iterator[UnconfirmedReport]:
        """Remove the lines that have waited long enough, oldest first, and yield them."""
        while self._queue and (self._queue[0].at < self.read or now - self._queue[0].at >= SESSION_LIFE):
            yield self._queue.popleft()


def why_unconfirmed(attempt: Attempt) -> str:
    """Return why an attempt with an unconfirmed address leads to no ban, as a text for people."""
    if attempt.service in _NOTHING_ELSE:
        part = _NOTHING_ELSE[attempt.service]
        return (
            f"only the log reports {part}, and a sender can have Asterisk write such a line with any address"
        )
    if WIRE in attempt.sources:
        return "what the wire sees by TCP may be a text of another sender, within a message to this phone"
    if AMI not in attempt.sources:
        return (
            "only the log names this address, and a sender can have Asterisk write such a line: neither AMI "
            "nor the wire nor a TCP connection confirms it"
        )
    if attempt.service is Service.SIP:
        return (
            "chan_sip's events name whatever address a Via header gives: neither the wire ([asterisk.wire]) "
            "nor a log line nor a TCP connection confirms this one"
        )
    return "AMI alone names this address, in an event that a sender can forge, and nothing confirms it"


# -- Asterisk's answers on the wire: they confirm log lines
#
# The *wire* is the source that reads the answers (401, 403, 404, 407) that leave this host, copied by the
# kernel. Asterisk's own answer names the sender of the request (``parse/answers.py``).
#
# A line of chan_sip's log names an address and no session. It is confirmed by an answer to a request of
# that address within ``LIFE``, and each answer confirms one line. The challenge to a copied request without
# credentials confirms none: a bystander may be challenged all day. So forged lines count at most as often as
# real guesses came from that address. PJSIP's lines about calls to unknown extensions have no session either,
# and their answer is a 404. Only answers by UDP confirm: a TCP segment may begin within a body that another
# sender wrote, and for TCP the kernel knows the connection.
#
# Asterisk repeats an answer to INVITE until the ACK, for 32 s at most (RFC 3261 §17.2.1). If the request was
# copied, a repeat is recognized (``conversation``), and confirms no further line.
#
# Bounds: those of the senders (``sessions.py``). Times are monotonic seconds.


LIFE = 10.0
"""Seconds for which a SIP answer confirms a log line. Lines up to 3 s late were observed."""

_MOST_ANSWERS = 64  # the number of answers that are kept for each address, service and kind (404 or other)
_NOT_FOUND = 404


class Answers:
    """The latest SIP answers by UDP that left this host, which confirm log lines about their requests."""

    def __init__(self, senders: Senders) -> None:
        self._senders = senders

    def record(self, answer: CopiedAnswer, sender: Address, now: float) -> None:
        """Record a SIP answer that left this host by UDP for a request of ``sender``."""
        known = self._senders.sender_at(sender, now)
        if known.answers is None:
            known.answers = {}
        times = known.answers.setdefault((answer.service, answer.status == _NOT_FOUND), [])
        times.append(now)
        del times[:-_MOST_ANSWERS]

    def confirms(self, event: SecurityEvent, now: float) -> bool:
        """Whether a recent SIP answer confirms the log line of ``event``; each answer confirms one line."""
        sender = self._senders.find(event.remote.address)
        probe = event.kind is EventKind.FAILED_ACL and event.acl_name == "no_extension_match"
        answers = sender.answers if sender is not None else None
        times = answers.get((event.service, probe)) if answers is not None else None
        while times:
            if now - times.pop(0) < LIFE:
                return True
        return False


# -- which sources deliver

Listening = Mapping[str, float]
"""For each Asterisk whose AMI is connected now: since when, without interruption (monotonic seconds)."""

NOT_CONNECTED: Listening = {}
"""No AMI is connected."""

BLIND = 10.0
"""Seconds after a loss of copied packets for which a missing challenge is no sign of a forgery."""


# -- confirmation of log lines by a TCP connection from the address and port that they name
#
# A sender can make Asterisk write a line with any address and port, but only a host at that address can
# complete a handshake. However, a sender that forges lines can guess ports, and a victim may have many
# connections. So the lines of each address with and without a connection are counted. A line with a
# connection is confirmed only if at most ``UNBACKED`` times as many lines had none. A forger fails this
# test, because it must try some 28 000 ports for one match. A sender could also forge lines about its own
# address, to keep its true lines unconfirmed. But it needs ten forged lines for each hidden guess, and an
# alarm names it.
#
# A line without a connection is counted as soon as it arrives. The count is reduced again if another source
# confirms the line. If lines were counted later, a forger could try a thousand ports before the first one
# counts.
#
# The counts are part of the sender (``sessions``), and so are their bounds. Times are monotonic seconds.


WITHIN = 3_600.0
"""The period (seconds) in which log lines of an address with and without a TCP connection are counted."""

UNBACKED = 10
"""The number of log lines without a TCP connection that an address may have for each line with one."""

GUESS = 250
"""The least number of bytes of a guess by a SIP connection; real guesses have 300 or more."""

LOGIN = 14
"""The least number of bytes of a login by a manager connection: ``Action:Login`` and two newlines."""


class Connections(Protocol):
    """A table of the TCP connections to this host, as the kernel reported them last.

    The detector only looks connections up. The daemon refreshes the table from the kernel before it passes an
    event to the detector, or lets the next look-up do so (:meth:`Detector.queries`).
    """

    def has(self, remote: Endpoint, now: float) -> bool:
        """Whether the kernel has, or had within a minute, a TCP connection from ``remote``."""

    def backs(self, remote: Endpoint, length: int, now: float) -> bool:
        """Whether a TCP connection of ``remote`` confirms a log line about a request.

        ``length`` is the number of bytes of the shortest request that causes such a line. The remote end must
        have sent this number of bytes that have confirmed no other line. The call uses them up.
        """

    def had_any(self, address: Address, now: float) -> bool | None:
        """Whether ``address`` has any TCP connection, or had one within a minute; None if unknown."""


class NoConnections:
    """A table without TCP connections, used when logs are replayed."""

    def has(self, remote: Endpoint, now: float) -> bool:  # noqa: ARG002 - the protocol's
        """Return False: no connection is known."""
        return False

    def backs(self, remote: Endpoint, length: int, now: float) -> bool:  # noqa: ARG002 - the protocol's
        """Return False: no connection is known, so no line is confirmed."""
        return False

    def had_any(self, address: Address, now: float) -> bool | None:  # noqa: ARG002 - the protocol's
        """Return None: it is unknown whether the address had a connection."""
        return None


Query = tuple[Endpoint, int]
"""The address and port of a sender to look up, and the least number of bytes of its request."""


def least_bytes(service: Service) -> int:
    """Return the least number of bytes of a request to ``service``."""
    return LOGIN if service is Service.AMI else GUESS


class Backing:
    """Checks whether a TCP connection confirms the address and port that a log line names as its sender."""

    def __init__(self, connections: Connections, senders: Senders) -> None:
        self._connections = connections
        self._senders = senders

    def confirms(self, remote: Endpoint, service: Service, now: float) -> bool:
        """Whether a TCP connection of ``remote`` confirms a log line about a request to ``service``.

        Return False for UDP, without a port, or if too many lines of this address had no connection. If there
        is a connection, count the line as one with a connection, and use up the bytes of one request.
        """
        if not remote.port or remote.transport is Transport.UDP:
            return False
        if not self._connections.backs(remote, least_bytes(service), now):
            return False
        lines = self._lines(remote.address, now)
        lines.backed += 1
        return lines.unbacked <= UNBACKED * lines.backed

    def has(self, remote: Endpoint, now: float) -> bool:
        """Whether the kernel has, or had within a minute, a TCP connection of ``remote``; not for port 0."""
        return bool(remote.port) and self._connections.has(remote, now)

    def excludes(self, address: Address, now: float) -> bool:
        """Whether ``address`` certainly had no TCP connection to this host within the last minute."""
        return self._connections.had_any(address, now) is False

    def record_unbacked(self, remote: Endpoint, now: float) -> None:
        """Count a log line for whose address and port the kernel has no TCP connection.

        A line that names no port is not counted, nor one about a request by UDP.
        """
        if remote.port and remote.transport is not Transport.UDP:
            self._lines(remote.address, now).unbacked += 1

    def forgive(self, remote: Endpoint, now: float) -> None:
        """Undo one :meth:`record_unbacked` of ``remote``, because another source confirms the log line."""
        if remote.port and remote.transport is not Transport.UDP:
            lines = self._lines(remote.address, now)
            lines.unbacked = max(0, lines.unbacked - 1)

    def _lines(self, address: Address, now: float) -> LineCounts:
        sender = self._senders.sender_at(address, now)
        if sender.lines is None or now - sender.lines.since >= WITHIN:
            sender.lines = LineCounts(now)
            sender.keep(now + WITHIN)
        return sender.lines


# Module-level aliases: enum member lookups are slow in the per-event hot path.
_PJSIP, _SIP, _UDP = Service.PJSIP, Service.SIP, Transport.UDP
_BY_WIRE = (EventKind.HIDDEN, EventKind.REFUSED, EventKind.DIVERTED)
_CLAIMED, _NONCE, _HANDSHAKE = Proof.CLAIMED, Proof.NONCE, Proof.HANDSHAKE


@frozen
class KnownSources:
    """Facts about the sources of each Asterisk that the attribution needs.

    ``several`` names the Asterisks that have several sources: their reports may be duplicates. At any other
    Asterisk, each report is a new attempt. ``corroborated`` names the Asterisks that have AMI or copied
    packets as a source: their log lines need confirmation. None means the same Asterisks as ``several``.
    ``assumed`` is for a replay of logs, which has no wire to prove addresses: each attempt without a proof
    gets this one instead. Outside of replays it is CLAIMED (no proof). ``proxies`` are the addresses of SIP
    proxies on this host; Asterisk's events name them instead of their clients. ``guests``: strangers may call
    without a password.
    """

    several: frozenset[str] = frozenset()
    corroborated: frozenset[str] | None = None
    assumed: Proof = Proof.CLAIMED
    proxies: NetworkSet = Factory(NetworkSet)
    guests: bool = False


class Confirmation:
    """Decides whether the address in a report is really the sender's, and how well it is proven.

    ``sees_wire``: the wire source (answers that leave this host, copied by the kernel) has delivered a
    packet, so addresses can be proven. ``wire_sees_all``: at present the kernel copies every challenge.
    ``wire_asterisk``: the assumed Asterisk of copied requests, "" until the first one. ``lost_at``: when
    copied packets were lost last (monotonic seconds). ``ahead``: the wall clock minus the monotonic clock
    (seconds) at the last tick, or less if the clock was set back since.
    """

    def __init__(
        self,
        senders: Senders,
        nonces: Nonces,
        answers: Answers,
        backing: Backing,
        conversations: Conversations,
        sources: KnownSources,
    ) -> None:
        self.sources = sources
        self.sees_wire = False
        self.wire_sees_all = False
        self.wire_asterisk = ""
        self.lost_at = -inf
        self.ahead = 0.0
        self._listening: Listening | None = None  # unknown until the first tick
        self._senders = senders
        self._nonces = nonces
        self._answers = answers
        self._backing = backing
        self._conversations = conversations

    def tick(self, now: float, wall: float, listening: Listening, *, wire: bool) -> None:
        """Record the time, since when each AMI is connected, and whether the kernel copies every challenge.

        ``now`` is monotonic, ``wall`` seconds since the epoch.
        """
        self.wire_sees_all, self._listening = wire, listening
        self.ahead = wall - now

    def has_ami(self, asterisk: str) -> bool:
        """Whether the AMI of an Asterisk is connected."""
        return asterisk in (self._listening or NOT_CONNECTED)

    def happened(self, event: SecurityEvent) -> float:
        """Return when ``event`` happened by its own time, in monotonic seconds."""
        return event.time - self.ahead

    def is_hint(self, event: SecurityEvent, attempt: Attempt) -> bool:
        """Whether a report needs confirmation, because it is text, and another source could confirm it.

        A log line about a request by TCP or TLS always needs confirmation, because the kernel knows the
        connections (except in a replay). So does an event of AMI that a sender's text has broken. Any other
        log line needs confirmation while AMI or copied packets report its Asterisk.
        """
        if self.is_of_stream(attempt) and (event.source.text or attempt.proof is _CLAIMED):
            return True
        return event.source.text and self._is_corroborated(event)

    def is_of_stream(self, attempt: Attempt) -> bool:
        """Whether ``attempt`` came by TCP, TLS or WebSocket, so that the kernel lists its connection.

        False in a replay, in which no connection is known.
        """
        return attempt.transport not in DATAGRAMS and self.sources.assumed is _CLAIMED

    def _is_corroborated(self, event: SecurityEvent) -> bool:
        """Whether another source reports the Asterisk of a log line now, so that the line needs confirmation.

        Such a source is AMI, or the packets that the kernel copies. For chan_sip only the packets count,
        because chan_sip's events in AMI may name any address.
        """
        asterisk = event.source.asterisk
        sources = self.sources
        if asterisk not in (sources.several if sources.corroborated is None else sources.corroborated):
            return False
        by_ami = self._listening is None or (event.service is not _SIP and asterisk in self._listening)
        return self.wire_sees_all or by_ami

    def queries(self, event: SecurityEvent, now: float) -> Iterator[Query]:
        """Yield the TCP connections (remote end and least bytes) to look up before ``event`` is handled.

        A report that another source has made before is a duplicate and needs none. This matters: the kernel
        takes the time of several guesses for its list.
        """
        for reading in event.readings:
            yield reading.remote, least_bytes(reading.service)
        remote, role = event.remote, role_of(event)
        corroborated = event.source.text and self._is_corroborated(event)
        if event.readings or remote.transport is _UDP or role in (Role.CHALLENGE, Role.NONE):
            return
        if (remote.transport is Transport.UNKNOWN or role is Role.SUCCESS) and not corroborated:
            return
        if remote.port and not self._senders.is_reported(event, now):
            yield remote, least_bytes(event.service)

    def confirms_login(self, event: SecurityEvent, now: float) -> bool:
        """Whether to believe the address in the log line of a login.

        A challenge to this address, or its TCP connection, must confirm the line, unless only logs report
        this Asterisk now.
        """
        if not self._is_corroborated(event):
            return True
        seen = self.sees_wire and bool(event.session) and self._was_challenged(event, now)
        return seen or self._backing.confirms(event.remote, event.service, now)

    def confirmed(self, attempt: Attempt, event: SecurityEvent, now: float) -> Attempt | None:
        """Return the attempt with the address and proof that a copied packet or a TCP connection confirms.

        Return None if neither confirms it.
        """
        by_stream = self.is_of_stream(attempt) and not event.source.text and event.service is not _SIP
        seen = None
        if self.sees_wire and not by_stream:
            seen = self._confirmed_by_wire(attempt, event, now)
        if seen is not None:
            return seen
        if self._backing.confirms(event.remote, event.service, now):
            transport = Transport.TCP if attempt.transport is Transport.UNKNOWN else attempt.transport
            return evolve(attempt, trusted=True, transport=transport, proof=_HANDSHAKE)
        return None

    def _confirmed_by_wire(self, attempt: Attempt, event: SecurityEvent, now: float) -> Attempt | None:
        service = event.service
        if service is _SIP and event.challenge:
            came_back = event.kind is EventKind.INVALID_PASSWORD and bool(event.response)
            settled = self._nonces.settled(attempt, event.challenge, now, came_back=came_back)
            return settled if settled is not attempt else None
        if service is _PJSIP and event.session:
            asked = self._conversations.has_asked(attempt.address, event.session, now)
            seen = asked or self._was_challenged(event, now)
        else:
            seen = service in (_SIP, _PJSIP) and self._answers.confirms(event, now)
        if not seen:
            return None
        claim = evolve(attempt, trusted=True, transport=_UDP, proof=_CLAIMED)
        return self._nonces.settled(claim, event.challenge, now)

    def _was_challenged(self, event: SecurityEvent, now: float) -> bool:
        """Whether a challenge by UDP for the address and Call-ID of ``event`` left within ``LIFE`` seconds.

        If ``event`` reports a wrong password, a challenge that answers only requests without credentials does
        not count.
        """
        address, call_id = event.remote.address, event.session
        if event.kind in _ABOUT_PASSWORDS and self._conversations.only_questions(address, call_id, now):
            return False
        session = self._senders.find_session(address, call_id)
        return session is not None and now - session.challenged < LIFE

    def would_have_been_seen(self, event: SecurityEvent, now: float) -> bool:
        """Whether an unconfirmed log line is certainly forged: another source would have seen its attempt.

        A line about a request by UDP is forged, because the kernel would have copied the challenge of a true
        attempt. Any other line is forged if the kernel knows that the address had no connection. Return False
        while copies of challenges may be missing, and for a line older than ``LIFE``, such as one from before
        the start of the daemon, or a question that counts late: its challenge may be forgotten.
        """
        if not self.sees_wire or not self.wire_sees_all or now - self.lost_at < BLIND:
            return False
        if self.happened(event) < now - LIFE:
            return False
        return event.remote.transport is _UDP or self._backing.excludes(event.remote.address, now)

    def take_overdue(self, event: SecurityEvent, now: float) -> bool:
        """Return whether a report comes too late to be matched with the same attempt of a faster source.

        Such a report is left out. An attempt of this sender that only other sources have reported then counts
        as reported by AMI too. A report is too late after ``HORIZON`` seconds, or if its sender's sessions of
        that time were discarded early. Copied packets are faster than AMI, and AMI is faster than the log. In
        addition, one of these must hold. Other sources have reported attempts of this sender that AMI has not
        (for a report of AMI). The kernel has copied a request of this sender since, so it copies all of them
        to the wire's Asterisk. AMI was connected at the time of a log line. (AMI does not report every
        attempt at chan_sip.) A packet, and a call to an unknown extension of PJSIP, never come too late.
        """
        happened = self.happened(event)
        # Only the log reports a call to an unknown extension of PJSIP, so there is no faster source.
        if event.source.name == WIRE or (event.service is _PJSIP and role_of(event) is Role.PROBE):
            return False
        if happened > max(now - HORIZON, self._senders.forgotten_until(event.remote.address)):
            return False
        by_ami = event.source.name == AMI
        unreported = by_ami and self._senders.take_unreported(event.remote.address, now)
        overdue = unreported or self._is_for_faster(event, happened)
        if overdue:
            self._senders.leave_out(event)
        return overdue

    def _is_for_faster(self, event: SecurityEvent, happened: float) -> bool:
        """Whether a faster source reports an attempt that ``happened`` then, if ``event`` is true.

        The wire reports no guess that gets no answer and repeats no nonce of Asterisk. Then AMI's event
        counts, once for each such guess (:meth:`~.conversation.Conversations.take_silent`).
        """
        on_wire = event.source.asterisk == self.wire_asterisk and event.remote.transport in DATAGRAMS
        if on_wire and self.lost_at < happened:
            sender = self._senders.find(event.remote.address)
            if sender is not None and sender.asked > happened - _SECOND:
                take = self._conversations.take_silent
                return event.source.text or not take(event.remote.address, event.session)
        since = (self._listening or {}).get(event.source.asterisk)
        return event.source.text and event.service is _PJSIP and since is not None and since < happened

    def is_retold(self, line: SecurityEvent, confirmed: Attempt, now: float) -> bool:
        """Whether a log line about a connection comes too late to be matched, and its attempt has counted.

        ``confirmed`` is the attempt that the line reports. AMI and the copied packets do not show each guess
        by a connection. So one of them must have reported as many attempts of this session as the log has,
        and one of these at the time of the line or later.
        """
        of_log = line.source.text and line.service is _PJSIP
        if not of_log or role_of(line) is Role.PROBE or not self.is_of_stream(confirmed):
            return False
        if self.happened(line) > now - HORIZON or self._senders.is_reported(line, now):
            return False
        return self._senders.others_report_as_many(line, line.time - _SECOND)

    def with_proof(self, attempt: Attempt, event: SecurityEvent, now: float) -> Attempt:
        """Return ``attempt``, whose address is reliable, with the best known proof of this address."""
        if self.sees_wire:
            attempt = self._nonces.settled(attempt, event.challenge, now)
        return self.in_session(attempt, event, now)

    def in_session(self, attempt: Attempt, event: SecurityEvent, now: float) -> Attempt:
        """Return ``attempt``, with the proof NONCE if an answered challenge has proven its session.

        Only the sender knows the Call-ID of a session, so no other sender can add attempts to it. In a
        replay, an attempt without a proof gets the proof ``assumed`` of :class:`KnownSources` instead.
        """
        if self.sources.assumed is not _CLAIMED and attempt.trusted and attempt.proof is _CLAIMED:
            return evolve(attempt, proof=self.sources.assumed)
        if not self.sees_wire or attempt.proof is _NONCE or not has_session(attempt):
            return attempt
        session = self._senders.find_session(attempt.address, event.session)
        proven = session is not None and now - session.proven < SESSION_LIFE
        return evolve(attempt, proof=_NONCE) if proven else attempt


def has_session(attempt: Attempt) -> bool:
    """Whether a proof of the attempt's session also proves the attempt.

    That is so for an attempt by UDP, if it is of PJSIP, or if a copied packet showed it first.
    """
    return attempt.transport is _UDP and (attempt.service is _PJSIP or attempt.event in _BY_WIRE)
