"""Realistic phones on a real Asterisk: whatever phones do, none is banned or cut off."""

from pathlib import Path

import pytest
from tests.support.guarded import guarded
from tests.support.lab import Lab
from tests.support.phones import a_day, configured

pytestmark = pytest.mark.asterisk


@pytest.mark.parametrize(
    ("release", "port", "backend"),
    [("16", 5060, "nftables"), ("16", 5080, "ipset"), ("22", 5060, "ipset")],
    ids=["chan_sip", "pjsip-of-16", "pjsip"],
)
def test_phones_are_neither_banned_nor_cut_off(tmp_path: Path, release: str, port: int, backend: str) -> None:
    """Registrations, mistyped passwords, roaming, and fifty rebooting phones cause no ban.

    The limiter drops none of their packets. The ration may delay one, and every step succeeds.
    """
    firewall = {"backend": backend, "limit": {"mode": "enforce"}, "ration": {}}
    with (
        Lab.made(release, configured(release)) as lab,
        guarded(lab, tmp_path, firewall=firewall) as guard,
    ):
        day = a_day(lab, "198.19.90", port)

        assert day.wrong == {}
        assert guard.bans() == []
        assert guard.status()["limiter_drops"] == 0
