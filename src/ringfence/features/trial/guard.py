"""A trial: all rules and bans are removed again, unless an administrator confirms the trial in time.

It is for administrators who try a firewall remotely and could lock themselves out. A daemon that stops ends
the trial. The trial is recorded in the database, so a daemon that was killed continues it at its next start.
If no daemon ends the trial, another process does (``guard/trial_end.py``).

The end of an unconfirmed trial does the same as ``ringfence off``: enforcement stays off until ``ringfence
on``.
"""

from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

import structlog

from ringfence.alarm_codes import Alarm
from ringfence.control_server import Handler
from ringfence.errors import FirewallError, StoreError
from ringfence.features.trial.alarms import TrialAlarmCode
from ringfence.firewall.cleanup import flush_everything
from ringfence.guard.feature import Feature, Given
from ringfence.guard.firewall_side import FirewallSide
from ringfence.guard.process import every
from ringfence.guard.request_fields import NONE, only
from ringfence.guard.trial_end import start_trial_end
from ringfence.store.database import Store
from ringfence.store.tables import SavedState
from ringfence.values.text import LAST, rfc3339

REQUESTS = {"confirm": only(NONE)}
_FACT = "trial"


def begin(state: SavedState, until: float) -> None:
    """Record a trial: all rules and bans are removed at ``until`` (epoch seconds), unless it is confirmed."""
    state.set_fact(_FACT, repr(until))


def until(state: SavedState) -> float | None:
    """Return when the recorded trial ends (epoch seconds); None without a trial or with an invalid record."""
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


def end(store: Store, finish: float) -> None:
    """Do what ``ringfence off`` does, if the recorded trial ends at ``finish`` (seconds since the epoch).

    If it is still recorded, no daemon has ended the trial.
    """
    if until(store.state) == finish:
        # This is recorded first. Otherwise a daemon that hangs now would put the rules in place again later.
        store.switch.set(True)
        flush_everything()
        store.state.set_fact(_FACT, None)


def keeps_off(store: Store) -> str:
    """Return a text that ``ringfence restore`` must restore nothing because of a trial; "" without one."""
    running = store.best_effort.read(until, None, store.state)
    return "" if running is None else "a trial was not confirmed"


class TrialWatch(Feature):
    """Begins a trial, and removes all rules and bans at its end, or when the daemon stops.

    ``config`` is the configuration file. ``seconds`` is the length of a new trial; 0 for none.
    """

    def __init__(self, side: FirewallSide, config: Path, seconds: float = 0.0) -> None:
        self._config = config
        self._seconds = seconds
        self._store = side.common.store
        self._enforcer = side.kernel.enforcer
        self._alarms = side.common.alarms
        self._clock = side.common.clock
        self._last: tuple[float, float] | None = None  # a trial, and its end by the monotonic clock
        self._ended: float | None = None  # the trial that has ended, while the database still has it

    def handlers(self) -> Mapping[str, Handler]:
        """Return the handler of the request ``confirm``, which ends the trial and keeps rules and bans."""
        return {"confirm": self._confirm}

    def _confirm(self, _: Mapping[str, Any]) -> object:
        return until(self._store.state) != self._ended and confirm(self._store.state)

    def jobs(self) -> list[Coroutine[None, None, None]]:
        """Return the coroutine that ends the trial at its time."""
        return [every(1.0, "trial", self.check, self._alarms)]

    def begin(self) -> None:
        """Start the trial that was asked for, or continue the recorded one, and start its other process."""
        if self._seconds:
            begin(self._store.state, self._clock.wall() + self._seconds)
        if (finish := self.until) is not None:
            start_trial_end(__name__, self._config, finish)

    @property
    def until(self) -> float | None:
        """The end of the trial (wall-clock seconds); None without a trial, or if it has ended."""
        finish = self._store.best_effort.read(until, None, self._store.state)
        return None if finish == self._ended else finish

    def alarms(self) -> list[Alarm]:
        """Return the alarm about the trial that is running; [] without a trial."""
        if (finish := self.until) is None:
            return []
        text = f"everything is removed at {rfc3339(finish)}, unless: ringfence confirm"
        return [Alarm(TrialAlarmCode.TRIAL_RUNNING, "", text)]

    def check(self) -> None:
        """End the trial if its time is over. If the wall clock is set back, the trial does not get longer."""
        if self._ended is not None:
            self._forget()
        finish, wall, mono = self.until, self._clock.wall(), self._clock.mono()
        if finish is None:
            return
        if self._last is None or self._last[0] != finish:
            self._last = finish, mono + finish - wall
        if finish <= wall or self._last[1] <= mono:
            self.end()

    def end(self) -> None:
        """Remove all rules and bans if there is an unconfirmed trial. A failure activates an alarm."""
        finish = self.until
        if finish is None:
            return
        structlog.get_logger().warning("trial.ended", fix="ringfence on")
        try:
            self._enforcer.switch_off()
        except (FirewallError, StoreError) as error:
            text = f"the trial has ended, but not everything is removed: {error}; fix: ringfence off"
            self._alarms.activate(TrialAlarmCode.TRIAL_NOT_ENDED, "", text)
        else:
            self._ended = finish
            self._forget()

    def _forget(self) -> None:
        """Remove the record of the trial that has ended; the next check tries again if the disk fails."""
        try:
            confirm(self._store.state)
        except StoreError as error:
            text = f"the trial has ended, and a restart would end it again: {error}"
            self._alarms.activate(TrialAlarmCode.TRIAL_NOT_ENDED, "", text)
        else:
            self._ended = None
            self._alarms.clear(TrialAlarmCode.TRIAL_NOT_ENDED, "")


def build(given: Given) -> TrialWatch:
    """Return the feature that ends a trial in time. ``given.options`` may have a new trial's seconds."""
    return TrialWatch(given.side, given.reloader.path, float(given.options.get("trial", 0)))
