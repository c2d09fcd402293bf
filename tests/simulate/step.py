"""One step of a story."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.judge.asterisk import PBX, Act
from tests.judge.worlds import written


@dataclass(frozen=True)
class Step:
    """One thing that happens, ``wait`` seconds after the last one.

    ``kind`` is "act" (a sender does something) or a fault. ``number`` and ``seconds`` are those of the fault:
    how many calls or packets fail, how many callbacks come before a kill, how long something is down. ``set``
    is by how much the wall clock is set (seconds), and ``asterisk`` is the one to which the fault happens.
    """

    kind: str
    act: Act | None = None
    wait: float = 1.0
    number: int = 0
    seconds: float = 0.0
    set: float = 0.0
    asterisk: str = PBX

    def __str__(self) -> str:
        if self.act is not None:
            return f'Step("act", {written(self.act).removesuffix(",")}, wait={self.wait!r}),'
        default, names = Step(self.kind), ("wait", "number", "seconds", "set", "asterisk")
        changed = [one for one in names if getattr(self, one) != getattr(default, one)]
        values = [repr(self.kind), *(f"{one}={getattr(self, one)!r}" for one in changed)]
        return f"Step({', '.join(values)}),"


Chosen = Callable[[random.Random], Step]
"""Makes a step with values from the story's seed."""


def times(kind: str, most: int) -> Chosen:
    """Return what makes a step of this kind with a number from 1 to ``most``."""
    return lambda chosen: Step(kind, number=chosen.randint(1, most))


Kinds = Mapping[str, Chosen]
"""Steps by their kinds."""
