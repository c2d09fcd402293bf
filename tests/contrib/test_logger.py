"""The log channel, made on a real Asterisk with the commands of docs/install.md: its readers and limits."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.asterisk import Asterisk, tree_of
from tests.support.asterisk_files import PASSWORD
from tests.support.daemon import until
from tests.support.lab import RELEASES, Lab
from tests.support.network import Network
from tests.support.overlay import overlaid

ROOT = Path(__file__).parents[2]
CONTRIB = ROOT / "contrib/asterisk"
FRAGMENT = (CONTRIB / "ringfence.logger.conf").read_text("utf-8")
LOGROTATE = (CONTRIB / "ringfence.logrotate").read_text("utf-8")
PAGE = (ROOT / "docs/install.md").read_text("utf-8")
LOG = "var/log/ringfence/ringfence"
CHECKOUT = "usr/local/src/ringfence"
UNIT_ID = 61_900
"""An id in place of the unit's user and group."""

TYPED = next(block for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) if "logger.conf" in block)
"""The commands that make the channel."""
ROTATED = re.findall(r"^(install .* /etc/logrotate\.d/ringfence)$", PAGE, re.MULTILINE)[0]
"""The command that installs the rotation."""
FREEPBX = re.findall(r"^(cat contrib/asterisk/ringfence\.logger\.conf .*)$", PAGE, re.MULTILINE)[0]
"""The commands on FreePBX, which replace the lines about logger.conf."""


@pytest.fixture(params=sorted(RELEASES))
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    """Yield each Asterisk with Debian's rights on its passwords, ringfence's group, and the checkout."""
    release = request.param
    with (
        overlaid(tree_of(release), tmp_path) as tree,
        Network() as network,
        Asterisk(tree, network.pbx, RELEASES[release]) as asterisk,
    ):
        shutil.copytree(CONTRIB, tree / CHECKOUT / "contrib/asterisk")
        (tree / "etc/logrotate.d").mkdir(exist_ok=True)
        with (tree / "etc/group").open("a") as groups:
            groups.write(f"ringfence:x:{UNIT_ID}:\n")
        # The processes of other laboratories are visible here.
        (tree / "usr/local/bin/pidof").write_text(f"#!/bin/sh\necho {asterisk.pid}\n")
        (tree / "usr/local/bin/pidof").chmod(0o755)
        owner = asterisk.logs.stat()
        for secret in (asterisk.folder / "etc").iterdir():
            os.chown(secret, owner.st_uid, owner.st_gid)
            secret.chmod(0o640)
        yield Lab(network, asterisk)


