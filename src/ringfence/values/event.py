"""Reports of the sources of an Asterisk: security events, and the services and transports in them."""

from hashlib import blake2b
from typing import Self

from attrs import Factory, field, frozen

from ringfence.values import fast
from ringfence.values.network import Address

MOST_KEPT = 512
"""The greatest length of a sender's text in an event or an answer, such as an account or a nonce (bytes).

A sender may write 60 kB into each. Events are kept for minutes, so their texts must be short.
"""

MOST_SESSION = 128
"""The greatest length of a session id (bytes); those of phones have some 40."""


def short_session(session: bytes) -> bytes:
    """Return a session id (a Call-ID) as it is, or a digest of it if it is longer than MOST_SESSION."""
    if len(session) <= MOST_SESSION:
        return session
    return blake2b(session).digest() + b"#"


MOST_ACCOUNT = 48
"""The greatest length of an account that is compared and kept (bytes). Those of phones have some ten."""


def short_account(account: str) -> str:
    """Return an account, cut to ``MOST_ACCOUNT`` bytes: senders must not choose how much memory it takes.

    The parsers cut the account of each event and of each copied request. Accounts from elsewhere, such as
    decoys, are cut before they are compared.
    """
    if len(account) * 4 <= MOST_ACCOUNT or (account.isascii() and len(account) <= MOST_ACCOUNT):
        return account
    return account.encode("utf-8", "replace")[:MOST_ACCOUNT].decode("utf-8", "ignore")


AMBIGUOUS = 1
"""The bit of a fingerprint that only ambiguous requests have (:func:`ambiguous_fingerprint`)."""

_FINGERPRINT_BITS = 0xFFFFFFFE  # the history keeps four bytes for each attempt


def fingerprint(challenge: bytes, response: bytes) -> int:
    """Return a number for a nonce and the response to it, by which two reports of one guess are recognized.

    It is even, never 0, and valid while this process runs. Python's hash is secret, so no sender can choose
    two guesses with the same number.
    """
    return hash((challenge.lower(), response.lower())) & _FINGERPRINT_BITS or 2


def ambiguous_fingerprint(digest: bytes) -> int:
    """Return the fingerprint of an ambiguous request, which no report of AMI has; ``digest`` is its hash."""
    return fingerprint(digest, b"") | AMBIGUOUS


class Service(fast.KeyEnum):
    """The part of Asterisk that the remote party talked to.

    Only PJSIP, SIP and AMI raise security events (``main/security_events.c``); the others write log lines.
    """

    PJSIP = "PJSIP"
    SIP = "SIP"
    AMI = "AMI"
    IAX2 = "IAX2"
    DIALPLAN = "dialplan"
    KERNEL = "kernel"  # not a part of Asterisk: the kernel counted the packets of a flood


class Transport(fast.KeyEnum):
    """The transport by which the remote party reached Asterisk (``main/json.c:ast_json_ipaddr``)."""

    UDP = "UDP"
    TCP = "TCP"
    TLS = "TLS"
    WS = "WS"
    WSS = "WSS"
    UNKNOWN = "unknown"


DATAGRAMS = (Transport.UDP, Transport.UNKNOWN)
"""The transports by which the sender of an event may be forged; others need a connection."""


