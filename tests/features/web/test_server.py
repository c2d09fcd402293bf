"""The process of the live page: sockets, login links, and its end."""

import http.client
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.clock import SetClock
from tests.support.daemon import until
from tests.support.web import ENVIRON, SITE, command, free_port, web_server

from ringfence import control, control_server
from ringfence.errors import ControlError
from ringfence.features.web.app import Site
from ringfence.features.web.entrance import WebSessions
from ringfence.features.web.server import LoginLinks


def test_it_listens_on_loopback(tmp_path: Path) -> None:
    """A port of loopback serves the page, and the links name it."""
    port = free_port()
    line = command("--listen", f"127.0.0.1:{port}", "--login-socket", str(tmp_path / "login.sock"))
    with subprocess.Popen(line, env=ENVIRON, stderr=subprocess.PIPE) as process:
        until(lambda: (tmp_path / "login.sock").exists() or process.poll() is not None, "the page")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/login")
        assert connection.getresponse().status == 200
        connection.close()
        link = control.ask(tmp_path / "login.sock", "login", name="alice")
        assert link.startswith(f"http://127.0.0.1:{port}/login#")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert not (tmp_path / "login.sock").exists()


STOPPED_AT_ONCE = """
import os, signal, sys
from pathlib import Path
from ringfence.features.web.app import Site
from ringfence.features.web.server import WebSettings, serve

folder = Path(sys.argv[1])
settings = WebSettings(folder / "web.sock", Site(sys.argv[2]), folder / "control.sock", folder / "login.sock")
serve(settings, lambda: os.kill(os.getpid(), signal.SIGTERM))
"""
"""A page that gets SIGTERM when its sockets exist, before uvicorn serves them."""


def test_a_signal_during_the_start_ends_the_page(tmp_path: Path) -> None:
    """The page ends as after any other SIGTERM: at once, without an error, and its sockets are gone."""
    done = subprocess.run(
        [sys.executable, "-c", STOPPED_AT_ONCE, str(tmp_path), SITE], env=ENVIRON, check=False, timeout=30
    )
    assert done.returncode == 0
    assert not list(tmp_path.iterdir())


def test_sockets_are_private_and_removed(tmp_path: Path) -> None:
    """Both sockets are closed to other users, replace those of a dead process, and are gone afterwards."""
    folder = tmp_path / "web"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "web.sock"))
    with web_server(folder, tmp_path / "control.sock") as web:
        for path in (web.socket, web.logins):
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
        other = subprocess.run(
            command("--unix", str(web.socket), "--url", SITE, "--login-socket", str(tmp_path / "other")),
            env=ENVIRON,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert other.returncode == 1
        assert other.stderr.startswith(f"cannot listen on {web.socket}: ")
    assert not web.socket.exists()
    assert not web.logins.exists()


@pytest.mark.parametrize("name", ["", None, "a\nb", "x" * 65, 5])
def test_a_link_needs_a_name(name: object) -> None:
    """A link without a printable name of a person is refused."""
    links = LoginLinks(WebSessions(), Site(SITE), SetClock(mono=lambda: 0.0))
    token = control_server.PEER.set(control_server.Peer(0, 1))
    try:
        with pytest.raises(ControlError, match="a person needs a name"):
            links.make({"name": name})
        assert links.make({"name": "alice"}).startswith(f"{SITE}/login#")
    finally:
        control_server.PEER.reset(token)


@pytest.mark.parametrize("user", [None, 12_345])
def test_only_root_gets_a_link(user: int | None) -> None:
    """Another user, or one that the kernel does not report, gets no link."""
    links = LoginLinks(WebSessions(), Site(SITE), SetClock(mono=lambda: 0.0))
    token = control_server.PEER.set(None if user is None else control_server.Peer(user, 1))
    try:
        with pytest.raises(ControlError, match="only root"):
            links.make({"name": "alice"})
    finally:
        control_server.PEER.reset(token)


def test_it_loads_no_part_of_the_daemon() -> None:
    """The process of the page has neither the detection nor the firewall nor the database in memory."""
    code = (
        "import sys, ringfence.features.web.server\n"
        "heavy = [name for name in sys.modules if name.startswith(('ringfence.detect', 'ringfence.firewall', "
        "'ringfence.store', 'ringfence.guard', 'ringfence.config', 'sqlite3', 'pyroute2'))]\n"
        "print(heavy)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRON, capture_output=True, text=True, check=True
    )

    assert done.stdout == "[]\n"
