"""Periodic work on the database: its alarms, and the removal of old bans."""

from functools import partial

from ringfence.alarm_codes import AlarmCode
from ringfence.alarms import Alarms
from ringfence.clock import Clock
from ringfence.store.database import Store


class StoreWatch:
    """Watches the database of a running daemon."""

    def __init__(self, store: Store, alarms: Alarms, clock: Clock) -> None:
        self._store = store
        self._alarms = alarms
        self._clock = clock

    def look(self) -> None:
        """Update the alarms of the database, which stay until an administrator has fixed it."""
        for code, text in (
            (AlarmCode.STORE_DAMAGED, self._store.damage()),
            (AlarmCode.STORE_IN_MEMORY, self._store.memory_reason),
        ):
            if text:
                self._alarms.activate(code, "", text)
            else:
                self._alarms.clear(code, "")

    def purge(self) -> None:
        """Remove bans that ended long ago."""
        self._store.best_effort.write(partial(self._store.purge, self._clock.wall()))
