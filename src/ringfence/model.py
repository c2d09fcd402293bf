"""The values that cross rooms: frozen, typed, and of no room in particular.

The words are those of the field: a *security event* is one thing one source said; an *attempt* is one
thing the remote party did, told by one or more security events; a *ban* is what follows from too many.
Addresses are :mod:`ipaddress` objects from the parser on. Times on the wall clock are seconds since the
epoch; times for windows are monotonic seconds and are never stored.
"""

import enum
from collections.abc import Sequence
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import NamedTuple, TypeAlias

from attrs import field, frozen

from ringfence import quick

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network


def network_from(text: str) -> Network:
    """Read an address or a network as people write it; ValueError where it is none.

    IPv4 in IPv6 clothes becomes the IPv4 that the packets carry; a zone is refused, since firewall sets know
    none.
    """
    if "%" in text:
        raise ValueError(f"{text!r} has a zone; leave it out")
    network = ip_network(text)
    if isinstance(network, IPv6Network) and network.subnet_of(_IPV4_IN_IPV6):
        return IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network


_IPV4_IN_IPV6 = IPv6Network("::ffff:0:0/96")


def shown(network: Network) -> str:
    """Write a network as people do: a single address without its length."""
    single = network.prefixlen == network.max_prefixlen
    return str(network.network_address if single else network)


class Service(enum.StrEnum):
    """Which part of Asterisk the remote party spoke to.

    PJSIP, SIP and AMI raise security events (``main/security_events.c``), and no other part does. Of IAX2 and
    of what a dialplan refuses only log lines tell.
    """

    PJSIP = "PJSIP"
    SIP = "SIP"
    AMI = "AMI"
    IAX2 = "IAX2"
    DIALPLAN = "dialplan"
    KERNEL = "kernel"  # no part of Asterisk: what was counted before it came there


class Transport(enum.StrEnum):
    """How the remote party reached Asterisk (``main/json.c:ast_json_ipaddr``)."""

    UDP = "UDP"
    TCP = "TCP"
    TLS = "TLS"
    WS = "WS"
    WSS = "WSS"
    UNKNOWN = "unknown"


class EventKind(enum.StrEnum):
    """The kinds of security event, named as Asterisk names them (``main/security_events.c``), and one."""

    FAILED_ACL = "FailedACL"
    INVALID_ACCOUNT_ID = "InvalidAccountID"
    SESSION_LIMIT = "SessionLimit"
    MEMORY_LIMIT = "MemoryLimit"
    LOAD_AVERAGE_LIMIT = "LoadAverageLimit"
    REQUEST_NOT_SUPPORTED = "RequestNotSupported"
    REQUEST_NOT_ALLOWED = "RequestNotAllowed"
    AUTH_METHOD_NOT_ALLOWED = "AuthMethodNotAllowed"
    REQUEST_BAD_FORMAT = "RequestBadFormat"
    SUCCESSFUL_AUTH = "SuccessfulAuth"
    UNEXPECTED_ADDRESS = "UnexpectedAddress"
    CHALLENGE_RESPONSE_FAILED = "ChallengeResponseFailed"
    INVALID_PASSWORD = "InvalidPassword"  # noqa: S105 - an event's name
    CHALLENGE_SENT = "ChallengeSent"
    INVALID_TRANSPORT = "InvalidTransport"
    HIDDEN = "Hidden"  # none of Asterisk's: the wire saw a challenge that Asterisk does not tell of
    LIMITED = "Limited"  # none of Asterisk's: the kernel's limiter dropped packets


AMI = "ami"
"""The witness that is an Asterisk's manager interface."""


@frozen
class SourceId:
    """A witness of one Asterisk: which PBX, and by which way it speaks (``ami``, ``log:PATH#notice``)."""

    asterisk: str
    witness: str

    def __str__(self) -> str:
        return f"{self.asterisk}/{self.witness}"

    @property
    def notices(self) -> bool:
        """Whether this witness is the NOTICE lines of a log, which a log tells beside its SECURITY lines."""
        return self.witness.endswith("#notice")


@quick.frozen
class Endpoint:
    """A remote or local end of a SIP or AMI conversation."""

    address: Address
    port: int
    transport: Transport


