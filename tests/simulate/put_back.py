"""What the faults that are put back have in common: replaced functions, senders, and steps.

The faults themselves are rows of ``faults.py``, and those of a feature stand beside it in ``features/``.
"""
# ruff: noqa: ANN401 - a replaced function may be any

from collections.abc import Sequence
from typing import Any

from tests.judge.asterisk import Act
from tests.judge.fault import Change
from tests.simulate.step import Step

Row = tuple[str, str, str, Change, str, int | Sequence[Step]]
"""A fault: its name, what happened, where it was, what puts it back, the letter of the invariant that it
breaks, and the seed or the steps of the story that shows it."""

GUESSER, ASKER, VICTIM = "203.0.113.5", "203.0.113.6", "198.51.100.77"
PHONE, OTHER_PHONE = "198.51.100.20", "198.51.100.21"
GUESS = Act("guesses", GUESSER, transport="TCP")
LATER = Step("rotate", wait=0.5)
"""A last step, before which half a second passes. With the last step all faults of the host end."""


def guesses(act: Act, number: int = 5) -> Sequence[Step]:
    """Return guesses in a row."""
    return [Step("act", act, wait=3.3), *[Step("act", act, wait=0.2)] * (number - 1)]


def does_nothing(_right: Any) -> Any:
    """Return a function that does nothing."""
    return lambda *_, **__: None
