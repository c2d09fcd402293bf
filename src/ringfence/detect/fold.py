"""The fold: turns security events of one source into attempts.

One attempt causes one to eleven security events, so events cannot be counted. The following rules were found
by experiment on recordings of real servers, and are exact on all of them. A *key* is (Asterisk, source,
service, remote address without port, session). Each key has three numbers, which start at zero:

    opener:     if half: n += 1, owed += 1;   half = true
    challenge:  if half: half = false, n += 1, owed += 1
    failed:     half = false;   if owed: owed -= 1 else n += 1
    reported = n + (1 if half and owed == 0 else 0)

An *opener* begins a request that is never authenticated (unknown account, ACL), a *challenge* finishes it,
and a *failed* is the answer to the challenge, which is *owed* until it arrives. Each time ``reported`` grows,
this source reports one more attempt. So a key has four states, and ``+`` marks the events that report:

    half  owed  state   opener    challenge  failed
    no    0     idle    open  +   idle       idle +
    yes   0     open    both      owing      idle
    no    1..   owing   both      owing      owing, or idle after the last answer
    yes   1..   both    both  +   owing  +   owing, or idle after the last answer

*Open* reports at once, because an attacker may never answer. So what completes the open request reports
nothing: a challenge, its wrong answer, or the opener of the same request with credentials. If an Asterisk has
several sources, ``dedup`` finds the reports of the same attempt.

A challenge alone is never an attempt, because each successful registration begins with one. But if a guess
carries an unknown nonce, chan_sip reports only another challenge. It still checks the password, and answers a
right one with ``stale=true`` (``channels/chan_sip.c:check_auth``, tried on 16.28). So a challenge with
another nonce, in a session whose last one was not answered, is a *failed*. To a retransmitted request
chan_sip repeats the nonce.

Bounds and their reasons: a key expires after 32 s without an event (PJSIP's nonces live that long), at most
65 536 keys are kept and at most 1 024 of one address. If a key is discarded early, too many attempts may be
counted, because a late answer then counts as a separate attempt. (Only between two simultaneous openers and
their answers, within microseconds, one attempt could be missed.) A forgiven retransmission reduces the count,
so none is forgiven while the table of forgiven retransmissions is full.
"""

import enum
from collections import OrderedDict
from functools import cache
from hashlib import blake2b
from ipaddress import IPv4Address
from math import inf

from attrs import Factory, define

from ringfence.model import (
    WIRE,
    Address,
    Attempt,
    AttemptKind,
    EventKind,
    Proof,
    SecurityEvent,
    Service,
    SourceId,
    Transport,
)
from ringfence.networks import sender_key

_FORGET = 32.0  # seconds, by the source's own time
_PURGE = 40.0  # seconds since the last event of an address arrived: a log may be some seconds late
_MAX_KEYS = 65_536
_MAX_KEYS_OF_ADDRESS = 1_024
_MAX_FORGIVEN = 16_384
_FORGIVE_AGAIN = 600.0  # seconds
_REPEAT_SOONEST, _REPEAT_LATEST = 0.3, 32.0  # seconds; RFC 3261 T1 is 0.5 s, and phones shorten it
_MAX_SESSION = 64  # bytes kept as they are; a longer session is kept as a digest
_MAX_ACCOUNT = 128  # characters kept for display

AddressKey = int | bytes
"""An address as a dictionary key: :func:`address_key`."""

_Name = tuple[str, str, Service, bytes]  # the Asterisk, the source, the service and the session


class Role(enum.Enum):
    """The role of an event in the fold."""

    OPENER = enum.auto()
    CHALLENGE = enum.auto()
    FAILED = enum.auto()
    HALF = enum.auto()  # reported twice for a request: chan_sip's ACL of a peer, IAX2's unknown peer
    PROBE = enum.auto()
    SUCCESS = enum.auto()
    NONE = enum.auto()


