"""Files that a command writes for its user alone."""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from tempfile import mkstemp

_DEVICES = (Path("/dev"), Path("/proc"))


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner can read; raise OSError if this is impossible.

    An existing file is replaced in one step: if that fails, the old file stays. If ``file`` is a symbolic
    link, the link is replaced and not its target. A device or a pipe is written directly. So is everything
    directly in ``/dev`` or below ``/proc``: links there, such as ``/dev/stdout``, are root's.
    """
    folder = Path(os.path.realpath(file.parent))
    if folder == _DEVICES[0] or folder.is_relative_to(_DEVICES[1]):
        (folder / file.name).write_text(text, "utf-8")
        return
    if _is_special(file):
        _write_special(file, text)
        return
    descriptor, name = mkstemp(prefix=f".{file.name[:100]}.", dir=file.parent)
    try:
        with open(descriptor, "w", encoding="utf-8") as new:  # noqa: PTH123 - an open descriptor
            new.write(text)
            new.flush()
            os.fsync(descriptor)
        Path(name).replace(file)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def _is_special(file: Path) -> bool:
    """Whether a path is a device, a pipe or a folder, so that it cannot be replaced by a file."""
    try:
        mode = file.lstat().st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISLNK(mode)


def _write_special(file: Path, text: str) -> None:
    """Write into a device or a pipe.

    The owner of its folder may have put a link or a file in its place meanwhile. Neither is written.
    """
    descriptor = os.open(file, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(descriptor, "w", encoding="utf-8") as special:  # noqa: PTH123 - an open descriptor
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a pipe any more", str(file))
        special.write(text)
