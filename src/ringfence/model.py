"""Immutable value types that all packages share.

These words have one meaning in all of ringfence. A *security event* is one parsed message of one source. An
*attempt* is one thing the remote party did; one or more security events report it. A *ban* is the result of
too many attempts. Addresses are :mod:`ipaddress` objects from the parser on. Times that are shown or stored
are seconds since the epoch. Times that are only compared with each other (is this attempt still in the time
window of a rule?) are monotonic seconds; they are never stored.
"""

import enum
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import NamedTuple, Protocol, Self, TypeAlias
from urllib.parse import urlsplit

from attrs import Factory, field, frozen

from ringfence import event_values
from ringfence.alarm_codes import AlarmCode

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network


def parse_network(text: str) -> Network:
    """Parse an address or a network; raise ValueError if ``text`` is neither, or has a zone (``%eth0``).

    IPv4-mapped IPv6 addresses are converted to IPv4, because packets carry the IPv4 address.
    """
    if "%" in text:
        raise ValueError(f"{text!r} has a zone; leave it out")
    network = ip_network(text)
    if isinstance(network, IPv6Network) and network.subnet_of(_IPV4_IN_IPV6):
        return IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network


_IPV4_IN_IPV6 = IPv6Network("::ffff:0:0/96")


def format_network(network: Network) -> str:
    """Return the text of a network; a single address is written without its prefix length."""
    single = network.prefixlen == network.max_prefixlen
    return str(network.network_address if single else network)


class _Name(enum.StrEnum):
    """An enum for dictionary keys. Its members have the hash of str, because Enum's own hash is slow."""

    __hash__ = str.__hash__


MOST_KEPT = 512
"""The greatest length of a sender's text in an event or an answer, such as an account or a nonce (bytes).

A sender may write 60 kB into each. Events are kept for minutes, so their texts must be short.
"""

MOST_SESSION = 128
"""The greatest length of a session id (bytes); those of phones have some 40."""


def short_session(session: bytes) -> bytes:
    """Return a session id (a Call-ID) of limited size: of a long one, a digest that all sources share."""
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


class Service(_Name):
    """The part of Asterisk that the remote party talked to.

    Only PJSIP, SIP and AMI raise security events (``main/security_events.c``); the others write log lines.
    """

    PJSIP = "PJSIP"
    SIP = "SIP"
    AMI = "AMI"
    IAX2 = "IAX2"
    DIALPLAN = "dialplan"
    KERNEL = "kernel"  # not a part of Asterisk: the kernel counted the packets of a flood


class Transport(_Name):
    """The transport by which the remote party reached Asterisk (``main/json.c:ast_json_ipaddr``)."""

    UDP = "UDP"
    TCP = "TCP"
    TLS = "TLS"
    WS = "WS"
    WSS = "WSS"
    UNKNOWN = "unknown"


class EventKind(_Name):
    """The kinds of security event, named as in ``main/security_events.c``, and some of ringfence's own."""

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
    HIDDEN = "Hidden"  # ringfence's own: the wire saw a challenge that Asterisk did not report
    REFUSED = "Refused"  # ringfence's own: the wire saw Asterisk refuse a request with credentials
    UNEXPLAINED = "Unexplained"  # ringfence's own: an answer by TLS that no event and no login explains
    DIVERTED = "Diverted"  # ringfence's own: the wire saw a request whose answer goes to nobody
    LIMITED = "Limited"  # ringfence's own: the sender exceeded the packet limit of the kernel's rules


AMI = "ami"
"""The name of a source: the manager interface (AMI) of an Asterisk."""

WIRE = "wire"
"""The name of a source: the answers (401 and others) that leave this host, as the kernel copies them."""

SETUP_ACCOUNT = "ringfence-setup-test"
"""The account of the failed login with which setup tests the sources. No PBX has it."""

_NOT_TEXT = frozenset({AMI, WIRE})


