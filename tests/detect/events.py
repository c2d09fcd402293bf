"""Security events and attempts with as little said as a test needs."""

from ipaddress import ip_address

from ringfence.model import (
    Attempt,
    AttemptKind,
    Endpoint,
    EventKind,
    Proof,
    SecurityEvent,
    Service,
    SourceId,
    Transport,
)

PBX = SourceId("pbx", "ami")
NOTICES = SourceId("pbx", "log:full#notice")
SENDER = "192.0.2.7"


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
    """Give what one source said at ``time``."""
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
    """Give one attempt of ``address`` at ``time``."""
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
