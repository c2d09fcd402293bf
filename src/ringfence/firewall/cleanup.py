"""Removal of all sets and rules of ringfence from the kernel, for every backend."""

from ringfence.errors import FirewallError, FirewallUnsupportedError
from ringfence.firewall import KERNEL_BACKENDS, make_backend
from ringfence.netlink.connection import NetlinkConnection


def flush_everything() -> None:
    """Flush every kernel backend; at last raise the first FirewallError.

    A backend that this host does not support has nothing to flush.
    """
    failed: FirewallError | None = None
    for name in KERNEL_BACKENDS:
        backend = make_backend(name)
        try:
            backend.flush()
        except FirewallUnsupportedError:
            continue
        except FirewallError as error:
            failed = failed or error
        finally:
            backend.close()
    if failed is not None:
        raise failed


def flush_other_backends(kept: str) -> list[str]:
    """Flush the kernel backends other than ``kept``; return the names of those that were in use.

    Called after the configured backend has changed. In most cases there is nothing to flush, and no process
    is started. Raises FirewallError.
    """
    found = [name for name in KERNEL_BACKENDS if name != kept and holds_anything(name)]
    for name in found:
        backend = make_backend(name)
        try:
            backend.flush()
        finally:
            backend.close()
    return found


def holds_anything(name: str) -> bool:
    """Whether the kernel has anything of that backend. Rules of ipset never exist without its sets."""
    from ringfence.firewall.ipset.kernel import read_header  # noqa: PLC0415 - loaded only when needed
    from ringfence.firewall.ipset.sets import all_set_names  # noqa: PLC0415 - as above
    from ringfence.firewall.nftables.state import read_state  # noqa: PLC0415 - as above

    with NetlinkConnection() as kernel:
        try:
            if name == "ipset":
                return any(read_header(kernel, own) is not None for own in all_set_names())
            return read_state(kernel) is not None
        except FirewallError:
            return False  # this kernel does not support the backend
