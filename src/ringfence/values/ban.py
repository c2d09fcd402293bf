"""Bans: their scopes, their ends, and what every list shows of them."""

import enum
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, Self

from attrs import Factory, define, field, fields, frozen

from ringfence.values import fast
from ringfence.values.attempt import Attempt, AttemptCounts
from ringfence.values.network import Network
from ringfence.values.text import rfc3339, shown


class Origin(enum.StrEnum):
    """What made a ban: a rule, an administrator, or nothing known (it was found in the kernel)."""

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

    ``is_everywhere``: the hosts that share bans must end it too. ``is_early``: attempts from before the end
    no longer count.
    """

    def __new__(cls, value: str, sentence: str = "", *flags: bool) -> Self:
        """Return the way to end a ban named ``value``; ``flags`` are ``is_everywhere`` and ``is_early``."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.sentence = sentence
        member.is_everywhere, member.is_early = flags
        return member

    sentence: str
    is_everywhere: bool
    is_early: bool

    def as_json(self) -> dict[str, object]:
        """Return the JSON keys that show how a ban ended: ``end`` (a name) and ``why_ended`` (a sentence)."""
        return {"end": str(self), "why_ended": self.sentence}

    # Other hosts know the end of a ban that they got, so an expired one is not withdrawn there. Nor is a
    # displaced one: only this host lacked room for it.
    EXPIRED = "expired", "its time was over", False, False
    REMOVED = "removed", "it was removed", True, True
    REPLACED = "replaced", "another ban of the same network replaced it", False, False
    DISPLACED = "displaced", "the kernel's set was full, and a longer ban took its place", False, True


@frozen
class Column:
    """How people see a field of a ban.

    In a table, its column has the head ``title``, and ``cell`` is the template of its cells. In a sentence
    its value is written by the template ``phrase``, and left out if it is the field's default.
    """

    title: str
    cell: str = "{}"
    phrase: str = "{}"


_COLUMN = "column"  # the key of a field's Column in its metadata


@define(eq=False, kw_only=True)
class BanDetails:
    """What is known of a ban besides its network and its scope: start and end (epoch seconds), and reason.

    Each field is kept, recorded in the database, and a key of :func:`ban_json`. With a :class:`Column`, it is
    also shown wherever people read of bans: a new field needs no other declaration. If an existing database
    is to have it, it needs a default.

    ``rule`` is the name of the rule for a ban by a rule, otherwise the origin's name. ``counts`` are the
    numbers of the attempts that led to the ban. ``offence`` is the ordinal of this ban among the bans of the
    network within 30 days: 2 for the second ban, and so on. ``forced`` means that an administrator overrode
    the protection of the network.
    """

    since: float
    expires: float
    rule: str
    reason: str = ""
    origin: Origin = Origin.RULE
    offence: int = field(default=1, metadata={_COLUMN: Column("Ban", cell="{}.", phrase="{}. ban")})
    forced: bool = False
    counts: AttemptCounts = Factory(AttemptCounts)


@frozen
class Ban(BanDetails):
    """A ban of a network.

    ``attempts`` are the attempts that led to the ban, oldest first, at most as many as the rule needs. (A ban
    that was read from the database has their numbers, but not always the attempts.)
    """

    network: Network
    attempts: tuple[Attempt, ...] = field(default=(), kw_only=True)
    scope: Scope = field(default=Scope.FULL, kw_only=True)
    counts: AttemptCounts = field(
        default=Factory(lambda ban: AttemptCounts.of(ban.attempts), takes_self=True), kw_only=True
    )


_DETAILS = tuple(one.name for one in fields(BanDetails))
_details = attrgetter(*_DETAILS)


def details_of(ban: BanDetails) -> dict[str, Any]:
    """Return the fields of :class:`BanDetails` by their names, to make another object with the same ones."""
    return dict(zip(_DETAILS, _details(ban), strict=True))


_MOST_TEXT = 500  # characters


def _text(text: str) -> str:
    return shown(text, _MOST_TEXT)


_JSON: Mapping[Any, Callable[[Any], object]] = {
    float: rfc3339,
    int: int,
    bool: bool,
    str: _text,
    Origin: str,
}
_KEYS = [(one.name, _JSON[one.type]) for one in fields(BanDetails) if one.name != "counts"]


def ban_json(ban: BanDetails) -> dict[str, object]:
    """Return what every list of bans shows of a ban, as JSON: its facts, with times as text (RFC 3339).

    The keys are an interface for scripts: keys may be added, but not changed or removed.
    """
    counts = ban.counts
    return {
        **{key: convert(getattr(ban, key)) for key, convert in _KEYS},
        "attempts": counts.attempts,
        "proven": counts.proven,
        "account": _text(counts.account),
        "accounts": counts.accounts,
    }


COLUMNS: Mapping[str, Column] = {
    one.name: one.metadata[_COLUMN] for one in fields(BanDetails) if _COLUMN in one.metadata
}
"""The columns of tables of bans, by the key of :func:`ban_json`, that every such table shows."""

_USUAL = {one.name: one.default for one in fields(BanDetails)}


def cell_of(row: Mapping[str, Any], key: str) -> str:
    """Return the cell of a column of ``COLUMNS`` for a ban as JSON; "?" if it is unknown."""
    return "?" if row[key] is None else COLUMNS[key].cell.format(row[key])


def phrases_of(row: Mapping[str, Any]) -> list[str]:
    """Return texts about a ban (as JSON) for a sentence: one for each of ``COLUMNS`` without its default."""
    known = {key: row[key] for key in COLUMNS if row[key] not in (None, _USUAL[key])}
    return [COLUMNS[key].phrase.format(value) for key, value in known.items()]


UNRECORDED: Mapping[str, None] = dict.fromkeys(ban_json(BanDetails(since=0.0, expires=0.0, rule="")))
"""The row (keys of :func:`ban_json`, all null) for a ban in the kernel that has no record."""
