"""Periodic work on the database: its alarms, and the removal of old rows."""

from functools import partial

from ringfence.alarm_codes import Alarm, AlarmCode
from ringfence.clock import Clock
from ringfence.store.database import Store


class StoreWatch:
    """Watches the database of a running daemon."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    @property
    def alarms(self) -> list[Alarm]:
        """The present alarms about the database."""
        error = self._store.best_effort.error
        texts = {
            AlarmCode.STORE_DAMAGED: self._store.damage(),
            AlarmCode.STORE_IN_MEMORY: self._store.memory_reason,
            AlarmCode.STORE_INVALID_BANS: self._store.best_effort.unreadable,
            AlarmCode.STORE_NOT_RECORDED: f"bans are not recorded: {error}" if error else "",
        }
        return [Alarm(code, "", text) for code, text in texts.items() if text]

    def purge(self) -> None:
        """Queue the removal of old rows from the database."""
        self._store.best_effort.write(partial(self._store.purge, self._clock.wall()))
