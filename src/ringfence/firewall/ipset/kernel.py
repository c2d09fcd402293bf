"""Reads, looks up, replaces and destroys a set of ipset in the kernel."""

import errno
import time
from collections.abc import Iterator

from ringfence.errors import FirewallError, FirewallUnsupportedError
from ringfence.firewall.contract import Element
from ringfence.firewall.ipset import messages
from ringfence.firewall.ipset.messages import Code, Command, IpsetHeader
from ringfence.model import Network, Scope
from ringfence.netlink.connection import NetlinkConnection, NetlinkError

# Seconds to wait until a set is free: the kernel frees removed rules of iptables-nft some milliseconds later.
_RELEASE = 2.0
_TYPES = (
    (messages.SET_TYPE, "ip_set_hash_net", messages.SET_REVISION),
    (messages.ADDRESS_TYPE, "ip_set_hash_ip", messages.ADDRESS_REVISION),
)


def require_ipset(kernel: NetlinkConnection) -> None:
    """Raise FirewallUnsupportedError if the kernel has no ipset, or one that is too old."""
    try:
        [answer] = kernel.request(messages.protocol())
    except NetlinkError as error:
        raise FirewallUnsupportedError(
            "this kernel has no ipset; fix: `modprobe ip_set ip_set_hash_net xt_set` (CONFIG_IP_SET; "
            "in a container: on its host)"
        ) from error
    spoken = messages.version_of(answer, Command.PROTOCOL)
    if spoken < messages.PROTOCOL_VERSION:
        raise FirewallUnsupportedError(
            f"this kernel's ipset speaks protocol {spoken}, and {messages.PROTOCOL_VERSION} is needed; "
            'fix: Linux 5.0 or later, or `backend = "nftables"` in [firewall]'
        )
    for name, module, revision in _TYPES:
        try:
            [answer] = kernel.request(messages.type_query(4, name))
        except NetlinkError as error:
            raise FirewallUnsupportedError(
                f"this kernel's ipset has no {name} (CONFIG_{module.upper()}); fix: `modprobe {module}`"
            ) from error
        newest = messages.version_of(answer, Command.TYPE)
        if newest < revision:
            raise FirewallUnsupportedError(
                f"this kernel's {name} is of revision {newest}, and {revision} is needed; "
                "fix: Linux 3.10 or later"
            )


def read_header(kernel: NetlinkConnection, name: str) -> IpsetHeader | None:
    """Return a set's header, None if there is no such set."""
    try:
        answers = kernel.request(messages.list_header(name))
    except NetlinkError as error:
        if error.code == errno.ENOENT:
            return None
        raise
    return messages.parse_header(answers[0]) if answers else None


def contains(kernel: NetlinkConnection, name: str, network: Network) -> bool:
    """Whether a set exists and contains ``network``.

    For an address, the kernel's answer is also yes if the set contains a network around it.
    """
    try:
        kernel.request(messages.contains(name, network))
    except NetlinkError as error:
        if error.code in (Code.EXIST, errno.ENOENT):
            return False
        raise
    return True


def list_elements(kernel: NetlinkConnection, name: str, scope: Scope = Scope.FULL) -> Iterator[Element]:
    """Yield a set's elements; nothing if there is no such set."""
    try:
        answers = kernel.request(messages.list_elements(name))
    except NetlinkError as error:
        if error.code == errno.ENOENT:
            return
        require_ipset(kernel)  # raises a better error if ipset is missing
        raise
    for answer in answers:
        yield from messages.parse_elements(answer, scope)


def find(kernel: NetlinkConnection, name: str, network: Network, scope: Scope = Scope.FULL) -> Element | None:
    """Return one element of a set, with its time and counters; None if it is not there.

    The kernel sends time and counters only in a list of all elements, in several answers. To save time, only
    the answers that contain the element's bytes are parsed. ``scope`` is the scope of the set's bans.
    """
    if not contains(kernel, name, network):
        return None
    pattern = messages.element_bytes(network)
    parts = [answer for answer in kernel.stream(messages.list_elements(name)) if pattern in answer]
    found = (one for part in parts for one in messages.parse_elements(part, scope))
    return next((one for one in found if one.network == network), None)


def replace(kernel: NetlinkConnection, name: str, fresh: str, creation: bytes) -> None:
    """Replace the set ``name`` by an empty one.

    The request ``creation`` makes the empty set under the name ``fresh``, and the two sets are swapped.
    """
    destroy(kernel, fresh)
    kernel.request(creation)
    kernel.request(messages.swap(name, fresh))
    destroy(kernel, fresh)


def destroy(kernel: NetlinkConnection, name: str) -> None:
    """Destroy a set if it exists; raise FirewallError if a rule still uses it after two seconds."""
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
                    f"set {name} is used by a rule that is not ringfence's; fix: find and remove it with "
                    f"`iptables-save | grep {name}` (also iptables-legacy-save, ip6tables-save)"
                ) from error
            time.sleep(0.01)
        else:
            return
