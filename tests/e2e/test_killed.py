"""A daemon that is killed at any moment leaves the kernel and its records in agreement."""

from pathlib import Path

import pytest
from tests.support.daemon import ami_server
from tests.support.killing import kill_often

ROUNDS = 10

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]


@pytest.mark.parametrize("backend", ["nftables", pytest.param("ipset", marks=pytest.mark.long)])
def test_killed_at_any_moment_it_leaves_no_ban_that_is_not_in_the_kernel(
    tmp_path: Path, backend: str
) -> None:
    """Every recorded ban is in the kernel, every ban in the kernel has an end, and the store is undamaged."""
    with ami_server() as pbx:
        account = kill_often(tmp_path, pbx, rounds=ROUNDS, backend=backend, seed=4, unbanning=True)
    assert account.failures == []
    assert account.rounds == ROUNDS
    assert account.recorded > ROUNDS
