"""The last known networks of each name, because no DNS server may answer at the next start."""

import json
from collections.abc import Mapping

from ringfence.errors import StoreError
from ringfence.model import Network, parse_network
from ringfence.store.best_effort import BestEffort
from ringfence.store.state import SavedState

_FACT = "names"


class SavedNames:
    """The networks of names in ``state``, read and written as far as possible."""

    def __init__(self, state: SavedState, best_effort: BestEffort) -> None:
        self._state = state
        self._best_effort = best_effort

    def load(self) -> dict[str, frozenset[Network]]:
        """Return the last known networks of each name; nothing if they are unreadable."""
        try:
            names = json.loads(self._best_effort.read(lambda: self._state.fact(_FACT), None) or "{}")
            return {name: frozenset(map(parse_network, networks)) for name, networks in names.items()}
        except (ValueError, TypeError, AttributeError) as error:  # edited by hand
            self._best_effort.report(StoreError(f"the recorded addresses of names are invalid: {error}"))
            return {}

    def save(self, answers: Mapping[str, frozenset[Network]]) -> None:
        """Record the networks of each name."""
        names = {name: sorted(map(str, networks)) for name, networks in answers.items()}
        self._best_effort.write(lambda: self._state.set_fact(_FACT, json.dumps(names)))
