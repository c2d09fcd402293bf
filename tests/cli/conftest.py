"""The commands of these tests run in the process of the test, which takes less time than one for each."""

import os

import pytest
from tests.support.daemon import Completed, Guard
from typer.testing import CliRunner

from ringfence.cli import output
from ringfence.cli.app import app


@pytest.fixture(autouse=True)
def _commands(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a guard's commands in this process, except for a test with the fixture ``processes``."""
    if "processes" not in request.fixturenames:
        monkeypatch.setattr(Guard, "command", _command)


@pytest.fixture
def processes() -> None:
    """Run each command of the test as a process, as an administrator does."""


_started = Guard.command


def _command(guard: Guard, *arguments: str, text: str | None = None) -> Completed:
    """Run a command, and return its result.

    It is a process nevertheless if it becomes the daemon, or has a prefix or an environment of its own.
    """
    changed = {name: value for name, value in guard._environ.items() if os.environ.get(name) != value}
    replaces_itself = arguments[0] == "run"
    if guard._prefix or replaces_itself or changed.keys() - {"PYTHONPATH", "COLUMNS"}:
        return _started(guard, *arguments, text=text)
    line = [*arguments, "--config", str(guard.config)]
    output._unrecorded.clear()  # as in a process of its own; a command that failed may have left something
    done = CliRunner().invoke(app, line, input=text or "", env={"COLUMNS": guard._environ["COLUMNS"]})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Completed(line, done.exit_code, done.stdout, done.stderr)
