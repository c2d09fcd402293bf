"""What became of bans: the facts that ``bans`` reports to its listeners, such as the detector.

A ban becomes a fact when the kernel has acknowledged it, and its end when the kernel no longer has it. A
placed ban is over exactly once, unless it is forgotten, or a later ban of the same network and scope replaces
it. When enforcement is switched off, its bans are not over: those with time left are restored when it is
switched on.
"""

import enum
from collections.abc import Sequence
from typing import Any, Protocol

from attrs import frozen

from ringfence.errors import FirewallError
from ringfence.values.ban import Ban, BanEnd, Scope
from ringfence.values.network import Network


class News(enum.Enum):
    """Whether a ban is new, or known already, when the kernel acknowledges it."""

    NEW = enum.auto()
    """A new ban: it is recorded, counted and shared with other hosts, and people are notified."""
    PART = enum.auto()
    """A ban that remains of a wider network's ban after an unban: as NEW, but people are not notified."""
    KNOWN = enum.auto()
    """A ban that was acknowledged and recorded before, and that the kernel has lost since."""


@frozen
class Placed:
    """The fact that the kernel has acknowledged new bans.

    ``announced``: people are notified of them. It is false for bans that remain of a wider ban.
    """

    bans: Sequence[Ban]
    announced: bool


@frozen
class Adopted:
    """The fact that bans without a record were found in the kernel. People are not notified of them."""

    bans: Sequence[Ban]


@frozen
class Restored:
    """The fact that the kernel has bans that were recorded before: still, or again. No notification."""

    bans: Sequence[Ban]


@frozen
class Refused:
    """The fact that the kernel refuses a ban for the first time. The ban is tried again.

    If ``news`` is KNOWN, the kernel had the ban before, and has lost it.
    """

    ban: Ban
    news: News
    error: FirewallError


@frozen
class Forgotten:
    """The fact that a ban of this network and scope is not in the kernel and is not tried any more."""

    network: Network
    scope: Scope


@frozen
class NotRemoved:
    """The fact that the kernel refuses for the first time to remove bans. The removal is tried again."""

    networks: Sequence[Network]
    error: FirewallError


@frozen
class Over:
    """The fact that a ban of this network and scope has ended, and ``how``: expired or unbanned, say."""

    network: Network
    scope: Scope
    how: BanEnd


@frozen
class Unbanned:
    """The fact that an administrator has unbanned a network: the attempts of its senders so far do not count.

    The bans that ended by that may be of other networks, such as a wider one, whose rest stays banned.
    """

    network: Network


@frozen
class ClockSet:
    """The fact that the wall clock was set: ``seconds`` forward, negative if it was set back.

    All bans have moved by as much, so that they have the same time left. Whoever else keeps times of the wall
    clock in memory must move them too. A host that was suspended causes this fact when it resumes.
    """

    seconds: float


Fact = Placed | Adopted | Restored | Refused | Forgotten | NotRemoved | Over | Unbanned | ClockSet


class Listener(Protocol):
    """An object to which facts are passed: about bans, and in the daemon about all else that happens."""

    def on_fact(self, fact: Any) -> object:  # noqa: ANN401 - each listener handles the facts that it knows
        """Handle a fact, such as a :class:`Placed` ban; ignore a fact of an unknown or irrelevant class."""
