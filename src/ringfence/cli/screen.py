"""Tables and styled lines for people. Text from outside is escaped, and never interpreted as markup."""

import os
import sys
from collections.abc import Iterable
from textwrap import wrap
from typing import IO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from ringfence.cli.output import width_of, wrapped
from ringfence.model import printable

_UNLIMITED = 10_000  # columns of an output in which no line is wrapped or cut
_LABEL = 10  # columns of the label at the beginning of a line


class Screen(Console):
    """A console without markup, emoji codes and highlighting. It escapes unprintable characters.

    With ``whole_lines``, output to a pipe or file has no width limit, so that ``grep`` finds whole lines. The
    environment variable COLUMNS sets a limit again.
    """

    def __init__(
        self,
        *,
        whole_lines: bool = False,
        stderr: bool = False,
        width: int | None = None,
        file: IO[str] | None = None,
    ) -> None:
        """Write to ``file`` if it is given, else to standard error with ``stderr``, else to standard output.

        ``width`` is in columns; None is the width of the terminal. With ``whole_lines``, lines are
        neither cut nor wrapped if there is no terminal.
        """
        if whole_lines and width is None and not sys.stdout.isatty() and not os.environ.get("COLUMNS"):
            width = _UNLIMITED
        super().__init__(width=width, stderr=stderr, file=file, highlight=False, markup=False, emoji=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of a renderable. Escape texts that :func:`escaped_text` did not."""
        for segment in super().render(renderable, options):
            text = segment.text
            if segment.control or text.isprintable() or text == "\n":
                yield segment
            else:
                yield segment._replace(text="\n".join(map(printable, text.split("\n"))))

    def show(self, text: str = "", style: str = "", *, indent: int = 0) -> None:
        """Print one line.

        On a terminal, a long line is :func:`wrapped`; its continuation lines begin with ``indent`` blanks.
        """
        lines = wrapped(printable(text), width_of(self.file), indent).split("\n")
        self.print(escaped_text(*lines, style=style), soft_wrap=True)


def show_facts(facts: Iterable[tuple[str, str]], to: Screen) -> None:
    """Print facts in two columns: the label of a fact, and its text, which is wrapped in its column."""
    for label, text in facts:
        room = to.width - _LABEL
        first, *rest = wrap(printable(text), room, break_on_hyphens=False, break_long_words=False) or [""]
        lines = [f"{label:{_LABEL}}{first}", *(f"{'':{_LABEL}}{line}" for line in rest)]
        to.print(escaped_text(*lines), soft_wrap=True)


def escaped_text(*lines: str, style: str = "") -> Text:
    """Return these lines as one text for a table or the screen. Line ends inside a line are escaped."""
    return Text("\n".join(map(printable, lines)), style=style)


def cropped(lines: Iterable[tuple[str, str]], width: int) -> Text:
    """Return lines as one text, each line with its style. Lines are cut after ``width`` columns."""
    text = Text(no_wrap=True, overflow="crop")
    for number, (line, style) in enumerate(lines):
        text.append("\n" if number else "").append(printable(line)[:width], style=style)
    return text


def plain_table() -> Table:
    """Return an empty table in the style of all commands: no frame, bold header."""
    return Table(box=None, pad_edge=False, header_style="bold")


def add_row(table: Table, cells: Iterable[str]) -> None:
    """Add a row of texts to a table."""
    table.add_row(*map(escaped_text, cells))


def fitting(tables: Iterable[Table], to: Console) -> Table:
    """Return the first of these tables that fits the width of ``to``; the last one if none fits."""
    table: Table | None = None
    for table in tables:
        if to.measure(table, options=to.options.update(width=_UNLIMITED)).maximum <= to.width:
            break
    if table is None:
        raise ValueError("no table")
    return table
