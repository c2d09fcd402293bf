"""The daemon as a separate process that a test starts, commands, stops and kills like an administrator.

``Guard`` writes a configuration and, like systemd, waits for READY on its own notification socket.
``ami_server`` plays the PBX in a thread, for tests without an event loop. All files are in the test's
folder, so a guard can be stopped and started again with the same state.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any, Self

from tests.support.amiserver import AmiServer, Script
from tests.support.asterisk import SECRET
from tests.support.captures import FOLDER
from tests.support.warm import Process, start

import ringfence
from ringfence import control
from ringfence.errors import DaemonUnreachableError, Exit, HangingError

PATIENCE = 60.0
"""How long a test waits for something that normally happens at once (seconds); a busy machine is slow."""

_NAMESPACE = Path("/proc/thread-self/ns/net")
_MACHINE = _NAMESPACE.readlink()
"""The network namespace in which the tests began: that of the machine, whose firewall no test may change."""

_RARELY = 0.5
"""The longest time between two looks of a test that waits (seconds)."""

GRANTED = (
    b"Event: SuccessfulAuth"
    + (FOLDER / "asterisk-22" / "login.ami").read_bytes().partition(b"Event: SuccessfulAuth")[2]
)
"""The event that Asterisk sends about a manager login to users with the class ``security``. A script sends it
first: without it the source reports that it receives no security events."""

Completed = subprocess.CompletedProcess[str]
Traced = Callable[[int], AbstractContextManager[object]]
"""A context around a process, by its process id."""


def until(true: Callable[[], object], what: str, seconds: float = PATIENCE, pause: float = 0.05) -> None:
    """Wait until ``true`` returns something true; an AssertionError names the missing ``what``.

    The longer it waits, the more rarely it looks: many looks ask a daemon, which needs the same cores.
    """
    began = time.monotonic()
    while not true():
        waited = time.monotonic() - began
        assert waited < seconds, f"waited {seconds:.0f} s in vain: {what}"
        time.sleep(max(pause, min(_RARELY, waited / 10)))


class Guard:
    """One daemon and its commands: ``with Guard(tmp_path, ami={"port": server.port}) as guard: …``.

    Keyword settings are the configuration's tables (``rules={"guess": {"attempts": 3}}``); store and socket
    are in ``folder`` and the backend is memory by default. ``ami`` is short for one ``[[asterisk]]``
    named pbx. ``prefix`` stands before every command line, such as ``["ip", "netns", "exec", NAME]``.
    ``environ`` is added to the environment of all of them.

    If the daemon ends by itself or logs a traceback, the end of the block raises an AssertionError, unless
    the daemon ``may_fail``.
    """

    def __init__(
        self,
        folder: Path,
        *,
        prefix: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        ami: Mapping[str, object] | None = None,
        may_fail: bool = False,
        **settings: Any,  # noqa: ANN401 - whatever TOML holds
    ) -> None:
        self.folder = folder
        self.config = folder / "ringfence.toml"
        self._notified: list[str] = []
        self._prefix = list(prefix)
        self._log = folder / "daemon.log"
        self._notify = folder / "notify.sock"
        self._socket: socket.socket | None = None
        self._process: Process | subprocess.Popen[bytes] | None = None
        self._may_fail = may_fail
        self._end_is_expected = True
        self._environ = {
            **os.environ,
            "PYTHONPATH": str(Path(str(ringfence.__file__)).parent.parent),
            "COLUMNS": "80",
            **(environ or {}),
        }
        # Neither logs nor the wire by default: the daemon would read those of this machine.
        nothing: dict[str, object] = {"logs": {"paths": []}, "wire": {"enabled": False}}
        pbx = {"name": "pbx", "ami": {"port": 1, "secret": SECRET, **(ami or {})}, **nothing}
        self.settings: dict[str, Any] = {
            "asterisk": [pbx],
            "firewall": {"backend": "memory"},
            "store": {"path": str(folder / "ringfence.db")},
            # Without this, a developer who is not root could not command a daemon of their own user.
            "control": {"socket": str(folder / "control.sock"), "admins": [os.geteuid()]},
            **settings,
        }
        self.configure()

    def configure(self, **settings: Any) -> None:  # noqa: ANN401 - whatever TOML holds
        """Write the configuration again with these tables changed; a running daemon reads it after SIGHUP."""
        self.settings.update(settings)
        self.config.write_text(toml(self.settings), "utf-8")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        self._drain()
        code = 0
        try:
            if self.running:
                code = self.stop()
            elif not self._end_is_expected:
                code = self.wait()
        finally:
            if self.running:
                self.kill()
            if self._socket is not None:
                self._socket.close()
                self._socket = None
            self._notify.unlink(missing_ok=True)
        if kind is None and not self._may_fail:
            assert code == 0, f"the daemon ended with {code}:\n{self.log}"
            assert "Traceback (most recent call last)" not in self.log, self.log

    def start(
        self, *options: str, ready: bool = True, log: IO[bytes] | None = None, stopped: bool = False
    ) -> None:
        """Start the daemon; if ``ready``, wait until it is READY. ``log`` is its standard error, if set.

        If ``stopped``, the daemon waits for SIGCONT before its first step.
        """
        ours = self._prefix or _NAMESPACE.readlink() != _MACHINE
        kernel = self.settings["firewall"].get("backend", "auto") in {"auto", "ipset", "nftables"}
        assert ours or not kernel, "a daemon in the machine's own network namespace needs the backend memory"
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.bind(str(self._notify))
        self._drain()
        self._notified.clear()
        with self._log.open("ab") as file:
            self._process = start(
                self._command_line("run", *options),
                environ=self._environ | {"NOTIFY_SOCKET": str(self._notify)},
                stdout=file,
                stderr=file if log is None else log,
                stopped=stopped,
            )
        self._end_is_expected = self._may_fail
        if ready:
            until(lambda: self.has_notified("READY=1") or not self.running, "READY")
            if not self.has_notified("READY=1"):
                code = self.wait()
                self.__exit__()
                raise AssertionError(f"the daemon ended with {code} before it was ready:\n{self.log}")

    def ended(self) -> int:
        """Start a daemon that should exit immediately, and return its exit code."""
        self.start(ready=False)
        try:
            return self.wait()
        finally:
            self.__exit__()

    @property
    def process(self) -> Process | subprocess.Popen[bytes]:
        """The daemon's process, running or ended."""
        assert self._process is not None, "the daemon was never started"
        return self._process

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether the daemon is running."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """Everything that the daemon has written, over all its starts."""
        return self._log.read_text("utf-8", "replace") if self._log.exists() else ""

    def has_notified(self, state: str) -> bool:
        """Whether the daemon has sent ``state`` to systemd's socket since the start."""
        return state in self.notified

    @property
    def notified(self) -> list[str]:
        """The states that the daemon has sent to systemd's socket since the start, in order."""
        self._drain()
        return list(self._notified)

    def command(self, *arguments: str, text: str | None = None, traced: Traced | None = None) -> Completed:
        """Run a command of ringfence with this configuration, and return the completed process.

        The command begins, ends, and is waited for in the context that ``traced`` makes of its process id.
        """
        line = self._command_line(*arguments)
        with (
            tempfile.TemporaryFile() as given,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
        ):
            given.write((text or "").encode())
            given.seek(0)
            stopped = traced is not None
            process = start(line, environ=self._environ, stdin=given, stdout=out, stderr=err, stopped=stopped)
            try:
                with nullcontext() if traced is None else traced(process.pid):
                    process.send_signal(signal.SIGCONT)
                    code = process.wait(60)
            except BaseException:
                process.kill()
                raise
            out.seek(0)
            err.seek(0)
            return Completed(line, code, out.read().decode(), err.read().decode())

    def must(self, *arguments: str, text: str | None = None) -> str:
        """Run a command that must succeed, and return its output.

        A change whose record waits for the disk, because other tests use it, is a success: it is in force.
        """
        done = self.command(*arguments, text=text)
        waits = done.returncode == Exit.NOT_RECORDED and "the disk is slow" in done.stderr
        assert waits or done.returncode == 0, (
            f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr}"
        )
        return done.stdout

    def ask(self, do: str, **arguments: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
        """Send a request to the daemon's socket, as its commands do, but without a new process.

        A daemon that gets no processor for seconds seems to hang. Then it is asked again.
        """
        began, path = time.monotonic(), Path(self.settings["control"]["socket"])
        while True:
            try:
                return control.ask(path, do, **arguments)
            except HangingError:
                if time.monotonic() - began > PATIENCE:
                    raise

    def take_turn(self) -> None:
        """Wait until the daemon has run: between two guesses, a busy machine may give it no processor."""
        self.ask("bans", most=1)

    def status(self) -> dict[str, Any]:
        """Return what `status --json` prints: the daemon's answer."""
        report: dict[str, Any] = self.ask("status")
        return report

    def bans(self) -> list[dict[str, Any]]:
        """Return what `bans --json` prints: the daemon's answer, or that of the command after its end."""
        try:
            rows: list[dict[str, Any]] = self.ask("bans", most=control.MOST_LISTED)
        except DaemonUnreachableError:
            if not self.running and not self._end_is_expected:
                raise
            rows = json.loads(self.must("bans", "--json"))
        return rows

    def banned(self) -> set[str]:
        """Return the banned addresses and networks."""
        return {row["address"] for row in self.bans()}

    def scopes(self) -> dict[str, str]:
        """Return the scope of each ban by its address or network."""
        return {row["address"]: row["scope"] for row in self.bans()}

    def friends(self) -> set[str]:
        """Return the addresses of the friends."""
        return {row["address"] for row in self.ask("friends")}

    def alarm_codes(self) -> set[str]:
        """Return the codes of the active alarms."""
        return {alarm["code"] for alarm in self.status()["alarms"]}

    def states(self) -> dict[str, str]:
        """Return the state of each source by its name."""
        return {source["name"]: source["state"] for source in self.status()["sources"]}

    def source_is(self, state: str) -> bool:
        """Whether every source is in that state."""
        return set(self.states().values()) == {state}

    def ami_is(self, state: str) -> bool:
        """Whether the manager interface of "pbx" is in that state."""
        return self.states()["pbx/ami"] == state

    def reload(self) -> None:
        """Send SIGHUP."""
        self.process.send_signal(signal.SIGHUP)

    def wait(self) -> int:
        """Wait for the daemon's end; return its exit code, or the negative number of the signal."""
        self._end_is_expected = True
        until(self._has_ended, "the daemon's end")
        return self.process.wait()

    def _has_ended(self) -> bool:
        self._drain()  # a full socket would block the daemon's notification that it is stopping
        return not self.running

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        self._drain()  # as in _has_ended
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """Send SIGKILL, and wait until the daemon is gone."""
        self.process.kill()
        self.wait()

    def _command_line(self, name: str, *arguments: str) -> list[str]:
        return [
            *self._prefix,
            sys.executable,
            "-m",
            "ringfence",
            name,
            *arguments,
            "--config",
            str(self.config),
        ]

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            while self._socket is not None:
                self._notified += self._socket.recv(4096, socket.MSG_DONTWAIT).decode().splitlines()


class ServedAmi:
    """An :class:`AmiServer` that runs in its own thread."""

    def __init__(self, server: AmiServer, loop: asyncio.AbstractEventLoop) -> None:
        self.server = server
        self._loop = loop

    @property
    def port(self) -> int:
        """The port on which it listens."""
        return self.server.port

    def send(self, data: bytes) -> None:
        """Send ``data`` to every client that is logged in."""
        asyncio.run_coroutine_threadsafe(self.server.send(data), self._loop).result(PATIENCE)

    def hang_up(self) -> None:
        """Close every connection; the server continues to listen."""
        asyncio.run_coroutine_threadsafe(self.server.hang_up(), self._loop).result(PATIENCE)


@contextmanager
def ami_server(
    script: Script | None = None, *, port: int = 0, certificate: Path | None = None
) -> Iterator[ServedAmi]:
    """Run an AMI server while the block runs, in the network namespace of the caller.

    Without a script it only sends the event that grants the security class. ``send`` sends more.
    """
    script = script if script is not None else Script(play=[GRANTED])
    started: list[ServedAmi] = []
    failed: list[BaseException] = []
    up, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with AmiServer(script, port, certificate) as server:
            started.append(ServedAmi(server, asyncio.get_running_loop()))
            up.set()
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001 - raised again by the test's thread
            failed.append(error)
            up.set()

    thread = threading.Thread(target=run, name="ami-server")
    thread.start()
    up.wait(PATIENCE)
    try:
        if not failed:
            yield started[0]
    finally:
        if started and thread.is_alive():
            started[0]._loop.call_soon_threadsafe(stop.set)
        thread.join(PATIENCE)
    if failed:
        raise failed[0]


def toml(tree: Mapping[str, object]) -> str:
    """Write tables, lists of tables and plain values as TOML."""
    return "\n".join(_lines(tree, "")) + "\n"


def _lines(table: Mapping[str, object], path: str) -> Iterator[str]:
    for key, value in table.items():
        if not isinstance(value, Mapping) and not _is_tables(value):
            yield f"{key} = {_value(value)}"
    for key, value in table.items():
        name = f"{path}.{key}".lstrip(".")
        if isinstance(value, Mapping):
            yield f"[{name}]"
            yield from _lines(value, name)
        elif _is_tables(value):
            assert isinstance(value, list)
            for entry in value:
                yield f"[[{name}]]"
                yield from _lines(entry, name)


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, Mapping) for entry in value)


def _value(value: object) -> str:
    # JSON's form of strings, numbers, booleans and lists is also valid TOML.
    return json.dumps(str(value) if isinstance(value, Path) else value)
