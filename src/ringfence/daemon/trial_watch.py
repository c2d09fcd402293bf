"""The trial in the running daemon. An unconfirmed trial ends at its time, or when the daemon stops."""

import structlog

from ringfence.alarm_codes import Alarm, AlarmCode
from ringfence.alarms import Alarms
from ringfence.bans.enforcer import Enforcer
from ringfence.clock import Clock
from ringfence.daemon import trial
from ringfence.errors import FirewallError, StoreError
from ringfence.model import rfc3339
from ringfence.store.database import Store


class TrialWatch:
    """Ends the recorded trial unless it is confirmed."""

    def __init__(self, store: Store, enforcer: Enforcer, alarms: Alarms, clock: Clock) -> None:
        self._store = store
        self._enforcer = enforcer
        self._alarms = alarms
        self._clock = clock
        self._log = structlog.get_logger()

    @property
    def until(self) -> float | None:
        """The end of the trial (wall-clock seconds); None without a trial."""
        return self._store.best_effort.read(lambda: trial.until(self._store.state), None)

    @property
    def running(self) -> list[Alarm]:
        """The alarm about the trial that is running; [] without a trial."""
        end = self.until
        if end is None:
            return []
        text = f"everything is removed at {rfc3339(end)}, unless: ringfence confirm"
        return [Alarm(AlarmCode.TRIAL_RUNNING, "", text)]

    def look(self) -> None:
        """End the trial if its time is over."""
        end = self.until
        if end is not None and end <= self._clock.wall():
            self.end()

    def end(self) -> None:
        """Remove all rules and bans if there is an unconfirmed trial. A failure activates an alarm."""
        if self.until is None:
            return
        self._log.warning("trial.ended", fix="ringfence on")
        try:
            self._enforcer.switch_off()
            trial.confirm(self._store.state)
        except (FirewallError, StoreError) as error:
            text = f"the trial has ended, but not everything is removed: {error}; fix: ringfence off"
            self._alarms.activate(AlarmCode.TRIAL_NOT_ENDED, "", text)
