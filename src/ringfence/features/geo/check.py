"""The databases in ``ringfence check``."""

import stat
from collections.abc import Iterator
from pathlib import Path

from ringfence.cli.check import Checked
from ringfence.features.geo.settings import GeoSettings
from ringfence.findings import Finding


def findings(checked: Checked) -> Iterator[Finding]:
    """Yield a finding for each database file of ``[geo]`` that does not exist, or may not be looked at."""
    for database in checked.settings.of(GeoSettings).database or ():
        exists = _is_file(database)
        if exists is None:
            text = f"{database} is in a folder that this user may not enter; fix: run this as root"
            yield Finding(None, "geo", text)
        elif not exists:
            yield Finding(False, "geo", f"{database} does not exist; see [geo] database")


def _is_file(path: Path) -> bool | None:
    """Whether ``path`` is a file; None if this user may not enter its folder."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except PermissionError:
        return None
    except OSError:
        return False
