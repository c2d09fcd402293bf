"""The collector of a process that guards looks seldom, and not at what is there to stay."""

import gc
from collections.abc import Iterator

import pytest

from ringfence.calm import THRESHOLDS, calm_collector


@pytest.fixture
def _as_before() -> Iterator[None]:
    """Have the collector afterwards as it was."""
    enabled, thresholds = gc.isenabled(), gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    if enabled:
        gc.enable()


@pytest.mark.usefixtures("_as_before")
def test_what_is_there_is_not_looked_at_again() -> None:
    """Whatever was made before is passed over, also where it was off; what comes is collected, but seldom."""
    kept = [[number] for number in range(1_000)]
    gc.disable()
    calm_collector()

    assert gc.isenabled()
    assert gc.get_threshold() == THRESHOLDS
    assert gc.get_freeze_count() > len(kept)
    assert not any(one is kept for one in gc.get_objects())
    later = [kept[0]]
    assert any(one is later for one in gc.get_objects())
    calm_collector()
    assert not any(one is later for one in gc.get_objects())
