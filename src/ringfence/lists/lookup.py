"""The entries of the lists that contain an address, found quickly also in long lists.

An imported list may have 100,000 lines, so its entries are not read one by one. Only 32 networks contain an
IPv4 address, from /1 to /32 (128 for IPv6; no list has a /0). The database is searched for the texts of these
networks.
"""

from collections.abc import Callable, Iterable, Iterator

from attrs import frozen

from ringfence.lists.compose import Answers
from ringfence.lists.entries import COMMAND, CONFIGURATION, EntryKind, parse_entry
from ringfence.lists.prefixes import code_of, text_of
from ringfence.model import ListEntry, Network, parse_network
from ringfence.networks import contains

Around = Callable[[str, Network], Network | None]
"""A function that takes the name of a region and a network.

It returns the network of the region that contains this network, or None.
"""


@frozen
class Holder:
    """An entry that contains the network that was looked up.

    ``network`` is the part of the entry that contains the other network: the entry's own network, an address
    of its host name, or a network of its country or autonomous system.
    """

    entry: ListEntry
    network: Network

    @property
    def by_hand(self) -> bool:
        """Whether an administrator named the network itself.

        The networks of imported lists and of regions come from others, so friends pass them.
        """
        hand = {COMMAND, CONFIGURATION}
        return self.entry.origin in hand and parse_entry(self.entry.value).kind is not EntryKind.REGION


def texts_around(network: Network) -> list[str]:
    """Return the text of each network that contains ``network``, from /1 to ``network`` itself."""
    version, code = code_of(network)
    number, bits = code >> 8, network.max_prefixlen
    return [
        text_of(version, (number >> bits - length << bits - length) << 8 | length)
        for length in range(1, network.prefixlen + 1)
    ]


def holders(
    network: Network, entries: Iterable[ListEntry], answers: Answers, around: Around
) -> Iterator[Holder]:
    """Yield those of ``entries`` that contain the whole of ``network``."""
    for entry in entries:
        try:
            found = _held_by(entry, network, answers, around)
        except ValueError:  # an invalid entry, about which compose() adds an alarm
            continue
        if found is not None:
            yield Holder(entry, found)


def _held_by(entry: ListEntry, network: Network, answers: Answers, around: Around) -> Network | None:
    if entry.origin not in {COMMAND, CONFIGURATION}:
        own = parse_network(entry.value)
        return own if contains(own, network) else None
    value = parse_entry(entry.value)
    if value.kind is EntryKind.REGION:
        return around(value.text, network)
    if value.kind is EntryKind.HOST:
        return next((one for one in answers.get(value.text, ()) if contains(one, network)), None)
    return value.network if value.network is not None and contains(value.network, network) else None
