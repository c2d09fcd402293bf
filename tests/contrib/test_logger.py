"""The log channel: what a real Asterisk writes to it, and who may read that and what not."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.asterisk_files import PASSWORD
from tests.support.daemon import until
from tests.support.lab import RELEASES, Lab

CONTRIB = Path(__file__).parents[2] / "contrib/asterisk"
FRAGMENT = (CONTRIB / "ringfence.logger.conf").read_text("utf-8")
LOGROTATE = (CONTRIB / "ringfence.logrotate").read_text("utf-8")
FOLDER = "/var/log/ringfence"
INSIDE = "/var/log/asterisk/own"
"""Where the folder is in the laboratory, whose Asterisk has one place for logs."""
UNIT_ID = 61_900
"""Stands for the unit's user and group."""


@pytest.fixture(params=sorted(RELEASES))
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Each Asterisk with the fragment, the folder made as it says, and Debian's rights on the passwords."""
    with Lab.made(request.param, extra={"ringfence.logger.conf": FRAGMENT.replace(FOLDER, INSIDE)}) as lab:
        owner = lab.asterisk.logs.stat().st_uid
        made = re.search(rf"install -d -o asterisk -g ringfence -m (\d+) {FOLDER}\n", FRAGMENT)
        assert made is not None
        own = lab.asterisk.logs / "own"
        subprocess.run(
            ["install", "-d", "-o", str(owner), "-g", str(UNIT_ID), "-m", made[1], str(own)], check=True
        )
        for secret in (lab.asterisk.folder / "etc").iterdir():
            os.chown(secret, owner, lab.asterisk.logs.stat().st_gid)
            secret.chmod(0o640)
        line = re.search(r"#tryinclude .*", FRAGMENT)
        assert line is not None
        with (lab.asterisk.folder / "etc" / "logger.conf").open("a") as logger:
            logger.write(f"\n{line[0]}\n")
        lab.asterisk.cli("logger reload")
        yield lab


def as_unit(*command: str) -> "subprocess.CompletedProcess[bytes]":
    """Run a command as the unit's user, with no other group."""
    become = ["setpriv", f"--reuid={UNIT_ID}", f"--regid={UNIT_ID}", "--clear-groups"]
    return subprocess.run([*become, *command], capture_output=True, check=False)


@pytest.mark.asterisk
def test_the_unit_reads_this_log_and_no_password(lab: Lab) -> None:
    """The log is readable and holds the guesses, before and after rotations; pjsip.conf is not."""
    log = lab.asterisk.logs / "own" / "ringfence"
    for command in (None, "logger rotate", "logger reload"):
        if command:
            lab.asterisk.cli(command)
        lab.attack("guess", "--number", "3")
        until(lambda: b'SecurityEvent="' in as_unit("cat", str(log)).stdout, "a security event in the log")

    secret = lab.asterisk.folder / "etc" / "pjsip.conf"
    assert PASSWORD in secret.read_text("utf-8")
    denied = as_unit("cat", str(secret))
    assert (denied.returncode, denied.stdout) == (1, b"")
    assert list(log.parent.glob("ringfence.*")) != []
    for file in log.parent.iterdir():
        assert as_unit("cat", str(file)).returncode == 0


@pytest.mark.asterisk
def test_the_other_channels_stay(lab: Lab) -> None:
    """The fragment adds to logger.conf, and takes nothing away when it is gone."""
    shown = lab.asterisk.cli("logger show channels")
    assert f"{INSIDE}/ringfence" in shown
    assert "messages" in shown

    (lab.asterisk.folder / "etc" / "ringfence.logger.conf").unlink()
    lab.asterisk.cli("logger reload")
    shown = lab.asterisk.cli("logger show channels")
    assert INSIDE not in shown
    assert "messages" in shown


def test_the_channel_has_the_levels_that_tell_and_no_packets() -> None:
    """One channel, with notice and security; levels that quote packets are not among them."""
    channels = re.findall(r"^([^;\[\s]\S*) => (.*)$", FRAGMENT, re.MULTILINE)

    assert channels == [(f"{FOLDER}/ringfence", "notice,security")]


def test_logrotate_rotates_that_log() -> None:
    """The stanza names the channel's file; where logrotate is, it takes the stanza."""
    assert f"\n{FOLDER}/ringfence {{\n" in LOGROTATE
    if shutil.which("logrotate") is None:
        return
    done = subprocess.run(
        ["logrotate", "--debug", str(CONTRIB / "ringfence.logrotate")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "error" not in done.stderr.replace("unknown user", "")
