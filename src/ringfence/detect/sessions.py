"""Senders and their sessions, and how security events become attempts.

A session has the requests of one sender with one session id, and the reports of every source about them.

A session has separate numbers for each Asterisk, source, service and transport, because a sender may use one
Call-ID at several. The wire (challenges that leave this host, copied by the kernel) names no Asterisk. So its
reports match the attempts of any Asterisk. An attempt that the wire reports first belongs to the Asterisk
whose AMI or log reports it next.

**Events become reports.** One attempt causes one to eleven security events, so events cannot be counted. The
following rules were found by experiment on recordings of real servers, and are exact on all of them. For
each source there are three numbers, which start at zero (:class:`Reports`):

    opener:     if half: n += 1, owed += 1;   half = true
    challenge:  if half: half = false, n += 1, owed += 1
    failed:     half = false;   if owed: owed -= 1 else n += 1
    failed, for another account than the openers':
                if half: n += 1;   half = false, n += 1
    reported = n + (1 if half and owed == 0 else 0)

An *opener* is the first event of a request that cannot succeed (unknown account, ACL) and that counts: most
such requests are only *questions* without credentials, and change nothing here (``questions``). ``half`` is
true until this request ends, for which a *challenge* is enough. The answer to that challenge is *owed* until
a *failed* reports that the answer was wrong. Each time ``reported`` grows, this source reports one more
attempt. So there are four states, and ``+`` marks the events that report:

    half  owed  state   opener    challenge  failed
    no    0     idle    open  +   idle       idle +
    yes   0     open    both      owing      idle
    no    1..   owing   both      owing      owing, or idle after the last answer
    yes   1..   both    both  +   owing  +   owing, or idle after the last answer

In the state *idle*, an opener reports at once, because the sender may never answer the challenge. So the
events that complete this request report nothing: the challenge, its wrong answer, or the opener of the same
request with credentials. A wrong answer for another account than the openers' reports an attempt of its own.
So, within the reports of one source, a request for an account that does not exist hides no guess.

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
younger than ``HORIZON`` and that neither this source nor another Asterisk has reported yet. If there is none,
the attempt is new and counts at once. So the number of attempts at one Asterisk is the highest number that
any one source reports within the horizon: no attempt counts twice, and one source can report what another
misses. Sources that do not name the same session share a session by the kind of failure
(:func:`shared_session_id`). Two reports match only if both requests came by UDP, or both by a connection
(TCP, TLS, WebSocket). At chan_sip, both must be encrypted or neither: it does not report each guess that the
wire shows, so a failure by TLS must not excuse a guess by TCP. A report that names no transport matches any.

This decides only how many attempts there are: a report may match the attempt of another request. So no report
of another request decides at which account an attempt counts (:func:`fingerprint_in`). Only a stranger's
attempt may turn into one at an unknown account, because it counts as much there.

The horizon is short, because one source may report attempts that another misses. With a long horizon, later
reports of the other source would match these old attempts, instead of counting as new ones. 10 s is more than
three times the longest observed delay of a log line. A report matches the oldest attempt first, so one number
for each source shows which open attempts it has reported.

A report may also be read late: ``HORIZON`` seconds or more after its own time. If it does not name the same
session as the other sources, it first matches a *closed* attempt (one older than the horizon): the oldest one
of its own time and account that its source has not reported.
"""

import enum
from collections import OrderedDict, deque
from collections.abc import Iterator
from functools import cache, lru_cache
from ipaddress import IPv4Address, IPv6Address
from math import inf
from typing import TypeVar

from attrs import Factory, define

from ringfence.values.attempt import Attempt, AttemptKind, Proof
from ringfence.values.event import (
    AMI,
    DATAGRAMS,
    WIRE,
    EventKind,
    SecurityEvent,
    Service,
    SourceId,
    Transport,
    fingerprint,
)
from ringfence.values.fast import evolve
from ringfence.values.network import Address, is_one_host, sender_key

# -- what a single event shows: its role in a session, its attempt, and how sure its address is


UNKNOWN_ACCOUNT = "<unknown>"
"""PJSIP's name for an account that does not exist, in the events of its challenge and its refusal."""

AddressKey = int | bytes
"""An address as a dictionary key: :func:`address_key`."""

_K = TypeVar("_K")
_V = TypeVar("_V")


class Role(enum.Enum):
    """What an event means in its session (the requests with one Call-ID): for instance a failure."""

    QUESTION = enum.auto()  # a request that cannot succeed, and may have no credentials (``questions``)
    OPENER = enum.auto()  # a question that counts
    CHALLENGE = enum.auto()  # Asterisk sent a challenge
    FAILED = enum.auto()  # a guess failed
    HALF = enum.auto()  # one of two equal events of a request, such as those of IAX2 about an unknown peer
    PROBE = enum.auto()  # such as a call of an extension that does not exist
    SUCCESS = enum.auto()
    NONE = enum.auto()  # the event belongs to no attempt


