"""``ringfence history``: a chart for people, and JSON for scripts."""

import json
import time
from pathlib import Path

import pytest
from tests.features.history.test_text import history
from tests.support.daemon import Guard

from ringfence.cli import output
from ringfence.cli.output import text_form
from ringfence.features.history.table import Timeline
from ringfence.features.history.text import history_lines
from ringfence.store.database import Store


def test_times_can_be_local(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``--local`` or the configuration's choice, the times are those of the terminal."""
    monkeypatch.setenv("TZ", "TST-5")
    time.tzset()
    output.configure("local")
    try:
        first = next(history_lines(history([]), text_form()))
    finally:
        output.configure("utc")
        monkeypatch.undo()
        time.tzset()

    assert first == "2026-11-20 17:00 to 2026-11-21 17:00 LOCAL, 30m a column"


def test_the_command_asks_the_daemon_or_the_database(tmp_path: Path) -> None:
    """With the daemon down, the command shows what it has recorded, with a note."""
    guard = Guard(tmp_path)
    with Store.open(tmp_path / "ringfence.db", owner=True) as store:
        Timeline(store.connection).add(time.time() - 600, 60.0, {"bans.guess": 3})
    down = guard.command("history", "--json")
    with guard:
        up = guard.command("history", "--json")
        shown = guard.command("history", "--since", "1h", "--local")

    assert (down.returncode, down.stderr) == (
        0,
        "The daemon does not answer: this is what it has recorded.\n",
    )
    assert (up.returncode, up.stderr) == (0, "")
    assert json.loads(down.stdout)["totals"]["bans"] == {"guess": 3}
    assert json.loads(up.stdout)["totals"]["bans"] == {"guess": 3}
    assert any(line.split()[:3] == ["bans", "guess", "3"] for line in shown.stdout.split("\n"))


def test_without_a_daemon_and_without_a_database_there_is_no_history(tmp_path: Path) -> None:
    """If there is nothing to read, the error is that the daemon does not answer."""
    done = Guard(tmp_path).command("history")

    assert done.returncode == 3
    assert "no daemon" in done.stderr
    assert not (tmp_path / "ringfence.db").exists()


def test_a_wrong_time_is_refused(tmp_path: Path) -> None:
    """The time to look back must be a duration."""
    done = Guard(tmp_path).command("history", "--since", "yesterday")

    assert done.returncode == 2
    assert "--since" in done.stderr
