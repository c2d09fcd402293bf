"""The fold: from security events to attempts.

One attempt makes one to eleven security events, so events cannot be counted. What follows was found by
experiment on recordings of real servers, and is exact on all of them. A *key* is (Asterisk, source, service,
remote address without port, session). For each key three numbers are kept, all from nothing:

    opener:     if half: n += 1, owed += 1;   half = true
    challenge:  if half: half = false, n += 1, owed += 1
    failed:     half = false;   if owed: owed -= 1 else n += 1
    told = n + (1 if half and owed == 0 else 0)

An *opener* begins a request that nobody answers for (unknown account, ACL), a *challenge* finishes it, and a
*failed* is its answer, which is *owed* as long as it has not come. Each time ``told`` grows, this source
tells of one more attempt. Where an Asterisk has several sources, ``join`` says which tell of the same one.

A challenge alone is never an attempt: every good registration begins with one. But chan_sip tells of a guess
by another challenge and nothing else where the guess repeats no nonce of its own: it checks the password all
the same, and answers a right one with ``stale=true`` (``channels/chan_sip.c:check_auth``, tried on 16.28). So
a challenge with another nonce in a session whose last one was not answered is a *failed*. To a request that
was sent twice chan_sip repeats the nonce.

Bounds and their reasons: a key is forgotten after 32 s without an event (PJSIP's nonces live that long), at
most 65 536 keys are kept and at most 1 024 of one address. To forget a key early can only count too much:
a late answer then counts as an attempt of its own. (Between two openers at once and their answers, which
follow within microseconds, it could cost one.) To forgive a retransmission counts too little, so when
the table of the forgiven is full, nothing is forgiven.
"""

import enum
from collections import OrderedDict
from functools import cache
from hashlib import blake2b
from ipaddress import IPv4Address
from math import inf

from attrs import Factory, define