# The key is the service, the kind of event and, for FailedACL, the name of the ACL. Events without a row here
# belong to no attempt: limits, bad formats, and events about an authenticated phone (`registrar_*`).
_ROLES: dict[tuple[Service, EventKind, str], Role] = {
    (Service.PJSIP, EventKind.INVALID_ACCOUNT_ID, ""): Role.QUESTION,
    (Service.PJSIP, EventKind.FAILED_ACL, "not_match_endpoint_acl"): Role.QUESTION,
    (Service.PJSIP, EventKind.FAILED_ACL, "not_match_endpoint_contact_acl"): Role.QUESTION,
    (Service.PJSIP, EventKind.CHALLENGE_SENT, ""): Role.CHALLENGE,
    (Service.PJSIP, EventKind.CHALLENGE_RESPONSE_FAILED, ""): Role.FAILED,
    (Service.PJSIP, EventKind.SUCCESSFUL_AUTH, ""): Role.SUCCESS,
    (Service.PJSIP, EventKind.HIDDEN, ""): Role.OPENER,
    (Service.PJSIP, EventKind.REFUSED, ""): Role.FAILED,
    (Service.PJSIP, EventKind.DIVERTED, ""): Role.FAILED,
    (Service.PJSIP, EventKind.FAILED_ACL, "no_extension_match"): Role.PROBE,
    (Service.SIP, EventKind.CHALLENGE_SENT, ""): Role.CHALLENGE,
    (Service.SIP, EventKind.INVALID_PASSWORD, ""): Role.FAILED,
    (Service.SIP, EventKind.CHALLENGE_RESPONSE_FAILED, ""): Role.FAILED,
    (Service.SIP, EventKind.INVALID_ACCOUNT_ID, ""): Role.FAILED,
    (Service.SIP, EventKind.INVALID_TRANSPORT, ""): Role.FAILED,
    (Service.SIP, EventKind.FAILED_ACL, "domain_must_match"): Role.FAILED,
    (Service.SIP, EventKind.FAILED_ACL, "peer_not_dynamic"): Role.FAILED,
    (Service.SIP, EventKind.FAILED_ACL, "device_must_match_acl"): Role.HALF,
    (Service.SIP, EventKind.FAILED_ACL, "no_extension_match"): Role.PROBE,
    (Service.SIP, EventKind.FAILED_ACL, "hacking_attempt"): Role.PROBE,
    (Service.SIP, EventKind.SUCCESSFUL_AUTH, ""): Role.SUCCESS,
    (Service.SIP, EventKind.HIDDEN, ""): Role.FAILED,
    (Service.SIP, EventKind.REFUSED, ""): Role.FAILED,
    (Service.SIP, EventKind.DIVERTED, ""): Role.FAILED,
    (Service.AMI, EventKind.INVALID_ACCOUNT_ID, ""): Role.FAILED,
    (Service.AMI, EventKind.INVALID_PASSWORD, ""): Role.FAILED,
    (Service.AMI, EventKind.CHALLENGE_RESPONSE_FAILED, ""): Role.FAILED,
    (Service.AMI, EventKind.FAILED_ACL, ""): Role.FAILED,
    (Service.AMI, EventKind.SUCCESSFUL_AUTH, ""): Role.SUCCESS,
    (Service.IAX2, EventKind.INVALID_ACCOUNT_ID, ""): Role.HALF,
    (Service.IAX2, EventKind.INVALID_PASSWORD, ""): Role.FAILED,
    (Service.IAX2, EventKind.FAILED_ACL, "device_must_match_acl"): Role.FAILED,
    (Service.IAX2, EventKind.FAILED_ACL, "peer_not_dynamic"): Role.FAILED,
    (Service.IAX2, EventKind.FAILED_ACL, "connect_rejected"): Role.PROBE,
    (Service.IAX2, EventKind.FAILED_ACL, "no_extension_match"): Role.PROBE,
    (Service.DIALPLAN, EventKind.FAILED_ACL, "unknown_sip_connection"): Role.PROBE,
    (Service.DIALPLAN, EventKind.FAILED_ACL, "unknown_peer"): Role.PROBE,
    (Service.DIALPLAN, EventKind.FAILED_ACL, "hacking_attempt"): Role.PROBE,
}
# Module-level aliases: enum member lookups are slow in the per-event hot path.
_QUESTION = Role.QUESTION
_OPENER, _CHALLENGE, _FAILED, _HALF = Role.OPENER, Role.CHALLENGE, Role.FAILED, Role.HALF
_PROBE, _SUCCESS, _NONE = Role.PROBE, Role.SUCCESS, Role.NONE
_UDP, _TCP, _TLS, _UNKNOWN = Transport.UDP, Transport.TCP, Transport.TLS, Transport.UNKNOWN
_ENCRYPTED = (Transport.TLS, Transport.WSS)
_FAILED_ACL, _PJSIP, _SIP, _AMI = EventKind.FAILED_ACL, Service.PJSIP, Service.SIP, Service.AMI
_WRONG_ANSWER, _INVALID_PASSWORD = EventKind.CHALLENGE_RESPONSE_FAILED, EventKind.INVALID_PASSWORD
_NAMING = (Service.PJSIP, Service.SIP)  # services whose log lines name the account of the caller
_STRANGER = "anonymous"
_SESSION_BITS = 0xFFFFFFFF
_KINDS = dict.fromkeys(Role, AttemptKind.GUESS) | {_PROBE: AttemptKind.PROBE}


def role_of(event: SecurityEvent) -> Role:
    """Return what ``event`` means in its session: for instance a challenge, a failure or a success.

    A message is never a success if text of the sender has broken its form (``tampered``).

    An administrator can add patterns for log lines (``parse/custom.py``). Their events are of the service
    DIALPLAN, with an ACL name that is not in ``_ROLES``. Such an event has the role FAILED. If a log line
    names a caller that has an account and dials an unknown number, the role is NONE: the caller has only
    misdialled.
    """
    if event.kind is not _FAILED_ACL:  # nearly all events
        role = _ROLES.get((event.service, event.kind, ""), _NONE)
        if role is _OPENER and event.kind is EventKind.HIDDEN and event.response:
            return _FAILED
        return _NONE if event.tampered and role is _SUCCESS else role
    other = Role.FAILED if event.service is Service.DIALPLAN else Role.NONE
    role = _ROLES.get((event.service, event.kind, event.acl_name), other)
    named = role is Role.PROBE and event.source.notices and event.service in _NAMING
    return Role.NONE if named and not _is_stranger(event.account) else role


def _is_stranger(account: str) -> bool:
    """Whether ``account``, as a log line names it, stands for an unknown caller.

    PJSIP treats an unknown caller as the endpoint ``anonymous@DOMAIN``, or else ``anonymous``
    (``res/res_pjsip_endpoint_identifier_anonymous.c``).
    """
    return not account or account == _STRANGER or account.startswith(f"{_STRANGER}@")


def proof_of(event: SecurityEvent) -> Proof:
    """Return how well one event alone verifies its address.

    Text verifies no address: the sender may have chosen the address in a log line, or in an AMI packet that
    breaks Asterisk's grammar. A connection to a proxy of this host verifies no client. Otherwise a handshake
    verifies the address, except under chan_sip, which believes a Via ``maddr`` on TCP too
    (``channels/chan_sip.c:check_via``).
    """
    source = event.source
    if event.tampered or event.forgeable or event.relayed or source.text:
        return Proof.CLAIMED
    if source.name == WIRE and event.remote.transport is not Transport.UDP:
        return Proof.HANDSHAKE  # the answer was sent through the sender's own connection
    return _proof(event.service, event.remote.transport)


