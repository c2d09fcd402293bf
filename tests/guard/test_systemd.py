"""Messages to systemd and the watchdog interval, over real sockets."""

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ringfence.guard import process
from ringfence.guard.process import feed_watchdog, report_ready, report_state, watchdog_interval


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    """Act as systemd: bind a datagram socket at ``address``."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as here:
        here.bind(address)
        here.settimeout(2)
        yield here


def test_a_state_is_one_datagram(tmp_path: Path) -> None:
    """A state is sent unchanged to the socket that NOTIFY_SOCKET names."""
    path = str(tmp_path / "notify")
    with listening(path) as systemd:
        report_state("READY=1", {"NOTIFY_SOCKET": path})
        assert systemd.recv(100) == b"READY=1"


def test_an_abstract_socket_is_written_with_an_at() -> None:
    """A name with a leading @ is an abstract socket of the kernel, without a file."""
    name = f"ringfence-test-{os.getpid()}"
    with listening(f"\0{name}") as systemd:
        report_state("STOPPING=1", {"NOTIFY_SOCKET": f"@{name}"})
        assert systemd.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}])
def test_without_systemd_nothing_is_sent(environ: dict[str, str]) -> None:
    """If no socket is named, nothing is sent."""
    report_state("READY=1", environ)


def test_the_report_that_the_daemon_is_ready_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If systemd cannot be reached at first, it gets the report later, and the log has one line about it."""
    monkeypatch.setattr(process, "_READY_AGAIN", 0.01)
    path = str(tmp_path / "notify")

    async def main() -> bytes:
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            report = group.create_task(report_ready({"NOTIFY_SOCKET": path}))
            await asyncio.sleep(0.05)
            with listening(path) as systemd:
                await report
                return systemd.recv(100)

    with capture_logs() as logs:
        assert asyncio.run(main()) == b"READY=1"
    [line] = logs
    assert line["error"].startswith("cannot report to systemd that the daemon is ready: No such file")


def test_a_missing_socket_of_systemd_is_an_error(tmp_path: Path) -> None:
    """If the socket that systemd named is missing, the caller gets an error."""
    with pytest.raises(FileNotFoundError):
        report_state("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "nobody")})


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "²"}, None),
        ({"WATCHDOG_USEC": ""}, None),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_asked(environ: dict[str, str], interval: float | None) -> None:
    """The interval is half of WATCHDOG_USEC, in seconds, if it is for this process; otherwise it is None."""
    assert watchdog_interval(environ) == interval


def test_a_slow_reader_does_not_block_the_watchdog(tmp_path: Path) -> None:
    """Watchdog messages do not block when the reader is slower than the sender."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        for _ in range(2_000):  # more than any queue holds
            feed_watchdog({"NOTIFY_SOCKET": str(tmp_path / "notify")})

        assert listener.recv(100) == b"WATCHDOG=1"
