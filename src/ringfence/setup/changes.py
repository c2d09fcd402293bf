"""Changes of files and folders, which can be shown as a diff.

The new content of a file is written to a temporary file in the same folder. When the content has reached the
disk, the temporary file is renamed over the old one. So after a kill or a power failure the file has either
its old or its new content.
"""

import difflib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from attrs import frozen

from ringfence.errors import SetupError
from ringfence.model import printable

MAX_BYTES = 8 * 1024 * 1024
_SECRET = re.compile(r"([ +-]?\s*[\w-]*(?:secret|password|passwd|pass)\s*=>?\s*)\S.*", re.IGNORECASE)


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

    ``before`` is None if the file does not exist yet. ``reason`` is a text for the administrator.
    """

    path: Path
    before: FileState | None
    after: FileState
    reason: str

    def apply(self) -> None:
        """Write the file; raise SetupError if that fails."""
        write_file(self.path, self.after)

    def shown(self) -> Iterator[str]:
        """Yield the lines that show the change: a unified diff with masked secrets."""
        old, new = (
            state.content.decode("utf-8", "replace").split("\n") if state is not None else []
            for state in (self.before, self.after)
        )
        names = "/dev/null" if self.before is None else str(self.path), str(self.path)
        yield from (masked(line) for line in difflib.unified_diff(old, new, *names, lineterm=""))


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
            # The folder gets its final name last. So a kill never leaves ``path`` with wrong rights.
            new = temporary(self.path)
            remove_folder(new)
            new.mkdir(mode=0o700)
            set_folder(new, self.after)
            new.rename(self.path)
            sync_folder(self.path.parent)
        except OSError as error:
            raise _cannot("make", self.path, error) from None

    def shown(self) -> Iterator[str]:
        """Yield the line that shows the change."""
        old = "" if self.before is None else f"{_rights(self.before)} -> "
        yield f"folder {self.path}: {old}{_rights(self.after)}"


Change: TypeAlias = FileChange | FolderChange


def file_state(path: Path) -> FileState | None:
    """Return the present state of a file; None if it does not exist.

    Raise SetupError if it cannot be read, is not a regular file, or is longer than ``MAX_BYTES``.
    """
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _cannot("read", path, error) from None
    if not stat.S_ISREG(found.st_mode) or len(content) > MAX_BYTES:
        raise SetupError(f"{path} is no regular file of at most {MAX_BYTES} bytes; setup does not change it")
    return FileState(content, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)


def folder_state(path: Path) -> FolderState | None:
    """Return the present state of a folder; None if nothing has this path.

    Raise SetupError if the path cannot be read, or is not a folder.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _cannot("read", path, error) from None
    if not stat.S_ISDIR(found.st_mode):
        raise SetupError(f"{path} is no folder; fix: move it away")
    return FolderState(stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)


def temporary(path: Path) -> Path:
    """Return the path at which the new version of a file or folder is prepared, in the same folder.

    Asterisk (which includes ``*.conf``), logrotate and fail2ban do not read files of this name.
    """
    return path.with_name(f".{path.name}.ringfence-new")


def write_file(path: Path, state: FileState) -> None:
    """Replace or create a file; raise SetupError if that fails, for example on a full disk."""
    new = temporary(path)
    try:
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(state.content)
            os.fchown(descriptor, state.uid, state.gid)
            os.fchmod(descriptor, state.mode)
            _copy_attributes(path, descriptor)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        new.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise _cannot("write", path, error) from None


def remove_file(path: Path) -> None:
    """Remove a file, if it exists; raise SetupError if that fails."""
    try:
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise _cannot("remove", path, error) from None


def remove_folder(path: Path) -> None:
    """Remove an empty folder, if it exists; raise OSError if that fails."""
    with suppress(FileNotFoundError):
        path.rmdir()


def set_folder(path: Path, state: FolderState) -> None:
    """Set the mode and owners of an existing folder. Raise OSError if that fails, or if it is a link."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(descriptor, state.uid, state.gid)
        os.fchmod(descriptor, state.mode)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder have reached the disk; raise OSError if that fails."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def masked(line: str) -> str:
    """Return a line of a configuration file. If it sets a password, the password is replaced by ``*``."""
    match = _SECRET.fullmatch(line)
    return f"{match[1]}********" if match else line


def _copy_attributes(path: Path, descriptor: int) -> None:
    """Copy the extended attributes (access lists, security labels) of the old file at ``path``.

    ``descriptor`` is the new file. Errors are ignored, because some file systems have no such attributes.
    """
    with suppress(OSError):
        for name in os.listxattr(path):
            os.setxattr(descriptor, name, os.getxattr(path, name))


def _rights(state: FolderState) -> str:
    return f"mode {state.mode:04o}, owner {state.uid}:{state.gid}"


def _cannot(verb: str, path: Path, error: OSError) -> SetupError:
    return SetupError(f"cannot {verb} {printable(str(path))}: {error.strerror}")
