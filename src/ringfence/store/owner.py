"""The user with whose rights the database's files are used: the owner of their folder.

A command of root may use the database without the daemon. The folder and its files belong to the daemon's
user then. With root's rights, SQLite would follow a link that this user puts there, for example as the
write-ahead log, and root would create, change or rename a file anywhere. So root uses all files with the
rights of the folder's owner, which the daemon has anyway.

The rights are those of the thread for files (``setfsuid``). All other rights of root stay, for example to
change bans in the kernel, and the owner cannot send a signal to the process.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

from attrs import frozen

from ringfence.errors import StoreError
from ringfence.file_rights import FileUser, acting_as

_ROOT = 0
_SUFFIXES = ("", "-wal", "-shm", "-journal", ".lock")
"""The ends of the names of the database and of the files next to it that SQLite or ringfence opens."""
_MOST_LINKS = 40  # as many as the kernel follows (path_resolution(7))


@frozen
class FileOwner:
    """A user and a group, whose rights a thread of root can use for files."""

    uid: int
    gid: int

    @classmethod
    def of_process(cls) -> Self:
        """Return the user of this process. With it, :meth:`acting` changes nothing."""
        return cls(os.geteuid(), os.getegid())

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Use files with the rights of this owner in this thread, until the block ends.

        Do nothing if this process is not root, or if the owner is root. Raise StoreError if root may not take
        the rights of others.
        """
        with ExitStack() as acting:
            try:
                acting.enter_context(acting_as(FileUser(self.uid, self.gid)))
            except PermissionError as error:
                raise StoreError(
                    f"root may not take the rights of user {self.uid}, who owns the files; "
                    "fix: give root CAP_SETUID and CAP_SETGID"
                ) from error
            yield


def owner_of(path: Path) -> FileOwner:
    """Return the owner of the folder of the database ``path``.

    Raise StoreError if another user could exchange the folder: every folder and link on the way must belong
    to root or to the owner. If the owner is root, raise it also if another user may write in the folder, or
    owns a file of the database. Raise OSError if the folder cannot be used.

    If this process does not belong to root, return its own user: the kernel checks its rights.
    """
    if os.geteuid() != _ROOT:
        return FileOwner.of_process()
    found = _checked(path.parent, None)
    if found.st_uid == _ROOT:
        if _is_open(found):
            raise StoreError(
                f"{path.parent} belongs to root, but others may write there; fix: chmod go-w {path.parent}"
            )
        for suffix in _SUFFIXES:
            with suppress(FileNotFoundError):
                _checked(path.with_name(path.name + suffix), _ROOT)
    return FileOwner(found.st_uid, found.st_gid)


def _checked(path: Path, owner: int | None) -> os.stat_result:
    """Return the state of ``path`` with all links resolved.

    Raise StoreError unless ``owner``, or root, owns ``path`` and each folder and link on the way. With None,
    that is the owner of ``path`` itself.

    Each part is checked before the next one is read. So nobody can exchange a part that was checked, unless
    the owner does it.
    """
    place, rest, links = Path("/"), [*reversed(Path(os.path.abspath(path)).parts[1:])], 0  # noqa: PTH100 - keeps links
    parts = [(place, place.lstat())]
    while rest:
        place /= rest.pop()
        found = place.lstat()
        parts.append((place, found))
        if stat.S_ISLNK(found.st_mode):
            links += 1
            if links > _MOST_LINKS:
                raise StoreError(f"{path}: too many links; fix: remove their loop, or name another path")
            target = Path(os.path.normpath(place.parent / place.readlink()))
            place, rest = Path("/"), [*rest, *reversed(target.parts[1:])]
    last = parts[-1][1]
    allowed = {_ROOT, last.st_uid if owner is None else owner}
    for place, found in parts:
        if found.st_uid not in allowed:
            raise StoreError(
                f"{path} is not used by root: user {found.st_uid} owns {place} and could exchange it; "
                "fix: give it to root or to the user that runs ringfence"
            )
        # In a folder with the sticky bit (/tmp), only the owner of a file can exchange it.
        if (
            stat.S_ISDIR(found.st_mode)
            and place != parts[-1][0]
            and _is_open(found)
            and not found.st_mode & stat.S_ISVTX
        ):
            raise StoreError(
                f"{path} is not used by root: others may write in {place}; fix: chmod go-w {place}"
            )
    return last


def _is_open(folder: os.stat_result) -> bool:
    """Whether other users than the owner may write in a folder. The group of root may."""
    return bool(folder.st_mode & stat.S_IWOTH or (folder.st_mode & stat.S_IWGRP and folder.st_gid != _ROOT))
