"""System calls on the database's files that fail once: nothing acknowledged is lost without a word."""

import time
from pathlib import Path

import pytest
from tests.support.daemon import Guard
from tests.support.faults import CHANGES, MANY, change_under_fault, opened_under_fault
from tests.support.recorded import active

from ringfence.store.database import Store

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("when", ["1", "2", "1+", "2+"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_write_that_fails(tmp_path: Path, change: str, when: str) -> None:
    """The answer reports that the change is not recorded, or it is; later it is recorded in any case."""
    assert change_under_fault(tmp_path, change, when) == ""


@pytest.mark.parametrize("when", [*range(1, 9), "1+", "3+"])
def test_a_read_that_fails_sets_no_healthy_file_aside(tmp_path: Path, when: int | str) -> None:
    """Whichever read of the start fails, the file stays in its place; if one fails, its bans are in force."""
    with Guard(tmp_path) as guard:
        guard.ask("ban", networks=list(MANY), seconds=3_600.0)
    path = tmp_path / "ringfence.db"
    found = opened_under_fault(path, "pread64", "EIO", str(when))

    assert list(tmp_path.glob("*.damaged*")) == []
    assert found == len(MANY) or "+" in str(when)
    with Store.open_or_memory(path) as store:
        assert (store.memory_reason, len(active(store, time.time()))) == ("", len(MANY))