@frozen(cache_hash=True)
class SourceId:
    """One source of one Asterisk: the names of the Asterisk and of the source.

    The names of sources are ``ami``, ``wire``, ``log:PATH``, and ``log:PATH#notice`` for the NOTICE lines of
    a log. ``text``: the source is a log, and a sender can forge its lines.
    """

    asterisk: str
    name: str
    text: bool = field(init=False, eq=False, repr=False)

    @text.default
    def _is_text(self) -> bool:
        return self.name not in _NOT_TEXT

    def __str__(self) -> str:
        return f"{self.asterisk}/{self.name}"

    @property
    def notices(self) -> bool:
        """Whether this source is the NOTICE lines of a log."""
        return self.name.endswith("#notice")


@event_values.frozen
class Endpoint:
    """The address, port and transport of one end of a SIP or AMI connection."""

    address: Address
    port: int
    transport: Transport


@event_values.frozen
class SecurityEvent:
    r"""One parsed message of one source.

    ``remote`` is the sender of the request, as the message names it. ``account`` (cut by
    :func:`short_account`) and ``acl_name`` are hostile text for display; bytes that are not UTF-8 are written
    as ``\xNN``. ``session`` (the Call-ID),
    ``challenge`` (the nonce) and ``response`` (the digest) are raw bytes, used only for comparison. ``time``
    is the event's own time (``EventTV``), in seconds since the epoch. ``password`` means that Asterisk
    verified a password (successes only). ``tampered`` means that text of the sender has broken the form in
    which Asterisk writes the message. The event counts, raises an alarm, and is never accepted as a success.
    ``forgeable`` means that the sender may have written the address in the message. For example, an ESC in a
    SIP header can make a well-formed log line name another address. The line does not show the ESC, because
    ``main/term.c:term_strip`` removes everything from an ESC to the next ``m``.

    ``readings`` is () unless a log line can be read in several ways. Then it has one event for each address
    that the line may name; the first one is a copy of this event.

    ``method`` is the SIP method of the request, such as ``OPTIONS``: one of ``METHODS``, or ``UNNAMED``. Only
    PJSIP's notices name it. It is empty if it is unknown.

    ``relayed`` means that ``remote`` is a client of a SIP proxy, and that the message named the proxy.
    ``copied``: the kernel has copied the request, so ``remote`` has written it (events of the wire only).
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


@event_values.frozen
class Challenge:
    """A SIP answer that left this host or one of its containers, seen by the kernel.

    It is a 401, 403, 404 or 407, or any other answer by UDP to a stranger.

    ``address`` and ``port`` are its destination, ``local_address`` and ``local_port`` its origin. For a
    container the origin is the address inside the container. ``call_id`` and ``nonce`` are raw bytes, used
    only for comparison, and empty if the packet did not contain them. A 403 or 404 has no nonce. For these,
    ``digest`` is a hash of the answer, by which a retransmission is recognized.

    ``sender`` is the address from which the request came, None if it is uncertain. It may differ from the
    destination, because the sender can name another destination (``maddr`` in the Via header). Asterisk
    writes the real source address into the topmost Via, where the sender cannot change it.

    ``transport`` is ``UDP``, or ``TCP`` for TCP and WebSocket. With ``TCP``, the kernel has completed a
    handshake with the destination, so that address is not forged. ``relayed`` means that the answer has more
    than one Via, so its destination may forward it (RFC 3261 §16.7).

    ``sequence`` is the number in its CSeq header, which is that of the request; None if it is unknown.
    ``accepted`` means that the answer shows that the password was right: only the nonce was too old, or the
    right password does not permit the request.

    ``evasive`` means that the request contained bytes that suppress or forge Asterisk's own events. No phone
    sends such bytes. ``account`` is the sender's own text, for display. ``service`` is the part of Asterisk
    that answered: PJSIP or chan_sip.
    """

    address: Address
    port: int
    local_address: Address
    local_port: int
    call_id: bytes
    nonce: bytes
    sender: Address | None = None
    evasive: bool = False
    account: str = ""
    service: Service = Service.PJSIP
    status: int = 401
    transport: Transport = Transport.UDP
    relayed: bool = False
    digest: bytes = b""
    sequence: int | None = None
    accepted: bool = False


@event_values.frozen
class CopiedRequest:
    """A request of a stranger to a SIP port, which the kernel copied: a datagram, or a message by TCP.

    ``nonces``, ``call_ids`` and ``sequences`` (the numbers in CSeq headers) are the first few of the request,
    in every way in which an Asterisk may read it. ``credentials``: it may answer a challenge. ``digest`` is a
    hash of the request, by which a retransmission is recognized. ``dropped``: a ban drops it, so Asterisk
    does not get it. ``unread``: only its beginning was copied; by TCP, the connection is not read any more,
    and this is no request. ``account`` is the user name of its credentials. ``method`` is one of ``METHODS``,
    "" for another. ``transport`` is TCP also for a WebSocket. ``crowded``: it has more nonces, Call-IDs or
    numbers than are kept, so the true ones may be missing. ``diverted``: its answer may go elsewhere or
    nowhere, because of a ``maddr`` somewhere in a datagram, or because its sender's receive window is closed
    by TCP; without a Call-ID, this is so for the earlier requests of its connection. ``redirected``: a
    datagram whose Via has the answer sent to another address than its sender's. A request can be forged. But
    if it repeats a nonce that Asterisk sent only to this address, its sender receives packets there: the
    address is proven.

    ``page``: a browser opens a WebSocket for a web page of another site; this is no request.
    """

    address: Address
    port: int
    nonces: tuple[bytes, ...]
    call_ids: tuple[bytes, ...]
    sequences: tuple[int, ...] = ()
    credentials: bool = False
    digest: bytes = b""
    dropped: bool = False
    unread: bool = False
    account: str = ""
    transport: Transport = Transport.UDP
    method: str = ""
    crowded: bool = False
    diverted: bool = False
    redirected: bool = False
    page: bool = False


@event_values.frozen
class Exchange:
    """What one packet of this host shows of a stranger's stream that the wire cannot read.

    ``number`` answers begin in it, and it acknowledges ``asked`` bytes of the stranger. ``address`` and
    ``port`` are its destination. The kernel has completed a handshake with it. ``local_port`` is the port
    that sent it. ``opens``: bytes before belonged to a handshake. ``transport`` is TLS, also for WSS; or TCP,
    also for WS, if the stranger's requests are unread. The wire reads the answers to these.
    """

    address: Address
    port: int
    number: int
    local_port: int
    asked: int = 0
    opens: bool = False
    transport: Transport = Transport.TLS


class Proof(enum.IntEnum):
    """How well an attempt's source address is verified; a greater value is a better proof.

    ``CLAIMED``: not verified, as for a single UDP packet, and for chan_sip with any transport: ``maddr`` in a
    Via makes chan_sip report another address. ``NONCE``: the sender answered a challenge that the wire saw
    leave for that address. ``HANDSHAKE``: the kernel completed a TCP handshake with the address (TCP, TLS, WS
    or WSS under PJSIP, or AMI).
    """

    CLAIMED = 0
    NONCE = 1
    HANDSHAKE = 2


class AttemptKind(_Name):
    """The kind of an attempt, which decides the rules that count it."""

    GUESS = "guess"  # of a password or an account
    PROBE = "probe"  # such as a call of an extension that does not exist
    MANAGER = "manager"  # a failed login at the manager interface
    FLOOD = "flood"  # one second in which the sender exceeded the kernel's packet limit
    UNEXPLAINED = "unexplained"  # a request by TLS was answered, and no event and no login explains it


@event_values.frozen
class Attempt:
    """One thing the remote party did. ``time`` is the wall-clock time of the event that reported it.

    ``trusted`` is false if the sender may have written the address (in a log line, or in a Via header to
    chan_sip) and no other source confirms it. Such an attempt is listed, but leads to no ban. ``tampered``:
    text of the sender has broken the form of the message. ``forged_address`` is the address in the message,
    if another source proved that it is not the sender's; otherwise None. ``session`` is the number that
    ringfence gave to the SIP session (Call-ID), 0 if unknown. ``sources`` are the names of the sources that
    reported the attempt. ``credentials`` is false if the request had none, such as a call of a stranger.
    ``page``: a web page of another site made a browser send it.
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
    forged_address: Address | None = None
    session: int = field(default=0, eq=False)
    sources: tuple[str, ...] = field(default=(), eq=False)
    credentials: bool = field(default=True, eq=False)
    page: bool = field(default=False, eq=False)


