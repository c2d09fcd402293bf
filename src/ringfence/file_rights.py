"""The rights of another user for files, which a thread of root takes for a while.

Root must not use files of another user with its own rights: that user could put a link or another file in
their place. The packages ``host`` (Asterisk's files) and ``store`` (the database) both need this, and neither
may import the other, so it stands below both.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import frozen

_ROOT = 0
_UNCHANGED = 0xFFFF_FFFF  # an invalid number: setfsuid and setfsgid then only return the present one


@frozen
class FileUser:
    """The user id and the one group id with which root opens files for another user."""

    uid: int
    gid: int


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
