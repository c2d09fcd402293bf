"""A daemon whose threads and child processes the kernel refuses."""

from pathlib import Path

import pytest
from tests.support.daemon import ami_server
from tests.support.refusals import CHILDREN, THREADS, refusals


@pytest.mark.kernel
@pytest.mark.long
@pytest.mark.parametrize("calls", [THREADS, CHILDREN])
def test_no_refusal_ends_a_daemon_that_is_ready(tmp_path: Path, calls: str) -> None:
    """A start ends with one sentence. After READY every command is answered, and the daemon stops well."""
    with ami_server() as pbx:
        found = [*refusals(tmp_path, pbx, calls)]

    assert [one for one in found if one.faults] == []
    assert len(found) >= (9 if calls == THREADS else 0)  # each of the daemon's threads
    assert not any(one.is_ready for one in found if calls == THREADS)  # none is started later
