"""The entry point: which arguments start the daemon at once."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.support.daemon import Guard

import ringfence
from ringfence.cli.entry import plain_run

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
    """Only ``run`` with no option but its configuration starts the daemon at once."""
    assert plain_run(arguments, environ) == config


def test_a_plain_run_loads_no_command_line(tmp_path: Path) -> None:
    """A plain run imports no libraries of the command line."""
    code = (
        "import os, sys\n"
        "found = lambda: sorted({'typer', 'click', 'rich'} & sys.modules.keys())\n"
        "os.execv = lambda *_: print(found()) or sys.exit(0)\n"
        "sys.argv = ['ringfence', 'run']\n"
        "from ringfence.cli.entry import main\n"
        "main()\n"
    )
    environ = os.environ | {"PYTHONPATH": str(Path(str(ringfence.__file__)).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )

    assert done.stdout == "[]\n"


def test_every_other_command_is_the_command_lines(tmp_path: Path) -> None:
    """The command line answers `--help` and unknown words."""
    guard = Guard(tmp_path)

    assert "Guard the PBX until stopped" in guard.command("run", "--help").stdout
    assert guard.command("walk").returncode == 2
