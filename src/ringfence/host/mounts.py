"""Paths on this host of the files of a process that may have another root folder, by the mounts of both."""

import os
import re
from pathlib import Path

from ringfence.host.asterisk_conf import FOLDER, AsteriskFiles
from ringfence.host.console import Console, Server, SocketConsole, is_same, owner_of
from ringfence.host.console_tables import settings_from
from ringfence.host.owned_files import exists
from ringfence.host.processes import PROC

_MAIN_FILES = ("asterisk.conf", "logger.conf")
_ESCAPE = re.compile(r"\\([0-7]{3})")


def local_files(console: Console, folder: Path) -> AsteriskFiles | None:
    """Return the configuration files of the Asterisk with this console; None if they are not on this host.

    They are in the folder that the running Asterisk reports, if that can be Asterisk's; otherwise in
    ``folder``. If ``folder`` is not the default one, an administrator has named it, and it counts. But if
    Asterisk has another root folder (in a container), this host may have files of another Asterisk in
    ``folder``. Then only the folder that Asterisk reports counts.
    """
    if not isinstance(console, SocketConsole) or (console.server.same_root and folder != FOLDER):
        return AsteriskFiles(folder)
    shown = settings_from(console.show("core show settings") or "")
    files = files_of(console.server, Path(shown.get("configuration directory", FOLDER)))
    if files is not None and is_asterisks(files.folder, console.server):
        return files
    return AsteriskFiles(folder) if console.server.same_root else None


def is_asterisks(folder: Path, server: Server) -> bool:
    """Whether a folder can be an Asterisk's configuration. Asterisk's user can make it report any folder.

    So a folder of others must have two of Asterisk's main files. With one, it may be another program's:
    systemd has modules-load.d/modules.conf, and fail2ban filter.d/asterisk.conf. Asterisk needs modules.conf.
    """
    if server.uid in owner_of(folder):
        return True
    return exists(folder / "modules.conf") and any(exists(folder / name) for name in _MAIN_FILES)


def files_of(server: Server, named: Path, proc: Path = PROC) -> AsteriskFiles | None:
    """Return the configuration files of an Asterisk, which names their folder ``named``.

    Return None if the folder has no path on this host.
    """
    folder = host_path(proc / str(server.pid), named)
    if folder is None:
        return None
    return AsteriskFiles(folder, None if server.same_root and folder == named else named)


def host_path(root: Path, inside: Path) -> Path | None:
    """Return the path on this host of a folder that a process sees as ``inside``.

    ``root`` is the folder /proc/PID of the process. Return None if the folder has no path on this host. An
    example is a folder in the image of a container.
    """
    seen = root / "root" / str(inside).lstrip("/")
    if is_same(seen, inside):
        return inside
    source = _mount_of(_mounts(root / "mountinfo"), inside)
    for device, top, point in reversed(_mounts(root.parent / "self" / "mountinfo")):
        if source is None or device != source[0]:
            continue
        if Path(source[1]).is_relative_to(top):
            path = Path(point) / Path(source[1]).relative_to(top)
            if is_same(seen, path):
                return path
    return None


def why_fixed(path: Path, proc: Path = PROC) -> str:
    """Return why root cannot replace a file of this host; "" if it can."""
    if not os.access(path, os.W_OK):
        return "it is read-only"
    points = {point for _, _, point in _mounts(proc / "self" / "mountinfo")}
    return "it is a mount of its own, as in a container" if os.path.realpath(path) in points else ""


def _mount_of(mounts: list[tuple[str, str, str]], path: Path) -> tuple[str, str] | None:
    """Return the device on which a path is, and the path within that device; None if no mount contains it."""
    for device, top, point in sorted(mounts, key=lambda mount: len(mount[2]), reverse=True):
        if path.is_relative_to(point):
            return device, str(Path(top) / path.relative_to(point))
    return None


def _mounts(file: Path) -> list[tuple[str, str, str]]:
    """Return the mounts in a file ``mountinfo`` (proc(5)); none if the file cannot be read.

    Each mount is the number of a device, the folder on this device that is mounted, and the mount point.
    """
    try:
        lines = file.read_bytes().decode("utf-8", "surrogateescape").split("\n")
    except OSError:
        return []
    rows = [line.split(" ") for line in lines if line]
    return [(row[2], _unescaped(row[3]), _unescaped(row[4])) for row in rows]


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)
