"""``ringfence config``: the effective configuration, and the check of a file."""

import json
import tomllib
from pathlib import Path

import pytest
from tests.docs.pages import ROOT
from typer.testing import CliRunner, Result

from ringfence.cli.app import app
from ringfence.config.loader import load, parse

CLEAR = "hunter2-correct-horse"
FULL = ROOT / "examples" / "full.toml"


def invoke(*arguments: str, **variables: str) -> Result:
    """Run ``ringfence config`` with these variables."""
    environ = {f"RINGFENCE_{name}": value for name, value in variables.items()}
    return CliRunner().invoke(app, ["config", *arguments], env=environ)


def written(folder: Path, text: str) -> str:
    """Write a configuration, and return its path."""
    file = folder / "ringfence.toml"
    file.write_text(text, "utf-8")
    return str(file)


def test_show_is_toml_with_origins(tmp_path: Path) -> None:
    """Each value stands in its table, with the line, the variable or the default behind it."""
    file = written(tmp_path, f'[[asterisk]]\nname = "a"\n[asterisk.ami]\nsecret = "{CLEAR}"\n')
    done = invoke("show", "--config", file, FIREWALL__MAX_BANS="1048576")

    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith(f"# The configuration of {file}. A line is a line of this file.\n\n")
    lines = [" ".join(line.split()) for line in done.stdout.split("\n")]
    assert lines[2:9] == [
        "[[asterisk]]",
        'name = "a" # line 2',
        "proxies = [] # default",
        "guests = false # default",
        "",
        "[asterisk.ami]",
        "enabled = true # default",
    ]
    assert {
        'secret = "***" # line 4',
        "#secret_file = none # default",
        "max_bans = 1048576 # RINGFENCE_FIREWALL__MAX_BANS",
    } <= {*lines}
    assert CLEAR not in done.stdout


def test_show_prints_a_configuration_with_the_same_effect(tmp_path: Path) -> None:
    """The output, read as a configuration, results in the same settings."""
    text = FULL.read_text("utf-8") + '\n[[asterisk]]\nname = "b"\n[[asterisk.logs.custom]]\nname = "guests"\n'
    file = written(tmp_path, text + 'pattern = "äöü \\"quoted\\" \\\\ {address}"\n')
    done = invoke("show", "--config", file)

    again = parse(tomllib.loads(done.stdout), "output", {}, secrets=False)

    assert again == load(Path(file), {}, secrets=False)


def test_show_as_json(tmp_path: Path) -> None:
    """Each key is an object with its value and its origin."""
    file = written(tmp_path, "[firewall]\nlog = true\n")
    shown = json.loads(invoke("show", "--json", "--config", file, STORE__PATH="/srv/db").stdout)
    values = {value.pop("key"): value for value in shown["values"]}

    assert shown["file"] == file
    assert values["firewall.log"] == {"value": True, "origin": "file", "line": 2, "variable": None}
    assert values["store.path"] == {
        "value": "/srv/db",
        "origin": "environment",
        "line": None,
        "variable": "RINGFENCE_STORE__PATH",
    }
    assert values["asterisk[0].ami.tls_ca"] == {
        "value": None,
        "origin": "default",
        "line": None,
        "variable": None,
    }


def test_show_of_hostile_text_is_escaped(tmp_path: Path) -> None:
    """Text that would change the terminal is escaped."""
    file = written(tmp_path, '[rules.decoy]\naccounts = ["a\\u202Eb"]\n')

    assert "\\u202e" in invoke("show", "--config", file).stdout


@pytest.mark.parametrize("command", ["show", "check"])
def test_all_mistakes_are_printed(tmp_path: Path, command: str) -> None:
    """Both commands print every mistake of the file and of the variables, and exit with code 2."""
    file = written(tmp_path, "[firewall]\nlog = 1\nbackened = 'auto'\n")
    done = invoke(command, "--config", file, STORE__PATH="here", OTHER="1")

    assert (done.exit_code, done.stdout) == (2, "")
    fix = "unset it; docs/configuration.md has the rule for the names"
    assert done.stderr.split("\n")[:5] == [
        f"{file}:",
        f"  RINGFENCE_OTHER: sets no key of the configuration; fix: {fix}",
        "  firewall.log: must be true or false",
        "  firewall.backened: unknown key; is backend meant?",
        "  RINGFENCE_STORE__PATH: must be an absolute path",
    ]


def test_check_of_a_file(tmp_path: Path) -> None:
    """A file without mistakes is accepted; its secret must be readable, unless it is for another host."""
    file = written(tmp_path, "[[asterisk]]\nami.secret_file = '/nonexistent/secret'\n")

    done = invoke("check", file)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "secret_file: /nonexistent/secret cannot be read" in done.stderr
    done = invoke("check", file, "--without-secrets")
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"{file}: no mistakes\n", "")
    done = invoke("check", "--config", file, ASTERISK__AMI__SECRET=CLEAR)
    assert (done.exit_code, done.stdout) == (0, f"{file}: no mistakes\n")


def test_check_of_an_absent_file(tmp_path: Path) -> None:
    """A file that does not exist is a mistake."""
    done = invoke("check", str(tmp_path / "absent.toml"))

    assert (done.exit_code, done.stdout) == (2, "")
    assert "there is no such file" in done.stderr
