"""The positions up to which logs were read."""

from collections.abc import Mapping

from ringfence.store.best_effort import Records


class LogPositions:
    """Reads and records positions. One that is not in the database yet is known, too."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._latest: dict[str, str] = {}

    def read(self) -> Mapping[str, str]:
        """Return the latest position in each log."""
        return {**self._records.log_positions(), **self._latest}

    def record(self, key: str, position: str) -> None:
        """Record the position in a log."""
        self._latest[key] = position
        self._records.log_position(key, position)
