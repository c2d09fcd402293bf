"""The sweep over the uses of a call: it ends when none fails, or at its largest n, and shows which."""

from pathlib import Path

import pytest
from tests.faults.case import Tried
from tests.faults.sweep import Work, _try_row
from tests.faults.values import Row

ROW = Row("ban", "nftables", "openat", "EMFILE")
USES = 3
"""How often the operation uses the call."""


def _try_case(_: Row, number: int) -> Tried:
    return Tried(calls=["openat(…) = -1 EMFILE (INJECTED)"] if number <= USES else [])


@pytest.mark.parametrize(("most", "tried", "goes_on"), [(2, 2, True), (3, 3, True), (4, 3, False)])
def test_a_row_shows_if_each_use_was_tried(tmp_path: Path, most: int, tried: int, *, goes_on: bool) -> None:
    """A row has tried each use if the next one did not fail; otherwise larger n are left."""
    result = _try_row(_try_case, ROW, Work((ROW,), most, every=True, findings=tmp_path / "findings"))

    assert (result.tried, result.goes_on) == (tried, goes_on)
