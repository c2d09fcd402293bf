"""The daemon's process: ``ringfence run`` becomes ``python -m ringfence.guard.service FILE LEVEL``.

``FILE`` is the configuration, ``LEVEL`` the number of a log level. Further arguments (``NAME=VALUE``) are
options that features read.

The command line's libraries take a quarter of a process's memory (15 of 54 MiB when measured), and the daemon
needs none of them. So the command replaces itself with this module and keeps its process id.

structlog imports rich and greenlet if they are installed. The daemon does without them: importing rich would
take a tenth of the time until the daemon is ready, and greenlet 1 MB of memory.
"""

import signal
import sys
from pathlib import Path

# None in sys.modules makes each later import of these libraries fail, as if they were not installed.
for _name in ("rich", "greenlet"):
    sys.modules[_name] = None  # type: ignore[assignment]

from ringfence.config.loader import load  # noqa: E402 - as above
from ringfence.errors import (  # noqa: E402 - as above
    RingfenceError,
    error_lines,
    report_defect,
)
from ringfence.guard.daemon import run  # noqa: E402 - as above
from ringfence.guard.process import configure_logging, make_folder  # noqa: E402 - as above
from ringfence.values.text import printable  # noqa: E402 - as above


def main(config: str, level: str, *options: str) -> int:
    """Run the daemon until it is stopped. Return the exit code.

    The parameters are the arguments of the command: the configuration file, the number of a log level, and
    the options of features.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # SIGHUP would end the process before the daemon handles it
    sys.excepthook = report_defect
    configure_logging(int(level))
    path = Path(config)
    try:
        settings = load(path)
        for file in (settings.store.path, settings.control.socket):
            make_folder(file.parent)
        run(path, settings, dict(option.split("=", 1) for option in options))
    except RingfenceError as error:
        lines, code = error_lines(error)
        print(*map(printable, lines), sep="\n", file=sys.stderr)  # noqa: T201 - the final error, for the terminal
        return code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
