"""A trial: every rule is removed again, unless an administrator confirms it in time.

It is for administrators who try a firewall remotely and could lock themselves out. The trial is stored in the
database, so a daemon that restarts continues it. Normally the daemon itself ends the trial.
:func:`start_standby` starts a separate process that outlives the daemon. If the daemon has not ended the
trial (because it was killed, for example), that process ends it ``GRACE`` seconds later.

The end of a trial does the same as ``ringfence off``: enforcement stays off until ``ringfence on``.

    python -m ringfence.daemon.trial FILE UNTIL
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ringfence.errors import ControlError, DaemonUnreachableError, RingfenceError
from ringfence.store.database import Store
from ringfence.store.rows import LAST
from ringfence.store.state import SavedState

GRACE = 3.0
"""Seconds that the standby process waits after the end, so that the daemon acts first."""
_FACT = "trial"


def begin(state: SavedState, until: float) -> None:
    """Record that the trial ends at ``until`` (wall clock) unless it is confirmed."""
    state.set_fact(_FACT, repr(until))


def until(state: SavedState) -> float | None:
    """Return the end of the trial; None if there is no trial or the record is unreadable."""
    value = state.fact(_FACT)
    try:
        end = float(value) if value is not None else None
    except ValueError:
        return None
    return end if end is not None and 0.0 <= end <= LAST else None


def confirm(state: SavedState) -> bool:
    """End the trial and keep rules and bans; return whether there was a trial."""
    if until(state) is None:
        return False
    state.set_fact(_FACT, None)
    return True


def start_standby(config: Path, end: float) -> None:
    """Start the process that ends the trial of this configuration if the daemon does not."""
    ourselves = [sys.executable, "-P", "-m", "ringfence.daemon.trial", str(config), repr(end)]
    # --fork: it is a child of init at once, so it does not become a zombie of this process.
    command = ["setsid", "--fork", *ourselves]
    subprocess.run(command, stdin=subprocess.DEVNULL, check=True)  # noqa: S603 - no shell


def main(config: str, end: str, *, sleep: Callable[[float], None] = time.sleep) -> int:
    """Wait until the trial ends, and then remove everything; return the exit code.

    Do nothing if the trial was confirmed or has ended, or if another one was begun.
    """
    from ringfence.config.loader import load_what_is_right  # noqa: PLC0415 - loaded when the time has come

    finish = float(end)
    while (left := finish + GRACE - time.time()) > 0:
        sleep(min(left, 60.0))  # the clock may be set meanwhile
    settings = load_what_is_right(Path(config))
    try:
        with Store.open(settings.store.path, owner=False) as store:
            if until(store.state) != finish:
                return 0
            remove_everything(settings.control.socket, store.state)
            store.state.set_fact(_FACT, None)
    except RingfenceError as error:
        print(f"the trial's end: {error}", file=sys.stderr)  # noqa: T201 - this process has no logger
        return 1
    return 0


def remove_everything(socket: Path, state: SavedState) -> None:
    """Do what ``ringfence off`` does: through the daemon, or without it if none answers."""
    from ringfence import control  # noqa: PLC0415 - loaded when the time has come
    from ringfence.firewall.cleanup import flush_everything  # noqa: PLC0415 - loaded when the time has come

    try:
        control.ask(socket, "off")
    except (DaemonUnreachableError, ControlError):
        # Recorded first, so that a daemon that does not answer does not put the rules in place again.
        state.set_switched_off(True)
        flush_everything()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
