"""The sets of the ipset backend.

    ringfence4, ringfence6                full bans: hash:net with timeouts and counters
    ringfence-sip4, ringfence-sip6        bans of scope SIP, likewise
    ringfence-udp4, ringfence-udp6        bans of scope SIP_UDP, likewise
    ringfence-tcp4, ringfence-tcp6        bans of scope SIP_TCP, likewise
    ringfence-64-6, ringfence-sip-64-6,   for each scope the IPv6 bans that exempt friends: /64 to /127
    ringfence-udp-64-6, ringfence-tcp-64-6
    ringfence-allow4, -deny4, and others  the lists of ``network_lists.py``, and the same for IPv6:
                                          hash:net, no timeouts
    ringfence-fenced4 and others          senders that features remember (``limits.Table``): hash:ip (some of
                                          IPv6 by /64), with timeouts and counters
    ringfence-asked-flows4 and others     flows of strangers, likewise: hash:ip,port

The bans that exempt friends (``networks.exempts_friends``) have their own sets, because a rule cannot see
which prefix length in a set has matched. The rule for these sets first checks whether the address is a
friend's, so their counters count dropped packets only. The kernel looks up an address once for each prefix
length in use. The separate sets add only one lookup, that of the friends.
"""

import errno
import time
from collections.abc import Iterator, Mapping, Sequence

from attrs import frozen

from ringfence.errors import FirewallError, FirewallUnsupportedError
from ringfence.firewall import network_lists
from ringfence.firewall.contract import Add, Change, Element
from ringfence.firewall.ipset import messages
from ringfence.firewall.ipset.messages import Code, Command, IpsetHeader
from ringfence.firewall.limits import Key, Table
from ringfence.firewall.network_lists import NetworkList
from ringfence.firewall.stages import added_stages
from ringfence.netlink.connection import NetlinkConnection, NetlinkError
from ringfence.values.ban import Scope
from ringfence.values.network import BITS, SENDER_LENGTHS, VERSIONS, Network, exempts_friends, is_single

# -- reads, looks up, replaces and destroys a set of ipset in the kernel


# Seconds to wait until a set is free: the kernel frees removed rules of iptables-nft some milliseconds later.
_RELEASE = 2.0
# Seconds to wait if no rule uses the set: a program lists it, and the kernel keeps it until the list ends. A
# pager may stop `ipset list` for ever. Ringfence's own list of so many bans a second may go on meanwhile.
_LISTING, _LISTED = 0.5, 250_000
_TYPES = (
    (messages.SET_TYPE, "ip_set_hash_net", messages.SET_REVISION),
    (messages.ADDRESS_TYPE, "ip_set_hash_ip", messages.ADDRESS_REVISION),
    (messages.FLOW_TYPE, "ip_set_hash_ipport", messages.FLOW_REVISION),
)


def require_ipset(kernel: NetlinkConnection) -> None:
    """Raise FirewallUnsupportedError if the kernel has no ipset, or one that is too old."""
    try:
        [answer] = kernel.request(messages.protocol())
    except NetlinkError as error:
        raise FirewallUnsupportedError(
            "this kernel has no ipset; fix: `modprobe ip_set ip_set_hash_net xt_set` (CONFIG_IP_SET; "
            "in a container: on its host)"
        ) from error
    spoken = messages.version_of(answer, Command.PROTOCOL)
    if spoken < messages.PROTOCOL_VERSION:
        raise FirewallUnsupportedError(
            f"this kernel's ipset speaks protocol {spoken}, and {messages.PROTOCOL_VERSION} is needed; "
            'fix: Linux 5.0 or later, or `backend = "nftables"` in [firewall]'
        )
    for name, module, revision in _TYPES:
        try:
            [answer] = kernel.request(messages.type_query(name))
        except NetlinkError as error:
            raise FirewallUnsupportedError(
                f"this kernel's ipset has no {name} (CONFIG_{module.upper()}); fix: `modprobe {module}`"
            ) from error
        newest = messages.version_of(answer, Command.TYPE)
        if newest < revision:
            raise FirewallUnsupportedError(
                f"this kernel's {name} is of revision {newest}, and {revision} is needed; "
                "fix: Linux 3.10 or later"
            )


