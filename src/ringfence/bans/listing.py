"""A complete listing of the kernel's bans."""

from collections.abc import Iterable, Iterator
from contextlib import suppress

from ringfence.bans.ledger import key_of, network_of
from ringfence.errors import FirewallIncompleteError
from ringfence.firewall.contract import Backend, Element


def listed(backend: Backend, known: Iterable[int] | None) -> Iterator[Element]:
    """Yield every ban of the kernel, including all known ones. May be called in another thread.

    ``known`` is None if the caller knows no bans, as at the start.

    If the sets change meanwhile, one kind of ban may be missing: a ban that another program added, and that
    no comparison has found so far. The next comparison, within a minute, adopts it.
    """
    found: set[int] = set()
    with suppress(FirewallIncompleteError):
        missing = None if known is None else (network_of(key) for key in known if key not in found)
        for element in backend.list(missing):
            found.add(key_of(element.network, element.scope))
            yield element
