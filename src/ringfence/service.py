"""The daemon's own process: what ``ringfence run`` turns into, ``python -m ringfence.service FILE LEVEL``.

A third argument is the length of a trial in seconds.

The command line's libraries are a quarter of a process's memory (15 of 54 MiB when measured), and the daemon
needs none of them: so the command replaces itself with this module, keeping its process id.
"""

import sys
from pathlib import Path

from ringfence import log
from ringfence.config import load
from ringfence.daemon import Daemon
from ringfence.errors import RingfenceError
from ringfence.exits import explained


def main(config: str, level: str, trial: str = "0") -> int:
    """Guard until stopped; give the exit code."""
    log.configure(int(level))
    path = Path(config)
    try:
        Daemon(path, load(path)).run(float(trial))
    except RingfenceError as error:
        lines, code = explained(error)
        print(*lines, sep="\n", file=sys.stderr)  # noqa: T201 - the last word, for whoever started it
        return code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