def read_header(kernel: NetlinkConnection, name: str) -> IpsetHeader | None:
    """Return a set's header, None if there is no such set."""
    try:
        answers = kernel.request(messages.list_header(name))
    except NetlinkError as error:
        if error.code == errno.ENOENT:
            return None
        raise
    return messages.parse_header(answers[0]) if answers else None


def contains(kernel: NetlinkConnection, name: str, network: Network) -> bool:
    """Whether a set exists and contains ``network``.

    For an address, the kernel's answer is also yes if the set contains a network around it.
    """
    try:
        kernel.request(messages.contains(name, network))
    except NetlinkError as error:
        if error.code in (Code.EXIST, errno.ENOENT):
            return False
        raise
    return True


def list_elements(kernel: NetlinkConnection, name: str, scope: Scope = Scope.FULL) -> Iterator[Element]:
    """Yield the elements of the set ``name``; nothing if there is no such set.

    Each element gets ``scope``, that of the set's bans. Raise FirewallError if the kernel refuses.
    """
    try:
        answers = list(kernel.stream(messages.list_elements(name)))  # its time limit is for each part
    except NetlinkError as error:
        if error.code == errno.ENOENT:
            return
        require_ipset(kernel)  # raises a better error if ipset is missing
        raise
    for answer in answers:
        yield from messages.parse_elements(answer, scope)


def find(kernel: NetlinkConnection, name: str, network: Network, scope: Scope = Scope.FULL) -> Element | None:
    """Return one element of a set, with its time and counters; None if it is not there.

    ``scope`` is the scope of the set's bans.
    """
    if not contains(kernel, name, network):
        return None
    return next(iter(_read(kernel, name, [network], scope)), None)


def covering(kernel: NetlinkConnection, name: str, network: Network, scope: Scope) -> Sequence[Element]:
    """Return the elements of a set that are ``network`` or a network around it; none if there is no such set.

    ``scope`` is the scope of the set's bans.
    """
    if is_single(network) and not contains(kernel, name, network):  # that asks for the networks around it too
        return []
    around = [network.supernet(new_prefix=length) for length in range(network.prefixlen, 0, -1)]
    there = [one for one in around if contains(kernel, name, one)]
    return _read(kernel, name, there, scope) if there else []


def _read(
    kernel: NetlinkConnection, name: str, networks: Sequence[Network], scope: Scope
) -> Sequence[Element]:
    """Return those of the elements ``networks`` that a set has, with their times and counters.

    The kernel sends time and counters only in a list of all elements, in several answers. To save time, only
    the answers that contain the bytes of one of ``networks`` are parsed.
    """
    patterns = [messages.element_bytes(one) for one in networks]
    answers = kernel.stream(messages.list_elements(name))
    parts = [answer for answer in answers if any(pattern in answer for pattern in patterns)]
    return [one for part in parts for one in messages.parse_elements(part, scope) if one.network in networks]


def replace(kernel: NetlinkConnection, name: str, fresh: str, creation: bytes) -> None:
    """Replace the set ``name`` by an empty one.

    The request ``creation`` makes the empty set under the name ``fresh``, and the two sets are swapped.
    """
    destroy(kernel, fresh)
    kernel.request(creation)
    kernel.request(messages.swap(name, fresh), repeat=False)
    destroy(kernel, fresh)


def destroy(kernel: NetlinkConnection, name: str) -> None:
    """Destroy a set if it exists.

    Raise FirewallError if a rule still uses it after two seconds, or if another program lists it.
    """
    begun = unused = time.monotonic()  # ``unused``: since when no rule uses the set
    while True:
        try:
            kernel.request(messages.destroy(name))
        except NetlinkError as error:
            if error.code == errno.ENOENT:
                return
            if error.code != Code.BUSY:
                raise
            now, head = time.monotonic(), read_header(kernel, name)
            if head is not None and head.references:
                unused = now
                if now - begun > _RELEASE:
                    raise FirewallError(
                        f"set {name} is used by a rule that is not ringfence's; fix: find and remove it with "
                        f"`iptables-save | grep {name}` (also iptables-legacy-save, ip6tables-save)"
                    ) from error
            elif now - unused > _LISTING + (head.elements / _LISTED if head is not None else 0.0):
                raise FirewallError(
                    f"set {name} cannot be destroyed: another program is listing it; fix: end that "
                    "`ipset list`"
                ) from error
            time.sleep(0.01)
        else:
            return


