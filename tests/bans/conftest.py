"""Fixtures that the tests of the bans share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.world import World, a_world


@pytest.fixture(name="world")
def _world(tmp_path: Path) -> Iterator[World]:
    """Return a world at its start."""
    with a_world(tmp_path / "ringfence.db") as world:
        yield world
