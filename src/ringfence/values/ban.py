"""Bans: their scopes, their ends, and what every list shows of them."""

import enum
from collections.abc import Mapping
from ipaddress import IPv4Network
from typing import Protocol, Self

from attrs import Factory, frozen

from ringfence.values import fast
from ringfence.values.attempt import Attempt, AttemptCounts
from ringfence.values.network import Network
from ringfence.values.text import printable, rfc3339, shown


class Origin(enum.StrEnum):
    """What made a ban: a rule, an administrator, or the kernel in which it was found."""

    RULE = "rule"
    ADMIN = "admin"
    ADOPTED = "adopted"  # found in the kernel, but not in the database


class Scope(fast.KeyEnum):
    """The traffic that a ban drops: all of it, that of the SIP ports, or only the UDP or TCP part of that."""

    FULL = "full"
    SIP = "sip"  # to and from all ports of Asterisk (here called the SIP ports), by any transport
    # A ban on evidence that may be forged has the scope SIP_UDP or SIP_TCP.
    SIP_UDP = "sip-udp"  # UDP to and from the SIP ports
    SIP_TCP = "sip-tcp"  # TCP to and from the SIP ports, including TLS and WebSocket


WIDEST_FIRST = tuple(Scope)
"""All scopes of bans. None is wider than the ones before it."""

WHOLE_SCOPES = (Scope.FULL, Scope.SIP)
"""The scopes that stop all that Asterisk sees of a sender, by any transport: only for proven evidence."""

CLAIMED_SCOPES = (Scope.SIP_UDP, Scope.SIP_TCP)
"""The scopes of bans whose evidence may be forged: SIP by UDP alone, or by TCP alone."""


class BanEnd(enum.StrEnum):
    """How a ban ended: its time was over, it was removed, and so on, with a sentence for people.

    ``is_everywhere``: other hosts must then end it too. ``is_early``: the attempts before the end count no
    more.
    """

    def __new__(cls, value: str, sentence: str = "", *flags: bool) -> Self:
        """Return the member for ``value``; ``flags`` are ``is_everywhere`` and ``is_early``."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.sentence = sentence
        member.is_everywhere, member.is_early = flags
        return member

    sentence: str
    is_everywhere: bool
    is_early: bool

    # Other hosts know the end of a ban that they got, so an expired one is not withdrawn there. Nor is a
    # displaced one: only this host lacked room for it.
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


class BanFacts(Protocol):
    """What :class:`Ban`, and the ledger's ``Record`` of a ban, have in common: all but network and scope."""

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
        "reason": shown(ban.reason, _MOST_TEXT),
        "origin": str(ban.origin),
        "offence": ban.offence,
        "attempts": counts.attempts,
        "proven": counts.proven,
        "account": shown(counts.account, _MOST_TEXT),
        "accounts": counts.accounts,
    }


UNRECORDED: Mapping[str, None] = dict.fromkeys(ban_json(Ban(IPv4Network(0), 0.0, 0.0, "")))
"""The row (keys of :func:`ban_json`, all null) for a ban in the kernel that has no record."""