class Origin(enum.StrEnum):
    """The origin of a ban."""

    RULE = "rule"
    ADMIN = "admin"
    ADOPTED = "adopted"  # found in the kernel, but not in the database


class Scope(_Name):
    """The traffic that a ban drops: all of it, that of the SIP ports, or only the UDP or TCP part of that."""

    FULL = "full"
    SIP = "sip"  # to and from all ports of Asterisk (here called the SIP ports), by any transport
    # A ban on evidence that may be forged has the scope SIP_UDP or SIP_TCP.
    SIP_UDP = "sip-udp"  # UDP to and from the SIP ports
    SIP_TCP = "sip-tcp"  # TCP to and from the SIP ports, including TLS and WebSocket


WIDEST_FIRST = tuple(Scope)
"""All scopes. None is wider than the ones before it."""
WHOLE_SCOPES = (Scope.FULL, Scope.SIP)
"""The scopes that stop all that Asterisk sees of a sender, by any transport. No claimed ban has one."""
CLAIMED_SCOPES = (Scope.SIP_UDP, Scope.SIP_TCP)
"""The scopes that a claimed ban can have."""


class AttemptCounts(NamedTuple):
    """The number of attempts that led to a ban, and the number of them with a proven address.

    ``accounts`` is the number of different accounts. ``account`` is the one that was tried most often, "" if
    no attempt names an account.
    """

    attempts: int = 0
    proven: int = 0
    accounts: int = 0
    account: str = ""

    @property
    def are_proven(self) -> bool:
        """Whether all attempts are proven, or all but one. No sender can then have forged the address."""
        return self.proven >= max(1, self.attempts - 1)

    @classmethod
    def of(cls, attempts: Sequence[Attempt]) -> "AttemptCounts":
        """Return the counts of ``attempts``."""
        if not attempts:
            return _NO_ATTEMPTS
        accounts = Counter(attempt.account for attempt in attempts if attempt.account)
        account = accounts.most_common(1)[0][0] if accounts else ""
        proven = sum(attempt.proof is not Proof.CLAIMED for attempt in attempts)
        return cls(len(attempts), proven, len(accounts), account)


