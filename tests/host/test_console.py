"""Asterisk's processes and console, with fakes of other users, on a real Asterisk and on real sockets."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.support.asterisk import Asterisk, is_tree, tree_of
from tests.support.daemon import until
from tests.support.network import Network

from ringfence.errors import SetupError
from ringfence.features.setup.find import find_asterisk, inspect
from ringfence.host.console import MAX_BYTES, Server, SocketConsole, control_sockets, local_console, servers
from ringfence.host.processes import processes, sockets_of

pytestmark = [pytest.mark.kernel, pytest.mark.asterisk]

NOBODY = 65534

# A program of the name asterisk, that listens at a socket, and answers or does as its argument demands.
_FAKE = """\
import os, socket, sys, time
path, act, user = sys.argv[1:]
os.setgroups([])
os.setgid(int(user))
os.setuid(int(user))
end = socket.socket(socket.AF_UNIX)
end.bind(path)
end.listen()
print("ready", flush=True)
while True:
    peer = end.accept()[0]
    if act == "flood":
        try:
            peer.sendall(b"host/1/v\\n" + b"x" * (32 << 20))
        except OSError:
            pass
    elif act == "slow":
        time.sleep(30)
    else:
        peer.recv(999)
        peer.sendall(b"host/1/22\\n" + bytes([128]) + b" a log line\\n" + act.encode() + b"\\n")
    peer.close()
"""


@pytest.fixture(name="folder")
def _folder() -> Iterator[Path]:
    """Return a folder of nobody, which every user can reach."""
    folder = Path(tempfile.mkdtemp(prefix="rf-fake-"))
    folder.chmod(0o755)
    os.chown(folder, NOBODY, NOBODY)
    yield folder
    shutil.rmtree(folder)


@contextmanager
def fake(program: Path, *arguments: str, name: str = "asterisk") -> Iterator[subprocess.Popen[bytes]]:
    """Run a program as nobody, as a process with this name."""
    process = subprocess.Popen(
        [name, *arguments],
        executable=program,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        stdout=subprocess.DEVNULL,
    )
    try:
        until(lambda: process.pid in set(processes("asterisk")), "the fake")
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@contextmanager
def listener(folder: Path, act: str) -> Iterator[tuple[SocketConsole, int]]:
    """Run a fake control socket of nobody; yield its console, and the process id."""
    path = folder / "asterisk.ctl"
    command = [sys.executable, "-c", _FAKE, str(path), act, str(NOBODY)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        server = Server(process.pid, NOBODY, NOBODY, (), (), "", same_root=True, same_network=True)
        try:
            yield SocketConsole(server, timeout=1), process.pid
        finally:
            process.kill()


def _user_of(pid: int) -> int | None:
    """Return the user of a process; None if it has ended, as those of other tests may."""
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except FileNotFoundError:
        return None


def test_no_program_of_another_user_is_an_asterisk(folder: Path) -> None:
    """A copy, a script, and a link to a program of root are left out, and none of them is executed."""
    ran = folder / "ran"
    script, copy, named = folder / "script/asterisk", folder / "copy/asterisk", folder / "link/asterisk"
    for path in (script, copy, named):
        path.parent.mkdir()
    script.write_text(f"#!/bin/sh\nid -u > {ran}\nsleep 60\n", "utf-8")
    shutil.copy("/bin/sleep", copy)
    named.symlink_to("/bin/sleep")
    script.chmod(0o755)
    with fake(script), fake(copy, "60"), fake(named, "60"):
        until(lambda: ran.exists() and ran.read_text("ascii"), "the script")
        ours = set(processes("asterisk"))
        found = {server.pid for server in servers()}
        assert not {pid for pid in ours if _user_of(pid) == NOBODY} & found
    assert ran.read_text("ascii") == f"{NOBODY}\n"


def test_a_program_below_a_folder_that_others_can_change_is_left_out(folder: Path) -> None:
    """The program itself belongs to root, but its folder does not: it can be replaced at any time."""
    program = folder / "asterisk"
    shutil.copy("/bin/sleep", program)
    assert program.stat().st_uid == 0
    with fake(program, "60") as process:
        assert process.pid not in {server.pid for server in servers()}


def test_the_root_of_a_user_namespace_of_nobody_is_nobody(folder: Path) -> None:
    """Every user can be root in a namespace of its own, and own the program there."""
    program = folder / "asterisk"
    shutil.copy("/bin/sleep", program)
    os.chown(program, NOBODY, NOBODY)
    command = ["unshare", "--user", "--map-root-user", "--root", "/", str(program), "60"]
    with subprocess.Popen(command, user=NOBODY, group=NOBODY, extra_groups=[]) as process:
        try:
            until(lambda: process.pid in set(processes("asterisk")) or process.poll() is not None, "the fake")
            if process.poll() is not None:
                pytest.skip("this kernel lets no user make a namespace")
            assert process.pid not in {server.pid for server in servers()}
        finally:
            process.kill()


def test_the_real_asterisk_is_asked_although_fakes_run(folder: Path) -> None:
    """Two fakes do not make setup refuse, and the answers are those of the console.

    This Asterisk has a network of its own, as in a container: it is known by the folder of its files.
    """
    program = folder / "asterisk"
    shutil.copy("/bin/sleep", program)
    if not is_tree(tree_of("22")):
        pytest.skip("no Asterisk in the laboratory; fix: make lab")
    with ExitStack() as stack:
        network = stack.enter_context(Network())
        pbx = stack.enter_context(Asterisk(tree_of("22"), network.pbx))
        for _ in range(2):
            stack.enter_context(fake(program, "60"))
        [server] = [one for one in servers() if one.pid == pbx.pid]
        assert (server.program, server.same_root, server.uid != 0) == ("/usr/sbin/asterisk", False, True)
        console = SocketConsole(server)
        for command in ("core show settings", "pjsip show endpoints", "module show like chan_"):
            assert _steady(console.show(command)) == _steady(pbx.cli(command))
        assert console.show("no such thing") is None
        assert console.problem == ""
        contained = local_console(pbx.folder / "etc")
        assert _steady(contained.show("core show settings")) == _steady(pbx.cli("core show settings"))
        assert inspect(server).files.folder == pbx.folder / "etc"


def _steady(text: str | None) -> list[str]:
    """Return the lines of an answer that do not change with time."""
    return [line.rstrip() for line in (text or "").split("\n") if line.strip() and "time" not in line.lower()]


def test_the_answer_is_what_follows_the_greeting(folder: Path) -> None:
    """Lines of the log between, which Asterisk marks, are left out."""
    with listener(folder, "an answer") as (console, pid):
        assert control_sockets(pid) == [folder / "asterisk.ctl"]
        assert console.show("core show version") == "an answer\n"
    with listener(_other(folder), "No such command 'x'") as (console, _):
        assert (console.show("x"), console.problem) == (None, "")


def test_an_endless_or_silent_answer_ends(folder: Path) -> None:
    """The answer of a hostile Asterisk is bounded in bytes and in time."""
    with listener(folder, "flood") as (console, _):
        assert console.show("core show settings") is None
        assert console.problem == f"an answer of more than {MAX_BYTES} bytes"
    with listener(_other(folder), "slow") as (console, _):
        begun = time.monotonic()
        assert console.show("core show settings") is None
        assert (console.problem, time.monotonic() - begun < 50) == ("no answer within 1 s", True)


def test_a_socket_of_root_is_not_reached_through_a_link(folder: Path) -> None:
    """Asterisk's user replaces its socket by a link to a closed socket of root, or of another process."""
    closed = folder / "root.sock"
    with socket.socket(socket.AF_UNIX) as own, listener(folder, "an answer") as (console, _):
        own.bind(str(closed))
        own.listen()
        closed.chmod(0o600)
        (folder / "asterisk.ctl").unlink()
        (folder / "asterisk.ctl").symlink_to(closed)
        assert (console.show("x"), console.problem) == (None, "Permission denied")
    with socket.socket(socket.AF_UNIX) as own, listener(_other(folder), "an answer") as (console, _):
        path = folder / "other/asterisk.ctl"
        path.unlink()
        own.bind(str(path))
        own.listen()
        path.chmod(0o666)
        assert (console.show("x"), console.problem) == (None, "its control socket belongs to another process")


