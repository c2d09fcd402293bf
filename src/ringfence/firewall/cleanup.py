"""Removal of all sets and rules of ringfence from the kernel, for every backend."""

from ringfence.errors import FirewallError, FirewallUnsupportedError
from ringfence.firewall import KERNEL_BACKENDS, make_backend


def flush_everything() -> None:
    """Remove the sets and rules of every kernel backend.

    After an error it continues with the next backend, and raises the first FirewallError at the end. A
    backend that this host does not support is skipped, because it can have no sets and rules here.
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
    """Remove the sets and rules of the kernel backends other than ``kept``.

    Return the names of the backends that had any. If the administrator configures another backend, the bans
    of the earlier one are still in the kernel; this function removes them. Usually there are none; then no
    process is started, and the returned list is empty. Raises FirewallError if a removal fails.
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
    """Whether the kernel has any set or rule of the backend ``name``.

    False also if the kernel does not support the backend, or if its answer is an error.
    """
    backend = make_backend(name)
    try:
        return backend.is_present()
    except FirewallError:
        return False
    finally:
        backend.close()
