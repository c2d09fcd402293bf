"""The positions up to which logs were read."""

from collections.abc import Mapping

from ringfence.store.best_effort import BestEffort
from ringfence.store.state import SavedState


class LogPositions:
    """Reads and records positions. One that is not in the database yet is known, too."""

    def __init__(self, state: SavedState, best_effort: BestEffort) -> None:
        self._state = state
        self._best_effort = best_effort
        self._latest: dict[str, str] = {}

    def read(self) -> Mapping[str, str]:
        """Return the latest position in each log."""
        return {**self._best_effort.read(self._state.positions, {}), **self._latest}

    def record(self, key: str, position: str) -> None:
        """Record the position in a log."""
        self._latest[key] = position
        self._best_effort.write(lambda: self._state.set_positions({key: position}))
