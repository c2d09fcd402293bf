"""Taking everything of ours out of the kernel, whichever backend put it there."""

from ringfence.errors import FirewallError, FirewallUnsupportedError
from ringfence.firewall import make_backend

KERNELS = ("ipset", "nftables")


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
