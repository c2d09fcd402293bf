"""The present state of all parts, for `status`."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.support.kept import Kept, settings

from ringfence.alarm_codes import Alarm, AlarmCode
from ringfence.firewall.contract import Counters
from ringfence.guard.reload import Reloader
from ringfence.guard.status import StatusCollector


def test_the_alarms_of_all_parts_are_collected(kept: Kept, tmp_path: Path) -> None:
    """Alarms of the configuration, the wire, the firewall's side and connections are held."""
    kept.side.exempt.protected._errors["addresses"] = "no addresses"
    anything: Any = SimpleNamespace()
    sources: Any = SimpleNamespace(active=[], others=[], coverage_gaps=lambda: ["pbx: a gap"])
    containers = Alarm(AlarmCode.HOST_UNREADABLE, "containers", "no containers")
    wire: Any = SimpleNamespace(source=None, alarms=[containers])
    connections: Any = SimpleNamespace(error="no connections", retry=lambda: None)
    reloader = Reloader(tmp_path / "none.toml", settings(), anything, kept.side, anything)
    reloader.reload()
    collector = StatusCollector(kept.side, sources, wire, reloader, connections)
    data = collector.collect(Counters())

    assert data.unseen == ["pbx: a gap"]
    assert data.alarm_counts[AlarmCode.HOST_UNREADABLE] == 3
    assert {(alarm.code, alarm.subject): alarm.text for alarm in data.alarms} == {
        ("configuration.refused", str(tmp_path / "none.toml")): (
            "the new configuration is refused, the old one stays: "
            "there is no such file; fix: copy examples/minimal.toml there"
        ),
        ("host.unreadable", "containers"): "no containers",
        ("host.unreadable", "addresses"): "no addresses",
        ("host.unreadable", "connections"): "no connections",
        ("firewall.off", ""): "no address is banned; switch it on with: ringfence on",
    }
