"""What became of bans: the facts that ``bans.book`` reports to its listeners, such as the detector.

A ban becomes a fact when the kernel has acknowledged it, and its end when the kernel no longer has it. No ban
is placed twice, and each placed ban is over exactly once, unless it is forgotten. When enforcement is
switched off, its bans are not over: those with time left are restored when it is switched on.
"""

import enum
from collections.abc import Sequence

from attrs import frozen

from ringfence.errors import FirewallError
from ringfence.values.ban import Ban, BanEnd, Scope
from ringfence.values.network import Network


class News(enum.Enum):
    """Whether a ban is news when the kernel acknowledges it."""

    NEW = enum.auto()
    """Nobody knows it: it is recorded, counted and passed on, and people are notified."""
    PART = enum.auto()
    """It continues a part of a ban of a wider network: as NEW, but nobody is notified again."""
    KNOWN = enum.auto()
    """It was acknowledged and recorded before, and the kernel has lost it since."""


@frozen
class Placed:
    """Bans that the kernel has acknowledged, and that listeners do not know yet.

    ``announced``: people are to be notified of them. They are not if the bans are the rest of a wider one.
    """

    bans: Sequence[Ban]
    announced: bool


@frozen
class Adopted:
    """Bans that were found in the kernel without a record. They are no news."""

    bans: Sequence[Ban]


@frozen
class Restored:
    """Recorded bans that the kernel still has, or has again. They are no news."""

    bans: Sequence[Ban]


@frozen
class Refused:
    """The kernel refuses a ban for the first time. It is tried again. If it is KNOWN, the kernel lost it."""

    ban: Ban
    news: News
    error: FirewallError


@frozen
class Forgotten:
    """A ban of this network and scope is not in the kernel, and is not tried any more."""

    network: Network
    scope: Scope


@frozen
class NotRemoved:
    """The kernel refuses for the first time to remove the bans of these networks. It is tried again."""

    networks: Sequence[Network]
    error: FirewallError


@frozen
class Over:
    """A ban of this network and scope has ended."""

    network: Network
    scope: Scope
    how: BanEnd


Fact = Placed | Adopted | Restored | Refused | Forgotten | NotRemoved | Over