_WORDS = {Scope.FULL: "", Scope.SIP: "-sip", Scope.SIP_UDP: "-udp", Scope.SIP_TCP: "-tcp"}
# 128 kB of buckets: 100 000 elements are added with at most two rebuilds of the set.
_HASHSIZE = 16_384
_SMALL = 1024
_PREFIX = "ringfence-"


@frozen
class SetSpec:
    """The properties of a set: it holds bans, a network list, addresses, or flows (addresses with ports).

    A network list has neither timeouts nor counters; the other sets have both. A set of addresses or flows
    has room for ``size`` of them. The kernel reduces each address to the first ``prefix`` bits. A set of
    flows has the ``prefix`` 0.
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
        if self.bans or self.network_list:
            return messages.SET_TYPE
        return messages.ADDRESS_TYPE if self.prefix else messages.FLOW_TYPE


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
    return f"ringfence-{which}{version}"


def table_set_name(table: Table, version: int) -> str:
    """Return the name of the set of a table of senders."""
    return f"ringfence-{table.name.replace('_', '-')}{version}"


def lengths_of(table: Table) -> Mapping[int, int]:
    """Return how many bits of an address the set of a table keeps, by IP version; 0 if it holds flows."""
    if table.key is Key.FLOW:
        return dict.fromkeys(VERSIONS, 0)
    return BITS if table.key is Key.ADDRESS else SENDER_LENGTHS


def temporary_name(name: str) -> str:
    """Return the name of the set that is filled before it replaces ``name``."""
    return f"{name}-new"


def set_specs(version: int) -> list[SetSpec]:
    """Return the properties of every set of one IP version."""
    tables = dict.fromkeys(table for stage in added_stages() for table in stage.sets)
    return [
        *(
            SetSpec(ban_set_name(version, scope, friends_exempt=friends_exempt), version, bans=True)
            for scope in Scope
            for friends_exempt in friends_exempt_values(version)
        ),
        *(SetSpec(list_set_name(one, version), version, network_list=True) for one in network_lists.every()),
        *(
            SetSpec(
                table_set_name(table, version), version, size=table.room, prefix=lengths_of(table)[version]
            )
            for table in tables
        ),
    ]


def friends_exempt_values(version: int) -> tuple[bool, ...]:
    """Return the values of ``friends_exempt`` for an IP version: only IPv6 bans can exempt friends."""
    return (False,) if version == 4 else (False, True)  # noqa: PLR2004 - IPv4


def own_set_names() -> set[str]:
    """Return the name of every set that ringfence may make."""
    names = {spec.name for version in VERSIONS for spec in set_specs(version)}
    return names | {temporary_name(name) for name in names}


def present_set_names(kernel: NetlinkConnection) -> set[str]:
    """Return the names of our sets in the kernel, also those of other releases and of absent features."""
    own = own_set_names()
    found = map(messages.parse_name, kernel.request(messages.list_names()))
    return {name for name in found if name in own or name.startswith(_PREFIX)}


def create_set(spec: SetSpec, maxelem: int) -> bytes:
    """Build the request that makes a set; ``maxelem`` is the number of bans for which it has room."""
    if spec.network_list:
        return create_list_set(spec.name, spec.version, 0)
    if spec.type_name == messages.FLOW_TYPE:
        return messages.create_flows(spec.name, spec.version, maxelem=spec.size)
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


# -- checks of the sets: their headers, and one sample element of each
#
# A header contains the number of elements with time left, and the number of rules that name the set. A ban
# may end at any moment, so the number of elements alone proves little. Therefore ringfence remembers for
# each set of bans one recent ban, the *sample*, and looks it up, in one short exchange. If it is missing
# before its end, another program has flushed, swapped or replaced the set, even if the set has other
# elements since.


# Seconds by which the end of a ban in the kernel may differ from the end that ringfence computed.
_MARGIN = 2.0
# The sample is one remembered ban of a set. Up to this many changes at once are searched for one that
# concerns it. After more changes at once, it is discarded.
_FEW = 64
# Network lists with more elements are not counted each second.
_LONG = 4096


@frozen
class _Sample:
    network: Network
    end: float


class SampleBans:
    """Remembers a sample for each set of bans.

    If the sample is missing before its end, another program has emptied or replaced the set.
    """

    def __init__(self) -> None:
        self._samples: dict[str, _Sample] = {}

    def record(self, name: str, changes: Sequence[Change]) -> None:
        """Update the sample of the set ``name`` after acknowledged changes, all Add or all Remove.

        The present sample is discarded if one of the changes concerns it, or if there are more than ``_FEW``
        changes: a search would take too long. If the last change is an Add, its ban becomes the sample,
        unless the present sample was not discarded and ends later.
        """
        if not changes:
            return
        known = self._samples.get(name)
        last = changes[-1]
        if len(changes) <= _FEW and known is not None:
            if any(change.network == known.network for change in changes):
                known = None
        elif len(changes) > _FEW:
            known = None
        if isinstance(last, Add):
            end = time.monotonic() + last.timeout
            if known is None or end > known.end:
                known = _Sample(last.network, end)
        if known is None:
            self._samples.pop(name, None)
        else:
            self._samples[name] = known

    def discard(self, name: str) -> None:
        """Forget the sample of the set ``name``: the kernel's answer to a change was lost."""
        self._samples.pop(name, None)

    def first_missing(self, kernel: NetlinkConnection) -> str | None:
        """Return a message about a set whose sample is missing before its end; None if all samples exist."""
        return next((f"set {name} has lost a ban" for name in self._lost(kernel)), None)

    def discard_missing(self, kernel: NetlinkConnection) -> None:
        """Forget the samples that are no longer in their sets, because these sets were made again."""
        for name in self._lost(kernel):
            del self._samples[name]

    def _lost(self, kernel: NetlinkConnection) -> list[str]:
        soon = time.monotonic() + _MARGIN
        return [
            name
            for name, sample in self._samples.items()
            if sample.end > soon and not contains(kernel, name, sample.network)
        ]


