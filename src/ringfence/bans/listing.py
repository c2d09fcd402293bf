"""Lists the kernel's bans completely, even if they change meanwhile."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from math import inf

from ringfence.errors import FirewallIncompleteError
from ringfence.firewall.contract import Backend, Element
from ringfence.ledger import key_of, network_of
from ringfence.values.ban import Scope
from ringfence.values.network import Network


def listed(backend: Backend, known: Iterable[int] | None, most: float = inf) -> Iterator[Element]:
    """Yield every ban in the kernel's sets. This may run in another thread.

    ``known`` are the keys of the bans that the caller knows; None if it knows none, as at the start. The
    kernel's listing may lack bans if the sets change meanwhile. Known bans that it lacks are looked up one by
    one, unless they are more than ``most``. Otherwise only bans that another program has just added may be
    missing.
    """
    found: set[int] = set()

    def missing(known: Iterable[int]) -> Iterator[tuple[Network, Scope]]:
        keys = [key for key in known if key not in found]
        if len(keys) <= most:
            yield from map(network_of, keys)

    with suppress(FirewallIncompleteError):
        for element in backend.list(None if known is None else missing(known)):
            found.add(key_of(element.network, element.scope))
            yield element
