"""The list of bans has every known ban, even if the sets change meanwhile."""

from collections.abc import Iterable, Iterator
from ipaddress import ip_network

from ringfence.bans.listing import listed
from ringfence.errors import FirewallIncompleteError
from ringfence.firewall.contract import Element
from ringfence.firewall.memory import MemoryBackend
from ringfence.ledger import key_of
from ringfence.values.ban import Scope
from ringfence.values.network import Network

KNOWN = (ip_network("192.0.2.1"), Scope.SIP_UDP)


class Busy(MemoryBackend):
    """A backend whose sets change while they are listed: it finds only the bans that it is asked for."""

    def list(self, known: Iterable[tuple[Network, Scope]] | None = None) -> Iterator[Element]:
        """List the known bans, and report that others may be missing."""
        for network, scope in known or ():
            yield Element(network, 60.0, 0, 0, scope)
        raise FirewallIncompleteError("others may be missing")


def test_what_is_known_is_listed() -> None:
    """The keys are looked up as networks with their scopes, and an incomplete listing is no error."""
    assert [(one.network, one.scope) for one in listed(Busy(), [key_of(*KNOWN)])] == [KNOWN]