@cache
def _proof(service: Service, transport: Transport) -> Proof:
    if service is Service.AMI:
        return Proof.HANDSHAKE
    shaken = transport not in (Transport.UDP, Transport.UNKNOWN)
    return Proof.HANDSHAKE if shaken and service is Service.PJSIP else Proof.CLAIMED


def is_trusted(event: SecurityEvent) -> bool:
    """Whether the sender cannot have chosen the address in an event, as far as the event shows.

    Return False for a forgeable event, and for a security event of chan_sip: it may name any address that the
    sender writes into a Via ``maddr``. chan_sip's NOTICE lines name the true source. So do reports of the
    wire, which come from Asterisk's own answer.
    """
    if event.forgeable:
        return False
    return event.service is not Service.SIP or event.source.notices or event.source.name == WIRE


def session_id(event: SecurityEvent) -> bytes:
    """Return the session id (SIP: the Call-ID) of an event as a key; b"" without one.

    Log lines name no session. For some of them the port or the account is used instead; for the others the
    result is empty.
    """
    session = event.session
    if session:  # nearly all events
        return session
    if event.service is Service.IAX2:
        return b"account %d" % hash(event.account)
    if event.acl_name == "device_must_match_acl":
        return b"port %d" % event.remote.port
    return session


def shared_session_id(event: SecurityEvent) -> bytes:
    """Return a session id that is the same in all sources' reports of one attempt.

    PJSIP's sources all name the Call-ID. For the other services, a log names no session, or the sources name
    different ones. So all failures of one kind share one id. For chan_sip, a refusal by an ACL is of the same
    kind as a guess.
    """
    if event.service is Service.PJSIP:
        return event.session
    if event.service is Service.AMI:
        return b""  # one id for all kinds: the sources name different kinds for one failure
    if event.service is _SIP and event.acl_name != "no_extension_match":
        return b"guess"  # also for an ACL's refusal: with alwaysauthreject, the wire sees the same answers
    return f"{event.kind}/{event.acl_name}".encode()


def attempt_from(
    event: SecurityEvent,
    kind: AttemptKind,
    asked: tuple[str, EventKind, str] | None = None,
    credentials: bool = True,  # noqa: FBT001, FBT002 - keyword arguments would make each event a tenth slower
) -> Attempt:
    """Return the attempt that an event reports, with the facts that this event alone shows.

    ``asked`` is the Asterisk, kind and account of the earlier request without credentials in its session. A
    guess there at an unknown account takes the last two from it. So does one at the same account, if the
    source names the account that the sender wrote: Asterisk's events name the one that it has checked. The
    account of a hidden guess may be any text. ``credentials``: the guess may have had some.
    """
    remote, service, source = event.remote, event.service, event.source
    reported, account = event.kind, event.account
    if asked is not None and asked[0] == source.asterisk and reported is not EventKind.HIDDEN:
        written = source.notices or source.name == WIRE
        if account == UNKNOWN_ACCOUNT or (written and account == asked[2]):
            _, reported, account = asked
    return Attempt(
        source.asterisk,
        remote.address,
        AttemptKind.MANAGER if service is _AMI else kind,
        proof_of(event),
        service,
        remote.transport,
        account,
        reported,
        event.time,
        is_trusted(event),
        event.tampered,
        None,
        hash(event.session) & _SESSION_BITS,  # as session_number
        (source.name,),
        credentials,
        False,  # noqa: FBT003 - as above
        event.evidence,
    )


def fingerprint_in(event: SecurityEvent) -> int:
    """Return the fingerprint of the guess that an event reports; 0 if it is unknown.

    The copy of a guess has one. So does AMI's event of a wrong password: it shows the nonce and the response
    in the guess. (chan_sip's other events show the nonce that Asterisk has sent.) Text shows none: a sender
    can write both.
    """
    if event.source.name == WIRE:
        return event.fingerprint
    if event.source.text or event.tampered or event.forgeable:
        return 0
    shows = event.kind is _INVALID_PASSWORD or (event.kind is _WRONG_ANSWER and event.service is _PJSIP)
    return fingerprint(event.challenge, event.response) if shows else 0


def session_number(session: bytes) -> int:
    """Return a number for a session id, valid while this process runs; 0 for b""."""
    return hash(session) & _SESSION_BITS


def address_key(address: Address) -> AddressKey:
    """Return an address as a fast dictionary key: hashing an address object takes 0.3 µs.

    An IPv4 address is an integer. Attackers could choose integers of 128 bits whose hashes collide, so an
    IPv6 address is bytes.
    """
    return int(address) if isinstance(address, IPv4Address) else address.packed


def remember(table: OrderedDict[_K, _V], key: _K, value: _V, most: int) -> None:
    """Store ``value`` as the latest entry. Discard the oldest if ``table`` then has more than ``most``."""
    table[key] = value
    table.move_to_end(key)
    if len(table) > most:
        table.popitem(last=False)


# -- reports of one source, and the attempts of a session


HORIZON = 10.0
"""The greatest age (seconds) at which an attempt may be the one that another source reports."""

FORGET = 32.0
"""Seconds (of a source's own time) without an event after which the source's counts start at zero."""

MOST_ATTEMPTS = 1_024
"""The maximum number of attempts in ``Attempts.open``. The oldest are discarded first."""

MOST_CLOSED = 64
"""The maximum number of attempts in ``Attempts.closed``. A late report of a forgotten one counts again."""

MOST_ASKED = 16
"""The maximum number of accounts in ``Reports.asked``. A forgotten one's wrong answer counts once more."""

# The least and the greatest time (seconds) from a wrong answer to its retransmission. By RFC 3261 these are
# T1 (0.5 s, but less in some phones) and 64 * T1.
_REPEAT_SOONEST, _REPEAT_LATEST = 0.3, 32.0


