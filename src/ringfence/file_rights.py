"""Other users: their numbers, how root opens only their regular files, and takes their rights for a while.

Root must not use files of another user with its own rights: that user could put a link or another file in
their place. The packages ``host`` (Asterisk's files) and ``store`` (the database) both need this, and neither
may import the other, so it stands below both, and so do the numbers of users.
"""

import errno
import os
import pwd
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

_ROOT = 0
_UNCHANGED = 0xFFFF_FFFF  # an invalid number: setfsuid and setfsgid then only return the present one


@frozen
class FileUser:
    """The user id and the one group id with which root opens files for another user."""

    uid: int
    gid: int


def user_number(user: str) -> int | None:
    """Return the number of a user, given by its name or number; None if this host has no such user.

    Users' names may be on a slow server (LDAP), so do not call this in the event loop.
    """
    try:
        return int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def open_regular(path: Path, *, follow: bool = True, fifo: bool = False, folder: int | None = None) -> int:
    """Open a regular file for reading, with ``fifo`` also a FIFO; return its descriptor, which never blocks.

    Raise OSError if that fails, or if ``path`` is of another kind. The owner of its folder could put a device
    or a FIFO there, or a link to one. Opening it may change the device, or wake a program that waits for a
    reader. So the file is found without opening it. With ``follow`` false, a link is refused.
    ``folder`` is the descriptor of the folder that a relative ``path`` begins in.
    """
    found = os.open(path, os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW), dir_fd=folder)
    try:
        kind = os.fstat(found).st_mode
        if stat.S_ISLNK(kind):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        if not (stat.S_ISREG(kind) or (fifo and stat.S_ISFIFO(kind))):
            wanted = "neither a file nor a FIFO" if fifo else "not a regular file"
            raise OSError(errno.EINVAL, f"it is {wanted}", str(path))
        try:
            return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(found)


@contextmanager
def as_user(uid: int, gid: int, groups: Sequence[int]) -> Iterator[None]:
    """Run the block with the rights of a user, in the whole process; raise PermissionError if not root."""
    own_groups, own_gid = os.getgroups(), os.getegid()
    os.setgroups(groups)
    try:
        os.setegid(gid)
        os.seteuid(uid)
        yield
    finally:
        os.seteuid(_ROOT)
        os.setegid(own_gid)
        os.setgroups(own_groups)


@contextmanager
def acting_as(user: FileUser) -> Iterator[None]:
    """Open files with the rights of ``user`` alone, in this thread, until the block ends.

    Do nothing if this process is not root, or if the user is root. Raise PermissionError if root may not take
    the rights of others (it lacks CAP_SETUID or CAP_SETGID). All other rights of root stay, for example to
    change bans in the kernel.
    """
    if os.geteuid() != _ROOT or user.uid == _ROOT:
        yield
        return
    from ctypes import CDLL  # noqa: PLC0415 - loaded for root only: it takes memory

    kernel = CDLL(None)
    if os.getgroups():
        os.setgroups([])  # root needs no groups, and without root's rights its groups would still count
    # The kernel keeps both numbers for each thread, and drops root's capabilities for files meanwhile.
    gid, uid = kernel.setfsgid(user.gid), kernel.setfsuid(user.uid)
    try:
        if (kernel.setfsuid(_UNCHANGED), kernel.setfsgid(_UNCHANGED)) != (user.uid, user.gid):
            raise PermissionError(errno.EPERM, f"cannot act as user {user.uid}")
        yield
    finally:
        kernel.setfsuid(uid)
        kernel.setfsgid(gid)