@frozen
class WrittenList:
    """The contents that were written to the set of a network list.

    ``elements`` is its number of elements. ``sample`` is one of them; None if the list is empty or its
    contents are unknown.
    """

    elements: int
    sample: Network | None = None


def has_lost_sample(kernel: NetlinkConnection, name: str, written: WrittenList) -> bool:
    """Whether the sample of a network list is missing from its set ``name``."""
    return written.sample is not None and not contains(kernel, name, written.sample)


def check_set(
    kernel: NetlinkConnection, spec: SetSpec, references: int, filled: WrittenList | None
) -> tuple[str | None, int]:
    """Return a message about damage to a set (None without damage), and its number of bans.

    The number is 0 if the set does not hold bans. ``references`` is how often our rules name the set; if the
    kernel counts fewer references, rules are missing. ``filled`` is what was written to the set if it is a
    network list, else None.

    Of a long network list, only the sample is looked up, because the kernel takes long to return the header
    (40 ms for a million elements).
    """
    if filled is not None and filled.elements > _LONG:
        lost = has_lost_sample(kernel, spec.name, filled)
        return (f"set {spec.name} has lost a network" if lost else None), 0
    head = read_header(kernel, spec.name)
    if head is None:
        return f"set {spec.name} is gone", 0
    elements = head.elements if spec.bans else 0
    if head.references < references:
        return f"rules that name set {spec.name} are gone", elements
    if filled is not None and head.elements != filled.elements:
        return f"set {spec.name} has {head.elements} elements instead of {filled.elements}", elements
    return None, elements
