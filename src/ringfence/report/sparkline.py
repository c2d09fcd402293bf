"""Charts of one line: a character for each number. A higher character stands for a larger number."""

from collections.abc import Sequence

_LEVELS = {True: "▁▂▃▄▅▆▇█", False: "12345678"}


def has_blocks(encoding: str | None) -> bool:
    """Whether a terminal with this encoding can show block characters (``▁`` to ``█``)."""
    return (encoding or "").lower().startswith("utf")


def sparkline(numbers: Sequence[int], *, blocks: bool, zero: str = " ") -> str:
    """Return a character for each number, by its share of the greatest number; ``zero`` for the number 0.

    With ``blocks`` the characters are blocks of eight heights, otherwise the digits 1 to 8.
    """
    levels, most = _LEVELS[blocks], max(numbers, default=0)
    return "".join(levels[(number * len(levels) - 1) // most] if number else zero for number in numbers)
