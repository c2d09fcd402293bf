"""The name of Asterisk's own host: while its name server is silent, some datagrams stop all SIP."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from attrs import evolve
from tests.support.lab import Lab
from tests.support.open_pbx import configured
from tests.support.sip_raw import Raw, calling

from ringfence.audit.hardening import host_name_findings

pytestmark = pytest.mark.asterisk

_RESOLVER = "nameserver 198.18.1.200\noptions timeout:1 attempts:1\n"
_DATAGRAMS = 20
_BROADCAST = Raw(via=b";maddr=255.255.255.255")


def _seconds_until_answered(lab: Lab) -> float:
    """Send datagrams whose answers go to the broadcast address; return how long another sender waits."""
    with calling(lab, "198.19.7.8") as attacker, calling(lab, "198.19.7.7") as phone:
        for _ in range(_DATAGRAMS):
            attacker.send(_BROADCAST)
        began = time.monotonic()
        assert phone.ask(evolve(_BROADCAST, via=b";rport"), 60.0) is not None
        return time.monotonic() - began


def test_check_names_the_host_name_that_stops_asterisk(tmp_path: Path) -> None:
    """With the name in /etc/hosts all goes on. Without it Asterisk waits for DNS, and `check` says so."""
    name, etc = os.uname().nodename, tmp_path / "etc"
    with Lab.made("22", configured("22")) as lab:
        tree = lab.asterisk.tree / "etc"
        shutil.copytree(tree, etc, symlinks=True)
        for file, text in (("resolv.conf", _RESOLVER), ("hosts", f"127.0.1.1 {name}\n")):
            (etc / file).unlink(missing_ok=True)
            (etc / file).write_text(text, "utf-8")
        mount = ["nsenter", f"--target={lab.asterisk.pid}", "--mount", "mount", "--bind", str(etc), str(tree)]
        subprocess.run(mount, check=True, timeout=10)
        silent = "iptables -I INPUT -p udp --dport 53 -j DROP"
        subprocess.run(lab.network.in_attacker(*silent.split()), check=True, timeout=10)

        known = _seconds_until_answered(lab)
        assert [*host_name_findings(name, etc / "hosts", etc / "nsswitch.conf")] == []

        (etc / "hosts").write_text("127.0.0.1 localhost\n", "utf-8")
        assert _seconds_until_answered(lab) > known + 0.9
        assert len([*host_name_findings(name, etc / "hosts", etc / "nsswitch.conf")]) == 1
