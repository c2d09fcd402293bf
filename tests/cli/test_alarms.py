"""``ringfence alarms``, with the daemon up and down."""

import json
import time
from pathlib import Path

import pytest
from tests.support.daemon import Guard, until

from ringfence.alarm_codes import AlarmCode
from ringfence.alarms import AlarmRecord
from ringfence.store.database import Store


def test_the_life_of_an_alarm(tmp_path: Path) -> None:
    """An alarm is dismissed with the name, over a restart, and is past when it clears."""
    guard = Guard(tmp_path)
    with guard:
        until(lambda: guard.ask("alarms"), "the alarm")
        assert "firewall.dry_run" in guard.must("alarms")
        rows = json.loads(guard.must("alarms", "--json"))
        number = next(str(row["number"]) for row in rows if row["code"] == "firewall.dry_run")
        assert "dismissed: " in guard.must("alarms", "dismiss", number, "--by", "alice")
        assert "firewall.dry_run" not in guard.must("status")
        assert guard.command("alarms", "dismiss", "999").returncode == 1
        assert guard.command("alarms", "dismiss", "x").returncode == 2
    assert "by alice" in guard.must("alarms")
    with guard:
        guard.must("off")
        until(lambda: "firewall.off" in guard.must("status"), "another alarm", pause=0.2)
        assert "firewall.dry_run" not in guard.must("status")
        guard.must("on")
        until(lambda: "firewall.off" in guard.must("alarms", "--past"), "the end", pause=0.2)
        assert "cleared" in guard.must("alarms", "--past", "--since", "1h", "--local")


def test_a_list_that_is_cut_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If as many alarms cleared as an answer may have, a note says that only the latest are listed."""
    for module in ("cli.alarms", "guard.offline"):
        monkeypatch.setattr(f"ringfence.{module}.MOST_PAST", 2)
    now = time.time()
    with Store.open(tmp_path / "ringfence.db", owner=False) as store:
        store.alarms.record(
            AlarmRecord(number, AlarmCode.FIREWALL_OFF, "", "a text", now, now, cleared=now)
            for number in (1, 2, 3)
        )
    done = Guard(tmp_path).command("alarms", "--past")

    assert (done.returncode, done.stdout.count("a text")) == (0, 2)
    assert "Only the latest 2 are listed.\n" in done.stderr