_NO_ATTEMPTS = AttemptCounts()


class BanEnd(enum.StrEnum):
    """How a ban ended, with a sentence.

    ``is_everywhere``: other hosts must then end it too. ``is_early``: the attempts before it count no more.
    """

    def __new__(cls, value: str, sentence: str = "", *flags: bool) -> Self:
        """Return the member of a row of the table below."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.sentence = sentence
        member.is_everywhere, member.is_early = flags
        return member

    sentence: str
    is_everywhere: bool
    is_early: bool

    # With other hosts, a ban ends by itself when its time is over. If it only made room for another ban, its
    # sender is no less guilty.
    EXPIRED = "expired", "its time was over", False, False
    REMOVED = "removed", "it was removed", True, True
    REPLACED = "replaced", "another ban of the same network replaced it", False, False
    DISPLACED = "displaced", "the kernel's set was full, and a longer ban took its place", False, True


@frozen
class Ban:
    """A ban of a network: its start and end (seconds since the epoch), and its reason.

    ``rule`` is the name of the rule for a ban by a rule, otherwise the origin's name. ``attempts`` are the
    attempts that led to the ban, oldest first, at most as many as the rule needs, and ``counts`` are their
    numbers. (A ban that was read from the database has the numbers, but not always the attempts.) ``offence``
    is the ordinal of this ban among the bans of the network within 30 days: 2 for the second ban, and so on.
    ``forced`` means that an administrator overrode the protection of the network.
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
    counts: AttemptCounts = Factory(lambda ban: AttemptCounts.of(ban.attempts), takes_self=True)


class FriendReason(enum.StrEnum):
    """The reason why an address is a friend of this PBX."""

    AUTHENTICATED = "authenticated"  # a valid password came from the address, and the address is proven
    REACHABLE = "reachable"  # Asterisk has a contact there, and it answers
    REGISTERED = "registered"  # Asterisk has a contact there; the address is the phone's own claim
    TRUNK = "trunk"  # this PBX registers there
    IMPORTED = "imported"  # imported from another ringfence


