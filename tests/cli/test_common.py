"""What every command shares: help, the configuration's place, exit codes, and how quickly it all loads."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import typer
from tests.support.daemon import Guard
from typer.testing import CliRunner

from ringfence.cli import app
from ringfence.cli.common import errors_told, networks_from
from ringfence.errors import (
    ConfigError,
    ControlError,
    DaemonUnreachableError,
    FirewallError,
    RingfenceError,
    StoreError,
)
from ringfence.firewall import BACKENDS

COMMANDS = [
    command.callback.__name__.replace("_", "-") for command in app.registered_commands if command.callback
]


def test_these_commands_there_are() -> None:
    """The whole command line."""
    assert sorted(COMMANDS) == [
        "ban",
        "bans",
        "check",
        "confirm",
        "import-fail2ban",
        "off",
        "on",
        "parse",
        "reload",
        "replay",
        "restore",
        "run",
        "status",
        "unban",
        "why",
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_config(name: str) -> None:
    """``--help`` says what it does and names --config."""
    result = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "80"})

    assert result.exit_code == 0
    assert f"ringfence {name}" in result.stdout
    assert "--config" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_help_names_every_command() -> None:
    """Alone, and with --help, the commands are listed."""
    result = CliRunner().invoke(app, ["--help"])

    assert result.exit_code == 0
    assert all(f"  {name} " in result.stdout for name in COMMANDS)


def test_it_says_which_version_it_is() -> None:
    """With nothing else, for reports of defects and after an upgrade."""
    result = CliRunner().invoke(app, ["--version"])

    assert (result.exit_code, result.stdout) == (0, f"ringfence {version('ringfence')}\n")


def test_help_cuts_no_sentence() -> None:
    """Within 80 columns every command's meaning stands whole, those of groups too."""
    for arguments in (["--help"], ["allow", "--help"], ["friends", "--help"]):
        shown = CliRunner().invoke(app, arguments, env={"COLUMNS": "80"}).stdout
        assert "..." not in shown.replace("COMMAND [ARGS]...", "")
        assert max(map(len, shown.splitlines())) <= 80


def test_help_loads_little() -> None:
    """Neither what draws tables nor the daemon's own libraries are loaded to print the help."""
    code = (
        "import sys\nfrom ringfence.cli import app\n"
        "app(['--help'], standalone_mode=False)\n"
        "heavy = {'rich.table', 'ringfence.daemon', 'ringfence.config', 'asyncio', 'sqlite3', 'pyroute2',"
        " 'panoramisk', 'structlog', 'cattrs', 'importlib.metadata'}\n"
        "print(sorted(heavy & sys.modules.keys()), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stderr == "[]\n"


WITH_AN_ARGUMENT = {"parse": ["-"], "replay": ["log"], "why": ["192.0.2.1"]}
NEEDS_NONE = ("off", "ban", "unban", "import-fail2ban")
"""Whoever is locked out needs the first three also beside a mistyped rule; the last makes a configuration."""


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in NEEDS_NONE])
def test_a_bad_configuration_is_exit_code_2(tmp_path: Path, name: str) -> None:
    """Every problem is a line on standard error, beginning with its key."""
    guard = Guard(tmp_path, firewall={"backend": "pf"}, colour=1)
    done = guard.command(name, *WITH_AN_ARGUMENT.get(name, []), text="")

    assert (done.returncode, done.stdout) == (2, "")
    where, *lines = done.stderr.splitlines()
    assert where == f"{guard.config}:"
    assert sorted(lines) == [
        "  colour: unknown key",
        "  firewall.backend: must be one of " + ", ".join(f'"{name}"' for name in BACKENDS),
    ]


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    """The file is named, with the mend."""
    result = CliRunner().invoke(app, ["status", "--config", str(tmp_path / "absent.toml")])

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"{tmp_path}/absent.toml:\n  there is no such file; copy examples/minimal.toml there\n"
    )


def test_the_environment_may_name_the_configuration(tmp_path: Path) -> None:
    """RINGFENCE_CONFIG stands in for --config."""
    result = CliRunner().invoke(app, ["status"], env={"RINGFENCE_CONFIG": str(tmp_path / "named.toml")})

    assert result.exit_code == 2
    assert "named.toml" in result.stderr


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (ConfigError("file", ["a: wrong", "b: wrong"]), 2, "file:\n  a: wrong\n  b: wrong\n"),
        (DaemonUnreachableError("nobody there"), 3, "nobody there\n"),
        (ControlError("refused"), 1, "refused\n"),
        (FirewallError("no answer"), 1, "no answer\n"),
        (StoreError("disk full"), 1, "disk full\n"),
        (RingfenceError("whatever"), 1, "whatever\n"),
    ],
)
def test_what_errors_become(
    capsys: pytest.CaptureFixture[str], error: RingfenceError, code: int, lines: str
) -> None:
    """Each kind of error is its text on standard error and the exit code that it means."""
    with pytest.raises(typer.Exit) as caught, errors_told():
        raise error

    assert caught.value.exit_code == code
    assert capsys.readouterr() == ("", lines)


def test_a_defect_is_not_hidden() -> None:
    """What nobody meant goes on as it is."""
    with pytest.raises(ZeroDivisionError), errors_told():
        _ = 1 / 0


def test_networks_as_typed() -> None:
    """Addresses and networks in the order given; anything else is wrong usage."""
    assert [str(network) for network in networks_from(["192.0.2.1", "2001:db8::/32"])] == [
        "192.0.2.1/32",
        "2001:db8::/32",
    ]
    wrong = "not an address or a network: 'pbx', '192.0.2.1/99'$"
    with pytest.raises(typer.BadParameter, match=wrong):
        networks_from(["pbx", "192.0.2.1", "192.0.2.1/99"])
