"""The time of the last weekly report of each channel, so that a restart neither repeats nor loses one.

A channel is one way in which the configuration sends notifications. Only channels by mail send reports.
"""

import json
from collections.abc import Mapping

from ringfence.errors import StoreError
from ringfence.store.best_effort import BestEffort
from ringfence.store.rows import times
from ringfence.store.state import SavedState

_FACT = "reports"


class SavedReports:
    """Loads and saves the time of each channel's last report. Errors are logged and not raised."""

    def __init__(self, state: SavedState, best_effort: BestEffort) -> None:
        self._state = state
        self._best_effort = best_effort

    def load(self) -> dict[str, float]:
        """Return the time of each channel's last report, by name; {} if none are saved or readable."""
        try:
            found = json.loads(self._best_effort.read(lambda: self._state.fact(_FACT), None) or "{}")
            times(*found.values())
            return {name: float(time) for name, time in found.items()}
        except (ValueError, TypeError, AttributeError) as error:  # the recorded text was edited by hand
            self._best_effort.report(StoreError(f"the recorded times of reports are invalid: {error}"))
            return {}

    def save(self, last: Mapping[str, float]) -> object:
        """Queue a write that records the time of each channel's last report. {} removes the record.

        Return what :meth:`BestEffort.write` returns.
        """
        text = json.dumps(dict(last)) if last else None
        return self._best_effort.write(lambda: self._state.set_fact(_FACT, text))
