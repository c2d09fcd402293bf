"""Which boot of this host it is, to tell a restart of ringfence from one of the host.

The kernel gives each boot a random name. The unit hides the file that it stands in (``ProcSubset=pid``), and
hands the name over in the environment (``%b`` in a unit) instead.
"""

import os
import re
from pathlib import Path

VARIABLE = "RINGFENCE_BOOT_ID"

_FILE = Path("/proc/sys/kernel/random/boot_id")
_ID = re.compile(r"[0-9a-f]{32}")


def boot_id(file: Path = _FILE) -> str:
    """Give the name of this boot: 32 hexadecimal digits, or nothing where it cannot be known."""
    try:
        text = file.read_text("ascii")
    except OSError:
        text = os.environ.get(VARIABLE, "")
    text = text.strip().replace("-", "").lower()
    return text if _ID.fullmatch(text) else ""
