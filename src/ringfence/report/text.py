"""A report as lines of text, for a terminal and for a mail."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from unicodedata import combining, east_asian_width

from attrs import frozen

from ringfence.clock import column_length, format_duration
from ringfence.plurals import counted
from ringfence.report import GROUPS
from ringfence.values.location import parts_of

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
    return moment.replace("T", " ").removesuffix("Z")[:16]


@frozen
class TextForm:
    """How a report is written as text.

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
        cells = (_cell(text, widths[at], right=at not in texts) for at, text in enumerate(row))
        lines.append(Line((" " * _GAP).join(cells).rstrip(), is_head=row is names))
    return lines


def _cell(text: str, width: int, *, right: bool) -> str:
    text = cut(text, width)
    blanks = " " * (width - columns_of(text))
    return blanks + text if right else text + blanks


# -- the history in a report as text: a line with a chart for each kind of count, such as unbans
#
# The daemon counts by *slots*: a slot is a minute, an hour or a day of the period. A column of a chart
# shows the sum of one or more slots. This module performs no I/O.


_COLUMNS = 48
"""The maximum number of columns of a chart. With so many, a whole line has 80 columns."""
_ZERO = {True: "·", False: "."}  # the character for 0 in a chart, with and without UTF-8

Slots = Sequence[Mapping[str, Any]]


def history_lines(found: Mapping[str, Any], form: TextForm) -> Iterator[str]:
    """Yield a line for each kind of count, with its total and its chart.

    ``found`` is the history of a period, as the daemon returns it.
    """
    begin, end = (datetime.fromisoformat(found[key]).timestamp() for key in ("since", "until"))
    # The first slot may begin up to one step (the length of a slot) before the period that was asked for. The
    # step is subtracted, because this small part must not make the columns longer.
    length = column_length(end - begin - found["step"], _COLUMNS)
    columns = _columns(found["slots"], begin, end, length)
    span = f"{form.moment(found['since'])} to {form.moment(found['until'])} {form.zone}"
    yield f"{span}, {format_duration(length)} a column"
    yield ""
    yield f"{'':<17}{'TOTAL':>7}{'PROVEN':>7} OVER TIME"
    for label, total, proven, path in _rows(found["totals"]):
        shown = "" if proven is None else str(proven)
        chart = _chart([_sum_of(slots, path) for slots in columns], columns, utf8=form.utf8)
        yield f"{label:<17}{total:>7}{shown:>7} {chart}".rstrip()
    missing = end - begin - found["watched"]
    if missing >= 2 * found["step"]:
        yield ""
        yield f"ringfence did not run for {format_duration(missing)} of this time (blank in the chart)."


def _rows(totals: Mapping[str, Any]) -> Iterator[tuple[str, int, int | None, tuple[str, ...]]]:
    """Yield four values for each kind of count in ``totals``: label, total, how many are proven, and path.

    The third is None for counts other than attempts. The path has the keys, from the outer to the inner one,
    under which a slot (the counts of a short period) has this count.
    """
    for kind, parts in totals["attempts"].items():
        yield f"attempts {kind}", parts["total"], parts["proven"], ("attempts", kind, "total")
    yield "unconfirmed", totals["unconfirmed"], None, ("unconfirmed",)
    for rule, number in totals["bans"].items():
        yield f"bans {rule}", number, None, ("bans", rule)
    yield "unbans", totals["unbans"], None, ("unbans",)


