"""Security events and attempts with default values for all that a test leaves out."""

from ipaddress import ip_address

from ringfence.model import (
    Address,
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
SECURITY = SourceId("pbx", "log:full#security")
SENDER = "192.0.2.7"


class Connected:
    """A fake for the kernel's TCP connections: ``remotes`` are all that exist."""

    def __init__(self, *remotes: tuple[str, int]) -> None:
        self.remotes = {(ip_address(address), port) for address, port in remotes}

    def backs(self, remote: Endpoint, length: int) -> bool:
        """Whether this address and port has a connection."""
        return (remote.address, remote.port) in self.remotes

    def had_any(self, address: Address) -> bool:
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
