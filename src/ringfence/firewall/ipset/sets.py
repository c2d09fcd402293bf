"""The sets of the ipset backend.

    ringfence4, ringfence6                full bans: hash:net with timeouts and counters
    ringfence-sip4, ringfence-sip6        bans of scope SIP, likewise
    ringfence-udp4, ringfence-udp6        bans of scope SIP_UDP, likewise
    ringfence-tcp4, ringfence-tcp6        bans of scope SIP_TCP, likewise
    ringfence-64-6, ringfence-sip-64-6,   for each scope the IPv6 bans that exempt friends: /64 to /127
    ringfence-udp-64-6, ringfence-tcp-64-6
    ringfence-allow4, -deny4, -fetched4,  the network lists, and the same for IPv6: hash:net, no timeouts
    -friends4
    ringfence-flood4, ringfence-flood6    sources over the limit by UDP: hash:ip (IPv6 by /64), with timeouts
    ringfence-flood-tcp-4, -tcp-6         sources over the limit by TCP, likewise, by address
    ringfence-observe4, -observe6         observed addresses: hash:ip, with timeouts

``ringfence4`` and ``ringfence6`` were also sets of the previous release: they are adopted with all their
elements.

The bans that exempt friends (``contract.exempts_friends``) have their own sets, because a rule cannot see
which prefix length in a set has matched. The rule for these sets first checks whether the address is a
friend's, so their counters count dropped packets only. The kernel looks up an address once for each prefix
length in use. The separate sets add only one lookup, that of the friends.
"""

from collections.abc import Mapping

from attrs import frozen

from ringfence.firewall.contract import OBSERVE_MOST, NetworkList, exempts_friends
from ringfence.firewall.ipset import messages
from ringfence.firewall.ipset.messages import IpsetHeader
from ringfence.model import Network, Scope
from ringfence.networks import BITS, SENDER_LENGTHS, VERSIONS

# The names of the flood sets, by IP version and whether they are for TCP.
FLOOD: Mapping[tuple[int, bool], str] = {
    (version, tcp): f"ringfence-flood{'-tcp-' * tcp}{version}"
    for version in VERSIONS
    for tcp in (False, True)
}
OBSERVE: Mapping[int, str] = {4: "ringfence-observe4", 6: "ringfence-observe6"}
# Seconds that a source stays in the flood set after its first packet over the limit.
FLOOD_SECONDS = 10
# The event loop reads each flood set every second: 4 096 elements take some 30 ms of CPU, 16 384 took 150 ms.
# A source without room in the set is still limited. It is reported as soon as the set has room for it.
_FLOOD_SIZE = 4_096
_WORDS = {Scope.FULL: "", Scope.SIP: "-sip", Scope.SIP_UDP: "-udp", Scope.SIP_TCP: "-tcp"}
# 128 kB of buckets: 100 000 elements are added with at most two rebuilds of the set.
_HASHSIZE = 16_384
_SMALL = 1024


@frozen
class SetSpec:
    """The properties of a set: it holds bans, a network list, or addresses.

    A network list has neither timeouts nor counters; the other sets have both. A set of addresses has room
    for ``size`` of them, and the kernel reduces each to the first ``prefix`` bits.
    """

    name: str
    version: int
    bans: bool = False
    network_list: bool = False
    size: int = 0
    prefix: int = 0

    @property
    def type_name(self) -> str:
        """The kernel's name for the set type."""
        return messages.SET_TYPE if self.bans or self.network_list else messages.ADDRESS_TYPE


def ban_set_name(version: int, scope: Scope, *, friends_exempt: bool = False) -> str:
    """Return the name of a set of bans; ``friends_exempt``: the set is for the bans that exempt friends."""
    return f"ringfence{_WORDS[scope]}{'-64-' if friends_exempt else ''}{version}"


def ban_set_names(network: Network, scope: Scope) -> list[str]:
    """Return the names of the sets that may hold a ban of ``network``, its proper set first.

    A ban that exempts friends may also be in the other set, if another program added it there.
    """
    plain = ban_set_name(network.version, scope)
    return (
        [ban_set_name(network.version, scope, friends_exempt=True), plain]
        if exempts_friends(network)
        else [plain]
    )


def list_set_name(which: NetworkList, version: int) -> str:
    """Return the name of the set of a network list."""
    return f"ringfence-{which.value}{version}"


def temporary_name(name: str) -> str:
    """Return the name of the set that is filled before it replaces ``name``."""
    return f"{name}-new"


def set_specs(version: int) -> list[SetSpec]:
    """Return the properties of every set of one IP version."""
    return [
        *(
            SetSpec(ban_set_name(version, scope, friends_exempt=friends_exempt), version, bans=True)
            for scope in Scope
            for friends_exempt in friends_exempt_values(version)
        ),
        *(SetSpec(list_set_name(which, version), version, network_list=True) for which in NetworkList),
        SetSpec(FLOOD[version, False], version, size=_FLOOD_SIZE, prefix=SENDER_LENGTHS[version]),
        SetSpec(FLOOD[version, True], version, size=_FLOOD_SIZE, prefix=BITS[version]),
        SetSpec(OBSERVE[version], version, size=OBSERVE_MOST, prefix=BITS[version]),
    ]


def friends_exempt_values(version: int) -> tuple[bool, ...]:
    """Return the values of ``friends_exempt`` for an IP version: only IPv6 bans can exempt friends."""
    return (False,) if version == 4 else (False, True)  # noqa: PLR2004 - IPv4


def all_set_names() -> list[str]:
    """Return the name of every set that ringfence may have left in the kernel."""
    names = [spec.name for version in VERSIONS for spec in set_specs(version)]
    return names + [temporary_name(name) for name in names]


def create_set(spec: SetSpec, maxelem: int) -> bytes:
    """Build the request that makes a set; ``maxelem`` is the number of bans for which it has room."""
    if spec.network_list:
        return create_list_set(spec.name, spec.version, 0)
    if not spec.bans:
        return messages.create_addresses(spec.name, spec.version, maxelem=spec.size, prefix=spec.prefix)
    return messages.create(spec.name, spec.version, hashsize=min(_HASHSIZE, maxelem), maxelem=maxelem)


def create_list_set(name: str, version: int, size: int) -> bytes:
    """Build the request that makes the set of a network list, such as the allow list.

    The set has room for at least ``size`` networks of an IP version, without timeouts.
    """
    room = max(size, _SMALL)
    return messages.create(name, version, hashsize=room // 2, maxelem=room, timed=False)


def mismatch(head: IpsetHeader, spec: SetSpec) -> str | None:
    """Return why a set with one of our names cannot be used, with the fix; None if it can be used.

    ``head`` is the header of the set in the kernel. It must have the type and the IP version of ``spec``. It
    must also have timeouts and counters, unless the set is for a network list.
    """
    lacks = []
    if head.type_name != spec.type_name or head.version != spec.version:
        lacks.append(
            f"is a {head.type_name} for IPv{head.version} and not a {spec.type_name} for IPv{spec.version}"
        )
    if not spec.network_list and not head.timeout:
        lacks.append("has no timeouts")
    if not spec.network_list and not head.counters:
        lacks.append("has no counters")
    if not lacks:
        return None
    return (
        f"set {head.name} exists and {', '.join(lacks)}; fix: `ringfence off`, or `ipset destroy {head.name}`"
    )
