"""Files below folders of other users, opened without giving these users the rights of root.

Root must not trust a path into a folder of another user: that user can replace any part of the path by a
link, a FIFO or another folder, at any time. So this module walks each path by descriptors, one name at a
time, and chooses the rights for the rest of the way:

======================================= =================================================================
folder on the way                       rest of the way
======================================= =================================================================
of root, writable by root alone         with the rights of this process; links are followed
of root, writable by others too         with the rights of this process; links are refused
of another user, and all below it       with the rights of that user; links are followed, with these too
======================================= =================================================================

The rights of root never come back on one way. Other rights change at a folder of yet another user, as in a
container's files, unless a link of the first user led there. With the owner's rights a link leads nowhere
the owner could not go alone. A path that another user wrote is walked with this user's rights from its
beginning. A process that is not root always uses its own rights. Only regular files are read.
"""

import errno
import fnmatch
import os
import pwd
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import define

from ringfence.file_rights import FileUser, acting_as, open_regular

_MOST_LINKS, _MOST_STEPS = 40, 1_000
"""The maximum number of links on the way to a file, and of names on it, in the links' targets too."""
_LOOK_UP, _NAME = 50, 10  # the work for each folder of a path, and to keep a name (microseconds)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SEARCH = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NOBODY = 65_534
_WRITABLE = stat.S_IWGRP | stat.S_IWOTH


@define
class Folder:
    """An open folder. Its files are used with the rights of ``user``; None: with this process's own.

    ``links``: links in this folder are followed.
    """

    descriptor: int
    user: FileUser | None = None
    links: bool = True

    @contextmanager
    def acting(self) -> Iterator[int]:
        """Run the block with the rights of this folder's user, and yield the folder's descriptor."""
        if self.user is None:
            yield self.descriptor
            return
        with acting_as(self.user):
            yield self.descriptor

    def state(self, name: str) -> os.stat_result:
        """Return the state of a file in this folder; of a link, that of the link itself."""
        with self.acting() as descriptor:
            return os.stat(name, dir_fd=descriptor, follow_symlinks=False)


@contextmanager
def opened_parent(
    path: Path, root: int | None = None, user: FileUser | None = None
) -> Iterator[tuple[Folder, str]]:
    """Open the folder in which a file is, or would be; yield the folder, and the file's name in it.

    If ``path`` is a link that may be followed, yield folder and name of its target. ``root`` is the
    descriptor of the folder that absolute paths begin with; None means this host's own. ``user`` is the user
    who wrote the path, None if it is to be trusted; likewise in the other functions of this module. Raise
    OSError if a folder on the way cannot be opened.
    """
    walk = _Walk(path, root, user)
    try:
        yield walk.folder, walk.name
    finally:
        walk.close()


@contextmanager
def opened_folder(path: Path, user: FileUser | None = None) -> Iterator[Folder]:
    """Open a folder itself, for its names. Raise OSError if that fails."""
    walk = _Walk(path, None, user, whole=True)
    try:
        with walk.folder.acting() as descriptor:
            again = os.open(".", _FOLDER, dir_fd=descriptor)
        os.close(walk.folder.descriptor)
        walk.folder.descriptor = again
        yield walk.folder
    finally:
        walk.close()


def open_file(path: Path, user: FileUser | None = None) -> int:
    """Open a file for reading, with the rights of its folder's user; return its descriptor.

    The descriptor never blocks. A FIFO, a device or a socket is refused without opening it. Raise OSError if
    the file cannot be opened.
    """
    with opened_parent(path, user=user) as (folder, name), folder.acting() as descriptor:
        if stat.S_ISDIR(folder.state(name).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        return open_regular(Path(name), follow=False, folder=descriptor)


def read_file(path: Path, most: int, user: FileUser | None = None) -> tuple[bytes, os.stat_result]:
    """Return the first ``most`` bytes of a file, and its state; raise OSError if that fails.

    The file is opened as by :func:`open_file`. A file of /proc that has no bytes yet is an error too.
    """
    file = open_file(path, user)
    with os.fdopen(file, "rb") as source:
        content: bytes | None = source.read(most)
        if content is None:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(path))
        return content, os.fstat(file)


