"""``ringfence setup --crowdsec`` on a machine with systemd, a real Asterisk, and the CrowdSec of Debian."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.crowdsec import PORT, needs_crowdsec, tree
from tests.support.daemon import until
from tests.support.network import Network
from tests.support.pbx_machine import PbxMachine, differing, digest_of, pbx_machine
from tests.support.setup_commands import SOURCES, WATCHED, proven, undo

pytestmark = [pytest.mark.asterisk, pytest.mark.kernel]

URL = f"http://127.0.0.1:{PORT}"
NAME = "pbx-a"
OTHER = "198.18.9.9"
"""An address that an administrator bans at CrowdSec."""
JOIN = ("ringfence", "setup", "--yes", "--crowdsec", URL, "--crowdsec-machine", NAME)


@pytest.fixture(name="machine")
def _machine(tmp_path: Path, package: Path) -> Iterator[PbxMachine]:
    """Yield a machine with the package of CrowdSec."""
    needs_crowdsec()
    with Network() as network, pbx_machine(tmp_path, network) as machine:
        machine.install(package)
        install_crowdsec(machine)
        yield machine


def install_crowdsec(machine: PbxMachine) -> None:
    """Install and start CrowdSec as Debian does, without an account at its makers."""
    deb = next(tree().glob("crowdsec_*.deb"))
    shutil.copy(deb, machine.root / "root")
    account = machine.root / "etc/crowdsec/online_api_credentials.yaml"
    account.parent.mkdir(parents=True)
    account.write_text("# none\n", "utf-8")
    machine.must("dpkg", "--install", "--force-depends", f"/root/{deb.name}")
    machine.must("systemctl", "restart", "crowdsec")
    listens = ("bash", "-c", f": </dev/tcp/127.0.0.1/{PORT}")
    until(lambda: machine.run(*listens).returncode == 0, "CrowdSec's local API")


def registered(machine: PbxMachine) -> list[str]:
    """Return the names of the machines and the bouncers that have the name of the host."""
    rows = [*listed(machine, "machines"), *listed(machine, "bouncers")]
    return [name for row in rows if (name := row.get("machineId") or row["name"]) == NAME]


def listed(machine: PbxMachine, what: str) -> list[dict[str, Any]]:
    """Return what ``cscli`` lists."""
    rows: list[dict[str, Any]] = json.loads(machine.must("cscli", what, "list", "--output", "json")) or []
    return rows


def test_one_command_sets_up_and_joins(machine: PbxMachine) -> None:
    """Sources and API are proven, a ban at CrowdSec is applied, and undo leaves no trace of the host."""
    before = digest_of(machine.root, *WATCHED)
    done = machine.must(*JOIN)

    assert proven(done) == SOURCES
    assert f"ok  crowdsec: {URL} stores and returns decisions of {NAME}\n" in done
    assert f"ok  fleet: the daemon sends to {URL}, and reads from it\n" in done
    assert registered(machine) == [NAME, NAME]
    files = "/etc/ringfence/crowdsec.password", "/etc/ringfence/crowdsec.key"
    assert machine.must("stat", "-c", "%U:%G %a", *files) == "root:ringfence 640\n" * 2
    assert "No file has to be changed." in machine.must(*JOIN)
    machine.must("cscli", "decisions", "add", "--ip", OTHER, "--duration", "1h")
    decided = ("nft", "list", "set", "inet", "ringfence", "decided4")
    until(lambda: OTHER in machine.must(*decided), "the decision in the kernel", pause=0.2)
    machine.must("cscli", "decisions", "delete", "--ip", OTHER)
    until(lambda: OTHER not in machine.must(*decided), "its end in the kernel", pause=0.2)

    undo(machine)
    assert registered(machine) == []
    assert differing(before, digest_of(machine.root, *WATCHED)) == []
