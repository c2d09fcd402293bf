"""A trial: unless somebody confirms it in time, every rule is taken away again by itself.

For whoever tries a firewall from afar. The trial stands in the database, so a daemon that is started anew
goes on with it; and a process of its own, which :func:`stand_by` starts and which outlives the daemon, does
what is to be done where the daemon was killed. The daemon itself ends its trial in time; the other waits
``GRACE`` longer, and finds nothing to do.

What the end of a trial does is what ``ringfence off`` does: it stays off until ``ringfence on``.

    python -m ringfence.trial FILE UNTIL
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ringfence.errors import ControlError, DaemonUnreachableError, RingfenceError
from ringfence.store import Store

GRACE = 3.0
"""Seconds by which the process that stands by lets the daemon go first."""
_FACT = "trial"


def begin(store: Store, until: float) -> None:
    """Remember that all ends at ``until`` (wall clock) unless it is confirmed."""
    store.remember_fact(_FACT, repr(until))


def until(store: Store) -> float | None:
    """Give when the trial ends, None where there is none, or nobody can read when."""
    value = store.fact(_FACT)
    try:
        return float(value) if value is not None else None
    except ValueError:
        return None


def confirm(store: Store) -> bool:
    """Keep what is in place; say whether there was a trial."""
    if until(store) is None:
        return False
    store.remember_fact(_FACT, None)
    return True


def stand_by(config: Path, end: float) -> None:
    """Start the process that ends the trial of this configuration, should nobody else."""
    ourselves = [sys.executable, "-P", "-m", "ringfence.trial", str(config), repr(end)]
    # --fork: it is init's child at once, and no zombie of ours when it ends.
    command = ["setsid", "--fork", *ourselves]
    subprocess.run(command, stdin=subprocess.DEVNULL, check=True)  # noqa: S603 - no shell


def main(config: str, end: str, *, sleep: Callable[[float], None] = time.sleep) -> int:
    """Wait, and take everything away unless somebody has confirmed, or begun another trial."""
    from ringfence.config import load_what_is_right  # noqa: PLC0415 - loaded when the time has come

    finish = float(end)
    while (left := finish + GRACE - time.time()) > 0:
        sleep(min(left, 60.0))  # the clock may be set meanwhile
    settings = load_what_is_right(Path(config))
    try:
        with Store.open(settings.store.path, owner=False) as store:
            if until(store) != finish:
                return 0
            take_away(settings.control.socket, store)
            store.remember_fact(_FACT, None)
    except RingfenceError as error:
        print(f"the trial's end: {error}", file=sys.stderr)  # noqa: T201 - there is nobody else to tell
        return 1
    return 0


def take_away(socket: Path, store: Store | None) -> None:
    """Do what ``ringfence off`` does: by the daemon, or where none answers, without."""
    from ringfence import control  # noqa: PLC0415 - loaded when the time has come
    from ringfence.firewall.leftovers import flush_everything  # noqa: PLC0415 - loaded when the time has come

    try:
        control.ask(socket, "off")
    except (DaemonUnreachableError, ControlError):
        if store is not None:  # first, so that a daemon that cannot be asked does not heal what is taken away
            store.switched_off = True
        flush_everything()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
