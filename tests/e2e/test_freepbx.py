"""Bans on a FreePBX host: `fwconsole restart` replaces the rules, and every ban is effective in a second."""

from pathlib import Path

import pytest
from tests.support.freepbx import BANNED, KINDS, MOST, ROUNDS, freepbx

pytestmark = pytest.mark.kernel

NEVER = 8 * MOST
"""Seconds of an open ban that not even a busy machine explains."""


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.long if "legacy" in kind else ()) for kind in KINDS]
)
def test_a_restart_of_freepbx_opens_no_ban_for_long(kind: str, tmp_path: Path) -> None:
    """While FreePBX replaces the rules, no banned sender's packets arrive for longer than a second."""
    with freepbx(kind, tmp_path) as host:
        for _ in range(ROUNDS):
            opening = host.restart_fairly()
            if not opening.is_fair and opening.seconds <= NEVER:
                pytest.skip(f"the machine is busy: work waits {opening.waited:.0%} of its time")
            assert opening.seconds <= MOST
        assert host.guard.banned() == {*BANNED}
