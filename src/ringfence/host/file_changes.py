"""Changes of files and folders, which can be shown as a diff.

The new content of a file is written to a temporary file in the same folder. When the content has reached the
disk, the temporary file is renamed over the old one. So after a kill or a power failure the file has either
its old or its new content.

Asterisk's user may replace any name in Asterisk's folders at any time. So each step opens the folder again,
works on its descriptor, and below a folder of another user it has only that user's rights (see
:mod:`ringfence.host.owned_files`). A file gets its owners by the descriptor of the new, empty file.
"""

import difflib
import errno
import os
import pwd
import re
import shlex
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import AnyStr, TypeAlias

from attrs import frozen

from ringfence.errors import SetupError
from ringfence.host.owned_files import Folder, opened_folder, opened_parent, read_file
from ringfence.values.text import printable

MAX_BYTES = 8 * 1024 * 1024
_SECRET_NAME = re.compile(r"secret|token|passw|pwd|\bpass|pass\b", re.IGNORECASE)
_MASK = "********"
_SHORTEST = 4
"""The minimum length of a password that is masked everywhere: a shorter one may be a common word."""
MOST_COMPARED = 1_000
"""The maximum number of lines from the first change in a file to the last: difflib takes its square."""
_AROUND = 3  # unchanged lines that are shown before and after a change
_NO_SECRET = re.compile(r"[ +-]?(?:secret|token)_file\s*=.*")


@frozen
class FileState:
    """The content, mode and owners of a file."""

    content: bytes
    mode: int
    uid: int
    gid: int


@frozen
class FolderState:
    """The mode and owners of a folder."""

    mode: int
    uid: int
    gid: int


@frozen
class FileChange:
    """A change of a file from the state ``before`` to the state ``after``.

    ``before`` is None if the file does not exist yet. ``reason`` is a text for the administrator. ``secret``:
    the whole file is a password, and its content is never shown.
    """

    path: Path
    before: FileState | None
    after: FileState
    reason: str
    secret: bool = False

    def apply(self) -> None:
        """Write the new content, mode and owners of the file; raise SetupError if that fails."""
        write_file(self.path, self.after)

    def shown(self) -> Iterator[str]:
        """Yield the lines that show the change: a unified diff with masked secrets."""
        if self.secret:
            rights = FolderState(self.after.mode, self.after.uid, self.after.gid)
            yield f"file {self.path}, with a password: {_rights(rights)}"
            return
        old, new = (
            state.content.decode("utf-8", "replace").split("\n") if state is not None else []
            for state in (self.before, self.after)
        )
        names = "/dev/null" if self.before is None else str(self.path), str(self.path)
        secrets = {secret for line in (*old, *new) if (secret := _secret_of(line))}
        is_long = max(len(old), len(new)) > MOST_COMPARED
        if is_long:
            old, new = changed_part(old, new, _AROUND)
            if max(len(old), len(new)) > MOST_COMPARED:
                yield f"{self.path}: the {len(old)} lines around the changes are too many to be shown"
                return
        for line in difflib.unified_diff(old, new, *names, lineterm=""):
            if is_long and line.startswith("@@"):
                continue  # numbers of lines, counted from the first that is compared
            text = masked(line)
            for secret in secrets:
                text = text.replace(secret, _MASK) if len(secret) >= _SHORTEST else text
            yield text


def changed_part(old: list[AnyStr], new: list[AnyStr], around: int = 0) -> tuple[list[AnyStr], list[AnyStr]]:
    """Return the lines of two contents from the first change to the last, and ``around`` lines more."""
    first = max(0, _common(old, new) - around)
    last = max(0, _common(old[first:][::-1], new[first:][::-1]) - around)
    return old[first : len(old) - last], new[first : len(new) - last]


def _common(old: Sequence[AnyStr], new: Sequence[AnyStr]) -> int:
    """Return how many lines at the beginning of ``old`` and ``new`` are the same."""
    pairs = enumerate(zip(old, new, strict=False))
    return next((number for number, (one, other) in pairs if one != other), min(len(old), len(new)))


@frozen
class FolderChange:
    """A change of a folder from the state ``before`` to the state ``after``.

    ``before`` is None if the folder does not exist yet. ``reason`` is a text for the administrator.
    """

    path: Path
    before: FolderState | None
    after: FolderState
    reason: str

    def apply(self) -> None:
        """Make the folder, or change its mode and owners; raise SetupError if that fails."""
        try:
            if self.before is not None:
                set_folder(self.path, self.after)
                return
            with opened_parent(self.path) as (folder, name):
                _make_folder(folder, name, self.after)
        except OSError as error:
            raise _cannot("make", self.path, error) from None

    def shown(self) -> Iterator[str]:
        """Yield the line that shows the change."""
        old = "" if self.before is None else f"{_rights(self.before)} -> "
        yield f"folder {self.path}: {old}{_rights(self.after)}"


