"""Real phones' ways on a real Asterisk: whatever phones do, none of them is banned."""

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
def test_phones_are_not_banned(tmp_path: Path, release: str, port: int, backend: str) -> None:
    """Registering, mistyping, roaming, fifty behind one address that all reboot: no ban."""
    firewall = {"backend": backend, "limit": {"mode": "observe"}}
    with (
        Lab.made(release, configured(release)) as lab,
        guarded(lab, tmp_path, firewall=firewall) as guard,
    ):
        day = a_day(lab, "198.19.90", port)

        assert day.wrong == {}
        assert guard.bans() == []
