"""Findings of ``check`` about fail2ban's jails for Asterisk."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support.fail2ban import configure

from ringfence.features.fail2ban.check import findings

pytestmark = pytest.mark.usefixtures("fail2ban_client")

JAILS = """\
[asterisk]
enabled = {asterisk}
[sshd]
enabled = true
[asterisk-iptables]
enabled = {freepbx}
filter = asterisk
"""
NO = "NO  fail2ban: its jail asterisk bans for Asterisk too, and `ringfence bans` does not list its bans"
FIX = r"printf '[asterisk]\nenabled = false\n' > /etc/fail2ban/jail.d/zz-ringfence.local"
HERE, ELSEWHERE = "net:[1]", "net:[2]"


def found(
    folder: Path,
    *,
    asterisk: bool = False,
    freepbx: bool = False,
    runs: str = HERE,
    files: bool = True,
    enforcing: bool | None = None,
) -> list[str]:
    """Return the findings for a host with these jails.

    ``runs`` is fail2ban's network namespace, if any. ``enforcing``: whether ringfence drops what it bans;
    None if it does not run.
    """
    proc, etc, marker = folder / "proc", folder / "fail2ban", folder / "freepbx.conf"
    for process, name, network in (("self", "python3", HERE), ("7", "fail2ban-server", runs)):
        if network:
            (proc / process / "ns").mkdir(parents=True)
            (proc / process / "comm").write_text(f"{name}\n", "utf-8")
            (proc / process / "ns" / "net").symlink_to(network)
    if files:
        text = JAILS.format(asterisk=str(asterisk).lower(), freepbx=str(freepbx).lower())
        configure(etc, {"jail.local": text})
    if freepbx:
        marker.touch()
    report = None if enforcing is None else {"firewall": {"enforcing": enforcing}}
    checked: Any = SimpleNamespace(report=report)
    return [finding.line for finding in findings(checked, etc, marker, proc)]


def test_a_running_jail_is_a_problem(tmp_path: Path) -> None:
    """The finding names the jail, and the command that disables it."""
    assert found(tmp_path, asterisk=True) == [f"{NO}; fix: {FIX}; fail2ban-client reload"]


def test_a_jail_is_needed_while_ringfence_drops_nothing(tmp_path: Path) -> None:
    """After `ringfence off`, or in a dry run, only fail2ban bans."""
    [line] = found(tmp_path, asterisk=True, enforcing=False)
    assert (
        line == "--  fail2ban: its jail asterisk bans for Asterisk: keep that while ringfence drops nothing"
    )


def test_a_guard_that_works_needs_no_jail(tmp_path: Path) -> None:
    """Two guards are one too many."""
    assert found(tmp_path, asterisk=True, enforcing=True) == [f"{NO}; fix: {FIX}; fail2ban-client reload"]


def test_freepbx_writes_the_jails_itself(tmp_path: Path) -> None:
    """On FreePBX the fix is in its web page, because it writes fail2ban's files."""
    [line] = found(tmp_path, freepbx=True)

    assert line.startswith("NO  fail2ban: its jail asterisk-iptables bans for Asterisk too, ")
    assert "; fix: in FreePBX, stop Intrusion Detection (" in line


def test_a_jail_that_will_start_is_mentioned(tmp_path: Path) -> None:
    """An enabled jail of a fail2ban that does not run is no problem yet."""
    [line] = found(tmp_path, asterisk=True, runs="")

    assert line.startswith("--  fail2ban: it does not run, but when it starts, its jail asterisk bans ")


@pytest.mark.parametrize(("runs", "files"), [(HERE, True), ("", True), (ELSEWHERE, True)])
def test_other_jails_are_no_problem(tmp_path: Path, runs: str, *, files: bool) -> None:
    """A fail2ban whose enabled jails guard other programs is fine."""
    assert found(tmp_path, runs=runs, files=files) == ["ok  fail2ban: no jail of it bans for Asterisk"]


def test_a_host_without_fail2ban(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without fail2ban there is no finding, also if files of it are left."""
    assert found(tmp_path / "without files", runs="", files=False) == []
    monkeypatch.setenv("PATH", "/nowhere")
    assert found(tmp_path / "with files", runs="") == []


def test_jails_that_cannot_be_read(tmp_path: Path) -> None:
    """A running fail2ban whose files are missing is not understood, and the reason is given."""
    [line] = found(tmp_path, files=False)

    assert line.startswith("--  fail2ban: its jails are not known: ")
    assert "is no folder; fix: give fail2ban's folder" in line
