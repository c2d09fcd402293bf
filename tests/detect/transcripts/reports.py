"""Entries of transcripts, with default values: what AMI, the log and the wire report."""

from ipaddress import ip_address
from typing import TypedDict, Unpack

from attrs import evolve
from tests.support.transcript import PBX

from ringfence.values.event import (
    Endpoint,
    EventKind,
    SecurityEvent,
    Service,
    SourceId,
    Transport,
    ambiguous_fingerprint,
    fingerprint,
)
from ringfence.values.friend import Friend, FriendReason
from ringfence.values.packet import CopiedAnswer, CopiedRequest

ATTACKER, BYSTANDER, PHONE = "192.0.2.7", "203.0.113.9", "198.51.100.4"
AMI, SECURITY, NOTICE = "ami", "log:full#security", "log:full#notice"
HERE = ip_address("198.18.0.1")


class More(TypedDict, total=False):
    """Optional fields of a report, besides its address and Call-ID."""

    by: str
    service: Service
    transport: Transport
    port: int
    account: str
    nonce: bytes
    response: bytes
    acl: str
    tampered: bool
    forgeable: bool
    late: float
    method: str


def report(
    kind: EventKind,
    address: str = ATTACKER,
    call: bytes = b"call-1",
    *,
    by: str = AMI,
    service: Service = Service.PJSIP,
    transport: Transport = Transport.UDP,
    port: int = 5062,
    account: str = "204",
    nonce: bytes = b"",
    response: bytes = b"",
    acl: str = "",
    tampered: bool = False,
    forgeable: bool = False,
    late: float = 0.0,
    method: str = "",
) -> SecurityEvent:
    """Return the event that the source ``by`` reports; it happened ``late`` seconds before."""
    remote = Endpoint(ip_address(address), port, transport)
    source = SourceId(PBX, by)
    event = SecurityEvent(
        source, kind, service, remote, -late, account, call, acl, nonce, response, tampered, forgeable
    )
    return evolve(event, method=method) if method else event


def probed(address: str = ATTACKER, call: bytes = b"call-1", **more: Unpack[More]) -> SecurityEvent:
    """Return the call of an account that does not exist, the first request of a guess."""
    more.setdefault("method", "INVITE")
    return report(EventKind.INVALID_ACCOUNT_ID, address, call, **more)


def challenged(address: str = ATTACKER, call: bytes = b"call-1", **more: Unpack[More]) -> SecurityEvent:
    """Return the event of a challenged request."""
    return report(EventKind.CHALLENGE_SENT, address, call, **more)


def failed(address: str = ATTACKER, call: bytes = b"call-1", **more: Unpack[More]) -> SecurityEvent:
    """Return the event of a challenge that was answered with a wrong password."""
    return report(EventKind.CHALLENGE_RESPONSE_FAILED, address, call, **more)


def wrong(address: str = ATTACKER, call: bytes = b"call-1", **more: Unpack[More]) -> SecurityEvent:
    """Return the event of a password that chan_sip rejected."""
    more.setdefault("service", Service.SIP)
    return report(EventKind.INVALID_PASSWORD, address, call, **more)


def wrong_by_notice(address: str = ATTACKER, account: str = "204") -> SecurityEvent:
    """Return chan_sip's NOTICE line of a rejected password, which has no session and no transport."""
    return wrong(address, b"", by=NOTICE, account=account, transport=Transport.UNKNOWN)


def misdialled_by_notice() -> SecurityEvent:
    """Return chan_sip's line of a call to an extension that does not exist."""
    return report(
        EventKind.FAILED_ACL,
        call=b"",
        by=NOTICE,
        service=Service.SIP,
        acl="no_extension_match",
        account="",
        transport=Transport.UNKNOWN,
    )


def login(address: str = PHONE, call: bytes = b"call-1", **more: Unpack[More]) -> SecurityEvent:
    """Return the event of a right password."""
    return evolve(report(EventKind.SUCCESSFUL_AUTH, address, call, **more), password=True)


def sent(
    address: str = ATTACKER,
    call: bytes = b"call-1",
    *,
    nonce: bytes = b"",
    sender: str | None = "",
    service: Service = Service.PJSIP,
    status: int = 401,
    evasive: bool = False,
    relayed: bool = False,
    transport: Transport = Transport.UDP,
    sequence: int | None = None,
    accepted: bool = False,
) -> CopiedAnswer:
    """Return an answer that left for ``address``, to a request of ``sender`` (the same by default)."""
    there = ip_address(address)
    asked_by = there if sender == "" else ip_address(sender) if sender is not None else None
    return CopiedAnswer(
        there,
        5062,
        HERE,
        5060,
        call,
        nonce,
        asked_by,
        evasive,
        "204",
        service,
        status,
        transport,
        relayed,
        sequence=sequence,
        accepted=accepted,
    )


def copied(
    address: str = ATTACKER,
    call: bytes = b"call-1",
    *,
    nonce: bytes = b"",
    sequence: int = 2,
    transport: Transport = Transport.UDP,
    registers: str = "",
    response: bytes | None = b"",
) -> CopiedRequest:
    """Return a request of a stranger; with ``nonce`` it has credentials.

    ``registers``: it is a REGISTER of this account. ``response`` is the one in it, b"" if that is unknown. If
    it is None, the request is ambiguous: it has several nonces, and AMI is silent about it.
    """
    nonces = (nonce,) if nonce else ()
    digest = b"%d %b" % (sequence, nonce)
    request = CopiedRequest(ip_address(address), 5062, nonces, (call,), (sequence,), bool(nonce), digest)
    number = fingerprint(nonce, response) if response else 0
    if response is None:
        number = ambiguous_fingerprint(digest)
    method = "REGISTER" if registers else ""
    return evolve(request, transport=transport, method=method, account=registers, fingerprint=number)


def friend(address: str = PHONE, account: str = "204", tie: FriendReason = FriendReason.REACHABLE) -> Friend:
    """Return a friend whose account works at the address for a year."""
    return Friend(PBX, ip_address(address), account, tie, 0.0, 0.0, 365 * 86_400.0)
