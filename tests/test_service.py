"""The daemon's own process, entered without the command line."""

import logging
import os
import subprocess
import sys
from pathlib import Path

from tests.support.daemon import Guard

import ringfence

ENVIRON = os.environ | {"PYTHONPATH": str(Path(str(ringfence.__file__)).parent.parent)}


def test_a_wrong_configuration_is_told_on_standard_error(tmp_path: Path) -> None:
    """Exit code 2, every problem a line, nothing on standard output."""
    done = subprocess.run(
        [sys.executable, "-m", "ringfence.service", str(tmp_path / "absent.toml"), str(logging.INFO)],
        env=ENVIRON,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"{tmp_path}/absent.toml:\n  there is no such file; copy examples/minimal.toml there\n"
    )


def test_the_daemon_does_without_the_command_lines_libraries() -> None:
    """What reads options and prints listings for people is not loaded into the daemon."""
    code = (
        "import sys, ringfence.service\n"
        "print(sorted({'typer', 'click', 'ringfence.cli'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRON, capture_output=True, text=True, check=True
    )

    assert done.stdout == "[]\n"


def test_the_level_is_what_is_logged(tmp_path: Path) -> None:
    """At the level of errors a start in good order says nothing."""
    guard = Guard(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "ringfence.service", str(guard.config), str(logging.ERROR)],
        env=ENVIRON,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        while guard.command("status").returncode != 0:
            assert process.poll() is None
        process.terminate()
        _, said = process.communicate(timeout=20)

    assert (process.returncode, said) == (0, "")


def test_who_runs_it_by_hand_needs_no_folders_of_systemds(tmp_path: Path) -> None:
    """The folders of the database and of the socket are made, for their owner and group alone."""
    folders = {"store": tmp_path / "lib", "control": tmp_path / "run"}
    guard = Guard(
        tmp_path,
        store={"path": str(folders["store"] / "ringfence.db")},
        control={"socket": str(folders["control"] / "control.sock")},
    )
    with guard:
        report = guard.status()

    assert not [problem for problem in report["problems"] if "ringfence.db" in problem]
    assert {folder.stat().st_mode & 0o007 for folder in folders.values()} == {0}
    assert (folders["store"] / "ringfence.db").is_file()
