"""Line wrapping for terminals: lines break between words, and continuation lines are indented.

If the output is not a terminal but a pipe or a file, lines are not wrapped, so that grep finds whole lines.
"""

import re
import shutil
from typing import IO

_FIX = re.compile("; (?=fix: )")
_PIPE = 1_000_000
"""The width (columns) for a pipe or a file. It is so large that no line is wrapped."""


def width_of(stream: IO[str]) -> int:
    """Return the width of the terminal ``stream`` in columns; for a pipe or file, _PIPE."""
    return shutil.get_terminal_size().columns if stream.isatty() else _PIPE


def wrapped(text: str, width: int, indent: int) -> str:
    """Return ``text`` wrapped to lines of at most ``width`` columns; all but the first are indented.

    ``indent`` is in columns. If the text is too long for one line, its part ``fix: …`` begins a new line, so
    that the command in it can be copied. A word that is longer than a line, such as a path, is not broken.
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
