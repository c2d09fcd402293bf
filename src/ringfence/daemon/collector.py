"""Settings of the garbage collector for the daemon.

Python searches for reference cycles whenever 700 more objects have been created than freed. With 100,000 bans
in memory, one search takes longer than to ban all attackers. It finds nothing, because bans and attempts form
no cycles. So objects that exist after the start are excluded from the search, and new ones are searched
rarely.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

THRESHOLDS = 20_000, 20, 20
"""The arguments of ``gc.set_threshold``: the first is a number of new objects, the others of searches.
"""


def tune_collector() -> None:
    """Enable the collector with high thresholds, and exclude all present objects. May be called again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    gc.enable()


@contextmanager
def collector_paused() -> Iterator[None]:
    """Disable the collector while very many objects without cycles are created."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
