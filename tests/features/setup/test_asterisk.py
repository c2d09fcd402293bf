"""The running Asterisk: its process among others, its console, and its folders on this host."""

from pathlib import Path

import pytest
from attrs import evolve

from ringfence.errors import SetupError
from ringfence.features.setup import find
from ringfence.features.setup.find import drivers_from, find_asterisk, inspect, reload_command
from ringfence.host.console import Server, is_console, servers

SERVER = Server(
    7, 101, 101, (), ("/usr/sbin/asterisk", "-f"), "/usr/sbin/asterisk", same_root=True, same_network=True
)

MODULES = """\
Module                         Description                              Use Count  Status      Support Level
chan_iax2.so                   Inter Asterisk eXchange (Ver 2)          0          Not Running          core
chan_pjsip.so                  PJSIP Channel Driver                     1          Running              core
chan_sip.so                    Session Initiation Protocol (SIP)        0          Running          extended
chan_rtp.so                    RTP Media Channel                        0          Running              core
"""


def process(proc: Path, pid: int, command: str, parent: int = 1, network: str = "net:[1]") -> None:
    """Make a process of Asterisk in a folder like /proc."""
    folder = proc / str(pid)
    (folder / "ns").mkdir(parents=True)
    (folder / "comm").write_text("asterisk\n", "utf-8")
    (folder / "status").write_text(
        f"PPid:\t{parent}\nUid:\t0\t101\t0\t0\nGid:\t0\t102\t0\t0\nGroups:\t102 5 \n", "utf-8"
    )
    (folder / "cmdline").write_bytes(command.encode().replace(b" ", b"\0") + b"\0")
    (folder / "ns/net").symlink_to(network)
    (folder / "ns/user").symlink_to(proc / "self/ns/user")
    root = proc.parent / "root"
    (root / "usr/sbin").mkdir(parents=True, exist_ok=True)
    (root / "usr/sbin/asterisk (deleted)").touch()
    (folder / "exe").symlink_to(root / "usr/sbin/asterisk (deleted)")
    (folder / "root").symlink_to(root)


@pytest.fixture(name="proc")
def _proc(tmp_path: Path) -> Path:
    """Return a folder like /proc with this process alone."""
    proc = tmp_path / "proc"
    (proc / "self/ns").mkdir(parents=True)
    (proc / "self/ns/net").symlink_to("net:[1]")
    (proc / "self/ns/user").touch()
    return proc


def test_consoles_and_children_are_no_servers(proc: Path) -> None:
    """The server is found with its user, group and program, also after an upgrade of the program."""
    process(proc, 10, "/usr/sbin/asterisk -g -f -p -U asterisk")
    process(proc, 11, "asterisk -rvvv")
    process(proc, 12, "/usr/sbin/asterisk -g -f -p -U asterisk", parent=10)
    [found] = servers(proc)

    assert found == Server(
        10,
        101,
        102,
        (102, 5),
        ("/usr/sbin/asterisk", "-g", "-f", "-p", "-U", "asterisk"),
        "/usr/sbin/asterisk",
        same_root=False,
        same_network=True,
    )


@pytest.mark.parametrize(
    ("command", "console"),
    [
        ("asterisk -rx reload", True),
        ("rasterisk", True),
        ("asterisk -C /etc/r.conf -vvvr", True),
        ("asterisk -C /etc/r.conf", False),
        ("asterisk -U root -c", False),
        ("asterisk --unknown", False),
        ("asterisk", False),
    ],
)
def test_a_console_is_recognised_by_its_options(command: str, console: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """The letters r and x within another option's value do not count."""
    assert is_console(tuple(command.split())) is console


def test_without_an_asterisk_or_with_two_there_is_an_error(proc: Path) -> None:
    """The message names the fix, or both processes."""
    with pytest.raises(SetupError, match="no running Asterisk is visible here; fix: start it"):
        find_asterisk(proc)

    process(proc, 10, "asterisk")
    process(proc, 20, "asterisk -C /opt/x.conf")
    with pytest.raises(SetupError, match=r"several Asterisks run here: process 10 .*, process 20 "):
        find_asterisk(proc)


def test_an_asterisk_of_a_local_user_is_named(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Setup uses none, and the message names its process and states why."""
    monkeypatch.setattr(find, "likely_servers", lambda *_: [])
    process(proc, 10, "asterisk -C /home/alice/asterisk.conf")
    with pytest.raises(SetupError, match=r"visible here, only process 10 \(.*\) of a user that is neither"):
        find_asterisk(proc)


def test_the_logs_are_opened_again_with_asterisks_rights() -> None:
    """Root runs Asterisk's program as Asterisk's user, with the main file that the process names."""
    drop = ("setpriv", "--reuid=asterisk", "--regid=101", "--clear-groups", "--no-new-privs")
    other = evolve(SERVER, command=("asterisk", "-C", "/opt/x; y"))

    assert reload_command(SERVER, "asterisk") == (*drop, "/usr/sbin/asterisk", "-rx", "logger reload")
    assert reload_command(other, "asterisk")[6:8] == ("-C", "/opt/x; y")
    assert reload_command(evolve(SERVER, command=("asterisk", "-C", "a\nendscript")), "asterisk") == ()


def test_an_asterisk_that_does_not_answer_is_an_error(proc: Path) -> None:
    """The message names the process and the reason of the console."""
    process(proc, 7, "asterisk")
    with pytest.raises(
        SetupError, match=r"\(process 7\) cannot be asked for its folders: it has no control socket"
    ):
        inspect(SERVER, proc)


def test_drivers_that_run_are_listed() -> None:
    """A module that is loaded and not running detects nothing."""
    assert drivers_from(MODULES) == ("PJSIP", "chan_sip")
