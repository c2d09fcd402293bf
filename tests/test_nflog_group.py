"""A second group of NFLOG with its source is a folder and the row of the street, in a copy of ringfence."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.docs import pages
from tests.support.copies import copy_without

FILES = {
    "__init__.py": '"""Packets of media, as the kernel copies them."""\n',
    "settings.py": """
from attrs import frozen
from ringfence.features.media.stage import Media

@frozen
class MediaSettings:
    enabled: bool = False

TABLE = MediaSettings
RESTART = True

def with_rules(plan, settings):
    return plan.adding(Media(settings.of(MediaSettings).enabled))
""",
    "stage.py": """
from attrs import frozen
from ringfence.firewall.limits import Addition
from ringfence.firewall.ports import Ports
from ringfence.firewall.stages import Copy, Hook, PacketRule, Side, Stage

GROUP = 21_064

@frozen
class Media(Addition):
    name = "media"
    on: bool = False

    @property
    def copies(self):
        return self.on

    def stages(self, plan):
        rules = (PacketRule((Ports((10_000,), ()),), Copy("media", group=GROUP)),)
        yield Stage(self.name, "copies packets of media", Side.FROM, (Hook.ARRIVING,), rules, on=self.on)

ADDITIONS = (Media(),)
""",
    "guard.py": """
from ringfence.features.media.settings import MediaSettings
from ringfence.features.media.stage import GROUP
from ringfence.sources.nflog import NflogSource

class MediaSource(NflogSource):
    read = 0

    def on_packet(self, message, now):
        self.read += 1

def build(given):
    if given.reloader.settings.of(MediaSettings).enabled:
        given.sources.add(MediaSource("media", GROUP))
""",
}
"""The files of the feature. Its parser would be in ``guard.py``, or in a file of ``parse/``."""
PROGRAM = """
import json, sys
from pathlib import Path
from ringfence.config.loader import load
from ringfence.detect.detector import Detector
from ringfence.clock import Clock
from ringfence.features.metrics.collector import DaemonMetrics
from ringfence.firewall.contract import Counters, Fragments
from ringfence.firewall.ipset.iptables_rules import wanted_rules
from ringfence.firewall.nftables.ruleset import default_ban_sets, ruleset, ruleset_text
from ringfence.guard.daemon import build_daemon
from ringfence.guard.firewall_side import build_firewall_side, choose
from ringfence.guard.status import status_report
from ringfence.host.connections import ConnectionTable
from ringfence.store.database import Store

class Late(Clock):
    passed = 0.0

    def mono(self):
        return self.passed

CLOCK = Late()
path = Path(sys.argv[1])
settings = load(path, secrets=False)
plan = settings.plan(None)
chains = wanted_rules(plan, 4, fragments=Fragments.REASSEMBLED)["raw"].values()
with Store.open(settings.store.path, owner=True) as store:
    side = build_firewall_side(settings, store, Detector(settings.rule_table()), choose(settings), CLOCK)
    daemon = build_daemon(path, settings, side, ConnectionTable(), {})
    daemon._sources.check()
    CLOCK.passed = 6.0
    daemon._sources.check()
    report = status_report(side.kernel.enforcer, daemon._status.collect(Counters()))
    metrics = DaemonMetrics(side, daemon._sources._pipeline, daemon._sources, None, ()).render().decode()
print(json.dumps({
    "nftables": "group 21064" in ruleset_text(ruleset(plan, default_ban_sets())),
    "iptables": any("--nflog-group 21064" in rule.text for rules in chains for rule in rules),
    "status": [one for one in report["sources"] if one["name"] == "media"],
    "alarms": [one["code"] for one in report["alarms"] if one["subject"] == "media"],
    "metrics": 'ringfence_source_up{source="media"} 0.0' in metrics,
}))
"""


def run(folder: Path, configuration: str) -> dict[str, Any]:
    """Return what a copy with the feature has of its group, with this configuration."""
    copied = copy_without([], folder)
    street = copied / "ringfence" / "street.py"
    text = street.read_text("utf-8")
    text = text.replace("STREET = {", 'STREET = {"media": "packets of media",')
    street.write_text(text.replace("SETTINGS = {", 'SETTINGS = {"media": "media",'), "utf-8")
    (copied / "ringfence" / "features" / "media").mkdir()
    for name, content in FILES.items():
        (copied / "ringfence" / "features" / "media" / name).write_text(content, "utf-8")
    file = folder / "ringfence.toml"
    places = f'store.path = "{folder}/ringfence.db"\ncontrol.socket = "{folder}/control.sock"\n'
    file.write_text(f'{places}firewall.backend = "memory"\n{configuration}', "utf-8")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(file)],
        env={**os.environ, "PYTHONPATH": str(copied)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_group_is_declared_in_one_folder(tmp_path: Path) -> None:
    """Both backends copy to it; the status, the metrics and the alarm of a silent source have its source."""
    assert run(tmp_path, "media.enabled = true\n") == {
        "nftables": True,
        "iptables": True,
        "status": [
            {
                "name": "media",
                "state": "connecting",
                "detail": "",
                "events": 0,
                "tampered": 0,
                "garbled": 0,
                "dropped_bytes": 0,
                "lost": 0,
            }
        ],
        "alarms": ["source.silent"],
        "metrics": True,
    }


def test_the_recipe_names_its_files() -> None:
    """The recipe for a source names the files of the feature, and the one outside its folder."""
    recipe = pages.section_of(pages.text_of("docs/architecture.md"), "## Add a source")
    named = set(re.findall(r"`(\w+\.py)`", recipe))
    assert named | {"__init__.py"} == {*FILES, "street.py"}


def test_it_is_off_by_default(tmp_path: Path) -> None:
    """Without its key nothing is copied, and nothing is read."""
    found = run(tmp_path, "")
    assert found == {"nftables": False, "iptables": False, "status": [], "alarms": [], "metrics": False}
