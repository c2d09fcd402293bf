"""Names that Asterisk looks up while it answers: if their name server is silent, datagrams may stop SIP."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import evolve
from tests.support.console import ScriptedConsole
from tests.support.daemon import until
from tests.support.guarded import guarded
from tests.support.lab import Lab
from tests.support.open_pbx import configured
from tests.support.sip_raw import OWN_CHALLENGE, Digest, Raw, calling

from ringfence.audit.hardening import host_name_findings, look_up_findings

pytestmark = pytest.mark.asterisk

_RESOLVER = "nameserver 198.18.1.200\noptions timeout:1 attempts:1\n"
_NAME = os.uname().nodename
_DATAGRAMS = 20
_NAMES = 300
_BROADCAST = Raw(via=b";maddr=255.255.255.255")
_PHONE = evolve(_BROADCAST, via=b";rport")
_SECOND_FRAGMENT = b"X-Padding: " + b"x" * 1_600 + b"\r\n"
"""A header after which the next one comes in the second fragment."""
_PJSIP_ONLY = "\n[global]\ntype = global\ntaskprocessor_overload_trigger = pjsip_only\n"


@contextmanager
def _with_silent_names(folder: Path, pjsip: str = "") -> Iterator[tuple[Lab, Path]]:
    """Yield a laboratory whose name server is silent, and its folder /etc, which has Asterisk's own name."""
    texts, etc = configured("22"), folder / "etc"
    texts["pjsip.conf"] += pjsip
    with Lab.made("22", texts) as lab:
        tree = lab.asterisk.tree / "etc"
        shutil.copytree(tree, etc, symlinks=True)
        for file, text in (("resolv.conf", _RESOLVER), ("hosts", f"127.0.1.1 {_NAME}\n")):
            (etc / file).unlink(missing_ok=True)
            (etc / file).write_text(text, "utf-8")
        mount = ["nsenter", f"--target={lab.asterisk.pid}", "--mount", "mount", "--bind", str(etc), str(tree)]
        subprocess.run(mount, check=True, timeout=10)
        silent = "iptables -I INPUT -p udp --dport 53 -j DROP"
        subprocess.run(lab.network.in_attacker(*silent.split()), check=True, timeout=10)
        yield lab, etc


def _seconds_until_answered(lab: Lab) -> float:
    """Send datagrams whose answers go to the broadcast address; return how long another sender waits."""
    with calling(lab, "198.19.7.8") as attacker, calling(lab, "198.19.7.7") as phone:
        for _ in range(_DATAGRAMS):
            attacker.send(_BROADCAST)
        began = time.monotonic()
        assert phone.ask(_PHONE, 60.0) is not None
        return time.monotonic() - began


def test_check_names_the_host_name_that_stops_asterisk(tmp_path: Path) -> None:
    """With the name in /etc/hosts all goes on. Without it Asterisk waits for DNS, and `check` says so."""
    with _with_silent_names(tmp_path) as (lab, etc):
        known = _seconds_until_answered(lab)
        assert [*host_name_findings(_NAME, etc / "hosts", etc / "nsswitch.conf")] == []

        (etc / "hosts").write_text("127.0.0.1 localhost\n", "utf-8")
        assert _seconds_until_answered(lab) > known + 0.9
        assert len([*host_name_findings(_NAME, etc / "hosts", etc / "nsswitch.conf")]) == 1


@pytest.mark.parametrize("pjsip", ["", _PJSIP_ONLY])
def test_check_names_the_setting_by_which_other_names_stop_asterisk(tmp_path: Path, pjsip: str) -> None:
    """Datagrams that name hosts stop all SIP, unless only PJSIP's own queues show that it is overloaded."""
    with (
        _with_silent_names(tmp_path, pjsip) as (lab, _),
        calling(lab, "198.19.7.8") as attacker,
        calling(lab, "198.19.7.7") as phone,
    ):
        assert len([*look_up_findings(ScriptedConsole(lab.asterisk.cli))]) == (not pjsip)
        for number in range(_NAMES):
            attacker.send(Raw(via=b";maddr=h%d.example.net" % number))
        until(lambda: _waiting_look_ups(lab) > 500, "look-ups that wait")
        answer = phone.ask(_PHONE, 10.0 if pjsip else 2.0)
        assert (answer is not None) is bool(pjsip)


def _waiting_look_ups(lab: Lab) -> int:
    lines = lab.asterisk.cli("core show taskprocessors like dns_system_resolver_tp").split("\n")
    return next(int(line.split()[2]) for line in lines if line.startswith("dns_system_resolver_tp"))


@pytest.mark.parametrize("backend", ["ipset", "nftables"])
@pytest.mark.parametrize("credentials", [True, False])
def test_datagrams_that_nobody_can_get_an_answer_to_ban_their_sender(
    tmp_path: Path, backend: str, *, credentials: bool
) -> None:
    """With or without hidden credentials in the second fragment: a narrow ban, and others are answered."""
    source = "198.19.7.8"
    hidden = evolve(
        _BROADCAST, call_id=b"\xffm{}", from_display=b'"x\x1b[" ', digest=Digest(before=_SECOND_FRAGMENT)
    )
    with (
        _with_silent_names(tmp_path) as (lab, _),
        guarded(lab, tmp_path, firewall={"backend": backend}) as guard,
        calling(lab, source) as attacker,
        calling(lab, "198.19.9.7") as phone,
    ):
        for number in range(_NAMES):
            wrong = hidden.answering(OWN_CHALLENGE, f"wrong-{number}")
            attacker.send(wrong if credentials else hidden)
            if number % 50 == 0:
                assert phone.ask(_PHONE, 10.0) is not None
        until(lambda: source in guard.banned(), "the ban")
        assert {row["scope"] for row in guard.bans() if row["address"] == source} == {"sip-udp"}
        assert phone.ask(_PHONE, 10.0) is not None
