"""Taking everything of ours out of the kernel, whichever backend put it there."""

from ringfence.errors import FirewallError, FirewallUnsupportedError
from ringfence.firewall import KERNELS, make_backend
from ringfence.firewall.netlink import Conversation


def flush_everything(*, but: str = "") -> None:
    """Flush every backend of the kernel but the one of that name; raise the first FirewallError in the end.

    What this host does not have holds nothing of ours.
    """
    failed: FirewallError | None = None
    for name in KERNELS:
        if name == but:
            continue
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


def flush_the_other(kept: str) -> list[str]:
    """Flush what another backend than ``kept`` has in the kernel; give the names of those.

    For a daemon whose configuration has another backend than before. Where there is nothing, as nearly
    always, no process is started. Raises FirewallError.
    """
    found = [name for name in KERNELS if name != kept and _holds_anything(name)]
    for name in found:
        backend = make_backend(name)
        try:
            backend.flush()
        finally:
            backend.close()
    return found


def _holds_anything(name: str) -> bool:
    """Say whether the kernel has anything of a backend's. No rule of ipset's is without its sets."""
    from ringfence.firewall.ipset_kernel import head_of  # noqa: PLC0415 - what is not used is not loaded
    from ringfence.firewall.ipset_sets import every_name  # noqa: PLC0415 - as above
    from ringfence.firewall.nft_state import read_state  # noqa: PLC0415 - as above

    with Conversation() as kernel:
        try:
            if name == "ipset":
                return any(head_of(kernel, own) is not None for own in every_name())
            return read_state(kernel) is not None
        except FirewallError:
            return False  # this kernel does not have it
