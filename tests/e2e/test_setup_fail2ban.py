"""``ringfence setup`` on a machine with fail2ban: it takes over the bans, and undo gives them back."""

import shutil
from pathlib import Path

import pytest
from tests.support import fail2ban
from tests.support.daemon import until
from tests.support.network import Network
from tests.support.pbx_machine import PbxMachine, differing, digest_of, pbx_machine

pytestmark = [
    pytest.mark.asterisk,
    pytest.mark.kernel,
    pytest.mark.skipif(fail2ban.why_no_fail2ban() != "", reason=fail2ban.why_no_fail2ban()),
]

BANNED = "203.0.113.9"
_JAILS = """\
[DEFAULT]
backend = polling
banaction = nftables-multiport
[sshd]
enabled = true
logpath = /var/log/auth.log
[asterisk]
enabled = true
logpath = /var/log/asterisk/messages.log
bantime = 1h
"""


def install_fail2ban(machine: PbxMachine) -> None:
    """Copy the files of fail2ban's package, and start it."""
    for name in ("usr/bin", "usr/lib/python3/dist-packages", "etc/fail2ban"):
        shutil.copytree(fail2ban.tree() / name, machine.root / name, dirs_exist_ok=True, symlinks=True)
    (machine.root / "etc/fail2ban/jail.local").write_text(_JAILS, "utf-8")
    for path in (machine.root / "etc/fail2ban/jail.d").iterdir():
        path.unlink()
    (machine.root / "var/log/auth.log").touch()
    (machine.root / "var/lib/fail2ban").mkdir(exist_ok=True)
    machine.must("mkdir", "-p", "/run/fail2ban")
    machine.must("systemd-run", "--unit=fail2ban", "/usr/bin/fail2ban-server", "-f", "start")
    until(lambda: machine.run("fail2ban-client", "ping").returncode == 0, "fail2ban", pause=0.2)


def jails(machine: PbxMachine) -> set[str]:
    """Return the jails that run."""
    shown = machine.must("fail2ban-client", "status").rpartition("Jail list:")[2]
    return {name.strip() for name in shown.split(",")}


def test_bans_and_guard_pass_from_fail2ban_and_back(package: Path, tmp_path: Path) -> None:
    """After the proof the jail for Asterisk is disabled and its ban is ringfence's; sshd's jail stays."""
    with Network() as network, pbx_machine(tmp_path, network) as machine:
        machine.install(package)
        install_fail2ban(machine)
        machine.must("fail2ban-client", "set", "asterisk", "banip", BANNED)
        before = digest_of(machine.root, "etc", "var/log/ringfence", "var/lib/ringfence")

        done = machine.must("ringfence", "setup", "--yes")
        assert (
            "ok  fail2ban: jail asterisk is disabled, its bans are taken over; the other jails stay" in done
        )
        assert "1 of 1 active ban taken over" in done
        assert (jails(machine), machine.banned()) == ({"sshd"}, {BANNED})

        machine.must("ringfence", "setup", "--undo", "--yes")
        assert jails(machine) == {"sshd", "asterisk"}
        shown = ("fail2ban-client", "status", "asterisk")
        until(lambda: BANNED in machine.must(*shown), "fail2ban's own ban", pause=0.2)
        assert (
            differing(before, digest_of(machine.root, "etc", "var/log/ringfence", "var/lib/ringfence")) == []
        )
