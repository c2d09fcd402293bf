"""The folder of the database or the socket, where nobody has made it yet."""

import os
import pwd
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
