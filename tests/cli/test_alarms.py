"""``ringfence alarms``, with the daemon up and down."""

import json
from pathlib import Path

from tests.support.daemon import Guard, until


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
