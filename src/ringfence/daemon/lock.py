"""The lock that allows only one ringfence in each network namespace.

The kernel's sets have fixed names, so two daemons would undo each other's work. The lock (``flock``) is on a
file that only root and the service user can open. The file's name contains the inode number of the network
namespace. The kernel releases the lock when the process ends for any reason.

There is a lock in the runtime folder (``/run/ringfence``), so that two daemons with different configurations
exclude each other. If the control socket is in another folder, there is a second lock. It is enough for a
process that cannot write to /run.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ringfence.daemon.paths import make_folder
from ringfence.errors import FirewallBusyError, FirewallError
from ringfence.store.owner import FileOwner

RUNTIME_FOLDER = Path("/run/ringfence")
_NAMESPACE = Path("/proc/thread-self/ns/net")
_WRITABLE_BY_OTHERS = 0o022
_TRIES = 20


@contextmanager
def claim_sets(folder: Path) -> Iterator[None]:
    """Hold the lock for the sets of this network namespace until the block ends.

    ``folder`` is the folder of the control socket. Raise FirewallBusyError if another process has the lock,
    FirewallError if the lock can be put into neither folder.
    """
    folders = dict.fromkeys((RUNTIME_FOLDER, folder))
    refused = []
    with ExitStack() as stack:
        for place in folders:
            make_folder(place)
            try:
                stack.enter_context(_locked(place))
            except OSError as error:
                refused.append(f"{place}: {error.strerror}")
        if len(refused) == len(folders):
            raise FirewallError(
                f"the sets cannot be claimed: {'; '.join(refused)}; fix: give {RUNTIME_FOLDER} to the "
                "user that runs ringfence, mode 0750"
            )
        yield


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock in ``folder`` until the block ends.

    Raise OSError if the folder cannot be used, or if other users may write there. Raise FirewallBusyError if
    another process has the lock.
    """
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = os.fstat(directory)
        if found.st_mode & _WRITABLE_BY_OTHERS:
            raise PermissionError(0, "other users may write there")
        owner = FileOwner(found.st_uid, found.st_gid)
        name = f"sets-{_NAMESPACE.stat().st_ino}.lock"
        with owner.acting():
            descriptor = _lock(directory, name, folder)
        try:
            yield
        finally:
            # The file is removed while this process holds the lock. Another process that has opened the file
            # notices the removal, and tries again.
            with suppress(OSError), owner.acting():
                if _is_at(descriptor, directory, name):
                    os.unlink(name, dir_fd=directory)
            os.close(descriptor)
    finally:
        os.close(directory)


def _lock(directory: int, name: str, folder: Path) -> int:
    """Lock the file ``name`` in the open folder ``directory``, and return its descriptor."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    for _ in range(_TRIES):
        descriptor = os.open(name, flags, 0o600, dir_fd=directory)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, directory, name):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise FirewallBusyError(
                f"another ringfence guards this network namespace (it locks {folder / name}, see `lslocks`); "
                "stop it first: systemctl stop ringfence"
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    raise FirewallBusyError(
        f"other processes of ringfence come and go ({folder / name}); try again when they have ended"
    )


def _is_at(descriptor: int, directory: int, name: str) -> bool:
    """Whether the file ``name`` in the folder is still the open file, not a newer one."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(name, dir_fd=directory, follow_symlinks=False))
    except FileNotFoundError:
        return False
