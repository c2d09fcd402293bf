"""What is tried: system calls, the errors with which each can fail, and one case of the many.

An error is in the table if a kernel returns it for a cause outside of the program: the disk, memory, a limit,
a right. ``epoll_ctl`` is left out: asyncio and pyroute2 cannot go on without it. The kernel refuses it only
if it lacks memory for its own objects.
"""

from collections.abc import Iterable, Mapping

from attrs import frozen

ERRORS: Mapping[str, tuple[str, ...]] = {
    # files
    "openat": ("EMFILE", "ENFILE", "EACCES", "ENOSPC"),
    "read": ("EIO",),
    "pread64": ("EIO",),
    "write": ("ENOSPC", "EIO"),
    "pwrite64": ("ENOSPC", "EIO"),
    "fsync": ("EIO", "ENOSPC"),
    "fdatasync": ("EIO", "ENOSPC"),
    "ftruncate": ("EIO",),
    "rename": ("ENOSPC", "EACCES", "EPERM", "EIO"),
    "renameat": ("ENOSPC", "EACCES", "EPERM", "EIO"),
    "unlink": ("EACCES", "EPERM", "EIO"),
    "unlinkat": ("EACCES", "EPERM", "EIO"),
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
    "sendmsg": ("ENOBUFS", "EPERM"),
    "recvfrom": ("ENOBUFS", "ECONNRESET"),
    "recvmsg": ("ENOBUFS",),
    "setsockopt": ("ENOMEM",),
    "getsockopt": ("ENOBUFS",),
    "ioctl": ("ENOMEM",),
    # processes and memory
    "clone3": ("EAGAIN", "ENOMEM"),
    "clone": ("EAGAIN", "ENOMEM"),
    "vfork": ("EAGAIN", "ENOMEM"),
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

NOTHING = "getcpu"
"""A call that nobody uses: no fault. Then an operation must do what its cases are judged by."""
READS_REPORTS = frozenset({"read", "recvfrom", "recvmsg", "socket", "connect", "mmap"})
"""Calls whose failure may end the connection to AMI, and lose a report."""
KILL = "KILL"
"""In place of an error: SIGKILL when the call begins."""
AT_ANSWER = "KILL after it"
"""In place of an error, with NOTHING: SIGKILL as soon as the answer is there. What it reports must last."""
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
    "unlink",
    "unlinkat",
    "mkdir",
    "rmdir",
    "ftruncate",
    "fchown",
    "fchmod",
)
"""The calls at which the process is killed. Between two of them it changes nothing that outlives it."""


LASTING = (
    ("pwrite64", "ENOSPC"),
    ("pwrite64", "EIO"),
    ("fdatasync", "EIO"),
    ("openat", "EMFILE"),
)
"""Faults that last: from the n-th use on each one fails. A disk is full for longer than one call."""


@frozen
class Row:
    """One operation with one backend, in which one call has one fault."""

    operation: str
    backend: str
    call: str
    error: str
    lasts: bool = False

    def __str__(self) -> str:
        return f"{self.operation}, {self.backend}, {self.call} {self.error}{'+' * self.lasts}"

    @property
    def injection(self) -> str:
        """The fault as strace's option expects it."""
        return "signal=KILL" if self.error == KILL else f"error={self.error}"


def rows(
    operations: Iterable[str], backends: tuple[str, ...], lasting: frozenset[str] = frozenset()
) -> list[Row]:
    """Return every row, one operation after the other. In those of ``lasting``, faults also last."""
    faults = [(call, error) for call, errors in ERRORS.items() for error in errors]
    faults += [(call, KILL) for call in KILLED_AT]
    every = [(*fault, False) for fault in faults] + [(*fault, True) for fault in LASTING]
    return [
        Row(operation, backend, *fault)
        for operation in operations
        for fault in every
        for backend in backends
        if not fault[-1] or operation in lasting
    ]