Change: TypeAlias = FileChange | FolderChange


def file_state(path: Path, most: int = MAX_BYTES) -> FileState | None:
    """Return the present state of a file; None if it does not exist.

    Raise SetupError if it cannot be read, is not a regular file, or is longer than ``most`` bytes.
    """
    try:
        content, found = read_file(path, most + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _cannot("read", path, error, _closed_to(path) if error.errno == errno.EACCES else "") from None
    if len(content) > most:
        raise SetupError(f"{path} has more than {most} bytes; it is not changed")
    return FileState(content, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)


def folder_state(path: Path) -> FolderState | None:
    """Return the present state of a folder; None if nothing has this path.

    Raise SetupError if the path cannot be read, or is not a folder.
    """
    try:
        with opened_parent(path) as (folder, name):
            found = folder.state(name)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _cannot("read", path, error) from None
    if not stat.S_ISDIR(found.st_mode):
        raise SetupError(f"{path} is no folder; fix: move it away")
    return FolderState(stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)


def temporary(name: str) -> str:
    """Return the name under which the new version of a file or folder is prepared, in the same folder.

    Programs that read all files of a folder, such as ``*.conf``, do not read files of this name.
    """
    return f".{name}.ringfence-new"


def write_file(path: Path, state: FileState) -> None:
    """Replace or create a file; raise SetupError if that fails, for example on a full disk."""
    try:
        with opened_parent(path) as (folder, name):
            try:
                _write(folder, name, state)
            except OSError:
                with suppress(OSError):
                    _unlink(folder, temporary(name))
                raise
    except OSError as error:
        raise _cannot(
            "write", path, error, _closed_to(path.parent) if error.errno == errno.EACCES else ""
        ) from None


def remove_file(path: Path) -> None:
    """Remove a file, if it exists; raise SetupError if that fails."""
    try:
        with opened_parent(path) as (folder, name):
            _unlink(folder, name)
            _sync(folder)
    except OSError as error:
        raise _cannot("remove", path, error) from None


def remove_rest(path: Path) -> None:
    """Remove the unfinished new version of ``path`` that a killed run left beside it.

    Raise SetupError if that fails.
    """
    try:
        with opened_parent(path) as (folder, name):
            new = temporary(name)
            with suppress(FileNotFoundError):
                if stat.S_ISDIR(folder.state(new).st_mode):
                    _rmdir(folder, new)
                else:
                    _unlink(folder, new)
                _sync(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _cannot("remove", path.with_name(temporary(path.name)), error) from None


def remove_folder(path: Path) -> None:
    """Remove an empty folder, if it exists; raise OSError if that fails."""
    with opened_parent(path) as (folder, name):
        _rmdir(folder, name)


def remove_tree(path: Path, chosen: Callable[[str], bool]) -> None:
    """Remove from a folder the files and folders whose names ``chosen`` accepts, with their contents.

    Raise OSError if that fails. Links are removed, not their targets.
    """
    with opened_folder(path) as folder, folder.acting() as descriptor:
        for name in sorted(filter(chosen, os.listdir(descriptor))):  # noqa: PTH208 - an open folder
            if stat.S_ISDIR(folder.state(name).st_mode):
                try:
                    shutil.rmtree(name, dir_fd=descriptor)
                except RecursionError:
                    raise OSError(errno.ELOOP, "too many folders, one in the other", name) from None
            else:
                os.unlink(name, dir_fd=descriptor)
        os.fsync(descriptor)


def set_folder(path: Path, state: FolderState) -> None:
    """Set the mode and owners of an existing folder; raise OSError if that fails."""
    with opened_parent(path) as (folder, name):
        _set_folder(folder, name, state)


def _make_folder(folder: Folder, name: str, state: FolderState) -> None:
    """Make a folder, which gets its name last: a killed run never leaves this name with wrong rights."""
    new = temporary(name)
    _rmdir(folder, new)
    with folder.acting() as descriptor:
        os.mkdir(new, mode=0o700, dir_fd=descriptor)
    _set_folder(folder, new, state)
    with folder.acting() as descriptor:
        os.rename(new, name, src_dir_fd=descriptor, dst_dir_fd=descriptor)
    _sync(folder)


def _set_folder(folder: Folder, name: str, state: FolderState) -> None:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with folder.acting() as descriptor:
        opened = os.open(name, flags, dir_fd=descriptor)
    try:
        _require_owner(folder, opened)
        os.fchown(opened, state.uid, state.gid)
        os.fchmod(opened, state.mode & (0o2777 if folder.user else 0o7777))
    finally:
        os.close(opened)


def _write(folder: Folder, name: str, state: FileState) -> None:
    new = temporary(name)
    _unlink(folder, new)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with folder.acting() as descriptor:
        opened = os.open(new, flags, 0o600, dir_fd=descriptor)
    try:
        with folder.acting() as descriptor:
            with open(opened, "wb", closefd=False) as file:
                file.write(state.content)
            _copy_attributes(descriptor, name, opened)
        _require_owner(folder, opened)
        # Root's rights are needed here: only root can give a file to another user or group.
        os.fchown(opened, state.uid, state.gid)
        os.fchmod(opened, state.mode & 0o777)
        os.fsync(opened)
    finally:
        os.close(opened)
    with folder.acting() as descriptor:
        os.replace(new, name, src_dir_fd=descriptor, dst_dir_fd=descriptor)
    _sync(folder)


def _require_owner(folder: Folder, opened: int) -> None:
    """Raise OSError unless an open file or folder (a descriptor) belongs to the user of its ``folder``.

    That user may have put another file in its place, to have root change its rights.
    """
    state = os.fstat(opened)
    linked = stat.S_ISREG(state.st_mode) and state.st_nlink != 1
    if folder.user is not None and (state.st_uid != folder.user.uid or linked):
        raise PermissionError(errno.EPERM, f"it is not of user {folder.user.uid}, whose folder contains it")


def _unlink(folder: Folder, name: str) -> None:
    with folder.acting() as descriptor, suppress(FileNotFoundError):
        os.unlink(name, dir_fd=descriptor)


def _rmdir(folder: Folder, name: str) -> None:
    with folder.acting() as descriptor, suppress(FileNotFoundError):
        os.rmdir(name, dir_fd=descriptor)


def _sync(folder: Folder) -> None:
    """Wait until the names in a folder have reached the disk."""
    with folder.acting() as descriptor:
        opened = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=descriptor)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder have reached the disk; raise OSError if that fails."""
    with opened_folder(path) as folder:
        _sync(folder)


def masked(line: str) -> str:
    """Return a line of a configuration file, with ``*`` in place of a password that it sets.

    That holds for comments too: an administrator disables a line, and the password is still in use elsewhere.
    """
    secret = _secret_of(line)
    return f"{line.removesuffix(secret)}{_MASK}" if secret else line


def _secret_of(line: str) -> str:
    """Return the password that a line sets, to the line's end; "" if it sets none.

    Asterisk's user writes the line, which may be very long. So it is split, and no expression backtracks.
    """
    name, _, value = line.partition("=")
    if _NO_SECRET.fullmatch(line) or not _SECRET_NAME.search(name):
        return ""
    return value.removeprefix(">").lstrip() or value.lstrip()


def _copy_attributes(folder: int, name: str, opened: int) -> None:
    """Copy the extended attributes (access lists, security labels) of the old file to the new one.

    ``opened`` is the descriptor of the new file, and ``folder`` that of the folder with the old file
    ``name``. Errors are ignored, because some file systems have no such attributes.
    """
    with suppress(OSError):
        old = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        try:
            for attribute in os.listxattr(old):
                os.setxattr(opened, attribute, os.getxattr(old, attribute))
        finally:
            os.close(old)


def _rights(state: FolderState) -> str:
    return f"mode {state.mode:04o}, owner {state.uid}:{state.gid}"


def _closed_to(path: Path) -> str:
    """Return which user may not read a file of Asterisk, and the fix; "" if rights are not the cause.

    The user may have made the file a link to any other file, so the fix does not follow links.
    """
    try:
        with opened_parent(path) as (folder, _):
            user = folder.user
    except OSError:
        return ""
    if user is None:
        return ""
    name = str(user.uid)
    with suppress(KeyError):
        name = pwd.getpwuid(user.uid).pw_name
    return (
        f" for user {printable(name)}, whose folder contains it; it is not used as root, because "
        "this user may have put another file there; fix, if it is Asterisk's own: "
        f"chown -h {printable(name)} {printable(shlex.quote(str(path)))}"
    )


def _cannot(verb: str, path: Path, error: OSError, more: str = "") -> SetupError:
    return SetupError(f"cannot {verb} {printable(str(path))}: {error.strerror}{more}")
