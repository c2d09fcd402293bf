"""The garbage collector runs rarely and skips objects that stay; freed memory returns to the kernel."""

import gc
import os
from collections.abc import Iterator

import pytest
from tests.support.process import resident

from ringfence.guard.process import THRESHOLDS, collector_paused, release_freed_memory, tune_collector

BLOCKS, SIZE = 20_000, 1_000
"""A number of blocks, and bytes of each: too many for Python's own allocator, so the C library has them."""


@pytest.fixture
def _as_before() -> Iterator[None]:
    """Restore the collector's state after the test."""
    enabled, thresholds = gc.isenabled(), gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    if enabled:
        gc.enable()


@pytest.mark.usefixtures("_as_before")
def test_what_is_there_is_not_looked_at_again() -> None:
    """Tuning enables the collector, freezes all existing objects, and makes collections of new ones rare."""
    kept = [[number] for number in range(1_000)]
    gc.disable()
    tune_collector()

    assert gc.isenabled()
    assert gc.get_threshold() == THRESHOLDS
    assert gc.get_freeze_count() > len(kept)
    assert not any(one is kept for one in gc.get_objects())
    later = [kept[0]]
    assert any(one is later for one in gc.get_objects())
    tune_collector()
    assert not any(one is later for one in gc.get_objects())


@pytest.mark.usefixtures("_as_before")
@pytest.mark.parametrize("enabled", [True, False])
def test_a_pause_ends(enabled: bool) -> None:  # noqa: FBT001 - two cases
    """A pause disables the collector, and restores its state afterwards."""
    (gc.enable if enabled else gc.disable)()
    with collector_paused():
        assert not gc.isenabled()
    assert gc.isenabled() is enabled


def test_freed_memory_returns_to_the_kernel() -> None:
    """Freed blocks leave the process even if a block above them is still in use."""
    blocks = [bytes(SIZE) for _ in range(BLOCKS)]
    highest = max(blocks, key=id)
    blocks.clear()
    before = resident(os.getpid())

    release_freed_memory()

    assert len(highest) == SIZE
    assert before - resident(os.getpid()) > BLOCKS * SIZE / 2