@frozen
class Friend:
    """One of the reasons why an address is a friend, that is, a known phone or trunk of this PBX.

    ``account`` is the account that is used there, or the trunk's name. ``since`` is the time when the reason
    was first seen, also if it ended within a month and began again. ``seen`` is when it was last seen, and
    ``until`` when it ends (seconds since the epoch).
    """

    asterisk: str
    address: Address
    account: str
    reason: FriendReason
    since: float
    seen: float
    until: float

    @property
    def proven(self) -> bool:
        """Whether the address is proven. In a registration, the phone can name any address."""
        return self.reason is not FriendReason.REGISTERED


@frozen
class Contact:
    """The location of a phone, as Asterisk reports it.

    ``address`` is the host in the URI of the contact. It is the true source address if Asterisk rewrites
    contacts (``rewrite_contact``), otherwise the phone's claim. ``until`` is the end of the registration
    (seconds since the epoch), None if unknown. ``reachable`` means that the phone answered Asterisk there
    recently. ``gone`` means that the contact was removed.
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
    """A server at which this PBX registers: ``host`` is a name or an address, as configured.

    ``name`` is the name of the trunk. ``port`` is None if none is configured; then SRV records decide.
    """

    asterisk: str
    service: Service
    name: str
    host: str
    port: int | None
    transport: Transport


@frozen
class Roster:
    """All contacts and trunks of one Asterisk. A contact that is missing here is gone.

    ``contacts`` and ``trunks`` are None if Asterisk could not be queried for them. ``refused`` has a line for
    each query that Asterisk refused.
    """

    asterisk: str
    contacts: tuple[Contact, ...] | None
    trunks: tuple[TrunkHost, ...] | None
    refused: tuple[str, ...] = ()


@frozen
class AlarmChange:
    """A change of an alarm that detection requests: the alarm's code, its subject and its text.

    With ``cleared``, clear the alarm. Otherwise the alarm stays active for ``lasts`` seconds from now.
    """

    code: AlarmCode
    subject: str
    text: str
    cleared: bool = False
    lasts: float = 600.0


class ListKind(enum.StrEnum):
    """One of the administrator's two lists: addresses never banned, and addresses always denied."""

    ALLOW = "allow"
    DENY = "deny"


@frozen
class ListEntry:
    """One entry of the administrator's lists, as it was written.

    ``value`` is a network, a host name, a country (``country DE``) or an autonomous system (``AS64496``).
    ``origin`` is ``command`` or ``configuration``, or else names the list, or the ban of another host, that
    denies the network (``lists/entries.py``). ``until`` is when the entry ends (seconds since the epoch),
    None for never. ``forced`` means that the entry may deny an address that is otherwise protected.
    """

    kind: ListKind
    value: str
    note: str
    added: float
    until: float | None = None
    origin: str = "command"
    forced: bool = False


MASK = "***"
"""What is shown instead of a secret."""


class Secret:
    """A password that is masked in repr, str, logs and formatting, and that cannot be pickled.

    Use :meth:`reveal` to get the clear text. Equality compares the clear texts.
    """

    __slots__ = ("_clear",)

    def __init__(self, clear: str) -> None:
        self._clear = clear

    def reveal(self) -> str:
        """Return the clear text. Only the code that sends the password needs it."""
        return self._clear

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._clear == self._clear

    def __hash__(self) -> int:
        return hash(self._clear)

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a Secret is not pickled")


class SecretUrl(Secret):
    """An URL that may have a key. Its text masks the user, the query, and what may be a key in the path.

    Publishers write keys into the path too. A part of it is masked if it is long, or has digits and no dot.
    """

    __slots__ = ()

    def __str__(self) -> str:
        parts = urlsplit(self.reveal())
        user, at, host = parts.netloc.rpartition("@")
        path = "/".join(MASK if _may_be_key(part) else part for part in parts.path.split("/"))
        rest = f"?{MASK}" if parts.query or parts.fragment else ""
        return f"{parts.scheme}://{MASK if user else ''}{at}{host}{path}{rest}"

    def __repr__(self) -> str:
        return f"SecretUrl({str(self)!r})"

    @property
    def has_key(self) -> bool:
        """Whether a part of it is masked."""
        return str(self) != self.reveal()


