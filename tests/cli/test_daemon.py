"""``ringfence run``: the command that becomes the daemon."""

import os
import sys
from pathlib import Path

import pytest
from tests.support.daemon import Guard
from typer.testing import CliRunner

from ringfence.cli import app


def test_the_command_becomes_the_daemon(tmp_path: Path) -> None:
    """The process that was started is the daemon, under the id that it was started with."""
    with Guard(tmp_path) as guard:
        words = Path(f"/proc/{guard.pid}/cmdline").read_bytes().split(b"\0")

    assert words[1:] == [b"-P", b"-m", b"ringfence.service", os.fsencode(guard.config), b"20", b""]
    assert "python" in words[0].decode()


@pytest.mark.parametrize(("options", "level"), [((), "20"), (("--verbose",), "10"), (("-v",), "10")])
def test_verbose_is_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], level: str
) -> None:
    """What the daemon is to log is the level that the option means."""
    called: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _, arguments: called.append(arguments))
    result = CliRunner().invoke(app, ["run", *options, "--config", str(tmp_path / "file.toml")])

    assert result.exit_code == 0
    assert called == [[sys.executable, "-P", "-m", "ringfence.service", str(tmp_path / "file.toml"), level]]


def test_it_does_not_import_from_where_it_is_started(tmp_path: Path) -> None:
    """A file named like a library in the folder that it is started in is not read."""
    (tmp_path / "structlog.py").write_text("raise SystemExit('hijacked')", "utf-8")
    guard = Guard(tmp_path, prefix=["env", "-C", str(tmp_path)])
    with guard:
        assert "hijacked" not in guard.log
