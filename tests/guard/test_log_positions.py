"""The positions up to which logs were read."""

from pathlib import Path

from tests.support.kept import kept

from ringfence.guard.source_manager import LogPositions
from ringfence.store.writer import BestEffort


def test_the_latest_position_is_known_before_it_is_written(tmp_path: Path) -> None:
    """A position is returned at once, although a queue writes it later; others come from the database."""
    with kept(tmp_path) as made:
        LogPositions(made.store.state, made.store.best_effort).record("pbx/log /a", "17 1")
        positions = LogPositions(made.store.state, BestEffort(tmp_path, lambda _write: None))
        positions.record("pbx/log /b", "18 2")

        assert positions.read() == {"pbx/log /a": "17 1", "pbx/log /b": "18 2"}
        assert made.store.state.positions() == {"pbx/log /a": "17 1"}