def _columns(slots: Slots, begin: float, end: float, length: int) -> list[Slots]:
    """Return the slots (counts of short periods) of each chart column. A column is ``length`` seconds long.

    The period is from ``begin`` to ``end`` (seconds since the epoch). Return the latest ``_COLUMNS`` columns.
    """
    columns: list[list[Mapping[str, Any]]] = [[] for _ in range(-int((begin - end) // length))]
    for slot in slots:
        number = int((datetime.fromisoformat(slot["start"]).timestamp() - begin) // length)
        if 0 <= number < len(columns):
            columns[number].append(slot)
    return [*columns[-_COLUMNS:]]


def _sum_of(slots: Slots, path: tuple[str, ...]) -> int:
    total = 0
    for slot in slots:
        value: Any = slot
        for part in path:
            value = value.get(part, {})
        total += value or 0
    return total


def _chart(numbers: Sequence[int], columns: Sequence[Slots], *, utf8: bool) -> str:
    """Return a character for each number, by its share of the greatest number.

    If the number's column has no slots, the character is a blank, because ringfence did not run then.
    """
    marks = sparkline(numbers, blocks=utf8, zero=_ZERO[utf8])
    return "".join(mark if slots else " " for mark, slots in zip(marks, columns, strict=True))


Document = Mapping[str, Any]


def report_lines(found: Document, form: TextForm) -> Iterator[Line]:
    """Yield the lines of the report ``found`` (see :func:`ringfence.report.summary.summary_of`).

    Only tables are fitted to the width of ``form``; callers wrap the rest.
    """
    for text in history_lines(found["history"], form):
        yield Line(text)
    for title, names, rows in _tables(found):
        if rows:
            yield Line()
            yield Line(title, is_head=True)
            yield from table_lines(names, rows, form.width)
    if not found["addresses"] and not found["held"]["bans"]:
        yield Line()
        yield Line("No attempt is recorded in this time. The report shows who guessed, and what was banned.")
        yield Line("To watch attempts as they come: ringfence events --follow")
    yield Line()
    yield Line("Phones that need a person", is_head=True)
    for row in found["phones"]:
        yield Line(_alarm(row, form), indent=2)
    if found["phones_left_out"]:
        yield Line(f"and {found['phones_left_out']} more; see: ringfence alarms")
    if not found["phones"]:
        yield Line("none")
    yield Line()
    for text in _closing(found):
        yield Line(text, indent=2)


def _tables(found: Document) -> Iterator[tuple[str, list[str], Sequence[Sequence[str]]]]:
    """Yield for each table of the report ``found`` its title, the heads of its columns, and its rows."""
    for kind, head in (("addresses", "ADDRESS"), ("accounts", "ACCOUNT")):
        rows = [(row["name"], str(row["attempts"]), _note(kind, row)) for row in found[kind]]
        yield f"{kind.capitalize()} with the most attempts", [head, "ATTEMPTS", "NOTE"], rows
    for kind, head in GROUPS.items():
        rows = [(row["name"], str(row["attempts"]), str(row["addresses"])) for row in found[kind]]
        yield kind.capitalize(), [head, "ATTEMPTS", "ADDRESSES"], rows
    lengths = [(row["name"], str(row["bans"])) for row in found["held"]["lengths"]]
    yield "How long bans held", ["TIME", "BANS"], lengths if found["held"]["bans"] else []


def _note(kind: str, row: Document) -> str:
    known = ("friend" if kind == "addresses" else "works here") if row["known"] else ""
    where = " ".join(parts_of(row))
    return ", ".join(filter(None, (known, "banned" if row["banned"] else "", where)))


def _alarm(row: Document, form: TextForm) -> str:
    about = " ".join(filter(None, (row["code"], row["subject"])))
    again = f" ({row['times']} times)" if row["times"] > 1 else ""
    cleared = f" (cleared {form.moment(row['cleared'])})" if row.get("cleared") else ""
    return f"! {about}: {row['text']}{again}{cleared}"


def _closing(found: Document) -> Iterator[str]:
    held = found["held"]
    if held["bans"]:
        ends = ", ".join(f"{number} {end}" for end, number in held["ends"].items())
        half = f", half of them after {format_duration(held['median'])}"
        bans = f"The latest {held['bans']} bans" if held["more"] else counted(held["bans"], "ban")
        repeated = counted(held["repeated"], "was a repeated ban", "were repeated bans")
        yield f"{bans} ended ({ends}){half}; {repeated}."
    dropped = found["dropped"]
    if dropped is not None:
        for name in [one for one in dropped if one != "rules"]:
            packets = counted(dropped[name], "packet")
            yield f"Since the rules were made, the {name} dropped {packets}."
        for row in dropped["rules"]:
            yield f"{row['rule']}: {counted(row['packets'], 'packet')}"
