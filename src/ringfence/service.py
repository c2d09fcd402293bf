"""The daemon's own process: what ``ringfence run`` turns into, ``python -m ringfence.service FILE LEVEL``.

A third argument is the length of a trial in seconds.

The command line's libraries are a quarter of a process's memory (15 of 54 MiB when measured), and the daemon
needs none of them: so the command replaces itself with this module, keeping its process id. Nor does it
need rich, which structlog takes for tracebacks where it finds it: a tenth of the time until READY.
"""

import sys
from pathlib import Path

# To import it then fails, as where it is not installed.
sys.modules["rich"] = None  # type: ignore[assignment]

from ringfence import log  # noqa: E402 - after what is said of rich
from ringfence.config import load  # noqa: E402 - as above
from ringfence.daemon import Daemon  # noqa: E402 - as above
from ringfence.errors import RingfenceError  # noqa: E402 - as above
from ringfence.exits import explained  # noqa: E402 - as above
from ringfence.folders import make_folder  # noqa: E402 - as above


def main(config: str, level: str, trial: str = "0") -> int:
    """Guard until stopped; give the exit code."""
    log.configure(int(level))
    path = Path(config)
    try:
        settings = load(path)
        for file in (settings.store.path, settings.control.socket):
            make_folder(file.parent)
        Daemon(path, settings).run(float(trial))
    except RingfenceError as error:
        lines, code = explained(error)
        print(*lines, sep="\n", file=sys.stderr)  # noqa: T201 - the last word, for whoever started it
        return code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
