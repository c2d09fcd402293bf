"""Realistic phones on a real Asterisk: whatever phones do, none is banned or cut off."""

from pathlib import Path

import pytest
from tests.support.guarded import guarded
from tests.support.lab import Lab
from tests.support.phones import a_day

pytestmark = pytest.mark.asterisk


@pytest.mark.parametrize(
    ("release", "port", "backend"),
    [
        pytest.param("16", 5060, "nftables", id="chan_sip"),
        pytest.param("22", 5060, "ipset", id="pjsip"),
        pytest.param("16", 5080, "ipset", id="pjsip-of-16", marks=pytest.mark.long),
    ],
)
def test_phones_are_neither_banned_nor_cut_off(
    open_lab: Lab, tmp_path: Path, port: int, backend: str
) -> None:
    """Registrations, mistyped passwords, roaming, and fifty rebooting phones cause no ban.

    The limiter drops none of their packets. The ration may delay one, and every step succeeds.
    """
    firewall = {"backend": backend, "limit": {"mode": "enforce"}, "ration": {"asking": "enforce"}}
    with guarded(open_lab, tmp_path, firewall=firewall) as guard:
        day = a_day(open_lab, "198.19.90", port)

        assert day.wrong == {}
        assert guard.bans() == []
        assert guard.status()["limiter_drops"] == 0
