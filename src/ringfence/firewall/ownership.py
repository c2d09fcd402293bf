"""One ringfence to a network namespace: the sets have fixed names, and two daemons would undo each other.

The claim is an abstract unix socket. Abstract names belong to the network namespace, exactly as the sets do,
and the kernel frees them with the process, however it ends: no stale lock file.
"""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from ringfence.errors import FirewallBusyError, FirewallError

_NAME = "\0ringfence/sets"


@contextmanager
def claim_sets() -> Iterator[None]:
    """Own the sets of this network namespace until the block ends, or raise FirewallBusyError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as claim:
        try:
            claim.bind(_NAME)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise FirewallError(f"the sets cannot be claimed: {error}") from error
            raise FirewallBusyError(
                "another ringfence guards this network namespace (it holds the abstract socket "
                "@ringfence/sets, see `ss -xlp`); stop it first: systemctl stop ringfence"
            ) from error
        yield
