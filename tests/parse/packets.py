"""Packets as Asterisk writes them, header by header (main/security_events.c), and streams made of them."""

import random
from collections.abc import Sequence

from ringfence.parse.ami import END, AmiDecoder
from ringfence.parse.ami_http import AmiItem, Banner
from ringfence.values.event import EventKind, SecurityEvent, Service, SourceId

SOURCE = SourceId("pbx", "ami")
SPEAKING = (Service.PJSIP, Service.SIP, Service.AMI)
"""The services that raise security events."""
BANNER = b"Asterisk Call Manager/11.0.0\r\n"
TIME = b"2026-11-20T06:05:22.090+0000"
SECONDS = 1795154722.09
REMOTE = b"IPV4/UDP/192.0.2.7/5062"
LOCAL = b"IPV4/UDP/198.51.100.1/5060"
POINTER, BY_TCP = b"0x7fa409b90620", b"IPV4/TCP/192.0.2.7/5062"
"""The session and the remote address of a manager event."""

REQUIRED: dict[EventKind, tuple[bytes, ...]] = {
    EventKind.FAILED_ACL: (),
    EventKind.INVALID_ACCOUNT_ID: (),
    EventKind.SESSION_LIMIT: (),
    EventKind.MEMORY_LIMIT: (),
    EventKind.LOAD_AVERAGE_LIMIT: (),
    EventKind.REQUEST_NOT_SUPPORTED: (b"RequestType: R",),
    EventKind.REQUEST_NOT_ALLOWED: (b"RequestType: R",),
    EventKind.AUTH_METHOD_NOT_ALLOWED: (b"AuthMethod: M",),
    EventKind.REQUEST_BAD_FORMAT: (b"RequestType: R",),
    EventKind.SUCCESSFUL_AUTH: (b"UsingPassword: 1",),
    EventKind.UNEXPECTED_ADDRESS: (b"ExpectedAddress: " + LOCAL,),
    EventKind.CHALLENGE_RESPONSE_FAILED: (b"Challenge: C", b"Response: R", b"ExpectedResponse: E"),
    EventKind.INVALID_PASSWORD: (),
    EventKind.CHALLENGE_SENT: (b"Challenge: C",),
    EventKind.INVALID_TRANSPORT: (b"AttemptedTransport: UDP",),
}
"""The headers that each kind must have after the tail."""

_SESSION_TV = b"SessionTV: " + TIME
OPTIONAL: dict[EventKind, tuple[bytes, ...]] = dict.fromkeys(EventKind, (b"Module: M", _SESSION_TV)) | {
    EventKind.FAILED_ACL: (b"Module: M", b"ACLName: A", _SESSION_TV),
    EventKind.REQUEST_NOT_ALLOWED: (b"Module: M", _SESSION_TV, b"RequestParams: P"),
    EventKind.REQUEST_BAD_FORMAT: (b"Module: M", _SESSION_TV, b"AccountID: alice", b"RequestParams: P"),
    EventKind.INVALID_PASSWORD: (
        b"Module: M",
        _SESSION_TV,
        b"Challenge: C",
        b"ReceivedChallenge: RC",
        b"ReceivedHash: RH",
    ),
}
"""The headers that may follow those, in this order."""


def head(kind: EventKind, service: bytes = b"PJSIP", extra: tuple[bytes, ...] = ()) -> list[bytes]:
    """Return the headers before the account; ``extra`` are those of timestampevents, debug and systemname."""
    informational = kind in (EventKind.SUCCESSFUL_AUTH, EventKind.CHALLENGE_SENT)
    version = b"2" if kind in (EventKind.UNEXPECTED_ADDRESS, EventKind.INVALID_PASSWORD) else b"1"
    return [
        b"Event: " + kind.encode(),
        b"Privilege: security,all",
        *extra,
        b"EventTV: " + TIME,
        b"Severity: " + (b"Informational" if informational else b"Error"),
        b"Service: " + service,
        b"EventVersion: " + version,
    ]


def tail(session: bytes = b"call-1", remote: bytes = REMOTE, local: bytes = LOCAL) -> list[bytes]:
    """Return the three headers after the account."""
    return [b"SessionID: " + session, b"LocalAddress: " + local, b"RemoteAddress: " + remote]


def packet(
    kind: EventKind = EventKind.INVALID_ACCOUNT_ID,
    *,
    service: bytes = b"PJSIP",
    account: bytes = b"alice",
    session: bytes | None = None,
    remote: bytes | None = None,
    extra: tuple[bytes, ...] = (),
    rest: tuple[bytes, ...] | None = None,
) -> bytes:
    """Return one packet with its closing empty line; the tail is by default as the service writes it."""
    manager = service == b"AMI"
    if session is None:
        session = POINTER if manager else b"call-1"
    if remote is None:
        remote = BY_TCP if manager else REMOTE
    local = LOCAL.replace(b"UDP", b"TCP") if manager else LOCAL
    said = [] if kind is EventKind.REQUEST_BAD_FORMAT else [b"AccountID: " + account]
    rest = REQUIRED[kind] if rest is None else rest
    return b"\r\n".join([*head(kind, service, extra), *said, *tail(session, remote, local), *rest]) + END


def run(chunks: Sequence[bytes]) -> tuple[list[AmiItem], AmiDecoder]:
    """Decode a connection that sends ``chunks``, wait until nothing is held, and return its items."""
    decoder = AmiDecoder(SOURCE)
    items: list[AmiItem] = []
    for chunk in chunks:
        items += decoder.receive(chunk, 0.0)
    return items + decoder.tick(1.0), decoder


def read(stream: bytes) -> tuple[list[AmiItem], AmiDecoder]:
    """Decode what follows a banner: whole, byte by byte and at random splits, with equal results.

    As with h11's ``tr``, one example is a test of framing as well. Bytes of an incomplete packet after it
    change nothing.
    """
    stream = BANNER + stream
    whole, decoder = run([stream])
    assert whole[0] == Banner("11.0.0")
    bytewise, other = run([bytes([byte]) for byte in stream])
    assert (bytewise, other.counts) == (whole, decoder.counts)
    chance = random.Random(len(stream))  # noqa: S311 - no secret
    for _ in range(5):
        cuts = sorted(chance.choices(range(len(stream) + 1), k=8))
        pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        split, other = run(pieces)
        assert (split, other.counts) == (whole, decoder.counts)
    trailed, other = run([stream + b"Event: Invalid"])
    assert (trailed, other.counts) == (whole, decoder.counts)
    return whole[1:], decoder


def events(stream: bytes) -> list[SecurityEvent]:
    """Decode security events and nothing else."""
    items, _ = read(stream)
    found = [one for one in items if isinstance(one, SecurityEvent)]
    assert found == items
    return found
