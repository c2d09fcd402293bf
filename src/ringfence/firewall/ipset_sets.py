"""The sets that the ipset backend has, by name and kind.

    ringfence4, ringfence6                bans of everything: hash:net with timeouts and counters
    ringfence-udp4, ringfence-udp6        bans of scope SIP_UDP, likewise
    ringfence-allow4, -deny4, -friends4   the rolls, and the same for IPv6: hash:net, elements without an end
    ringfence-flood4, ringfence-flood6    who is over the limit: hash:ip (IPv6 by /64), ends by itself

``ringfence4`` and ``ringfence6`` were the previous release's too: they are adopted with all they hold.
"""

from collections.abc import Mapping

from attrs import frozen

from ringfence.firewall import ipset_messages as messages
from ringfence.firewall.contract import Roll
from ringfence.firewall.ipset_messages import SetHead
from ringfence.model import Scope

VERSIONS = (4, 6)
SETS: Mapping[int, str] = {4: "ringfence4", 6: "ringfence6"}
FLOOD: Mapping[int, str] = {4: "ringfence-flood4", 6: "ringfence-flood6"}
# How long a source stays on the flood set from its first packet over the limit on.
FLOOD_SECONDS = 10
# The set is read every second, between two bans: 4 096 take some 30 ms of CPU, 16 384 took 150. Whoever finds
# no room is limited all the same, and is told of once others have stopped.
_FLOOD_SIZE = 4_096
_FLOOD_PREFIXES = {4: 32, 6: 64}
# 128 kB of buckets, and 100 000 elements go in without the set being rebuilt more than twice.
_HASHSIZE = 16_384
_SMALL = 1024


@frozen
class Kind:
    """A set: what it is for, and how it is made. What is no roll has timeouts and counters."""

    name: str
    version: int
    bans: bool = False
    roll: bool = False

    @property
    def type_name(self) -> str:
        """The kernel's name for such a set."""
        return messages.SET_TYPE if self.bans or self.roll else messages.FLOOD_TYPE


def bans_name(version: int, scope: Scope) -> str:
    """Name the set of the bans of one IP version and scope."""
    return SETS[version] if scope is Scope.FULL else f"ringfence-udp{version}"


def roll_name(roll: Roll, version: int) -> str:
    """Name the set of a roll."""
    return f"ringfence-{roll.value}{version}"


def fresh_name(name: str) -> str:
    """Name the set that is filled before it takes the place of ``name``."""
    return f"{name}-new"


def kinds(version: int) -> list[Kind]:
    """Give every set of one IP version."""
    return [
        *(Kind(bans_name(version, scope), version, bans=True) for scope in Scope),
        *(Kind(roll_name(roll, version), version, roll=True) for roll in Roll),
        Kind(FLOOD[version], version),
    ]


def every_name() -> list[str]:
    """Name every set that ringfence may have left behind."""
    names = [kind.name for version in VERSIONS for kind in kinds(version)]
    return names + [fresh_name(name) for name in names]


def creation(kind: Kind, maxelem: int) -> bytes:
    """Build the request that makes a set; ``maxelem`` is the size of a set of bans."""
    if kind.roll:
        return roll_creation(kind.name, kind.version, 0)
    if not kind.bans:
        prefix = _FLOOD_PREFIXES[kind.version]
        return messages.create_flood(kind.name, kind.version, maxelem=_FLOOD_SIZE, prefix=prefix)
    return messages.create(kind.name, kind.version, hashsize=min(_HASHSIZE, maxelem), maxelem=maxelem)


def roll_creation(name: str, version: int, size: int) -> bytes:
    """Build the request that makes a set with room for ``size`` networks without an end."""
    room = max(size, _SMALL)
    return messages.create(name, version, hashsize=room // 2, maxelem=room, timed=False)


def what_lacks(head: SetHead, kind: Kind) -> str | None:
    """Say why the set of our name is none that we could use, and the mend; None where it is."""
    lacks = []
    if head.type_name != kind.type_name or head.version != kind.version:
        lacks.append(
            f"is a {head.type_name} for IPv{head.version} and not a {kind.type_name} for IPv{kind.version}"
        )
    if not kind.roll and not head.timeout:
        lacks.append("has no timeouts")
    if not kind.roll and not head.counters:
        lacks.append("has no counters")
    if not lacks:
        return None
    return (
        f"set {head.name} exists and {', '.join(lacks)}; "
        f"mend: `ringfence off`, or `ipset destroy {head.name}`"
    )
