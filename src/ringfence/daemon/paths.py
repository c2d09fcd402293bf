"""The user of ringfence's systemd unit: the folders that it needs, and the files that it may read."""

import os
import pwd
import stat
from contextlib import suppress
from pathlib import Path

from ringfence.errors import StoreError
from ringfence.store.owner import owner_of

USER = "ringfence"
"""The name of the user that the systemd unit runs as."""


def make_folder(folder: Path) -> None:
    """Create ``folder`` if it is missing. Normally systemd creates it for the unit.

    In a folder of root, the unit's user becomes its owner, if there is such a user. In a folder of another
    user, root creates it with the rights of this user. A failure is not reported here, because the code that
    writes into the folder reports it.
    """
    with suppress(OSError, StoreError):
        owner = owner_of(folder)
        with owner.acting():
            folder.mkdir(mode=0o750)
        with suppress(KeyError):
            user = pwd.getpwnam(USER)
            if owner.uid == os.geteuid():
                made = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    os.fchown(made, user.pw_uid, user.pw_gid)
                finally:
                    os.close(made)


def may_read(file: Path) -> bool:
    """Whether owners and modes permit the unit's user to read a file; true if that cannot be determined."""
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
