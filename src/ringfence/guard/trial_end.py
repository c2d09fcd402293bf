"""The process that ends a trial if the daemon does not: because it was killed, for example.

At the end of a *trial*, rules that drop packets are removed again, unless an administrator has confirmed the
trial before. Normally the daemon removes them. This process keeps running if the daemon ends, and acts
``GRACE`` seconds after the end of the trial. Its command is:

    python -m ringfence.guard.trial_end MODULE FILE UNTIL

``MODULE`` has a function ``end``, which gets the database and ``UNTIL``. It does nothing unless the database
still has a trial that ends at ``UNTIL``: an administrator may have confirmed the trial, the daemon may have
ended it, or another trial may have begun. ``FILE`` is the configuration.
"""

import subprocess
import sys
import syslog
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from ringfence.errors import StartError
from ringfence.store.database import Store
from ringfence.values.text import printable

GRACE = 3.0
"""Seconds that this process waits after the end of the trial, so that the daemon acts first."""


def start_trial_end(module: str, config: Path, end: float) -> None:
    """Start the process that ends a trial of a feature if the daemon does not.

    It calls the function ``end`` of ``module`` some seconds (``GRACE``) after the time ``end`` (seconds since
    the epoch). ``config`` is the configuration file. The process has no open file of its caller: otherwise a
    pipe (``… | cat``, ssh, Ansible) stays open until the trial ends.

    Raise StartError if it cannot be started.
    """
    ourselves = [sys.executable, "-P", "-m", "ringfence.guard.trial_end", module, str(config), repr(end)]
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
    """Wait until ``GRACE`` seconds after ``end`` (wall-clock seconds as text), and then end the trial.

    Return the exit code. ``module`` has the function that ends it, ``config`` is the configuration file.

    All code is loaded before the wait: an upgrade may replace the files meanwhile.
    """
    from ringfence.config.loader import load_what_is_right  # noqa: PLC0415 - the daemon does not need it here

    act, finish = import_module(module).end, float(end)
    # Somebody may set the wall clock meanwhile: that may end the trial earlier, but never later.
    last = time.monotonic() + finish + GRACE - time.time()
    while (left := min(finish + GRACE - time.time(), last - time.monotonic())) > 0:
        sleep(min(left, 60.0))
    try:
        settings = load_what_is_right(Path(config))
        with Store.open(settings.store.path, owner=False, runtime=settings.control.socket.parent) as store:
            act(store, finish)
    except Exception as error:  # noqa: BLE001 - nobody else reports it, and its output goes nowhere
        syslog.openlog("ringfence", syslog.LOG_PID, syslog.LOG_DAEMON)
        syslog.syslog(syslog.LOG_ERR, f"the trial's end: {printable(str(error) or repr(error))}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
