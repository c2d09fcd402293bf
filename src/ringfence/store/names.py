"""The last known addresses of each host name, for a start at which no DNS server answers."""

import json
from collections.abc import Mapping

from ringfence.errors import StoreError
from ringfence.model import Network, parse_network
from ringfence.store.best_effort import BestEffort
from ringfence.store.state import SavedState

_FACT = "names"


class SavedNames:
    """Loads and saves the addresses of host names, as networks. Errors are logged and not raised."""

    def __init__(self, state: SavedState, best_effort: BestEffort) -> None:
        self._state = state
        self._best_effort = best_effort

    def load(self) -> dict[str, frozenset[Network]]:
        """Return the last saved networks of each host name; {} if none are saved or they are invalid."""
        try:
            names = json.loads(self._best_effort.read(lambda: self._state.fact(_FACT), None) or "{}")
            return {name: frozenset(map(parse_network, networks)) for name, networks in names.items()}
        except (ValueError, TypeError, AttributeError) as error:  # the recorded text was edited by hand
            self._best_effort.report(StoreError(f"the recorded addresses of names are invalid: {error}"))
            return {}

    def save(self, answers: Mapping[str, frozenset[Network]]) -> None:
        """Queue a write that records the networks of each host name."""
        names = {name: sorted(map(str, networks)) for name, networks in answers.items()}
        self._best_effort.write(lambda: self._state.set_fact(_FACT, json.dumps(names)))
