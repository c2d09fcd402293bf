"""The README: it is short, and its figures are measured."""

import re

from tests.docs import pages

README = pages.text_of("README.md")
MAX_LINES = 200


def test_the_readme_is_short() -> None:
    """The README has at most 200 lines; docs/ has the rest."""
    assert len(README.splitlines()) <= MAX_LINES


def test_the_figures_of_the_readme_were_measured() -> None:
    """Each figure of the comparison is in the RESULTS.md of a run, in the same form."""
    runs = ("tests/bench/RESULTS.md", "tests/compare/RESULTS.md")
    results = "".join(pages.text_of(run) for run in runs if (pages.ROOT / run).exists())
    cells = [cell for row in pages.rows_of(pages.section_of(README, "## Why not fail2ban")) for cell in row]
    figures = [figure for cell in cells for figure in re.findall(r"median [^;]*\(.* to [^)]*\)", cell)]
    numbers = {number for cell in cells for number in re.findall(r"(?<![\w.])\d[\d.]*\b", cell)}

    assert len(figures) >= 5
    assert [figure for figure in figures if figure not in results] == []
    assert {number for number in numbers if not re.search(rf"(?<![\d.]){number}(?![\d.])", results)} == set()
