"""The rolls and the flood set: what the kernel holds beside the bans.

A roll is replaced in one step: a set of another name is filled, then the two exchange what they hold, and the
other is destroyed. Rules name the set by its place, and the place keeps its name; so at no moment is the
roll empty, and where anything fails it is as it was.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ringfence.errors import FirewallError
from ringfence.firewall import ipset_messages as messages
from ringfence.firewall.contract import Flooder, Roll
from ringfence.firewall.ipset_kernel import destroy, listed
from ringfence.firewall.ipset_sets import FLOOD, fresh_name, roll_creation, roll_name
from ringfence.firewall.ipset_watch import Filled
from ringfence.firewall.netlink import Conversation, NetlinkError
from ringfence.model import Network

_IPV4 = 4
_FLOOD_PREFIX = 64
# How long a source's count is kept while the kernel does not list it: its element ends every few seconds.
_MEMORY = 60.0


def fill(kernel: Conversation, roll: Roll, version: int, networks: Iterable[Network]) -> Filled:
    """Have exactly ``networks``, of one IP version, on ``roll``; give how it is left."""
    name = roll_name(roll, version)
    fresh = fresh_name(name)
    every = _kernels(networks)
    destroy(kernel, fresh)  # left behind by one who was killed
    try:
        kernel.request(roll_creation(fresh, version, len(every)))
        for at in range(0, len(every), messages.MAX_ELEMENTS):
            kernel.request(messages.add_endless(fresh, every[at : at + messages.MAX_ELEMENTS]))
        kernel.request(messages.swap(name, fresh))
    except NetlinkError as error:
        raise FirewallError(f"set {name} could not be filled and is as it was: {error}") from error
    finally:
        destroy(kernel, fresh)
    head = messages.parse_head(kernel.request(messages.list_head(name))[0])
    return Filled(head.elements, every[-1] if every else None)


def _kernels(networks: Iterable[Network]) -> list[Network]:
    """Give networks as the kernel takes them: everybody is two halves to it."""
    return [part for network in networks for part in ((network,) if network.prefixlen else network.subnets())]


class Flood:
    """Who is over the limit, and how far: added up over the lives of the kernel's elements."""

    def __init__(self) -> None:
        # By source: the sum of the elements before, the count of the present one, and when it was last seen.
        self._seen: dict[Network, tuple[int, int, float]] = {}

    def look(self, kernel: Conversation, versions: Iterable[int]) -> Sequence[Flooder]:
        """Give the sources that the kernel lists now."""
        now = time.monotonic()
        found = [*self._counted(kernel, versions, now)]
        self._seen = {network: seen for network, seen in self._seen.items() if now - seen[2] < _MEMORY}
        return found

    def _counted(self, kernel: Conversation, versions: Iterable[int], now: float) -> Iterator[Flooder]:
        for version in versions:
            for element in listed(kernel, FLOOD[version]):
                network = element.network
                if version != _IPV4:  # masked by the kernel, and listed as an address
                    network = network.supernet(new_prefix=_FLOOD_PREFIX)
                before, last, _ = self._seen.get(network, (0, 0, now))
                if element.packets < last:
                    before += last
                self._seen[network] = before, element.packets, now
                yield Flooder(network, before + element.packets)


def by_version(networks: Iterable[Network]) -> Mapping[int, list[Network]]:
    """Sort networks by their IP version."""
    sorted_: dict[int, list[Network]] = {4: [], 6: []}
    for network in networks:
        sorted_[network.version].append(network)
    return sorted_