def _may_be_key(part: str) -> bool:
    length, digits = len(part), any(map(str.isdigit, part))
    return length >= 40 or ("." not in part and (length >= 20 or (digits and length >= 8)))  # noqa: PLR2004


# Invisible or blank characters for which str.isprintable() is true (DerivedCoreProperties.txt of Unicode).
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def printable(text: str) -> str:
    """Return ``text``, which an attacker may have written, as one line that is safe for a terminal or a log.

    These characters are escaped: control characters (C0, C1, DEL), line and paragraph separators, every space
    except U+0020, format characters (bidirectional overrides, zero-width characters), surrogates, unassigned
    and private characters, and characters that are invisible although Unicode classifies them as letters,
    marks or symbols.
    """
    if text.isprintable() and (text.isascii() or not _INVISIBLE.search(text)):
        return text
    return "".join(map(_visible, text))


def shown(text: str, most: int) -> str:
    """Return a text that an attacker may have written, cut after ``most`` characters and escaped."""
    return printable(text if len(text) <= most else f"{text[:most]}…")


def _visible(character: str) -> str:
    if character.isprintable() and not _INVISIBLE.match(character):
        return character
    return character.encode("unicode_escape").decode()


def rfc3339(seconds: float) -> str:
    """Format a wall-clock time by RFC 3339, in UTC, to the second."""
    # strftime takes twice as long, and a list of bans can contain 200,000 times.
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")


# -- what a notification is about, how urgent it is, and when none is sent


class Topic(enum.StrEnum):
    """What a notification is about.

    ``UNBAN`` is an unban by a command, not the end of a ban. ``LIST`` is a change of the allow list or the
    deny list. ``CLEARED`` is the end of an alarm.
    """

    BAN = "ban"
    UNBAN = "unban"
    LIST = "list"
    ALARM = "alarm"
    CLEARED = "cleared"
    START = "start"
    STOP = "stop"


class Severity(enum.StrEnum):
    """How urgent a notification is, the least urgent first."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """How urgent this severity is, as a number: 0 is the least urgent."""
        return _RANKS[self]


_RANKS = {severity: rank for rank, severity in enumerate(Severity)}


@frozen
class QuietHours:
    """A time of every day: its start and end in minutes since midnight, in the host's time zone.

    It may span midnight.
    """

    start: int
    end: int

    def has(self, minute: int) -> bool:
        """Whether a minute of the day, counted from midnight, is in the quiet hours."""
        if self.start < self.end:
            return self.start <= minute < self.end
        return minute >= self.start or minute < self.end

    def __str__(self) -> str:
        return "-".join(f"{at // 60:02}:{at % 60:02}" for at in (self.start, self.end))


# -- what every list of bans shows


class BanFacts(Protocol):
    """What :class:`Ban`, and the ledger's ``Record`` of it, know besides its network and scope."""

    @property
    def since(self) -> float: ...  # noqa: D102 - as in Ban, also the others
    @property
    def rule(self) -> str: ...  # noqa: D102
    @property
    def reason(self) -> str: ...  # noqa: D102
    @property
    def origin(self) -> Origin: ...  # noqa: D102
    @property
    def offence(self) -> int: ...  # noqa: D102
    @property
    def counts(self) -> AttemptCounts: ...  # noqa: D102


_MOST_TEXT = 500  # characters


def ban_json(ban: BanFacts) -> dict[str, object]:
    """Return what every list of bans shows of a ban, as JSON.

    The keys are an interface for scripts: keys may be added, but not changed or removed.
    """
    counts = ban.counts
    return {
        "since": rfc3339(ban.since),
        "rule": printable(ban.rule),
        "reason": _shown(ban.reason),
        "origin": str(ban.origin),
        "offence": ban.offence,
        "attempts": counts.attempts,
        "proven": counts.proven,
        "account": _shown(counts.account),
        "accounts": counts.accounts,
    }


def _shown(text: str) -> str:
    return printable(text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}…")


UNRECORDED: Mapping[str, None] = dict.fromkeys(ban_json(Ban(IPv4Network(0), 0.0, 0.0, "")))
"""What the lists show of a ban that is in the kernel and has no record."""
