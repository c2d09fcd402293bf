"""``ringfence setup`` on a machine where something is wrong: a clear line, and everything as before."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.daemon import until
from tests.support.network import Network
from tests.support.pbx_machine import Digest, PbxMachine, differing, digest_of, pbx_machine
from tests.support.setup_commands import WATCHED, kill_setup, setup, undo, writes_of_setup

pytestmark = [pytest.mark.asterisk, pytest.mark.kernel]

ETC = "etc/asterisk"


@pytest.fixture(name="machine", scope="module")
def _machine(tmp_path_factory: pytest.TempPathFactory, package: Path) -> Iterator[PbxMachine]:
    """Yield one machine for all tests: each of them leaves it as it was."""
    with Network() as network, pbx_machine(tmp_path_factory.mktemp("pbx"), network) as machine:
        machine.install(package)
        yield machine


def refused(machine: PbxMachine, before: Digest) -> str:
    """Run setup, which must fail and leave no difference; return its message."""
    done = machine.run("ringfence", "setup", "--yes")
    assert done.returncode == 1, done.stdout
    assert differing(before, digest_of(machine.root, *WATCHED)) == []
    assert machine.must("nft", "list", "tables") == ""
    assert machine.run("systemctl", "is-active", "ringfence").stdout == "inactive\n"
    return done.stderr


def test_a_manager_conf_that_asterisk_refuses(machine: PbxMachine) -> None:
    """File and line of the mistake are named before anything is changed."""
    file = machine.root / ETC / "manager.conf"
    good = file.read_bytes()
    file.write_bytes(good + b"[broken\n")
    before = digest_of(machine.root, *WATCHED)

    line = good.count(b"\n") + 1
    assert f"/etc/asterisk/manager.conf:{line}: a section has no closing ]" in refused(machine, before)
    file.write_bytes(good)


def test_a_manager_conf_that_asterisk_may_not_read(machine: PbxMachine) -> None:
    """Asterisk would lose AMI at the next reload, so none comes; with the fix of the message, setup works."""
    file = "/etc/asterisk/manager.conf"
    untouched = digest_of(machine.root, *WATCHED)
    machine.must("chown", "root:root", file)
    try:
        before = digest_of(machine.root, *WATCHED)
        message = refused(machine, before)
        assert f"cannot read {file}: Permission denied for user asterisk, whose folder" in message
        assert "Manager (AMI):             Yes" in machine.cli("manager show settings")

        machine.must("sh", "-c", message.rpartition(": ")[2])
        assert "ok  wire: reported the failed login" in setup(machine)
        undo(machine)
    finally:
        machine.must("chown", "asterisk:asterisk", file)
    assert differing(untouched, digest_of(machine.root, *WATCHED)) == []


def test_a_manager_conf_of_root_that_asterisk_may_read(machine: PbxMachine) -> None:
    """Root's files with Asterisk's group are usual; setup keeps their owners, and the undo restores them."""
    file = "/etc/asterisk/manager.conf"
    machine.must("chown", "root:asterisk", file)
    machine.must("chmod", "640", file)
    try:
        before = digest_of(machine.root, *WATCHED)
        assert "ok  wire: reported the failed login" in setup(machine)
        assert machine.must("stat", "-c", "%U:%G %a", file) == "root:asterisk 640\n"
        undo(machine)
        assert differing(before, digest_of(machine.root, *WATCHED)) == []
    finally:
        machine.must("chown", "asterisk:asterisk", file)


def test_ami_that_refuses_the_login(machine: PbxMachine) -> None:
    """If the daemon cannot log in, everything is taken back, and its reason is in the message."""
    secret = machine.must("cat", "/etc/ringfence/asterisk.secret")
    user = machine.root / ETC / "manager.d/mine.conf"
    denied = "deny = 0.0.0.0/0.0.0.0\ndeny = ::/0\n"
    user.write_text(f"[ringfence]\nsecret = {secret}\n{denied}read = security\n", "utf-8")
    machine.must("chown", "asterisk:asterisk", "/etc/asterisk/manager.d/mine.conf")
    before = digest_of(machine.root, *WATCHED)

    assert "AMI does not work: login refused" in refused(machine, before)
    user.unlink()
    machine.cli("manager reload")


def test_a_disk_that_is_full(machine: PbxMachine) -> None:
    """A file that cannot be written is named; the files that were written before are restored."""
    folder = "/etc/asterisk/manager.d"
    before = digest_of(machine.root, *WATCHED)
    machine.must("mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=3", "tmpfs", folder)
    machine.must("touch", f"{folder}/README.conf", f"{folder}/other")
    try:
        message = refused(machine, before)
    finally:
        machine.must("umount", folder)

    assert f"cannot write {folder}/ringfence.conf: No space left on device" in message


def test_two_asterisks(machine: PbxMachine) -> None:
    """Setup does not guess which one is meant."""
    before = digest_of(machine.root, *WATCHED)
    machine.must("cp", "/bin/sleep", "/root/asterisk")
    machine.must("systemd-run", "--unit=second", "--property=Type=exec", "/root/asterisk", "60")
    message = refused(machine, before)
    machine.must("systemctl", "stop", "second")

    assert message.startswith("several Asterisks run here: process ")


def test_no_asterisk(machine: PbxMachine) -> None:
    """The message names the command that starts it."""
    machine.must("systemctl", "stop", "asterisk")
    before = digest_of(machine.root, *WATCHED)

    assert refused(machine, before).startswith("no running Asterisk is visible here; fix: start it")
    machine.start_asterisk()


@pytest.mark.parametrize("signal", ["HUP", pytest.param("INT", marks=pytest.mark.long)])
def test_a_lost_connection_restores_everything(machine: PbxMachine, signal: str) -> None:
    """Ctrl-C, or the end of the SSH connection, at several moments: no file differs, and nothing runs."""
    before = digest_of(machine.root, *WATCHED)
    interrupted = 0
    for seconds in (0.7, 1.2, 1.7, 2.2, 3.0, 5.0, 8.0, 13.0):
        if seconds > 3.0 and interrupted:  # only a slow machine needs the later moments
            break
        done = machine.run("timeout", f"--signal={signal}", str(seconds), "ringfence", "setup", "--yes")
        if "interrupted: everything is as before" in done.stderr:
            interrupted += 1
        elif "ok  wire" in done.stdout or done.returncode in {0, 1}:  # it ended before the signal
            undo(machine)
        assert (seconds, differing(before, digest_of(machine.root, *WATCHED))) == (seconds, [])
        assert machine.run("systemctl", "is-active", "ringfence").stdout == "inactive\n"
    assert interrupted > 0


def test_an_asterisk_that_answers_no_sip(machine: PbxMachine) -> None:
    """A failed login at AMI proves AMI and the log, as for a PBX that serves TLS only."""
    before = digest_of(machine.root, *WATCHED)
    file = machine.root / ETC / "pjsip.conf"
    good = file.read_bytes()
    file.write_bytes(b"")
    machine.must("systemctl", "stop", "asterisk")
    machine.start_asterisk()

    done = setup(machine)
    assert "\nok  proof: a failed login at 127.0.0.1:5038 (AMI), from this host itself" in done
    assert "\nok  asterisk/log:/var/log/ringfence/ringfence: reported the failed login\n" in done
    assert "\n--  wire: listens; no SIP challenge of the failed login leaves this host" in done

    undo(machine)
    file.write_bytes(good)
    machine.must("systemctl", "stop", "asterisk")
    machine.start_asterisk()
    assert differing(before, digest_of(machine.root, *WATCHED)) == []


def test_without_systemd_the_command_that_starts_it_is_printed(machine: PbxMachine) -> None:
    """After the daemon was started by hand, a second run proves it, and the undo asks to stop it."""
    before = digest_of(machine.root, *WATCHED)
    machine.must("mount", "-t", "tmpfs", "tmpfs", "/run/systemd")  # hides that systemd runs
    try:
        done = setup(machine)
        assert "systemd does not run here; start it: ringfence run; then prove it: ringfence setup" in done
        pid = machine.must("sh", "-c", "ringfence run >/root/daemon.log 2>&1 & echo $!").strip()
        until(lambda: machine.run("ringfence", "status").returncode == 0, "the daemon", pause=0.2)
        assert "ok  wire: reported the failed login" in setup(machine)

        undone = machine.run("ringfence", "setup", "--undo", "--yes")
        assert undone.returncode == 1
        assert "a ringfence still runs; fix: stop it" in undone.stderr
        machine.must("sh", "-c", f"kill {pid}; while kill -0 {pid} 2>/dev/null; do sleep 0.1; done")
    finally:
        machine.must("umount", "/run/systemd")
    machine.must("ringfence", "off")
    machine.must("sh", "-c", "rm -f /var/lib/ringfence/ringfence.db*")
    assert differing(before, digest_of(machine.root, *WATCHED)) == []


@pytest.mark.parametrize("several", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_kill_while_the_service_starts_leaves_nothing_half_configured(
    machine: PbxMachine, *, several: bool
) -> None:
    """Killed at the last steps (reload, start, proof): undo restores all, and a second run completes.

    Except in the long run, the undo comes after the kill at one of these steps, the second run after another.
    """
    before = digest_of(machine.root, *WATCHED)
    writes = writes_of_setup(machine)
    undo(machine)
    assert differing(before, digest_of(machine.root, *WATCHED)) == []

    steps = range(writes - 8, writes + 1, 4)
    for number in steps if several else steps[-1:]:
        assert kill_setup(machine, number)
        undo(machine)
        assert (number, differing(before, digest_of(machine.root, *WATCHED))) == (number, [])

    for number in steps if several else steps[1:2]:
        assert kill_setup(machine, number)
        assert "ok  wire: reported the failed login" in setup(machine)
        undo(machine)
        assert (number, differing(before, digest_of(machine.root, *WATCHED))) == (number, [])
