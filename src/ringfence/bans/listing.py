"""Lists the kernel's bans completely, even if they change meanwhile."""

from collections.abc import Iterable, Iterator
from contextlib import suppress

from ringfence.bans.ledger import key_of, network_of
from ringfence.errors import FirewallIncompleteError
from ringfence.firewall.contract import Backend, Element


def listed(backend: Backend, known: Iterable[int] | None) -> Iterator[Element]:
    """Yield every ban of the kernel. May be called in another thread.

    ``known`` are the keys of the bans that the caller knows; None if it knows none, as at the start. If the
    kernel's sets change meanwhile, known bans that the listing lacks are looked up one by one. So the only
    ban that may be missing is one that another program has added, and that no comparison has found so far.
    The next comparison, within a minute, adopts it.
    """
    found: set[int] = set()
    with suppress(FirewallIncompleteError):
        missing = None if known is None else (network_of(key) for key in known if key not in found)
        for element in backend.list(missing):
            found.add(key_of(element.network, element.scope))
            yield element
