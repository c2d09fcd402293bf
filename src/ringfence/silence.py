"""Sources that tell nothing any more, and logs of which Asterisk itself says that lines are missing: alarms.

Whoever is cut off from a source is blind where only that one sees. A source that is not listening for
``PATIENCE`` is said to be silent, and why, until it listens again. A log that has never been there is waited
for.
"""

from collections.abc import Iterable, Mapping

from ringfence.alarms import Alarms
from ringfence.model import printable
from ringfence.sources.state import Condition, State

PATIENCE = 5.0
"""So long (seconds) a source may take to come, or to come back."""

SILENT, LOST = "source.silent", "log.lost"


class Silence:
    """Looks at the sources, every second or so."""

    def __init__(self, alarms: Alarms) -> None:
        self._alarms = alarms
        self._quiet_since: dict[str, float] = {}
        self._told: set[str] = set()
        self._heard: set[str] = set()
        self._lost: dict[tuple[str, str], int] = {}

    def look(self, conditions: Mapping[str, Condition], now: float) -> None:
        """Take how each source goes at ``now`` (monotonic seconds)."""
        for name, condition in conditions.items():
            if condition.state is State.LISTENING:
                self._heard.add(name)
            if condition.state is State.LISTENING or self._is_waited_for(name, condition):
                self._quiet_since.pop(name, None)
                self._over(name)
            elif now - self._quiet_since.setdefault(name, now) >= PATIENCE:
                self._told.add(name)
                detail = printable(condition.detail)
                text = f"tells nothing since {PATIENCE:.0f} s and more: {condition.state}, {detail}"
                self._alarms.sound(SILENT, name, text)
        for name in self._quiet_since.keys() - conditions.keys():
            del self._quiet_since[name]
            self._over(name)

    def _is_waited_for(self, name: str, condition: Condition) -> bool:
        return condition.state is State.WAITING and name not in self._heard

    def _over(self, name: str) -> None:
        if name in self._told:
            self._told.discard(name)
            self._alarms.over(SILENT, name)

    def lost(self, name: str, said: Iterable[tuple[str, int]]) -> None:
        """Take what Asterisk says in a log about the log itself, and how often it has."""
        for what, count in said:
            if count > self._lost.get((name, what), 0):
                self._lost[name, what] = count
                self._alarms.sound(LOST, f"{name}: {what}", _DROPPED)


_DROPPED = "Asterisk says so itself: attempts that only this log tells of are missed"
