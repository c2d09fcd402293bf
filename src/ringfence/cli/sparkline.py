"""Charts of one line: a character for each number, the higher the larger."""

from collections.abc import Sequence

_LEVELS = {True: "▁▂▃▄▅▆▇█", False: "12345678"}


def has_blocks(encoding: str | None) -> bool:
    """Whether a terminal with this encoding shows block characters."""
    return (encoding or "").lower().startswith("utf")


def sparkline(numbers: Sequence[int], *, blocks: bool, zero: str = " ") -> str:
    """Return a character for each number, by its share of the greatest one; ``zero`` for 0.

    Without ``blocks`` the characters are digits.
    """
    levels, most = _LEVELS[blocks], max(numbers, default=0)
    return "".join(levels[(number * len(levels) - 1) // most] if number else zero for number in numbers)
