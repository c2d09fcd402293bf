"""Carries out changes of bans in the sets of ipset, and returns an outcome for each.

If the kernel refuses an element, it reports which one, and the rest is sent again. A change without an
acknowledgement is an error, although it may have been carried out. The caller repeats it. A repeated change
does no harm.
"""

import errno
import itertools
import time
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_network

from ringfence.errors import FirewallError, FirewallUnsupportedError, SetFullError
from ringfence.firewall.contract import (
    EVERY_ADDRESS,
    OBSERVE_SECONDS,
    SET_FULL,
    UNKNOWN_OUTCOME,
    Add,
    Change,
    Flooder,
    NetworkList,
    Outcome,
    Remove,
    exempts_friends,
    whole_seconds,
)
from ringfence.firewall.ipset import messages
from ringfence.firewall.ipset.messages import Code
from ringfence.firewall.ipset.sets import (
    FLOOD,
    OBSERVE,
    ban_set_name,
    create_list_set,
    destroy,
    list_elements,
    list_set_name,
    temporary_name,
)
from ringfence.firewall.ipset.watch import SampleBans, WrittenList
from ringfence.model import Address, Network, Scope
from ringfence.netlink.connection import NetlinkConnection, NetlinkError
from ringfence.networks import SENDER_LENGTHS, VERSIONS

# Refusals after which the rest is sent one by one: a full set refuses every new element, and to send the
# whole rest again after each refusal would take quadratic time.
_PATIENCE = 3


class SetChanges:
    """Carries out changes over the connection ``kernel``.

    ``samples`` remembers one ban of each set. The health check looks it up.
    """

    def __init__(self, kernel: NetlinkConnection) -> None:
        self.samples = SampleBans()
        self._kernel = kernel

    def apply(self, batch: Sequence[Change], families: Mapping[int, str | None]) -> list[Outcome]:
        """Carry out every change. Changes of one set keep their order.

        ``families`` has for each IP version the reason why it has no sets; None if it has sets.
        """
        outcomes = [UNKNOWN_OUTCOME] * len(batch)
        lost: FirewallError | None = None
        for (version, scope, friends_exempt), indexes in _by_set(batch).items():
            reason = families[version]
            name = ban_set_name(version, scope, friends_exempt=friends_exempt)
            for part in _runs(batch, indexes):
                changes = [batch[index] for index in part]
                if reason is not None:
                    done = _failed(changes, FirewallUnsupportedError(reason))
                elif lost is not None:  # the connection failed: a further request would only time out again
                    done = _failed(changes, lost)
                else:
                    # Another program may have added such a ban to the set for bans without exemption of
                    # friends. So a Remove is carried out in both sets.
                    if friends_exempt and isinstance(changes[0], Remove):
                        self._send(ban_set_name(version, scope), changes)
                    done, lost = self._send(name, changes)
                for index, outcome in zip(part, done, strict=True):
                    outcomes[index] = outcome
        return outcomes

    def _send(self, name: str, changes: Sequence[Change]) -> tuple[list[Outcome], FirewallError | None]:
        """Send changes, all Add or all Remove, to the set ``name``.

        If the kernel refuses one, it has carried out those before it, and those after it are sent again.
        After more than _PATIENCE refusals they are sent one by one. Return an outcome for each change, and
        the error if the connection broke, else None.
        """
        seconds = [whole_seconds(one.timeout) if isinstance(one, Add) else 0 for one in changes]
        outcomes: list[Outcome] = []
        refused = 0
        while rest := changes[len(outcomes) :]:
            times = seconds[len(outcomes) :]
            size = 1 if refused > _PATIENCE else len(rest)
            try:
                self._kernel.request(_message(name, rest[:size], times))
            except NetlinkError as error:
                index = messages.refused_index(error.request)
                if index is None or index >= size:
                    return outcomes + _failed(rest, _explain(name, error)), None
                self.samples.record(name, rest[:index])
                outcomes += _done(rest[:index], times)
                outcomes += _failed(rest[index : index + 1], _explain(name, error))
                refused += 1
            except FirewallError as error:
                return outcomes + _failed(rest, error), error
            else:
                self.samples.record(name, rest[:size])
                outcomes += _done(rest[:size], times)
        return outcomes, None


def _by_set(batch: Sequence[Change]) -> Mapping[tuple[int, Scope, bool], list[int]]:
    """Group the changes of a batch by set: for each set, the positions of its changes in the batch.

    A set is given by its IP version, its scope, and whether friends are exempt.
    """
    indexes: defaultdict[tuple[int, Scope, bool], list[int]] = defaultdict(list)
    for index, change in enumerate(batch):
        network = change.network
        indexes[network.version, change.scope, exempts_friends(network)].append(index)
    return indexes


def _runs(batch: Sequence[Change], indexes: Sequence[int]) -> list[Sequence[int]]:
    """Divide positions in a batch into runs.

    The changes of a run are all Adds or all Removes, and fit into one message.
    """
    parts: list[Sequence[int]] = []
    for _verb, group in itertools.groupby(indexes, key=lambda index: type(batch[index])):
        run = tuple(group)
        parts += [run[at : at + messages.MAX_ELEMENTS] for at in range(0, len(run), messages.MAX_ELEMENTS)]
    return parts


def _message(name: str, changes: Sequence[Change], seconds: Sequence[int]) -> bytes:
    """Build the request for ``changes``, all Add or all Remove.

    ``seconds`` has the timeout of each change, in the same order. It may be longer than ``changes``; the rest
    is ignored.
    """
    networks = [change.network for change in changes]
    if isinstance(changes[0], Add):
        return messages.add(name, list(zip(networks, seconds, strict=False)))
    return messages.delete(name, networks)


def _done(changes: Sequence[Change], seconds: Sequence[int]) -> list[Outcome]:
    return [Outcome(change, float(time)) for change, time in zip(changes, seconds, strict=False)]


def _failed(changes: Sequence[Change], error: FirewallError) -> list[Outcome]:
    return [Outcome(change, error=error) for change in changes]


def _explain(name: str, error: NetlinkError) -> FirewallError:
    if error.code == Code.HASH_FULL:
        return SetFullError(f"set {name} {SET_FULL}")
    if error.code == Code.INVALID_CIDR:
        return EVERY_ADDRESS
    if error.code == errno.ENOENT:
        return FirewallError(
            f"set {name} is gone: another program destroyed it; opening the firewall again creates it"
        )
    return error


# -- the sets of the ipset backend that hold no bans: network lists, observed addresses and flooders
#
# To replace a list, a temporary set is filled in steps. Then the two sets exchange their contents at once,
# and the temporary set is destroyed. The list's set keeps its name, so the rules need no change. The list
# is never empty in between, and a failure before the exchange leaves it unchanged.


# Seconds. The kernel adds a source over the limit to a flood set, for FLOOD_SECONDS. The count of a source is
# kept for this time after the source left the set.
_MEMORY = 60.0
# The most observed addresses in one message to the kernel, and the number of refused messages after which
# each address is sent separately. To send the whole rest again after each refusal would take quadratic time.
_OBSERVED, _REFUSED = 256, 3


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
            size = _OBSERVED if refused <= _REFUSED else 1
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