def type_in(lab: Lab, lines: str) -> str:
    """Run lines in a shell of Asterisk's host, in the checkout; each must succeed."""
    done = subprocess.run(
        [
            *("nsenter", f"--target={lab.asterisk.pid}", "--mount", "--net", "--root", "--wd"),
            *("env", "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            *("bash", "-ec", f"cd /{CHECKOUT}\n{lines}"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def inside(lab: Lab, path: str) -> Path:
    """Return the path of a file of Asterisk as seen from the test."""
    return Path(f"/proc/{lab.asterisk.pid}/root") / path


def as_unit(lab: Lab, *command: str) -> "subprocess.CompletedProcess[bytes]":
    """Run a command on Asterisk's host as the unit's user, without any other group."""
    enter = ["nsenter", f"--target={lab.asterisk.pid}", "--mount", "--root", "--wd"]
    become = ["setpriv", f"--reuid={UNIT_ID}", f"--regid={UNIT_ID}", "--clear-groups"]
    return subprocess.run([*enter, *become, *command], capture_output=True, check=False, timeout=60)


def guesses_are_read(lab: Lab) -> bool:
    """Whether the unit's user can read security events in the log."""
    return b'SecurityEvent="' in as_unit(lab, "cat", f"/{LOG}").stdout


@pytest.mark.asterisk
def test_the_unit_reads_this_log_and_no_password(lab: Lab) -> None:
    """The commands of docs/install.md make a log that the service user can read, unlike pjsip.conf."""
    settings = inside(lab, "etc/asterisk/logger.conf")
    settings.write_text(re.sub("dateformat.*", "", settings.read_text("utf-8")), "utf-8")
    type_in(lab, TYPED)
    for command in (None, "logger rotate", "logger reload"):
        if command:
            lab.asterisk.cli(command)
        lab.attack("guess", "--number", "3")
        until(lambda: guesses_are_read(lab), "a security event in the log")

    dated = re.match(rb"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\] ", as_unit(lab, "cat", f"/{LOG}").stdout)
    assert dated
    about = inside(lab, LOG).stat()
    assert (about.st_uid, about.st_gid) == (lab.asterisk.logs.stat().st_uid, UNIT_ID)
    assert PASSWORD in inside(lab, "etc/asterisk/pjsip.conf").read_text("utf-8")
    denied = as_unit(lab, "cat", "/etc/asterisk/pjsip.conf")
    assert (denied.returncode, denied.stdout) == (1, b"")
    files = list(inside(lab, LOG).parent.iterdir())
    assert len(files) > 1
    for file in files:
        assert as_unit(lab, "cat", f"/var/log/ringfence/{file.name}").returncode == 0


@pytest.mark.asterisk
def test_the_commands_may_be_run_again(lab: Lab) -> None:
    """Run twice, they include the channel once; the other channels stay, also after its removal."""
    type_in(lab, TYPED + TYPED + ROTATED)
    shown = lab.asterisk.cli("logger show channels")
    assert shown.count(f"/{LOG}") == 1
    assert "messages" in shown
    assert inside(lab, "etc/asterisk/logger.conf").read_text("utf-8").count("ringfence.logger.conf") == 1
    assert inside(lab, "etc/logrotate.d/ringfence").exists()

    inside(lab, "etc/asterisk/ringfence.logger.conf").unlink()
    lab.asterisk.cli("logger reload")
    shown = lab.asterisk.cli("logger show channels")
    assert LOG not in shown
    assert "messages" in shown


@pytest.mark.asterisk
def test_freepbx_accepts_the_channel_in_a_separate_file(lab: Lab) -> None:
    """FreePBX owns logger.conf and includes an administrator's file, in which one line makes the channel."""
    etc = lab.asterisk.folder / "etc"
    (etc / "logger_logfiles_additional.conf").write_text("full => notice,warning,error,verbose\n")
    (etc / "logger_logfiles_custom.conf").write_text("")
    (etc / "logger.conf").write_text(
        "[general]\n#include logger_general_additional.conf\n[logfiles]\n"
        "#include logger_logfiles_additional.conf\n#include logger_logfiles_custom.conf\n"
    )
    (etc / "logger_general_additional.conf").write_text("dateformat = %F %T\n")
    folder, _, _, reload = TYPED.strip().split("\n")
    type_in(lab, f"{folder}\n{FREEPBX}\n{reload}")

    shown = lab.asterisk.cli("logger show channels")
    assert f"/{LOG}" in shown
    assert "full" in shown
    lab.attack("guess", "--number", "3")
    until(lambda: guesses_are_read(lab), "a security event in the log")
    line = as_unit(lab, "cat", f"/{LOG}").stdout
    assert re.match(rb"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] ", line)


def test_the_channel_has_the_needed_levels_and_no_packets() -> None:
    """There is one channel with the levels notice and security; levels that quote packets are missing."""
    channels = re.findall(r"^([^;\[\s]\S*) => (.*)$", FRAGMENT, re.MULTILINE)

    assert channels == [(f"/{LOG}", "notice,security")]


def test_logrotate_rotates_that_log() -> None:
    """The stanza names the channel's file; logrotate, if installed, accepts the stanza."""
    assert f"\n/{LOG} {{\n" in LOGROTATE
    if shutil.which("logrotate") is None:
        return
    done = subprocess.run(
        ["logrotate", "--debug", str(CONTRIB / "ringfence.logrotate")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "error" not in done.stderr.replace("unknown user", "")
