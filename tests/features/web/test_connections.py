"""Connections that send nothing, or too slowly, and their limit."""

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import cycle, islice
from pathlib import Path

import pytest
from tests.support.web import Browser, WebServer, web_server

from ringfence.features.web.server import BACKLOG, MOST_CONNECTIONS, REQUEST_TIME

HEAD = b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"


@pytest.fixture(name="web", scope="module")
def _web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """Yield a live page without a daemon."""
    folder = tmp_path_factory.mktemp("web")
    with web_server(folder, folder / "none") as web:
        yield web


def connect(web: WebServer, sent: bytes = b"") -> socket.socket:
    """Connect to the page, and send a part of a request."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(web.socket))  # waits while the queue of the socket is full
    connection.settimeout(2 * REQUEST_TIME)
    connection.sendall(sent)
    return connection


@contextmanager
def many(web: WebServer, number: int, *sent: bytes) -> Iterator[None]:
    """Keep many connections open that have sent a part of a request, one after the other of ``sent``."""
    with ExitStack() as stack:
        for part in islice(cycle(sent), number):
            stack.enter_context(connect(web, part))
        yield


def is_closed(connection: socket.socket) -> bool:
    """Whether the page closes a connection, if the test waits for it."""
    try:
        while connection.recv(65_536):
            pass
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True
    return True


def test_open_connections_keep_nobody_out(web: WebServer) -> None:
    """Many more connections than the limit, silent or with a part of a request, delay no other client."""
    browser, another = web.browser(), web.browser()
    soft = resource.prlimit(web.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(web.process.pid, resource.RLIMIT_NOFILE, (1_024, soft[1]))
    with many(web, 5 * MOST_CONNECTIONS, b"", b"GET / HTTP/1.1\r\n", HEAD + b"token="):
        assert len([*Path(f"/proc/{web.process.pid}/fd").iterdir()]) < MOST_CONNECTIONS + 5 * BACKLOG
        began = time.monotonic()
        assert Browser(web.socket).get("/login").status == 200
        assert browser.get("/lists").status == 503  # without a daemon
        assert another.get("/login").status == 200
        assert time.monotonic() - began < 10
    assert "Traceback" not in web.log
    assert "out of system resource" not in web.log


def test_the_oldest_silent_connection_is_ended(web: WebServer) -> None:
    """A connection beyond the limit ends the one that is silent for the longest time, and no other."""
    with connect(web) as oldest, connect(web) as newer, many(web, MOST_CONNECTIONS - 1, b""):
        assert is_closed(oldest)
        newer.sendall(b"GET /login HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert newer.recv(12) == b"HTTP/1.1 200"


def test_a_request_has_a_limit_of_time(web: WebServer) -> None:
    """A head or a body that is not complete in time ends the connection, also if bytes trickle."""
    began = time.monotonic()
    slow = [connect(web), connect(web, b"GET / HTTP/1.1\r\n"), connect(web, HEAD)]
    answered = connect(web, b"GET /login HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n")
    assert answered.recv(1_000_000).startswith(b"HTTP/1.1 200")
    slow.append(answered)
    while time.monotonic() - began < REQUEST_TIME - 1:
        slow[1].sendall(b"X: y\r\n")
        slow[2].sendall(b"x")
        answered.sendall(b"G" if time.monotonic() - began < 1 else b"")
        time.sleep(0.5)

    assert [is_closed(connection) for connection in slow] == [True] * 4
    assert time.monotonic() - began < 2 * REQUEST_TIME - 2  # since the last byte, it would be longer
    for connection in slow:
        connection.close()


def test_a_client_that_does_not_read_is_ended(web: WebServer) -> None:
    """A client that requests page after page and reads none is disconnected."""
    began = time.monotonic()
    with connect(web) as connection, pytest.raises(ConnectionError):
        connection.sendall(b"GET /login HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100_000)
    assert time.monotonic() - began < 2 * REQUEST_TIME


def test_a_stranger_writes_no_lines_into_the_log(web: WebServer) -> None:
    """Requests that end early, are invalid, or ask for another protocol leave no line."""
    before = web.log
    upgrade = b"GET / HTTP/1.1\r\nHost: evil\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    for sent in (HEAD + b"token=", b"\0\r\n\r\n", upgrade):
        for _ in range(20):
            connect(web, sent).close()
    assert Browser(web.socket).get("/login").status == 200
    time.sleep(0.2)

    assert web.log == before


def test_the_limit_fits_the_descriptors_of_a_service() -> None:
    """The limit is below the 1,024 file descriptors that systemd gives a service by default."""
    unit = Path(__file__).parents[3] / "contrib/systemd/ringfence-web.service"

    assert "LimitNOFILE" not in unit.read_text("utf-8")
    assert MOST_CONNECTIONS + 5 * BACKLOG < 1_024
