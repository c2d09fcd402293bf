"""The clocks, as values: so that a test says what time it is."""

import time
from collections.abc import Callable

from attrs import frozen


@frozen
class Clock:
    """Both clocks: ``wall`` for people and the database, ``mono`` for windows (seconds each)."""

    wall: Callable[[], float] = time.time
    mono: Callable[[], float] = time.monotonic
