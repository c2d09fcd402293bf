"""The command ``setup``: its options."""

from functools import partial
from pathlib import Path

import pytest
from tests.features.setup.world import make_host
from typer.testing import CliRunner

from ringfence.cli.app import app
from ringfence.errors import SetupError
from ringfence.features.setup import command as setup_command
from ringfence.features.setup.texts import HostPaths


@pytest.mark.kernel
def test_each_option_has_its_effect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--dry-run`` only shows, the answer no changes nothing, and ``--undo`` has nothing to do."""
    host = make_host(tmp_path)
    monkeypatch.setattr(setup_command, "HostPaths", lambda config: host.paths)
    monkeypatch.setattr(setup_command, "find", lambda _paths: host.found())
    before = host.digest()

    dry = CliRunner().invoke(app, ["setup", "--dry-run"])
    assert (dry.exit_code, "+++ " in dry.stdout, "Make these changes?" in dry.stdout) == (0, True, False)
    no = CliRunner().invoke(app, ["setup"], input="n\n")
    assert (no.exit_code, no.stdout.endswith("Nothing was changed.\n")) == (0, True)
    undo = CliRunner().invoke(app, ["setup", "--undo"])
    assert (undo.exit_code, undo.stdout) == (
        0,
        "There is nothing to undo: setup has changed nothing on this host.\n",
    )
    assert host.digest() == before


def test_an_error_is_a_line_and_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors are for administrators."""

    def fail(_paths: object) -> None:
        raise SetupError("no running Asterisk is visible here")

    monkeypatch.setattr(setup_command, "find", fail)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(setup_command, "HostPaths", partial(HostPaths, systemd=tmp_path / "none"))
    config = str(tmp_path / "gone.toml")
    done = CliRunner().invoke(app, ["setup", "--yes", "--config", config])

    assert (done.exit_code, done.stderr) == (1, "no running Asterisk is visible here\n")


def test_only_root_can_set_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user gets the fix."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    done = CliRunner().invoke(app, ["setup", "--config", str(tmp_path / "gone.toml")])

    assert (done.exit_code, done.stderr.endswith("fix: run it as root (sudo)\n")) == (1, True)


@pytest.mark.parametrize(
    "options",
    [
        ["--crowdsec-machine", "pbx-a"],
        ["--crowdsec-key-file", "key"],
        ["--undo", "--crowdsec", "http://127.0.0.1:8080"],
    ],
)
def test_options_that_have_no_meaning_together_are_refused(options: list[str]) -> None:
    """Credentials need an API, and the undo takes everything back."""
    assert CliRunner().invoke(app, ["setup", *options]).exit_code == 2