# The key is the service, the kind of event and, for FailedACL, the name of the ACL. Other events belong to no
# attempt: limits, bad formats, and the registrar's events about an authenticated phone (`registrar_*`).
_ROLES: dict[tuple[Service, EventKind, str], Role] = {
    (Service.PJSIP, EventKind.INVALID_ACCOUNT_ID, ""): Role.OPENER,
    (Service.PJSIP, EventKind.FAILED_ACL, "not_match_endpoint_acl"): Role.OPENER,
    (Service.PJSIP, EventKind.FAILED_ACL, "not_match_endpoint_contact_acl"): Role.OPENER,
    (Service.PJSIP, EventKind.CHALLENGE_SENT, ""): Role.CHALLENGE,
    (Service.PJSIP, EventKind.CHALLENGE_RESPONSE_FAILED, ""): Role.FAILED,
    (Service.PJSIP, EventKind.SUCCESSFUL_AUTH, ""): Role.SUCCESS,
    (Service.PJSIP, EventKind.HIDDEN, ""): Role.OPENER,
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
}
# Module-level aliases: enum member lookups are slow in the per-event hot path.
_FAILED_ACL, _SIP = EventKind.FAILED_ACL, Service.SIP
_OPENER, _CHALLENGE, _FAILED, _NONE = Role.OPENER, Role.CHALLENGE, Role.FAILED, Role.NONE
_NAMING = (Service.PJSIP, Service.SIP)  # their lines name the account of the caller
_STRANGER = "anonymous"


def role_of(event: SecurityEvent) -> Role:
    """Return the role of ``event`` in the fold. A tampered packet is never a success.

    A dialplan line with an unknown name comes from a pattern of the administrator (``parse/custom.py``). If a
    caller with an account dials an unknown number, it has only misdialled.
    """
    if event.kind is not _FAILED_ACL:  # nearly all events
        role = _ROLES.get((event.service, event.kind, ""), _NONE)
        return _NONE if event.tampered and role is Role.SUCCESS else role
    other = Role.FAILED if event.service is Service.DIALPLAN else Role.NONE
    role = _ROLES.get((event.service, event.kind, event.acl_name), other)
    named = role is Role.PROBE and event.source.notices and event.service in _NAMING
    return Role.NONE if named and not _is_stranger(event.account) else role


def _is_stranger(account: str) -> bool:
    """Whether a line names no account of this PBX.

    PJSIP treats an unknown caller as the endpoint ``anonymous@DOMAIN``, or else ``anonymous``
    (``res/res_pjsip_endpoint_identifier_anonymous.c``).
    """
    return not account or account == _STRANGER or account.startswith(f"{_STRANGER}@")


def proof_of(event: SecurityEvent) -> Proof:
    """Return how well one event alone verifies its address.

    Text verifies no address: the sender may have chosen the address in a log line, or in an AMI packet that
    breaks Asterisk's grammar. Otherwise a handshake verifies the address, except under chan_sip, which
    believes a Via ``maddr`` on TCP too (``channels/chan_sip.c:check_via``).
    """
    source = event.source
    if event.tampered or event.forgeable or source.text:
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
    """Whether the address in this event is independent of the sender's text, as far as the event shows.

    chan_sip's security events name the address in a Via ``maddr``. For reports of the wire, Asterisk's own
    answer names the true source.
    """
    if event.forgeable:
        return False
    return event.service is not Service.SIP or event.source.notices or event.source.name == WIRE


@define
class _Key:
    """The state of one key; the head of this file explains ``half``, ``owed`` and ``n``."""

    seen: float
    half: bool = False
    owed: int = 0
    n: int = 0
    halves: int = 0
    reported: int = 0
    challenged: bool = False
    failed_with: int = 0
    failed_at: float = 0.0
    waiting_for: int = 0  # the hash of the nonce that chan_sip has sent

    def attempts(self) -> int:
        reported = self.n + (self.half and not self.owed)
        return reported + (self.halves + 1) // 2 if self.halves else reported


@define
class _OfAddress:
    """The keys of one address, least recently used first, and the arrival time of its last event."""

    arrived: float
    keys: OrderedDict[_Name, _Key] = Factory(OrderedDict)


