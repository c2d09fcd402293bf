"""What is tried: system calls, the errors with which each can fail, and one case of the many.

An error is in the table if the manual page of the call names it for a cause outside of the program: the disk,
memory, a limit, a right. ``epoll_ctl`` is left out: asyncio and pyroute2 cannot go on without it. The kernel
refuses it only if it lacks memory for its own objects.
"""

from collections.abc import Iterable, Mapping

from attrs import frozen

ERRORS: Mapping[str, tuple[str, ...]] = {
    # files
    "openat": ("EMFILE", "EACCES", "ENOSPC"),
    "read": ("EIO",),
    "pread64": ("EIO",),
    "write": ("ENOSPC",),
    "pwrite64": ("ENOSPC", "EIO"),
    "fsync": ("EIO",),
    "fdatasync": ("EIO",),
    "ftruncate": ("EIO",),
    "rename": ("ENOSPC", "EACCES"),
    "renameat": ("ENOSPC", "EACCES"),
    "unlink": ("EACCES",),
    "unlinkat": ("EACCES",),
    "mkdir": ("ENOSPC",),
    "newfstatat": ("EIO",),
    "getdents64": ("EIO",),
    "flock": ("ENOMEM",),
    "fcntl": ("ENOLCK",),
    "flistxattr": ("EIO",),
    "readlinkat": ("EIO",),
    "rmdir": ("EACCES",),
    "fchown": ("EPERM",),
    "fchmod": ("EPERM",),
    # sockets: control, netlink, AMI
    "socket": ("EMFILE", "ENFILE", "ENOBUFS"),
    "bind": ("ENOBUFS", "EACCES"),
    "listen": ("ENOBUFS",),
    "accept4": ("EMFILE", "ENOMEM"),
    "connect": ("ECONNREFUSED", "EADDRNOTAVAIL"),
    "sendto": ("ENOBUFS", "EPERM"),
    "sendmsg": ("ENOBUFS",),
    "recvfrom": ("ENOBUFS", "ECONNRESET"),
    "recvmsg": ("ENOBUFS",),
    "setsockopt": ("ENOMEM",),
    "getsockopt": ("ENOBUFS",),
    "ioctl": ("ENOMEM",),
    # processes and memory
    "clone3": ("EAGAIN",),
    "clone": ("EAGAIN",),
    "vfork": ("EAGAIN",),
    "execve": ("ENOMEM",),
    "mmap": ("ENOMEM",),
    "pipe2": ("EMFILE",),
    "epoll_create1": ("EMFILE",),
    "socketpair": ("EMFILE",),
    "pidfd_open": ("EMFILE",),
    "inotify_init1": ("EMFILE",),
    "inotify_add_watch": ("ENOSPC",),
}
"""The errors of each system call."""

KILL = "KILL"
"""In place of an error: SIGKILL when the call begins."""
KILLED_AT = (
    "openat",
    "write",
    "pwrite64",
    "sendto",
    "sendmsg",
    "fsync",
    "fdatasync",
    "rename",
    "renameat",
    "unlinkat",
)
"""The calls at which the process is killed. Between two of them it changes nothing that outlives it."""


@frozen
class Row:
    """One operation with one backend, in which one call has one fault."""

    operation: str
    backend: str
    call: str
    error: str

    def __str__(self) -> str:
        return f"{self.operation}, {self.backend}, {self.call} {self.error}"

    @property
    def injection(self) -> str:
        """The fault as strace's option expects it."""
        return "signal=KILL" if self.error == KILL else f"error={self.error}"


def rows(operations: Iterable[str], backends: tuple[str, ...]) -> list[Row]:
    """Return every row, with the faults of one operation after the other."""
    faults = [(call, error) for call, errors in ERRORS.items() for error in errors]
    faults += [(call, KILL) for call in KILLED_AT]
    return [
        Row(operation, backend, call, error)
        for operation in operations
        for call, error in faults
        for backend in backends
    ]
