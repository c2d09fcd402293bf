"""The kernel's lists of networks, written at once."""

from collections.abc import Iterable

from ringfence.firewall.contract import Backend, NetworkList
from ringfence.model import Network


def write_list(backend: Backend, which: NetworkList, networks: Iterable[Network]) -> None:
    """Replace the contents of a list, in all steps."""
    for call in backend.replace_list_in_steps(which, networks):
        if call is not None:
            call()
