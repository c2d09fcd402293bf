"""Alarms about sources that have stopped, and about logs with faults, such as missing lines.

While a source is down, attempts that only this source reports are missed. A source that has not been
listening for ``PATIENCE`` has an alarm, with the reason, until it listens again. A log causes no such alarm
if it was missing at the daemon's start and has not appeared since.
"""

from collections.abc import Iterable, Mapping

from ringfence.alarm_codes import AlarmCode
from ringfence.alarms import Alarms
from ringfence.model import printable
from ringfence.parse.line_result import LogAlarm
from ringfence.sources.state import Condition, State

PATIENCE = 5.0
"""Seconds that a source may take to start, or to listen again, before there is an alarm."""

DAY = 86_400.0
"""Seconds that an alarm about a fault of a log lasts."""


class SourceWatchdog:
    """Activates and clears the alarms about sources. :meth:`check` is called twice a second."""

    def __init__(self, alarms: Alarms) -> None:
        self._alarms = alarms
        self._quiet_since: dict[str, float] = {}
        self._listened: set[str] = set()
        self._lost: dict[tuple[str, LogAlarm], int] = {}

    def check(self, conditions: Mapping[str, Condition], now: float) -> None:
        """Activate or clear the alarm of each source, by its condition at ``now`` (monotonic seconds).

        ``conditions`` has the condition of each source by its name. The alarm of a source that is no longer
        there is cleared.
        """
        for name, condition in conditions.items():
            if condition.state is State.LISTENING:
                self._listened.add(name)
            if condition.state is State.LISTENING or self._is_waited_for(name, condition):
                self._quiet_since.pop(name, None)
                # An earlier run of the daemon may have activated the alarm, even if this run has not.
                self._alarms.clear(AlarmCode.SOURCE_SILENT, name)
            elif now - self._quiet_since.setdefault(name, now) >= PATIENCE:
                detail = printable(condition.detail)
                text = f"reports nothing for {PATIENCE:.0f} s and more: {condition.state}, {detail}"
                self._alarms.activate(AlarmCode.SOURCE_SILENT, name, text)
        for name in self._quiet_since.keys() - conditions.keys():
            del self._quiet_since[name]
            self._alarms.clear(AlarmCode.SOURCE_SILENT, name)

    def _is_waited_for(self, name: str, condition: Condition) -> bool:
        return condition.state is State.WAITING and name not in self._listened

    def on_log_alarms(self, name: str, counts: Iterable[tuple[LogAlarm, int]]) -> None:
        """Activate an alarm for each fault of the log ``name`` that has occurred again since the last call.

        ``counts`` has each fault with the number of its occurrences so far.
        """
        for fault, count in counts:
            if count > self._lost.get((name, fault), 0):
                self._lost[name, fault] = count
                self._alarms.activate(_CODES[fault], name, fault, lasts=DAY)


_CODES = {
    LogAlarm.QUEUE_FULL: AlarmCode.LOG_LOST,
    LogAlarm.QUEUE_RESUMED: AlarmCode.LOG_LOST,
    LogAlarm.SILENCED: AlarmCode.LOG_SILENCED,
    LogAlarm.TAMPERED: AlarmCode.LOG_TAMPERED,
    LogAlarm.CLOCK: AlarmCode.LOG_CLOCK,
    LogAlarm.JOURNAL_DROPS: AlarmCode.LOG_JOURNAL_DROPS,
}
