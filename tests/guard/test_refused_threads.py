"""A daemon whose threads and child processes the kernel refuses."""

from pathlib import Path

import pytest
from tests.support.daemon import ami_server
from tests.support.refusals import CHILDREN, THREADS, refusals


@pytest.mark.kernel
@pytest.mark.long
@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize("calls", [THREADS, CHILDREN])
def test_no_refusal_ends_a_daemon_that_is_ready(tmp_path: Path, calls: str) -> None:
    """A start ends with one sentence. After READY every command is answered, and the daemon stops well."""
    firewall = {"backend": "nftables" if calls == CHILDREN else "memory"}  # memory starts no child process
    with ami_server() as pbx:
        found = [*refusals(tmp_path, pbx, calls, firewall=firewall)]

    assert [one for one in found if one.faults] == []
    assert len(found) >= (9 if calls == THREADS else 1)  # each of the daemon's threads
    assert any(one.is_ready for one in found) == (calls == CHILDREN)  # no thread is started later
