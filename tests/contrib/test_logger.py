"""The log channel, made on a real Asterisk by the README's own lines: who may read it, and what not."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.asterisk import Asterisk, tree_of
from tests.support.asterisk_files import PASSWORD
from tests.support.daemon import until
from tests.support.lab import RELEASES, Lab
from tests.support.network import Network

ROOT = Path(__file__).parents[2]
CONTRIB = ROOT / "contrib/asterisk"
FRAGMENT = (CONTRIB / "ringfence.logger.conf").read_text("utf-8")
LOGROTATE = (CONTRIB / "ringfence.logrotate").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")
LOG = "var/log/ringfence/ringfence"
CHECKOUT = "usr/local/src/ringfence"
UNIT_ID = 61_900
"""Stands for the unit's user and group."""

TYPED = next(block for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) if "logger.conf" in block)
"""What an administrator types to make the channel."""
FREEPBX = re.findall(r"^    (cat contrib/asterisk/ringfence\.logger\.conf .*)$", README, re.MULTILINE)[0]
"""What he types on FreePBX in place of the lines that name logger.conf."""


@contextmanager
def overlaid(tree: Path, folder: Path) -> Iterator[Path]:
    """Give a tree that may be written to, over one that may not; what was written is gone at the end."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], check=True)
    try:
        upper, work, merged = (folder / name for name in ("upper", "work", "merged"))
        for part in (upper, work, merged):
            part.mkdir()
        options = f"lowerdir={tree},upperdir={upper},workdir={work}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(merged)], check=True)
        try:
            yield merged
        finally:
            subprocess.run(["umount", "--lazy", str(merged)], check=True)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(params=sorted(RELEASES))
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    """Each Asterisk with Debian's rights on its passwords, ringfence's group, and the checkout beside it."""
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
        # Other laboratories may be at work, whose processes this one sees.
        (tree / "usr/local/bin/pidof").write_text(f"#!/bin/sh\necho {asterisk.pid}\n")
        (tree / "usr/local/bin/pidof").chmod(0o755)
        owner = asterisk.logs.stat()
        for secret in (asterisk.folder / "etc").iterdir():
            os.chown(secret, owner.st_uid, owner.st_gid)
            secret.chmod(0o640)
        yield Lab(network, asterisk)


def type_in(lab: Lab, lines: str) -> str:
    """Type lines into a shell beside Asterisk, in the checkout; each must succeed."""
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
    """Give a path of Asterisk's as it is seen from here."""
    return Path(f"/proc/{lab.asterisk.pid}/root") / path


def as_unit(lab: Lab, *command: str) -> "subprocess.CompletedProcess[bytes]":
    """Run a command beside Asterisk as the unit's user, with no other group."""
    enter = ["nsenter", f"--target={lab.asterisk.pid}", "--mount", "--root", "--wd"]
    become = ["setpriv", f"--reuid={UNIT_ID}", f"--regid={UNIT_ID}", "--clear-groups"]
    return subprocess.run([*enter, *become, *command], capture_output=True, check=False, timeout=60)


def guesses_are_read(lab: Lab) -> bool:
    """Say whether the unit's user reads security events in the log."""
    return b'SecurityEvent="' in as_unit(lab, "cat", f"/{LOG}").stdout


@pytest.mark.asterisk
def test_the_unit_reads_this_log_and_no_password(lab: Lab) -> None:
    """What the README types makes a log that its user reads, also after rotations; pjsip.conf he does not."""
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
def test_the_readmes_lines_may_be_typed_again(lab: Lab) -> None:
    """Typed twice they include the channel once, and the other channels stay, also when it is gone."""
    type_in(lab, TYPED + TYPED)
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
def test_freepbx_takes_the_channel_in_a_file_of_its_own(lab: Lab) -> None:
    """Where logger.conf is FreePBX's, which includes what administrators add, one line makes the channel."""
    etc = lab.asterisk.folder / "etc"
    (etc / "logger_logfiles_additional.conf").write_text("full => notice,warning,error,verbose\n")
    (etc / "logger_logfiles_custom.conf").write_text("")
    (etc / "logger.conf").write_text(
        "[general]\n#include logger_general_additional.conf\n[logfiles]\n"
        "#include logger_logfiles_additional.conf\n#include logger_logfiles_custom.conf\n"
    )
    (etc / "logger_general_additional.conf").write_text("dateformat = %F %T\n")
    folder, _, _, reload, _ = TYPED.strip().split("\n")
    type_in(lab, f"{folder}\n{FREEPBX}\n{reload}")

    shown = lab.asterisk.cli("logger show channels")
    assert f"/{LOG}" in shown
    assert "full" in shown
    lab.attack("guess", "--number", "3")
    until(lambda: guesses_are_read(lab), "a security event in the log")
    line = as_unit(lab, "cat", f"/{LOG}").stdout
    assert re.match(rb"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] ", line)


def test_the_channel_has_the_levels_that_tell_and_no_packets() -> None:
    """One channel, with notice and security; levels that quote packets are not among them."""
    channels = re.findall(r"^([^;\[\s]\S*) => (.*)$", FRAGMENT, re.MULTILINE)

    assert channels == [(f"/{LOG}", "notice,security")]


def test_logrotate_rotates_that_log() -> None:
    """The stanza names the channel's file; where logrotate is, it takes the stanza."""
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
