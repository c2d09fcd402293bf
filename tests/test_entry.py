"""The way in: what becomes the daemon at once, and what the command line reads."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.support.daemon import Guard

import ringfence
from ringfence.entry import plain_run

ENVIRON = {"RINGFENCE_CONFIG": "/etc/other.toml"}


@pytest.mark.parametrize(
    ("arguments", "environ", "config"),
    [
        (["run"], {}, ringfence.DEFAULT_CONFIG),
        (["run"], ENVIRON, "/etc/other.toml"),
        (["run", "-c", "a.toml"], ENVIRON, "a.toml"),
        (["run", "--config", "a.toml"], {}, "a.toml"),
        (["run", "--config", ""], {}, None),
        (["run", "--verbose"], {}, None),
        (["run", "--trial", "15m"], {}, None),
        (["run", "--help"], {}, None),
        (["--help"], {}, None),
        (["status"], {}, None),
        ([], {}, None),
    ],
)
def test_only_a_plain_run_becomes_the_daemon_at_once(
    arguments: Sequence[str], environ: dict[str, str], config: str | None
) -> None:
    """With nothing but its configuration; every other word is for the command line to read."""
    assert plain_run(arguments, environ) == config


def test_a_plain_run_loads_no_command_line(tmp_path: Path) -> None:
    """The libraries that read options are not loaded before the daemon is there."""
    code = (
        "import os, sys\n"
        "found = lambda: sorted({'typer', 'click', 'rich'} & sys.modules.keys())\n"
        "os.execv = lambda *_: print(found()) or sys.exit(0)\n"
        "sys.argv = ['ringfence', 'run']\n"
        "from ringfence.entry import main\n"
        "main()\n"
    )
    environ = os.environ | {"PYTHONPATH": str(Path(str(ringfence.__file__)).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )

    assert done.stdout == "[]\n"


def test_every_other_command_is_the_command_lines(tmp_path: Path) -> None:
    """`--help` and a word that is none are answered by it."""
    guard = Guard(tmp_path)

    assert "Guard the PBX until stopped" in guard.command("run", "--help").stdout
    assert guard.command("walk").returncode == 2
