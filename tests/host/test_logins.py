"""Remote logins, as libsystemd reports them from session files that logind writes."""

import socket
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.support.confined import confined, session
from tests.support.netns import run

from ringfence.host.connections import ConnectionTable
from ringfence.host.protected import SESSIONS, read_logins, why_no_logins
from ringfence.values.event import Endpoint, Transport
from ringfence.values.network import parse_network

IMPORTS = "import json; from ringfence.host.protected import read_logins, why_no_logins"
READ = "print(json.dumps({str(network): reason for network, reason in read_logins().items()}))"


def read_from(folder: Path, sessions: Mapping[str, str]) -> object:
    """Return the logins that the daemon would read from these sessions."""
    (folder / "sessions").mkdir()
    for name, text in sessions.items():
        (folder / "sessions" / name).write_text(text)
    return confined(IMPORTS, READ, folder)


@pytest.mark.kernel
def test_remote_logins_are_returned_with_their_users(tmp_path: Path) -> None:
    """Each remote address of a session has its users as the reason, in both IP versions."""
    sessions = {
        "1": session(),
        "2": session(TTY="pts/3"),
        "c3": session(REMOTE_HOST="2001:db8::5", UID=65534, STATE="online"),
        "4": session(REMOTE_HOST="198.51.100.7", UID=4_000_000, TTY=None, STATE="opening"),
        "5": session(REMOTE_HOST="::ffff:198.51.100.8", CLASS=None),
        "6": session(REMOTE_HOST="fe80::5%eth0"),
    }
    assert read_from(tmp_path, sessions) == {
        "203.0.113.5/32": "the remote host of a login (root on pts/0, root on pts/3)",
        "2001:db8::5/128": "the remote host of a login (nobody on pts/0)",
        "198.51.100.7/32": "the remote host of a login (user 4000000)",
        "198.51.100.8/32": "the remote host of a login (root on pts/0)",
        "fe80::5/128": "the remote host of a login (root on pts/0)",
    }


@pytest.mark.kernel
def test_other_sessions_do_not_count(tmp_path: Path) -> None:
    """Closing sessions, login screens, console sessions and unusable remote hosts do not count."""
    sessions = {
        "1": session(STATE="closing"),
        "2": session(CLASS="greeter"),
        "3": session(REMOTE=0, REMOTE_HOST=None),
        "4": session(REMOTE_HOST="dialup.example.net"),
        "5": session(REMOTE_HOST="0.0.0.0/0"),
        "6": session(REMOTE_HOST="127.0.0.1"),
        "7": session(REMOTE_HOST=""),
        "8": "garbage",
        "9": "",
    }
    assert read_from(tmp_path, sessions) == {}


@pytest.mark.kernel
def test_without_logind_the_reason_is_returned(tmp_path: Path) -> None:
    """Without logind, in containers and elsewhere, no logins are known, and `check` can print the reason."""
    code = "print(json.dumps([list(read_logins()), why_no_logins()]))"
    assert confined(IMPORTS, code, tmp_path) == [
        [],
        f"logins from elsewhere are not known: {SESSIONS} is not there (no systemd-logind runs here)",
    ]


def test_without_the_library_the_reason_is_returned() -> None:
    """The library is optional."""
    assert read_logins("libsystemd-that-is-not.so.0") == {}
    assert why_no_logins("libsystemd-that-is-not.so.0") == (
        "logins from elsewhere are not known: libsystemd-that-is-not.so.0 is not there; "
        "fix: install systemd's library"
    )


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_a_connection_without_a_login_does_not_count(tmp_path: Path) -> None:
    """Anybody can open a connection to port 22 and keep it, so only a completed login counts."""
    run("ip", "address", "add", "198.51.100.9/32", "dev", "lo")
    with (
        socket.create_server(("198.51.100.9", 22)) as server,
        socket.create_connection(("198.51.100.9", 22)) as client,
    ):
        accepted, (host, port) = server.accept()
        with accepted, client:
            stranger = Endpoint(parse_network(host).network_address, port, Transport.TCP)
            connections = ConnectionTable()
            connections.refresh(stranger)
            assert connections.has(stranger, time.monotonic())
            assert read_from(tmp_path, {"1": session()}) == {
                "203.0.113.5/32": "the remote host of a login (root on pts/0)"
            }


@pytest.mark.kernel
def test_the_number_of_sessions_is_limited(tmp_path: Path) -> None:
    """The number of sessions that are read is limited, because a user may open any number of them."""
    (tmp_path / "sessions").mkdir()
    for number in range(1, 8):
        (tmp_path / "sessions" / str(number)).write_text(session(REMOTE_HOST=f"203.0.113.{number}"))
    code = "logins.MOST = 5; print(json.dumps(len(read_logins())))"
    assert confined(f"{IMPORTS}; from ringfence.host import protected as logins", code, tmp_path) == 5


@pytest.mark.kernel
def test_local_sessions_hide_no_remote_login(tmp_path: Path) -> None:
    """Only remote logins count for the limit, whichever session the library lists first."""
    (tmp_path / "sessions").mkdir()
    code = "logins.MOST = 1; print(json.dumps([str(network) for network in read_logins()]))"
    for remote in ("1", "2"):
        for name in ("1", "2"):
            text = session() if name == remote else session(REMOTE=0, REMOTE_HOST=None)
            (tmp_path / "sessions" / name).write_text(text)
        found = confined(f"{IMPORTS}; from ringfence.host import protected as logins", code, tmp_path)
        assert found == ["203.0.113.5/32"]


@pytest.mark.kernel
def test_reading_leaves_no_garbage(tmp_path: Path) -> None:
    """The daemon reads the logins every two seconds, and searches for reference cycles rarely."""
    (tmp_path / "sessions").mkdir()
    (tmp_path / "sessions" / "1").write_text(session())
    code = "read_logins(); gc.collect(); gc.disable(); print([len(read_logins()), gc.collect()])"
    assert confined(f"import gc; {IMPORTS}", code, tmp_path) == [1, 0]
