"""Plain text for a terminal or a mail: charts that take one line, aligned lines, and tables."""

from collections.abc import Callable, Sequence
from typing import NamedTuple
from unicodedata import combining, east_asian_width

from attrs import frozen

from ringfence.values.text import readable_time

# -- charts of one line: a character for each number. A higher character stands for a larger number


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


# -- lines and tables of plain text, aligned by the columns that characters take on a terminal


MAX_CELL = 48
"""The maximum width of a text in a table (columns of the terminal). A longer text is cut."""
_MIN_CELL = 12  # a text is not cut below this width
_GAP = 2  # blanks between two columns of a table
_NUMBERS = frozenset({"ATTEMPTS", "ADDRESSES", "BANS"})
"""The heads of the table columns that have numbers. They are aligned to the right."""


def utc_time(moment: str) -> str:
    """Return a time of the daemon's JSON as text in UTC, such as ``2026-11-20 06:05``."""
    return readable_time(moment)[:16]


@frozen
class TextForm:
    """The form in which reports are written as plain text.

    ``utf8``: charts have block characters, otherwise digits. ``width`` is the number of columns of the
    terminal or mail. ``moment`` converts a time of the daemon's JSON (UTC) to text in the time zone ``zone``.
    """

    utf8: bool = True
    width: int = 80
    zone: str = "UTC"
    moment: Callable[[str], str] = utc_time


@frozen
class Line:
    """A line of text that the caller may wrap. ``is_head``: it is a title, or the head of a table.

    If the caller wraps the line, each further line begins with ``indent`` blanks.
    """

    text: str = ""
    is_head: bool = False
    indent: int = 0


class Row(NamedTuple):
    """A row about a feature, as its command and its page show it: its label and its text.

    ``good``: all is well.
    """

    label: str
    text: str
    good: bool = True


def columns_of(text: str) -> int:
    """Return the number of columns that a printable text takes on a terminal."""
    return sum(_columns_of_one(character) for character in text)


def _columns_of_one(character: str) -> int:
    if combining(character):
        return 0
    return 2 if east_asian_width(character) in "WF" else 1


def cut(text: str, most: int) -> str:
    """Return ``text`` cut to at most ``most`` columns. If it was longer, it ends with an ellipsis (``…``)."""
    if columns_of(text) <= most:
        return text
    kept, columns = "", 0
    for character in text:
        columns += _columns_of_one(character)
        if columns > most - 1:
            break
        kept += character
    return f"{kept}…"


def table_lines(names: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[Line]:
    """Return the lines of a table: its head with ``names``, and its rows.

    To fit into ``width`` columns, long texts are cut, but not numbers, and no text below ``_MIN_CELL``
    columns.
    """
    widths = [max(columns_of(row[at]) for row in (names, *rows)) for at in range(len(names))]
    texts = [at for at, name in enumerate(names) if name not in _NUMBERS]
    for at in texts:
        widths[at] = min(widths[at], MAX_CELL)
    for at in reversed(texts):
        excess = sum(widths) + _GAP * (len(names) - 1) - width
        widths[at] = min(widths[at], max(_MIN_CELL, widths[at] - max(0, excess)))
    lines = []
    for row in (names, *rows):
        cells = (cell(text, widths[at], right=at not in texts) for at, text in enumerate(row))
        lines.append(Line((" " * _GAP).join(cells).rstrip(), is_head=row is names))
    return lines


def cell(text: str, width: int, *, right: bool = False) -> str:
    """Return ``text`` cut, or filled with blanks, to ``width`` columns; ``right``: the blanks come first."""
    text = cut(text, width)
    blanks = " " * (width - columns_of(text))
    return blanks + text if right else text + blanks
