"""The commands of the command line, and their help."""

import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from tests.docs.commands import commands
from tests.support.captures import FOLDER
from tests.support.daemon import Guard
from typer.testing import CliRunner

from ringfence.cli.app import Commands, app
from ringfence.firewall import BACKENDS

GROUPS = {"alarms", "allow", "config", "deny", "feeds", "fence", "fleet", "friends", "notify", "top", "web"}
COMMANDS = [name for name in Commands.lazy if name not in GROUPS]
"""The commands that are not groups of commands."""


def test_the_list_of_commands_is_right() -> None:
    """Each command is in the module that the list names, and its line in the list is its help."""
    found = {name: command for name, command in commands() if " " not in name}
    assert list(found) == list(Commands.lazy)
    for name, lazy in Commands.lazy.items():
        assert " ".join((found[name].short_help or found[name].help).split()) == lazy.help


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_config(name: str) -> None:
    """``--help`` describes each command and names --config."""
    result = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "80"})

    assert result.exit_code == 0
    assert f"ringfence {name}" in result.stdout
    assert "--config" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_help_names_every_command() -> None:
    """Without arguments, and with --help, the commands are listed."""
    result = CliRunner().invoke(app, ["--help"])

    assert result.exit_code == 0
    assert all(f"  {name} " in result.stdout for name in COMMANDS)


def test_version_prints_the_version() -> None:
    """``--version`` prints the version and nothing else."""
    result = CliRunner().invoke(app, ["--version"])

    assert (result.exit_code, result.stdout) == (0, f"ringfence {version('ringfence')}\n")


def test_help_cuts_no_sentence() -> None:
    """Within 80 columns the help of every command and group is a whole sentence."""
    for arguments in (["--help"], ["allow", "--help"], ["friends", "--help"]):
        shown = CliRunner().invoke(app, arguments, env={"COLUMNS": "80"}).stdout
        assert "..." not in shown.replace("COMMAND [ARGS]...", "")
        assert max(map(len, shown.splitlines())) <= 80


LOG = FOLDER / "asterisk-22" / "wrong-password-register.security.log"
HEAVY = {"asyncio", "sqlite3", "pyroute2", "panoramisk", "structlog", "cattrs", "ringfence.config.loader"}
"""Modules that only the daemon needs, or the commands that read its configuration."""


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (["--help"], set()),
        (["replay", str(LOG)], {"rich.table"}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_command_loads_only_what_it_needs(arguments: list[str], allowed: set[str]) -> None:
    """Help and replay import none of the daemon's libraries, which take 20 MB and half a second."""
    code = (
        "import sys\nfrom ringfence.cli.app import app\n"
        f"app({arguments!r}, standalone_mode=False)\n"
        f"heavy = {HEAVY | {'rich.table'} - allowed!r}\n"
        "print(sorted(heavy & sys.modules.keys()), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], input="", capture_output=True, text=True, check=True)

    assert done.stderr.splitlines()[-1] == "[]"


WITH_AN_ARGUMENT = {"account": ["alice"], "parse": ["-"], "replay": ["log"], "why": ["192.0.2.1"]}
NEEDS_NONE = ("off", "ban", "unban", "import-fail2ban")
"""The first three must work for a locked-out administrator with a broken file; the last creates one."""


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in NEEDS_NONE])
def test_a_bad_configuration_is_exit_code_2(tmp_path: Path, name: str) -> None:
    """Each configuration error is a line on standard error that begins with its key."""
    guard = Guard(tmp_path, firewall={"backend": "pf"}, colour=1)
    done = guard.command(name, *WITH_AN_ARGUMENT.get(name, []), text="")

    assert (done.returncode, done.stdout) == (2, "")
    where, *lines = done.stderr.splitlines()
    assert where == f"{guard.config}:"
    assert sorted(lines) == [
        "  colour: unknown key",
        "  firewall.backend: must be one of " + ", ".join(f'"{name}"' for name in BACKENDS),
    ]


@pytest.mark.parametrize(
    "arguments", [["--version"], ["feeds", "add"], ["config", "check"], ["bans", "--json"]]
)
def test_a_full_disk_for_the_output_is_one_sentence(tmp_path: Path, arguments: list[str]) -> None:
    """If the output cannot be written, standard error has one sentence about it, and no traceback."""
    line = [sys.executable, "-m", "ringfence", *arguments]
    if "--version" not in arguments:
        line += ["--config", str(Guard(tmp_path).config)]
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, check=False)

    last = "the output cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr.endswith(last), "Traceback" in done.stderr) == (1, True, False)


def test_a_defect_of_a_command_is_reported_escaped() -> None:
    """The message of an exception that nothing catches may quote hostile text; typer would print it raw."""
    code = (
        "import sys\nfrom ringfence.cli import app, switch\n"
        "def fail() -> None:\n    raise ValueError(chr(27) + '[2J')\n"
        "switch.on, sys.argv = fail, ['ringfence', 'on']\n"
        "app.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert done.stderr.endswith("ValueError: \\x1b[2J\n"), done.stderr


@pytest.mark.parametrize(
    ("closed", "shown"), [("2>&-", "unbanned: 203.0.113.1\n"), (">&-", ""), ("<&- >&- 2>&-", "")]
)
def test_a_closed_stream_is_no_error(tmp_path: Path, closed: str, shown: str) -> None:
    """A command whose caller has closed its streams does what it shall, and succeeds."""
    with Guard(tmp_path) as guard:
        guard.must("ban", "203.0.113.1")
        line = f"{shlex.join(guard._command_line('unban', '203.0.113.1'))} {closed}"
        done = subprocess.run(
            ["sh", "-c", line], env=guard._environ, capture_output=True, text=True, check=False, timeout=60
        )

        assert (done.returncode, done.stdout, done.stderr) == (0, shown, "")
        assert guard.banned() == set()
