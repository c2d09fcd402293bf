"""The positions up to which logs were read."""

from collections.abc import Mapping

from ringfence.store.best_effort import BestEffort
from ringfence.store.state import SavedState


class LogPositions:
    """Reads and records the positions of logs. A position can be read before it is in the database.

    A log's key is a text that identifies the log: the name of its source, and its path or ``journal``.
    """

    def __init__(self, state: SavedState, best_effort: BestEffort) -> None:
        self._state = state
        self._best_effort = best_effort
        self._latest: dict[str, str] = {}

    def read(self) -> Mapping[str, str]:
        """Return the latest position in each log, by the log's key."""
        return {**self._best_effort.read(self._state.positions, {}), **self._latest}

    def record(self, key: str, position: str) -> None:
        """Queue the position in the log with this key, to be written to the database."""
        self._latest[key] = position
        self._best_effort.write(lambda: self._state.set_positions({key: position}))