@quick.frozen
class SecurityEvent:
    r"""One thing one source said, parsed and typed.

    ``account`` and ``acl_name`` are text for people: hostile, with what is not UTF-8 written as ``\xNN``.
    ``session``, ``challenge`` and ``response`` are the raw bytes, only ever compared. ``time`` is the
    event's own (``EventTV``), in seconds since the epoch. ``tampered`` means that the packet did not keep
    Asterisk's grammar: the event counts, raises an alarm, and is never believed as a success.

    ``hearsay`` means that what the sender wrote may decide whom the event names: an ESC in a header makes
    Asterisk write a well-formed line of the log that names a stranger, and no text shows it
    (``main/term.c:term_strip`` leaves out what stands between an ESC and the next ``m``).

    ``password`` says of a SuccessfulAuth that a password was verified for it (``UsingPassword``).
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
    hearsay: bool = False
    password: bool = False


@frozen
class Challenge:
    """A SIP 401 or 407 that left this host, or a container of it, by UDP, as the kernel saw it leave.

    ``address`` and ``port`` are where it really went, ``local_address`` and ``local_port`` where from; a
    container's own address is the one it has inside. ``call_id`` and ``nonce`` are raw bytes, only ever
    compared, and empty where the packet did not hold them (a fragment was cut off before).

    That a challenge went to an address blames nobody: it goes where a Via ``maddr`` says. ``sender`` is the
    address that the challenged request came from, where Asterisk tells: it notes it in the Via, in a place
    where no sender can write. None where that is not sure.

    ``veiled``: the request held bytes that silence or forge what Asterisk tells of it, and that no phone
    sends. ``account`` is the sender's own text, for people to read. ``service`` is who answered: PJSIP, or
    else chan_sip.
    """

    address: Address
    port: int
    local_address: Address
    local_port: int
    call_id: bytes
    nonce: bytes
    sender: Address | None = None
    veiled: bool = False
    account: str = ""
    service: Service = Service.PJSIP


class Proof(enum.IntEnum):
    """How well an attempt's address is known; more is better.

    ``CLAIMED``: a single datagram, or chan_sip, whose address a Via ``maddr`` rewrites on any transport.
    ``NONCE``: the sender answered a challenge that was sent to that address (the wire will tell).
    ``HANDSHAKE``: TCP, TLS, WS or WSS under PJSIP, or AMI.
    """

    CLAIMED = 0
    NONCE = 1
    HANDSHAKE = 2


class AttemptKind(enum.StrEnum):
    """What was tried, and so which rules may count it."""

    GUESS = "guess"
    PROBE = "probe"
    MANAGER = "manager"
    FLOOD = "flood"  # a second over the kernel's limit of packets


@quick.frozen
class Attempt:
    """One thing the remote party did. ``time`` is the wall-clock time of the event that told it.

    ``trusted`` is false where the address may be a stranger's that somebody wrote into a header (chan_sip
    without a second witness): such an attempt is listed, and bans nobody. ``aimed_at`` is the stranger whom
    the event named where the wire knew better. ``session`` is a number that stands for the session, 0 where
    none is known; ``sources`` are the witnesses that told of it.
    """

    asterisk: str
    address: Address
    kind: AttemptKind
    proof: Proof
    service: Service
    transport: Transport
    account: str
    event: EventKind
    time: float
    trusted: bool
    tampered: bool = False
    aimed_at: Address | None = None
    session: int = field(default=0, eq=False)
    sources: tuple[str, ...] = field(default=(), eq=False)


class Origin(enum.StrEnum):
    """Who decided on a ban."""

    RULE = "rule"
    ADMIN = "admin"
    ADOPTED = "adopted"  # found in the kernel at start, with no record of ours


class Scope(enum.StrEnum):
    """What a ban covers: everything, or no more than what a forged datagram can ask for."""

    FULL = "full"
    SIP_UDP = "sip-udp"  # UDP to and from the SIP ports


@frozen
class Ban:
    """A network that is to be kept out, from and until when (seconds since the epoch), and why.

    ``rule`` is the rule's name for a rule's ban, else the origin's. ``attempts`` is what led to it, oldest
    first, at most as many as the rule counts. ``offence`` is 2 where it is the second ban within the time
    that rules remember, and so on. ``forced``: an administrator insisted, whatever protects the network.
    """

    network: Network
    since: float
    expires: float
    rule: str
    reason: str = ""
    origin: Origin = Origin.RULE
    attempts: tuple[Attempt, ...] = ()
    scope: Scope = Scope.FULL
    offence: int = 1
    forced: bool = False


class Made(NamedTuple):
    """How many attempts led to a ban, and of how many of them the address is proven."""

    attempts: int = 0
    proven: int = 0

    @classmethod
    def by(cls, attempts: Sequence[Attempt]) -> "Made":
        """Count attempts."""
        return cls(len(attempts), sum(attempt.proof is not Proof.CLAIMED for attempt in attempts))


class Tie(enum.StrEnum):
    """What makes an address a friend of this PBX."""

    AUTHENTICATED = "authenticated"  # a right password came from there, and the address is proven
    REACHABLE = "reachable"  # Asterisk has a contact there, and it answers
    REGISTERED = "registered"  # Asterisk has a contact there; the address is what the phone says
    TRUNK = "trunk"  # this PBX registers there
    IMPORTED = "imported"  # another server of a pair knows it


@frozen
class Friend:
    """One reason why an address belongs to this PBX; an address may have many.

    ``account`` is the account that works there, or the trunk's name. ``since`` is when it was met first,
    ``seen`` when last, ``until`` when the reason is over (seconds since the epoch).
    """

    asterisk: str
    address: Address
    account: str
    tie: Tie
    since: float
    seen: float
    until: float

    @property
    def proven(self) -> bool:
        """Whether more than a phone's own word says that the address is its."""
        return self.tie is not Tie.REGISTERED


