"""Forged senders at a real Asterisk, in the networks of phones and a carrier: which addresses are banned."""

from pathlib import Path

import pytest
from tests.support.forgery import ATTACKER, guarded_pbx, storm

from ringfence.detect.rules import RULES

pytestmark = pytest.mark.asterisk

RATE = 1_500.0
THRESHOLD = next(rule.attempts for rule in RULES if rule.name == "guess")
MEMORY = 64_000_000
"""The limit for the daemon's growth (bytes): thousands of senders cost at most some kilobytes each."""


@pytest.mark.parametrize(
    ("backend", "senders", "most"),
    [
        pytest.param("ipset", 600, 150, id="ipset"),
        pytest.param("nftables", 1_700, 300, id="nftables", marks=pytest.mark.long),
    ],
)
def test_forged_senders_close_little_and_nothing_of_ours(
    tmp_path: Path, backend: str, senders: int, most: int
) -> None:
    """Bans are few, short and narrow, never of phones or the carrier, and one alarm reports the storm."""
    with guarded_pbx(tmp_path, backend, claimed={"per_minute": most}) as here:
        found = storm(here, senders, THRESHOLD + 1, RATE, allowed=60.0)

    assert found.full == []
    assert 0 < found.most_in_a_minute <= most
    assert found.lengths <= {599, 600, 601}  # the kernel counts whole seconds
    assert found.passes == {"SIP by UDP": False, "SIP by TCP": True, "UDP to another port": True}
    assert found.banned_own == []
    assert set(found.renewed) == {200}
    assert found.carried > 1
    assert (len(found.alarms), found.alarm_lines) == (1, 1)
    assert found.most < found.before + MEMORY

    assert found.guesses.stopped == "silence"
    assert [(row["address"], row["scope"], row["attempts"]) for row in found.stopped] == [
        (ATTACKER, "sip", THRESHOLD)
    ]
