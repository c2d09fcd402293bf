"""Which entries of the lists hold an address: asked of one, however long the lists are.

An imported list may have a hundred thousand lines, so it is not read: of one address there are no more than
32 networks around it (128 of IPv6), and the database is asked for these by their text.
"""

from collections.abc import Callable, Iterable, Iterator

from attrs import frozen

from ringfence.lists.entries import COMMAND, CONFIGURATION, Kind, what_from
from ringfence.lists.prefixes import code_of, text_of
from ringfence.lists.rolls import Answers
from ringfence.model import ListEntry, Network, network_from

Around = Callable[[str, Network], Network | None]
"""What says which network of a country or a network number another one lies in."""


@frozen
class Holder:
    """An entry, and what of it holds the address: itself, or where its name leads, or its country's part."""

    entry: ListEntry
    network: Network


def texts_around(network: Network) -> list[str]:
    """Give every network that ``network`` lies in, and itself, as entries are written; the widest first."""
    version, code = code_of(network)
    number, bits = code >> 8, network.max_prefixlen
    return [
        text_of(version, (number >> bits - length << bits - length) << 8 | length)
        for length in range(1, network.prefixlen + 1)
    ]


def holders(
    network: Network, entries: Iterable[ListEntry], answers: Answers, around: Around
) -> Iterator[Holder]:
    """Give those of ``entries`` that hold the whole of ``network``."""
    for entry in entries:
        try:
            found = _held_by(entry, network, answers, around)
        except ValueError:  # somebody has written there; it is told with the lists' other problems
            continue
        if found is not None:
            yield Holder(entry, found)


def _held_by(entry: ListEntry, network: Network, answers: Answers, around: Around) -> Network | None:
    if entry.origin not in {COMMAND, CONFIGURATION}:
        return _holds(network_from(entry.what), network)
    what = what_from(entry.what)
    if what.kind is Kind.PLACE:
        return around(what.text, network)
    if what.kind is Kind.HOST:
        led = (_holds(one, network) for one in answers.get(what.text, ()))
        return next((one for one in led if one is not None), None)
    return None if what.network is None else _holds(what.network, network)


def _holds(one: Network, network: Network) -> Network | None:
    """Give ``one`` where the whole of ``network`` lies in it."""
    return one if one.version == network.version and network.subnet_of(one) else None  # type: ignore[arg-type] # of one version
