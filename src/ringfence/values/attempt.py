"""Attempts: what remote parties did, and how well their addresses are proven."""

import enum
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Self

from attrs import field

from ringfence.values import fast
from ringfence.values.event import EventKind, Service, Transport
from ringfence.values.network import Address


class Proof(enum.IntEnum):
    """How well an attempt's source address is verified; a greater value is a better proof.

    ``CLAIMED``: not verified, as for a single UDP packet, and for chan_sip with any transport: ``maddr`` in a
    Via makes chan_sip report another address. ``NONCE``: the sender answered a challenge that the kernel
    copied when it left for that address. ``HANDSHAKE``: the kernel completed a TCP handshake with the address
    (TCP, TLS, WS or WSS under PJSIP, or AMI).
    """

    CLAIMED = 0
    NONCE = 1
    HANDSHAKE = 2


class AttemptKind(fast.KeyEnum):
    """A kind of attempt, which decides the rules that count it, with the words for one and several.

    ``by_kernel``: the kernel counts or copies such attempts, also while a ban rejects their packets.
    """

    def __new__(
        cls,
        value: str,
        one: str = "",
        several: str = "",
        by_kernel: bool = False,  # noqa: FBT001, FBT002 - a member is a tuple
    ) -> Self:
        """Return the member for ``value``, with the words for one such attempt and for several."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.one, member.several, member.by_kernel = one, several, by_kernel
        return member

    one: str
    several: str
    by_kernel: bool

    GUESS = "guess", "guess", "guesses"  # of a password or an account
    PROBE = "probe", "call of an extension that does not exist", "calls of extensions that do not exist"
    MANAGER = "manager", "manager login", "manager logins"  # failed, at the manager interface
    FLOOD = "flood", "second over the limit", "seconds over the limit", True  # the limit of packets
    BARE_ADDRESS = "bare address", "request for a bare address", "requests for a bare address", True
    # A request by TLS was answered, and no event and no login explains it.
    UNEXPLAINED = "unexplained", "answer by TLS that nothing explains", "answers by TLS that nothing explains"


@fast.frozen
class Attempt:
    """One thing the remote party did. ``time`` is the wall-clock time of the event that reported it.

    ``trusted`` is false if the sender may have written the address (in a log line, or in a Via header to
    chan_sip) and no other source confirms it. Such an attempt is listed, but leads to no ban. ``tampered``:
    text of the sender has broken the form of the message. ``forged_address`` is the address in the message,
    if another source proved that it is not the sender's; otherwise None. ``session`` is the number that
    ringfence gave to the SIP session (Call-ID), 0 if unknown. ``sources`` are the names of the sources that
    reported the attempt. ``credentials`` is false if the request had none, such as a call of a stranger.
    ``page``: a web page of another site made a browser send it. ``evidence`` is that of its first report.
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
    evidence: str = field(default="", eq=False)


class AttemptCounts(NamedTuple):
    """The number of attempts that led to a ban, and how many of them prove an attacker at their address.

    Such an attempt has a proven address and credentials: a call without credentials may be a phone's.
    ``accounts`` is the number of different accounts. ``account`` is the one that was tried most often, "" if
    no attempt names an account.
    """

    attempts: int = 0
    proven: int = 0
    accounts: int = 0
    account: str = ""

    @property
    def are_proven(self) -> bool:
        """Whether all attempts prove an attacker, or all but one. Then no login ends the ban."""
        return self.proven >= max(1, self.attempts - 1)

    @classmethod
    def of(cls, attempts: Sequence[Attempt]) -> "AttemptCounts":
        """Return the numbers of ``attempts``, of those that prove an attacker, and of their accounts."""
        if not attempts:
            return _NO_ATTEMPTS
        accounts = Counter(attempt.account for attempt in attempts if attempt.account)
        account = accounts.most_common(1)[0][0] if accounts else ""
        proven = sum(attempt.credentials and attempt.proof is not Proof.CLAIMED for attempt in attempts)
        return cls(len(attempts), proven, len(accounts), account)


_NO_ATTEMPTS = AttemptCounts()
