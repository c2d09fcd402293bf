"""Forged senders at a real Asterisk, phones and a carrier among them: what falls, and who never does."""

from pathlib import Path

import pytest
from tests.support.forgery import ATTACKER, place, storm

from ringfence.detect.rules import RULES

pytestmark = pytest.mark.asterisk

SENDERS = 1_700
RATE = 1_500.0
MOST_A_MINUTE = 300
THRESHOLD = next(rule.attempts for rule in RULES if rule.name == "guess")
MEMORY = 64_000_000
"""More than the daemon may grow by (bytes): thousands of senders cost some kilobytes each at most."""


@pytest.mark.parametrize("backend", ["ipset", "nftables"])
def test_forged_senders_close_little_and_nothing_of_ours(tmp_path: Path, backend: str) -> None:
    """Bans stay within their bound, short and narrow, spare phones and carrier, and one alarm tells of it."""
    claimed = {"per_minute": MOST_A_MINUTE}
    with place(tmp_path, backend, claimed=claimed) as here:
        found = storm(here, SENDERS, THRESHOLD + 1, RATE, allowed=60.0)

    assert found.full == []
    assert 0 < found.a_minute <= MOST_A_MINUTE
    assert found.lengths <= {599, 600}
    assert found.passes == {"SIP by UDP": False, "SIP by TCP": True, "UDP to another port": True}
    assert found.spared == []
    assert set(found.renewed) == {200}
    assert found.carried > 1
    assert (len(found.alarms), found.said) == (1, 1)
    assert found.most < found.before + MEMORY

    assert found.guesses.stopped == "silence"
    assert [(row["address"], row["scope"], row["attempts"]) for row in found.stopped] == [
        (ATTACKER, "full", THRESHOLD)
    ]
