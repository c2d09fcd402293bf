"""``ringfence run``, which becomes the daemon, and ``reload``."""

import os
import sys
from pathlib import Path

import pytest
from tests.support.daemon import Guard
from typer.testing import CliRunner

from ringfence import SERVICE
from ringfence.cli.app import app


def test_the_command_becomes_the_daemon(tmp_path: Path, cold: None) -> None:
    """The started process becomes the daemon and keeps its process id."""
    with Guard(tmp_path) as guard:
        words = Path(f"/proc/{guard.pid}/cmdline").read_bytes().split(b"\0")

    assert words[1:] == [*map(os.fsencode, SERVICE), os.fsencode(guard.config), b"20", b""]
    assert "python" in words[0].decode()


@pytest.mark.parametrize(("options", "level"), [((), "20"), (("--verbose",), "10"), (("-v",), "10")])
def test_verbose_is_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], level: str
) -> None:
    """--verbose sets the daemon's log level."""
    called: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _, arguments: called.append(arguments))
    result = CliRunner().invoke(app, ["run", *options, "--config", str(tmp_path / "file.toml")])

    assert result.exit_code == 0
    assert called == [[sys.executable, *SERVICE, str(tmp_path / "file.toml"), level]]


def test_a_reload_reports_the_result(tmp_path: Path) -> None:
    """A valid configuration is in force when the command ends; changes that need a restart are named."""
    with Guard(tmp_path) as guard:
        guard.configure(rules={"enumeration": {"enabled": False}}, firewall={"backend": "auto"})
        done = guard.command("reload")

        assert (done.returncode, done.stdout) == (0, "the new configuration is in force\n")
        assert done.stderr == "[firewall] backend changed: restart ringfence\n"
        assert guard.status()["rules"]["off"] == ["enumeration"]


def test_a_reload_names_every_mistake_and_fails(tmp_path: Path) -> None:
    """An invalid configuration is refused with exit code 2, each error on a line of its own."""
    with Guard(tmp_path) as guard:
        guard.configure(rules={"guess": {"attempts": 0, "ban": "1 hour"}})
        done = guard.command("reload")

        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.splitlines() == [
            "the new configuration is invalid; the old one stays in force",
            f"{guard.config}:",
            "  rules.guess.attempts: must be a whole number from 1 to 1000",
            '  rules.guess.ban: must be a duration such as "90s", "10m", "1h30m" or "7d", at most ten years',
        ]
        assert guard.running


def test_a_reload_needs_the_daemon(tmp_path: Path) -> None:
    """Without a daemon a reload fails."""
    done = Guard(tmp_path).command("reload")

    assert (done.returncode, done.stdout) == (3, "")
    assert "start it: systemctl start ringfence" in done.stderr


def test_it_does_not_import_from_where_it_is_started(tmp_path: Path) -> None:
    """A file in the current folder that is named like a library is not imported."""
    (tmp_path / "structlog.py").write_text("raise SystemExit('hijacked')", "utf-8")
    guard = Guard(tmp_path, prefix=["env", "-C", str(tmp_path)])
    with guard:
        assert "hijacked" not in guard.log
