"""A trial: all rules and bans are removed again, unless an administrator confirms the trial in time.

It is for administrators who try a firewall remotely and could lock themselves out. The trial is recorded in
the database, so a daemon that restarts continues it.

Normally the daemon itself ends the trial. If it does not (because it was killed, for example), the standby
process ends the trial ``GRACE`` seconds later. :func:`start_standby` starts this separate process, which goes
on if the daemon ends.

The trial of the fence (``fence.py``) has a standby process too. If no daemon ends that trial, the process
removes everything from the kernel; the next start of the daemon puts back all but the fence.

The end of an unconfirmed trial does the same as ``ringfence off``: enforcement stays off until ``ringfence
on``. The command of the standby process is:

    python -m ringfence.daemon.trial FILE UNTIL
"""

import subprocess
import sys
import syslog
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from ringfence.alarm_codes import Alarm, AlarmCode
from ringfence.alarms import Alarms
from ringfence.bans.enforcer import Enforcer
from ringfence.clock import Clock
from ringfence.errors import FirewallError, RingfenceError, StartError, StoreError
from ringfence.model import printable, rfc3339
from ringfence.store.database import Store
from ringfence.store.rows import LAST
from ringfence.store.switch import OffSwitch
from ringfence.store.tables import SavedState

GRACE = 3.0
"""Seconds that the standby process waits after the end of the trial, so that the daemon acts first."""
_FACT = "trial"


def begin(state: SavedState, until: float) -> None:
    """Record a trial that ends at ``until`` (wall-clock seconds) unless it is confirmed before."""
    state.set_fact(_FACT, repr(until))


def until(state: SavedState) -> float | None:
    """Return the end of the trial (wall-clock seconds); None without a trial, or if its record is invalid."""
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
    """Start the standby process, which ends the trial if the daemon does not.

    ``config`` is the configuration file, ``end`` the end of the trial (wall-clock seconds). It has no open
    file of its caller: otherwise a pipe (``… | cat``, ssh, Ansible) stays open until the trial ends.

    Raise StartError if it cannot be started.
    """
    ourselves = [sys.executable, "-P", "-m", "ringfence.daemon.trial", str(config), repr(end)]
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


def main(config: str, end: str, *, sleep: Callable[[float], None] = time.sleep) -> int:
    """Run the standby process: wait until the trial ends, and then remove everything. Return the exit code.

    Do nothing if the trial was confirmed, if the daemon has ended it, or if another trial has begun.
    """
    from ringfence.config.loader import load_what_is_right  # noqa: PLC0415 - loaded when the time has come
    from ringfence.firewall.cleanup import flush_everything  # noqa: PLC0415 - as above

    finish = float(end)
    # Somebody may set the wall clock meanwhile: that may end the trial earlier, but never later.
    last = time.monotonic() + finish + GRACE - time.time()
    while (left := min(finish + GRACE - time.time(), last - time.monotonic())) > 0:
        sleep(min(left, 60.0))
    settings = load_what_is_right(Path(config))
    try:
        runtime = settings.control.socket.parent
        with Store.open(settings.store.path, owner=False, runtime=runtime) as store:
            if until(store.state) == finish:
                _remove_everything(store.switch)
                store.state.set_fact(_FACT, None)
            elif _fence_trial(store.state) == finish:
                flush_everything()
    except RingfenceError as error:
        syslog.openlog("ringfence", syslog.LOG_PID, syslog.LOG_DAEMON)
        syslog.syslog(syslog.LOG_ERR, f"the trial's end: {printable(str(error))}")
        return 1
    return 0


def _fence_trial(state: SavedState) -> float | None:
    from ringfence.daemon.fence_state import trial_of  # noqa: PLC0415 - loaded when the time has come

    return trial_of(state)


def _remove_everything(switch: OffSwitch) -> None:
    """Do what ``ringfence off`` does, without the daemon, which has ended or hangs."""
    from ringfence.firewall.cleanup import flush_everything  # noqa: PLC0415 - loaded when the time has come

    # This is recorded first. Otherwise a daemon that hangs now would put the rules in place again later.
    switch.set(True)
    flush_everything()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))


# -- the trial in the running daemon. An unconfirmed trial ends at its time, or when the daemon stops


class TrialWatch:
    """Ends the recorded trial unless it is confirmed."""

    def __init__(self, store: Store, enforcer: Enforcer, alarms: Alarms, clock: Clock) -> None:
        self._store = store
        self._enforcer = enforcer
        self._alarms = alarms
        self._clock = clock
        self._last: tuple[float, float] | None = None  # a trial, and its end by the monotonic clock
        self._log = structlog.get_logger()

    @property
    def until(self) -> float | None:
        """The end of the trial (wall-clock seconds); None without a trial."""
        return self._store.best_effort.read(lambda: until(self._store.state), None)

    @property
    def running(self) -> list[Alarm]:
        """The alarm about the trial that is running; [] without a trial."""
        end = self.until
        if end is None:
            return []
        text = f"everything is removed at {rfc3339(end)}, unless: ringfence confirm"
        return [Alarm(AlarmCode.TRIAL_RUNNING, "", text)]

    def check(self) -> None:
        """End the trial if its time is over. A wall clock that was set back makes it no longer."""
        end, wall, mono = self.until, self._clock.wall(), self._clock.mono()
        if end is None:
            return
        if self._last is None or self._last[0] != end:
            self._last = end, mono + end - wall
        if end <= wall or self._last[1] <= mono:
            self.end()

    def end(self) -> None:
        """Remove all rules and bans if there is an unconfirmed trial. A failure activates an alarm."""
        if self.until is None:
            return
        self._log.warning("trial.ended", fix="ringfence on")
        try:
            self._enforcer.switch_off()
            confirm(self._store.state)
        except (FirewallError, StoreError) as error:
            text = f"the trial has ended, but not everything is removed: {error}; fix: ringfence off"
            self._alarms.activate(AlarmCode.TRIAL_NOT_ENDED, "", text)
