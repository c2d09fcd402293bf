"""Tables and styled lines in which hostile text has no effect."""

import re
from io import StringIO

import pytest

from ringfence.cli.screen import Screen, escaped_text, fitting, show_facts, table_of, without

HOSTILE = "[red]:boom:\x1b[31m\r\nEVIL\u202e\u2028\x9b\x00"
ESCAPED = r"[red]:boom:\x1b[31m\r\nEVIL\u202e\u2028\x9b\x00"


def shown(*, row: str = "", line: str = "", raw: object = None, terminal: bool = False) -> str:
    """Return what a screen prints."""
    file = StringIO()
    screen = Screen(width=120, file=file)
    screen._force_terminal = terminal
    table = table_of({"A": [row]})
    screen.print(table if row else raw) if row or raw is not None else screen.show(line, style="bold red")
    return file.getvalue()


def test_a_cell_is_literal() -> None:
    """Markup, emoji codes and control characters have no effect, and a cell is one line."""
    assert shown(row=HOSTILE).split("\n")[1].rstrip() == ESCAPED


def test_a_line_is_literal() -> None:
    """A styled line is literal too."""
    assert shown(line=HOSTILE) == f"{ESCAPED}\n"


@pytest.mark.parametrize("terminal", [False, True])
def test_unescaped_text_is_escaped_at_output(*, terminal: bool) -> None:
    """A string passed directly to rich is not markup, and its control characters are escaped."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown(raw="[red]\x1b[31mx\x9b\u202e", terminal=terminal))

    assert text == "[red]\\x1b[31mx\\x9b\\u202e\n"


def test_a_cell_of_several_lines() -> None:
    """A cell may have several lines; each is escaped."""
    assert escaped_text("a", "b\nc").plain == "a\nb\\nc"


def test_the_first_table_that_fits_is_taken() -> None:
    """The first table that fits is returned, else the last; no tables are an error."""
    tables = [table_of({"x" * width: []}) for width in (30, 20, 10)]
    found = {width: fitting(tables, Screen(width=width)) for width in (30, 25, 5)}

    assert found == {30: tables[0], 25: tables[1], 5: tables[2]}
    with pytest.raises(ValueError, match="no table"):
        fitting([], Screen(width=80))


def test_optional_columns_are_left_out_one_after_the_other() -> None:
    """The first choice has all columns; each further one lacks one more of the optional columns."""
    found = [*without({"A": 1, "B": 2, "C": 3}, ["C", "A"])]

    assert found == [{"A": 1, "B": 2, "C": 3}, {"A": 1, "B": 2}, {"B": 2}]


def test_a_narrow_screen_wraps_some_columns_and_cuts_the_others() -> None:
    """A column in ``wrapped`` keeps its whole text."""
    screen = Screen(width=12, file=StringIO())
    screen.print(table_of({"A": ["1234567890"], "RULE": ["guess"]}, wrapped=["A"]))
    lines = screen.file.getvalue().splitlines()  # type: ignore[attr-defined]  # it is the StringIO

    assert "".join(line.split()[0] for line in lines[1:]).startswith("1234567890")


def test_a_pipe_has_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pipe no line is broken, unless COLUMNS is set."""
    monkeypatch.delenv("COLUMNS", raising=False)
    assert Screen(whole_lines=True).width == 10_000
    monkeypatch.setenv("COLUMNS", "90")
    assert Screen(whole_lines=True).width == 90


def test_a_line_is_wrapped_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets the line wrapped and indented; a pipe gets it whole."""

    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "30")
    line = "source    pbx/ami: lost, since it may not read"
    for file, expected in (
        (Terminal(), "source    pbx/ami: lost, since\n          it may not read\n"),
        (StringIO(), f"{line}\n"),
    ):
        Screen(file=file, width=30).show(line, indent=10)
        assert file.getvalue() == expected


def test_facts_on_the_narrowest_screen() -> None:
    """A screen that is as narrow as the labels has a word of the text on each line."""
    screen = Screen(width=10, file=StringIO())
    show_facts([("source", "pbx is lost")], screen)

    assert screen.file.getvalue() == "source    pbx\n          is\n          lost\n"  # type: ignore[attr-defined]  # it is the StringIO