@frozen
class Contact:
    """Where Asterisk says that a phone is.

    ``address`` is the host of the contact: the true source where Asterisk rewrites contacts, else what the
    phone claims. ``until`` is when the registration is over (seconds since the epoch), None where that is not
    told. ``reachable``: it answered Asterisk there lately. ``gone``: it is no more.
    """

    asterisk: str
    service: Service
    account: str
    address: Address
    until: float | None = None
    reachable: bool = False
    gone: bool = False


@frozen
class TrunkHost:
    """A server at which this PBX registers: ``host`` is a name or an address, as it is configured.

    ``port`` is None where none is named, and then SRV records tell where it leads.
    """

    asterisk: str
    service: Service
    name: str
    host: str
    port: int | None
    transport: Transport


@frozen
class Roster:
    """What an Asterisk has, all of it: who is not in it is not there.

    ``contacts`` and ``trunks`` are None where they could not be asked for; ``lacks`` says what was refused,
    a line each.
    """

    asterisk: str
    contacts: tuple[Contact, ...] | None
    trunks: tuple[TrunkHost, ...] | None
    lacks: tuple[str, ...] = ()


@frozen
class Notice:
    """What the evidence says that an administrator has to know: an alarm's name, whom it is about, a text.

    ``over`` takes it back; else it stands for ``lasts`` seconds after it was last given.
    """

    name: str
    subject: str
    text: str
    over: bool = False
    lasts: float = 600.0


class Side(enum.StrEnum):
    """Which of the administrator's two lists: whom nothing bans, and whom nothing lets in."""

    ALLOW = "allow"
    DENY = "deny"


@frozen
class ListEntry:
    """A line of the administrator's lists, as it was written.

    ``what`` is a network, a host's name, or a country or a network number (``country DE``, ``AS64496``);
    ``origin`` is where it comes from: ``command``, ``configuration``, or the file that it was imported from.
    ``until`` is when it ends by itself (seconds since the epoch), None for never. ``forced``: it may deny
    what is otherwise protected.
    """

    side: Side
    what: str
    note: str
    added: float
    until: float | None = None
    origin: str = "command"
    forced: bool = False


class Secret:
    """A password that shows itself to nobody who does not ask with :meth:`reveal`.

    ``repr``, ``str``, formatting, pickling and logging give a mask or fail; equality compares in the clear.
    """

    __slots__ = ("_clear",)

    def __init__(self, clear: str) -> None:
        self._clear = clear

    def reveal(self) -> str:
        """Give the password itself, for the one place that sends it."""
        return self._clear

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._clear == self._clear

    def __hash__(self) -> int:
        return hash(self._clear)

    def __repr__(self) -> str:
        return "Secret('***')"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a Secret is not pickled")


def printable(text: str) -> str:
    """Give hostile text as a terminal or a log may show it: what is not printable as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def rfc3339(seconds: float) -> str:
    """Write a wall-clock time as RFC 3339 has it, in UTC, to the second."""
    # strftime takes twice as long, and a listing has two hundred thousand of them.
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")
