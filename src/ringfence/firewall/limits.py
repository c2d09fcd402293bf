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
"""The minimum size of a guess in bytes, with its IP and UDP headers."""
FRAME = 1_600
"""The size of an Ethernet frame in bytes, rounded up."""
MOST_LIMITED = 1_000_000
"""The number of addresses for which a table of the kernel has room, unless it names another."""
USUAL_SECONDS = 10
"""Seconds for which a table of the kernel remembers an address, unless it names other ones."""
NEAR_LENGTHS = {4: 24, 6: 48}
"""The prefix length of the network of a stranger and its *neighbours*, by IP version."""
GUESTS = 8
"""The factor by which a stranger's limits are higher if the PBX takes calls from strangers."""


class LimitMode(enum.StrEnum):
    """The mode of a filter: off, only count packets, or drop them."""

    OFF = "off"
    OBSERVE = "observe"
    ENFORCE = "enforce"


class Until(enum.Enum):
    """What a filter waits for: until then it only counts packets, and drops none."""

    FRIENDS = "the friends (known phones and trunks) are known"
    LISTS = "the kernel has all networks of the lists"
    ROSTERS = "every Asterisk reports its phones and trunks again"


class Addition:
    """Base class of what a feature adds to the firewall's rules. ``name`` is shown in status and log."""

    name: ClassVar[str]

    @property
    def copies(self) -> bool:
        """Whether its rules, unless they are off, copy packets to an NFLOG group of its own."""
        return False

    def stages(self, plan: "FirewallPlan") -> "Iterable[Stage]":
        """Return the stages (groups of rules) that it adds to those of ``plan``, also those that are off."""
        raise NotImplementedError


@frozen
class Filter(Addition):
    """An addition to the rules that counts or drops packets, by its mode.

    ``waits`` is what it waits for. If it is ``optional``, it is left out if the kernel cannot do it. If it
    ``limits_answers``, it limits how many guesses of a stranger are answered: if all such filters enforce, a
    ban may come somewhat later.
    """

    waits: ClassVar[frozenset[Until]] = frozenset()
    optional: ClassVar[bool] = False
    limits_answers: ClassVar[bool] = False
    mode: LimitMode = LimitMode.OFF

    def observing(self, until: Until) -> Self:
        """Return the filter as it is before ``until``: if it waits for this, it only counts packets."""
        waits = self.mode is LimitMode.ENFORCE and until in self.waits
        return evolve(self, mode=LimitMode.OBSERVE) if waits else self


class Key(enum.Enum):
    """The key by which a table of the kernel counts packets: the remote address, a prefix, or a flow."""

    SENDER = "an address, of IPv6 a /64"
    ADDRESS = "an address"
    NEAR = "a /24, of IPv6 a /48"
    FLOW = "an address with its port"


@frozen
class Table:
    """A table of the kernel: the addresses that sent or got something lately, each for ``seconds``.

    ``room`` is the maximum number of addresses of an IP version. ``what`` is their name in the status.
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
    """Return what each installed feature can add to the rules, switched off."""
    return tuple(one for module in street.modules("stage") for one in module.ADDITIONS)
