"""One attempt to send by a child process: no secret in sight, no capability, no thread, an end in time."""

import asyncio
import errno
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.features.notify.samples import WALL, ban, content
from tests.support.daemon import until
from tests.support.programs import program_service

from ringfence.config.converters import Duration, Text
from ringfence.features.notify import delivery, notifications
from ringfence.features.notify.delivery import Delivery, channel_as_json, send
from ringfence.features.notify.settings import (
    AppriseSettings,
    ChannelSettings,
    HookSettings,
    MailAddress,
    MailSettings,
)
from ringfence.features.notify.topics import QuietHours
from ringfence.values.secret import Secret

CONTENT = content(notifications.of_ban(ban(7), WALL))
PYTHON = (sys.executable, "-c")
READ = "import sys; sys.stdin.read()"


@pytest.fixture(autouse=True)
def _service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run the service for programs; its socket is below the working folder."""
    monkeypatch.chdir(tmp_path)
    with program_service(tmp_path):
        yield


def hook(*command: str, timeout: float = 5.0) -> HookSettings:
    """Return the channel of a command."""
    socket = Path("notify.socket").absolute()
    return HookSettings(command=tuple(map(Text, command)), timeout=Duration(timeout), socket=socket)


def sent(channel: ChannelSettings, *command: str) -> Delivery:
    """Send a message; with ``command`` by another child."""
    return asyncio.run(send(channel, CONTENT, "h", command=command or delivery.COMMAND))


def test_the_result_of_the_channel_is_returned() -> None:
    """A success and a failure are values, never exceptions."""
    assert sent(hook("/bin/true")) == Delivery(ok=True, text="/bin/true ended with 0")
    assert sent(hook("/bin/false")) == Delivery(ok=False, text="/bin/false ended with 1: no reason given")


def test_the_request_has_the_settings_and_the_password() -> None:
    """Every value is one that JSON has."""
    mail = MailSettings(
        to=(MailAddress("root"),), username=Text("u"), password=Secret("geheim"), quiet=QuietHours(0, 60)
    )
    found = channel_as_json(mail)

    assert (found["kind"], found["to"], found["password"]) == ("mail", ["root"], "geheim")
    assert (found["security"], found["quiet"], found["tls_verify"]) == ("none", "00:00-01:00", True)
    assert channel_as_json(AppriseSettings(config=Path("/x")))["config"] == "/x"


def test_no_thread_waits_for_the_child() -> None:
    """The daemon has no thread more while a message is sent."""

    async def threads() -> int:
        async with asyncio.TaskGroup() as group:
            group.create_task(send(hook("/bin/sleep", "0.5"), CONTENT, "h"))
            await asyncio.sleep(0.3)
            return threading.active_count()

    before = threading.active_count()
    assert asyncio.run(threads()) == before


def _runs(pid: int) -> bool:
    """Whether a process still runs a moment later; a killed one may be a zombie of init."""
    deadline = time.monotonic() + 2.0
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] == "Z":
                return False
        except FileNotFoundError:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (("/nonexistent/x",), "/nonexistent/x cannot be run: No such file or directory"),
        ((*PYTHON, "1/0"), "the sender failed: b''"),
        ((*PYTHON, f"{READ}; print('garbage')"), "the sender failed: b'garbage"),
        ((*PYTHON, f"{READ}; print('[' * 50_000)"), "the sender failed: b'[[["),
        ((*PYTHON, f"{READ}; print('x' * 10_000_000)"), "the sender failed: b'" + "x" * 298),
    ],
)
def test_a_child_that_fails_is_a_failure(command: tuple[str, ...], text: str) -> None:
    """No defect of the child is an exception of the daemon, and its output is bounded."""
    found = sent(hook("/bin/true"), *command)

    assert not found.ok
    assert found.text.startswith(text)


def test_a_child_that_ignores_its_time_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon itself bounds the time, a little later than the child should."""
    monkeypatch.setattr(delivery, "GRACE", 0.3)
    began = time.monotonic()

    found = sent(hook("/bin/true", timeout=0.2), *PYTHON, "import time; time.sleep(60)")

    assert found == Delivery(ok=False, text="no result within 0 s")
    assert time.monotonic() - began < 50


def test_a_process_without_descriptors_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon goes on, and tries again later."""

    def refuse() -> object:
        raise OSError(errno.EMFILE, "Too many open files")

    async def send_without() -> Delivery:
        monkeypatch.setattr(socket, "socketpair", refuse)
        try:
            return await send(hook("/bin/true"), CONTENT, "h")
        finally:
            monkeypatch.undo()

    assert asyncio.run(send_without()) == Delivery(
        ok=False, text="no socket for the sender: Too many open files"
    )


def test_a_cancelled_attempt_leaves_no_process(tmp_path: Path) -> None:
    """At the daemon's stop the child is killed and reaped."""

    async def cancelled() -> None:
        task = asyncio.ensure_future(  # noqa: TID251 - cancelled below
            send(hook("/bin/sh", "-c", f"echo $$ > {tmp_path}/pid; sleep 60"), CONTENT, "h")
        )
        pid = tmp_path / "pid"
        while not pid.exists() or not pid.stat().st_size:  # noqa: ASYNC110 - a process writes it
            await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    before = _children()
    asyncio.run(cancelled())
    pid = int((tmp_path / "pid").read_text("ascii"))
    until(lambda: not _runs(pid), "the end of the child's own child, which the init process reaps")
    assert _children() <= before


def _children() -> set[str]:
    """Return the process ids of this process' children; tests before may have left some."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii").split())
