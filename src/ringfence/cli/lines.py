"""Line wrapping for terminals: lines break between words, and continuation lines are indented.

In a pipe every line stays whole, so that grep finds it.
"""

import re
import shutil
from typing import IO

_FIX = re.compile("; (?=(?:fix|mend): )")
_PIPE = 1_000_000
"""Columns. No line is longer."""


def width_of(stream: IO[str]) -> int:
    """Return the columns of the terminal behind ``stream``; for a pipe, more than any line has."""
    return shutil.get_terminal_size().columns if stream.isatty() else _PIPE


def wrapped(text: str, width: int, indent: int) -> str:
    """Return ``text`` in lines of at most ``width`` columns, all but the first indented.

    A fix begins a new line, so that its command can be copied. A word longer than a line, such as a path, is
    not broken.
    """
    if len(text) <= width:
        return text
    from textwrap import wrap  # noqa: PLC0415 - loaded only if a line is too long

    lines: list[str] = []
    for part in _FIX.split(text):
        blanks = " " * indent
        lines += wrap(
            part,
            width,
            initial_indent=blanks if lines else "",
            subsequent_indent=blanks,
            break_long_words=False,
            break_on_hyphens=False,
            replace_whitespace=False,
        )
    return "\n".join(lines)
