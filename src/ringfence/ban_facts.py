"""What became of bans: facts that the enforcer of bans reports to its listeners, such as the live feed.

A ban becomes a fact when the kernel has acknowledged it, and its end when the kernel no longer has it.
"""

import enum
from collections.abc import Sequence

from attrs import frozen

from ringfence.model import Ban, BanEnd, Network, Scope


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
class Over:
    """A ban of this network and scope has ended."""

    network: Network
    scope: Scope
    how: BanEnd


Fact = Placed | Over
