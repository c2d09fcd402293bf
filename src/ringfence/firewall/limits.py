"""What features add to the rules: filters, which count or drop packets of strangers, and their tables."""

import enum
from functools import cache
from typing import TYPE_CHECKING, ClassVar, Self

from attrs import evolve, frozen

from ringfence import street

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ringfence.firewall.contract import FirewallPlan
    from ringfence.firewall.stages import Stage

GUESS = 300
"""Bytes. No guess is shorter, with its headers."""
FRAME = 1_600
"""Bytes: an Ethernet frame, rounded up."""
MOST_LIMITED = 1_000_000
"""The number of addresses for which a table usually has room."""
USUAL_SECONDS = 10
"""Seconds that a table usually remembers an address."""
NEAR_LENGTHS = {4: 24, 6: 48}
"""The prefix length of a stranger's *neighbours*, by IP version."""
GUESTS = 8
"""How many times as much a stranger may ask if the PBX takes calls from strangers."""


class LimitMode(enum.StrEnum):
    """The mode of a filter: off, only count packets, or drop them."""

    OFF = "off"
    OBSERVE = "observe"
    ENFORCE = "enforce"


class Until(enum.Enum):
    """What a filter waits for: until then it only counts packets."""

    FRIENDS = "the friends (known phones and trunks) are known"
    LISTS = "the kernel has all networks of the lists"


class Addition:
    """What a feature adds to the rules. ``name`` is its name in the status and in the log.

    ``copies``: its rules copy packets to an NFLOG group of its own.
    """

    name: ClassVar[str]
    copies: ClassVar[bool] = False

    def stages(self, plan: "FirewallPlan") -> "Iterable[Stage]":
        """Return its stages in the rules of ``plan``, also those that are off."""
        raise NotImplementedError


@frozen
class Filter(Addition):
    """An addition that counts or drops packets, by its mode.

    ``waits`` is what it waits for. If it is ``optional``, it is left out if the kernel cannot do it.
    """

    waits: ClassVar[frozenset[Until]] = frozenset()
    optional: ClassVar[bool] = False
    mode: LimitMode = LimitMode.OFF

    def observing(self, until: Until) -> Self:
        """Return what it is before ``until``: one that waits for this drops nothing."""
        waits = self.mode is LimitMode.ENFORCE and until in self.waits
        return evolve(self, mode=LimitMode.OBSERVE) if waits else self


class Key(enum.Enum):
    """What a table of the kernel counts by. It is the remote address of a packet, or a part of it."""

    SENDER = "an address, of IPv6 a /64"
    ADDRESS = "an address"
    NEAR = "a /24, of IPv6 a /48"
    FLOW = "an address with its port"


@frozen
class Table:
    """A table of the kernel: the addresses that sent or got something lately, each for ``seconds``.

    It has ``room`` for so many of an IP version. ``what`` names them in the status, if that shows them.
    ``renews``: each packet begins the time of its address again, and the count of its packets goes on.
    """

    name: str
    seconds: int = USUAL_SECONDS
    room: int = MOST_LIMITED
    what: str = ""
    key: Key = Key.SENDER
    renews: bool = False


@cache
def additions() -> tuple[Addition, ...]:
    """Return what the installed features add to the rules, as it is while it is off."""
    return tuple(one for module in street.modules("stage") for one in module.ADDITIONS)
