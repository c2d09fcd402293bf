"""Tables and styled lines for people. Text from outside is escaped, and never interpreted as markup."""

import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from textwrap import wrap
from typing import IO, TypeVar

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from ringfence.cli.output import echo, width_of, wrapped
from ringfence.cli.plain_text import cut
from ringfence.values.text import printable

_T = TypeVar("_T")

_UNLIMITED = 10_000  # columns of an output in which no line is wrapped or cut
_PLAIN_FROM = 1_000
"""The number of rows from which a list is printed without a table.

The library ``rich`` needs a minute for a table of 100,000 rows.
"""
_LABEL = 10  # columns of the label at the beginning of a line


class Screen(Console):
    """A console without markup, emoji codes and highlighting. It escapes unprintable characters.

    Lines may have 10,000 columns if standard output is not a terminal, so that ``grep`` finds whole lines.
    The environment variable COLUMNS sets a limit again.
    """

    def __init__(
        self,
        *,
        whole_lines: bool = True,
        stderr: bool = False,
        width: int | None = None,
        file: IO[str] | None = None,
    ) -> None:
        """Write to ``file`` if it is given, else to standard error with ``stderr``, else to standard output.

        ``width`` is in columns; None is the width of the terminal. With ``whole_lines`` false, lines are
        cut or wrapped also if the output is not a terminal.
        """
        piped = not (stderr or sys.stdout.isatty() or os.environ.get("COLUMNS"))
        if whole_lines and piped and width is None:
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
        room = max(1, to.width - _LABEL)
        first, *rest = wrap(printable(text), room, break_on_hyphens=False, break_long_words=False) or [""]
        lines = [f"{label:{_LABEL}}{first}", *(f"{'':{_LABEL}}{line}" for line in rest)]
        to.print(escaped_text(*lines), soft_wrap=True)


def escaped_text(*lines: str, style: str = "") -> Text:
    """Return these lines as one text for a table or the screen. Line ends inside a line are escaped."""
    return Text("\n".join(map(printable, lines)), style=style)


def cropped(lines: Iterable[tuple[str, str]], width: int) -> Text:
    """Return lines (text and style) as one text. Lines longer than ``width`` columns are cut (``…``)."""
    text = Text(no_wrap=True, overflow="crop")
    for number, (line, style) in enumerate(lines):
        shown = cut(printable(line[: 4 * width]), width)
        text.append("\n" if number else "").append(shown, style=style)
    return text


def table_of(
    columns: Mapping[str, Sequence[str | Text]],
    *,
    right: Collection[str] = (),
    wrapped: Collection[str] = ("ADDRESS",),
) -> Table:
    """Return a table without a frame. ``columns`` has the cells of each column, by its head.

    A string is a cell of one line. ``right`` are the heads of columns with numbers. If the screen is too
    narrow, the cells of the columns in ``wrapped`` get several lines, and those of the others are cut.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in columns:
        whole = head in wrapped
        table.add_column(
            head,
            justify="right" if head in right else "left",
            no_wrap=not whole,
            overflow="fold" if whole else "ellipsis",
        )
    for row in zip(*columns.values(), strict=True):
        table.add_row(*(escaped_text(cell) if isinstance(cell, str) else cell for cell in row))
    return table


def without(columns: Mapping[str, _T], optional: Sequence[str]) -> Iterator[dict[str, _T]]:
    """Yield all columns, then all but the first of ``optional``, then all but its first two, and so on."""
    for number in range(len(optional) + 1):
        yield {head: cells for head, cells in columns.items() if head not in optional[:number]}


def show_list(
    columns: Mapping[str, Sequence[str]],
    optional: Sequence[str],
    to: Screen,
    *,
    right: Collection[str] = (),
    wrapped: Collection[str] = ("ADDRESS",),
) -> None:
    """Print a list as a table, without as many of the columns ``optional`` as needed to fit the screen.

    A list of _PLAIN_FROM rows or more is printed without a table.
    """
    if len(next(iter(columns.values()))) >= _PLAIN_FROM:
        echo("  ".join(columns), *map("  ".join, zip(*columns.values(), strict=True)))
        return
    choices = without(columns, optional)
    to.print(fitting((table_of(some, right=right, wrapped=wrapped) for some in choices), to))


def fitting(tables: Iterable[Table], to: Console) -> Table:
    """Return the first of these tables that fits the width of ``to``; the last one if none fits."""
    table: Table | None = None
    for table in tables:
        if to.measure(table, options=to.options.update(width=_UNLIMITED)).maximum <= to.width:
            break
    if table is None:
        raise ValueError("no table")
    return table
