"""The standby process, which ends a trial if the daemon does not: because it was killed, for example.

A *trial* drops packets until its end, unless an administrator confirms it before. Normally the daemon ends
it. The standby process goes on if the daemon ends, and acts ``GRACE`` seconds after the end of the trial. Its
command is:

    python -m ringfence.guard.standby MODULE FILE UNTIL

``MODULE`` has a function ``end``. It gets the database and ``UNTIL``, and ends the recorded trial with this
end: there is none if it was confirmed, if the daemon has ended it, or if another trial has begun. ``FILE`` is
the configuration.
"""

import subprocess
import sys
import syslog
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from ringfence.errors import RingfenceError, StartError
from ringfence.store.database import Store
from ringfence.values.text import printable

GRACE = 3.0
"""Seconds that the standby process waits after the end of the trial, so that the daemon acts first."""


def start_standby(module: str, config: Path, end: float) -> None:
    """Start the standby process for a trial of ``module`` that ends at ``end`` (wall-clock seconds).

    ``config`` is the configuration file. The process has no open file of its caller: otherwise a pipe
    (``… | cat``, ssh, Ansible) stays open until the trial ends.

    Raise StartError if it cannot be started.
    """
    ourselves = [sys.executable, "-P", "-m", "ringfence.guard.standby", module, str(config), repr(end)]
    # --fork: it is a child of init at once, so it does not become a zombie of this process.
    command = ["setsid", "--fork", *ourselves]
    try:
        subprocess.run(  # noqa: S603 - no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise StartError(
            f"cannot start the process that ends the trial if the daemon does not: {error}"
        ) from None


def main(module: str, config: str, end: str, *, sleep: Callable[[float], None] = time.sleep) -> int:
    """Run the standby process: wait until the trial ends, and then end it. Return the exit code."""
    from ringfence.config.loader import load_what_is_right  # noqa: PLC0415 - loaded when the time has come

    finish = float(end)
    # Somebody may set the wall clock meanwhile: that may end the trial earlier, but never later.
    last = time.monotonic() + finish + GRACE - time.time()
    while (left := min(finish + GRACE - time.time(), last - time.monotonic())) > 0:
        sleep(min(left, 60.0))
    settings = load_what_is_right(Path(config))
    try:
        with Store.open(settings.store.path, owner=False, runtime=settings.control.socket.parent) as store:
            import_module(module).end(store, finish)
    except RingfenceError as error:
        syslog.openlog("ringfence", syslog.LOG_PID, syslog.LOG_DAEMON)
        syslog.syslog(syslog.LOG_ERR, f"the trial's end: {printable(str(error))}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
