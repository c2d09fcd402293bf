"""A whole CrowdSec for an Asterisk: it reads the log, decides, and its firewall bouncer bans.

The collection for Asterisk is that of the hub in Debian's package. ``cscli`` would download it again.
"""

import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.support.crowdsec import KEY_OF, CrowdSec, tree
from tests.support.daemon import until
from tests.support.lab import Lab

_ITEMS = (
    "parsers/s00-raw/crowdsecurity/syslog-logs.yaml",
    "parsers/s01-parse/crowdsecurity/asterisk-logs.yaml",
    "parsers/s02-enrich/crowdsecurity/dateparse-enrich.yaml",
    "scenarios/crowdsecurity/asterisk_bf.yaml",
    "scenarios/crowdsecurity/asterisk_user_enum.yaml",
)
"""The collection crowdsecurity/asterisk, and the parsers that read any log file."""
_NAME = "bouncer"
_READY = "Processing new and deleted decisions"
"""In the log of the bouncer."""
_BOUNCER = """\
mode: nftables
pid_dir: {folder}/
update_frequency: 1s
daemonize: false
log_mode: stdout
log_dir: {folder}/
log_level: info
api_url: {url}/
api_key: {key}
disable_ipv6: false
deny_action: DROP
deny_log: false
supported_decisions_types: [ban]
nftables:
  ipv4: {{enabled: true, set-only: false, table: crowdsec, chain: crowdsec-chain}}
  ipv6: {{enabled: true, set-only: false, table: crowdsec6, chain: crowdsec6-chain}}
blacklists_ipv4: crowdsec-blacklists
blacklists_ipv6: crowdsec6-blacklists
prometheus: {{enabled: false}}
"""


class AcquiringCrowdSec(CrowdSec):
    """CrowdSec that also reads a log of Asterisk; it has no account at CrowdSec's central API."""

    _parts = ()

    def __init__(self, folder: Path, log: Path) -> None:
        super().__init__(folder)
        hub = tree() / "usr/share/crowdsec/hub"
        (folder / "hub/.index.json").unlink()
        (folder / "hub").rmdir()
        (folder / "hub").symlink_to(hub)
        (folder / "patterns").symlink_to(tree() / "etc/crowdsec/patterns")
        for item in _ITEMS:
            kind, *stage, _, name = item.split("/")
            place = Path(folder, kind, *stage, name)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(hub / item)
        (folder / "acquis.yaml").write_text(f"filenames: [{log}]\nlabels: {{type: asterisk}}\n", "utf-8")

    @property
    def reads(self) -> bool:
        """Whether it reads the log."""
        return "Starting processing data" in (self._folder / "crowdsec.log").read_text("utf-8", "replace")

    def import_bans(self, addresses: Sequence[str]) -> None:
        """Ban addresses for a day, as an administrator does with a list."""
        listed = self._folder / "bans.csv"
        listed.write_text("duration,scope,value\n" + "".join(f"24h,ip,{one}\n" for one in addresses), "utf-8")
        self.cscli("decisions", "import", "-i", str(listed))


class Bouncer:
    """CrowdSec's firewall bouncer in Asterisk's namespace."""

    def __init__(self, folder: Path, api: CrowdSec, lab: Lab) -> None:
        self._lab = lab
        self._log = folder / "bouncer.log"
        self._config = folder / "bouncer.yaml"
        self._stop = ExitStack()
        self.pid = 0
        """Its process id, while it runs."""
        api.register(_NAME)
        self._config.write_text(
            _BOUNCER.format(folder=folder, url=api.url, key=KEY_OF.format(_NAME)), "utf-8"
        )

    @staticmethod
    def tree() -> Path:
        """Return the folder of the unpacked bouncer, which may not exist yet."""
        return tree().with_name("crowdsec-firewall-bouncer")

    def start(self) -> None:
        """Start it, and wait until the kernel has its rules."""
        program = self.tree() / "usr/bin/crowdsec-firewall-bouncer"
        process = self._lab.start(str(program), "-c", str(self._config), log=self._log)
        self._stop.callback(process.wait, 30)
        self._stop.callback(process.terminate)
        self.pid = process.pid
        until(lambda: _READY in self._log.read_text("utf-8", "replace"), "the bouncer")

    def stop(self) -> None:
        """Stop it: it removes its rules."""
        self._stop.close()

    def banned(self) -> set[str]:
        """Return the addresses in the kernel's set."""
        listed = self._lab.run("nft", "list", "set", "ip", "crowdsec", "crowdsec-blacklists")
        return set(re.findall(r"\b\d+\.\d+\.\d+\.\d+\b", listed))
