"""The present state of all parts, for `status`."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.support.kept import Kept, settings

from ringfence.daemon.reload import Reloader
from ringfence.daemon.status_collector import StatusCollector
from ringfence.firewall.contract import Counters


def test_the_problems_of_all_parts_are_collected(kept: Kept, tmp_path: Path) -> None:
    """Problems of the configuration, the wire, the firewall's side, connections and the writer are listed."""
    kept.side.protected._errors["addresses"] = "no addresses"
    anything: Any = SimpleNamespace()
    sources: Any = SimpleNamespace(active=[], coverage_gaps=lambda: ["pbx: a gap"])
    wire: Any = SimpleNamespace(source=None, problems=["no containers"])
    connections: Any = SimpleNamespace(error="no connections")
    writer: Any = SimpleNamespace(refused=3)
    reloader = Reloader(tmp_path / "none.toml", settings(), anything, kept.side, anything)
    reloader.reload()
    collector = StatusCollector(kept.side, sources, wire, reloader, connections, writer, kept.clock)
    data = collector.collect(Counters())

    assert data.unseen == ["pbx: a gap"]
    refused, *others = data.problems
    assert refused.startswith("the new configuration is refused")
    assert others == [
        "no containers",
        "no addresses",
        "no connections",
        "the disk is too slow: 3 bans or ends of bans are not recorded",
    ]
