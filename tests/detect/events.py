"""Security events and attempts with default values for all that a test leaves out."""

from ipaddress import ip_address

from ringfence.detect.sessions import Role
from ringfence.values.attempt import Attempt, AttemptKind, Proof
from ringfence.values.event import Endpoint, EventKind, SecurityEvent, Service, SourceId, Transport
from ringfence.values.network import Address

PBX = SourceId("pbx", "ami")
NOTICES = SourceId("pbx", "log:full#notice")
SECURITY = SourceId("pbx", "log:full#security")
SENDER = "192.0.2.7"

ROLES: dict[tuple[Service, EventKind, str], Role] = {
    (Service.PJSIP, EventKind.INVALID_ACCOUNT_ID, ""): Role.QUESTION,
    (Service.PJSIP, EventKind.FAILED_ACL, "not_match_endpoint_acl"): Role.QUESTION,
    (Service.PJSIP, EventKind.FAILED_ACL, "not_match_endpoint_contact_acl"): Role.QUESTION,
    (Service.PJSIP, EventKind.CHALLENGE_SENT, ""): Role.CHALLENGE,
    (Service.PJSIP, EventKind.CHALLENGE_RESPONSE_FAILED, ""): Role.FAILED,
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
    (Service.SIP, EventKind.HIDDEN, ""): Role.FAILED,
    (Service.SIP, EventKind.REFUSED, ""): Role.FAILED,
    (Service.SIP, EventKind.DIVERTED, ""): Role.FAILED,
    (Service.AMI, EventKind.INVALID_ACCOUNT_ID, ""): Role.FAILED,
    (Service.AMI, EventKind.INVALID_PASSWORD, ""): Role.FAILED,
    (Service.AMI, EventKind.CHALLENGE_RESPONSE_FAILED, ""): Role.FAILED,
    (Service.AMI, EventKind.FAILED_ACL, ""): Role.FAILED,
    (Service.PJSIP, EventKind.SUCCESSFUL_AUTH, ""): Role.SUCCESS,
    (Service.SIP, EventKind.SUCCESSFUL_AUTH, ""): Role.SUCCESS,
    (Service.AMI, EventKind.SUCCESSFUL_AUTH, ""): Role.SUCCESS,
    (Service.PJSIP, EventKind.HIDDEN, ""): Role.OPENER,
    (Service.PJSIP, EventKind.REFUSED, ""): Role.FAILED,
    (Service.PJSIP, EventKind.DIVERTED, ""): Role.FAILED,
    (Service.PJSIP, EventKind.FAILED_ACL, "no_extension_match"): Role.PROBE,
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
"""The role of each kind of event, by its service, its kind and the name of its ACL."""


class Connected:
    """A fake for the kernel's TCP connections: ``remotes`` are all that exist."""

    def __init__(self, *remotes: tuple[str, int]) -> None:
        self.remotes = {(ip_address(address), port) for address, port in remotes}

    def has(self, remote: Endpoint, now: float) -> bool:
        """Whether this address and port has a connection."""
        return (remote.address, remote.port) in self.remotes

    def backs(self, remote: Endpoint, length: int, now: float) -> bool:
        """Whether this address and port has a connection."""
        return self.has(remote, now)

    def had_any(self, address: Address, now: float) -> bool:
        """Whether this address has a connection."""
        return any(address == known for known, _ in self.remotes)


def event(
    kind: EventKind,
    time: float = 0.0,
    *,
    source: SourceId = PBX,
    service: Service = Service.PJSIP,
    address: str = SENDER,
    port: int = 5062,
    transport: Transport = Transport.UDP,
    account: str = "alice",
    session: bytes = b"call-1",
    acl_name: str = "",
    challenge: bytes = b"",
    response: bytes = b"",
    tampered: bool = False,
) -> SecurityEvent:
    """Return the event that one source reports at ``time``."""
    remote = Endpoint(ip_address(address), port, transport)
    return SecurityEvent(
        source, kind, service, remote, time, account, session, acl_name, challenge, response, tampered
    )


def attempt(
    address: str = SENDER,
    time: float = 0.0,
    *,
    kind: AttemptKind = AttemptKind.GUESS,
    proof: Proof = Proof.CLAIMED,
    trusted: bool = True,
    account: str = "alice",
) -> Attempt:
    """Return one attempt of ``address`` at ``time``."""
    return Attempt(
        asterisk="pbx",
        address=ip_address(address),
        kind=kind,
        proof=proof,
        service=Service.PJSIP,
        transport=Transport.UDP,
        account=account,
        event=EventKind.CHALLENGE_RESPONSE_FAILED,
        time=time,
        trusted=trusted,
    )