def names_in(
    path: Path, user: FileUser | None = None, spend: Callable[[int], None] = lambda _: None
) -> list[str]:
    """Return the sorted names in a folder; raise OSError if it cannot be listed.

    ``spend`` is called with the work for each name, as in :func:`matching`. So an error can end the list of
    another user's folder before millions of names are in memory.
    """
    names = []
    with opened_folder(path, user) as folder, folder.acting() as descriptor, os.scandir(descriptor) as found:
        for one in found:
            spend(_NAME)
            names.append(one.name)
    return sorted(names)


def exists(path: Path, user: FileUser | None = None) -> bool:
    """Whether ``path`` exists; True too if this cannot be known: reading it then raises the reason."""
    try:
        with opened_parent(path, user=user) as (folder, name):
            folder.state(name)
    except OSError as error:
        return not isinstance(error, FileNotFoundError | NotADirectoryError)
    return True


def is_same_folder(one: Path, other: Path) -> bool:
    """Whether two paths name the same folder; False if either cannot be opened."""
    try:
        with opened_folder(one) as first, opened_folder(other) as second:
            return os.path.samestat(os.fstat(first.descriptor), os.fstat(second.descriptor))
    except OSError:
        return False


def leads_out(path: Path, folder: Path) -> bool:
    """Whether ``path``, a file below ``folder``, is a link out of this folder, or one that leads nowhere."""
    try:
        with opened_parent(path) as (parent, _), opened_folder(folder) as top:
            return not _path_of(parent).is_relative_to(_path_of(top))
    except FileNotFoundError:
        return _is_link(path)
    except OSError:
        return False


def _path_of(folder: Folder) -> Path:
    return Path(f"/proc/self/fd/{folder.descriptor}").readlink()


def _is_link(path: Path) -> bool:
    try:
        with opened_folder(path.parent) as folder:
            return stat.S_ISLNK(folder.state(path.name).st_mode)
    except OSError:
        return False


def may_change(path: Path) -> bool:
    """Whether the user of a folder may make files in it; True too if the folder does not exist."""
    try:
        with opened_folder(path) as folder:
            user, state = folder.user, os.fstat(folder.descriptor)
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    if user is None:
        return os.access(path, os.W_OK)
    if state.st_uid == user.uid:
        return bool(state.st_mode & stat.S_IWUSR)
    return bool(state.st_mode & (stat.S_IWGRP if state.st_gid == user.gid else stat.S_IWOTH))


def folder_user(path: Path) -> FileUser | None:
    """Return with whose rights the files of a folder are used; None: with those of this process.

    The user is ``nobody`` if the folder cannot be opened.
    """
    try:
        walk = _Walk(path, None, whole=True)
    except OSError:
        return FileUser(_NOBODY, _NOBODY)
    walk.close()
    return walk.folder.user


def matching(
    pattern: Path,
    spend: Callable[[int], None] = lambda _: None,
    counts: Callable[[Path], bool] = exists,
    user: FileUser | None = None,
) -> list[Path]:
    """Return the sorted paths that match a pattern with ``*``, ``?`` and ``[`` in any of its names.

    ``spend`` is called with the work, in units of about a microsecond; it raises an error if that is too
    much. A pattern of another user may match any number of paths. Only paths that ``counts`` accepts are
    returned: those that exist.
    """
    found = [Path(pattern.anchor or ".")]
    for part in pattern.parts[1 if pattern.anchor else 0 :]:
        if any(mark in part for mark in "*?["):
            names = ((folder, name) for folder in found for name in _listed(folder, spend, user))
            found = [folder / name for folder, name in names if _fits(name, part)]
        else:
            found = [folder / part for folder in found]
    known = []
    for path in found:
        spend(_LOOK_UP * len(path.parts))
        if counts(path):
            known.append(path)
    return known