class EventKind(fast.KeyEnum):
    """The kinds of security event, named as in ``main/security_events.c``, and some of ringfence's own.

    ``reason`` is why Asterisk refused the attempt, in words for people.
    """

    def __new__(cls, value: str, reason: str = "") -> Self:
        """Return the member for ``value``. Without ``reason``, the value is the reason."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.reason = reason or value
        return member

    reason: str

    FAILED_ACL = "FailedACL", "ACL"
    INVALID_ACCOUNT_ID = "InvalidAccountID", "no such account"
    SESSION_LIMIT = "SessionLimit"
    MEMORY_LIMIT = "MemoryLimit"
    LOAD_AVERAGE_LIMIT = "LoadAverageLimit"
    REQUEST_NOT_SUPPORTED = "RequestNotSupported"
    REQUEST_NOT_ALLOWED = "RequestNotAllowed"
    AUTH_METHOD_NOT_ALLOWED = "AuthMethodNotAllowed"
    REQUEST_BAD_FORMAT = "RequestBadFormat"
    SUCCESSFUL_AUTH = "SuccessfulAuth"
    UNEXPECTED_ADDRESS = "UnexpectedAddress"
    CHALLENGE_RESPONSE_FAILED = "ChallengeResponseFailed", "wrong password"
    INVALID_PASSWORD = "InvalidPassword", "wrong password"
    CHALLENGE_SENT = "ChallengeSent"
    INVALID_TRANSPORT = "InvalidTransport", "wrong transport"
    # Those of ringfence:
    HIDDEN = "Hidden", "hidden"  # the wire saw a challenge that Asterisk did not report
    REFUSED = "Refused", "wrong password or account"  # the wire saw it: a request with credentials
    UNEXPLAINED = "Unexplained", "unexplained by TLS"  # an answer by TLS that no event and no login explains
    DIVERTED = "Diverted", "answer sent elsewhere"  # the wire saw a request whose answer goes to nobody
    BARE_ADDRESS = "BareAddress", "asked for no name of the PBX"  # the wire saw it
    LIMITED = "Limited", "flood"  # the sender exceeded the packet limit of the kernel's rules


AMI = "ami"
"""The source name of the manager interface (AMI) of an Asterisk."""

WIRE = "wire"
"""The source name of the SIP packets (answers 401 and others) that the kernel copies."""

SETUP_ACCOUNT = "ringfence-setup-test"
"""The account of the failed login with which setup tests the sources. No PBX has it."""


@frozen(cache_hash=True)
class SourceId:
    """One source of one Asterisk: the names of the Asterisk and of the source.

    The names of sources are ``ami``, ``wire``, ``log:PATH``, and ``journal`` for systemd's journal. A name
    that ends with ``#security`` or ``#notice`` stands for the lines of this kind in a log. ``text``: senders
    can forge what this source reports. That is so for every source but AMI and the wire.
    """

    asterisk: str
    name: str
    text: bool = field(
        default=Factory(lambda one: one.name not in (AMI, WIRE), takes_self=True), eq=False, repr=False
    )

    def __str__(self) -> str:
        return f"{self.asterisk}/{self.name}"

    @property
    def notices(self) -> bool:
        """Whether this source is the NOTICE lines of a log."""
        return self.name.endswith("#notice")


@fast.frozen
class Endpoint:
    """The address, port and transport of one end of a SIP or AMI connection."""

    address: Address
    port: int
    transport: Transport


@fast.frozen
class SecurityEvent:
    r"""A security event: one parsed message of one source (AMI, a log, or a copied packet).

    ``remote`` is the sender of the request, as the message names it. ``account`` (cut by
    :func:`short_account`) and ``acl_name`` are hostile text for display; bytes that are not UTF-8 are written
    as ``\xNN``. ``session`` (the Call-ID), ``challenge`` (the nonce) and ``response`` (the digest) are raw
    bytes, used only for comparison.

    ``time`` is the event's own time (``EventTV``), in seconds since the epoch. ``password`` means that
    Asterisk verified a password (successes only). ``tampered`` means that text of the sender has broken the
    form in which Asterisk writes the message. Such an event counts, raises an alarm, and is never accepted as
    a success. ``forgeable`` means that the sender may have written the address in the message. For example,
    an ESC in a SIP header can make a well-formed log line name another address. The line does not show the
    ESC, because ``main/term.c:term_strip`` removes everything from an ESC to the next ``m``.

    ``readings`` is () unless a log line can be read in several ways. Then it has one event for each address
    that the line may name; the first one is a copy of this event.

    ``method`` is the SIP method of the request, such as ``OPTIONS``: one of ``METHODS``, or ``UNNAMED``. Only
    PJSIP's notices name it. It is empty if it is unknown.

    ``evidence`` is what else the request shows, for a rule that counts it, such as a dialled number (cut by
    :func:`short_account`). It is empty if no rule needs it.

    ``relayed`` means that ``remote`` is a client of a SIP proxy, and that the message named the proxy.
    ``copied``: the kernel has copied the request, so ``remote`` has written it (events of the wire only).
    ``fingerprint`` is that of the copied request (:class:`~ringfence.values.packet.CopiedRequest`).
    """

    source: SourceId
    kind: EventKind
    service: Service
    remote: Endpoint
    time: float
    account: str
    session: bytes
    acl_name: str = ""
    challenge: bytes = b""
    response: bytes = b""
    tampered: bool = False
    forgeable: bool = False
    password: bool = False
    readings: "tuple[SecurityEvent, ...]" = ()
    method: str = ""
    relayed: bool = False
    copied: bool = False
    evidence: str = ""
    fingerprint: int = 0


METHODS = frozenset(
    (
        *("REGISTER", "INVITE", "OPTIONS", "SUBSCRIBE", "MESSAGE", "PUBLISH", "NOTIFY", "INFO", "REFER"),
        *("UPDATE", "PRACK", "BYE", "CANCEL", "ACK"),
    )
)
"""The SIP methods that are known by name."""

UNNAMED = "unnamed"
"""The method in a notice of Asterisk before 13.10, which names none, and logs no wrong password."""


def method_of(name: bytes) -> str:
    """Return the SIP method that ``name`` is, "" for an unknown one. PJSIP and chan_sip ignore case."""
    method = name[:16].upper().decode("ascii", "replace")
    return method if method in METHODS else ""