from ringfence.model import (
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

_FORGET = 32.0  # seconds, by the source's own time
_PURGE = 40.0  # seconds since the last event of an address arrived: a log may be some seconds late
_MAX_KEYS = 65_536
_MAX_KEYS_OF_ADDRESS = 1_024
_MAX_FORGIVEN = 16_384
_HOST_BITS = 64  # of an IPv6 address
_FORGIVE_AGAIN = 600.0  # seconds
_REPEAT_SOONEST, _REPEAT_LATEST = 0.3, 32.0  # seconds; RFC 3261 T1 is 0.5 s, and phones shorten it
_MAX_SESSION = 64  # bytes kept as they are; a longer session is kept as a digest
_MAX_ACCOUNT = 128  # characters kept for people to read

AddressKey = int | bytes
"""An address in a table: :func:`address_key`."""

_Name = tuple[str, str, Service, bytes]  # the Asterisk, the witness, the service and the session


class Role(enum.Enum):
    """What an event is to the fold."""

    OPENER = enum.auto()
    CHALLENGE = enum.auto()
    FAILED = enum.auto()
    HALF = enum.auto()  # chan_sip checks a peer's ACL twice a request, IAX2 says twice that it knows no peer
    PROBE = enum.auto()
    SUCCESS = enum.auto()
    NONE = enum.auto()


# By service and kind, FailedACL by its ACL's name too. What is not here has no part in an attempt: limits,
# bad formats, and what the registrar says of a phone that has already shown its password (`registrar_*`).
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
    (Service.SIP, EventKind.SUCCESSFUL_AUTH, ""): Role.SUCCESS,
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
# What is asked for each event, by names that are found at once.
_FAILED_ACL, _SIP = EventKind.FAILED_ACL, Service.SIP
_OPENER, _CHALLENGE, _FAILED, _NONE = Role.OPENER, Role.CHALLENGE, Role.FAILED, Role.NONE
_NAMING = (Service.PJSIP, Service.SIP)  # whose lines name the account that called
_STRANGERS = ("", "anonymous")  # what they name where it is nobody's


def role_of(event: SecurityEvent) -> Role:
    """Say what ``event`` is to the fold. A tampered packet is never a success.

    A line of the dialplan that is not well known is one that the administrator named (``parse/custom.py``).
    Who has an account and dials a number that does not exist has misdialled.
    """
    if event.kind is not _FAILED_ACL:  # as nearly always
        role = _ROLES.get((event.service, event.kind, ""), _NONE)
        return _NONE if event.tampered and role is Role.SUCCESS else role
    other = Role.FAILED if event.service is Service.DIALPLAN else Role.NONE
    role = _ROLES.get((event.service, event.kind, event.acl_name), other)
    named = role is Role.PROBE and event.source.notices and event.service in _NAMING
    return Role.NONE if named and event.account not in _STRANGERS else role


def proof_of(event: SecurityEvent) -> Proof:
    """Say how well one event alone knows its address.

    A handshake proves it, except under chan_sip, which believes a Via ``maddr`` on TCP too
    (``channels/chan_sip.c:check_via``). IAX2 has one of its own, the call token, which an administrator may
    have made optional (``calltokenoptional``): then one forged datagram writes a line (tried on 22.10.1).
    """
    return _proof(event.service, event.remote.transport)


@cache
def _proof(service: Service, transport: Transport) -> Proof:
    if service is Service.AMI:
        return Proof.HANDSHAKE
    shaken = transport not in (Transport.UDP, Transport.UNKNOWN)
    return Proof.HANDSHAKE if shaken and service is Service.PJSIP else Proof.CLAIMED


def is_trusted(event: SecurityEvent) -> bool:
    """Say whether no header that the sender wrote decides whom this event names.

    chan_sip's security events name whom a Via ``maddr`` says; its lines in the log name the true source.
    """
    return not event.hearsay and (event.service is not Service.SIP or event.source.notices)


@define
class _Key:
    """What is known of one key; the head of this file explains the first three."""

    seen: float
    half: bool = False
    owed: int = 0
    n: int = 0
    halves: int = 0
    told: int = 0
    challenged: bool = False
    failed_with: int = 0
    failed_at: float = 0.0
    waiting_for: int = 0  # the nonce that chan_sip has sent, as a hash

    def tellings(self) -> int:
        told = self.n + (self.half and not self.owed)
        return told + (self.halves + 1) // 2 if self.halves else told


@define
class _OfAddress:
    """The keys of one address, least recently used first, and when its last event arrived."""

    arrived: float
    keys: OrderedDict[_Name, _Key] = Factory(OrderedDict)


class Fold:
    """Feed it security events in the order of each source; it gives back the attempts that they tell of.

    ``evicted`` counts the keys that were forgotten for want of room.
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
        self._latest: _OfAddress | None = None  # whose address is the last of them
        self._purge_at = -inf  # nothing is to be purged before
        self._size = 0
        # By source, since each tells of the same repetition; IPv4 addresses, and /64s as numbers: who has a
        # /64 has no end of addresses to repeat from.
        self._forgiven: OrderedDict[tuple[SourceId, Address | int], float] = OrderedDict()

    def __len__(self) -> int:
        """How many keys are kept."""
        return self._size

    def feed(self, event: SecurityEvent, now: float) -> Attempt | None:
        """Take one event that arrived at ``now`` (monotonic seconds); give the attempt it tells of."""
        role = role_of(event)
        if role is not _FAILED and role is not _OPENER:  # which are nearly all when it matters
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
            return None  # who was challenged and came this far has an account, and misdialled
        if event.service is _SIP and _fails_by_challenge(key, role, event.challenge):
            role = Role.FAILED
        _advance(key, role)
        told = key.tellings()
        if told <= key.told:
            return None
        key.told = told
        return self._attempt(event, role)

    def _attempt(self, event: SecurityEvent, role: Role) -> Attempt:
        kind = AttemptKind.PROBE if role is Role.PROBE else AttemptKind.GUESS
        return attempt_from(event, AttemptKind.MANAGER if event.service is Service.AMI else kind)

    def _finishes_nothing(self, event: SecurityEvent) -> bool:
        """Say whether a challenge belongs to no request that is known of: every good registration has one.

        Under chan_sip it tells all the same that the caller has an account.
        """
        of_address = self._addresses.get(address_key(event.remote.address))
        known = of_address is not None and _name(event) in of_address.keys
        return event.service is Service.PJSIP and not known

    def _key(self, event: SecurityEvent, now: float) -> _Key:
        """Find or make the key of ``event``, as the most recently used one."""
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
        """Say whether this failure repeats the last one because a datagram was sent twice, and remember it.

        What an event shows does not prove a repetition: with two Authorization headers it shows the first,
        and Asterisk checks the second. So an address, or a /64, is forgiven one in ten minutes.
        """
        previous, age = key.failed_with, event.time - key.failed_at
        key.failed_with, key.failed_at = hash((event.challenge, event.response)), event.time
        counts = key.owed == 0 and not key.half
        told_apart = event.remote.transport is Transport.UDP and event.challenge and event.response
        if not (counts and told_apart and previous == key.failed_with):
            return False
        return _REPEAT_SOONEST <= age <= _REPEAT_LATEST and self._forgive(event, now)

    def _forgive(self, event: SecurityEvent, now: float) -> bool:
        while self._forgiven and now - next(iter(self._forgiven.values())) > _FORGIVE_AGAIN:
            self._forgiven.popitem(last=False)
        address = event.remote.address
        wide = address if isinstance(address, IPv4Address) else int(address) >> _HOST_BITS
        sender = (event.source, wide)
        if sender in self._forgiven or len(self._forgiven) >= _MAX_FORGIVEN:
            return False
        self._forgiven[sender] = now
        return True


def _fails_by_challenge(key: _Key, role: Role, nonce: bytes) -> bool:
    """Say whether chan_sip challenges anew who has not answered its last challenge, and remember this one."""
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
    """Give the key of an event; lines name no session, but the port or the account that halves belong to."""
    session = event.session
    if not session and event.service is Service.IAX2 and event.kind is EventKind.INVALID_ACCOUNT_ID:
        session = b"account %b" % event.account.encode("utf-8", "replace")
    if not session and event.service is Service.SIP and event.acl_name == "device_must_match_acl":
        session = b"port %d" % event.remote.port
    source = event.source
    if len(session) > _MAX_SESSION:
        session = session_key(session)
    return source.asterisk, source.witness, event.service, session


def attempt_from(event: SecurityEvent, kind: AttemptKind) -> Attempt:
    """Give the attempt that an event tells of, as far as that event alone knows it."""
    remote, service, source = event.remote, event.service, event.source
    return Attempt(  # in order: names would take a tenth of the whole way of an event
        source.asterisk,
        remote.address,
        kind,
        _proof(service, remote.transport),
        service,
        remote.transport,
        event.account[:_MAX_ACCOUNT],
        event.kind,
        event.time,
        is_trusted(event),
        event.tampered,
        None,
        session_number(event.session),
        (source.witness,),
    )


def session_number(session: bytes) -> int:
    """Give a number that stands for a session while this process lives; 0 for none."""
    return hash(session) & 0xFFFFFFFF


def address_key(address: Address) -> AddressKey:
    """Give an address as what a table finds at once; the hash of its own takes 0.3 µs, forty times a guess.

    Of 32 bits nobody can choose numbers that collide, of 128 he can: an IPv6 address is its bytes.
    """
    return int(address) if isinstance(address, IPv4Address) else address.packed


def session_key(session: bytes) -> bytes:
    """Give a session short enough to be kept: a Call-ID may be as long as a datagram."""
    return (
        session
        if len(session) <= _MAX_SESSION
        else blake2b(session, digest_size=_MAX_SESSION).digest() + b"#"
    )