def _other(folder: Path) -> Path:
    other = folder / "other"
    other.mkdir()
    os.chown(other, NOBODY, NOBODY)
    return other


def test_a_row_of_a_socket_with_a_newline_in_its_name_is_skipped(folder: Path) -> None:
    """The name of an abstract socket may contain what looks like another row of the kernel's table."""
    forged = "\0x\n0: 00000002 00000000 00010000 0001 01 notanumber /x.ctl"
    with socket.socket(socket.AF_UNIX) as own, listener(folder, "an answer") as (_, pid):
        own.bind(forged)
        assert control_sockets(pid) == [folder / "asterisk.ctl"]


def test_rows_with_the_inode_of_the_true_socket_do_not_hide_it(folder: Path, tmp_path: Path) -> None:
    """Any user can name other sockets so. The kernel's answer about the other end decides, path by path."""
    false = folder / "false.ctl"
    with socket.socket(socket.AF_UNIX) as other, listener(folder, "an answer") as (console, pid):
        other.bind(str(false))
        other.listen()
        false.chmod(0o666)
        [inode] = sockets_of(pid)
        proc = tmp_path / str(pid)
        (proc / "net").mkdir(parents=True)
        for name in ("fd", "root"):
            (proc / name).symlink_to(f"/proc/{pid}/{name}")
        row, true = f"0: 00000002 00000000 00010000 0001 01 {inode}", folder / "asterisk.ctl"
        rows = "head", *(f"{row} {path}" for path in (folder / "absent.ctl", false, true, false))
        (proc / "net/unix").write_text("\n".join(rows), "utf-8")

        assert control_sockets(pid, tmp_path) == [folder / "absent.ctl", false, true]
        behind = SocketConsole(console.server, tmp_path)
        assert (behind.show("x"), behind.problem) == ("an answer\n", "")


def test_nothing_is_found_where_only_fakes_run(folder: Path, tmp_path: Path) -> None:
    """Then setup ends as without an Asterisk, and the console has this as its problem."""
    program = folder / "asterisk"
    shutil.copy("/bin/sleep", program)
    with fake(program, "60") as process:
        proc = tmp_path / "proc"
        proc.mkdir()
        (proc / "self").symlink_to("/proc/self")
        (proc / str(process.pid)).symlink_to(f"/proc/{process.pid}")
        with pytest.raises(SetupError, match="no running Asterisk is visible here"):
            find_asterisk(proc)
        console = local_console(folder, proc)
        assert console.show("core show version") is None
        assert console.problem == "no running Asterisk is visible here (fix: start it, or run this as root)"
