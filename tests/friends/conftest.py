"""The friends that the tests of the registry use."""

import pytest
from tests.friends.world import World


@pytest.fixture(name="world")
def _world() -> World:
    """Return a daemon's friends at its first start."""
    return World()
