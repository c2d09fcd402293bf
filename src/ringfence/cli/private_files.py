"""Files that a command writes for its user alone."""

import os
import stat
from contextlib import suppress
from pathlib import Path
from tempfile import mkstemp

_DEVICES = (Path("/dev"), Path("/proc"))


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner can read; raise OSError if this is impossible.

    An existing file is replaced in one step: if that fails, the old file stays. If ``file`` is a symbolic
    link, the link is replaced and not its target. A device or a pipe, such as ``/dev/stdout``, is written
    directly.
    """
    if _is_special(file):
        file.write_text(text, "utf-8")
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
    """Whether a path is a device, a pipe or a folder, so that it cannot be replaced by a file.

    Everything directly in ``/dev`` or below ``/proc`` counts as special, even a symbolic link such as
    ``/dev/stdout``.
    """
    folder = file.parent.resolve()
    if folder == _DEVICES[0] or folder.is_relative_to(_DEVICES[1]):
        return True
    try:
        mode = file.lstat().st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISLNK(mode)
