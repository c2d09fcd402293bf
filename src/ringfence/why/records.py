"""What the kernel and the database have on a network."""

from collections.abc import Iterator, Mapping

from attrs import frozen

from ringfence.errors import FirewallError, StoreError
from ringfence.firewall.contract import Backend, Element
from ringfence.model import Ban, Network, Scope
from ringfence.store import KEEP, Store
from ringfence.store_past import Past
from ringfence.why.known import Running, covers

MOST = 50
"""So many bans are told of, the latest."""


@frozen
class Found:
    """The kernel's bans that cover a network, and those on record; ``problems`` is what could not be read."""

    elements: tuple[Element, ...]
    past: tuple[Past, ...]
    problems: tuple[str, ...]


def look(backend: Backend, store: Store | None, network: Network, now: float) -> Found:
    """Read both. For a thread: it may take as long as to read all that the kernel has."""
    problems: list[str] = []
    elements: tuple[Element, ...] = ()
    past: list[Past] = []
    try:
        elements = tuple(one for one in backend.list() if covers(one.network, network))
    except FirewallError as error:
        problems.append(f"what the kernel has is not known: {error}")
    try:
        past = store.past(network, now - KEEP, MOST) if store is not None else []
    except StoreError as error:
        problems.append(f"what is on record is not known: {error}")
    return Found(elements, tuple(past), tuple(problems))


def running_of(
    found: Found, known: Mapping[tuple[Network, Scope], Ban | None], now: float
) -> tuple[Running, ...]:
    """Bring together what the kernel has, what is on record, and what else is ``known``; the widest first."""
    recorded = {(one.ban.network, one.ban.scope): one.ban for one in found.past if one.runs(now)}
    elements = {(one.network, one.scope): one for one in found.elements}
    return tuple(_each(elements, {**known, **recorded}))


def _each(
    elements: Mapping[tuple[Network, Scope], Element], bans: Mapping[tuple[Network, Scope], Ban | None]
) -> Iterator[Running]:
    every = sorted({*elements, *bans}, key=lambda key: (key[0].prefixlen, str(key[1])))
    for network, scope in every:
        yield Running(network, scope, bans.get((network, scope)), elements.get((network, scope)))
