"""What is asked of the kernel's ipset, set by set: is it there, what does it hold, away with it."""

import errno
import time
from collections.abc import Iterator

from ringfence.errors import FirewallError, FirewallUnsupportedError
from ringfence.firewall import ipset_messages as messages
from ringfence.firewall.contract import Element
from ringfence.firewall.ipset_messages import Code, SetHead
from ringfence.firewall.netlink import Conversation, NetlinkError
from ringfence.model import Network, Scope

# The kernel frees the rules that used a set some milliseconds after iptables-nft has removed them.
_RELEASE = 2.0


def require_ipset(kernel: Conversation) -> None:
    """Raise FirewallUnsupportedError where the kernel has no ipset, or none with sets of networks."""
    try:
        kernel.request(messages.protocol())
    except NetlinkError as error:
        raise FirewallUnsupportedError(
            "this kernel has no ipset; mend: `modprobe ip_set ip_set_hash_net xt_set` (CONFIG_IP_SET; "
            "in a container: on its host)"
        ) from error
    for name, module in ((messages.SET_TYPE, "ip_set_hash_net"), (messages.FLOOD_TYPE, "ip_set_hash_ip")):
        try:
            kernel.request(messages.type_query(4, name))
        except NetlinkError as error:
            raise FirewallUnsupportedError(
                f"this kernel's ipset has no {name} (CONFIG_{module.upper()}); mend: `modprobe {module}`"
            ) from error


def head_of(kernel: Conversation, name: str) -> SetHead | None:
    """Give a set's head, None where there is no such set."""
    try:
        answers = kernel.request(messages.list_head(name))
    except NetlinkError as error:
        if error.code == errno.ENOENT:
            return None
        raise
    return messages.parse_head(answers[0]) if answers else None


def contains(kernel: Conversation, name: str, network: Network) -> bool:
    """Say whether a set is there and has this very network, or for an address one that covers it."""
    try:
        kernel.request(messages.contains(name, network))
    except NetlinkError as error:
        if error.code in (Code.EXIST, errno.ENOENT):
            return False
        raise
    return True


def listed(kernel: Conversation, name: str, scope: Scope = Scope.FULL) -> Iterator[Element]:
    """Read a set's elements; nothing where there is no such set."""
    try:
        answers = kernel.request(messages.list_elements(name))
    except NetlinkError as error:
        if error.code == errno.ENOENT:
            return
        require_ipset(kernel)  # says so if that is what is lacking
        raise
    for answer in answers:
        yield from messages.parse_listed(answer, scope).elements


def find(kernel: Conversation, name: str, network: Network, scope: Scope = Scope.FULL) -> Element | None:
    """Read one element of a set, None where it is not there.

    The kernel lists all or none: of what it lists only the part is read that has the element's bytes.
    """
    if not contains(kernel, name, network):
        return None
    looked_for = messages.bytes_of(network)
    parts = [answer for answer in kernel.stream(messages.list_elements(name)) if looked_for in answer]
    found = (one for part in parts for one in messages.parse_listed(part, scope).elements)
    return next((one for one in found if one.network == network), None)


def replace(kernel: Conversation, name: str, fresh: str, creation: bytes) -> None:
    """Put an empty set, which ``creation`` makes as ``fresh``, in the place of ``name``, and remove that."""
    destroy(kernel, fresh)
    kernel.request(creation)
    kernel.request(messages.swap(name, fresh))
    destroy(kernel, fresh)


def destroy(kernel: Conversation, name: str) -> None:
    """Remove a set if it is there, or raise FirewallError where a rule uses it."""
    deadline = time.monotonic() + _RELEASE
    while True:
        try:
            kernel.request(messages.destroy(name))
        except NetlinkError as error:
            if error.code == errno.ENOENT:
                return
            if error.code != Code.BUSY:
                raise
            if time.monotonic() > deadline:
                raise FirewallError(
                    f"set {name} is used by a rule that is not ringfence's: find it with "
                    f"`iptables-save | grep {name}` (also iptables-legacy-save, ip6tables-save)"
                ) from error
            time.sleep(0.01)
        else:
            return
