"""What the unit's user needs of the file system: its folders, and files that it may read."""

import os
import pwd
import stat
from contextlib import suppress
from pathlib import Path

USER = "ringfence"
"""Whom the unit runs as."""


def make_folder(folder: Path) -> None:
    """Make what systemd makes for the unit, where somebody comes before it: its user's, if there is one.

    A folder that cannot be made is told of by what wants to write there.
    """
    with suppress(OSError):
        folder.mkdir(mode=0o750)
        with suppress(KeyError):
            user = pwd.getpwnam(USER)
            os.chown(folder, user.pw_uid, user.pw_gid)


def may_read(file: Path) -> bool:
    """Say whether the unit's user may read a file, by owners and modes; where nobody can tell, he may."""
    try:
        user = pwd.getpwnam(USER)
        groups = {user.pw_gid, *os.getgrouplist(USER, user.pw_gid)}
        above = all(_grants(folder, user.pw_uid, groups, stat.S_IXOTH) for folder in file.resolve().parents)
        return above and _grants(file, user.pw_uid, groups, stat.S_IROTH)
    except (KeyError, OSError):
        return True


def _grants(path: Path, user: int, groups: set[int], right: int) -> bool:
    found = path.stat()
    whose = 6 if found.st_uid == user else 3 if found.st_gid in groups else 0
    return user == 0 or bool(found.st_mode >> whose & right)
