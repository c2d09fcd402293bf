"""The kernel's lists of networks, written at once."""

from collections.abc import Iterable

from ringfence.firewall.contract import Backend
from ringfence.firewall.network_lists import NetworkList
from ringfence.firewall.nftables import messages
from ringfence.netlink.connection import NetlinkConnection
from ringfence.values.network import Network


def write_list(backend: Backend, which: NetworkList, networks: Iterable[Network]) -> None:
    """Replace the contents of a list, in all steps."""
    for call in backend.replace_list_in_steps(which, networks):
        if call is not None:
            call()


def external() -> int:
    """Return the number of IPv4 ranges on the external list (nftables, on a kernel that counts them)."""
    with NetlinkConnection(extended=True) as kernel:
        heads = messages.sets_of(kernel.request(messages.get_sets("ringfence")))
    return max(head.elements or 0 for head in heads if head.name.startswith("external4"))
