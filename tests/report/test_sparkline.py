"""Charts of one line."""

import pytest

from ringfence.report.sparkline import has_blocks, sparkline


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
