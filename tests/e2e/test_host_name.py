"""Names that Asterisk looks up while it answers: if their name server is silent, datagrams may stop SIP."""

import time
from pathlib import Path

import pytest
from tests.support.console import ScriptedConsole
from tests.support.daemon import until
from tests.support.guarded import guarded
from tests.support.lab import Lab
from tests.support.look_ups import BROADCAST, OWN_NAME, PHONE, PJSIP_ONLY, hidden_guess, with_silent_names
from tests.support.sip_raw import Raw, calling

from ringfence.features.audit.check import host_name_findings, look_up_findings

pytestmark = pytest.mark.asterisk

_QUICK = "options timeout:1 attempts:1\n"
_DATAGRAMS = 20
_NAMES = 300


def _seconds_until_answered(lab: Lab) -> float:
    """Send datagrams whose answers go to the broadcast address; return how long another sender waits."""
    with calling(lab, "198.19.7.8") as attacker, calling(lab, "198.19.7.7") as phone:
        for _ in range(_DATAGRAMS):
            attacker.send(BROADCAST)
        began = time.monotonic()
        assert phone.ask(PHONE, 60.0) is not None
        return time.monotonic() - began


def test_check_names_the_host_name_that_stops_asterisk(tmp_path: Path) -> None:
    """With the name in /etc/hosts all goes on. Without it Asterisk waits for DNS, and `check` reports it."""
    with with_silent_names(tmp_path, options=_QUICK) as (lab, etc):
        known = _seconds_until_answered(lab)
        assert [*host_name_findings(OWN_NAME, etc / "hosts", etc / "nsswitch.conf")] == []

        (etc / "hosts").write_text("127.0.0.1 localhost\n", "utf-8")
        assert _seconds_until_answered(lab) > known + 0.9
        assert len([*host_name_findings(OWN_NAME, etc / "hosts", etc / "nsswitch.conf")]) == 1


@pytest.mark.parametrize("pjsip", ["", PJSIP_ONLY])
def test_check_names_the_setting_by_which_other_names_stop_asterisk(tmp_path: Path, pjsip: str) -> None:
    """Datagrams that name hosts stop all SIP, unless only PJSIP's own queues show that it is overloaded."""
    with (
        with_silent_names(tmp_path, pjsip, _QUICK) as (lab, _),
        calling(lab, "198.19.7.8") as attacker,
        calling(lab, "198.19.7.7") as phone,
    ):
        assert len([*look_up_findings(ScriptedConsole(lab.asterisk.cli))]) == (not pjsip)
        for number in range(_NAMES):
            attacker.send(Raw(via=b";maddr=h%d.example.net" % number))
        until(lambda: _waiting_look_ups(lab) > 500, "look-ups that wait")
        answer = phone.ask(PHONE, 10.0 if pjsip else 2.0)
        assert (answer is not None) is bool(pjsip)


def _waiting_look_ups(lab: Lab) -> int:
    lines = lab.asterisk.cli("core show taskprocessors like dns_system_resolver_tp").split("\n")
    return next(int(line.split()[2]) for line in lines if line.startswith("dns_system_resolver_tp"))


@pytest.mark.parametrize(
    ("credentials", "backend"),
    [
        (True, "ipset"),
        (False, "nftables"),
        pytest.param(True, "nftables", marks=pytest.mark.long),
        pytest.param(False, "ipset", marks=pytest.mark.long),
    ],
)
def test_datagrams_that_nobody_can_get_an_answer_to_ban_their_sender(
    tmp_path: Path, backend: str, *, credentials: bool
) -> None:
    """With or without hidden credentials in the second fragment: a narrow ban, and others are answered."""
    source = "198.19.7.8"
    with (
        with_silent_names(tmp_path, options=_QUICK) as (lab, _),
        guarded(lab, tmp_path, firewall={"backend": backend}) as guard,
        calling(lab, source) as attacker,
        calling(lab, "198.19.9.7") as phone,
    ):
        for number in range(_NAMES):
            attacker.send(hidden_guess(number) if credentials else BROADCAST)
            if number % 50 == 0:
                assert phone.ask(PHONE, 10.0) is not None
        until(lambda: source in guard.banned(), "the ban")
        assert {row["scope"] for row in guard.bans() if row["address"] == source} == {"sip-udp"}
        assert phone.ask(PHONE, 10.0) is not None