class Fold:
    """Turns the events of each source, in their order, into the attempts that they report.

    ``evicted`` counts the keys that were discarded to stay within the bounds.
    """

    def __init__(
        self,
        *,
        max_keys: int = _MAX_KEYS,
        max_keys_of_address: int = _MAX_KEYS_OF_ADDRESS,
    ) -> None:
        self.evicted = 0
        self._max_keys = max_keys
        self._max_keys_of_address = max_keys_of_address
        self._addresses: OrderedDict[AddressKey, _OfAddress] = OrderedDict()
        self._latest: _OfAddress | None = None  # the entry that was used last
        self._purge_at = -inf  # no entry expires before
        self._size = 0
        # The key has the source, because each source reports the same repetition. An IPv6 sender is its /64
        # as a number, because a host has all addresses of its /64.
        self._forgiven: OrderedDict[tuple[SourceId, Address | int], float] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of keys."""
        return self._size

    def feed(self, event: SecurityEvent, now: float) -> Attempt | None:
        """Handle one event that arrived at ``now`` (monotonic seconds); return its attempt, if any."""
        role = role_of(event)
        if role is not _FAILED and role is not _OPENER:  # nearly all events in an attack
            if role is _NONE or (role is _CHALLENGE and self._finishes_nothing(event)):
                return None
            if role is Role.SUCCESS:
                self._close(event)
                return None
        key = self._key(event, now)
        if role is _FAILED:
            if self._is_retransmission(key, event, now):
                return None
        elif role is Role.PROBE and key.challenged:
            return None  # a caller with an account dialled a wrong number
        if event.service is _SIP and _fails_by_challenge(key, role, event.challenge):
            role = Role.FAILED
        _advance(key, role)
        reported = key.attempts()
        if reported <= key.reported:
            return None
        key.reported = reported
        return self._attempt(event, role)

    def _attempt(self, event: SecurityEvent, role: Role) -> Attempt:
        kind = AttemptKind.PROBE if role is Role.PROBE else AttemptKind.GUESS
        return attempt_from(event, AttemptKind.MANAGER if event.service is Service.AMI else kind)

    def _finishes_nothing(self, event: SecurityEvent) -> bool:
        """Whether a challenge belongs to no known failed request, as in each successful registration.

        With chan_sip such a challenge still shows that the caller has an account.
        """
        of_address = self._addresses.get(address_key(event.remote.address))
        known = of_address is not None and _name(event) in of_address.keys
        return event.service is Service.PJSIP and not known

    def _key(self, event: SecurityEvent, now: float) -> _Key:
        """Return the state of the key of ``event``, created if needed, as the most recently used one."""
        if now > self._purge_at:
            self._purge(now)
        address = address_key(event.remote.address)
        of_address = self._addresses.get(address)
        if of_address is None:
            of_address = self._addresses[address] = _OfAddress(now)
        elif of_address is not self._latest:
            self._addresses.move_to_end(address)
        self._latest = of_address
        of_address.arrived = now
        name = _name(event)
        key = of_address.keys.get(name)
        if key is None:
            if self._size >= self._max_keys or len(of_address.keys) >= self._max_keys_of_address:
                self._make_room(of_address)
            self._size += 1
            key = of_address.keys[name] = _Key(event.time)
            return key
        if event.time - key.seen > _FORGET:
            key = of_address.keys[name] = _Key(event.time)
        key.seen = event.time
        of_address.keys.move_to_end(name)
        return key

    def _make_room(self, of_address: _OfAddress) -> None:
        if len(of_address.keys) >= self._max_keys_of_address:
            of_address.keys.popitem(last=False)
            self._size -= 1
            self.evicted += 1
        elif self._size >= self._max_keys:
            address, oldest = next(iter(self._addresses.items()))
            oldest.keys.popitem(last=False)
            self._size -= 1
            self.evicted += 1
            if not oldest.keys and oldest is not of_address:
                del self._addresses[address]

    def _purge(self, now: float) -> None:
        while self._addresses:
            address, oldest = next(iter(self._addresses.items()))
            if now - oldest.arrived <= _PURGE:
                self._purge_at = oldest.arrived + _PURGE
                return
            self._size -= len(oldest.keys)
            del self._addresses[address]

    def _close(self, event: SecurityEvent) -> None:
        address = address_key(event.remote.address)
        of_address = self._addresses.get(address)
        if of_address is not None and of_address.keys.pop(_name(event), None) is not None:
            self._size -= 1
            if not of_address.keys:
                del self._addresses[address]

    def _is_retransmission(self, key: _Key, event: SecurityEvent, now: float) -> bool:
        """Whether this failure repeats the last one because a datagram was sent twice; record the failure.

        An event does not prove a repetition: with two Authorization headers it shows the first, and Asterisk
        checks the second. So one repetition in ten minutes is forgiven for each IPv4 address or /64.
        """
        previous, age = key.failed_with, event.time - key.failed_at
        key.failed_with, key.failed_at = hash((event.challenge, event.response)), event.time
        counts = key.owed == 0 and not key.half
        comparable = event.remote.transport is Transport.UDP and event.challenge and event.response
        if not (counts and comparable and previous == key.failed_with):
            return False
        return _REPEAT_SOONEST <= age <= _REPEAT_LATEST and self._forgive(event, now)

    def _forgive(self, event: SecurityEvent, now: float) -> bool:
        while self._forgiven and now - next(iter(self._forgiven.values())) > _FORGIVE_AGAIN:
            self._forgiven.popitem(last=False)
        address = event.remote.address
        sender = (event.source, sender_key(address))
        if sender in self._forgiven or len(self._forgiven) >= _MAX_FORGIVEN:
            return False
        self._forgiven[sender] = now
        return True


def _fails_by_challenge(key: _Key, role: Role, nonce: bytes) -> bool:
    """Whether this challenge of chan_sip means that a guess failed; record the challenge."""
    if role is not Role.CHALLENGE:
        key.waiting_for = 0
        return False
    before, key.waiting_for = key.waiting_for, hash(nonce) if nonce else 0
    return before not in (0, key.waiting_for)


def _advance(key: _Key, role: Role) -> None:
    if role is _OPENER:
        if key.half:
            key.n += 1
            key.owed += 1
        key.half = True
    elif role is _CHALLENGE:
        key.challenged = True
        if key.half:
            key.half = False
            key.n += 1
            key.owed += 1
    elif role is Role.HALF:
        key.halves += 1
    else:
        key.half = False
        if key.owed:
            key.owed -= 1
        else:
            key.n += 1


def _name(event: SecurityEvent) -> _Name:
    """Return the key of an event. Lines name no session: their port or account stands for it."""
    session = event.session
    if not session and event.service is Service.IAX2 and event.kind is EventKind.INVALID_ACCOUNT_ID:
        session = b"account %b" % event.account.encode("utf-8", "replace")
    if not session and event.service is Service.SIP and event.acl_name == "device_must_match_acl":
        session = b"port %d" % event.remote.port
    source = event.source
    if len(session) > _MAX_SESSION:
        session = session_key(session)
    return source.asterisk, source.name, event.service, session


def attempt_from(event: SecurityEvent, kind: AttemptKind) -> Attempt:
    """Return the attempt that an event reports, with what that event alone shows."""
    remote, service, source = event.remote, event.service, event.source
    return Attempt(  # positional, because keywords take a tenth of the time of an event
        source.asterisk,
        remote.address,
        kind,
        proof_of(event),
        service,
        remote.transport,
        event.account[:_MAX_ACCOUNT],
        event.kind,
        event.time,
        is_trusted(event),
        event.tampered,
        None,
        session_number(event.session),
        (source.name,),
    )


def session_number(session: bytes) -> int:
    """Return a number for a session, valid while this process runs; 0 for no session."""
    return hash(session) & 0xFFFFFFFF


def address_key(address: Address) -> AddressKey:
    """Return an address as a fast dictionary key.

    (An address object is hashed in 0.3 µs, forty times for each guess.)

    Attackers cannot choose 32-bit numbers that collide, but they can with 128 bits, so IPv6 uses bytes.
    """
    return int(address) if isinstance(address, IPv4Address) else address.packed


def session_key(session: bytes) -> bytes:
    """Return a session as a dictionary key of limited size: a Call-ID may be as long as a datagram."""
    return (
        session
        if len(session) <= _MAX_SESSION
        else blake2b(session, digest_size=_MAX_SESSION).digest() + b"#"
    )
