"""The sets of the ipset backend that hold no bans: network lists, observed addresses and flooders.

To replace a list, a temporary set is filled in steps. Then the two sets exchange their contents at once, and
the temporary set is destroyed. The list's set keeps its name, so the rules need no change. The list is never
empty in between, and a failure before the exchange leaves it unchanged.
"""

import itertools
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_network

from ringfence.errors import FirewallError
from ringfence.firewall.contract import OBSERVE_SECONDS, Flooder, NetworkList
from ringfence.firewall.ipset import messages
from ringfence.firewall.ipset.kernel import destroy, list_elements
from ringfence.firewall.ipset.messages import Code
from ringfence.firewall.ipset.sets import FLOOD, OBSERVE, create_list_set, list_set_name, temporary_name
from ringfence.firewall.ipset.watch import WrittenList
from ringfence.model import Address, Network
from ringfence.netlink.connection import NetlinkConnection, NetlinkError
from ringfence.networks import SENDER_LENGTHS, VERSIONS

# Seconds. The kernel adds a source over the limit to a flood set, for FLOOD_SECONDS. The count of a source is
# kept for this time after the source left the set.
_MEMORY = 60.0
# The most observed addresses in one message to the kernel, and the number of refused messages after which
# each address is sent separately. To send the whole rest again after each refusal would take quadratic time.
_OBSERVED, _PATIENCE = 256, 3


def replace_list_in_steps(
    kernel: NetlinkConnection, which: NetworkList, version: int, networks: Sequence[Network]
) -> Generator[None, None, WrittenList]:
    """Replace the networks of one IP version on a list, step by step; return what was written.

    ``networks`` is a result of :func:`by_version`. Raises FirewallError. A failure before the temporary set
    is complete leaves the list unchanged.
    """
    name = list_set_name(which, version)
    fresh = temporary_name(name)
    destroy(kernel, fresh)  # a killed process or an abandoned replacement may have left one
    try:
        kernel.request(create_list_set(fresh, version, len(networks)))
        for at in range(0, len(networks), messages.MAX_ELEMENTS):
            kernel.request(messages.add_permanent(fresh, networks[at : at + messages.MAX_ELEMENTS]))
            yield
        kernel.request(messages.swap(name, fresh))
    except NetlinkError as error:
        raise FirewallError(f"set {name} could not be filled and is unchanged: {error}") from error
    finally:
        destroy(kernel, fresh)
    head = messages.parse_header(kernel.request(messages.list_header(name))[0])
    return WrittenList(head.elements, networks[-1] if networks else None)


def _without_zero_prefix(networks: Iterable[Network]) -> list[Network]:
    """Return networks as ipset accepts them: a /0 becomes two halves."""
    return [part for network in networks for part in ((network,) if network.prefixlen else network.subnets())]


def observe(kernel: NetlinkConnection, version: int, addresses: Sequence[Address]) -> None:
    """Add addresses of one IP version to the set of observed addresses, for OBSERVE_SECONDS.

    The kernel copies the SIP requests of observed addresses to ringfence. A full set refuses new addresses.
    The kernel stops at the first refused address, so the addresses after it are sent again.
    """
    timed = [(ip_network(address), OBSERVE_SECONDS) for address in addresses]
    refused = 0
    with suppress(FirewallError):  # errors are ignored here: health() reports a missing set
        while timed:
            size = _OBSERVED if refused <= _PATIENCE else 1
            done, timed = timed[:size], timed[size:]
            try:
                kernel.request(messages.add(OBSERVE[version], done))
            except NetlinkError as error:
                index = messages.refused_index(error.request)
                if error.code != Code.HASH_FULL or index is None:
                    raise
                refused += 1
                timed = done[index + 1 :] + timed


class FloodCounts:
    """Adds up, for each source, its packets over the limit.

    The kernel adds each such source as an element to a flood set, and counts its packets there. An element
    ends ten seconds after it was added, and the next element of the source begins at zero. So the counts of a
    source's elements are added here. A source that was in no flood set for a minute is forgotten.
    """

    def __init__(self) -> None:
        # The keys are a network and whether its count is for TCP. The values are the packets of the source's
        # earlier elements, those of its present element, and when the source was last in a flood set
        # (monotonic seconds).
        self._seen: dict[tuple[Network, bool], tuple[int, int, float]] = {}

    def read(self, kernel: NetlinkConnection, versions: Iterable[int]) -> Sequence[Flooder]:
        """Return the sources that the kernel's flood sets contain now."""
        now = time.monotonic()
        found = [*self._counted(kernel, versions, now)]
        self._seen = {source: seen for source, seen in self._seen.items() if now - seen[2] < _MEMORY}
        return found

    def _counted(self, kernel: NetlinkConnection, versions: Iterable[int], now: float) -> Iterator[Flooder]:
        for version, tcp in itertools.product(versions, (False, True)):
            for element in list_elements(kernel, FLOOD[version, tcp]):
                network = element.network
                if not tcp:  # the set for UDP holds IPv6 /64s, but lists each as an address
                    network = network.supernet(new_prefix=SENDER_LENGTHS[version])
                before, last, _ = self._seen.get((network, tcp), (0, 0, now))
                if element.packets < last:
                    before += last
                self._seen[network, tcp] = before, element.packets, now
                yield Flooder(network, before + element.packets, tcp)


def by_version(networks: Iterable[Network]) -> Mapping[int, list[Network]]:
    """Group networks by IP version, as ipset accepts them: a /0 becomes two halves."""
    sorted_: dict[int, list[Network]] = {version: [] for version in VERSIONS}
    for network in _without_zero_prefix(networks):
        sorted_[network.version].append(network)
    return sorted_