@define
class Reports:
    """Counts one source's events about one service (such as PJSIP) in a session.

    ``reported`` is the number of attempts that these events have shown. ``half``: the first event of a
    request that cannot succeed came, and nothing else of this request yet. ``n`` is the number of attempts
    without this request. For ``owed`` of them an event may follow that reports a wrong answer. (The head of
    this file has the rules.) ``seen`` is the source's own time of its latest event, in seconds since the
    epoch. ``halves`` counts the events with the role HALF, of which two are one attempt. ``challenged``: a
    challenge was reported, so the sender has an account. ``answer`` is a hash of the latest wrong answer to a
    challenge, which came at ``answered_at``. ``nonce`` is a hash of the nonce in chan_sip's latest challenge,
    0 if another event followed. ``challenge_for`` is the account in the latest challenge: the caller's URI if
    that answers a call at chan_sip. ``asked`` has hashes of the accounts of the latest openers that no wrong
    answer has followed, the oldest first.
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
    challenge_for: str = ""
    asked: list[int] | None = None

    def record_wrong_answer(self, event: SecurityEvent) -> bool:
        """Record a failure; return whether it may be a retransmission of the one before.

        Return False for a failure that completes an earlier request, because such a failure does not
        count anyway.
        """
        previous, age = self.answer, event.time - self.answered_at
        self.answer, self.answered_at = hash((event.challenge, event.response)), event.time
        if previous != self.answer or self.owed or self.half or not (event.challenge and event.response):
            return False
        return _REPEAT_SOONEST <= age <= _REPEAT_LATEST

    def advance(self, role: Role, event: SecurityEvent) -> bool:
        """Handle an event with ``role``; return whether its source now reports one more attempt."""
        fails = event.service is _SIP and self._fails_by_challenge(role, event.challenge)
        if role is _OPENER:
            if self.half:
                self.n += 1
                self.owed += 1
            self.half = True
            self.asked = [*(self.asked or ())[1 - MOST_ASKED :], hash(event.account)]
        elif role is _CHALLENGE and not fails:
            self.challenged = True
            self.challenge_for = event.account
            if self.half:
                self.half = False
                self.n += 1
                self.owed += 1
        elif role is _HALF:
            self.halves += 1
        else:
            answers = not self.asked or _take_answered(self.asked, event)
            if self.half and not answers:
                self.n += 1
            self.half = False
            if self.owed and answers:
                self.owed -= 1
            else:
                self.n += 1
        reported = self.n + (self.half and not self.owed) + (self.halves + 1) // 2
        if reported <= self.reported:
            return False
        self.reported = reported
        return True

    def of_caller(self, event: SecurityEvent) -> SecurityEvent:
        """Return a failure with the caller's URI as its account, if it names the dialled number instead.

        So chan_sip reports a call with a wrong password (``channels/sip/security_events.c``). The URI works
        at no address: a sender may write another caller into its answer to the challenge.
        """
        named = event.kind is EventKind.INVALID_PASSWORD and ":" in self.challenge_for
        return evolve(event, account=self.challenge_for) if named else event

    def _fails_by_challenge(self, role: Role, nonce: bytes) -> bool:
        """Record the ``nonce`` of chan_sip's challenge; return whether it shows that a guess failed before.

        An event with another ``role`` than a challenge shows that the last challenge was answered.
        """
        if role is not _CHALLENGE:
            self.nonce = 0
            return False
        before, self.nonce = self.nonce, hash(nonce) if nonce else 0
        return before not in (0, self.nonce)


def _take_answered(asked: list[int], guess: SecurityEvent) -> bool:
    """Whether a wrong answer may be that of an opener; remove the opener's account from ``asked`` then.

    They must have the same account. An answer that names no account, as PJSIP's for one that does not exist,
    fits any opener. So does that of a copied packet, which may name another account than Asterisk's events.
    """
    account = guess.account
    if account in (UNKNOWN_ACCOUNT, "") or guess.source.name == WIRE:
        return True
    known = hash(account)
    if known in asked:
        asked.remove(known)
        return True
    return False


_ANY = ""
"""The Asterisk of an attempt that only copied packets have reported: they name none."""

_COPIED = SourceId(_ANY, WIRE)


@define
class ClosedAttempt:
    """An attempt that is no longer open; ``reporters`` are the sources that have reported it.

    ``at`` is the time of its first report (monotonic seconds), ``tag`` the caller's number for it, and
    ``account`` a hash of the account in that report.
    """

    at: float
    tag: int
    asterisk: str
    account: int
    reporters: list[SourceId]

    def fits(self, source: SourceId, account: int, happened: float, now: float) -> bool:
        """Whether ``source`` may report this attempt at ``now``, for the first time and late.

        The report names ``account`` (a hash), and its own time is ``happened`` (monotonic seconds).
        """
        is_then = abs(self.at - happened) < HORIZON and now - self.at < SESSION_LIFE
        is_same = self.account == account and self.asterisk in (_ANY, source.asterisk)
        return is_then and is_same and source not in self.reporters


@define
class Attempts:
    """The latest attempts of one service in a session, which further sources may report.

    ``open`` holds for each attempt younger than ``HORIZON`` the time of its first report, its tag (the
    caller's number for it), its Asterisk, and a hash of its account, oldest first. Attempts are numbered in
    this order, and ``first`` is the number of the oldest open one. ``reported`` holds for each source the
    number of the next attempt that it has not reported. (``open`` is a list, because there are many sessions
    with one attempt, and an empty deque takes 760 bytes.) ``closed`` has the latest attempts that are no
    longer open, oldest first; None if late reports are recognized in other ways.
    """

    open: list[tuple[float, int, str, int]] = Factory(list)
    reported: dict[SourceId, int] = Factory(dict)
    first: int = 0
    closed: list[ClosedAttempt] | None = None

    def match(self, source: SourceId, now: float) -> int | None:
        """Record a report of ``source``; return the tag (a number) of the known attempt that it is about.

        If the report is about a new attempt, return None.
        """
        self._close(now)
        position = self._next(source)
        self.reported[source] = self.first + position  # those of other Asterisks are passed over once
        if position >= len(self.open):
            return None
        self.reported[source] += 1
        at, tag, asterisk, account = self.open[position]
        self.open[position] = at, tag, asterisk or source.asterisk, account
        return tag

    def match_late(self, source: SourceId, account: int, happened: float, now: float) -> int | None:
        """Record a report that ``source`` makes late, at ``now``; return the tag of its closed attempt.

        That is the oldest one of its account (a hash) and of its own time, ``happened``, that ``source`` has
        not reported. If there is none, return None and record nothing.
        """
        self._close(now)
        for one in self.closed or ():
            if one.fits(source, account, happened, now):
                one.asterisk = one.asterisk or source.asterisk
                one.reporters.append(source)
                return one.tag
        return None

    def _close(self, now: float) -> None:
        """Close the attempts that are ``HORIZON`` seconds old."""
        closed = self._number_closed(now)
        if closed:
            self._drop_oldest(closed)

    def _number_closed(self, now: float) -> int:
        """Return how many of the oldest attempts in ``open`` are ``HORIZON`` seconds old."""
        closed = 0
        while closed < len(self.open) and now - self.open[closed][0] >= HORIZON:
            closed += 1
        return closed

    def is_known(self, source: SourceId, now: float) -> bool:
        """Whether the next report of ``source`` is about an attempt that another source has reported."""
        return self._next(source, self._number_closed(now)) < len(self.open)

    def _next(self, source: SourceId, position: int = 0) -> int:
        """Return the position in ``open`` of the attempt that the next report of ``source`` is about.

        This is the oldest one from ``position`` on that neither ``source`` nor another Asterisk has reported;
        without one, it is the end of ``open``.
        """
        position = max(position, self.reported.get(source, 0) - self.first)
        if source.asterisk != _ANY:
            while position < len(self.open) and self.open[position][2] not in (_ANY, source.asterisk):
                position += 1
        return position

    def add(self, source: SourceId, now: float, tag: int, account: int = 0) -> bool:
        """Add a new attempt, numbered ``tag``, that ``source`` reports at ``now`` (monotonic).

        ``account`` is a hash of its account. Return whether the oldest attempt was discarded for it.
        """
        is_full = len(self.open) >= MOST_ATTEMPTS
        if is_full:
            self._drop_oldest(1)
        self.open.append((now, tag, source.asterisk, account))
        self.reported[source] = self.first + len(self.open)
        return is_full

    def _drop_oldest(self, number: int) -> None:
        """Remove the oldest open attempts. They are closed then, if closed ones are kept."""
        if self.closed is not None:
            for position, one in enumerate(self.open[:number], self.first):
                reporters = [source for source, following in self.reported.items() if following > position]
                self.closed.append(ClosedAttempt(*one, reporters))
            del self.closed[:-MOST_CLOSED]
        del self.open[:number]
        self.first += number

    def number_not_copied(self) -> int:
        """Return how many of the attempts no copied packet has reported."""
        return self.first + len(self.open) - self.reported.get(_COPIED, 0)


class AwaitedReports:
    """By sender, how many attempts still await a report, and the time (monotonic seconds) of the latest one.

    Of more senders than ``most``, those whose attempts are oldest are forgotten.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._numbers: OrderedDict[AddressKey, tuple[int, float]] = OrderedDict()

    def add(self, sender: AddressKey, number: int, at: float) -> None:
        """Add so many attempts of a sender, the latest of which was at ``at``."""
        before, _ = self._numbers.get(sender, (0, at))
        self._numbers[sender] = before + number, at
        self._numbers.move_to_end(sender)
        if len(self._numbers) > self._most:
            self._numbers.popitem(last=False)

    def take(self, sender: AddressKey, since: float) -> bool:
        """Take one attempt of a sender; return whether there was one, and the latest was after ``since``."""
        number, at = self._numbers.pop(sender, (0, since))
        if not number or at <= since:
            return False
        if number > 1:
            self._numbers[sender] = number - 1, at
        return True


@define(eq=False)
class UnconfirmedReport:
    """An attempt whose address must be confirmed; ``event`` reported it at ``at`` (monotonic seconds).

    ``settled``: the report no longer waits for a confirmation.
    """

    at: float
    attempt: Attempt
    event: SecurityEvent
    settled: bool = False


@define(eq=False)
class Session:
    """The requests of a sender with the session id ``name``, last used at ``used`` (monotonic seconds).

    - ``reports``: by Asterisk, source, service and transport.
    - ``attempts``: by service, by their way (:func:`_way_of`), and by whether they are unconfirmed and so
      only listed.
    - ``unconfirmed``: the reports that wait for a confirmation, by whether they are about a password.
      ``unforgeable``: those that no sender can forge.
    - ``challenged``: the time of PJSIP's last challenge by UDP.
    - ``proven``: when a nonce proved the sender.
    - ``asked``: the Asterisk and kind of its latest *question* (request without credentials), and the account
      in it. ``asked_in_log``: the same, of the latest one in a report that a sender can forge (usually a line
      of the log), while AMI is connected. It explains only the log's failures.
    - ``weight``: the greatest weight of its questions (``questions``).
    - ``question``: the latest of the best reports of a question that does not count, and its arrival. No
      sender can forge it.
    - ``bare``: the number of its attempts without credentials that no wrong answer has followed.

    Most sessions need few of these, so tables are created when they are needed.
    """

    name: bytes
    used: float
    reports: dict[tuple[str, str, Service, Transport], Reports] = Factory(dict)
    attempts: dict[tuple[Service, Transport, bool], Attempts] = Factory(dict)
    unconfirmed: dict[bool, list[UnconfirmedReport]] | None = None
    unforgeable: list[UnconfirmedReport] | None = None
    challenged: float = -inf
    proven: float = -inf
    asked: tuple[str, EventKind, str] | None = None
    asked_in_log: tuple[str, EventKind, str] | None = None
    weight: int = 0
    question: tuple[SecurityEvent, float] | None = None
    bare: int = 0


# -- the facts about each remote address, and the one table of senders and their sessions
#
# A :class:`Sender` is one remote address with its sessions. An IPv6 host has a whole /64. So the facts
# about the host (its last login, its forgiven retransmission) are kept with the first address of its /64
# (:func:`host_of`). *Forgiven* means that a repeated failure counts as no attempt, because it may be a
# retransmission.
#
# The counts of the rules belong to the *subject* of an address, for up to a day: its attempts
# (``history``), its claimed bans (``judge``) and its failures as a friend (``friend_attempts``).
#
# Bounds: 32 768 sessions, at most a quarter of them of one sender; 16 384 senders of which nothing is
# proven, and as many others. A forged datagram creates a sender at no cost. So senders of which
# nothing is proven are discarded first, with their sessions: those used longest ago. If there is none, the
# oldest session is discarded. Both are counted in ``evicted``. If a session is discarded early, too many
# attempts may be counted, and evidence against its sender may be lost. If a sender is discarded early, it
# is unknown whether a retransmission of it was already forgiven. A second one could be forgiven, and too
# few attempts would be counted. So for ten minutes after that, no retransmission of any sender is forgiven.
#
# Expiry: a session is discarded when it was not used for ``SESSION_LIFE``, a sender when it has no session
# and no fact that is still needed (``until``). Times are monotonic seconds.


MAX_SESSIONS = 32_768
"""The greatest number of sessions. A session takes 2 kB with its sender."""

_SENDER_SHARE = 4  # one sender has at most a quarter of all sessions
_SENDERS_SHARE = 2  # at most half as many senders as sessions of which nothing is proven, and of others

SESSION_LIFE = 64.0
"""Seconds without use after which a session is discarded: twice as long as PJSIP accepts a nonce."""

UNREPORTED_FOR = 600.0
"""Seconds for which attempts count as not reported by AMI, which an overloaded machine reads minutes late."""

FORGIVE_AGAIN = 600.0
"""The minimum seconds between two failures of a host that are ignored as retransmissions."""

MOST_REGISTERED = 64
"""The maximum number of accounts in ``Sender.registered``: the phones of an office share one address."""


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
    """A remote address, its sessions, and what is known about the address.

    ``proven``: something came from the address that no other sender can forge. ``until``: the facts below are
    needed until this time. All times are monotonic seconds.

    - ``forgiven``: by source, when its report of a failure was last ignored as a retransmission.
    - ``asked``: the arrival of its latest request that the kernel copied.
    - ``succeeded``: the host's last login that AMI reported.
    - ``unread``: when its latest TCP connection became unread. ``refused``: the refusals of requests that
      are not known.
    - ``registered``: the accounts of the latest accepted registrations that the wire saw and proved, and when
      each was accepted last.
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
    asked: float = -inf
    succeeded: float = -inf
    unread: float = -inf
    refused: int = 0
    registered: OrderedDict[str, float] | None = None
    diverted: float = -inf
    lines: LineCounts | None = None
    answers: dict[tuple[Service, bool], list[float]] | None = None
    """The times of SIP answers (see above), in lists: forged senders are many, a deque takes 760 bytes."""
    waiting: dict[int, deque[UnconfirmedReport]] | None = None

    def keep(self, until: float) -> None:
        """Keep the sender at least until ``until``, because a fact about it is needed until then."""
        self.until = max(self.until, until)

    def is_needed(self, now: float) -> bool:
        """Whether the sender must be remembered: it has a session, or a fact that is needed at ``now``."""
        return bool(self.sessions) or self.until > now or now - self.used < SESSION_LIFE


class Senders:
    """All senders and their sessions. ``evicted`` counts those discarded early.

    It has more than twenty methods because senders and their sessions expire and are evicted together.
    """

    def __init__(self, max_sessions: int = MAX_SESSIONS) -> None:
        self.evicted = 0
        self._max_sessions = max_sessions
        self._max_senders = max(1, max_sessions // _SENDERS_SHARE)
        self._max_sessions_of_sender = max(1, max_sessions // _SENDER_SHARE)
        self._claimed: OrderedDict[AddressKey, Sender] = OrderedDict()
        self._proven: OrderedDict[AddressKey, Sender] = OrderedDict()
        self._sessions: OrderedDict[Session, Sender] = OrderedDict()  # those used longest ago first
        self._expire_at = -inf  # no session expires before this time
        self._evicted_at = -inf
        # By sender, the latest use (monotonic seconds) of a session that was discarded before ``HORIZON``,
        # and the greatest of those that are no longer in this table.
        self._forgotten: OrderedDict[AddressKey, float] = OrderedDict()
        self._others_forgotten = -inf
        self._latest: Sender | None = None  # the sender used last
        # The attempts that others have reported and AMI has not, and those of sessions discarded early that
        # no copied packet has. A sender with many sessions may be evicted before these reports come.
        self._unreported = AwaitedReports(self._max_senders)
        self._not_copied = AwaitedReports(self._max_senders)

    def __len__(self) -> int:
        """Return the number of sessions."""
        return len(self._sessions)

    @property
    def senders(self) -> int:
        """The number of senders (addresses) that are remembered."""
        return len(self._claimed) + len(self._proven)

    # -- looking up -------------------------------------------------------------------------------------

    def find(self, address: Address) -> Sender | None:
        """Return the sender at ``address``, None if it is unknown."""
        key = address_key(address)
        return self._claimed.get(key) or self._proven.get(key)

    def sender_at(self, address: Address, now: float, sender: Sender | None = None) -> Sender:
        """Return the sender at ``address``, created if needed, and mark it as used at ``now``.

        ``sender`` is the result of :meth:`find`, if the caller has called it.
        """
        sender = sender or self.find(address)
        if sender is None:
            if len(self._claimed) >= self._max_senders:
                self.expire(now)
            if len(self._claimed) >= self._max_senders:
                self._evict(self._claimed, now)
            key = address_key(address)
            sender = self._claimed[key] = Sender(key, now)
        self._use(sender, now)
        return sender

    def _use(self, sender: Sender, now: float) -> None:
        """Mark a sender as used at ``now``; discard expired sessions and senders."""
        sender.used = now
        self._latest = sender
        (self._proven if sender.proven else self._claimed).move_to_end(sender.key)
        if now >= self._expire_at:
            self.expire(now)

    def find_session(self, address: Address, session: bytes) -> Session | None:
        """Return the session of ``address`` with the id ``session``, None if it is unknown."""
        sender = self.find(address)
        return sender.sessions.get(session) if sender is not None else None

    def session(self, address: Address, session: bytes, now: float) -> Session:
        """Return the session of ``address`` with the id ``session``, created if needed; it is used now."""
        return self._session_of(self.sender_at(address, now), session, now)

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
        """Mark a session as used at ``now``, or at the arrival of a report that waited, which is earlier.

        In each table, the sessions used longest ago come first.
        """
        session.used = max(session.used, now)
        self._sessions.move_to_end(session)
        if len(sender.sessions) > 1:
            sender.sessions[session.name] = sender.sessions.pop(session.name)

    def record_proof(self, address: Address, now: float) -> Sender:
        """Record that something came from ``address`` that no other sender can forge; return the sender."""
        sender = self.sender_at(address, now)
        if not sender.proven:
            sender.proven = True
            self._proven[sender.key] = self._claimed.pop(sender.key)
            if len(self._proven) > self._max_senders:
                self._evict(self._proven, now)
        return sender

    # -- reports and attempts ---------------------------------------------------------------------------

    def report(self, event: SecurityEvent, now: float) -> Attempt | None:
        """Handle an event that arrived at ``now`` (monotonic); return the attempt that it reports, or None.

        A request without credentials is handled here only if it counts as an attempt.
        """
        role = role_of(event)
        if role is _NONE:
            return None
        role = _OPENER if role is _QUESTION else role
        source, address, name = event.source, event.remote.address, session_id(event)
        key = source.asterisk, source.name, event.service, event.remote.transport
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
            session = self._session_of(self.sender_at(address, now, sender), name, now)
        else:
            self._use_session(sender, session, now)
            sender.used = now
            if sender is not self._latest:
                self._use(sender, now)
        if reports is None or event.time - reports.seen > FORGET:
            reports = session.reports[_shared(key)] = Reports(event.time)
        reports.seen = event.time
        if role is _FAILED:
            session.question = None  # it was the first request of this guess
            if reports.record_wrong_answer(event) and self._forgive(event, now):
                return None
            event = reports.of_caller(event) if reports.challenge_for else event
        misdialled = role is _PROBE and reports.challenged  # a challenged caller has an account: no probe
        if misdialled or not reports.advance(role, event):
            return None
        bare = (
            role is _PROBE
            or event.kind is EventKind.DIVERTED
            or (role is _OPENER and event.kind is not EventKind.HIDDEN)
        )
        # The sender may have written a question that only the log shows: it explains the log's failures only.
        before = (session.asked_in_log if source.text else None) or session.asked
        return attempt_from(event, _KINDS[role], before if role is _FAILED else None, not bare)

    def _forgive(self, event: SecurityEvent, now: float) -> bool:
        """Whether to ignore a repeated failure, which may be a retransmission.

        For each host and source, only one failure in ten minutes is ignored, and only by UDP. More would be
        wrong, because equal events may report different guesses: if a request has two Authorization headers,
        the event shows the first, but Asterisk checks the second.
        """
        if event.remote.transport is not Transport.UDP or now - self._evicted_at < FORGIVE_AGAIN:
            return False
        host = self.sender_at(host_of(event.remote.address), now)
        if host.forgiven is None:
            host.forgiven = {}
        if now - host.forgiven.get(event.source, -inf) <= FORGIVE_AGAIN:
            return False
        host.forgiven[event.source] = now
        host.keep(now + FORGIVE_AGAIN)
        return True

    def record_report(
        self, event: SecurityEvent, address: Address, now: float, tag: int = 0, happened: float = inf
    ) -> int | None:
        """Record a report of an attempt; return the tag of the attempt if another source has reported it.

        A *tag* is a number by which an attempt is found again. The first report gives the attempt the tag
        ``tag``, and returns None. ``address`` is the sender. ``happened`` is the own time of the event
        (monotonic seconds); inf: it is not late.
        """
        session = self.session(address, shared_session_id(event), now)
        known = self._record(session, event, now, tag, happened, listed=False)
        self._compare(event, address, now, known)
        return known

    def match_report(
        self, event: SecurityEvent, address: Address, now: float, happened: float = inf
    ) -> int | None:
        """Record that ``event`` reports an attempt, but only if another source has already reported it.

        Return the tag of that attempt, or None. ``happened`` is as in :meth:`record_report`.
        """
        session = self.find_session(address, shared_session_id(event))
        if session is None:
            return None
        known = self._match(session, event, now, happened, listed=False)
        if known is not None:
            self._compare(event, address, now, known)
        return known

    def leave_out(self, event: SecurityEvent) -> None:
        """Count the attempt that ``event`` has reported as not reported by its source.

        The report is left out, so it must excuse no guess that a copied packet of the session shows later.
        """
        _, reports = self._reports_of(event)
        if reports is not None:
            reports.n -= 1
            reports.reported -= 1

    def others_report_as_many(self, line: SecurityEvent, since: float) -> bool:
        """Whether AMI or the copied packets have reported as many attempts of a session as the log.

        The session is that of ``line``, which the log has just reported. Only the attempts that came by a
        connection count, and only of a source that has reported since ``since`` (seconds since the epoch).
        """
        session, own = self._reports_of(line)
        if session is None or own is None:
            return False
        return any(
            one.reported >= max(own.reported, 1) and one.seen > since
            for (asterisk, name, service, transport), one in session.reports.items()
            if (name == WIRE or (name == AMI and asterisk == line.source.asterisk))
            and service is line.service
            and transport not in DATAGRAMS
        )

    def _reports_of(self, event: SecurityEvent) -> tuple[Session | None, Reports | None]:
        """Return the session of an event, and what its source has reported of it; None if unknown."""
        session = self.find_session(event.remote.address, session_id(event))
        key = event.source.asterisk, event.source.name, event.service, event.remote.transport
        return session, session.reports.get(key) if session is not None else None

    def _account_in(self, event: SecurityEvent) -> int:
        """Return a hash of the account in a report: the same for each way in which it is written of chan_sip.

        Its events name a caller by a URI or by the dialled number (:meth:`Reports.of_caller`), and copied
        packets by the user in that URI. chan_sip looks an account up by this user.
        """
        if event.service is not _SIP:
            return hash(event.account)
        _, reports = self._reports_of(event)
        account = reports.of_caller(event).account if reports is not None else event.account
        return hash(account.partition("@")[0].removeprefix("sips:").removeprefix("sip:"))

    def is_reported(self, event: SecurityEvent, now: float) -> bool:
        """Whether another source has already reported the attempt of an event. Nothing is recorded."""
        session = self.find_session(event.remote.address, shared_session_id(event))
        tables = _tables(session, event, listed=False) if session is not None else ()
        return any(attempts.is_known(_reporter(event), now) for attempts in tables)

    def record_unconfirmed(self, event: SecurityEvent, address: Address, now: float) -> bool:
        """Record a report of an attempt whose address is unconfirmed.

        Return whether another source has reported it, so that the administrator sees it already.
        """
        session = self.session(address, shared_session_id(event), now)
        return self._record(session, event, now, 0, inf, listed=True) is not None

    def _record(
        self, session: Session, event: SecurityEvent, now: float, tag: int, happened: float, *, listed: bool
    ) -> int | None:
        known = self._match(session, event, now, happened, listed=listed)
        if known is None:
            key = event.service, _way_of(event), listed
            attempts = session.attempts.get(key)
            if attempts is None:
                # PJSIP's reports name a Call-ID, by which ``confirmation`` recognizes late ones. Late reports
                # match no attempt that is only listed.
                attempts = Attempts(closed=None if listed or event.service is _PJSIP else [])
                session.attempts[_shared(key)] = attempts
            self.evicted += attempts.add(_reporter(event), now, tag, self._account_in(event))
        return known

    def _match(
        self, session: Session, event: SecurityEvent, now: float, happened: float, *, listed: bool
    ) -> int | None:
        """Record that ``event`` reports a known attempt of ``session``; return its tag, None if it is new.

        If the event ``happened`` long before ``now``, the closed attempts of that time come first: the open
        ones have reports of their own. ``listed``: look among the unconfirmed attempts (only listed).
        """
        reporter = _reporter(event)
        if now - happened >= HORIZON:
            account = self._account_in(event)
            for attempts in _tables(session, event, listed=listed):
                tag = attempts.match_late(reporter, account, happened, now)
                if tag is not None:
                    return tag
        for attempts in _tables(session, event, listed=listed):
            tag = attempts.match(reporter, now)
            if tag is not None:
                return tag
        return None

    def _compare(self, event: SecurityEvent, address: Address, now: float, known: int | None) -> None:
        """Count, at a report of ``address``, the attempts that other sources report and AMI does not.

        ``known`` is the tag of the attempt, None if this report is the first one.
        """
        if event.source.name != AMI:
            if known is None:
                self._unreported.add(address_key(address), 1, now)
        elif known is not None:
            self.take_unreported(address, now)

    def take_unreported(self, address: Address, now: float) -> bool:
        """Count as reported by AMI an attempt of ``address`` that only other sources have reported.

        Return whether there was one.
        """
        return self._unreported.take(address_key(address), now - UNREPORTED_FOR)

    def take_not_copied(self, address: Address, asked: float) -> bool:
        """Take an attempt of ``address`` whose session was discarded early; return whether there was one.

        Another source has reported it, and no copied packet. ``asked`` is when its request was copied
        (monotonic seconds).
        """
        return self._not_copied.take(address_key(address), asked)

    # -- bounds -----------------------------------------------------------------------------------------

    def forgotten_until(self, address: Address) -> float:
        """Return until when (monotonic) sessions of ``address`` may have been discarded before ``HORIZON``.

        Reports of that time may be about an attempt that counted and is no longer known.
        """
        return max(self._forgotten.get(address_key(address), -inf), self._others_forgotten)

    def expire(self, now: float) -> None:
        """Discard the sessions not used for ``SESSION_LIFE`` seconds, and the senders no longer needed."""
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

        If there is none, or if that is ``using``, which needs the room, discard only the oldest session.
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
        if now - session.used < SESSION_LIFE:
            tables = (attempts for (_, _, listed), attempts in session.attempts.items() if not listed)
            number = sum(attempts.number_not_copied() for attempts in tables)
            if number:
                self._not_copied.add(sender.key, number, session.used)
        if now - session.used < HORIZON:
            self._forgotten[sender.key] = max(session.used, self._forgotten.get(sender.key, -inf))
            self._forgotten.move_to_end(sender.key)
            if len(self._forgotten) > self._max_senders:
                _, used = self._forgotten.popitem(last=False)
                self._others_forgotten = max(used, self._others_forgotten)
        del sender.sessions[session.name]
        del self._sessions[session]


def _tables(session: Session, event: SecurityEvent, *, listed: bool) -> Iterator[Attempts]:
    """Yield the tables of a session's attempts in which the one that ``event`` reports may be.

    A report that does not name its transport matches those of any. ``listed``: unconfirmed attempts.
    """
    way = _way_of(event)
    for (service, other, is_listed), attempts in session.attempts.items():
        if (
            service is event.service
            and is_listed == listed
            and (way is other or way is _UNKNOWN or other is _UNKNOWN)
        ):
            yield attempts


def _way_of(event: SecurityEvent) -> Transport:
    """Return how the request of ``event`` came: UNKNOWN, UDP, or TCP for any connection.

    It is TLS for an encrypted connection to chan_sip. PJSIP has one name for all WebSockets, encrypted or not
    (``res/res_pjsip_transport_websocket.c:load_module``), so its events do not distinguish these.
    """
    transport = event.remote.transport
    if transport is _UNKNOWN or transport is _UDP:
        return transport
    return _TLS if transport in _ENCRYPTED and event.service is _SIP else _TCP


@lru_cache(maxsize=256)
def _shared(key: _K) -> _K:
    """Return an object equal to ``key`` that all sessions share, because one for each takes 64 bytes."""
    return key


def _reporter(event: SecurityEvent) -> SourceId:
    """Return what reported an event: a source of one Asterisk, or the kernel's copies, which name none."""
    return _COPIED if event.source.name == WIRE else event.source


def host_of(address: Address) -> Address:
    """Return the address that stands for a host: an IPv4 address itself, or the first one of its /64."""
    if is_one_host(address):
        return address
    return IPv6Address(int(sender_key(address)) << 64)
