"""Settings of Python's garbage collector for the daemon, and the return of freed memory to the kernel.

By default the collector searches for reference cycles whenever 700 more objects have been created than freed.
With 100,000 bans in memory, such a search would delay new bans. It would find nothing, because bans and
attempts form no cycles. So the objects that exist after the start are excluded from the search, and new
objects are searched rarely.

The C library keeps freed memory for later requests: 0.7 MB after the start. malloc_trim(3) of glibc returns
this memory to the kernel.
"""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager

THRESHOLDS = 20_000, 20, 20
"""The arguments of ``gc.set_threshold``.

The new objects are searched when there are 20,000 of them. About each 20th search includes older objects, and
about each 20th of these searches includes the oldest.
"""


def tune_collector() -> None:
    """Enable the collector with high thresholds, and exclude all objects that exist now from its search."""
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
    """Disable the collector for a block that creates very many objects without reference cycles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
