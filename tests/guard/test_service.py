"""The daemon's own process, started without the command line."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.daemon import Guard, until

import ringfence
from ringfence.errors import DaemonUnreachableError

ENVIRON = os.environ | {"PYTHONPATH": str(Path(str(ringfence.__file__)).parent.parent)}


def test_a_wrong_configuration_is_printed_on_standard_error(tmp_path: Path) -> None:
    """A wrong configuration exits with 2 and prints each problem as a line, on standard error only."""
    done = subprocess.run(
        [sys.executable, "-m", "ringfence.guard.service", str(tmp_path / "absent.toml"), str(logging.INFO)],
        env=ENVIRON,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"{tmp_path}/absent.toml:\n  there is no such file; fix: copy examples/minimal.toml there\n"
    )


def test_the_daemon_does_without_the_command_lines_libraries() -> None:
    """The daemon does not load the libraries that parse options and print tables."""
    code = (
        "import sys, ringfence.guard.service\n"
        "print(sorted({'typer', 'click', 'ringfence.cli'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRON, capture_output=True, text=True, check=True
    )

    assert done.stdout == "[]\n"


def test_a_reload_during_the_start_does_not_end_it(tmp_path: Path) -> None:
    """SIGHUP is ignored until the daemon handles it, so it does not end the start."""
    guard = Guard(tmp_path)
    guard.start(ready=False)
    with guard_until_ready(guard):
        assert guard.status()["firewall"]["backend"] == "memory"


@contextmanager
def guard_until_ready(guard: Guard) -> Iterator[None]:
    """Send SIGHUP repeatedly from when it is ignored until READY; stop the daemon at the end."""
    ignored = 1 << (signal.SIGHUP - 1)
    try:
        until(lambda: signals(guard.pid, "SigIgn") & ignored, "SIGHUP to be ignored")
        while not guard.has_notified("READY=1"):
            guard.reload()
            time.sleep(0.001)
            assert guard.running, guard.log
        yield
    finally:
        guard.__exit__()


def signals(pid: int, which: str) -> int:
    """Return a set of signals of a process as the kernel shows it."""
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith(which))


def test_the_level_is_what_is_logged(tmp_path: Path) -> None:
    """At the error level a normal start logs nothing."""
    guard = Guard(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "ringfence.guard.service", str(guard.config), str(logging.ERROR)],
        env=ENVIRON,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        until(lambda: answers(guard) or process.poll() is not None, "the daemon's answer")
        process.terminate()
        _, said = process.communicate(timeout=20)

    assert (process.returncode, said) == (0, "")


def answers(guard: Guard) -> bool:
    """Whether the daemon answers."""
    try:
        return bool(guard.status())
    except DaemonUnreachableError:
        return False


def test_missing_folders_are_created(tmp_path: Path) -> None:
    """The folders of the database and of the socket are created for their owner and group only."""
    folders = {"store": tmp_path / "lib", "control": tmp_path / "run"}
    guard = Guard(
        tmp_path,
        store={"path": str(folders["store"] / "ringfence.db")},
        control={"socket": str(folders["control"] / "control.sock")},
    )
    with guard:
        report = guard.status()

    assert not [alarm for alarm in report["alarms"] if "ringfence.db" in alarm["text"]]
    assert {folder.stat().st_mode & 0o007 for folder in folders.values()} == {0}
    assert (folders["store"] / "ringfence.db").is_file()
