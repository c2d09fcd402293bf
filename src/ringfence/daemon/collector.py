"""Settings of the garbage collector for the daemon, and the return of freed memory to the kernel.

Python searches for reference cycles whenever 700 more objects have been created than freed. With 100,000 bans
in memory, such a search would delay bans. It finds nothing, because bans and attempts form no cycles. So the
objects that exist after the start are excluded from the search, and new objects are searched rarely.

The C library keeps freed memory for later requests: 0.7 MB after the start. malloc_trim(3) of glibc returns
this memory to the kernel.
"""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager

THRESHOLDS = 20_000, 20, 20
"""The arguments of ``gc.set_threshold``: a number of new objects, and two numbers of searches."""


def tune_collector() -> None:
    """Enable the collector with high thresholds, and exclude all present objects. May be called again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    gc.enable()


def release_freed_memory() -> None:
    """Return the pages of freed memory to the kernel. Do nothing if the C library is not glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@contextmanager
def collector_paused() -> Iterator[None]:
    """Disable the collector for the block, which creates very many objects without reference cycles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
