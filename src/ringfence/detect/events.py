"""The facts that a single security event shows: its role in a session, its attempt, how sure its address is.

``session`` combines the roles of several events, and ``attribution`` the evidence of several sources.
"""

import enum
from functools import cache
from hashlib import blake2b
from ipaddress import IPv4Address

from ringfence.model import (
    WIRE,
    Address,
    Attempt,
    AttemptKind,
    EventKind,
    Proof,
    SecurityEvent,
    Service,
    Transport,
)

_MAX_SESSION = 64  # bytes; of a longer session id only a digest is kept
_MAX_ACCOUNT = 128  # characters kept for display

AddressKey = int | bytes
"""An address as a dictionary key: :func:`address_key`."""


class Role(enum.Enum):
    """The role of an event in its session; ``session`` explains how roles become attempts."""

    OPENER = enum.auto()  # the first event of a request that cannot succeed
    CHALLENGE = enum.auto()  # Asterisk sent a challenge
    FAILED = enum.auto()  # a guess failed
    HALF = enum.auto()  # one of two equal events of a request, such as those of IAX2 about an unknown peer
    PROBE = enum.auto()  # such as a call of an extension that does not exist
    SUCCESS = enum.auto()
    NONE = enum.auto()  # the event belongs to no attempt


# The key is the service, the kind of event and, for FailedACL, the name of the ACL. Events without a row here
# belong to no attempt: limits, bad formats, and events about an authenticated phone (`registrar_*`).
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
    (Service.DIALPLAN, EventKind.FAILED_ACL, "hacking_attempt"): Role.PROBE,
}
# Module-level aliases: enum member lookups are slow in the per-event hot path.
_FAILED_ACL, _SIP, _NONE = EventKind.FAILED_ACL, Service.SIP, Role.NONE
_NAMING = (Service.PJSIP, Service.SIP)  # services whose log lines name the account of the caller
_STRANGER = "anonymous"


def role_of(event: SecurityEvent) -> Role:
    """Return the role of ``event`` in its session.

    A message is never a success if text of the sender has broken its form (``tampered``).

    An administrator can add patterns for log lines (``parse/custom.py``). Their events are of the service
    DIALPLAN, with an ACL name that is not in ``_ROLES``. Such an event has the role FAILED. If a log line
    names a caller that has an account and dials an unknown number, the role is NONE: the caller has only
    misdialled.
    """
    if event.kind is not _FAILED_ACL:  # nearly all events
        role = _ROLES.get((event.service, event.kind, ""), _NONE)
        return _NONE if event.tampered and role is Role.SUCCESS else role
    other = Role.FAILED if event.service is Service.DIALPLAN else Role.NONE
    role = _ROLES.get((event.service, event.kind, event.acl_name), other)
    named = role is Role.PROBE and event.source.notices and event.service in _NAMING
    return Role.NONE if named and not _is_stranger(event.account) else role


def _is_stranger(account: str) -> bool:
    """Whether the account in a log line is no account of this PBX.

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
    """Whether the sender cannot have chosen the address in an event, as far as the event shows.

    Return False for a forgeable event, and for a security event of chan_sip: it may name any address that the
    sender writes into a Via ``maddr``. chan_sip's NOTICE lines name the true source. So do reports of the
    wire, which come from Asterisk's own answer.
    """
    if event.forgeable:
        return False
    return event.service is not Service.SIP or event.source.notices or event.source.name == WIRE


def session_id(event: SecurityEvent) -> bytes:
    """Return the session id of an event as a key.

    Log lines name no session. For some of them the port or the account is used instead; otherwise the result
    is empty.
    """
    session = event.session
    if session:  # nearly all events
        return session if len(session) <= _MAX_SESSION else session_key(session)
    if event.service is Service.IAX2 and event.kind is EventKind.INVALID_ACCOUNT_ID:
        return session_key(b"account %b" % event.account.encode("utf-8", "replace"))
    if event.service is _SIP and event.acl_name == "device_must_match_acl":
        return b"port %d" % event.remote.port
    return session


def shared_session_id(event: SecurityEvent) -> bytes:
    """Return a session id that is the same in all sources' reports of one attempt.

    PJSIP's sources all name the Call-ID. For the other services, a log names no session, or the sources name
    different ones. So all failures of one kind share one id. For chan_sip, a refusal by an ACL is of the same
    kind as a guess.
    """
    if event.service is Service.PJSIP:
        return session_key(event.session)
    if event.service is Service.AMI:
        return b""  # one id for all kinds: the sources name different kinds for one failure
    if event.service is _SIP and event.acl_name != "no_extension_match":
        return b"guess"  # also for an ACL's refusal: with alwaysauthreject, the wire sees the same answers
    return f"{event.kind}/{event.acl_name}".encode()


def attempt_from(event: SecurityEvent, kind: AttemptKind) -> Attempt:
    """Return the attempt that an event reports, with the facts that this event alone shows."""
    remote, service, source = event.remote, event.service, event.source
    return Attempt(  # keyword arguments would make each event a tenth slower
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
    """Return an address as a fast dictionary key: hashing an address object takes 0.3 µs.

    An IPv4 address is an integer. Attackers could choose integers of 128 bits whose hashes collide, so an
    IPv6 address is bytes.
    """
    return int(address) if isinstance(address, IPv4Address) else address.packed


def session_key(session: bytes) -> bytes:
    """Return a session as a dictionary key of limited size: a Call-ID may be as long as a datagram."""
    if len(session) <= _MAX_SESSION:
        return session
    return blake2b(session, digest_size=_MAX_SESSION).digest() + b"#"