def _listed(folder: Path, spend: Callable[[int], None], user: FileUser | None) -> list[str]:
    spend(_LOOK_UP * len(folder.parts))
    try:
        return names_in(folder, user, spend)
    except OSError:
        return []


def _fits(name: str, part: str) -> bool:
    return fnmatch.fnmatchcase(name, part) and (not name.startswith(".") or part.startswith("."))


class _Walk:
    """Opens the folders on the way to a file one by one. ``whole``: the last name is a folder to open too."""

    def __init__(
        self, path: Path, root: int | None, user: FileUser | None = None, *, whole: bool = False
    ) -> None:
        if "\0" in str(path):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._whole = whole
        self._strayed = user is not None
        self._root = os.open("/", _SEARCH) if root is None else os.dup(root)
        self._left = [*reversed(path.parts)] if path.is_absolute() else [*reversed(path.absolute().parts)]
        self._links, self._steps = _MOST_LINKS, _MOST_STEPS
        self.folder = Folder(os.dup(self._root), user)
        self.name = "."
        try:
            self._check()
            while self._left:
                self._step()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close all descriptors."""
        os.close(self.folder.descriptor)
        os.close(self._root)

    def _step(self) -> None:
        part = self._left.pop()
        self._steps -= 1
        if self._steps < 0:
            raise OSError(errno.ELOOP, "too many names and links")
        if part == "/":
            self._enter(os.dup(self._root))
            return
        target = self._target(part)
        if target is not None:
            self._left += reversed(Path(target).parts)
        elif self._left or self._whole:
            with self.folder.acting() as descriptor:
                self._enter(os.open(self._inside(part), _SEARCH, dir_fd=descriptor))
        else:
            self.name = self._inside(part)

    def _inside(self, part: str) -> str:
        """Return the name ``part``, but ``.`` for ``..`` in the root folder, as in a chroot."""
        if part == ".." and os.path.samestat(os.fstat(self.folder.descriptor), os.fstat(self._root)):
            return "."
        return part

    def _enter(self, descriptor: int) -> None:
        os.close(self.folder.descriptor)
        self.folder.descriptor = descriptor
        self._check()

    def _check(self) -> None:
        """Choose with whose rights everything below the present folder is used: those of its owner."""
        if os.geteuid() != 0 or self._strayed:
            return
        state = os.fstat(self.folder.descriptor)
        if self.folder.user is None and state.st_uid == 0 and state.st_mode & _WRITABLE:
            self.folder.links = False
        if state.st_uid != 0:
            user = user_of(state)
            try:
                with acting_as(user):
                    self.folder.user = user
                    self.folder.links = True
            except PermissionError:  # a root without CAP_SETUID
                self.folder.links = False

    def _target(self, part: str) -> str | None:
        """Return the target of the link ``part``; None if the name is not a link or does not exist.

        Raise OSError if others than the folder's user can replace the link, or after too many links.
        """
        try:
            state = self.folder.state(part)
        except FileNotFoundError:
            return None
        if not stat.S_ISLNK(state.st_mode):
            return None
        self._links -= 1
        if not self.folder.links or self._links < 0:
            raise OSError(
                errno.ELOOP, "a link that others can replace" if self._links >= 0 else "too many links"
            )
        with self.folder.acting() as descriptor:
            self._strayed = self.folder.user is not None
            return os.readlink(part, dir_fd=descriptor)


def user_of(state: os.stat_result) -> FileUser:
    """Return the owner of a folder, with the owner's own group.

    The group of the folder counts if this host has no such user. It is never root's group.
    """
    with suppress(KeyError):
        return FileUser(state.st_uid, pwd.getpwuid(state.st_uid).pw_gid or _NOBODY)
    return FileUser(state.st_uid, state.st_gid or _NOBODY)
