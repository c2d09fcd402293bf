"""Lines and tables of plain text."""

import pytest

from ringfence.cli.plain_text import columns_of, cut, has_blocks, sparkline, table_lines, utc_time


def texts(names: list[str], rows: list[list[str]], width: int = 80) -> list[str]:
    """Return the lines of a table."""
    return [line.text for line in table_lines(names, rows, width)]


def test_columns_are_aligned() -> None:
    """Texts begin at the left, and numbers end at the right, also with wide characters."""
    rows = [["alice", "12", "banned"], ["電話", "3", ""]]

    assert texts(["ACCOUNT", "ATTEMPTS", "NOTE"], rows) == [
        "ACCOUNT  ATTEMPTS  NOTE",
        "alice          12  banned",
        "電話            3",
    ]
    assert [line.is_head for line in table_lines(["TIME", "BANS"], [["x", "1"]], 80)] == [True, False]


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_table_fits_the_width(width: int) -> None:
    """Long texts are cut, the last column first, and numbers never."""
    rows = [["a" * 100, "1234567890", "b" * 100], ["語" * 50, "1", "c"]]
    lines = texts(["ACCOUNT", "ATTEMPTS", "NOTE"], rows, width)

    assert max(map(columns_of, lines)) <= width
    assert "1234567890" in lines[1]
    assert lines[1].endswith("…")


@pytest.mark.parametrize(
    ("text", "most", "shown"),
    [
        ("alice", 5, "alice"),
        ("alice", 4, "ali…"),
        ("電話帳", 6, "電話帳"),
        ("電話帳", 5, "電話…"),
        ("電話帳", 4, "電…"),
    ],
)
def test_a_long_text_is_cut(text: str, most: int, shown: str) -> None:
    """An ellipsis takes the place of what does not fit."""
    assert cut(text, most) == shown


def test_a_character_that_takes_no_column() -> None:
    """Accents that are characters of their own take no column."""
    assert columns_of("e\u0301") == 1


def test_times_are_those_of_the_json() -> None:
    """Times are shown to the minute."""
    assert utc_time("2026-11-20T12:34:56Z") == "2026-11-20 12:34"


def test_a_sparkline() -> None:
    """A character for each number, the greatest one the highest; without block characters it is ASCII."""
    assert sparkline([0, 1, 8], blocks=True) == " ▁█"
    assert sparkline([0, 1, 8], blocks=False, zero=".") == ".18"
    assert sparkline([], blocks=True) == ""


@pytest.mark.parametrize(
    ("encoding", "shows"),
    [("utf-8", True), ("UTF8", True), ("ascii", False), ("iso8859-1", False), (None, False)],
)
def test_blocks_need_utf8(encoding: str | None, shows: bool) -> None:  # noqa: FBT001 - a parameter
    """Only an encoding of Unicode has block characters."""
    assert has_blocks(encoding) is shows
